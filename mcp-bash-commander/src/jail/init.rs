//! Process 1 of a jail: it starts commands, reaps everything, answers denied calls, makes sockets inside the jail's network, and ends
//! the jail.

use std::collections::HashMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::child::{Failure, Host};
use super::denials::Denials;
use super::landlock::{self, Rules};
use super::layer::LayerSet;
use super::memory::Memory;
use super::order::{Order, Surroundings};
use super::pinned::Watched;
use super::protocol::{CommandNumber, MemoryKills, Reach, Report, Request};
use super::{Layer, Lifetime, Mode, Network, datagram, leader, processes, start, sys};

/// Where the server's proxy listens inside a jail that publishes these ports.
pub fn proxy_address(published: &[u16]) -> SocketAddr {
    const FIRST: u16 = 3128;
    let port = (FIRST..=u16::MAX).find(|port| !published.contains(port));
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.unwrap_or(FIRST))
}

/// A jail as its init knows it.
pub(super) struct Init<'a> {
    pub(super) order: &'a Order,
    pub(super) host: &'a Host<'a>,
    pub(super) status: &'a OwnedFd,
    pub(super) rules: Option<Rules>,
    /// Where it is and each command begins, if that is certain.
    pub(super) here: Option<PathBuf>,
    /// The layers around every command.
    pub(super) surrounding: LayerSet,
    child_signal: OwnedFd,
    denials: Option<Denials>,
    /// What commands must not change.
    watched: Vec<Watched>,
    /// The mounts of the jail, if some of them are guards: it becomes ready when one is lost.
    mounts: Option<File>,
    /// The running commands by their process.
    pub(super) commands: HashMap<i32, CommandNumber>,
    pub(super) memory: Memory,
    /// How many had been killed for want of memory when each running command started, where that is counted.
    kills_before: HashMap<CommandNumber, u64>,
    /// Was the whole jail told to end?
    is_ending: bool,
}

/// Finishes the jail, starts its first command, and serves until the jail ends. When this process ends, the kernel kills every other
/// one of the jail, or they are dead already.
pub(super) fn serve(
    order: &Order,
    host: &Host<'_>,
    status: &OwnedFd,
    streams: Vec<OwnedFd>,
    memory: Memory,
    (mut surrounding, watched): (LayerSet, Vec<Watched>),
) -> Result<(), Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::Plumbing, errno, step.to_owned());
    let child_signal = sys::child_signal().map_err(failed("watch children"))?;
    if order.network == Network::Proxy && order.has(Layer::NetNs) {
        let listener = proxy_listener(&order.published).map_err(|errno| {
            Failure::new(Layer::NetNs, errno, "make the proxy's listener".to_owned())
        })?;
        datagram::send(status, &Report::Listener.encode(), &[listener.as_fd()])
            .map_err(failed("pass the proxy's listener on"))?;
    }
    let rules = if order.has(Layer::Landlock) {
        Some(landlock::rules(order, host.landlock_abi)?)
    } else {
        None
    };
    let mut listener = None;
    if order.has(Layer::Seccomp) {
        listener = host
            .filters
            .confine(order)
            .map_err(|error| Failure::new(Layer::Seccomp, Errno::INVAL, error.to_string()))?;
        surrounding.insert(Layer::Seccomp);
    }
    if listener.is_some() {
        surrounding.insert(Layer::DenialReports);
    }
    if let Some(told) = listener.take_if(|_| order.observed) {
        // From here on every look at a file of this process, too, waits for the server.
        datagram::send(status, &Report::Observed.encode(), &[told.as_fd()])
            .map_err(failed("pass the listener on"))?;
    }
    let (watched, mounts) = if order.surroundings.mode() == Mode::NoUserns {
        (watched, None)
    } else {
        let watched: Vec<_> = watched.into_iter().map(Watched::guarded).collect();
        let mounts = watched
            .iter()
            .any(Watched::was_there)
            .then(|| File::open("/proc/self/mountinfo").ok())
            .flatten();
        (watched, mounts)
    };
    let mut init = Init {
        order,
        host,
        status,
        rules,
        here: begin_in_workspace(order),
        surrounding,
        child_signal,
        denials: listener.map(Denials::new),
        watched,
        mounts,
        commands: HashMap::new(),
        memory,
        kills_before: HashMap::new(),
        is_ending: false,
    };
    let started = start::command(&mut init, 0, order.command.clone(), streams);
    if started.is_ok() {
        init.work();
    }
    if let Surroundings::Host { tmp } = &order.surroundings {
        processes::end_others(|_| false);
        let _ = std::fs::remove_dir_all(tmp);
    }
    started
}

