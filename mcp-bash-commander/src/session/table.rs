//! All sessions of a server: places for live ones, memory of finished ones, and whose they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::watch;

use super::follow::{drain, watch_over};
use super::spool::Spool;
use super::{Ended, Killed, Order, Session, SessionError, SessionId, State, Stream, lock};
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
        let place = self.reserve()?;
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
            if table.is_ending {
                return Err(SessionError::Ending);
            }
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

    fn reserve(&self) -> Result<Place, SessionError> {
        let mut table = lock(&self.0.table);
        if table.is_ending {
            return Err(SessionError::Ending);
        }
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

    /// All sessions that still run and were started for a run.
    pub fn of_run(&self, run_id: &str) -> Vec<Arc<Session>> {
        let table = lock(&self.0.table);
        let is_of_run = |session: &&Arc<Session>| {
            session
                .origin
                .as_ref()
                .is_some_and(|origin| origin.run_id == run_id)
                && !session.state().is_over
        };
        table.sessions.values().filter(is_of_run).cloned().collect()
    }

    /// How many run now, and how many may.
    pub fn live(&self) -> (usize, usize) {
        (lock(&self.0.table).live, self.0.most_live)
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
