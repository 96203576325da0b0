//! Clients over `stdio`, the registry that they start and share, and what happens when either goes away.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A state directory; what runs on it is ended with the test.
struct State(TempDir);

impl State {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700))?;
        Ok(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-spec-registry"));
        command
            .env_clear()
            .args(arguments)
            .arg("--state-dir")
            .arg(self.path());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn client(&self) -> Result<Client> {
        let mut child = self.command(&["stdio"]).spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Client {
            child,
            stdin,
            stdout,
        })
    }

    /// The process that holds the directory.
    fn registry(&self) -> Result<Pid> {
        let pid = fs::read_to_string(self.path().join("registry.lock"))?;
        Pid::from_raw(pid.trim().parse()?).context("no process")
    }

    /// Waits until no registry holds the directory.
    fn released(&self) -> Result<()> {
        let lock = fs::File::open(self.path().join("registry.lock"))?;
        until("the registry ends", || {
            Ok(flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
        })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let Ok(lock) = fs::File::open(self.path().join("registry.lock")) else {
            return;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
            && let Ok(registry) = self.registry()
        {
            let _ = kill_process(registry, Signal::KILL);
            let _ = self.released();
        }
    }
}

struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    fn ask(&mut self, id: u32, method: &str, params: &Value) -> Result<Value> {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(self.stdin.as_mut().context("stdin is closed")?, "{request}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("`{line}` is no answer"))
    }

    fn greet(&mut self) -> Result<()> {
        let hello = json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
        });
        let answer = self.ask(1, "initialize", &hello)?;
        anyhow::ensure!(
            answer["result"]["serverInfo"]["name"] == "mcp-spec-registry",
            "{answer}"
        );
        Ok(())
    }

    /// Waits for the pipe to end and answers what it said on stderr.
    fn ended(mut self) -> Result<(bool, String)> {
        let child = &mut self.child;
        let mut status = None;
        until("the pipe ends", || {
            status = child.try_wait()?;
            Ok(status.is_some())
        })?;
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        Ok((status.is_some_and(|status| status.success()), said))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        anyhow::ensure!(
            began.elapsed() < PATIENCE,
            "waited {PATIENCE:?} until {what}"
        );
        thread::park_timeout(Duration::from_millis(2));
    }
    Ok(())
}

fn finished(command: &mut Command) -> Result<Output> {
    Ok(command.stdin(Stdio::null()).output()?)
}

#[test]
fn clients_that_come_at_once_start_one_registry_and_share_it() -> Result<()> {
    let state = State::new()?;
    let mut clients = (0..8).map(|_| state.client()).collect::<Result<Vec<_>>>()?;
    for client in &mut clients {
        client.greet()?;
    }
    let log = fs::read_to_string(state.path().join("registry.log"))?;
    assert_eq!(log.matches("\"agent_socket\"").count(), 1, "{log}");
    assert!(!log.contains("held by process"), "{log}");
    // Field 6 of `stat` is the process session; the name before it holds no blank.
    let stat = fs::read_to_string(format!("/proc/{}/stat", state.registry()?.as_raw_nonzero()))?;
    let session = stat.split(' ').nth(5).map(str::to_owned);
    assert_eq!(
        session,
        Some(state.registry()?.as_raw_nonzero().to_string()),
        "a process session of its own"
    );
    Ok(())
}

#[test]
fn the_registry_outlives_its_clients_and_a_pipe_ends_with_its_stdin() -> Result<()> {
    let state = State::new()?;
    let mut first = state.client()?;
    first.greet()?;
    let registry = state.registry()?;
    first.stdin = None;
    assert_eq!(first.ended()?, (true, String::new()));
    state.client()?.greet()?;
    assert_eq!(state.registry()?, registry);
    Ok(())
}

#[test]
fn when_the_registry_is_killed_its_pipes_end_and_the_next_client_starts_another() -> Result<()> {
    let state = State::new()?;
    let mut client = state.client()?;
    client.greet()?;
    let registry = state.registry()?;
    kill_process(registry, Signal::KILL)?;
    let (_, said) = client.ended()?;
    assert_eq!(said, "", "stdin is still open, and that is no refusal");
    state.client()?.greet()?;
    assert_ne!(state.registry()?, registry);
    Ok(())
}

#[test]
fn a_signal_ends_the_registry_in_good_order() -> Result<()> {
    let state = State::new()?;
    state.client()?.greet()?;
    kill_process(state.registry()?, Signal::TERM)?;
    state.released()?;
    let verified = finished(&mut state.command(&["audit", "verify"]))?;
    assert!(verified.status.success(), "{verified:?}");
    Ok(())
}

#[test]
fn a_second_registry_on_one_state_directory_is_refused_with_the_process_that_holds_it() -> Result<()>
{
    let state = State::new()?;
    state.client()?.greet()?;
    let refused = finished(&mut state.command(&["serve"]))?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(
        said.contains(&format!(
            "held by process {}",
            state.registry()?.as_raw_nonzero()
        )),
        "{said}"
    );
    state.client()?.greet()?;
    Ok(())
}

#[test]
fn a_registry_that_nobody_needs_ends() -> Result<()> {
    let state = State::new()?;
    let mut serving = state
        .command(&["serve", "--idle-exit", "100ms"])
        .stdin(Stdio::null())
        .spawn()?;
    let mut status = None;
    let ended = until("it ends", || {
        status = serving.try_wait()?;
        Ok(status.is_some())
    });
    if ended.is_err() {
        serving.kill()?;
        serving.wait()?;
    }
    ended?;
    assert!(status.is_some_and(|status| status.success()));
    Ok(())
}

#[test]
fn a_wrong_token_is_refused_in_words_and_shown_nowhere() -> Result<()> {
    let state = State::new()?;
    let file = state.path().join("token");
    fs::write(&file, "sdai_wrong_and_secret\n")?;
    let token_file = file.display().to_string();
    let mut child = state
        .command(&["stdio", "--token-file", &token_file])
        .spawn()?;
    // Kept open: the pipe must end by itself.
    let stdin = child.stdin.take();
    let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let (success, said) = Client {
        child,
        stdin,
        stdout,
    }
    .ended()?;
    assert!(
        !success && said.contains("does not accept this agent or token"),
        "{said}"
    );
    let log = fs::read_to_string(state.path().join("registry.log"))?;
    assert!(
        !said.contains("and_secret") && !log.contains("and_secret"),
        "{log}"
    );
    Ok(())
}

#[test]
fn a_registry_that_cannot_start_is_reported_with_its_log() -> Result<()> {
    let state = State::new()?;
    fs::write(
        state.path().join("registry.sqlite"),
        "this is no database, and long enough to be looked at as one",
    )?;
    let refused = finished(&mut state.command(&["stdio"]))?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("registry.log"),
        "{said}"
    );
    assert!(fs::read_to_string(state.path().join("registry.log"))?.contains("database"));
    Ok(())
}
