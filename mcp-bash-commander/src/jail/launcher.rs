//! The server's side of the launcher: starting it, giving it orders, starting it again after it was lost.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::Shutdown;

use super::container::{Contained, Containers};
use super::order::{self, Parcel, Surroundings};
use super::process::{Control, lock};
use super::protocol::Report;
use super::streams::Streams;
use super::{
    CommandSpec, ContainerSettings, Identity, Isolation, Jail, JailError, JailSpec, JailedCommand,
    JailedProcess, Layer, Mode, contained, datagram, spawner, usage,
};

/// The argument that makes this program the launcher. It is no command for users.
const LAUNCHER_MODE: &str = "--jail-launcher";

/// Bytes of orders that may wait for the launcher.
const ORDERS_BYTES: usize = 1 << 20;

/// How long the making of a jail may take before it counts as failed.
const SETUP_TIME: Duration = Duration::from_secs(10);

/// Most pinned inputs of one jail; each travels as a descriptor.
const MAX_INPUTS: usize = datagram::MAX_DESCRIPTORS - 8;

/// The helper process that makes jails. Clones share it; it ends when the last one is dropped and with the server.
#[derive(Debug, Clone)]
pub struct Launcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    running: Mutex<Option<Running>>,
    containers: OnceLock<Arc<Containers>>,
    /// Which modes this host turned out to allow, and which not.
    allowed: Mutex<HashMap<Mode, bool>>,
}

/// A launcher that was started.
#[derive(Debug)]
struct Running {
    socket: Arc<OwnedFd>,
    /// Ends when the launcher has been reaped.
    keeper: mpsc::Receiver<std::io::Result<()>>,
}

impl Launcher {
    /// Starts the launcher: this same program in a hidden mode. To be called first thing in `main`, while there is one thread
    /// and nothing is open; **in the launcher itself this call does the launcher's work and does not return**.
    pub fn start() -> Result<Self, JailError> {
        Self::serve_if_asked();
        Self::start_from(Path::new("/proc/self/exe"))
    }

    /// Starts the launcher from `program`, whose `main` calls [`Launcher::serve_if_asked`] or [`Launcher::start`] first.
    pub fn start_from(program: &Path) -> Result<Self, JailError> {
        let inner = Inner {
            program: program.to_owned(),
            running: Mutex::default(),
            containers: OnceLock::new(),
            allowed: Mutex::default(),
        };
        inner.socket()?;
        Ok(Self(Arc::new(inner)))
    }

