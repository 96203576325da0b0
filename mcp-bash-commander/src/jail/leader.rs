//! The last steps in the command's own process, after which only the program is left.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::child::{Failure, Host};
use super::layer::LayerSet;
use super::protocol::{Order, Report};
use super::{Layer, landlock, limits, sys};

/// Becomes the command. It writes to `report` first the layers of this process, then, only if the program could not be started, why;
/// starting the program closes it.
pub(super) fn run(order: &Order, host: &Host, streams: &[OwnedFd; 3], report: &OwnedFd) -> ! {
    let failure = match prepare(order, host, streams) {
        Ok(applied) => {
            let running = Report::Running {
                applied,
                landlock_abi: host.landlock_abi,
                kernel_uid: host.identity.uid,
            };
            let _ = rustix::io::write(report, &running.encode());
            start(order)
        }
        Err(failure) => failure,
    };
    let _ = rustix::io::write(report, &failure.report().encode());
    sys::exit_now(127)
}

fn prepare(order: &Order, host: &Host, streams: &[OwnedFd; 3]) -> Result<LayerSet, Failure> {
    let plumbing =
        |step: &'static str| move |errno| Failure::new(Layer::Plumbing, errno, step.to_owned());
    let mut applied = LayerSet::default();
    sys::reset_signals();
    rustix::process::setsid().map_err(plumbing("start a session"))?;
    for (number, stream) in (0..).zip(streams) {
        sys::duplicate_to(stream, number).map_err(plumbing("connect the streams"))?;
    }
    sys::close_on_exec_from(3).map_err(plumbing("close descriptors on exec"))?;
    limits::apply(&order.limits)?;
    applied.insert(Layer::Limits);
    landlock::restrict(order, host.landlock_abi)?;
    applied.insert(Layer::Landlock);
    // Under Landlock already, so that no directory counts that the command could not use.
    enter(&order.cwd).map_err(|errno| {
        Failure::new(
            Layer::WorkingDirectory,
            errno,
            order.cwd.display().to_string(),
        )
    })?;
    host.filters
        .confine_command()
        .map_err(|error| Failure::new(Layer::Seccomp, Errno::INVAL, error.to_string()))?;
    applied.insert(Layer::Seccomp);
    Ok(applied)
}

/// Enters a directory without following any link: a plan names where a command works, and a link would lead elsewhere.
fn enter(directory: &Path) -> Result<(), Errno> {
    let opened = rustix::fs::openat2(
        rustix::fs::CWD,
        directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    rustix::process::fchdir(&opened)
}

/// Executes the program, looked up in the `PATH` of the environment if its name has no slash. Returns only a failure.
fn start(order: &Order) -> Failure {
    let name = &order.argv[0];
    let failed = |errno| Failure::new(Layer::Program, errno, name.to_string_lossy().into_owned());
    if name.as_bytes().contains(&b'/') {
        return failed(sys::execute(name, &order.argv, &order.env));
    }
    let path = order
        .env
        .iter()
        .find_map(|pair| pair.as_bytes().strip_prefix(b"PATH="));
    let mut worst = Errno::NOENT;
    for directory in path.unwrap_or_default().split(|byte| *byte == b':') {
        let mut candidate = std::ffi::OsStr::from_bytes(directory).to_owned();
        candidate.push("/");
        candidate.push(std::ffi::OsStr::from_bytes(name.as_bytes()));
        // Relative directories of the PATH are not looked into: they would make the program depend on the working directory.
        if !directory.starts_with(b"/") {
            continue;
        }
        let Ok(candidate) = CString::new(candidate.as_bytes()) else {
            continue;
        };
        match sys::execute(&candidate, &order.argv, &order.env) {
            Errno::NOENT | Errno::NOTDIR => {}
            errno @ Errno::ACCESS => worst = errno,
            errno => return failed(errno),
        }
    }
    failed(worst)
}
