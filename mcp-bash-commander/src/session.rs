//! Running and finished commands: whose they are, what they wrote, how they ended. A live one is never dropped to make room.

mod spool;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::jail::{
    Exit, Identity, Isolation, Jail, JailError, JailSpec, JailedProcess, Launcher, Usage,
};
use crate::publish::PublishedPort;
use spool::Spool;
pub use spool::{Piece, SpoolFolder};
pub use text::{Excerpt, cut_to_characters};

/// How long a finished command is remembered.
const REMEMBERED: Duration = Duration::from_mins(15);
/// Most finished commands remembered.
const MOST_REMEMBERED: usize = 100;
/// Most of a command's text that is kept to recognise it by.
const COMMAND_CHARACTERS: usize = 200;
/// How long an ended command's streams are waited for while processes it left behind hold them.
const HELD_OPEN: Duration = Duration::from_millis(200);
/// The same where nobody holds them; only a machine under great load needs it.
const NOT_HELD_OPEN: Duration = Duration::from_secs(5);
/// How long the end of the jail is waited for, which tells whether memory ran out.
const JAIL_ENDS: Duration = Duration::from_millis(100);

/// A session that cannot be started or found.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// As many commands as the policy allows are running.
    #[error("{0} commands are running already, as many as the policy allows")]
    Full(usize),
    /// No session of this caller has this name.
    #[error("there is no session `{0}` of yours; finished ones are kept for 15 minutes")]
    Unknown(String),
    /// The server is ending.
    #[error("the server is ending")]
    Ending,
    /// The jail could not be made.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// A port could not be published.
    #[error("failed to publish port {port}: {source}")]
    Publish {
        /// The port inside the jail.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// The name of a session: `x1`, `x2` and so on, never used twice by one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "x{}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = SessionError;

    fn from_str(text: &str) -> Result<Self, SessionError> {
        let unknown = || SessionError::Unknown(text.chars().take(40).collect());
        let digits = text.strip_prefix('x').ok_or_else(unknown)?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        digits
            .parse()
            .ok()
            .filter(|_| is_plain)
            .map(Self)
            .ok_or_else(unknown)
    }
}

/// One of a command's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a command was killed before its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Killed {
    /// Its time was up.
    TimedOut,
    /// Somebody stopped it.
    Stopped,
    /// The call that waited for it was cancelled.
    Cancelled,
    /// The run it belongs to, or its step, ended.
    RunEnded,
    /// The server ends.
    ServerEnded,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exit status, signal, and what it used.
    pub exit: Exit,
    /// From its start to its end.
    pub wall: Duration,
    /// Why it was killed, if the server did it.
    pub killed: Option<Killed>,
    /// Whether memory ran out; `None` where nothing tells.
    pub out_of_memory: Option<bool>,
}

/// What there is to know of a session at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// How the command ended, once it has.
    pub ended: Option<Ended>,
    /// Whether more may come on standard output.
    pub stdout_open: bool,
    /// Whether more may come on standard error.
    pub stderr_open: bool,
    /// Whether no process of its jail is left.
    pub is_over: bool,
}

impl State {
    fn is_open(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout_open,
            Stream::Stderr => self.stderr_open,
        }
    }

    /// Whether something still holds one of the streams.
    pub fn output_open(&self) -> bool {
        self.stdout_open || self.stderr_open
    }
}

/// What a session was started for, in enforced mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The run.
    pub run_id: String,
    /// The action, as the registry numbers it.
    pub action_id: String,
    /// Whether it may outlive its step.
    pub outlives_step: bool,
}

/// A command to start.
#[derive(Debug)]
pub struct Order {
    /// Whose session it will be.
    pub owner: Arc<str>,
    /// The command as its owner recognises it.
    pub command: String,
    /// The jail and the command in it.
    pub jail: JailSpec,
    /// When it is killed at the latest.
    pub timeout: Option<Duration>,
    /// Bytes kept of each stream.
    pub output_bytes: u64,
    /// Where long output goes.
    pub spools: SpoolFolder,
    /// What it is started for.
    pub origin: Option<Origin>,
}

