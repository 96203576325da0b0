//! A server over stdio and a client that has many calls on the way at once.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};

use crate::processes::PATIENCE;
use crate::program::{PROGRAM, Program};

/// A workspace and a state directory.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let place = Self(tempfile::tempdir()?);
        fs::create_dir(place.workspace())?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.path("work")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// A policy file.
    pub(crate) fn policy(&self, text: &str) -> anyhow::Result<String> {
        let path = self.path("policy.toml");
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path.display().to_string())
    }

    fn arguments(&self) -> [PathBuf; 4] {
        [
            "--workspace".into(),
            self.workspace(),
            "--state-dir".into(),
            self.state(),
        ]
    }

    fn command(program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command
    }

    /// The server's program, run to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(Self::command(PROGRAM.as_ref())
            .args(arguments)
            .args(self.arguments())
            .stdin(Stdio::null())
            .output()?)
    }

    /// A server that has said hello.
    pub(crate) fn start(&self) -> anyhow::Result<Server> {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, arguments: &[&str]) -> anyhow::Result<Server> {
        let mut server = self.spawn(arguments)?;
        server.answer(server.hello)?;
        Ok(server)
    }

    /// A server that was told hello, and may not even have begun to run.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> anyhow::Result<Server> {
        let mut command = Self::command(PROGRAM.as_ref());
        Server::start(command.args(arguments).args(self.arguments()))
    }

    /// A server that may open as many files as most systems let a program at first.
    pub(crate) fn start_with_usual_limit_of_files(
        &self,
        arguments: &[&str],
    ) -> anyhow::Result<Server> {
        let mut command = Self::command("/bin/sh".as_ref());
        command
            .args(["-c", "ulimit -Sn 1024 && exec \"$0\" \"$@\"", PROGRAM])
            .args(arguments)
            .args(self.arguments());
        let mut server = Server::start(&mut command)?;
        server.answer(server.hello)?;
        Ok(server)
    }
}

/// A started server, and answers that came before anyone waited for them.
pub(crate) struct Server {
    program: Program,
    early: HashMap<u64, Value>,
    hello: u64,
}

impl Server {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut program = Program::spawn(command)?;
        let hello = program.greet(&json!({}))?;
        Ok(Self {
            program,
            early: HashMap::new(),
            hello,
        })
    }

    /// The answer to a request, in whatever order answers come.
    fn answer(&mut self, id: u64) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = self.early.remove(&id) {
                return Ok(answer);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            let message = (self.program.message(rest))
                .with_context(|| format!("no answer to request {id}"))?;
            if let Some(id) = message["id"].as_u64() {
                self.early.insert(id, message);
            }
        }
    }

    /// Sends a call without waiting for its answer.
    pub(crate) fn begin(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Call> {
        let params = json!({"name": tool, "arguments": arguments});
        Ok(Call(self.program.ask("tools/call", &params)?))
    }

    /// The result of a call: its structured content, or the code of its error.
    pub(crate) fn outcome(&mut self, call: Call) -> anyhow::Result<Result<Value, String>> {
        let answer = self.answer(call.0)?;
        let result = answer
            .get("result")
            .ok_or_else(|| anyhow!("no tool result: {answer}"))?;
        match result.get("structuredContent") {
            Some(content) if result["isError"] != json!(true) => Ok(Ok(content.clone())),
            _ => {
                let text = result["content"][0]["text"].as_str().context("no text")?;
                let error: Value = serde_json::from_str(text)?;
                Ok(Err(error["code"].as_str().context("no code")?.to_owned()))
            }
        }
    }

    /// The structured content of a call that succeeds.
    pub(crate) fn ok(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Value> {
        let call = self.begin(tool, arguments)?;
        match self.outcome(call)? {
            Ok(content) => Ok(content),
            Err(code) => bail!("{tool} {arguments} failed: {code}"),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.program.child.id()
    }

    /// Kills the server, and says when.
    pub(crate) fn kill(mut self) -> anyhow::Result<Instant> {
        self.program.child.kill()?;
        let now = Instant::now();
        self.program.child.wait()?;
        Ok(now)
    }
}

/// A call on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call(u64);
