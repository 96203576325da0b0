//! The effect plane as an effect server sees it: it asks the registry before it changes anything, and tells what was done.
//!
//! A question that cannot be asked is a refusal. A report that cannot be delivered is kept on disk and delivered later, also
//! by the next process. The registry itself knows which actions of earlier processes were never ended.

mod connection;
mod credential;
mod heads;
mod line;
mod spool;
mod work;

#[cfg(test)]
mod tests;

use std::{future::Future, io, path::PathBuf, sync::Arc, time::Duration};

use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::{
    sync::{Mutex, Notify, Semaphore},
    time::Instant,
};

pub use credential::{CredentialError, ServiceCredential};
pub use work::WorkHandler;

use super::protocol::{
    Begin, Outcome, Permit, PinnedInput, PublishedPort, Refusal, RefusedCall, ToolDeclaration,
};
use crate::{digest::Digest, plan::ArgumentValue};
use connection::Peer;
use heads::Heads;
use line::{Introduction, Line};
use spool::Spool;

/// Longest time that asking or telling may take, waiting for others included.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(10);
/// Refusals told at the same time; more are dropped.
const MOST_REFUSALS: usize = 32;
/// Error code of an action that was begun for a caller who was gone when the permit came.
const NOT_STARTED: &str = "NOT_STARTED";

/// What an effect server needs to ask the registry.
#[derive(Debug)]
pub struct EffectConfig {
    /// The registry's `effect` socket.
    pub socket: PathBuf,
    /// Uid that the registry runs as, if it is neither root's nor our own.
    pub registry_uid: Option<u32>,
    /// Who we are, and the key we know the registry by.
    pub credential: ServiceCredential,
    /// Version of the server program.
    pub version: String,
    /// What plans may name.
    pub tools: Vec<ToolDeclaration>,
    /// Folder for what must outlive the process: undelivered ends, the highest audit head.
    pub state_dir: PathBuf,
}

/// What became of an action, to be told to the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndReport {
    /// From the [`Permit`].
    pub action_id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Stable code of the error, if there was one.
    pub error_code: Option<String>,
    /// Digest of the result as the agent gets it.
    pub result_sha256: Digest,
    /// What still runs.
    pub session: Option<String>,
    /// Ports that the process serves.
    pub published: Vec<PublishedPort>,
    /// Files that the call left behind.
    pub artefacts: Vec<PinnedInput>,
}

impl EndReport {
    /// An action that left nothing behind but its result.
    pub fn done(action_id: String, result_sha256: Digest) -> Self {
        Self {
            action_id,
            outcome: Outcome::Ok,
            error_code: None,
            result_sha256,
            session: None,
            published: Vec::new(),
            artefacts: Vec::new(),
        }
    }

    /// An action that failed without a result.
    pub fn failed(action_id: String, error_code: &str) -> Self {
        Self {
            outcome: Outcome::Error,
            error_code: Some(error_code.to_owned()),
            ..Self::done(action_id, Digest::of(error_code))
        }
    }
}

/// Where the report of an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The registry has it.
    Delivered,
    /// On the disk; the registry gets it when it can be reached.
    Spooled,
}

/// A client of the effect plane. Clones share one connection and one count of records.
#[derive(Clone)]
pub struct EffectClient(Arc<Inner>);

struct Inner {
    introduction: Arc<Introduction>,
    peer: Arc<Peer>,
    line: Mutex<Line>,
    /// A call reached the registry.
    reached: Notify,
    refusals: Arc<Semaphore>,
}

impl EffectClient {
    /// A client under a fresh instance name; connects when it is first needed.
    ///
    /// # Errors
    /// No randomness.
    pub fn open(config: EffectConfig) -> io::Result<Self> {
        let EffectConfig {
            socket,
            registry_uid,
            credential,
            version,
            tools,
            state_dir,
        } = config;
        let bearer = format!("Bearer {}", credential.token.as_str());
        let mut authorization = HeaderValue::from_str(&bearer).map_err(io::Error::other)?;
        authorization.set_sensitive(true);
        let peer = Arc::new(Peer {
            socket,
            registry_uid,
            authorization,
        });
        let instance = format!("in_{}", random_name()?);
        let introduction = Arc::new(Introduction {
            instance,
            version,
            tools,
        });
        let line = Line::new(
            Arc::clone(&introduction),
            Arc::clone(&peer),
            Heads::new(credential.registry_key, &state_dir),
            Spool::new(&state_dir),
        );
        Ok(Self(Arc::new(Inner {
            introduction,
            peer,
            line: Mutex::new(line),
            reached: Notify::new(),
            refusals: Arc::new(Semaphore::new(MOST_REFUSALS)),
        })))
    }

    /// Name of this process on the effect plane.
    pub fn instance(&self) -> &str {
        &self.0.introduction.instance
    }

