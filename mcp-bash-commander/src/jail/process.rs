//! A running jail as the server sees it: its streams, its end, its sockets, and the way to end it.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

use super::protocol::{Consumed, Report, Request};
use super::usage::{self, EndedProcess, Usage};
use super::{Isolation, JailError, datagram, sys};

/// Most connections that may be under way into one jail at a time.
const MAX_PENDING_CONNECTS: usize = 256;

/// A command that runs in its jail.
#[derive(Debug)]
pub struct JailedProcess {
    /// What the command writes to its standard output. It ends when no process of the jail holds it open any more.
    pub stdout: pipe::Receiver,
    /// What the command writes to its standard error.
    pub stderr: pipe::Receiver,
    /// The jail. When the last clone is dropped, the jail is killed.
    pub jail: Jail,
}

/// Which process the jail's init is; never confused with a later process of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Identity {
    /// Process id of init in the server's pid namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot, as in `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

/// How the command itself ended. Exactly one of `code` and `signal` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit status, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it; 9 also when the whole jail was killed.
    pub signal: Option<i32>,
    /// CPU time of the command and its ended descendants, without the making of the jail.
    pub cpu: Duration,
    /// Largest resident memory of one of these processes, in bytes.
    pub max_rss_bytes: u64,
    /// Processes of the jail that still ran when the command had ended; they are killed after the specification's `linger`.
    pub left_running: u32,
}

/// The end of the whole jail, as its parent outside saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// CPU time of everything that ever ran in the jail, the making of it included.
    pub cpu: Duration,
    /// Largest resident memory of one process, in bytes.
    pub max_rss_bytes: u64,
    /// Did the kernel kill for want of memory? `None` where no memory cgroup could be had to tell.
    pub out_of_memory: Option<bool>,
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
    exit: watch::Receiver<Option<Exit>>,
    finished: watch::Receiver<Option<Finished>>,
}

/// How long init has to kill all others before it is killed itself.
const ORDERLY_END: Duration = Duration::from_millis(100);

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// The server's end of the socket that launcher and init report on, and who waits for a connection.
#[derive(Debug)]
pub(super) struct Control {
    socket: AsyncFd<OwnedFd>,
    next_id: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<OwnedFd, Errno>>>>,
}

impl Control {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: sys::watch(socket)?,
            next_id: AtomicU64::new(1),
            waiting: Mutex::default(),
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

    fn request(&self, request: &Request) -> io::Result<()> {
        Ok(datagram::send(
            self.socket.get_ref(),
            &request.encode(),
            &[],
        )?)
    }

    fn waiting(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<OwnedFd, Errno>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes reports on until launcher and init are gone.
    async fn follow(
        self: Arc<Self>,
        exit: watch::Sender<Option<Exit>>,
        finished: watch::Sender<Option<Finished>>,
    ) {
        while let Ok(Some((report, mut descriptors))) = self.report().await {
            match report {
                Report::CommandEnded {
                    status,
                    usage,
                    left,
                } => {
                    exit.send_replace(Some(exit_of(status, usage, left)));
                }
                Report::Socket { id, errno } => {
                    let answer = descriptors
                        .pop()
                        .ok_or_else(|| Errno::from_raw_os_error(errno));
                    if let Some(waiter) = self.waiting().remove(&id) {
                        drop(waiter.send(answer));
                    }
                }
                Report::JailEnded {
                    status,
                    usage,
                    in_cgroup,
                    out_of_memory,
                } => {
                    exit.send_if_modified(|exit| {
                        let unknown = exit.is_none();
                        exit.get_or_insert_with(|| exit_of(status, usage, 0));
                        unknown
                    });
                    finished.send_replace(Some(Finished {
                        cpu: Duration::from_micros(usage.cpu_micros),
                        max_rss_bytes: usage.max_rss_kib * 1024,
                        out_of_memory: in_cgroup.then_some(out_of_memory),
                    }));
                }
                Report::Started { .. } | Report::Refused { .. } | Report::Running { .. } => {}
            }
        }
        self.waiting().clear();
        // The launcher was lost: the jail died with it, and nobody could say how.
        exit.send_if_modified(|exit| {
            let unknown = exit.is_none();
            exit.get_or_insert_with(|| exit_of(libc::SIGKILL, Consumed::default(), 0));
            unknown
        });
        finished.send_if_modified(|finished| {
            let unknown = finished.is_none();
            finished.get_or_insert(Finished {
                cpu: Duration::ZERO,
                max_rss_bytes: 0,
                out_of_memory: None,
            });
            unknown
        });
    }
}

/// The exit that the wait status of the command, or of init, tells.
fn exit_of(status: i32, usage: Consumed, left_running: u32) -> Exit {
    let signalled = libc::WIFSIGNALED(status);
    Exit {
        code: (!signalled).then(|| libc::WEXITSTATUS(status)),
        signal: signalled.then(|| libc::WTERMSIG(status)),
        cpu: Duration::from_micros(usage.cpu_micros),
        max_rss_bytes: usage.max_rss_kib * 1024,
        left_running,
    }
}

impl Jail {
    /// Takes over a jail that reported that its command runs.
    pub(super) fn follow(
        control: Control,
        identity: Identity,
        pidfd: OwnedFd,
        isolation: Isolation,
    ) -> Self {
        let control = Arc::new(control);
        let (exit_sender, exit) = watch::channel(None);
        let (finished_sender, finished) = watch::channel(None);
        tokio::spawn(Arc::clone(&control).follow(exit_sender, finished_sender));
        Self(Arc::new(Inner {
            identity,
            pidfd,
            isolation,
            control,
            exit,
            finished,
        }))
    }

    /// The jail's init.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// The layers around the command.
    pub fn isolation(&self) -> &Isolation {
        &self.0.isolation
    }

    /// Waits until the command itself has ended. Processes it left behind may still run, and hold its streams open.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.0.exit.clone();
        loop {
            if let Some(exit) = *exit.borrow_and_update() {
                return exit;
            }
            if exit.changed().await.is_err() {
                return exit_of(libc::SIGKILL, Consumed::default(), 0);
            }
        }
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

    /// How the command ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.0.exit.borrow()
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
        if let (Ok(()), Ok(runtime)) = (self.signal(libc::SIGKILL, true), runtime) {
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

    /// Sends `signal` (as numbered by the kernel) to the command, or to every process of the jail if `everyone`; sent from inside
    /// the jail, so it can reach nothing else.
    pub fn signal(&self, signal: i32, everyone: bool) -> Result<(), JailError> {
        self.0
            .control
            .request(&Request::Signal { signal, everyone })
            .map_err(JailError::io("ask the jail to signal"))
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
            let mut waiting = control.waiting();
            waiting.retain(|_, waiter| !waiter.is_closed());
            if waiting.len() >= MAX_PENDING_CONNECTS {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            waiting.insert(id, sender);
        }
        control.request(&Request::Connect { id, port, ipv6 })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_a_code_or_a_signal_never_both() {
        let ended = exit_of(3 << 8, Consumed::default(), 0);
        assert_eq!((ended.code, ended.signal), (Some(3), None));
        let killed = exit_of(libc::SIGKILL, Consumed::default(), 0);
        assert_eq!((killed.code, killed.signal), (None, Some(9)));
    }
}
