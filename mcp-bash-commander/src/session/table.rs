//! All sessions of a server: places for live ones, memory of finished ones, and whose they are.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::follow::{Held, drain, watch_over};
use super::input::InputEnd;
use super::kept::{KeptJail, Key, Terms};
use super::orders::Orders;
use super::screen::Terminal;
use super::spool::Spool;
use super::violations::Refusals;
use super::{
    Changes, Ended, Forbidden, Killed, Order, OrderMark, Origin, Running, Session, SessionError,
    SessionId, State, Stream, lock,
};
use crate::jail::{Jail, JailSpec, JailedProcess, Launcher, Stdin};
use crate::network::{Proxy, Reachable};
use crate::publish::PublishedPort;
use crate::records::code_of;

/// How long a finished command is remembered.
const REMEMBERED: Duration = Duration::from_mins(15);
/// Finished commands that are remembered whatever comes.
const MOST_REMEMBERED: usize = 100;
/// How many more there may be before the oldest are looked for: not with every command.
const SLACK: usize = 20;
/// How often old ones are looked for at least, while there are commands.
const TIDY: Duration = Duration::from_mins(1);
/// Most of a command's text that is kept to recognise it by.
const COMMAND_CHARACTERS: usize = 200;
/// How long the end of the server waits for the ends of commands to be recorded.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// All sessions of a server; clones share them.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    launcher: Launcher,
    most_live: usize,
    table: Mutex<Table>,
    /// Held while a kept session is made.
    making: tokio::sync::Mutex<()>,
    /// What records the ends of commands.
    recording: TaskTracker,
}

#[derive(Debug, Default)]
struct Table {
    newest: u64,
    live: usize,
    is_ending: bool,
    /// When old ones were looked for last.
    tidied: Option<Instant>,
    sessions: BTreeMap<SessionId, Arc<Session>>,
    kept: HashMap<Key, Arc<KeptJail>>,
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

/// The ways into a jail and out of it that the server keeps open.
#[derive(Debug, Default)]
pub(super) struct Doors {
    relays: Vec<PublishedPort>,
    proxy: Option<Proxy>,
    pub(super) refusals: Refusals,
}

impl Doors {
    async fn open(
        jail: &Jail,
        ports: Vec<u16>,
        reachable: Reachable,
    ) -> Result<Self, SessionError> {
        let mut doors = Self::default();
        for port in ports {
            let relay = PublishedPort::open(jail, port).await;
            doors
                .relays
                .push(relay.map_err(|source| SessionError::Publish { port, source })?);
        }
        if let Some(listener) = jail.take_listener() {
            let refusals = doors.refusals.clone();
            let proxy = Proxy::start(listener, reachable, move |event| refusals.note(&event));
            doors.proxy = Some(proxy.map_err(SessionError::Proxy)?);
        }
        Ok(doors)
    }

