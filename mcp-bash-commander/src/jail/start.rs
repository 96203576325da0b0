//! Starting a command in a jail that stands: its terminal, its process, and the report that it runs.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::child::Failure;
use super::init::Init;
use super::layer::LayerSet;
use super::order::{self, CommandOrder, Surroundings};
use super::protocol::{CommandNumber, Report};
use super::{Layer, TerminalSize, datagram, hosted, leader, streams, sys};

/// Starts a command for which only its order came, or a file with it, and its streams.
pub(super) fn further(
    init: &mut Init<'_>,
    number: CommandNumber,
    order: &[u8],
    descriptors: Vec<OwnedFd>,
) -> Result<(), Failure> {
    let mut descriptors = descriptors.into_iter();
    let order = order::taken_from_file(order, &mut descriptors)
        .and_then(|order| order::decode_command(&order))
        .ok_or_else(|| Failure::new(Layer::Plumbing, Errno::BADMSG, "read the order".to_owned()))?;
    if let Some(watched) = init.replaced() {
        let what = format!(
            "{} is not as it was when the session began",
            watched.path().display()
        );
        return Err(Failure::new(Layer::Workspace, Errno::STALE, what));
    }
    command(init, number, order, descriptors.collect())
}

/// Starts a command and reports that it runs, with all layers around it. The streams are then its own alone.
pub(super) fn command(
    init: &mut Init<'_>,
    number: CommandNumber,
    mut order: CommandOrder,
    streams: Vec<OwnedFd>,
) -> Result<(), Failure> {
    let most_processes = match &init.order.surroundings {
        Surroundings::Own => Some(init.order.limits.processes),
        // The engine bounds them.
        Surroundings::Container { .. } => None,
        Surroundings::Host { tmp } => {
            hosted::take_tmp(&mut order, tmp);
            // The kernel counts all of its user's.
            let others = hosted::processes_of(init.host.identity.uid);
            Some(init.order.limits.processes.saturating_add(others))
        }
    };
    let order = &order;
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::Plumbing, errno, step.to_owned());
    let (streams, master) = if let Some(size) = order.terminal {
        let (master, streams) = terminal(size, init.order.has(Layer::PrivateRoot))
            .map_err(failed("make a terminal"))?;
        (streams, Some(master))
    } else {
        let streams = <[OwnedFd; 3]>::try_from(streams)
            .map_err(|_| failed("take the streams")(Errno::BADMSG))?;
        (streams, None)
    };
    let (report, report_writer) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    let jail = leader::Jail {
        order: init.order,
        rules: init.rules.as_ref(),
        most_processes,
        here: init.here.as_deref(),
    };
    let program = leader::Program::of(order);
    let memory_kills = init.memory.kills();
    let run = || leader::run(&jail, order, &program, &streams, &report_writer);
    let started = init.memory.starting(|| sys::start_program(run));
    let pid = started.map_err(failed("make the command's process"))?;
    drop((streams, report_writer));
    let mut told = Vec::new();
    File::from(report).read_to_end(&mut told).map_err(|error| {
        failed("hear from the command's process")(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })?;
    let applied = applied(&told)?;
    let running = Report::Running {
        command: number,
        pid,
        applied: applied.union(init.surrounding),
        landlock_abi: init.host.landlock_abi,
        kernel_uid: init.host.identity.uid,
    };
    let master: Vec<_> = master.iter().map(|master| master.as_fd()).collect();
    init.watch(pid, number, memory_kills);
    datagram::send(init.status, &running.encode(), &master).map_err(failed("report the command"))
}

/// The layers of the command's own process, if it told that it becomes the program and nothing after that.
fn applied(told: &[u8]) -> Result<LayerSet, Failure> {
    // Before the last step there is a refusal alone, at it there may be one behind the layers.
    let refused = Report::decode(told).or_else(|| Report::decode(told.get(4..)?));
    match (refused, <[u8; 4]>::try_from(told)) {
        (
            Some(Report::Refused {
                layer,
                errno,
                detail,
                ..
            }),
            _,
        ) => Err(Failure::new(layer, Errno::from_raw_os_error(errno), detail)),
        (None, Ok(layers)) => Ok(LayerSet(u32::from_le_bytes(layers))),
        _ => Err(Failure::new(
            Layer::Plumbing,
            Errno::CHILD,
            "the command's process ended before it became the program".to_owned(),
        )),
    }
}

/// A terminal of the jail's own: the end for the server, and three for the command.
///
/// Without a root of its own it is one of the host's, whose terminals are made at another place.
fn terminal(size: TerminalSize, has_root: bool) -> Result<(OwnedFd, [OwnedFd; 3]), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let place = if has_root {
        "/dev/pts/ptmx"
    } else {
        "/dev/ptmx"
    };
    let master = rustix::fs::open(place, flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let open = rustix::pty::OpenptFlags::RDWR
        | rustix::pty::OpenptFlags::NOCTTY
        | rustix::pty::OpenptFlags::CLOEXEC;
    let end = || rustix::pty::ioctl_tiocgptpeer(&master, open);
    let ends = [end()?, end()?, end()?];
    rustix::termios::tcsetwinsize(&master, streams::window(size))?;
    Ok((master, ends))
}
