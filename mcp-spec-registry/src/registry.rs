//! The registry's service: what every plane (agents, effect servers, humans) asks for, decided on what is stored.
//!
//! It knows no MCP and no HTTP. Its methods block on the store; adapters call them through `spawn_blocking`.

mod approval_types;
mod approvals;
mod checking;
mod clockwork;
mod credentials;
mod effects;
mod error;
mod execution;
mod runs;
mod specifications;
mod strength;
mod texts;
mod work;

#[cfg(test)]
mod tests;

pub use approval_types::*;
pub use effects::BegunAction;
pub use error::RegistryError;
pub(crate) use execution::blocking;
pub use execution::{BegunStep, ExecutionBegun, GenerationCompleted, TestBefore};
pub use runs::{PlanAccepted, RunRequest, RunView};
pub use specifications::{FoundSpecification, FoundSpecifications, StoredSpecification};
pub use strength::{Peers, strength};
pub use work::WorkBoard;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::json;
use shared::{digest::Digest, effect::protocol::SignedHead};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    checks::Engine,
    keys::Keys,
    plan::Plan,
    run::{RunRecord, transition::Limits},
    store::{Change, ServiceRow, Store, StoreError},
};

/// Tells the time; tests tell another.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// Most times a change is decided anew because another process changed the run in between.
const MOST_TRIES: usize = 16;

/// The registry's service. Clones share one state.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    limits: Limits,
    clock: Clock,
    engine: Engine,
    /// Where the approval page is, once it listens.
    page: Mutex<Option<String>>,
    work: WorkBoard,
    peers: Mutex<Peers>,
    plans: Mutex<HashMap<Digest, Arc<Plan>>>,
    /// Services as they last said hello; a declaration of all tools takes longer to read than all else that a call asks for.
    services: Mutex<HashMap<String, Arc<ServiceRow>>>,
    /// Runs whose plan and approval were proven by this process, with the digest of the plan.
    proven: Mutex<HashSet<(String, Digest)>>,
    /// First view of each checkpoint, by checkpoint.
    viewed: Mutex<HashMap<String, OffsetDateTime>>,
    /// Last record number of each effect server's process, by service and process.
    sequences: Mutex<HashMap<(String, String), u64>>,
    /// Changes of runs are decided one after the other in this process; only other processes can then conflict.
    writing: Mutex<()>,
    changes: watch::Sender<u64>,
}

