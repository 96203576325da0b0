//! From a fresh clone to a jail: the steps init takes before it starts the command, each of which may refuse it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Signal, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::layer::LayerSet;
use super::memory::Memory;
use super::order::{Order, Surroundings};
use super::pinned::Watched;
use super::protocol::{CommandNumber, Report};
use super::root::{self, Base, Materials, Part};
use super::seccomp::Filters;
use super::{Layer, Network, datagram, hosted, init, sys};

/// Who the jail is, inside and to the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    /// Is the server root, so that the jail must be somebody else?
    pub(super) privileged: bool,
    /// The uid, the same inside and outside; never 0.
    pub(super) uid: u32,
    /// The gid, the same inside and outside.
    pub(super) gid: u32,
}

/// What is known before any order, and who the jail of this one is.
pub(super) struct Host<'a> {
    pub(super) identity: Identity,
    pub(super) filters: &'a Filters,
    pub(super) landlock_abi: u32,
}

/// The descriptors that come with an order, and what the launcher prepared.
pub(super) struct Belongings {
    /// Standard input, output and error of the command; none if it gets a terminal.
    pub(super) streams: Vec<OwnedFd>,
    /// What its root is made of.
    pub(super) materials: Materials,
    pub(super) memory: Memory,
    /// Readable when the launcher has mapped the user namespace and put this process into its group; ends when the launcher does.
    pub(super) go: OwnedFd,
}

/// A step that failed, and with it the whole jail.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) layer: Layer,
    pub(super) errno: Errno,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn new(layer: Layer, errno: Errno, detail: String) -> Self {
        Self {
            layer,
            errno,
            detail,
        }
    }

    /// What the server is told; 0 stands also for the jail as a whole, which is refused with its first command.
    pub(super) fn report(&self, command: CommandNumber) -> Report {
        Report::Refused {
            command,
            layer: self.layer,
            errno: self.errno.raw_os_error(),
            detail: self.detail.clone(),
        }
    }
}

/// The namespaces of a jail that are made by one clone.
pub(super) fn namespaces(order: &Order) -> libc::c_int {
    let mut namespaces = 0;
    for (layer, namespace) in [
        (Layer::UserNs, libc::CLONE_NEWUSER),
        (Layer::MntNs, libc::CLONE_NEWNS),
        (Layer::PidNs, libc::CLONE_NEWPID),
        (Layer::IpcNs, libc::CLONE_NEWIPC),
        (Layer::UtsNs, libc::CLONE_NEWUTS),
        (Layer::NetNs, libc::CLONE_NEWNET),
    ] {
        if order.has(layer) {
            namespaces |= namespace;
        }
    }
    namespaces
}

/// Runs as process 1 of the new namespaces: makes the jail, starts the command, serves until the jail ends.
pub(super) fn run(order: &Order, status: &OwnedFd, belongings: Belongings, host: &Host<'_>) -> ! {
    // A panic must not unwind into the launcher's loop, of which this process is a copy.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        if let Err(failure) = make(order, status, belongings, host) {
            let _ = datagram::send(status, &failure.report(0).encode(), &[]);
        }
    }));
    sys::exit_now(if ended.is_ok() { 0 } else { 101 })
}

fn make(
    order: &Order,
    status: &OwnedFd,
    belongings: Belongings,
    host: &Host<'_>,
) -> Result<(), Failure> {
    belongings.close_everything_else(status).map_err(|errno| {
        Failure::new(
            Layer::Plumbing,
            errno,
            "close inherited descriptors".to_owned(),
        )
    })?;
    let Belongings {
        streams,
        materials,
        memory,
        go,
    } = belongings;
    wait_for_launcher(&go)?;
    become_somebody(host.identity)?;
    let around = match &order.surroundings {
        Surroundings::Own => {
            die_with_launcher()?;
            surround(order, host.identity, materials)?
        }
        // It ends when the server does, and then first ends what no namespace would.
        Surroundings::Host { tmp } => {
            hosted::surround(order, tmp, &materials.pinned, &materials.inputs)?
        }
        Surroundings::Container { .. } => {
            let what = "match the order with a container".to_owned();
            return Err(Failure::new(Layer::Plumbing, Errno::BADMSG, what));
        }
    };
    drop(go);
    init::serve(order, host, status, streams, memory, around)
}

/// Closes whatever else this process has open. The numbers 0 to 2 stay taken, so that nothing of ours ever gets them.
pub(super) fn close_all_but(status: &OwnedFd, mut kept: Vec<i32>) -> Result<(), Errno> {
    for number in 0..=2 {
        sys::duplicate_to(status, number)?;
    }
    kept.sort_unstable();
    let mut first = 3;
    for number in kept {
        sys::close_range(first, number - 1)?;
        first = number + 1;
    }
    sys::close_range(first, i32::MAX)
}