    pub(super) fn published(&self) -> Vec<(u16, SocketAddr)> {
        self.relays
            .iter()
            .map(|relay| (relay.port(), relay.address()))
            .collect()
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
            making: tokio::sync::Mutex::default(),
            recording: TaskTracker::new(),
            table: Mutex::new(Table {
                newest: getrandom::u32().unwrap_or_default().into(),
                ..Table::default()
            }),
        }))
    }

    /// Starts a command and publishes its ports, with a record of its start and in time of its end.
    ///
    /// # Errors
    /// No free place, no record, a jail that lacks a layer, a program that is not there, or a port that cannot be published. Nothing
    /// of the command is left then.
    pub async fn start(&self, mut order: Order) -> Result<Arc<Session>, SessionError> {
        let place = self.reserve(order.origin.as_ref())?;
        let Some(recording) = order.recording.take() else {
            return self.start_at(place, order).await;
        };
        let recorded = recording
            .start(place.id)
            .await
            .map_err(SessionError::Unrecorded)?;
        match self.start_at(place, order).await {
            Ok(session) => {
                let watched = Arc::clone(&session);
                self.0.recording.spawn(recorded.end(watched));
                Ok(session)
            }
            Err(error) => {
                recorded.not_started(code_of(&error));
                Err(error)
            }
        }
    }

    async fn start_at(&self, place: Place, order: Order) -> Result<Arc<Session>, SessionError> {
        let has_terminal = match order.jail.command.stdin {
            Stdin::Terminal(size) => Some(size),
            Stdin::Null | Stdin::Bytes(_) | Stdin::Pipe => None,
        };
        let (process, doors, kept) = match &order.kept {
            None => {
                let ports = order.jail.published.clone();
                let process = self.0.launcher.run(order.jail).await?;
                let doors = Doors::open(&process.jail, ports, order.reachable).await?;
                (process, doors, None)
            }
            Some(name) => {
                let (process, kept) = self
                    .start_kept(
                        name,
                        &order.owner,
                        order.origin.as_ref(),
                        order.jail,
                        (
                            order.reachable,
                            order.overlay.clone(),
                            order.forbidden.clone(),
                        ),
                    )
                    .await?;
                (process, Doors::default(), Some(kept))
            }
        };
        let refusals = kept
            .as_ref()
            .map_or_else(|| doors.refusals.clone(), |kept| kept.refusals());
        let before = refusals.all();
        let JailedProcess {
            stdout,
            stderr,
            input,
            command,
            jail,
        } = process;
        let running = Running { command, jail };
        let spool = || Mutex::new(Spool::new(order.spools.clone(), order.output_bytes));
        let session = Arc::new(Session {
            id: place.id,
            owner: order.owner,
            command: order.command.chars().take(COMMAND_CHARACTERS).collect(),
            started_at: OffsetDateTime::now_utc(),
            started: Instant::now(),
            identity: running.jail.identity(),
            isolation: running.jail.isolation().clone(),
            published: doors.published(),
            origin: order.origin,
            overlay: order.overlay,
            forbidden: Mutex::new(order.forbidden),
            kept,
            running: Mutex::new(Some(running.clone())),
            killed: Mutex::default(),
            of_jail: Mutex::default(),
            made: Mutex::default(),
            refusals: (refusals, before),
            input: InputEnd::new(input),
            terminal: has_terminal.map(|size| Mutex::new(Terminal::new(size))),
            stdout: spool(),
            stderr: spool(),
            state: watch::Sender::new(State {
                ended: None,
                stdout_open: true,
                stderr_open: stderr.is_some(),
                is_over: false,
            }),
        });
        {
            let mut table = lock(&self.0.table);
            // Dropping a fresh jail kills what has begun in it; in a kept one it is killed by name.
            if let Err(error) = table.admit(session.origin.as_ref()) {
                session.kill(Killed::RunEnded);
                return Err(error);
            }
            table.sessions.insert(session.id, Arc::clone(&session));
        }
        let stdout = drain(Arc::clone(&session), Stream::Stdout, stdout);
        let errors = Arc::clone(&session);
        let stderr = async move {
            if let Some(stderr) = stderr {
                drain(errors, Stream::Stderr, stderr).await;
            }
        };
        let held = Held { place, doors };
        let watch = watch_over(Arc::clone(&session), running, order.timeout, held);
        tokio::spawn(async move { tokio::join!(stdout, stderr, watch) });
        Ok(session)
    }

    /// Starts a command in a kept session of this owner and run; makes the session where there is none.
    async fn start_kept(
        &self,
        name: &str,
        owner: &Arc<str>,
        origin: Option<&Origin>,
        jail: JailSpec,
        (reachable, overlay, forbidden): (Reachable, Option<Arc<Changes>>, Option<Forbidden>),
    ) -> Result<(JailedProcess, Arc<KeptJail>), SessionError> {
        let key = Key::new(owner, origin, name);
        // Two calls that come at once must not make two sessions of one name.
        let making = self.0.making.lock().await;
        let there = lock(&self.0.table).kept.get(&key).cloned();
        if let Some(kept) = there.filter(|kept| kept.is_alive()) {
            drop(making);
            kept.check_terms(&jail)?;
            let process = kept.start(&jail.command).await.inspect_err(|error| {
                // Nothing more can be started in it.
                if error.is_of_replaced_workspace() {
                    kept.end();
                }
            })?;
            return Ok((process, kept));
        }
        let place = self.reserve(origin)?;
        let terms = Terms::of(&jail);
        let ports = jail.published.clone();
        let process = self.0.launcher.run(jail).await?;
        let doors = Doors::open(&process.jail, ports, reachable).await?;
        let kept = Arc::new(KeptJail::new(
            &key,
            place.id,
            origin,
            terms,
            &process,
            &doors,
            (overlay, forbidden),
        ));
        {
            let mut table = lock(&self.0.table);
            table.admit(origin)?;
            table.kept.insert(key.clone(), Arc::clone(&kept));
        }
        let sessions = self.clone();
        let watched = Arc::clone(&kept);
        tokio::spawn(async move {
            watched.watch().await;
            drop((place, doors));
            let mut table = lock(&sessions.0.table);
            // Another of the same name may have been made meanwhile.
            if table
                .kept
                .get(&key)
                .is_some_and(|there| Arc::ptr_eq(there, &watched))
            {
                table.kept.remove(&key);
            }
        });
        Ok((process, kept))
    }

    /// The kept sessions of an owner.
    pub fn kept_of_owner(&self, owner: &str) -> Vec<Arc<KeptJail>> {
        let table = lock(&self.0.table);
        let mut kept: Vec<_> = table
            .kept
            .values()
            .filter(|kept| kept.owner() == owner && kept.is_alive())
            .cloned()
            .collect();
        kept.sort_by_key(|kept| kept.number());
        kept
    }

    /// A kept session of an owner by its name; the newest where runs have some of the same name.
    pub fn find_kept(&self, name: &str, owner: &str) -> Option<Arc<KeptJail>> {
        self.kept_of_owner(owner)
            .into_iter()
            .rfind(|kept| kept.name() == name)
    }

    fn reserve(&self, origin: Option<&Origin>) -> Result<Place, SessionError> {
        let mut table = lock(&self.0.table);
        table.admit(origin)?;
        if table.live >= self.0.most_live {
            return Err(SessionError::Full(self.0.most_live));
        }
        let is_full = table.sessions.len() > table.live + MOST_REMEMBERED + SLACK;
        if is_full || table.tidied.is_none_or(|at| at.elapsed() > TIDY) {
            forget_old(&mut table);
        }
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
    /// any more, and what runs is returned, for the caller to end. Kept sessions of the run are ended here.
    pub fn order_end(&self, run_id: &str, and_lasting: bool) -> Vec<Arc<Session>> {
        let mut table = lock(&self.0.table);
        table.orders.note(run_id, and_lasting);
        for kept in table.kept.values() {
            if kept.is_of_run(run_id, and_lasting) {
                kept.end();
            }
        }
        let is_meant = |session: &&Arc<Session>| {
            session.origin.as_ref().is_some_and(|origin| {
                origin.run_id == run_id && (and_lasting || !origin.outlives_step)
            }) && !session.state().is_over
        };
        table.sessions.values().filter(is_meant).cloned().collect()
    }

    /// Waits until the ends of all commands are recorded; to be called when they are killed.
    pub async fn recorded(&self) {
        self.0.recording.close();
        if tokio::time::timeout(LAST_RECORDS, self.0.recording.wait())
            .await
            .is_err()
        {
            tracing::error!("the ends of some commands are not recorded");
        }
        let kept: Vec<_> = lock(&self.0.table).kept.values().cloned().collect();
        for kept in kept {
            kept.put_away();
        }
    }

    /// Kills everything and starts nothing more.
    pub fn end(&self) {
        let mut table = lock(&self.0.table);
        table.is_ending = true;
        for kept in table.kept.values() {
            kept.end();
        }
        for session in table.sessions.values() {
            session.kill(Killed::ServerEnded);
        }
    }
}

/// Forgets finished sessions that are old, and the oldest of too many.
fn forget_old(table: &mut Table) {
    let now = Instant::now();
    table.tidied = Some(now);
    let mut finished = 0;
    table.sessions.retain(|_, session| {
        let state = session.state();
        let ran = now.saturating_duration_since(session.started);
        let is_old = |ended: Ended| ran.saturating_sub(ended.wall) > REMEMBERED;
        let is_kept = !state.is_over || !state.ended.is_some_and(is_old);
        finished += usize::from(state.is_over && is_kept);
        is_kept
    });
    let too_many: Vec<SessionId> = table
        .sessions
        .values()
        .filter(|session| session.state().is_over)
        .map(|session| session.id)
        .take(finished.saturating_sub(MOST_REMEMBERED))
        .collect();
    for id in too_many {
        table.sessions.remove(&id);
    }
}
