//! Process 1 of a jail: it starts the command, reaps everything, makes sockets inside the jail's network, and ends the jail.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};

use super::child::{Failure, Host};
use super::layer::LayerSet;
use super::protocol::{Order, Report, Request};
use super::{Layer, datagram, leader, sys};

/// The command as its parent knows it.
pub(super) struct Command {
    pid: i32,
    child_signal: OwnedFd,
}

/// Starts the command and reports that it runs, with all layers around it. The streams are then its own alone.
pub(super) fn start(
    order: &Order,
    host: &Host,
    status: &OwnedFd,
    streams: [OwnedFd; 3],
    surrounding: LayerSet,
) -> Result<Command, Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::Plumbing, errno, step.to_owned());
    let child_signal = sys::child_signal().map_err(failed("watch children"))?;
    let (report, report_writer) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    let pid = sys::start_program(|| leader::run(order, host, &streams, &report_writer))
        .map_err(failed("make the command's process"))?;
    drop((streams, report_writer));
    for number in 0..=2 {
        // They were placeholders; the command has its own.
        sys::duplicate_to(status, number).map_err(failed("let go of the streams"))?;
    }
    let mut told = Vec::new();
    std::fs::File::from(report)
        .read_to_end(&mut told)
        .map_err(|error| {
            failed("hear from the command's process")(
                Errno::from_io_error(&error).unwrap_or(Errno::IO),
            )
        })?;
    let running = running(&told, surrounding)?;
    datagram::send(status, &running.encode(), &[]).map_err(failed("report the command"))?;
    Ok(Command { pid, child_signal })
}

/// The report that the command runs, if that is what its process told before it became the program.
fn running(told: &[u8], surrounding: LayerSet) -> Result<Report, Failure> {
    let length = Report::Running {
        applied: LayerSet::default(),
        landlock_abi: 0,
        kernel_uid: 0,
    }
    .encode()
    .len();
    // Before the last step there is a refusal alone, at it there may be one behind the report.
    let (first, rest) = match Report::decode(told) {
        Some(Report::Refused { .. }) => (&[][..], told),
        _ => told.split_at_checked(length).unwrap_or((&[], told)),
    };
    match (Report::decode(first), Report::decode(rest)) {
        (
            _,
            Some(Report::Refused {
                layer,
                errno,
                detail,
            }),
        ) => Err(Failure::new(layer, Errno::from_raw_os_error(errno), detail)),
        (
            Some(Report::Running {
                applied,
                landlock_abi,
                kernel_uid,
            }),
            _,
        ) if rest.is_empty() => Ok(Report::Running {
            applied: applied.union(surrounding),
            landlock_abi,
            kernel_uid,
        }),
        _ => Err(Failure::new(
            Layer::Plumbing,
            Errno::CHILD,
            "the command's process ended before it became the program".to_owned(),
        )),
    }
}

/// Serves until the server lets go of the jail, or the command has ended and what it left behind has had its time. When this
/// process ends, the kernel kills every other one of the jail.
pub(super) fn serve(status: &OwnedFd, command: &Command, linger: Duration) {
    let mut killed_at: Option<Instant> = None;
    loop {
        let rest = killed_at.map(|at| at.saturating_duration_since(Instant::now()));
        if rest == Some(Duration::ZERO) {
            return;
        }
        let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
        let mut watched = [
            PollFd::new(status, PollFlags::IN),
            PollFd::new(&command.child_signal, PollFlags::IN),
        ];
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let [request, child] = watched.map(|watched| !watched.revents().is_empty());
        if child {
            let _ = rustix::io::read(&command.child_signal, &mut [0_u8; 1024]);
            match reap(status, command) {
                Reaped::Everything => return,
                Reaped::Command => killed_at = Some(Instant::now() + linger),
                Reaped::Others => {}
            }
        }
        if request {
            match datagram::receive(status) {
                Ok(Some((bytes, _))) => answer(status, command, &bytes),
                Err(Errno::AGAIN) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

enum Reaped {
    /// The command, and no process is left: the jail is over.
    Everything,
    /// The command, and others are left.
    Command,
    /// Only others, or nobody.
    Others,
}

fn reap(status: &OwnedFd, command: &Command) -> Reaped {
    let mut ended = None;
    loop {
        match sys::reap() {
            Ok(Some((pid, wait_status, _))) if pid == command.pid => ended = Some(wait_status),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => {
                if let Some(wait_status) = ended {
                    report_end(status, wait_status, 0);
                }
                return Reaped::Everything;
            }
        }
    }
    let Some(wait_status) = ended else {
        return Reaped::Others;
    };
    report_end(status, wait_status, other_processes());
    Reaped::Command
}

fn report_end(status: &OwnedFd, wait_status: i32, left: u32) {
    let report = Report::CommandEnded {
        status: wait_status,
        usage: sys::children_usage(),
        left,
    };
    let _ = datagram::send(status, &report.encode(), &[]);
}

/// How many processes the jail has beside this one.
fn other_processes() -> u32 {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let processes = entries.flatten().filter(|entry| {
        entry
            .file_name()
            .as_encoded_bytes()
            .first()
            .is_some_and(u8::is_ascii_digit)
    });
    u32::try_from(processes.count().saturating_sub(1)).unwrap_or(u32::MAX)
}

fn answer(status: &OwnedFd, command: &Command, bytes: &[u8]) {
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
            let _ = datagram::send(status, &report, &descriptors);
        }
        Some(Request::Signal {
            signal,
            everyone: true,
        }) => {
            let _ = sys::signal_everyone(signal);
        }
        Some(Request::Signal {
            signal,
            everyone: false,
        }) => {
            if let (Some(pid), Some(signal)) =
                (Pid::from_raw(command.pid), Signal::from_named_raw(signal))
            {
                let _ = rustix::process::kill_process_group(pid, signal);
            }
        }
        None => {}
    }
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
