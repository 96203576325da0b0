//! Init of a jail in a container: the engine has made namespaces, root and limits of the whole; what stands there is looked at, and
//! the layers of a process are made here, before any command starts.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::DumpableBehavior;

use super::cgroup::Kills;
use super::child::{self, Failure, Host, Identity};
use super::layer::LayerSet;
use super::memory::Memory;
use super::order::{NAMESPACES, Order, Parcel, Surroundings};
use super::pinned::Watched;
use super::protocol::Report;
use super::seccomp::Filters;
use super::{Layer, datagram, init, landlock, sys};

/// The argument that makes this program the init of a container. It is no command for users.
pub(super) const ARGUMENT: &str = "--jail-container-init";
/// Where the server's socket stands in the container, until init has connected to it.
pub(super) const SOCKET: &str = "/.jail/socket/server";

/// Layers that a container may lack: what its engine or kernel gives of them is told.
const OPTIONAL: [Layer; 4] = [
    Layer::CgroupNs,
    Layer::Cgroup,
    Layer::Landlock,
    Layer::DenialReports,
];

/// Does init's work and exits, if this process was started as the init of a container; else returns at once.
pub(super) fn serve_if_asked() {
    if std::env::args_os().nth(1).as_deref() == Some(OsStr::new(ARGUMENT)) {
        let ended = catch_unwind(serve);
        sys::exit_now(if ended.is_ok() { 0 } else { 101 });
    }
}

fn serve() {
    let Ok(status) = connect() else { return };
    let made = catch_unwind(AssertUnwindSafe(|| make(&status)));
    if let Ok(Err(failure)) = made {
        let _ = datagram::send(&status, &failure.report(0).encode(), &[]);
    }
}

fn connect() -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(SOCKET)?)?;
    Ok(socket)
}

fn make(status: &OwnedFd) -> Result<(), Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::Plumbing, errno, step.to_owned());
    let (mut order, streams) = receive(status).map_err(failed("read the order"))?;
    let kept = std::iter::once(status)
        .chain(&streams)
        .map(OwnedFd::as_raw_fd)
        .collect();
    child::close_all_but(status, kept).map_err(failed("close inherited descriptors"))?;
    sys::reset_signals();
    let memory = Memory::of_init(Kills::of_container(), None);
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("become undumpable"))?;
    let filters = Filters::compile();
    let host = Host {
        identity: Identity {
            privileged: false,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        },
        filters: &filters,
        landlock_abi: sys::landlock_abi().unwrap_or(0),
    };
    if host.landlock_abi < landlock::NEEDED_NUMBER {
        // An engine's own filter of system calls may hide it.
        order.layers.remove(Layer::Landlock);
    }
    let Surroundings::Container { outside, watched } = &order.surroundings else {
        return Err(failed("match the order with a container")(Errno::BADMSG));
    };
    let around = (
        look_around(&order, host.identity, outside, watched)?,
        watched.clone(),
    );
    init::serve(&order, &host, status, streams, memory, around)?;
    let ended = Report::JailEnded {
        status: 0,
        usage: sys::children_usage(),
        memory_kills: Kills::of_container().and_then(|kills| kills.count()),
    };
    datagram::send(status, &ended.encode(), &[]).map_err(failed("report the end"))
}

fn receive(status: &OwnedFd) -> Result<(Order, Vec<OwnedFd>), Errno> {
    poll(&mut [PollFd::new(status, PollFlags::IN)], None)?;
    let (bytes, descriptors) = datagram::receive(status)?.ok_or(Errno::PIPE)?;
    let mut descriptors = descriptors.into_iter();
    let order = Parcel::open(&bytes, &mut descriptors).ok_or(Errno::BADMSG)?;
    Ok((order, descriptors.collect()))
}

/// The layers that the engine was to make and did. One that must be there and is not refuses the jail.
fn look_around(
    order: &Order,
    identity: Identity,
    outside: &[u64],
    watched: &[Watched],
) -> Result<LayerSet, Failure> {
    if identity.uid == 0 {
        let what = "the container's user is root".to_owned();
        return Err(Failure::new(Layer::Capabilities, Errno::PERM, what));
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut seen = LayerSet::default();
    for ((name, layer), outside) in NAMESPACES.iter().zip(outside) {
        let inside = fs::metadata(Path::new("/proc/self/ns").join(name));
        if inside.is_ok_and(|inside| inside.ino() != *outside) {
            seen.insert(*layer);
        }
    }
    if rustix::fs::statvfs("/").is_ok_and(|root| root.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        seen.insert(Layer::PrivateRoot);
    }
    if let Some(turned) = watched.iter().find(|watched| !watched.is_intact()) {
        let what = format!("{} is another than was meant", turned.path().display());
        return Err(Failure::new(Layer::Workspace, Errno::STALE, what));
    }
    seen.insert(Layer::Workspace);
    seen.insert(Layer::PinnedInputs);
    if Kills::of_container().is_some() {
        seen.insert(Layer::Cgroup);
    }
    if has_no_capabilities() {
        seen.insert(Layer::Capabilities);
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| Failure::new(Layer::NoNewPrivs, errno, "no_new_privs".to_owned()))?;
    seen.insert(Layer::NoNewPrivs);
    let made_later = [
        Layer::Limits,
        Layer::Landlock,
        Layer::Seccomp,
        Layer::DenialReports,
    ];
    let asked = || Layer::STRICT.into_iter().filter(|layer| order.has(*layer));
    let lacking = asked().find(|layer| {
        !seen.contains(*layer) && !OPTIONAL.contains(layer) && !made_later.contains(layer)
    });
    if let Some(layer) = lacking {
        let what = "the engine did not make it".to_owned();
        return Err(Failure::new(layer, Errno::PERM, what));
    }
    Ok(asked().filter(|layer| seen.contains(*layer)).collect())
}

/// Neither now nor by any program.
fn has_no_capabilities() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"]
        .into_iter()
        .all(|set| {
            let bits = status.lines().find_map(|line| line.strip_prefix(set));
            bits.is_some_and(|bits| bits.trim().chars().all(|digit| digit == '0'))
        })
}
