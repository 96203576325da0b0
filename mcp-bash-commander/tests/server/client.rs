//! A client with just enough MCP to call tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};

use crate::processes::PATIENCE;
use crate::program::{PROGRAM, Program};

/// A workspace, a state directory, and whatever else a test puts beside them.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let place = Self(tempfile::tempdir()?);
        fs::create_dir(place.workspace())?;
        Ok(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.path("work")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("SERVER_SECRET", "canary-7351");
        command
            .arg("--workspace")
            .arg(self.workspace())
            .arg("--state-dir")
            .arg(self.path("state"));
        command
    }

    /// The same, started by another program with these arguments, to which the server's own are added.
    pub(crate) fn command_by(&self, program: &str, arguments: &[&str]) -> Command {
        let plain = self.command();
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .args(arguments)
            .arg(plain.get_program())
            .args(plain.get_args());
        command
    }

    /// The same as an ordinary user, to whom everything here is given, if this is root.
    pub(crate) fn command_of_user(&self) -> anyhow::Result<Command> {
        const USER: u32 = 41234;
        let plain = self.command();
        if !rustix::process::geteuid().is_root() {
            return Ok(plain);
        }
        let program = self.path("program");
        fs::copy(PROGRAM, &program)?;
        let status = Command::new("chown")
            .args(["-R", &format!("{USER}:{USER}")])
            .arg(self.0.path())
            .status()?;
        anyhow::ensure!(status.success(), "chown failed");
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={USER}"), &format!("--regid={USER}")])
            .arg("--clear-groups")
            .arg(program)
            .args(plain.get_args())
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        Ok(command)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self
            .command()
            .args(arguments)
            .stdin(Stdio::null())
            .output()?)
    }

    pub(crate) fn start(&self) -> anyhow::Result<Client> {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, arguments: &[&str]) -> anyhow::Result<Client> {
        Client::start(self.command().args(arguments), &json!({}))
    }

    /// A server with this policy, for a client that can ask somebody.
    pub(crate) fn start_asking(&self, policy: &str) -> anyhow::Result<Client> {
        let path = self.policy(policy)?;
        let mut command = self.command();
        command.arg("--policy").arg(path);
        Client::start(&mut command, &json!({"elicitation": {}}))
    }

    /// The same for a client of the newer era, which opens no session.
    pub(crate) fn start_modern(&self, policy: &str) -> anyhow::Result<Client> {
        let path = self.policy(policy)?;
        let mut command = self.command();
        command.arg("--policy").arg(path);
        Client::spawn(&mut command)
    }

    /// A server with this policy.
    pub(crate) fn start_under(&self, policy: &str) -> anyhow::Result<Client> {
        let path = self.policy(policy)?;
        self.start_with(&["--policy", &path.to_string_lossy()])
    }

    pub(crate) fn policy(&self, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path("policy.toml");
        write_private(&path, text)?;
        Ok(path)
    }
}

/// A client of a started server.
pub(crate) struct Client(Program);

impl Client {
    pub(crate) fn start(command: &mut Command, capabilities: &Value) -> anyhow::Result<Self> {
        let mut client = Self::spawn(command)?;
        let hello = client.0.greet(capabilities)?;
        client.answer(hello)?;
        Ok(client)
    }

    fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        Ok(Self(Program::spawn(command)?))
    }

    pub(crate) fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        self.0.send(message)
    }

    /// Sends a request and gives its id.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> anyhow::Result<u64> {
        self.0.ask(method, params)
    }

    /// The next message of the server.
    pub(crate) fn message(&self) -> anyhow::Result<Value> {
        self.0.message(PATIENCE)
    }

    pub(crate) fn request(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        let id = self.ask(method, params)?;
        self.answer(id)
    }

    /// The answer to a request; what comes before it is passed over.
    fn answer(&self, id: u64) -> anyhow::Result<Value> {
        loop {
            let message = self.message()?;
            if message["id"] == json!(id) {
                return Ok(message);
            }
        }
    }

    /// The whole result of a call.
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Value> {
        let answer = self.request("tools/call", &json!({"name": tool, "arguments": arguments}))?;
        answer
            .get("result")
            .cloned()
            .ok_or_else(|| anyhow!("{tool} is no tool result: {answer}"))
    }

    /// The structured content of a call that succeeds.
    pub(crate) fn ok(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<Value> {
        let result = self.call(tool, arguments)?;
        match result.get("structuredContent") {
            Some(content) if result["isError"] != json!(true) => Ok(content.clone()),
            _ => bail!("{tool} {arguments} failed: {result}"),
        }
    }

    /// The code of a call that fails.
    pub(crate) fn error(&mut self, tool: &str, arguments: &Value) -> anyhow::Result<String> {
        let result = self.call(tool, arguments)?;
        anyhow::ensure!(
            result["isError"] == json!(true),
            "{tool} did not fail: {result}"
        );
        anyhow::ensure!(
            result.get("structuredContent").is_none(),
            "an error with content: {result}"
        );
        let text = result["content"][0]["text"].as_str().context("no text")?;
        let error: Value = serde_json::from_str(text)?;
        Ok(error["code"].as_str().context("no code")?.to_owned())
    }

    pub(crate) fn exec(&mut self, command: &str) -> anyhow::Result<Value> {
        self.ok("exec", &json!({"command": command}))
    }

    /// Starts a command that runs on; its session.
    pub(crate) fn launch(&mut self, command: &str) -> anyhow::Result<String> {
        let started = self.ok(
            "exec",
            &json!({"command": command, "wait": {"until": "none"}}),
        )?;
        Ok(started["id"].as_str().context("no id")?.to_owned())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.child.id()
    }

    /// Closes stdin and waits for the end of the server.
    pub(crate) fn close(mut self) -> anyhow::Result<ExitStatus> {
        drop(self.0.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "the server does not end");
            std::thread::yield_now();
        }
    }
}

/// What a result says is missing of the layers that every machine has: which can have control groups differs.
pub(crate) fn missing(result: &Value) -> Vec<&str> {
    let missing = result["isolation"]["missing"].as_array();
    missing
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|layer| *layer != "cgroup")
        .collect()
}

/// Makes a file that only its owner reads.
pub(crate) fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, content)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o600),
    )?)
}
