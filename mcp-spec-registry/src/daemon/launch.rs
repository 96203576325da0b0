//! Starts a registry where none runs, as the first client that needs one.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;

use super::{lock, sockets};

/// A registry that a client started ends after this long without anybody.
const IDLE_EXIT: &str = "10m";
/// What it says on stdout once it listens.
const READY: &str = "ready";

/// Connects to a plane of the registry of this state directory, starting the registry if none runs.
///
/// # Errors
/// A registry that does not start; the message says where its log is.
pub fn connect(
    state_dir: &Path,
    socket_dir: Option<PathBuf>,
    plane: &str,
) -> anyhow::Result<UnixStream> {
    let folder = sockets::folder(state_dir, socket_dir.clone());
    let path = sockets::path(&folder, plane);
    if let Ok(stream) = UnixStream::connect(&path) {
        return Ok(stream);
    }
    let turn = lock::wait_for_turn(state_dir)?;
    if let Ok(stream) = UnixStream::connect(&path) {
        return Ok(stream);
    }
    start(state_dir, socket_dir)?;
    drop(turn);
    UnixStream::connect(&path).with_context(|| format!("failed to connect to {}", path.display()))
}

/// Starts a registry in a process session of its own and waits until it listens.
fn start(state_dir: &Path, socket_dir: Option<PathBuf>) -> anyhow::Result<()> {
    let log_path = state_dir.join("registry.log");
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "--detached", "--idle-exit", IDLE_EXIT, "--state-dir"]).arg(state_dir);
    if let Some(socket_dir) = socket_dir {
        command.arg("--socket-dir").arg(socket_dir);
    }
    let mut registry = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .context("failed to start the registry")?;
    let mut said = String::new();
    if let Some(stdout) = registry.stdout.take() {
        // Ends when the registry says that it is ready, or when it has ended.
        BufReader::new(stdout).read_line(&mut said)?;
    }
    if said.trim() == READY {
        return Ok(());
    }
    let status = registry.wait()?;
    anyhow::bail!("the registry did not start ({status}); the reason is at the end of {}", log_path.display())
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
