//! The last steps in the command's own process, after which only the program is left.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::child::Failure;
use super::landlock::Rules;
use super::layer::LayerSet;
use super::order::{CommandOrder, Order};
use super::sys::Strings;
use super::{Layer, Lifetime, limits, sys};

/// What the command's process needs of the jail it is made in.
pub(super) struct Jail<'a> {
    pub(super) order: &'a Order,
    /// Absent where that layer is left out.
    pub(super) rules: Option<&'a Rules>,
    /// Processes and threads, where this process is what bounds them.
    pub(super) most_processes: Option<u64>,
    /// The directory this process begins in, if that is certain.
    pub(super) here: Option<&'a Path>,
}

/// The program of a command. Made before the process that becomes it: that one shares its memory with init, and nothing it allocates
/// there would ever be freed.
pub(super) struct Program<'a> {
    name: &'a CString,
    /// Where it may be, the likeliest first; empty for one named by a path.
    places: Vec<CString>,
    argv: Strings<'a>,
    env: Strings<'a>,
}

impl<'a> Program<'a> {
    pub(super) fn of(order: &'a CommandOrder) -> Self {
        let name = &order.argv[0];
        let path = order
            .env
            .iter()
            .find_map(|pair| pair.as_bytes().strip_prefix(b"PATH="));
        let places = if name.as_bytes().contains(&b'/') {
            Vec::new()
        } else {
            path.unwrap_or_default()
                .split(|byte| *byte == b':')
                // Relative directories of the PATH are not looked into: they would make the program depend on the working directory.
                .filter(|directory| directory.starts_with(b"/"))
                .filter_map(|directory| {
                    CString::new([directory, b"/", name.as_bytes()].concat()).ok()
                })
                .collect()
        };
        Self {
            name,
            places,
            argv: Strings::new(&order.argv),
            env: Strings::new(&order.env),
        }
    }
}

/// Becomes the command. It writes to `report` first the layers of this process, then, only if the program could not be started, why;
/// starting the program closes it. The filters of system calls stand already: nothing here may be among what they deny.
pub(super) fn run(
    jail: &Jail,
    command: &CommandOrder,
    program: &Program<'_>,
    streams: &[OwnedFd; 3],
    report: &OwnedFd,
) -> ! {
    let failure = match prepare(jail, command, streams) {
        Ok(applied) => {
            let _ = rustix::io::write(report, &applied.0.to_le_bytes());
            start(program)
        }
        Err(failure) => failure,
    };
    let _ = rustix::io::write(report, &failure.report(0).encode());
    drop(failure);
    sys::exit_now(127)
}

fn prepare(
    jail: &Jail,
    command: &CommandOrder,
    streams: &[OwnedFd; 3],
) -> Result<LayerSet, Failure> {
    let plumbing =
        |step: &'static str| move |errno| Failure::new(Layer::Plumbing, errno, step.to_owned());
    let mut applied = LayerSet::default();
    sys::reset_signals_for_program();
    rustix::process::setsid().map_err(plumbing("start a session"))?;
    for (number, stream) in (0..).zip(streams) {
        sys::duplicate_to(stream, number).map_err(plumbing("connect the streams"))?;
    }
    if command.terminal.is_some() {
        rustix::process::ioctl_tiocsctty(&streams[0])
            .map_err(plumbing("take the terminal over"))?;
    }
    if jail.order.lifetime == Lifetime::Kept {
        // Whatever descends from it then stays below it while it lives, and can be ended with it and nothing else.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(plumbing("adopt orphans"))?;
    }
    sys::close_on_exec_from(3).map_err(plumbing("close descriptors on exec"))?;
    if jail.order.has(Layer::Limits) {
        limits::apply(&jail.order.limits, jail.most_processes)?;
        applied.insert(Layer::Limits);
    }
    if let Some(rules) = jail.rules {
        rules.restrict()?;
        applied.insert(Layer::Landlock);
    }
    if jail.here != Some(&*command.cwd) {
        // Under Landlock already, so that no directory counts that the command could not use.
        enter(&command.cwd).map_err(|errno| {
            Failure::new(
                Layer::WorkingDirectory,
                errno,
                command.cwd.display().to_string(),
            )
        })?;
    }
    Ok(applied)
}

/// Enters a directory without following any link: a plan names where a command works, and a link would lead elsewhere. Step by step,
/// since the one call that could do it at once is not there for jailed processes.
pub(super) fn enter(directory: &Path) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = rustix::fs::open("/", flags, Mode::empty())?;
    for component in directory.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(_) | Component::ParentDir => {
                here = rustix::fs::openat(&here, component.as_os_str(), flags, Mode::empty())?;
            }
            Component::Prefix(_) => return Err(Errno::INVAL),
        }
    }
    rustix::process::fchdir(&here)
}

/// Executes the program, looked up in the `PATH` of the environment if its name has no slash. Returns only a failure.
fn start(program: &Program<'_>) -> Failure {
    let Program {
        name,
        places,
        argv,
        env,
    } = program;
    let failed = |errno| Failure::new(Layer::Program, errno, name.to_string_lossy().into_owned());
    if name.as_bytes().contains(&b'/') {
        return failed(sys::execute(name, argv, env));
    }
    let mut worst = Errno::NOENT;
    for place in places {
        match sys::execute(place, argv, env) {
            Errno::NOENT | Errno::NOTDIR => {}
            errno @ Errno::ACCESS => worst = errno,
            errno => return failed(errno),
        }
    }
    failed(worst)
}
