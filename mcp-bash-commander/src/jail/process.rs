//! A running jail as the server sees it: its streams, its end, its sockets, and the way to end it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use super::exit::{Exit, Finished, exit_of};
use super::order;
use super::protocol::{CommandNumber, Consumed, Denial, MemoryKills, Report, Request};
use super::streams::{Input, Output, Streams};
use super::usage::{self, EndedProcess, Usage};
use super::{
    CommandSpec, Isolation, JailError, Layer, Mode, Reach, datagram, launcher, seccomp, sys,
};

/// Most connections that may be under way into one jail at a time.
const MAX_PENDING_CONNECTS: usize = 256;

/// A command that runs in its jail.
#[derive(Debug)]
pub struct JailedProcess {
    /// What the command writes to its standard output, or to its terminal.
    pub stdout: Output,
    /// What the command writes to its standard error, unless that is its terminal.
    pub stderr: Option<Output>,
    /// Where the command reads from, if it was started with a pipe or a terminal.
    pub input: Option<Input>,
    /// The command.
    pub command: JailedCommand,
    /// The jail. When the last clone is dropped, and no command of it is held any more, the jail is killed.
    pub jail: Jail,
}

impl JailedProcess {
    pub(super) fn of(
        jail: Jail,
        command: JailedCommand,
        mut streams: Streams,
        terminal: Option<OwnedFd>,
    ) -> Result<Self, JailError> {
        if let Some(master) = terminal {
            streams.take_terminal(master)?;
        }
        let missing = || JailError::Ended("its terminal did not come along".to_owned());
        Ok(Self {
            stdout: streams.stdout.ok_or_else(missing)?,
            stderr: streams.stderr,
            input: streams.input,
            command,
            jail,
        })
    }
}

/// System calls of a command that were denied, of one kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DeniedCall {
    /// What was wanted, as in `socket(AF_NETLINK, 3, 0)` or `mount`.
    pub call: String,
    /// How often.
    pub times: u64,
}

/// Which process the jail's init is; never confused with a later process of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Identity {
    /// Process id of init in the server's pid namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot, as in `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

/// A handle on a jail. Clones refer to the same jail; when the last one is dropped, every process in it is killed.
#[derive(Debug, Clone)]
pub struct Jail(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: Identity,
    pidfd: OwnedFd,
    isolation: Isolation,
    control: Arc<Control>,
    finished: watch::Receiver<Option<Finished>>,
    next_command: AtomicU64,
    /// What a proxy accepts on, until somebody takes it.
    listener: Mutex<Option<OwnedFd>>,
}

/// The end of a jail, as it is asked of its init.
const KILL_ALL: Request = Request::Signal {
    command: 0,
    signal: libc::SIGKILL,
    reach: Reach::Jail,
};
/// How long init has to kill all others before it is killed itself.
const ORDERLY_END: Duration = Duration::from_millis(100);
/// How long the start of a further command may take.
const START_TIME: Duration = Duration::from_secs(10);

impl Drop for Inner {
    fn drop(&mut self) {
        // An init without namespaces must end the others before itself; should it not, the launcher does.
        if self.isolation.mode == Mode::NoUserns && self.control.request(&KILL_ALL, &[]).is_ok() {
            return;
        }
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// A command of a jail; clones refer to the same. It holds its jail alive.
#[derive(Debug, Clone)]
pub struct JailedCommand {
    number: CommandNumber,
    jail: Jail,
    progress: Arc<Progress>,
}

/// What is heard of a command.
#[derive(Debug)]
struct Progress {
    exit: watch::Sender<Option<Exit>>,
    denied: Mutex<Vec<(Denial, u64)>>,
    replaced: Mutex<Vec<PathBuf>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            exit: watch::Sender::new(None),
            denied: Mutex::default(),
            replaced: Mutex::default(),
        }
    }
}

impl Progress {
    fn end(&self, exit: Exit) {
        self.exit.send_if_modified(|known| {
            let is_news = known.is_none();
            known.get_or_insert(exit);
            is_news
        });
    }

    fn deny(&self, denial: Denial, times: u64) {
        let mut denied = lock(&self.denied);
        match denied.iter_mut().find(|(known, _)| *known == denial) {
            Some((_, known)) => *known = times.max(*known),
            None => denied.push((denial, times)),
        }
    }
}

/// The answer to the start of a command, with its terminal.
type StartAnswer = Result<Option<OwnedFd>, (Layer, i32, String)>;

