//! A whole enforced set-up in a folder of its own: registry, test approver, enforced shell, and the agent that uses both.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::binaries::Server;
use crate::client::{Client, Era};
use crate::human;
use crate::process::{ServerProcess, environment};

/// The name under which plans and tokens know the shell server.
pub const SHELL: &str = "mcp-bash-commander";
/// The name of the agent.
pub const AGENT: &str = "planner";
/// Who decides.
pub const APPROVER: &str = "test-approver";
/// The approver's secret; protects nothing.
pub const SECRET: &str = "this is only a test";
/// What runs are of, unless a test brings its own.
const SPECIFICATION: &str = "spec_id: hello\nversion: 1.0\noutcome: A file says hello\n\
success_criteria:\n  content:\n    - The file says hello\n";
/// How long a started shell may take to say hello.
const PATIENCE: Duration = Duration::from_secs(10);
/// The specification's only criterion.
pub const CRITERION: &str = "content/the-file-says-hello";

/// A folder with all state, and the programs that work on it. Nothing runs until it is started.
pub struct Place {
    folder: TempDir,
    registry: PathBuf,
    shell: PathBuf,
}

impl Place {
    /// Builds the programs and makes the folder.
    ///
    /// # Errors
    /// The workspace does not compile, or the folder cannot be made.
    pub async fn make() -> anyhow::Result<Self> {
        let registry = Server::SpecRegistry.program().await?;
        let shell = Server::BashCommander.program().await?;
        let folder = tempfile::Builder::new().prefix("sdai-").tempdir()?;
        std::fs::create_dir(folder.path().join("workspace"))?;
        Ok(Self {
            folder,
            registry,
            shell,
        })
    }

    /// The folder itself; its name is in the arguments of every process that belongs here.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The state directory of the registry.
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Where commands work.
    pub fn workspace(&self) -> PathBuf {
        self.path().join("workspace")
    }

    /// The credential of the shell server.
    pub fn service_token(&self) -> PathBuf {
        self.path().join("service.toml")
    }

    /// The socket of a plane of the registry: `agent`, `effect` or `approval`.
    pub fn socket(&self, plane: &str) -> PathBuf {
        self.path()
            .join("sockets")
            .join(plane)
            .join(format!("{plane}.sock"))
    }

    /// Starts the registry and waits until it accepts connections.
    ///
    /// # Errors
    /// It does not start; its stderr is quoted.
    pub async fn start_registry(&self, flags: &[&str]) -> anyhow::Result<ServerProcess> {
        let mut command = self.registry_command();
        command.arg("serve").args(flags);
        let process = ServerProcess::spawn(command)?;
        process.announcement("ready").await?;
        Ok(process)
    }

    /// Starts the enforced shell of [`AGENT`] and connects to it.
    ///
    /// # Errors
    /// It does not start or answer; its stderr is quoted.
    pub async fn start_shell(&self) -> anyhow::Result<(ServerProcess, Client)> {
        self.start_shell_of(AGENT, "shell-state").await
    }

    /// Starts the enforced shell of this agent with its state in this folder, and connects to it.
    ///
    /// # Errors
    /// As [`Place::start_shell`].
    pub async fn start_shell_of(
        &self,
        agent: &str,
        state: &str,
    ) -> anyhow::Result<(ServerProcess, Client)> {
        let address = address_of(&self.socket("effect"));
        let flags: [OsString; 5] = [
            "--enforced".into(),
            "--registry".into(),
            address,
            "--registry-token".into(),
            self.service_token().into(),
        ];
        self.start_shell_with(agent, state, flags).await
    }

