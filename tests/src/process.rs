//! Running servers: their arguments, what they say on stderr, and their end.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;

use crate::binaries::Server;
use crate::client::{Client, Era};

/// How long a server may take to say or do what is waited for; generous, since tests share few cores.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server has written on stderr, line by line.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    changed: Arc<Notify>,
    ended: Arc<std::sync::atomic::AtomicBool>,
}

/// A server that runs as a child; it is killed when this is dropped.
pub struct ServerProcess {
    child: Child,
    log: Log,
}

impl ServerProcess {
    /// Starts a server with its state below `state` and nothing of the caller's environment but `PATH`.
    ///
    /// # Errors
    /// The workspace does not compile or the program cannot be run.
    pub async fn start(
        server: Server,
        state: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(server.program().await?);
        command.args(arguments).env_clear().envs(environment(state));
        Self::spawn(command)
    }

    /// Starts a command that was put together elsewhere, with pipes on all three standard streams.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn spawn(mut command: Command) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("{command:?} cannot be run"))?;
        let log = Log::default();
        let stderr = child.stderr.take().context("no stderr")?;
        tokio::spawn(keep_lines(stderr, log.clone()));
        Ok(Self { child, log })
    }

    /// The child's process id; `None` once it has been waited for.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Speaks MCP over the child's standard streams.
    ///
    /// # Errors
    /// They were taken before, or the server does not answer the handshake; its stderr is quoted then.
    pub async fn client(&mut self, era: Era) -> anyhow::Result<Client> {
        let (stdin, stdout) = self.pipes()?;
        Client::over(era, stdout, stdin)
            .await
            .with_context(|| format!("stderr: {}", self.stderr()))
    }

    /// The child's stdin and stdout, for callers that speak for themselves.
    ///
    /// # Errors
    /// They were taken before.
    pub fn pipes(&mut self) -> anyhow::Result<(ChildStdin, ChildStdout)> {
        let stdin = self.child.stdin.take().context("stdin was taken before")?;
        let stdout = self
            .child
            .stdout
            .take()
            .context("stdout was taken before")?;
        Ok((stdin, stdout))
    }

    /// Everything said on stderr so far.
    pub fn stderr(&self) -> String {
        self.log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .join("\n")
    }

    /// Waits for a line of stderr from which `find` makes something.
    ///
    /// # Errors
    /// The server ends or the time runs out before; what it said is quoted.
    pub async fn find_in_stderr<T>(&self, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let search = async {
            loop {
                let changed = self.log.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let ended = self.log.ended.load(std::sync::atomic::Ordering::Acquire);
                let found = self
                    .log
                    .lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .find_map(|line| find(line));
                match found {
                    Some(found) => return Ok(found),
                    None if ended => bail!("the server has ended"),
                    None => changed.await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .unwrap_or_else(|_| Err(anyhow!("not within {PATIENCE:?}")))
            .with_context(|| format!("stderr: {}", self.stderr()))
    }

    /// Waits for the JSON line on stderr by which a server announces `event`.
    ///
    /// # Errors
    /// As [`ServerProcess::find_in_stderr`].
    pub async fn announcement(&self, event: &str) -> anyhow::Result<Value> {
        self.find_in_stderr(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["event"] == event).then_some(line)
        })
        .await
    }

    /// The address the server says it serves MCP on.
    ///
    /// # Errors
    /// As [`ServerProcess::find_in_stderr`].
    pub async fn http_address(&self) -> anyhow::Result<SocketAddr> {
        self.find_in_stderr(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let serves = line["event"] == "listening" && line["transport"] == "http";
            line["address"].as_str().filter(|_| serves)?.parse().ok()
        })
        .await
    }

    /// Asks the server to end with SIGTERM and waits until it has.
    ///
    /// # Errors
    /// It does not end in time; it is killed then.
    pub async fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        if let Some(id) = self.child.id() {
            let pid = Pid::from_raw(i32::try_from(id)?).context("process id 0")?;
            kill_process(pid, Signal::TERM)?;
        }
        self.wait().await
    }

    /// Waits until the server has ended by itself.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        status
            .map_err(|_| {
                anyhow!(
                    "the server runs on after {PATIENCE:?}; stderr: {}",
                    self.stderr()
                )
            })?
            .map_err(Into::into)
    }
}

/// What a server's environment holds in tests: `PATH`, and folders of its own.
pub fn environment(state: &Path) -> Vec<(&'static str, std::ffi::OsString)> {
    let mut variables = vec![
        ("HOME", state.join("home").into_os_string()),
        ("XDG_STATE_HOME", state.join("state").into_os_string()),
        ("XDG_RUNTIME_DIR", state.join("runtime").into_os_string()),
    ];
    variables.extend(std::env::var_os("PATH").map(|path| ("PATH", path)));
    variables
}

async fn keep_lines(stderr: ChildStderr, log: Log) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
        log.changed.notify_waiters();
    }
    log.ended.store(true, std::sync::atomic::Ordering::Release);
    log.changed.notify_waiters();
}