/// A command, running or finished.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    owner: Arc<str>,
    command: String,
    started_at: OffsetDateTime,
    started: Instant,
    identity: Identity,
    isolation: Isolation,
    published: Vec<(u16, SocketAddr)>,
    origin: Option<Origin>,
    /// Given up when the jail is over, with its descriptors.
    jail: Mutex<Option<Jail>>,
    killed: Mutex<Option<Killed>>,
    stdout: Mutex<Spool>,
    stderr: Mutex<Spool>,
    state: watch::Sender<State>,
}

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
struct Place {
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
    pub fn new(launcher: Launcher, most_live: usize) -> Self {
        Self(Arc::new(Shared {
            launcher,
            most_live,
            table: Mutex::default(),
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

impl Session {
    /// Its name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The beginning of its command.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// When it was started.
    pub fn started_at(&self) -> OffsetDateTime {
        self.started_at
    }

    /// How long it has run, or ran.
    pub fn wall(&self) -> Duration {
        self.state()
            .ended
            .map_or_else(|| self.started.elapsed(), |ended| ended.wall)
    }

    /// Its jail's init.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The layers around it.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// Its published ports and where the host reaches them.
    pub fn published(&self) -> &[(u16, SocketAddr)] {
        &self.published
    }

    /// What it was started for.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// What there is to know of it now.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Kills everything in its jail; without effect on one that ended.
    pub fn kill(&self, why: Killed) {
        if self.state().is_over {
            return;
        }
        lock(&self.killed).get_or_insert(why);
        if let Some(jail) = &*lock(&self.jail)
            && let Err(error) = jail.kill()
        {
            tracing::error!(%error, session = %self.id, "a jail cannot be killed");
        }
    }

    /// Sends a signal to every process of its jail.
    ///
    /// # Errors
    /// A jail that does not take the request.
    pub fn signal(&self, signal: i32) -> Result<(), JailError> {
        match &*lock(&self.jail) {
            Some(jail) => jail.signal(signal, true),
            None => Ok(()),
        }
    }

    /// Its processes as seen from outside; `None` when it is over.
    ///
    /// # Errors
    /// A `/proc` that cannot be read.
    pub fn usage(&self) -> Result<Option<Usage>, JailError> {
        lock(&self.jail).as_ref().map(Jail::usage).transpose()
    }

    /// Ends the processes that serve its published ports; how many they were.
    ///
    /// # Errors
    /// Nothing serves any of the ports.
    pub fn end_serving(&self) -> Result<usize, JailError> {
        let jail = lock(&self.jail)
            .clone()
            .ok_or(JailError::Ended("it is over".to_owned()))?;
        let mut ended = 0;
        let mut not_serving = None;
        for (port, _) in &self.published {
            match jail.end_serving(*port) {
                Ok(processes) => ended += processes.len(),
                Err(error) => not_serving = Some(error),
            }
        }
        match not_serving {
            Some(error) if ended == 0 => Err(error),
            None if self.published.is_empty() => {
                Err(JailError::Request("it publishes no port".to_owned()))
            }
            _ => Ok(ended),
        }
    }

    /// Waits until the command has ended and its streams are read to their ends, or are held open by others.
    pub async fn ended(&self) -> State {
        let mut state = self.state.subscribe();
        let ended = until(&mut state, |state| state.ended.is_some()).await;
        let left_running = ended.ended.is_some_and(|ended| ended.exit.left_running > 0);
        let patience = if left_running {
            HELD_OPEN
        } else {
            NOT_HELD_OPEN
        };
        let _ =
            tokio::time::timeout(patience, until(&mut state, |state| !state.output_open())).await;
        if !left_running {
            let _ = tokio::time::timeout(JAIL_ENDS, until(&mut state, |state| state.is_over)).await;
        }
        self.state()
    }

    /// Waits until no process of its jail is left.
    pub async fn over(&self) -> State {
        until(&mut self.state.subscribe(), |state| state.is_over).await
    }

    /// Waits until the stream has more than `cursor` bytes or will never have.
    pub async fn more_output(&self, stream: Stream, cursor: u64) {
        let mut state = self.state.subscribe();
        until(&mut state, |state| {
            !state.is_open(stream) || self.spool(stream).end() > cursor
        })
        .await;
    }

    /// The stream for a result: all of it, or beginning and end.
    ///
    /// # Errors
    /// A spool that cannot be read.
    pub fn excerpt(&self, stream: Stream, budget: usize) -> io::Result<Excerpt> {
        let is_open = self.state().is_open(stream);
        text::excerpt(&self.spool(stream), budget, !is_open)
    }

    /// At most `most` bytes of the stream from `cursor`, or its newest.
    ///
    /// # Errors
    /// A spool that cannot be read.
    pub fn read(&self, stream: Stream, cursor: Option<u64>, most: usize) -> io::Result<Reading> {
        let is_open = self.state().is_open(stream);
        let spool = self.spool(stream);
        let piece = match cursor {
            Some(cursor) => spool.read(cursor, most)?,
            None => spool.tail(most)?,
        };
        Ok(Reading {
            is_end: !is_open && piece.end() == spool.end(),
            written: spool.written(),
            is_open,
            piece,
        })
    }

    /// Bytes written on a stream so far.
    pub fn written(&self, stream: Stream) -> u64 {
        self.spool(stream).written()
    }

    fn spool(&self, stream: Stream) -> MutexGuard<'_, Spool> {
        lock(match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        })
    }

    /// Takes what the pipe has, at most 256 KiB of it; false at its end.
    fn take(&self, stream: Stream, pipe: &pipe::Receiver) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..16 {
            match pipe.try_read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    let kept = self.spool(stream).append(&buffer[..read]);
                    if let Err(error) = kept {
                        tracing::error!(%error, session = %self.id, "output is no longer kept, only counted");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.state.send_modify(|_| {});
        Ok(true)
    }
}

/// Part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The bytes.
    pub piece: Piece,
    /// Bytes written in all.
    pub written: u64,
    /// Whether more may come.
    pub is_open: bool,
    /// Whether these bytes are the last ever.
    pub is_end: bool,
}

/// Reads a stream to its end.
async fn drain(session: Arc<Session>, stream: Stream, pipe: pipe::Receiver) {
    while pipe.readable().await.is_ok() {
        match session.take(stream, &pipe) {
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => break,
            Err(error) => {
                tracing::error!(%error, session = %session.id, "a stream cannot be read");
                break;
            }
        }
    }
    session.state.send_modify(|state| match stream {
        Stream::Stdout => state.stdout_open = false,
        Stream::Stderr => state.stderr_open = false,
    });
}

/// Kills a command whose time is up, notes its end, and gives everything back when its jail is over.
async fn watch_over(
    session: Arc<Session>,
    jail: Jail,
    timeout: Option<Duration>,
    held: (Place, Vec<PublishedPort>),
) {
    let time_is_up = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = jail.wait() => {}
        () = time_is_up => session.kill(Killed::TimedOut),
    }
    let exit = jail.wait().await;
    // A command that ended by itself at the moment it was to be killed was not killed.
    let killed = lock(&session.killed).filter(|_| exit.signal.is_some());
    let ended = Ended {
        exit,
        wall: session.started.elapsed(),
        killed,
        out_of_memory: None,
    };
    session.state.send_modify(|state| state.ended = Some(ended));
    let finished = jail.finished().await;
    lock(&session.jail).take();
    drop((jail, held));
    session.state.send_modify(|state| {
        state.is_over = true;
        if let Some(ended) = &mut state.ended {
            ended.out_of_memory = finished.out_of_memory;
        }
    });
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

/// The state once it is as asked. It always comes to that: whoever waits holds the session, and with it the sender.
async fn until(state: &mut watch::Receiver<State>, reached: impl FnMut(&State) -> bool) -> State {
    let reached = state.wait_for(reached).await.map(|state| *state);
    reached.unwrap_or_else(|_| *state.borrow())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_name_only() -> anyhow::Result<()> {
        assert_eq!("x12".parse::<SessionId>()?.to_string(), "x12");
        for wrong in [
            "",
            "x",
            "12",
            "x01",
            "x-1",
            "x+1",
            "x1 ",
            "X1",
            "x99999999999999999999",
        ] {
            assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
        Ok(())
    }
}
