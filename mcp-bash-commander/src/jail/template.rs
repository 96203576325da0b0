//! What the private roots of a privileged launcher's jails have in common, mounted once: toolchain, devices, `/etc`, and places for what
//! each jail mounts for itself. A jail's mount namespace begins as a copy of it, in which it is read-only and locked.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::Signal;

use super::Layer;
use super::child::{Failure, Identity};
use super::home;
use super::order::{Order, Surroundings};
use super::root;
use super::sys::{self, Side};

/// Most of them that are kept: policies and workspaces hardly change while a server runs.
const MOST: usize = 4;

/// The templates made so far.
#[derive(Debug, Default)]
pub(super) struct Templates {
    made: Vec<Template>,
    /// The host's mounts.
    mount_table: Option<File>,
}

/// A mount namespace that nothing but its descriptor keeps alive.
#[derive(Debug)]
struct Template {
    /// The paths that it was made of, as they stood.
    toolchain: Vec<(PathBuf, Stood)>,
    /// Where it has a place for a workspace.
    target: Option<PathBuf>,
    namespace: OwnedFd,
}

/// What a path of the host was: device, inode, kind and last change. A link that is turned is another inode, or has another time.
type Stood = (u64, u64, u32, (i64, u64));

impl Templates {
    /// The mount namespace for the jail of this order; none where its root needs more than a copy, or where one cannot be made: then
    /// whoever makes the root from the beginning will find out why.
    pub(super) fn of(&mut self, order: &Order, identity: Identity) -> Option<BorrowedFd<'_>> {
        if !is_plain(order) {
            return None;
        }
        if self.mount_table.is_none() {
            self.mount_table = Some(File::open("/proc/self/mountinfo").ok()?);
        }
        let toolchain = stand(&order.read_only).ok()?;
        let target = order
            .workspace
            .as_ref()
            .map(|workspace| workspace.target.clone());
        let is_the_same = |made: &Template| made.toolchain == toolchain && made.target == target;
        let at = if let Some(at) = self.made.iter().position(is_the_same) {
            at
        } else {
            let namespace = make(order, identity).ok()?;
            if self.made.len() == MOST {
                self.made.remove(0);
            }
            self.made.push(Template {
                toolchain,
                target,
                namespace,
            });
            self.made.len() - 1
        };
        Some(self.made.get(at)?.namespace.as_fd())
    }

    /// To be watched, if any template depends on it: it becomes ready when something was mounted or unmounted on the host.
    pub(super) fn mount_table(&self) -> Option<PollFd<'_>> {
        let table = self.mount_table.as_ref()?;
        Some(PollFd::new(table, PollFlags::PRI))
    }

    /// Forgets all, and so lets go of what they hold of the host's file systems.
    pub(super) fn forget(&mut self) {
        self.made.clear();
    }
}

/// Whether the jail puts nothing into its root but mounts at places that are there.
fn is_plain(order: &Order) -> bool {
    let layers = [Layer::UserNs, Layer::MntNs, Layer::PrivateRoot];
    layers.into_iter().all(|layer| order.has(layer))
        && order.surroundings == Surroundings::Own
        && order.masked.is_empty()
        && order.inputs.is_empty()
        && order
            .workspace
            .as_ref()
            .is_none_or(|workspace| workspace.overlay.is_none())
}

fn stand(paths: &[PathBuf]) -> Result<Vec<(PathBuf, Stood)>, Errno> {
    paths
        .iter()
        .map(|path| {
            let stat = rustix::fs::lstat(path)?;
            let changed = (stat.st_ctime, stat.st_ctime_nsec);
            let stood = (stat.st_dev, stat.st_ino, stat.st_mode, changed);
            Ok((path.clone(), stood))
        })
        .collect()
}

/// Makes one in a process of its own, which ends when its mount namespace is held.
fn make(order: &Order, identity: Identity) -> Result<OwnedFd, Errno> {
    let (told, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // A process namespace too: its /proc must show no processes, and is what lets a jail mount its own.
    match sys::clone_process(libc::CLONE_NEWNS | libc::CLONE_NEWPID)? {
        Side::Child => {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            drop(told);
            if build(order, identity).is_ok() && rustix::io::write(&tell, b"m").is_ok() {
                // Until it is killed.
                let _ = poll(&mut [], None);
            }
            sys::exit_now(1)
        }
        Side::Parent { pid, pidfd } => {
            drop(tell);
            let made = rustix::io::retry_on_intr(|| rustix::io::read(&told, &mut [0; 1]));
            let namespace = match made {
                Ok(1) => home::of_process(pid, "mnt"),
                Ok(_) => Err(Errno::CHILD),
                Err(errno) => Err(errno),
            };
            // The launcher's loop reaps it like any other child.
            let _ = rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL);
            namespace
        }
    }
}

fn build(order: &Order, identity: Identity) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let what = path.display().to_string();
        move |errno| Failure::new(Layer::PrivateRoot, errno, what)
    };
    rustix::process::umask(Mode::from_raw_mode(0o022));
    root::make_mounts_private()?;
    let made = root::begin(root::take_parts(&order.read_only)?, identity)?;
    for place in ["/tmp", "/dev/pts"].map(Path::new) {
        root::make_directories(made.as_fd(), place).map_err(failed(place))?;
    }
    root::place_proc(&made).map_err(failed(Path::new("/proc")))?;
    if let Some(workspace) = &order.workspace {
        // What is below /tmp, each jail makes in its own.
        if !workspace.target.starts_with("/tmp") {
            root::make_directories(made.as_fd(), &workspace.target)
                .map_err(failed(&workspace.target))?;
        }
    }
    root::leave_host(&made)?;
    root::seal(&made)
}
