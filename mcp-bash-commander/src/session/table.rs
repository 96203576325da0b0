//! All sessions of a server: places for live ones, memory of finished ones, and whose they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::watch;

use super::follow::{drain, watch_over};
use super::orders::Orders;
use super::spool::Spool;
use super::{
    Ended, Killed, Order, OrderMark, Origin, Session, SessionError, SessionId, State, Stream, lock,
};
use crate::jail::{JailedProcess, Launcher};
use crate::publish::PublishedPort;

/// How long a finished command is remembered.
const REMEMBERED: Duration = Duration::from_mins(15);
/// Most finished commands remembered.
const MOST_REMEMBERED: usize = 100;
/// Most of a command's text that is kept to recognise it by.
const COMMAND_CHARACTERS: usize = 200;

/// All sessions of a server; clones share them.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    launcher: Launcher,
    most_live: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    newest: u64,
    live: usize,
    is_ending: bool,
    sessions: BTreeMap<SessionId, Arc<Session>>,
    orders: Orders,
}

impl Table {
    /// Whether a command may come up now.
    fn admit(&self, origin: Option<&Origin>) -> Result<(), SessionError> {
        if self.is_ending {
            return Err(SessionError::Ending);
        }
        if origin.is_some_and(|origin| self.orders.concern(origin)) {
            return Err(SessionError::RunEnded);
        }
        Ok(())
    }
}

/// A place among the live sessions, given back when the jail is over.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    id: SessionId,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.shared.table).live -= 1;
    }
}

impl Sessions {
    /// No sessions yet; at most `most_live` will run at once.
    ///
    /// Their numbers begin at a random one: what was said of a session of an earlier server must not be taken for one of this.
    pub fn new(launcher: Launcher, most_live: usize) -> Self {
        Self(Arc::new(Shared {
            launcher,
            most_live,
            table: Mutex::new(Table {
                newest: getrandom::u32().unwrap_or_default().into(),
                ..Table::default()
            }),
        }))
    }

    /// Starts a command and publishes its ports.
    ///
    /// # Errors
    /// No free place, a jail that lacks a layer, a program that is not there, or a port that cannot be published. Nothing of the
    /// command is left then.
    pub async fn start(&self, order: Order) -> Result<Arc<Session>, SessionError> {
        let place = self.reserve(order.origin.as_ref())?;
        let ports = order.jail.published.clone();
        let JailedProcess {
            stdout,
            stderr,
            jail,
        } = self.0.launcher.run(order.jail).await?;
        let started = Instant::now();
        let mut relays = Vec::with_capacity(ports.len());
        for port in ports {
            let relay = PublishedPort::open(&jail, port).await;
            relays.push(relay.map_err(|source| SessionError::Publish { port, source })?);
        }
        let spool = || Mutex::new(Spool::new(order.spools.clone(), order.output_bytes));
        let session = Arc::new(Session {
            id: place.id,
            owner: order.owner,
            command: order.command.chars().take(COMMAND_CHARACTERS).collect(),
            started_at: OffsetDateTime::now_utc(),
            started,
            identity: jail.identity(),
            isolation: jail.isolation().clone(),
            published: relays
                .iter()
                .map(|relay| (relay.port(), relay.address()))
                .collect(),
            origin: order.origin,
            jail: Mutex::new(Some(jail.clone())),
            killed: Mutex::default(),
            stdout: spool(),
            stderr: spool(),
            state: watch::Sender::new(State {
                ended: None,
                stdout_open: true,
                stderr_open: true,
                is_over: false,
            }),
        });
        {
            let mut table = lock(&self.0.table);
            // Dropping the jail kills what has begun in it.
            table.admit(session.origin.as_ref())?;
            table.sessions.insert(session.id, Arc::clone(&session));
        }
        tokio::spawn(drain(Arc::clone(&session), Stream::Stdout, stdout));
        tokio::spawn(drain(Arc::clone(&session), Stream::Stderr, stderr));
        tokio::spawn(watch_over(
            Arc::clone(&session),
            jail,
            order.timeout,
            (place, relays),
        ));
        Ok(session)
    }

    fn reserve(&self, origin: Option<&Origin>) -> Result<Place, SessionError> {
        let mut table = lock(&self.0.table);
        table.admit(origin)?;
        if table.live >= self.0.most_live {
            return Err(SessionError::Full(self.0.most_live));
        }
        forget_old(&mut table);
        table.live += 1;
        table.newest += 1;
        let id = SessionId(table.newest);
        drop(table);
        Ok(Place {
            shared: Arc::clone(&self.0),
            id,
        })
    }

    /// The session of this name, if it is `owner`'s.
    ///
    /// # Errors
    /// No such session, or another's: the answer is the same.
    pub fn find(&self, id: &str, owner: &str) -> Result<Arc<Session>, SessionError> {
        let unknown = || SessionError::Unknown(id.chars().take(40).collect());
        self.any(id)
            .filter(|session| *session.owner == *owner)
            .ok_or_else(unknown)
    }

    /// The session of this name, whosever it is; for the registry's orders, never for a caller.
    pub fn any(&self, id: &str) -> Option<Arc<Session>> {
        lock(&self.0.table).sessions.get(&id.parse().ok()?).cloned()
    }

    /// All sessions of an owner, oldest first.
    pub fn of_owner(&self, owner: &str) -> Vec<Arc<Session>> {
        let mut table = lock(&self.0.table);
        forget_old(&mut table);
        table
            .sessions
            .values()
            .filter(|session| *session.owner == *owner)
            .cloned()
            .collect()
    }

    /// This moment, to be taken before the registry is asked whether something may be started.
    pub fn order_mark(&self) -> OrderMark {
        lock(&self.0.table).orders.now()
    }

    /// Whether what this action is about to do must not be done any more.
    pub fn is_stopped(&self, origin: &Origin) -> bool {
        lock(&self.0.table).orders.concern(origin)
    }

    /// Takes an order to end what was started for a run, lasting processes too or not: nothing that was asked for before comes up
    /// any more, and what runs is returned, for the caller to end.
    pub fn order_end(&self, run_id: &str, and_lasting: bool) -> Vec<Arc<Session>> {
        let mut table = lock(&self.0.table);
        table.orders.note(run_id, and_lasting);
        let is_meant = |session: &&Arc<Session>| {
            session.origin.as_ref().is_some_and(|origin| {
                origin.run_id == run_id && (and_lasting || !origin.outlives_step)
            }) && !session.state().is_over
        };
        table.sessions.values().filter(is_meant).cloned().collect()
    }

    /// Kills everything and starts nothing more.
    pub fn end(&self) {
        let mut table = lock(&self.0.table);
        table.is_ending = true;
        for session in table.sessions.values() {
            session.kill(Killed::ServerEnded);
        }
    }
}

/// Forgets finished sessions that are old, and the oldest of too many.
fn forget_old(table: &mut Table) {
    let is_old = |session: &Session| {
        let ended_ago = |ended: Ended| session.started.elapsed().saturating_sub(ended.wall);
        session
            .state()
            .ended
            .is_some_and(|ended| ended_ago(ended) > REMEMBERED)
    };
    table
        .sessions
        .retain(|_, session| !(session.state().is_over && is_old(session)));
    let finished: Vec<SessionId> = table
        .sessions
        .values()
        .filter(|session| session.state().is_over)
        .map(|session| session.id)
        .collect();
    for id in finished
        .iter()
        .take(finished.len().saturating_sub(MOST_REMEMBERED))
    {
        table.sessions.remove(id);
    }
}
