//! The processes of the demo: the registry, the jailed shell, and the agent's two connections.

use std::{
    ffi::OsString,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::Context as _;
use serde_json::json;
use tempfile::TempDir;
use tests::{
    binaries::{Server, workspace},
    client::{Client, Era},
    human,
    process::ServerProcess,
};
use tokio::process::Command;

use crate::story::Story;

/// The name under which plans and tokens know the shell server.
pub(crate) const SHELL: &str = "mcp-bash-commander";
/// The agent's name.
pub(crate) const AGENT: &str = "demo-agent";

/// Everything that runs. Dropping it ends all processes.
pub(crate) struct Stage {
    /// The agent's connection to the registry.
    pub(crate) registry: Client,
    /// The agent's connection to the shell.
    pub(crate) shell: Client,
    /// A port that is free, where the jail has no network of its own, in which every port is.
    pub(crate) port: Option<u16>,
    /// Where the approval page is.
    pub(crate) page: String,
    program: PathBuf,
    // In the order they shall end: clients, then what they talk to.
    _pipe: ServerProcess,
    _shell: ServerProcess,
    _daemon: ServerProcess,
    folder: Option<TempDir>,
    path: PathBuf,
}

impl Stage {
    /// Builds and starts everything, and adds the specification.
    pub(crate) async fn set(keep: bool, story: &mut Story) -> anyhow::Result<Self> {
        let program = Server::SpecRegistry.program().await?;
        let shell_program = Server::BashCommander.program().await?;
        let folder = tempfile::Builder::new().prefix("sdai-").tempdir()?;
        let path = folder.path().to_owned();
        make_workspace(&path.join("workspace"))?;
        let policy = path.join("policy.toml");
        // So that the demo also runs where nobody may make user namespaces. It says so then.
        std::fs::write(&policy, "allow_degraded = [\"no_userns\"]\n")?;
        std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(0o600))?;
        story.title(&path, keep);

        let daemon = start(
            &program,
            &path,
            ["serve".into(), "--idle-exit".into(), "10m".into()],
        )?;
        let ready = daemon.announcement("ready").await?;
        let page = ready["approval_page"]
            .as_str()
            .context("the registry names no page")?
            .to_owned();
        story.ready(
            "mcp-spec-registry",
            &format!("agent plane stdio · approval page {page}"),
            &ready,
        );

        let specification = workspace().join("specs/test-web-service.yaml");
        command(
            &program,
            &path,
            &["spec", "add"],
            &[specification.into()],
            None,
        )
        .await?;
        let token = path.join("shell-token.toml");
        let words = [
            "token", "add", "--kind", "service", "--name", SHELL, "--server", SHELL, "--out",
        ];
        command(&program, &path, &words, &[token.clone().into()], None).await?;

        let mut shell_process = start(
            &shell_program,
            &path.join("shell"),
            [
                "--enforced".into(),
                "--registry".into(),
                socket(&path, "effect"),
                "--registry-token".into(),
                token.into(),
                "--workspace".into(),
                path.join("workspace").into(),
                "--policy".into(),
                policy.into(),
                "--agent".into(),
                AGENT.into(),
            ],
        )?;
        let shell = shell_process.client(Era::Modern).await?;
        let doctor = shell.call("doctor", json!({})).await?.success()?;
        let has_own_network = story.shell_ready(&doctor)?;
        let mut pipe = start(
            &program,
            &path,
            ["stdio".into(), "--agent".into(), AGENT.into()],
        )?;
        let registry = pipe.client(Era::Modern).await?;
        let folder = if keep {
            let _kept = folder.keep();
            None
        } else {
            Some(folder)
        };
        Ok(Self {
            registry,
            shell,
            port: if has_own_network {
                None
            } else {
                Some(free_port()?)
            },
            page,
            program,
            _pipe: pipe,
            _shell: shell_process,
            _daemon: daemon,
            folder,
            path,
        })
    }

    /// Where state, sockets and workspace are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.path.clone()
    }

    /// Leaves the folder for whoever looks for a reason.
    pub(crate) fn keep(&mut self) {
        if let Some(folder) = self.folder.take() {
            let _kept = folder.keep();
        }
    }

    /// The command line that a human would type.
    pub(crate) fn command_line(&self, words: &str) -> String {
        format!(
            "{} {words} --state-dir {} --socket-dir {}",
            self.program.display(),
            self.path.join("state").display(),
            self.path.join("sockets").display()
        )
    }

    /// The path of the registry's program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a human's command of the registry; a secret goes through stdin.
    pub(crate) async fn human(
        &self,
        words: &[&str],
        secret: Option<&str>,
    ) -> anyhow::Result<String> {
        command(&self.program, &self.path, words, &[], secret).await
    }

    /// Runs a human's command on the human's own terminal.
    pub(crate) async fn on_terminal(&self, words: &[&str]) -> anyhow::Result<ExitStatus> {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .arg("--state-dir")
            .arg(self.path.join("state"));
        command.arg("--socket-dir").arg(self.path.join("sockets"));
        Ok(command.status().await?)
    }
}

/// A directory that belongs to an ordinary user: where the jail can be nobody else than its owner, that must not be root.
fn make_workspace(path: &Path) -> anyhow::Result<()> {
    const NOBODY: u32 = 65534;
    std::fs::create_dir(path)?;
    if std::fs::metadata(path)?.uid() == 0 {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

/// A port of this machine that nobody listens on.
fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

fn socket(folder: &Path, plane: &str) -> OsString {
    let mut address = OsString::from("unix:");
    address.push(
        folder
            .join("sockets")
            .join(plane)
            .join(format!("{plane}.sock")),
    );
    address
}

fn start(
    program: &Path,
    folder: &Path,
    arguments: impl IntoIterator<Item = OsString>,
) -> anyhow::Result<ServerProcess> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg("--state-dir")
        .arg(folder.join("state"));
    if program.ends_with("mcp-spec-registry") {
        command.arg("--socket-dir").arg(folder.join("sockets"));
    }
    ServerProcess::spawn(command)
}

async fn command(
    program: &Path,
    folder: &Path,
    words: &[&str],
    paths: &[OsString],
    secret: Option<&str>,
) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(words).args(paths);
    command.arg("--state-dir").arg(folder.join("state"));
    command.arg("--socket-dir").arg(folder.join("sockets"));
    human::run(command, secret).await
}