    /// Starts a shell of this agent with these flags and its state in this folder, on the workspace of this place, and connects to
    /// it.
    ///
    /// # Errors
    /// As [`Place::start_shell`].
    pub async fn start_shell_with(
        &self,
        agent: &str,
        state: &str,
        flags: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<(ServerProcess, Client)> {
        let mut command = self.shell_command(state);
        command.args(flags).args(["--agent", agent]);
        let mut process = ServerProcess::spawn(command)?;
        let client = process.client(Era::Modern).await?;
        Ok((process, client))
    }

    /// A command of the shell's program on the workspace of this place, with its state in this folder.
    pub fn shell_command(&self, state: &str) -> Command {
        let mut command = Command::new(&self.shell);
        command
            .env_clear()
            .envs(environment(&self.path().join("shell")))
            .arg("--workspace")
            .arg(self.workspace())
            .arg("--state-dir")
            .arg(self.path().join(state));
        command
    }

    /// Connects to the agent socket as the agent of this name.
    ///
    /// # Errors
    /// No registry runs.
    pub async fn agent(&self, name: &str) -> anyhow::Result<Client> {
        self.greet(&json!({ "agent": name, "token": null })).await
    }

    /// Connects to the agent socket with this greeting.
    ///
    /// # Errors
    /// No registry runs, or it does not let this one in.
    pub async fn greet(&self, greeting: &Value) -> anyhow::Result<Client> {
        let mut stream = UnixStream::connect(self.socket("agent")).await?;
        stream.write_all(format!("{greeting}\n").as_bytes()).await?;
        let (reader, writer) = stream.into_split();
        Client::over(Era::Modern, reader, writer).await
    }

    /// Adds the specification, the approver, and the credential of the shell server.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn prepare(&self) -> anyhow::Result<()> {
        let file = self.path().join("hello.yaml");
        std::fs::write(&file, SPECIFICATION)?;
        self.human(&["spec", "add", path_text(&file)?], None)
            .await?;
        let enrol = ["enrol", "--name", APPROVER, "--test", "--secret-fd", "0"];
        self.human(&enrol, Some(SECRET)).await?;
        let token = self.service_token();
        self.add_token("service", SHELL, &token).await
    }

    /// Makes a token of this kind in a file.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn add_token(&self, kind: &str, name: &str, out: &Path) -> anyhow::Result<()> {
        let mut words = vec!["token", "add", "--kind", kind, "--name", name];
        if kind == "service" {
            // A service is named after what it is.
            words.extend(["--server", name]);
        }
        words.extend(["--out", path_text(out)?]);
        self.human(&words, None).await?;
        Ok(())
    }

    /// Runs a human's command; the secret, if there is one, goes through stdin.
    ///
    /// # Errors
    /// It fails; all it said is quoted.
    pub async fn human(&self, words: &[&str], secret: Option<&str>) -> anyhow::Result<String> {
        let mut command = self.registry_command();
        command.args(words);
        human::run(command, secret).await
    }

    /// What an approver sees of a checkpoint.
    ///
    /// # Errors
    /// There is none of this id.
    pub async fn shown(&self, checkpoint: &str) -> anyhow::Result<Value> {
        let shown = self.human(&["show", checkpoint, "--json"], None).await?;
        Ok(serde_json::from_str(&shown)?)
    }

    /// Decides as the test approver, after looking: `approve`, `reject` or `clarify`, with any further flags.
    ///
    /// # Errors
    /// What the registry refuses, in its words.
    pub async fn decide(
        &self,
        verdict: &str,
        checkpoint: &str,
        flags: &[&str],
    ) -> anyhow::Result<Value> {
        let shown = self.shown(checkpoint).await?;
        let code = text(&shown, "code")?;
        let mut words = vec![
            verdict, checkpoint, "--name", APPROVER, "--reason", "a test",
        ];
        words.extend(["--code", code, "--secret-fd", "0", "--json"]);
        words.extend(flags);
        let receipt = self.human(&words, Some(SECRET)).await?;
        Ok(serde_json::from_str(&receipt)?)
    }

    /// Sends one request to a plane that speaks HTTP on its socket, with a bearer token if there is one; answers status and body.
    ///
    /// # Errors
    /// No registry runs, or it does not answer with HTTP.
    pub async fn post(
        &self,
        plane: &str,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> anyhow::Result<(StatusCode, String)> {
        let stream = UnixStream::connect(self.socket(plane)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::post(path)
            .header("host", "registry")
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = Full::new(Bytes::from(body.to_string()));
        let response = sender.send_request(request.body(body)?).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&answer).into_owned()))
    }

    /// A command of the registry's program on this place's state and sockets.
    pub fn registry_command(&self) -> Command {
        let mut command = Command::new(&self.registry);
        command
            .env_clear()
            .envs(environment(self.path()))
            .arg("--state-dir")
            .arg(self.state())
            .arg("--socket-dir")
            .arg(self.path().join("sockets"));
        command
    }

    /// The registry's program where every user can run it, in a folder that every user can enter.
    ///
    /// # Errors
    /// The file cannot be copied.
    pub fn registry_for_everybody(&self) -> anyhow::Result<PathBuf> {
        std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(0o711))?;
        let copy = self.path().join("registry-for-everybody");
        std::fs::copy(&self.registry, &copy)?;
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755))?;
        Ok(copy)
    }
}