/// The server's end of the socket that launcher and init report on, and who waits for what.
#[derive(Debug)]
pub(super) struct Control {
    socket: AsyncFd<OwnedFd>,
    next_id: AtomicU64,
    connecting: Mutex<HashMap<u64, oneshot::Sender<Result<OwnedFd, Errno>>>>,
    starting: Mutex<HashMap<CommandNumber, oneshot::Sender<StartAnswer>>>,
    commands: Mutex<HashMap<CommandNumber, Arc<Progress>>>,
}

impl Control {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: sys::watch(socket, Interest::READABLE)?,
            next_id: AtomicU64::new(1),
            connecting: Mutex::default(),
            starting: Mutex::default(),
            commands: Mutex::default(),
        })
    }

    /// The next report with its descriptors, or `None` at the end of launcher and init.
    pub(super) async fn report(&self) -> io::Result<Option<(Report, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| Ok(datagram::receive(socket.get_ref())?)) {
                Err(_would_block) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(None);
                }
                Ok(received) => {
                    let Some((bytes, descriptors)) = received? else {
                        return Ok(None);
                    };
                    let report = Report::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
                    return Ok(Some((report, descriptors)));
                }
            }
        }
    }

    fn request(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        Ok(datagram::send(
            self.socket.get_ref(),
            &request.encode(),
            descriptors,
        )?)
    }

    /// A command whose reports are to be kept.
    fn expect(&self, command: CommandNumber) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        lock(&self.commands).insert(command, Arc::clone(&progress));
        progress
    }

    /// Passes reports on until launcher and init are gone. Where nobody reaps `init` it is waited for.
    async fn follow(
        self: Arc<Self>,
        finished: watch::Sender<Option<Finished>>,
        reaped_by_others: Option<OwnedFd>,
    ) {
        let mut last = exit_of(libc::SIGKILL, Consumed::default(), 0);
        let mut told_kills = 0;
        let mut told = None;
        while let Ok(Some((report, mut descriptors))) = self.report().await {
            match report {
                Report::CommandEnded {
                    command,
                    status,
                    usage,
                    left,
                    memory_kills,
                } => {
                    let mut exit = exit_of(status, usage, left);
                    if let Some(MemoryKills { before, after }) = memory_kills {
                        exit.out_of_memory = Some(after > before);
                        told_kills = after;
                    }
                    if let Some(progress) = lock(&self.commands).remove(&command) {
                        progress.end(exit);
                    }
                }
                Report::Denied { denial, times } => self.note(denial, times),
                Report::Replaced { command, path } => {
                    if let Some(progress) = lock(&self.commands).get(&command) {
                        lock(&progress.replaced).push(path);
                    }
                }
                Report::Socket { id, errno } => {
                    let answer = descriptors
                        .pop()
                        .ok_or_else(|| Errno::from_raw_os_error(errno));
                    if let Some(waiter) = lock(&self.connecting).remove(&id) {
                        drop(waiter.send(answer));
                    }
                }
                Report::Running { command, .. } => {
                    self.answer_start(command, Ok(descriptors.pop()));
                }
                Report::Refused {
                    command,
                    layer,
                    errno,
                    detail,
                } => self.answer_start(command, Err((layer, errno, detail))),
                Report::JailEnded {
                    status,
                    usage,
                    memory_kills,
                } => {
                    // Commands that init told no end of have ended with it.
                    last = exit_of(status, usage, 0);
                    last.out_of_memory = memory_kills.map(|kills| kills > told_kills);
                    self.end_commands(last);
                    told = Some(Finished {
                        cpu: Duration::from_micros(usage.cpu_micros),
                        max_rss_bytes: usage.max_rss_kib * 1024,
                        out_of_memory: memory_kills.map(|kills| kills > 0),
                    });
                    if reaped_by_others.is_none() {
                        finished.send_replace(told);
                    }
                }
                Report::Started { .. } | Report::Listener | Report::Observed => {}
            }
        }
        lock(&self.connecting).clear();
        lock(&self.starting).clear();
        if let Some(init) =
            reaped_by_others.and_then(|init| sys::watch(init, Interest::READABLE).ok())
        {
            // Its connection ends before the processes below it do.
            let _ = init.readable().await;
        }
        // Without a last report the launcher was lost: the jail died with it, and nobody could say how.
        self.end_commands(last);
        finished.send_if_modified(|finished| {
            let unknown = finished.is_none();
            *finished = finished.or(told).or(Some(Finished {
                cpu: Duration::ZERO,
                max_rss_bytes: 0,
                out_of_memory: None,
            }));
            unknown
        });
    }

    fn end_commands(&self, exit: Exit) {
        for (_, progress) in lock(&self.commands).drain() {
            progress.end(exit);
        }
    }

    fn answer_start(&self, command: CommandNumber, answer: StartAnswer) {
        if let Some(waiter) = lock(&self.starting).remove(&command) {
            drop(waiter.send(answer));
        }
    }

    /// A denial that no running command can be told of is told of to all of them.
    fn note(&self, denial: Denial, times: u64) {
        let commands = lock(&self.commands);
        let known = denial.command.and_then(|command| commands.get(&command));
        match known {
            Some(progress) => progress.deny(denial, times),
            None => commands
                .values()
                .for_each(|progress| progress.deny(denial, times)),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl JailedCommand {
    /// Waits until the command itself has ended. Processes it left behind may still run, and hold its streams open.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.progress.exit.subscribe();
        let ended = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|exit| *exit);
        ended.unwrap_or_else(|| exit_of(libc::SIGKILL, Consumed::default(), 0))
    }

    /// How the command ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.progress.exit.borrow()
    }

    /// The system calls that were denied to it so far, by kind.
    pub fn denied(&self) -> Vec<DeniedCall> {
        let denied = lock(&self.progress.denied);
        let of = |(denial, times): &(Denial, u64)| DeniedCall {
            call: seccomp::describe(denial.call, denial.arguments),
            times: *times,
        };
        denied.iter().map(of).collect()
    }

    /// Pinned, protected and masked paths that did not stand as they did when the jail was made, at the command's end: somebody outside
    /// the jail put something else in their place, and the command may have read or changed that.
    pub fn replaced(&self) -> Vec<PathBuf> {
        lock(&self.progress.replaced).clone()
    }

    /// Sends `signal` (as numbered by the kernel) to the command or more; sent from inside the jail, so it can reach nothing else.
    pub fn signal(&self, signal: i32, reach: Reach) -> Result<(), JailError> {
        let request = Request::Signal {
            command: self.number,
            signal,
            reach,
        };
        self.jail
            .0
            .control
            .request(&request, &[])
            .map_err(JailError::io("ask the jail to signal"))
    }
}