impl Belongings {
    fn close_everything_else(&self, status: &OwnedFd) -> Result<(), Errno> {
        let Materials {
            base,
            mapped,
            pinned,
            inputs,
        } = &self.materials;
        let parts: &[Part] = match base {
            Base::Taken(parts) => parts,
            Base::Seen | Base::Standing => &[],
        };
        let trees = parts.iter().filter_map(|part| match part {
            Part::Tree { tree, .. } => Some(tree),
            Part::Link { .. } => None,
        });
        let kept = [status, &self.go]
            .into_iter()
            .chain(&self.streams)
            .chain(pinned)
            .chain(inputs)
            .chain(trees)
            .chain(mapped)
            .map(AsRawFd::as_raw_fd)
            .chain(self.memory.descriptors())
            .collect();
        close_all_but(status, kept)
    }
}

/// Waits until the launcher has mapped this process's user and put it into its group.
fn wait_for_launcher(go: &OwnedFd) -> Result<(), Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::UserNs, errno, step.to_owned());
    let told =
        rustix::io::retry_on_intr(|| rustix::io::read(go, &mut [0; 1])).map_err(failed("wait"))?;
    if told == 0 {
        return Err(failed("map the user namespace")(Errno::PIPE));
    }
    Ok(())
}

/// Becomes the jail's user.
fn become_somebody(identity: Identity) -> Result<(), Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::UserNs, errno, step.to_owned());
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("become undumpable"))
}

/// For after the change of user, which would clear it. Should the launcher be gone already, so is the server's end of the status socket,
/// or init sees that one close when the server goes.
fn die_with_launcher() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| Failure::new(Layer::UserNs, errno, "set the death signal".to_owned()))
}

/// Builds everything around this process that the command shall not be able to leave.
fn surround(
    order: &Order,
    identity: Identity,
    materials: Materials,
) -> Result<(LayerSet, Vec<Watched>), Failure> {
    let mut applied = LayerSet::default();
    for layer in [Layer::UserNs, Layer::MntNs, Layer::PidNs, Layer::IpcNs] {
        if order.has(layer) {
            applied.insert(layer);
        }
    }
    if order.has(Layer::CgroupNs) {
        // Not by the clone: its top is the group of whoever makes it, which shall be the jail's own.
        sys::unshare_cgroups().map_err(|errno| {
            Failure::new(Layer::CgroupNs, errno, "make the namespace".to_owned())
        })?;
        applied.insert(Layer::CgroupNs);
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if order.has(Layer::UtsNs) {
        rustix::system::sethostname(b"jail")
            .map_err(|errno| Failure::new(Layer::UtsNs, errno, "sethostname".to_owned()))?;
        applied.insert(Layer::UtsNs);
    }
    let root = if order.has(Layer::PrivateRoot) {
        let root = root::enter(order, identity, materials)?;
        for layer in [Layer::Workspace, Layer::Overlay, Layer::PinnedInputs] {
            if order.has(layer) {
                applied.insert(layer);
            }
        }
        Some(root)
    } else {
        None
    };
    if order.has(Layer::NetNs) {
        prepare_network(order)?;
        applied.insert(Layer::NetNs);
    }
    if let Some(root) = &root {
        root.seal()?;
        applied.insert(Layer::PrivateRoot);
    }
    if order.has(Layer::Capabilities) {
        drop_capabilities()?;
        applied.insert(Layer::Capabilities);
    }
    if order.has(Layer::NoNewPrivs) {
        rustix::thread::set_no_new_privs(true)
            .map_err(|errno| Failure::new(Layer::NoNewPrivs, errno, "no_new_privs".to_owned()))?;
        applied.insert(Layer::NoNewPrivs);
    }
    let watched = root.map_or_else(Vec::new, |root| root.watched);
    Ok((applied, watched))
}

/// A loopback interface, on which the published ports may be bound however low they are: which ones at all, Landlock says. Where there
/// is nothing to reach it stays down, as the kernel makes it.
fn prepare_network(order: &Order) -> Result<(), Failure> {
    const LOWEST_UNPRIVILEGED: u16 = 1024;
    let failed = |errno, step: &str| Failure::new(Layer::NetNs, errno, step.to_owned());
    let published = &order.published;
    if order.network == Network::None && published.is_empty() {
        return Ok(());
    }
    sys::loopback_up().map_err(|errno| failed(errno, "switch the loopback interface on"))?;
    if published.iter().all(|port| *port >= LOWEST_UNPRIVILEGED) {
        return Ok(());
    }
    let setting = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    fs::write(setting, "0")
        .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO), setting))
}

/// Empties every capability set, and locks the doors through which they come back.
fn drop_capabilities() -> Result<(), Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::Capabilities, errno, step.to_owned());
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows none from here on.
            Err(Errno::INVAL) if number > 0 => break,
            Err(errno) => return Err(failed("empty the bounding set")(errno)),
        }
    }
    rustix::thread::clear_ambient_capability_set().map_err(failed("empty the ambient set"))?;
    rustix::thread::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
    .map_err(failed("lock the secure bits"))?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        },
    )
    .map_err(failed("drop the capability sets"))
}