impl Registry {
    /// A registry over a store, with its keys.
    pub fn new(
        store: Arc<dyn Store>,
        keys: Arc<Keys>,
        limits: Limits,
        clock: Clock,
        engine: Engine,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            keys,
            limits,
            clock,
            engine,
            page: Mutex::default(),
            work: WorkBoard::default(),
            peers: Mutex::default(),
            plans: Mutex::default(),
            services: Mutex::default(),
            proven: Mutex::default(),
            viewed: Mutex::default(),
            sequences: Mutex::default(),
            writing: Mutex::default(),
            changes: watch::Sender::new(0),
        }))
    }

    /// Raised by every commit; waiters look again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// What the registry wants of effect servers.
    pub fn work(&self) -> &WorkBoard {
        &self.0.work
    }

    /// Says where the approval page listens, such as `http://localhost:41874`.
    pub fn set_page(&self, address: String) {
        *lock(&self.0.page) = Some(address);
    }

    /// Where the approval page listens.
    pub fn page(&self) -> Option<String> {
        lock(&self.0.page).clone()
    }

    /// Everything on record about a run.
    ///
    /// # Errors
    /// `RUN_NOT_FOUND`.
    pub fn record(&self, run_id: &str) -> Result<RunRecord, RegistryError> {
        let record = self.0.store.run(run_id)?;
        record.ok_or_else(|| run_not_found(run_id))
    }

    /// The plan with this digest, whose bytes are what was submitted.
    pub(crate) fn plan(&self, digest: &Digest) -> Result<Arc<Plan>, RegistryError> {
        if let Some(plan) = lock(&self.0.plans).get(digest) {
            return Ok(Arc::clone(plan));
        }
        let body = self.plan_json(digest)?;
        let plan: Plan =
            serde_json::from_str(&body).map_err(|_| unproven("plan", digest.as_str()))?;
        let plan = Arc::new(plan);
        let mut plans = lock(&self.0.plans);
        // Plans are immutable; forgetting them all costs only a read.
        if plans.len() >= 64 {
            plans.clear();
        }
        plans.insert(digest.clone(), Arc::clone(&plan));
        Ok(plan)
    }

    fn plan_json(&self, digest: &Digest) -> Result<String, RegistryError> {
        let body = self
            .0
            .store
            .plan_body(digest)?
            .ok_or_else(|| unproven("plan", digest.as_str()))?;
        if Digest::of(&body) == *digest {
            Ok(body)
        } else {
            Err(unproven("plan", digest.as_str()))
        }
    }

    /// Records that an agent called a tool that does not exist.
    ///
    /// # Errors
    /// A failing store.
    pub fn record_unknown_tool(&self, agent: &str, tool: &str) -> Result<(), RegistryError> {
        let actor = format!("agent:{agent}");
        let payload = json!({ "tool": tool });
        self.note(effects::draft(&actor, "call.unknown_tool", &actor, payload))
    }

    fn now(&self) -> OffsetDateTime {
        (self.0.clock)()
    }

    fn commit(&self, change: &Change) -> Result<SignedHead, StoreError> {
        let head = self.0.store.commit(change)?;
        self.0.changes.send_modify(|count| *count += 1);
        Ok(head)
    }

    /// Decides a change of a run on fresh rows and writes it, again if another process was faster.
    fn update<T>(
        &self,
        run_id: &str,
        decide: impl Fn(&RunRecord) -> Result<(T, Option<Change>), RegistryError>,
    ) -> Result<T, RegistryError> {
        let (result, _) = self.update_read(|| self.record(run_id), decide)?;
        Ok(result)
    }

    /// As [`Registry::update`], on the rows that `read` gives; also gives the audit's head if something was written.
    fn update_read<R, T>(
        &self,
        read: impl Fn() -> Result<R, RegistryError>,
        decide: impl Fn(&R) -> Result<(T, Option<Change>), RegistryError>,
    ) -> Result<(T, Option<SignedHead>), RegistryError> {
        let _writing = lock(&self.0.writing);
        for _ in 0..MOST_TRIES {
            let (result, change) = decide(&read()?)?;
            let Some(change) = change else {
                return Ok((result, None));
            };
            match self.commit(&change) {
                Ok(head) => return Ok((result, Some(head))),
                Err(StoreError::Conflict(what)) if what.starts_with("run ") => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RegistryError::new(
            "BUSY",
            "the run changes too fast",
            "call again in a moment",
        ))
    }
}

fn run_not_found(run_id: &str) -> RegistryError {
    RegistryError::new(
        "RUN_NOT_FOUND",
        format!(
            "there is no run `{}`",
            shared::visible::machine(run_id, false)
        ),
        "call run_list to see the runs",
    )
}

/// A row whose signature or digest does not hold: somebody wrote to the database by hand.
fn unproven(what: &str, which: &str) -> RegistryError {
    RegistryError::new(
        "RECORD_UNPROVEN",
        format!("the stored {what} {which} does not carry the registry's own proof"),
        "somebody changed the database by hand; run `mcp-spec-registry audit verify` and restore a backup",
    )
}

/// A lock whose holder panicked still guards plain data.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 128 random bits as 32 hex digits.
fn random_hex() -> Result<String, RegistryError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| RegistryError::internal(&error))?;
    Ok(shared::digest::hex(&bytes))
}

/// Six Crockford base-32 characters: 30 random bits.
fn random_checkpoint_id() -> Result<String, RegistryError> {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).map_err(|error| RegistryError::internal(&error))?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect())
}

fn new_ulid() -> String {
    ulid::Ulid::new().to_string()
}