    /// Asks whether a call may be made with these typed, defaulted arguments (without `grant`). The permit obliges to
    /// [`EffectClient::end`]. If the caller is dropped while it waits, a permit that still comes is ended as `NOT_STARTED`.
    ///
    /// # Errors
    /// The registry's refusal; `REGISTRY_UNREACHABLE`, `REGISTRY_UNTRUSTED` or an `AUDIT_…` code if it cannot be asked.
    pub async fn begin(
        &self,
        grant: &str,
        principal: &str,
        tool: &str,
        arguments: Map<String, Value>,
    ) -> Result<Permit, Refusal> {
        let begin = Begin {
            instance: self.instance().to_owned(),
            seq: 0,
            grant: grant.to_owned(),
            principal: principal.to_owned(),
            tool: tool.to_owned(),
            arguments: arguments
                .into_iter()
                .map(|(name, value)| (name, ArgumentValue::of(value)))
                .collect(),
            idempotency_key: random_name().map_err(|error| failed(&error.to_string()))?,
        };
        let client = self.clone();
        let handed = self
            .undisturbed(async move {
                let deadline = Instant::now() + LONGEST_EXCHANGE;
                let mut line = client.line(deadline).await?;
                let permit = line.begin(begin, deadline).await?;
                drop(line);
                client.0.reached.notify_one();
                Ok(Handed {
                    permit: Some(permit),
                    client,
                })
            })
            .await;
        let mut handed = handed?;
        handed
            .permit
            .take()
            .ok_or_else(|| failed("the permit was lost"))
    }

    /// Tells what became of an action that was begun. The report is delivered, or on the disk, when this returns; that is
    /// also so if the caller is dropped while it waits.
    ///
    /// # Errors
    /// The registry does not take the report, or it could be neither delivered nor kept.
    pub async fn end(&self, report: EndReport) -> Result<Delivery, Refusal> {
        let client = self.clone();
        self.undisturbed(async move {
            let deadline = Instant::now() + LONGEST_EXCHANGE;
            // Whoever is before us is bounded as well.
            let mut line = client.0.line.lock().await;
            line.end(report, deadline).await
        })
        .await
    }

    /// Tells, in the background and only if the registry can be reached, of a call that was refused here.
    pub fn refused(&self, principal: &str, tool: &str, code: &str, action_id: Option<String>) {
        let Ok(permit) = Arc::clone(&self.0.refusals).try_acquire_owned() else {
            return;
        };
        let call = RefusedCall {
            instance: self.instance().to_owned(),
            principal: principal.to_owned(),
            tool: tool.to_owned(),
            code: code.to_owned(),
            action_id,
        };
        let client = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let deadline = Instant::now() + LONGEST_EXCHANGE;
            if let Ok(mut line) = client.line(deadline).await
                && let Err(refusal) = line.refused(&call, deadline).await
            {
                tracing::debug!(%refusal, "a refused call is not on the registry's record");
            }
        });
    }

    /// Says hello on a new connection and delivers what is owed.
    ///
    /// # Errors
    /// As [`EffectClient::begin`].
    pub async fn settle(&self) -> Result<(), Refusal> {
        let client = self.clone();
        self.undisturbed(async move {
            let deadline = Instant::now() + LONGEST_EXCHANGE;
            let mut line = client.line(deadline).await?;
            line.hello(deadline).await?;
            line.settle(deadline).await
        })
        .await
    }

    /// Whether the registry could be asked now. Unlike [`EffectClient::settle`] it says no hello, so it may be called beside a
    /// running server with the same credential and state: a hello of another process would take that server's place.
    ///
    /// # Errors
    /// As [`EffectClient::begin`].
    pub async fn look(&self) -> Result<(), Refusal> {
        let deadline = Instant::now() + LONGEST_EXCHANGE;
        self.line(deadline).await?.look(deadline).await
    }

    /// Runs an exchange to its end even if the caller is dropped: half an exchange would leave the count in doubt.
    async fn undisturbed<T: Send + 'static>(
        &self,
        exchange: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        tokio::spawn(exchange)
            .await
            .unwrap_or_else(|error| Err(failed(&error.to_string())))
    }

    async fn line(&self, deadline: Instant) -> Result<tokio::sync::MutexGuard<'_, Line>, Refusal> {
        tokio::time::timeout_at(deadline, self.0.line.lock())
            .await
            .map_err(|_| {
                connection::unreachable(
                    &self.0.peer.socket,
                    "other calls have waited too long for it",
                )
            })
    }
}

/// A permit on its way to the caller.
struct Handed {
    permit: Option<Permit>,
    client: EffectClient,
}

impl Drop for Handed {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        let client = self.client.clone();
        // Without a runtime the process ends; its successor's hello makes the action `unknown`.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let report = EndReport::failed(permit.action_id, NOT_STARTED);
                if let Err(refusal) = client.end(report).await {
                    tracing::error!(%refusal, "an action that never started cannot be ended");
                }
            });
        }
    }
}

fn random_name() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(crate::digest::hex(&random))
}

fn failed(reason: &str) -> Refusal {
    Refusal {
        code: "INTERNAL".to_owned(),
        message: format!("the registry could not be asked: {reason}"),
        hint: "report this as a fault of the server".to_owned(),
    }
}