/// A place where everything runs. Dropping it ends all processes.
pub struct Enforced {
    /// The agent's connection to the registry.
    pub registry: Client,
    /// The agent's connection to the enforced shell.
    pub shell: Client,
    /// The enforced shell's process.
    pub shell_process: ServerProcess,
    /// The registry's process.
    pub daemon: ServerProcess,
    /// Where it all is.
    pub place: Place,
}

impl Enforced {
    /// Starts everything.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let place = Place::make().await?;
        let daemon = place.start_registry(&[]).await?;
        place.prepare().await?;
        let (shell_process, shell) = place.start_shell().await?;
        let registry = place.agent(AGENT).await?;
        registered(&registry).await?;
        Ok(Self {
            registry,
            shell,
            shell_process,
            daemon,
            place,
        })
    }

    /// A run whose plan of these steps waits at V1.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn submitted(&self, steps: Value, tests: Value) -> anyhow::Result<Waiting> {
        let run = Claimed::new(&self.registry).await?;
        run.submit(&self.registry, steps, tests).await
    }

    /// A run of these steps in Generate.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn begun(&self, steps: Value, tests: Value) -> anyhow::Result<Begun> {
        let waiting = self.submitted(steps, tests).await?;
        self.place
            .decide("approve", &waiting.checkpoint, &[])
            .await?;
        let arguments = json!({ "run_id": waiting.run.run_id, "epoch": waiting.run.epoch });
        let answer = call(&self.registry, "execution_begin", arguments).await?;
        Ok(Begun {
            run: waiting.run,
            answer,
        })
    }

    /// The state of a run.
    ///
    /// # Errors
    /// There is no such run.
    pub async fn state_of(&self, run: &Claimed) -> anyhow::Result<String> {
        let answer = call(&self.registry, "run_get", json!({ "run_id": run.run_id })).await?;
        Ok(text(&answer["run"], "state")?.to_owned())
    }
}

/// A claimed run.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Its id.
    pub run_id: String,
    /// Epoch of the claim.
    pub epoch: u64,
    /// Digest of the specification.
    pub spec_digest: String,
}