    /// Does the work of the launcher, or of a container's init, and exits, if this process was started as one; else returns at once.
    pub fn serve_if_asked() {
        contained::serve_if_asked();
        if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(LAUNCHER_MODE)) {
            spawner::serve();
        }
    }

    /// The same, which can also make jails in containers. The first settings count.
    #[must_use]
    pub fn with_containers(self, settings: ContainerSettings) -> Self {
        let containers = Arc::new(Containers::new(settings));
        self.0.containers.get_or_init(|| containers);
        self
    }

    /// Ends the launcher with all its jails, and waits, but no longer than `patience`, until it has removed what they had on this host.
    /// An order that is given later starts it again.
    pub fn end(&self, patience: Duration) {
        let Some(Running { socket, keeper }) = lock(&self.0.running).take() else {
            return;
        };
        if rustix::net::shutdown(&*socket, Shutdown::Both).is_ok() {
            let _ = keeper.recv_timeout(patience);
        }
    }

    /// Makes a jail and starts the command in it, in the first of the specification's modes that this host allows. Either all layers of
    /// that mode are in place, or an error names the one that is not and nothing was run. Dropping the future before it is done leaves
    /// nothing behind.
    pub async fn run(&self, spec: JailSpec) -> Result<JailedProcess, JailError> {
        let mut error = None;
        for (number, mode) in spec.modes.iter().enumerate() {
            let is_last = number + 1 == spec.modes.len();
            let known = lock(&self.0.allowed).get(mode).copied();
            if known == Some(false) && !is_last {
                continue;
            }
            match self.run_as(*mode, &spec).await {
                // What was possible once is not forbidden: then something else is short, and no reason for less isolation.
                Err(refusal) if !is_last && known.is_none() && refusal.is_of_host() => {
                    tracing::warn!(%mode, %refusal, "this host does not allow it; the policy names another mode");
                    // A want of room or of an engine may be over the next time.
                    if matches!(refusal, JailError::Layer { errno, .. } if errno != libc::ENOSPC) {
                        lock(&self.0.allowed).insert(*mode, false);
                    }
                    error = Some(refusal);
                }
                Ok(process) => {
                    lock(&self.0.allowed).insert(*mode, true);
                    return Ok(process);
                }
                Err(refusal) => return Err(refusal),
            }
        }
        let none = || JailError::Request("its policy names no mode".to_owned());
        Err(error.unwrap_or_else(none))
    }

    async fn run_as(&self, mode: Mode, spec: &JailSpec) -> Result<JailedProcess, JailError> {
        if spec.inputs.len() > MAX_INPUTS {
            return Err(JailError::Request(format!(
                "{} pinned inputs; at most {MAX_INPUTS} are possible",
                spec.inputs.len()
            )));
        }
        let mut streams = Streams::prepare(&spec.command.stdin)?;
        let (socket, init) = match mode {
            Mode::Strict => (self.order(&Surroundings::Own, spec, &streams)?, None),
            Mode::NoUserns => {
                let name = getrandom::u64().unwrap_or_default();
                let tmp = format!("/tmp/mcp-bash-commander-{name:016x}").into();
                let surroundings = Surroundings::Host { tmp };
                (self.order(&surroundings, spec, &streams)?, None)
            }
            Mode::Container => {
                let (socket, init) = self.contain(spec, &streams).await?;
                (socket, Some(init))
            }
        };
        streams.theirs.clear();
        let control = Control::new(socket).map_err(JailError::io("watch the jail's socket"))?;
        let set_up = tokio::time::timeout(SETUP_TIME, set_up(control, mode, spec, init));
        let (jail, command, terminal) = set_up.await.map_err(|_| {
            JailError::Ended(format!("not ready after {} seconds", SETUP_TIME.as_secs()))
        })??;
        JailedProcess::of(jail, command, streams, terminal)
    }

    /// Orders a jail of the launcher. What becomes of it is told over the socket.
    fn order(
        &self,
        surroundings: &Surroundings,
        spec: &JailSpec,
        streams: &Streams,
    ) -> Result<OwnedFd, JailError> {
        let parcel = Parcel::of(order::encode_order(spec, surroundings)?)?;
        let (ours, theirs) = datagram::pair().map_err(JailError::errno("make a socket"))?;
        let mut descriptors = vec![theirs.as_fd()];
        descriptors.extend(
            parcel
                .file
                .iter()
                .chain(&streams.theirs)
                .map(OwnedFd::as_fd),
        );
        if let Some(workspace) = &spec.workspace {
            descriptors.push(workspace.directory.as_fd());
            descriptors.extend(
                workspace
                    .overlay
                    .iter()
                    .map(|overlay| overlay.directory.as_fd()),
            );
        }
        descriptors.extend(spec.inputs.iter().map(|input| input.sealed.as_fd()));
        self.0.send(&parcel.datagram, &descriptors)?;
        Ok(ours)
    }

    /// Starts a container, and tells its init what jail to make of it.
    async fn contain(
        &self,
        spec: &JailSpec,
        streams: &Streams,
    ) -> Result<(OwnedFd, (Identity, OwnedFd)), JailError> {
        let containers = self
            .0
            .containers
            .get()
            .ok_or_else(|| JailError::Container {
                reason: "the policy names no image".to_owned(),
                hint: "name one by its digest in container.image of the policy".to_owned(),
            })?;
        // In a task of its own: an engine goes on with what it was asked, though nobody waited, and what came of it must be let go.
        let (containers, program) = (Arc::clone(containers), self.0.program.clone());
        let asked = spec.clone();
        let started = tokio::spawn(async move { containers.start(&program, &asked).await });
        let Contained {
            socket,
            init,
            surroundings,
        } = started
            .await
            .map_err(|error| JailError::io("start a container")(std::io::Error::other(error)))??;
        let parcel = Parcel::of(order::encode_order(spec, &surroundings)?)?;
        let beside = parcel.file.iter().chain(&streams.theirs);
        let descriptors: Vec<_> = beside.map(OwnedFd::as_fd).collect();
        datagram::send(&socket, &parcel.datagram, &descriptors)
            .map_err(JailError::errno("give the container its order"))?;
        Ok((socket, init))
    }
}

