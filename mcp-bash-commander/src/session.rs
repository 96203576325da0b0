//! Running and finished commands: whose they are, what they wrote, how they ended. A live one is never dropped to make room.

mod follow;
mod input;
mod kept;
mod orders;
mod overlays;
mod screen;
mod spool;
mod table;
mod text;
mod violations;
mod wait;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shared::call_log::CallLogError;
use shared::digest::Digest;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::jail::{
    Exit, Identity, Isolation, Jail, JailError, JailSpec, JailedCommand, Layer, Output, Reach,
    Usage,
};
use crate::network::Reachable;
use crate::records::Recording;
use crate::workspace::{Absent, PutAway, Workspace};
use input::InputEnd;
pub use input::InputError;
pub use kept::KeptJail;
pub use overlays::{Changes, OverlayFolder};
pub use screen::Screen;
use screen::Terminal;
use spool::Spool;
pub use spool::{Piece, SpoolFolder};
pub use table::Sessions;
pub use text::{Excerpt, cut_to_characters};
use violations::Refusals;
pub use violations::{REPLACED, Source, Violation};
pub use wait::{Reached, Until};

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
    #[error(
        "there is no session `{0}` of yours; finished commands are kept for 15 minutes, ended sessions are not"
    )]
    Unknown(String),
    /// The server is ending.
    #[error("the server is ending")]
    Ending,
    /// The run was stopped while the command was on its way.
    #[error("the run was stopped before the command was started")]
    RunEnded,
    /// The jail could not be made.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The kept session is another kind of jail than the call asks for.
    #[error("session `{name}` is there already, with other {what}")]
    OtherTerms {
        /// The session's name.
        name: String,
        /// What differs.
        what: &'static str,
    },
    /// Its start could not be recorded.
    #[error("the command cannot be recorded, so it was not started")]
    Unrecorded(#[source] CallLogError),
    /// The proxy could not be started.
    #[error("failed to start the proxy: {0}")]
    Proxy(io::Error),
    /// A port could not be published.
    #[error("failed to publish port {port}: {source}")]
    Publish {
        /// The port inside the jail.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

impl SessionError {
    /// Whether what its jail was made of is not there any more.
    fn is_of_replaced_workspace(&self) -> bool {
        matches!(self, Self::Jail(JailError::Layer { layer: Layer::Workspace, errno, .. }) if *errno == libc::ESTALE)
    }
}

/// The name of a session: `x` and a number, never used twice by one server.
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

/// Which processes of a command a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The command's own process.
    Leader,
    /// The command and everything it started.
    Tree,
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
    /// Whether nothing of it is left: no process of its jail or, in a kept session, not the command itself.
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
    /// Taken before the registry was asked: an order to end the run that came since concerns this action.
    pub asked_at: OrderMark,
}

/// A moment between two orders to end runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct OrderMark(u64);

/// A command to start.
#[derive(Debug)]
pub struct Order {
    /// Whose session it will be.
    pub owner: Arc<str>,
    /// The command as its owner recognises it.
    pub command: String,
    /// The command, and the jail for it if none is kept.
    pub jail: JailSpec,
    /// The kept session it runs in; it is made where there is none of that name.
    pub kept: Option<String>,
    /// Whom the proxy lets through and what it adds, if the jail has one.
    pub reachable: Reachable,
    /// Where what it changes is kept aside.
    pub overlay: Option<Arc<Changes>>,
    /// What it must not make.
    pub forbidden: Option<Forbidden>,
    /// When it is killed at the latest.
    pub timeout: Option<Duration>,
    /// Bytes kept of each stream.
    pub output_bytes: u64,
    /// Where long output goes.
    pub spools: SpoolFolder,
    /// What it is started for.
    pub origin: Option<Origin>,
    /// Where its start and its end are recorded.
    pub recording: Option<Recording>,
}

/// What becomes of protected paths that were not there and that a command made: they are put away when it has ended, and again when
/// nothing of its jail is left.
#[derive(Debug, Clone)]
pub struct Forbidden {
    /// The workspace.
    pub workspace: Arc<Workspace>,
    /// What was not there before.
    pub absent: Absent,
    /// Where what was made is moved.
    pub folder: PathBuf,
}

impl Forbidden {
    /// Puts away what has come up.
    pub(crate) fn put_away(&self) -> Vec<PutAway> {
        self.workspace.put_away(&self.absent, &self.folder)
    }
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
    /// The kept session it runs in.
    kept: Option<Arc<KeptJail>>,
    overlay: Option<Arc<Changes>>,
    /// Until it is over.
    forbidden: Mutex<Option<Forbidden>>,
    /// Given up when it is over, with the descriptors.
    running: Mutex<Option<Running>>,
    killed: Mutex<Option<Killed>>,
    /// What the jail told of so far: denials of the kernel, and guarded paths that lost their guard.
    of_jail: Mutex<Vec<Violation>>,
    /// Protected paths it made.
    made: Mutex<Vec<Violation>>,
    /// What the jail's proxy refused, and what of it was older than this command.
    refusals: (Refusals, Vec<Violation>),
    input: InputEnd,
    terminal: Option<Mutex<Terminal>>,
    stdout: Mutex<Spool>,
    stderr: Mutex<Spool>,
    state: watch::Sender<State>,
}

/// A command that runs, and its jail.
#[derive(Debug, Clone)]
struct Running {
    command: JailedCommand,
    jail: Jail,
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
        match &self.kept {
            Some(kept) => kept.published(),
            None => &self.published,
        }
    }

    /// The kept session it runs in.
    pub fn kept(&self) -> Option<&KeptJail> {
        self.kept.as_deref()
    }

    /// What is kept aside of its changes; those of a session are the session's.
    pub fn changes(&self) -> Option<Arc<Changes>> {
        match &self.kept {
            Some(kept) => kept.changes(),
            None => self.overlay.clone(),
        }
    }

    /// What it was started for.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// What there is to know of it now.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Kills everything in its jail or, in a kept session, the command and everything it started; without effect on one that ended.
    pub fn kill(&self, why: Killed) {
        if self.state().is_over {
            return;
        }
        lock(&self.killed).get_or_insert(why);
        let Some(Running { command, jail }) = &*lock(&self.running) else {
            return;
        };
        let result = match &self.kept {
            None => jail.kill(),
            Some(_) => command.signal(libc::SIGKILL, Reach::Tree),
        };
        if let Err(error) = result {
            tracing::error!(%error, session = %self.id, "a command cannot be killed");
        }
    }

    /// Sends a signal to the command, or to everything it started.
    ///
    /// # Errors
    /// A jail that does not take the request.
    pub fn signal(&self, signal: i32, scope: Scope) -> Result<(), JailError> {
        let reach = match (scope, &self.kept) {
            (Scope::Leader, _) => Reach::Leader,
            (Scope::Tree, None) => Reach::Jail,
            (Scope::Tree, Some(_)) => Reach::Tree,
        };
        match &*lock(&self.running) {
            Some(running) => running.command.signal(signal, reach),
            None => Ok(()),
        }
    }

    /// Its processes as seen from outside; `None` when it is over.
    ///
    /// # Errors
    /// A `/proc` that cannot be read.
    pub fn usage(&self) -> Result<Option<Usage>, JailError> {
        lock(&self.running)
            .as_ref()
            .map(|running| running.jail.usage())
            .transpose()
    }

    /// Ends the processes that serve its published ports; how many they were.
    ///
    /// # Errors
    /// Nothing serves any of the ports.
    pub fn end_serving(&self) -> Result<usize, JailError> {
        let jail = lock(&self.running)
            .as_ref()
            .map(|running| running.jail.clone())
            .ok_or(JailError::Ended("it is over".to_owned()))?;
        let mut ended = 0;
        let mut not_serving = None;
        for (port, _) in self.published() {
            match jail.end_serving(*port) {
                Ok(processes) => ended += processes.len(),
                Err(error) => not_serving = Some(error),
            }
        }
        match not_serving {
            Some(error) if ended == 0 => Err(error),
            None if self.published().is_empty() => {
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

    /// How many bytes were written on a stream so far, and the digest of all of them.
    pub(crate) fn sum(&self, stream: Stream) -> (u64, Digest) {
        let spool = self.spool(stream);
        (spool.written(), Digest::from_array(&spool.sha256()))
    }

    fn spool(&self, stream: Stream) -> MutexGuard<'_, Spool> {
        lock(match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        })
    }

    /// Takes what the stream has, at most 256 KiB of it.
    fn take(&self, stream: Stream, output: &Output) -> io::Result<Taken> {
        let mut buffer = [0; 16 * 1024];
        let (mut taken, mut is_news) = (Taken::Some, false);
        for _ in 0..16 {
            match output.try_read(&mut buffer) {
                Ok(0) => return Ok(Taken::End),
                Ok(read) => {
                    is_news = true;
                    if let Some(terminal) = &self.terminal {
                        lock(terminal).show(&buffer[..read]);
                    }
                    let kept = self.spool(stream).append(&buffer[..read]);
                    if let Err(error) = kept {
                        tracing::error!(%error, session = %self.id, "output is no longer kept, only counted");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    taken = Taken::All;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.state.send_if_modified(|_| is_news);
        Ok(taken)
    }
}

/// How far a stream was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// There may be more.
    Some,
    /// There is no more now.
    All,
    /// Nothing more will come.
    End,
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