impl Jail {
    /// Takes over a jail that reported that its first command runs.
    pub(super) fn follow(
        control: Control,
        identity: Identity,
        pidfd: OwnedFd,
        isolation: Isolation,
        listener: Option<OwnedFd>,
    ) -> (Self, JailedCommand) {
        let control = Arc::new(control);
        let progress = control.expect(0);
        let (finished_sender, finished) = watch::channel(None);
        let reaped_by_others = match isolation.mode {
            Mode::Container => pidfd.try_clone().ok(),
            Mode::Strict | Mode::NoUserns => None,
        };
        tokio::spawn(Arc::clone(&control).follow(finished_sender, reaped_by_others));
        let jail = Self(Arc::new(Inner {
            identity,
            pidfd,
            isolation,
            control,
            finished,
            next_command: AtomicU64::new(1),
            listener: Mutex::new(listener),
        }));
        let command = JailedCommand {
            number: 0,
            jail: jail.clone(),
            progress,
        };
        (jail, command)
    }

    /// Starts one more command in a kept jail, with the same layers around it.
    pub async fn start(&self, spec: &CommandSpec) -> Result<JailedProcess, JailError> {
        let control = &self.0.control;
        let number = self.0.next_command.fetch_add(1, Ordering::Relaxed);
        let (order, in_file) = order::in_file_if_long(order::encode_command(spec)?)?;
        let request = Request::Start {
            command: number,
            order,
        };
        let mut streams = Streams::prepare(&spec.stdin)?;
        let (sender, receiver) = oneshot::channel();
        lock(&control.starting).insert(number, sender);
        let progress = control.expect(number);
        let mut unclaimed = Unclaimed(Some((self.clone(), number)));
        let descriptors: Vec<_> = in_file
            .iter()
            .chain(&streams.theirs)
            .map(OwnedFd::as_fd)
            .collect();
        let started = self.ask_to_start(&request, &descriptors, receiver).await;
        streams.theirs.clear();
        match started {
            Ok(terminal) => {
                unclaimed.0 = None;
                let command = JailedCommand {
                    number,
                    jail: self.clone(),
                    progress,
                };
                JailedProcess::of(self.clone(), command, streams, terminal)
            }
            Err(error) => {
                lock(&control.starting).remove(&number);
                lock(&control.commands).remove(&number);
                Err(match error {
                    StartError::Refused(layer, errno, detail) => {
                        launcher::refusal(layer, errno, detail, spec)
                    }
                    StartError::Lost => JailError::Ended("its session is over".to_owned()),
                    StartError::Io(source) => JailError::Io {
                        action: "ask the jail to start a command",
                        source,
                    },
                })
            }
        }
    }

