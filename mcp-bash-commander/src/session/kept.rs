//! A kept session: a jail with a name in which one command after another runs, sharing `/tmp`, network and what they left running.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::Forbidden;
use super::table::Doors;
use super::violations::Refusals;
use super::{Changes, Origin, SessionError, SessionId, lock};
use crate::jail::{
    Access, CommandSpec, Jail, JailError, JailSpec, JailedCommand, JailedProcess, Network,
    Workspace,
};

/// How long a kept session lives without a running command.
const IDLE: Duration = Duration::from_mins(30);

/// What tells kept sessions apart: the same name of another owner or run is another session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    owner: Arc<str>,
    run_id: Option<String>,
    name: String,
}

impl Key {
    pub(super) fn new(owner: &Arc<str>, origin: Option<&Origin>, name: &str) -> Self {
        Self {
            owner: Arc::clone(owner),
            run_id: origin.map(|origin| origin.run_id.clone()),
            name: name.to_owned(),
        }
    }
}

/// What a session is for all its commands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    published: Vec<u16>,
    network: Network,
    is_overlaid: bool,
    access: Option<Access>,
}

impl Terms {
    pub(super) fn of(jail: &JailSpec) -> Self {
        Self {
            published: jail.published.clone(),
            network: jail.network,
            is_overlaid: jail.workspace.as_ref().is_some_and(Workspace::is_overlaid),
            access: jail.workspace.as_ref().map(Workspace::access),
        }
    }
}

/// A jail that outlives its commands.
#[derive(Debug)]
pub struct KeptJail {
    name: String,
    number: SessionId,
    owner: Arc<str>,
    run_id: Option<String>,
    outlives_step: bool,
    terms: Terms,
    published: Vec<(u16, SocketAddr)>,
    refusals: Refusals,
    overlay: Option<Arc<Changes>>,
    /// Until it is over.
    forbidden: Mutex<Option<Forbidden>>,
    started_at: OffsetDateTime,
    jail: Jail,
    commands: Mutex<Vec<JailedCommand>>,
    idle_since: Mutex<Instant>,
}

/// How often a session is looked at: whether it is idle, and what it made.
const LOOK: Duration = Duration::from_secs(5);

impl KeptJail {
    pub(super) fn new(
        key: &Key,
        number: SessionId,
        origin: Option<&Origin>,
        terms: Terms,
        first: &JailedProcess,
        doors: &Doors,
        (overlay, forbidden): (Option<Arc<Changes>>, Option<Forbidden>),
    ) -> Self {
        Self {
            name: key.name.clone(),
            number,
            owner: Arc::clone(&key.owner),
            run_id: key.run_id.clone(),
            outlives_step: origin.is_some_and(|origin| origin.outlives_step),
            terms,
            published: doors.published(),
            refusals: doors.refusals.clone(),
            overlay,
            forbidden: Mutex::new(forbidden),
            started_at: OffsetDateTime::now_utc(),
            jail: first.jail.clone(),
            commands: Mutex::new(vec![first.command.clone()]),
            idle_since: Mutex::new(Instant::now()),
        }
    }

    /// The name its owner gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number no other session of this server ever has.
    pub fn number(&self) -> SessionId {
        self.number
    }

    /// Whose it is.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// When it was made.
    pub fn started_at(&self) -> OffsetDateTime {
        self.started_at
    }

    /// Its published ports and where the host reaches them.
    pub fn published(&self) -> &[(u16, SocketAddr)] {
        &self.published
    }

    /// What is kept aside of the changes its commands made.
    pub fn changes(&self) -> Option<Arc<Changes>> {
        self.overlay.clone()
    }

    pub(super) fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Whether commands can be started in it.
    pub fn is_alive(&self) -> bool {
        self.jail.is_alive()
    }

    /// Processes in it now.
    ///
    /// # Errors
    /// A `/proc` that cannot be read.
    pub fn processes(&self) -> Result<u32, JailError> {
        Ok(self.jail.usage()?.processes)
    }

    /// Kills everything in it, for good.
    pub fn end(&self) {
        if let Err(error) = self.jail.kill() {
            tracing::error!(%error, session = %self.name, "a session cannot be ended");
        }
    }

    /// Waits until nothing of it is left.
    pub async fn over(&self) {
        self.jail.finished().await;
    }

    /// Whether an order to end this run concerns it.
    pub(super) fn is_of_run(&self, run_id: &str, and_lasting: bool) -> bool {
        self.run_id.as_deref() == Some(run_id) && (and_lasting || !self.outlives_step)
    }

    /// A jail is made once, so what a later command asks of it must be what it is.
    pub(super) fn check_terms(&self, jail: &JailSpec) -> Result<(), SessionError> {
        let asked = Terms::of(jail);
        let what = if !jail.inputs.is_empty() {
            "pinned inputs (a step with inputs needs a session or a jail of its own)"
        } else if !jail.published.is_empty() && jail.published != self.terms.published {
            "published ports"
        } else if jail.network != self.terms.network {
            "network"
        } else if (asked.is_overlaid, asked.access) != (self.terms.is_overlaid, self.terms.access) {
            "workspace"
        } else {
            return Ok(());
        };
        Err(SessionError::OtherTerms {
            name: self.name.clone(),
            what,
        })
    }

    pub(super) async fn start(&self, command: &CommandSpec) -> Result<JailedProcess, SessionError> {
        self.put_away();
        let process = self.jail.start(command).await?;
        let mut commands = lock(&self.commands);
        commands.retain(|command| command.exit().is_none());
        commands.push(process.command.clone());
        Ok(process)
    }

    /// Whether a command of it runs.
    fn is_busy(&self) -> bool {
        let mut commands = lock(&self.commands);
        commands.retain(|command| command.exit().is_none());
        !commands.is_empty()
    }

    /// Ends it when nothing ran in it for long; returns when it is over.
    pub(super) async fn watch(&self) {
        loop {
            if self.is_busy() {
                *lock(&self.idle_since) = Instant::now();
            }
            let rest = IDLE.saturating_sub(lock(&self.idle_since).elapsed());
            if rest.is_zero() {
                self.end();
                self.over().await;
            }
            // A look now and then is enough: nobody waits for the end of an idle session.
            let is_over = tokio::time::timeout(rest.min(LOOK), self.over())
                .await
                .is_ok();
            self.put_away();
            if is_over {
                lock(&self.forbidden).take();
                return;
            }
        }
    }

    /// Puts away what commands that have ended left running to make of protected paths.
    pub(super) fn put_away(&self) {
        let put_away = lock(&self.forbidden).as_ref().map(Forbidden::put_away);
        for entry in put_away.into_iter().flatten() {
            tracing::warn!(session = %self.name, path = %entry.path.display(), to = ?entry.to, "a session made a protected path");
        }
    }
}