/// Goes to where most commands of a session work, which each of them then need not do: the workspace is a mount, nothing in the jail can
/// put something else there.
fn begin_in_workspace(order: &Order) -> Option<PathBuf> {
    let is_mount = order.has(Layer::PrivateRoot) && order.has(Layer::Workspace);
    let workspace = &order.workspace.as_ref()?.target;
    let is_worth_it = order.lifetime == Lifetime::Kept && is_mount;
    (is_worth_it && leader::enter(workspace).is_ok()).then(|| workspace.clone())
}

/// A listening socket in the jail's network, for the server to accept on.
fn proxy_listener(published: &[u16]) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &proxy_address(published))?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

impl Init<'_> {
    fn work(&mut self) {
        let mut killed_at: Option<Instant> = None;
        loop {
            let rest = killed_at.map(|at| at.saturating_duration_since(Instant::now()));
            if rest.is_some_and(|rest| rest.is_zero()) {
                return;
            }
            let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
            let mut watched = vec![
                PollFd::new(self.status, PollFlags::IN),
                PollFd::new(&self.child_signal, PollFlags::IN),
            ];
            watched.extend(
                self.denials
                    .as_ref()
                    .map(|denials| PollFd::new(denials.listener(), PollFlags::IN)),
            );
            let at_mounts = watched.len();
            watched.extend(
                self.mounts
                    .as_ref()
                    .map(|mounts| PollFd::new(mounts, PollFlags::PRI)),
            );
            match poll(&mut watched, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let happened = |at: usize| watched.get(at).map_or(PollFlags::empty(), PollFd::revents);
            let (request, child) = (!happened(0).is_empty(), !happened(1).is_empty());
            let is_denied = happened(2).contains(PollFlags::IN);
            let mounts = !happened(at_mounts).is_empty();
            drop(watched);
            if mounts && self.lost().next().is_some() {
                // Whoever runs on could change what the guard was for. Each is told why when it has ended.
                processes::signal_everyone(self.order.has(Layer::PidNs), libc::SIGKILL);
            }
            if is_denied {
                self.deny();
            }
            if child {
                let _ = rustix::io::read(&self.child_signal, &mut [0_u8; 1024]);
                match self.reap() {
                    Reaped::Everything if self.is_over() => return,
                    Reaped::First if self.order.lifetime == Lifetime::Command => {
                        killed_at = Some(Instant::now() + self.order.linger);
                    }
                    Reaped::Everything | Reaped::First | Reaped::Others => {}
                }
            }
            if request {
                match datagram::receive(self.status) {
                    Ok(Some((bytes, descriptors))) => {
                        self.answer(&bytes, descriptors);
                        // An idle session has nobody whose end would be told.
                        if self.is_ending && matches!(self.reap(), Reaped::Everything) {
                            return;
                        }
                    }
                    Err(Errno::AGAIN) => {}
                    Ok(None) | Err(_) => return,
                }
            }
        }
    }

    /// With no process left: is the jail over, or does it wait for its next command?
    fn is_over(&self) -> bool {
        self.order.lifetime == Lifetime::Command || self.is_ending
    }

    /// A guarded path that does not stand as it did when the jail was made.
    pub(super) fn replaced(&self) -> Option<&Watched> {
        self.watched.iter().find(|watched| !watched.is_intact())
    }

    /// Takes over a command that was started when so many had been killed.
    pub(super) fn watch(&mut self, pid: i32, command: CommandNumber, memory_kills: Option<u64>) {
        self.commands.insert(pid, command);
        if let Some(kills) = memory_kills {
            self.kills_before.insert(command, kills);
        }
    }

    /// Guarded paths that lost what guarded them. What came up where there was nothing, the server sees itself.
    fn lost(&self) -> impl Iterator<Item = &Watched> {
        self.watched
            .iter()
            .filter(|watched| watched.was_there() && !watched.is_intact())
    }

    fn tell_replaced(&self, command: CommandNumber) {
        for watched in self.lost() {
            let report = Report::Replaced {
                command,
                path: watched.path().to_owned(),
            };
            let _ = datagram::send(self.status, &report.encode(), &[]);
        }
    }

    fn deny(&mut self) {
        let Self {
            denials,
            status,
            commands,
            ..
        } = self;
        if let Some(denials) = denials {
            denials.answer(status, |pid| processes::command_of(commands, pid));
        }
    }

    fn reap(&mut self) -> Reaped {
        let mut reaped = Reaped::Others;
        loop {
            match sys::reap() {
                Ok(Some((pid, status, usage))) => {
                    let Some(command) = self.commands.remove(&pid) else {
                        continue;
                    };
                    if command == 0 {
                        reaped = Reaped::First;
                    }
                    self.tell_replaced(command);
                    if let Some(denials) = &mut self.denials {
                        denials.settle(self.status, command);
                    }
                    let usage = match self.order.lifetime {
                        // All that ended here was the command's.
                        Lifetime::Command => sys::children_usage(),
                        Lifetime::Kept => usage,
                    };
                    let before = self.kills_before.remove(&command);
                    let memory_kills = before
                        .zip(self.memory.kills())
                        .map(|(before, after)| MemoryKills { before, after });
                    let report = Report::CommandEnded {
                        command,
                        status,
                        usage,
                        left: processes::others(self.order.has(Layer::PidNs)),
                        memory_kills,
                    };
                    let _ = datagram::send(self.status, &report.encode(), &[]);
                }
                Ok(None) => return reaped,
                // No children are left.
                Err(_) => return Reaped::Everything,
            }
        }
    }

    fn answer(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        match Request::decode(bytes) {
            Some(Request::Connect { id, port, ipv6 }) => {
                let connected = connect(port, ipv6);
                let errno = connected
                    .as_ref()
                    .err()
                    .map_or(0, |errno| errno.raw_os_error());
                let report = Report::Socket { id, errno }.encode();
                let socket = connected.ok();
                let descriptors: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
                let _ = datagram::send(self.status, &report, &descriptors);
            }
            Some(Request::Signal {
                command,
                signal,
                reach,
            }) => self.signal(command, signal, reach),
            Some(Request::Start { command, order }) => {
                if let Err(failure) = start::further(self, command, &order, descriptors) {
                    let _ = datagram::send(self.status, &failure.report(command).encode(), &[]);
                }
            }
            None => {}
        }
    }

    fn signal(&mut self, command: CommandNumber, signal: i32, reach: Reach) {
        let leader = self
            .commands
            .iter()
            .find_map(|(pid, number)| (*number == command).then_some(*pid));
        match (reach, leader) {
            (Reach::Jail, _) => {
                self.is_ending |= signal == libc::SIGKILL;
                processes::signal_everyone(self.order.has(Layer::PidNs), signal);
            }
            (Reach::Leader, Some(pid)) => drop(sys::signal(pid, signal)),
            (Reach::Group, Some(pid)) => drop(sys::signal(-pid, signal)),
            (Reach::Tree, Some(pid)) => processes::signal_tree(pid, signal),
            // It ended meanwhile.
            (_, None) => {}
        }
    }
}

enum Reaped {
    /// No process is left.
    Everything,
    /// The first command, and others are left.
    First,
    /// Only others, or nobody.
    Others,
}

/// A socket of this network namespace, connected or about to be: it never makes init wait.
fn connect(port: u16, ipv6: bool) -> Result<OwnedFd, Errno> {
    let (family, address) = if ipv6 {
        (AddressFamily::INET6, IpAddr::V6(Ipv6Addr::LOCALHOST))
    } else {
        (AddressFamily::INET, IpAddr::V4(Ipv4Addr::LOCALHOST))
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddr::new(address, port)) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}