    async fn ask_to_start(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        answer: oneshot::Receiver<StartAnswer>,
    ) -> Result<Option<OwnedFd>, StartError> {
        self.0
            .control
            .request(request, descriptors)
            .map_err(StartError::Io)?;
        if !self.is_alive() {
            return Err(StartError::Lost);
        }
        match tokio::time::timeout(START_TIME, answer).await {
            Ok(Ok(Ok(terminal))) => Ok(terminal),
            Ok(Ok(Err((layer, errno, detail)))) => Err(StartError::Refused(layer, errno, detail)),
            Ok(Err(_)) => Err(StartError::Lost),
            Err(_) => Err(StartError::Io(io::ErrorKind::TimedOut.into())),
        }
    }

    /// The listener in the jail's network, for a proxy; once.
    pub fn take_listener(&self) -> Option<OwnedFd> {
        lock(&self.0.listener).take()
    }

    /// The jail's init.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// The layers around the command.
    pub fn isolation(&self) -> &Isolation {
        &self.0.isolation
    }

    /// Waits until no process of the jail is left.
    pub async fn finished(&self) -> Finished {
        let mut finished = self.0.finished.clone();
        loop {
            if let Some(finished) = *finished.borrow_and_update() {
                return finished;
            }
            if finished.changed().await.is_err() {
                return Finished {
                    cpu: Duration::ZERO,
                    max_rss_bytes: 0,
                    out_of_memory: None,
                };
            }
        }
    }

    /// Is a process of the jail alive?
    pub fn is_alive(&self) -> bool {
        self.0.finished.borrow().is_none()
    }

    /// Kills every process of the jail; [`Jail::finished`] tells when they are gone. Killing a dead jail is no error.
    ///
    /// Init is asked first to kill all others: it can then say what they used, which a killed init cannot. One that does not get
    /// it done in time is killed itself, and the kernel ends the rest.
    pub fn kill(&self) -> Result<(), JailError> {
        let runtime = tokio::runtime::Handle::try_current();
        if let (Ok(()), Ok(runtime)) = (self.0.control.request(&KILL_ALL, &[]), runtime) {
            let jail = self.clone();
            runtime.spawn(async move {
                let in_time = tokio::time::timeout(ORDERLY_END, jail.finished()).await;
                if in_time.is_err()
                    && let Err(error) = jail.kill_init()
                {
                    tracing::error!(%error, "a jail cannot be killed");
                }
            });
            return Ok(());
        }
        self.kill_init()
    }

    fn kill_init(&self) -> Result<(), JailError> {
        match rustix::process::pidfd_send_signal(&self.0.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(JailError::errno("kill the jail")(errno)),
        }
    }

    /// Memory, kernel uids and number of the jail's processes, read from outside the jail.
    pub fn usage(&self) -> Result<Usage, JailError> {
        usage::measure(self.0.identity).map_err(JailError::io("read the jail's processes in /proc"))
    }

    /// Kills (SIGKILL) every process that listens on the published `port`, and nothing else: a supervisor inside the jail can
    /// start it again. If the command itself is the one that serves, the jail ends with it, as its plan made it.
    pub fn end_serving(&self, port: u16) -> Result<Vec<EndedProcess>, JailError> {
        usage::end_serving(self.0.identity, port)
    }

    /// A stream connected to `port` on the jail's own loopback interface, made inside its network: IPv4 first, then IPv6.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        // Without a network of its own the port could be anybody's.
        if self.0.isolation.mode == Mode::NoUserns && !usage::serves(self.0.identity, port)? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        match self.connect_over(port, false).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.connect_over(port, true).await.map_err(|_| error)
            }
            connected => connected,
        }
    }

    async fn connect_over(&self, port: u16, ipv6: bool) -> io::Result<TcpStream> {
        let control = &self.0.control;
        let id = control.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = lock(&control.connecting);
            waiting.retain(|_, waiter| !waiter.is_closed());
            if waiting.len() >= MAX_PENDING_CONNECTS {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            waiting.insert(id, sender);
        }
        control.request(&Request::Connect { id, port, ipv6 }, &[])?;
        if !self.is_alive() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let socket = receiver
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))??;
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }
}

/// A command that was asked for and that nobody has a handle on yet: whoever stops waiting for it must not leave it running.
struct Unclaimed(Option<(Jail, CommandNumber)>);

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some((jail, command)) = &self.0 {
            let request = Request::Signal {
                command: *command,
                signal: libc::SIGKILL,
                reach: Reach::Tree,
            };
            // Init takes requests in their order. Where it takes none it is gone, and the command with it.
            let _ = jail.0.control.request(&request, &[]);
        }
    }
}

/// Why a further command did not start.
enum StartError {
    Refused(Layer, i32, String),
    Lost,
    Io(io::Error),
}
