//! Starts a registry where none runs, as the first client that needs one.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::{Read, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{lock, sockets};

/// A plane that clients connect to, and how long a registry that one of them started stays when nobody needs it.
#[derive(Debug, Clone, Copy)]
pub struct Plane {
    name: &'static str,
    idle_exit: &'static str,
}

/// Agents come back.
pub const AGENTS: Plane = Plane {
    name: "agent",
    idle_exit: "10m",
};
/// A human's command is through, and the next one may be `serve`.
pub const HUMANS: Plane = Plane {
    name: "approval",
    idle_exit: "1s",
};

/// What it says on stdout once it listens.
const READY: &str = "ready";
/// A registry that does not listen by then is stuck.
const READY_TIME: Duration = Duration::from_secs(20);

/// Connects to a plane of the registry of this state directory, starting the registry if none runs.
///
/// # Errors
/// A registry that does not start (the message says where its log is), or something of another uid in its place.
pub fn connect(
    state_dir: &Path,
    socket_dir: Option<PathBuf>,
    plane: Plane,
) -> anyhow::Result<UnixStream> {
    let path = sockets::path(&sockets::folder(state_dir, socket_dir.clone()), plane.name);
    sockets::check_length(&path)?;
    if let Ok(stream) = UnixStream::connect(&path) {
        return our_own(stream, &path);
    }
    let turn = lock::wait_for_turn(state_dir)?;
    if let Ok(stream) = UnixStream::connect(&path) {
        return our_own(stream, &path);
    }
    let program = std::env::current_exe()?;
    start(program.as_os_str(), state_dir, socket_dir, plane)?;
    drop(turn);
    let stream = UnixStream::connect(&path)
        .with_context(|| format!("failed to connect to {}", path.display()))?;
    our_own(stream, &path)
}

/// The state directory is ours alone, so its registry runs as we do: whoever else listens there only claims to be it, and must
/// see no secret.
fn our_own(stream: UnixStream, path: &Path) -> anyhow::Result<UnixStream> {
    let (peer, own) = (
        rustix::net::sockopt::socket_peercred(&stream)?.uid,
        rustix::process::geteuid(),
    );
    anyhow::ensure!(
        peer == own,
        "`{}` is served by uid {}, not by uid {}; give a --socket-dir of your own, or --connect unix:PATH for another's registry",
        path.display(),
        peer.as_raw(),
        own.as_raw()
    );
    Ok(stream)
}

/// Starts a registry in a process session of its own and waits until it listens.
fn start(
    program: &OsStr,
    state_dir: &Path,
    socket_dir: Option<PathBuf>,
    plane: Plane,
) -> anyhow::Result<()> {
    let log_path = state_dir.join("registry.log");
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log_path)?;
    let mut command = Command::new(program);
    command
        .args([
            "serve",
            "--detached",
            "--idle-exit",
            plane.idle_exit,
            "--state-dir",
        ])
        .arg(state_dir);
    if let Some(socket_dir) = socket_dir {
        command
            .arg("--socket-dir")
            .arg(std::path::absolute(socket_dir)?);
    }
    let mut registry = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("failed to start the registry")?;
    let said = registry
        .stdout
        .take()
        .map(|stdout| said(stdout, READY_TIME))
        .transpose()?
        .flatten();
    match said {
        Some(said) if said.trim_ascii() == READY.as_bytes() => Ok(()),
        Some(_) => {
            let status = registry.wait()?;
            anyhow::bail!(
                "the registry did not start ({status}); the reason is at the end of {}",
                log_path.display()
            )
        }
        None => {
            registry.kill()?;
            registry.wait()?;
            anyhow::bail!(
                "the registry did not listen within {} s; what it did is in {}",
                READY_TIME.as_secs(),
                log_path.display()
            )
        }
    }
}

/// What a process says until it ends its line or itself; nothing if that takes too long.
fn said(mut stdout: ChildStdout, limit: Duration) -> std::io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + limit;
    let mut said = Vec::new();
    let mut byte = [0];
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        match poll(&mut [PollFd::new(&stdout, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if stdout.read(&mut byte)? == 0 || byte == *b"\n" {
            return Ok(Some(said));
        }
        said.extend_from_slice(&byte);
    }
}

/// Leaves the session of the client that started this registry.
///
/// # Errors
/// A session that cannot be left.
pub fn detach() -> anyhow::Result<()> {
    rustix::process::setsid().context("failed to start a process session")?;
    Ok(())
}

/// Tells the client that started this registry that it listens, and lets go of its pipe.
pub(super) fn report_ready() -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, os::unix::net::UnixListener};

    #[test]
    fn a_program_that_ends_without_listening_is_named_with_its_log() -> anyhow::Result<()> {
        let state = tempfile::tempdir()?;
        let refused = start(OsStr::new("/bin/false"), state.path(), None, AGENTS)
            .map_err(|error| error.to_string());
        let log = state.path().join("registry.log").display().to_string();
        assert!(
            refused.as_ref().is_err_and(|error| error.contains(&log)),
            "{refused:?}"
        );
        Ok(())
    }

    #[test]
    fn a_program_that_neither_listens_nor_ends_is_not_waited_for() -> anyhow::Result<()> {
        let mut silent = Command::new("/bin/sleep")
            .arg("600")
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = silent.stdout.take().context("a pipe")?;
        assert_eq!(said(stdout, Duration::from_millis(20))?, None);
        silent.kill()?;
        silent.wait()?;
        Ok(())
    }

    #[test]
    fn a_socket_of_another_uid_gets_to_see_nothing() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&path)?;
        our_own(UnixStream::connect(&path)?, &path)?;
        drop(listener);
        if !rustix::process::geteuid().is_root() {
            return Ok(()); // nobody else can listen as another uid
        }
        fs::remove_file(&path)?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
        // Credentials are those at the time of `listen`; only a thread's are changed, and it ends here.
        let own_path = path.clone();
        let listening = std::thread::spawn(move || {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534))?;
            UnixListener::bind(&own_path)
        });
        let Ok(listener) = listening.join() else {
            anyhow::bail!("the listener panicked")
        };
        let _listener = listener?;
        let refused =
            our_own(UnixStream::connect(&path)?, &path).map_err(|error| error.to_string());
        assert!(
            refused
                .as_ref()
                .is_err_and(|error| error.contains("uid 65534")),
            "{refused:?}"
        );
        Ok(())
    }
}