/// Waits for the reports of launcher and init until the command runs. Its terminal comes along, if it has one.
async fn set_up(
    control: Control,
    mode: Mode,
    spec: &JailSpec,
    mut init: Option<(Identity, OwnedFd)>,
) -> Result<(Jail, JailedCommand, Option<OwnedFd>), JailError> {
    let mut cgroup = None;
    let mut listener = None;
    loop {
        let report = control
            .report()
            .await
            .map_err(JailError::io("hear from the jail"))?;
        match report {
            Some((Report::Started { pid, cgroup: group }, mut descriptors)) => {
                cgroup = group;
                // Read at once: a short command may have ended, and its init be gone, before the next report is read.
                init = descriptors.pop().map(|pidfd| (usage::identify(pid), pidfd));
            }
            Some((Report::Listener, mut descriptors)) => listener = descriptors.pop(),
            Some((Report::Observed, mut descriptors)) => {
                if let (Some(lookups), Some(told)) = (&spec.observe, descriptors.pop()) {
                    lookups
                        .watch(told)
                        .map_err(JailError::io("observe the jail"))?;
                }
            }
            Some((
                Report::Refused {
                    layer,
                    errno,
                    detail,
                    ..
                },
                _,
            )) => {
                return Err(refusal(layer, errno, detail, &spec.command));
            }
            Some((
                Report::Running {
                    applied,
                    landlock_abi,
                    kernel_uid,
                    ..
                },
                mut descriptors,
            )) => {
                let (identity, pidfd) = init.take().ok_or_else(|| {
                    JailError::Ended("it reported before it was started".to_owned())
                })?;
                let needed = spec.needed();
                let isolation =
                    Isolation::of(mode, applied, needed, cgroup, landlock_abi, kernel_uid);
                let (jail, command) = Jail::follow(control, identity, pidfd, isolation, listener);
                return Ok((jail, command, descriptors.pop()));
            }
            Some((Report::JailEnded { status, .. }, _)) => {
                return Err(JailError::Ended(format!(
                    "its init ended with wait status {status}"
                )));
            }
            Some(_) => {}
            None if init.is_some() => {
                return Err(JailError::Ended("its init was killed".to_owned()));
            }
            None => return Err(JailError::LauncherLost("killed".to_owned())),
        }
    }
}

/// The error that a refusal of launcher or init is to a caller.
pub(super) fn refusal(layer: Layer, errno: i32, detail: String, spec: &CommandSpec) -> JailError {
    match layer {
        Layer::Program => JailError::Program {
            program: spec
                .argv
                .first()
                .map(|program| program.to_string_lossy().into_owned())
                .unwrap_or_default(),
            errno,
        },
        Layer::WorkingDirectory => JailError::WorkingDirectory {
            path: spec.cwd.clone(),
            errno,
        },
        layer => JailError::lacks(layer, Errno::from_raw_os_error(errno), detail),
    }
}

impl Inner {
    /// Hands one order to the launcher, starting it anew if it was lost.
    fn send(
        &self,
        order: &[u8],
        descriptors: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(), JailError> {
        for attempt in 0..2 {
            let socket = self.socket()?;
            match datagram::send(&*socket, order, descriptors) {
                Ok(()) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) if attempt == 0 => {
                    self.forget(&socket);
                }
                Err(Errno::AGAIN) => {
                    return Err(JailError::LauncherLost(
                        "it does not take orders; too many are waiting".to_owned(),
                    ));
                }
                Err(errno) => return Err(JailError::LauncherLost(errno.to_string())),
            }
        }
        Err(JailError::LauncherLost("it ended again at once".to_owned()))
    }

    fn forget(&self, lost: &Arc<OwnedFd>) {
        let mut running = lock(&self.running);
        if running
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(&current.socket, lost))
        {
            *running = None;
        }
    }

    fn socket(&self) -> Result<Arc<OwnedFd>, JailError> {
        let mut running = lock(&self.running);
        if let Some(running) = &*running {
            return Ok(Arc::clone(&running.socket));
        }
        let (ours, theirs) = datagram::pair().map_err(JailError::errno("make a socket"))?;
        // As many orders as may be; where the kernel does not allow so much, it gives what it does.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&ours, ORDERS_BYTES);
        let keeper = keep(self.program.clone(), theirs).map_err(|error| {
            let hint = if self.program.starts_with("/proc") && !Path::new("/proc/self").exists() {
                "; mount /proc, which jails need too"
            } else {
                ""
            };
            let told = format!("run {}: {error}{hint}", self.program.display());
            JailError::LauncherStart(std::io::Error::new(error.kind(), told))
        })?;
        let socket = Arc::new(ours);
        *running = Some(Running {
            socket: Arc::clone(&socket),
            keeper,
        });
        Ok(socket)
    }
}

/// Starts the launcher from a thread that lives as long as it does: the launcher dies with the thread that started it, and the
/// thread reaps it. The channel that is returned ends with the thread.
fn keep(program: PathBuf, socket: OwnedFd) -> std::io::Result<mpsc::Receiver<std::io::Result<()>>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("launcher".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            let spawned = Command::new(&program)
                .arg0("mcp-bash-commander")
                .arg(LAUNCHER_MODE)
                .env_clear()
                .stdin(Stdio::from(socket))
                .stdout(Stdio::null())
                .stderr(Stdio::inherit())
                .spawn();
            match spawned {
                Ok(mut launcher) => {
                    drop(sender.send(Ok(())));
                    drop(launcher.wait());
                }
                Err(error) => drop(sender.send(Err(error))),
            }
        })?;
    receiver
        .recv()
        .unwrap_or_else(|_| Err(std::io::Error::other("its keeper thread ended")))?;
    Ok(receiver)
}
