//! The launcher process: one thread, no state but the jails that live; it clones, maps, reaps and reports, and waits for nobody.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use super::cgroup::{Groups, Lack, Leaf};
use super::child::{self, Belongings, Failure, Host, Identity};
use super::home::{self, Elsewhere, Home};
use super::idmap::{self, Mappings};
use super::memory::Memory;
use super::networks::{self, Networks};
use super::order::{Order, Parcel, Surroundings};
use super::protocol::Report;
use super::root::{self, Base, Materials};
use super::seccomp::Filters;
use super::sys::{self, Side};
use super::template::Templates;
use super::workspace::Place;
use super::{Access, Layer, datagram, processes};

/// The kernel uid and gid of jails of a server that runs as root: those of `nobody`.
const NOBODY: u32 = 65534;

/// Does the launcher's work until the server closes its socket, standard input of this process, or dies.
pub(super) fn serve() -> ! {
    match prepare() {
        Ok((launcher, children)) => work(&launcher, &children),
        Err(failure) => refuse_all(&failure),
    }
    sys::exit_now(0)
}

/// Answers every order with why no jail can be made: the server can tell, and its log need not be read.
fn refuse_all(failure: &Failure) {
    let orders = rustix::stdio::stdin();
    loop {
        let mut watched = [PollFd::new(&orders, PollFlags::IN)];
        match poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        match datagram::receive(orders) {
            Ok(Some((_, descriptors))) => {
                if let Some(status) = descriptors.first() {
                    let _ = datagram::send(status, &failure.report(0).encode(), &[]);
                }
            }
            Err(Errno::AGAIN | Errno::MSGSIZE) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// What the launcher knows before any order.
struct Launcher {
    identity: Identity,
    filters: Filters,
    landlock_abi: u32,
    /// Where it may leave its namespaces to make a jail cheaper.
    home: Option<Home>,
}

/// What the launcher makes once and uses again.
#[derive(Default)]
struct Stores {
    mappings: Mappings,
    groups: Groups,
    templates: Templates,
    networks: Networks,
}

fn prepare() -> Result<(Launcher, OwnedFd), Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::Plumbing, errno, step.to_owned());
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed("set the death signal"))?;
    sys::reset_signals();
    rustix::process::chdir("/").map_err(failed("enter /"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(failed("adopt orphans"))?;
    let children = sys::child_signal().map_err(failed("watch children"))?;
    let uid = rustix::process::geteuid().as_raw();
    let identity = if uid == 0 {
        // What root belonged to, nobody shall.
        rustix::thread::set_thread_groups(&[]).map_err(|errno| {
            let detail = "leave all groups: root is the only user of its namespace; run the server as an ordinary user instead";
            Failure::new(Layer::UserNs, errno, detail.to_owned())
        })?;
        Identity {
            privileged: true,
            uid: NOBODY,
            gid: NOBODY,
        }
    } else {
        let gid = rustix::process::getegid().as_raw();
        Identity {
            privileged: false,
            uid,
            gid,
        }
    };
    let mut filters = Filters::compile();
    filters.confine_launcher();
    let landlock_abi = sys::landlock_abi().unwrap_or(0);
    let home = if identity.privileged {
        Home::find()
    } else {
        None
    };
    Ok((
        Launcher {
            identity,
            filters,
            landlock_abi,
            home,
        },
        children,
    ))
}

fn work(launcher: &Launcher, children: &OwnedFd) {
    let orders = rustix::stdio::stdin();
    let mut stores = Stores::default();
    let mut jails: HashMap<i32, Jail> = HashMap::new();
    loop {
        let retry = stores
            .groups
            .tidy()
            .and_then(|pause| Timespec::try_from(pause).ok());
        let mut watched = vec![
            PollFd::new(&orders, PollFlags::IN),
            PollFd::new(children, PollFlags::IN),
        ];
        watched.extend(stores.templates.mount_table());
        match poll(&mut watched, retry.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        let happened = |at: usize| watched.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let (order, child, mounts) = (happened(0), happened(1), happened(2));
        drop(watched);
        if mounts {
            stores.templates.forget();
        }
        if child {
            let _ = rustix::io::read(children, &mut [0_u8; 1024]);
            while let Ok(Some((pid, status, usage))) = sys::reap() {
                if let Some(jail) = jails.remove(&pid) {
                    let Jail {
                        socket,
                        leaf,
                        tmp,
                        network,
                    } = jail;
                    if let Some(tmp) = tmp {
                        // What an init that was killed could not end and remove any more, it left to this process.
                        processes::end_others(|child| jails.contains_key(&child));
                        let _ = std::fs::remove_dir_all(tmp);
                    }
                    let kills = leaf.as_ref().and_then(Leaf::kill_count);
                    let report = Report::JailEnded {
                        status,
                        usage,
                        memory_kills: kills,
                    };
                    // Before it is told: a server that waits for its jails to end may end then, and this process with it.
                    stores.groups.remove(leaf);
                    stores.networks.give_back(network);
                    let _ = datagram::send(&socket, &report.encode(), &[]);
                }
            }
        }
        if order {
            match datagram::receive(orders) {
                Ok(Some((bytes, descriptors))) => {
                    if let Some((pid, jail)) = carry_out(launcher, &mut stores, &bytes, descriptors)
                    {
                        jails.insert(pid, jail);
                    }
                }
                Err(Errno::AGAIN | Errno::MSGSIZE) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }
    end_all(jails, &mut stores.groups);
}

/// A jail that lives.
struct Jail {
    /// To report its end on.
    socket: OwnedFd,
    /// Its control group, if it has one.
    leaf: Option<Leaf>,
    /// What stands for `/tmp` in a jail without namespaces, whose init must end the others, since no namespace does.
    tmp: Option<PathBuf>,
    /// Its network, if another may have it next.
    network: Option<OwnedFd>,
}

/// Ends every jail, as the end of this process would, and waits for it: only then can its control group be removed.
fn end_all(jails: HashMap<i32, Jail>, groups: &mut Groups) {
    for (pid, jail) in &jails {
        if jail.tmp.is_some() {
            // An init without namespaces sees its connection end, and ends what is its own before itself.
            let _ = rustix::net::shutdown(&jail.socket, rustix::net::Shutdown::Both);
        } else {
            let _ = sys::signal(*pid, libc::SIGKILL);
        }
    }
    for (pid, jail) in jails {
        let pid = Pid::from_raw(pid);
        let _ = rustix::io::retry_on_intr(|| waitpid(pid, WaitOptions::empty()));
        groups.remove(jail.leaf);
    }
    while let Some(pause) = groups.tidy() {
        std::thread::sleep(pause);
    }
}

/// Makes the jail of one order. Returns its init; a refusal is reported at once.
fn carry_out(
    launcher: &Launcher,
    stores: &mut Stores,
    bytes: &[u8],
    descriptors: Vec<OwnedFd>,
) -> Option<(i32, Jail)> {
    let mut descriptors = descriptors.into_iter();
    // It comes first, to be told of what is wrong with all else.
    let status = descriptors.next()?;
    let unreadable = || Failure::new(Layer::Plumbing, Errno::BADMSG, "read the order".to_owned());
    let made = Parcel::open(bytes, &mut descriptors)
        .ok_or_else(unreadable)
        .and_then(|order| {
            let leaf = leaf_for(&order, &mut stores.groups)?;
            let streams = descriptors.collect();
            match make(launcher, stores, &order, &status, streams, leaf.as_ref()) {
                Ok((pid, network)) => Ok((pid, leaf, tmp_of(order.surroundings), network)),
                Err(failure) => {
                    stores.groups.remove(leaf);
                    Err(failure)
                }
            }
        });
    match made {
        Ok((pid, leaf, tmp, network)) => Some((
            pid,
            Jail {
                socket: status,
                leaf,
                tmp,
                network,
            },
        )),
        Err(failure) => {
            let _ = datagram::send(&status, &failure.report(0).encode(), &[]);
            None
        }
    }
}

fn tmp_of(surroundings: Surroundings) -> Option<PathBuf> {
    match surroundings {
        Surroundings::Host { tmp } => Some(tmp),
        Surroundings::Own | Surroundings::Container { .. } => None,
    }
}

/// The control group of a jail. Where none can be had it is one of the missing layers, and the jail is made all the same unless a group
/// is asked for.
fn leaf_for(order: &Order, groups: &mut Groups) -> Result<Option<Leaf>, Failure> {
    if !order.has(Layer::Cgroup) {
        return Ok(None);
    }
    let with_pids = !order.has(Layer::UserNs);
    match groups.make(&order.limits, with_pids) {
        Ok(leaf) => Ok(Some(leaf)),
        Err(lack) if order.limits.require_cgroup => Err(lack.into()),
        Err(_) => Ok(None),
    }
}

impl From<Lack> for Failure {
    fn from(Lack { errno, detail }: Lack) -> Self {
        Self::new(Layer::Cgroup, errno, detail)
    }
}

/// Clones the init of a jail; its id, and its network if another jail may have that later.
fn make(
    launcher: &Launcher,
    stores: &mut Stores,
    order: &Order,
    status: &OwnedFd,
    mut streams: Vec<OwnedFd>,
    leaf: Option<&Leaf>,
) -> Result<(i32, Option<OwnedFd>), Failure> {
    let plumbing =
        |step: &'static str| move |errno| Failure::new(Layer::Plumbing, errno, step.to_owned());
    let stream_count = if order.command.terminal.is_some() {
        0
    } else {
        3
    };
    let workspace_count = order
        .workspace
        .as_ref()
        .map_or(0, |workspace| 1 + usize::from(workspace.overlay.is_some()));
    if streams.len() != stream_count + workspace_count + order.inputs.len() {
        return Err(plumbing("match the descriptors with the order")(
            Errno::BADMSG,
        ));
    }
    let mut pinned = streams.split_off(stream_count);
    let inputs = pinned.split_off(workspace_count);
    let host = Host {
        identity: identity(launcher, order, pinned.first())?,
        filters: &launcher.filters,
        landlock_abi: launcher.landlock_abi,
    };
    let takes_mounts = host.identity.privileged && order.has(Layer::MntNs);
    let mapped = if takes_mounts {
        map_workspace(&host, &mut stores.mappings, order, &pinned)?
    } else {
        Vec::new()
    };
    let home = launcher.home.as_ref();
    let may_share_network = home.is_some() && networks::may_share(order);
    let network = if may_share_network {
        stores.networks.take()
    } else {
        None
    };
    let elsewhere = Elsewhere {
        mounts: home.and_then(|_| stores.templates.of(order, host.identity)),
        network: network.as_ref().map(|network| network.as_fd()),
    };
    let kills = leaf.map(Leaf::kills).transpose()?;
    let (go, go_writer) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(plumbing("make a pipe"))?;
    let clone = |elsewhere| clone_init(home, order, takes_mounts, elsewhere);
    let (base, side) = match clone(elsewhere) {
        // What is only there to make it cheaper is no reason to make none.
        Err(_) if !elsewhere.is_here() => clone(Elsewhere::default()),
        cloned => cloned,
    }?;
    match side {
        Side::Child => {
            let belongings = Belongings {
                streams,
                materials: Materials {
                    base,
                    mapped,
                    pinned,
                    inputs,
                },
                memory: Memory::of_init(kills, home.map(Home::proc)),
                go,
            };
            child::run(order, status, belongings, &host)
        }
        Side::Parent { pid, pidfd } => {
            if order.has(Layer::UserNs) {
                let id = (host.identity.uid, host.identity.gid);
                idmap::write_map(pid, id, id).map_err(|errno| {
                    Failure::new(Layer::UserNs, errno, "map the user namespace".to_owned())
                })?;
            }
            leaf.map_or(Ok(()), |leaf| leaf.take_in(pid))?;
            let cgroup = leaf.map(Leaf::version);
            let report = Report::Started { pid, cgroup }.encode();
            datagram::send(status, &report, &[pidfd.as_fd()])
                .map_err(plumbing("report the jail"))?;
            // Without this byte, for whatever reason, init ends itself.
            rustix::io::write(&go_writer, b"g").map_err(plumbing("let init go on"))?;
            let network = if may_share_network {
                network.or_else(|| home::of_process(pid, "net").ok())
            } else {
                None
            };
            Ok((pid, network))
        }
    }
}

/// Clones what becomes the jail's init, and says what its root begins with.
fn clone_init(
    home: Option<&Home>,
    order: &Order,
    takes_mounts: bool,
    elsewhere: Elsewhere<'_>,
) -> Result<(Base, Side), Failure> {
    let base = match elsewhere.mounts {
        Some(_) => Base::Standing,
        None if takes_mounts => Base::Taken(root::take_parts(&order.read_only)?),
        None => Base::Seen,
    };
    let mut namespaces = child::namespaces(order);
    if elsewhere.network.is_some() {
        namespaces &= !libc::CLONE_NEWNET;
    }
    let side = match home {
        Some(home) => home.clone_elsewhere(namespaces, elsewhere),
        None => sys::clone_process(namespaces),
    };
    let failed = |errno| Failure::new(Layer::UserNs, errno, "make the namespaces".to_owned());
    Ok((base, side.map_err(failed)?))
}

/// Who the jail is. Without a user namespace nobody could be given root's files: then it is the workspace's owner.
fn identity(
    launcher: &Launcher,
    order: &Order,
    workspace: Option<&OwnedFd>,
) -> Result<Identity, Failure> {
    let (Some(workspace), true, false) = (
        workspace,
        launcher.identity.privileged,
        order.has(Layer::UserNs),
    ) else {
        return Ok(launcher.identity);
    };
    let failed = |errno| {
        let what = "it belongs to root, as which no command runs: give it to an ordinary user";
        Failure::new(Layer::Workspace, errno, what.to_owned())
    };
    let owner = rustix::fs::fstat(workspace).map_err(failed)?;
    let is_changed = order
        .workspace
        .as_ref()
        .is_some_and(|workspace| workspace.access == Access::ReadWrite);
    match (owner.st_uid, is_changed) {
        (0, true) => Err(failed(Errno::PERM)),
        (0, false) => Ok(launcher.identity),
        _ => Ok(Identity {
            uid: owner.st_uid,
            gid: owner.st_gid,
            ..launcher.identity
        }),
    }
}

/// What only root may do: take mounts from the host's own namespace, and map the workspace's owner to the jail's user. `pinned` are the
/// directories of the workspace and of its overlay.
fn map_workspace(
    host: &Host<'_>,
    mappings: &mut Mappings,
    order: &Order,
    pinned: &[OwnedFd],
) -> Result<Vec<OwnedFd>, Failure> {
    let Some(workspace) = &order.workspace else {
        return Ok(Vec::new());
    };
    let jailed = (host.identity.uid, host.identity.gid);
    let mut mapped = Vec::with_capacity(pinned.len());
    for (place, pinned) in Place::of(workspace).into_iter().zip(pinned) {
        let failed = |errno| place.failure(errno);
        let owner = rustix::fs::fstat(pinned).map_err(failed)?;
        let mapping = mappings
            .of((owner.st_uid, owner.st_gid), jailed)
            .map_err(failed)?;
        let mapping = mapping.map(|mapping| mapping.as_fd());
        mapped.push(place.take_mapped(pinned.as_fd(), mapping)?);
    }
    Ok(mapped)
}