impl Claimed {
    /// Requests a run of the specification and claims it.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn new(registry: &Client) -> anyhow::Result<Self> {
        let requested = call(registry, "run_request", json!({ "spec_id": "hello" })).await?;
        let run_id = text(&requested["run"], "run_id")?;
        let claimed = call(registry, "run_claim", json!({ "run_id": run_id })).await?;
        Ok(Self {
            run_id: run_id.to_owned(),
            epoch: claimed["run"]["epoch"].as_u64().context("no epoch")?,
            spec_digest: text(&claimed["run"], "spec_digest")?.to_owned(),
        })
    }

    /// Submits a plan of these steps; without tests a human judges.
    ///
    /// # Errors
    /// The registry refuses.
    pub async fn submit(
        self,
        registry: &Client,
        steps: Value,
        tests: Value,
    ) -> anyhow::Result<Waiting> {
        let plan = plan(&self.spec_digest, &steps, &tests);
        let arguments = json!({ "run_id": self.run_id, "epoch": self.epoch, "plan": plan });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = registry.call("plan_submit", arguments.clone()).await?;
            // The shell says hello by itself soon after its start.
            let is_early = answer.is_error && answer.text.contains("has said hello");
            if !is_early || Instant::now() > deadline {
                let submitted = answer.success().context("plan_submit failed")?;
                let checkpoint = text(&submitted, "checkpoint_id")?.to_owned();
                return Ok(Waiting {
                    run: self,
                    checkpoint,
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A run whose plan waits for a human.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The run.
    pub run: Claimed,
    /// The open checkpoint.
    pub checkpoint: String,
}

/// A run in Generate.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The run.
    pub run: Claimed,
    /// What `execution_begin` answered.
    pub answer: Value,
}

impl Begun {
    /// The handle of a step, where the step may still be done.
    pub fn grant(&self, step: &str) -> Option<&str> {
        let steps = self.answer["steps"].as_array()?;
        let step = steps.iter().find(|entry| entry["step"] == step)?;
        step["grant"].as_str()
    }
}

/// A plan of these steps for the specification; without tests a human judges.
pub fn plan(spec_digest: &str, steps: &Value, tests: &Value) -> Value {
    let is_tested = tests.as_array().is_some_and(|tests| !tests.is_empty());
    let judged = if is_tested {
        json!([])
    } else {
        json!([{ "criterion": CRITERION, "why": "a test of the machinery" }])
    };
    json!({
        "spec_digest": spec_digest, "steps": steps, "tests": tests, "human_judges": judged,
        "assumptions": [], "alternatives": [], "rollback": "delete the files",
    })
}

/// A step that runs exactly this command.
pub fn exec_step(id: &str, command: &str) -> Value {
    json!({
        "id": id, "server": SHELL, "tool": "exec",
        "arguments": { "command": { "exact": command }, "wait": { "any": true } },
        "reversibility": "irreversible", "rollback": "none needed",
    })
}

/// Calls a tool that must succeed.
///
/// # Errors
/// It fails; its answer is quoted.
pub async fn call(client: &Client, tool: &str, arguments: Value) -> anyhow::Result<Value> {
    let answer = client.call(tool, arguments).await?;
    answer.success().with_context(|| format!("{tool} failed"))
}

/// A field that must be there.
///
/// # Errors
/// It is not, or no text.
pub fn text<'a>(value: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    value[field]
        .as_str()
        .with_context(|| format!("no `{field}` in {value}"))
}

/// How a unix socket is named on command lines.
pub fn address_of(socket: &Path) -> OsString {
    let mut address = OsString::from("unix:");
    address.push(socket);
    address
}

/// Registers the agent behind a connection.
///
/// # Errors
/// The registry refuses.
pub async fn registered(registry: &Client) -> anyhow::Result<()> {
    let arguments = json!({ "description": "a test's agent", "persona": "tester" });
    call(registry, "agent_register", arguments).await?;
    Ok(())
}

/// Whether this runs as root. Where it does not, the test is skipped by name; on CI that is an error.
///
/// # Errors
/// `CI=1` and not root.
pub fn is_root_or_skips(test: &str) -> anyhow::Result<bool> {
    if rustix::process::geteuid().is_root() {
        return Ok(true);
    }
    ensure!(
        std::env::var_os("CI").is_none_or(|value| value != "1"),
        "{test} needs root to take another uid, and with CI=1 nothing is skipped"
    );
    eprintln!("skipped: {test} needs root to take another uid");
    Ok(false)
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path is no UTF-8")
}
