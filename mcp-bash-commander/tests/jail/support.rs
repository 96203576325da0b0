//! A launcher, a workspace with the probe in it, and a command's output.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::Context as _;
use mcp_bash_commander::jail::{
    Access, Exit, Isolation, Jail, JailSpec, JailedProcess, Launcher, Layer, Workspace,
};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::skips::skip;

/// Where these tests find the probe when they run as another user, who may not see the build directory.
pub(crate) const PROBE_VARIABLE: &str = "JAIL_PROBE";

/// Where the workspace stands in the jail.
pub(crate) const PLACE: &str = "/w";

pub(crate) fn probe() -> PathBuf {
    std::env::var_os(PROBE_VARIABLE)
        .map_or_else(|| env!("CARGO_BIN_EXE_jail-probe").into(), PathBuf::from)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory with the probe in it, and a launcher.
pub(crate) struct Scene {
    pub(crate) launcher: Launcher,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: Exit,
}

impl Scene {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::copy(probe(), directory.path().join("probe"))?;
        Ok(Self {
            launcher: Launcher::start_from(&probe())?,
            directory,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A specification with the workspace, writable, as working directory.
    pub(crate) fn spec<S: Into<std::ffi::OsString>>(
        &self,
        argv: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<JailSpec> {
        let mut spec = JailSpec::new(argv);
        spec.workspace = Some(Workspace::open(
            self.path(),
            PLACE.as_ref(),
            Access::ReadWrite,
        )?);
        spec.command.cwd = PLACE.into();
        Ok(spec)
    }

    /// The probe in its jail.
    pub(crate) fn probe(&self, arguments: &[&str]) -> anyhow::Result<JailSpec> {
        self.spec([&["./probe"], arguments].concat())
    }

    pub(crate) async fn output(&self, spec: JailSpec) -> anyhow::Result<Output> {
        finish(self.launcher.run(spec).await?).await
    }

    /// Output of a shell command.
    pub(crate) async fn shell(&self, command: &str) -> anyhow::Result<Output> {
        self.output(self.spec(["/bin/sh", "-c", command])?).await
    }

    /// What the probe told in its jail.
    pub(crate) async fn told(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = self.output(self.probe(arguments)?).await?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("{}{}", output.stdout, output.stderr))
    }

    /// What the probe told outside, in the workspace's directory.
    pub(crate) fn told_outside(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = std::process::Command::new(probe())
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

pub(crate) async fn finish(process: JailedProcess) -> anyhow::Result<Output> {
    let JailedProcess {
        mut stdout,
        stderr,
        command,
        jail: _jail,
        ..
    } = process;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let read_errors = async {
        match stderr {
            Some(mut stderr) => stderr.read_to_end(&mut err).await,
            None => Ok(0),
        }
    };
    tokio::try_join!(stdout.read_to_end(&mut out), read_errors)?;
    Ok(Output {
        stdout: String::from_utf8_lossy(&out).into_owned(),
        stderr: String::from_utf8_lossy(&err).into_owned(),
        exit: command.wait().await,
    })
}

/// The first line a jailed command writes.
pub(crate) async fn first_line(process: &mut JailedProcess) -> anyhow::Result<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        anyhow::ensure!(
            process.stdout.read(&mut byte).await? == 1,
            "the command ended without a line"
        );
        if byte == *b"\n" {
            return Ok(String::from_utf8(line)?);
        }
        line.push(byte[0]);
    }
}

/// Waits, for at most five seconds, until `fact` holds.
pub(crate) async fn becomes_true(what: &str, fact: impl Fn() -> bool) -> anyhow::Result<()> {
    for _ in 0..500 {
        if fact() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    anyhow::bail!("not within five seconds: {what}")
}

/// The processes of this machine whose command line contains `mark`.
pub(crate) fn marked(mark: &str) -> Vec<i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
        })
        .collect()
}

/// A server that is killed without warning, also where an assertion fails before.
pub(crate) struct KilledOnDrop(pub(crate) Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Whether the jail has a control group: which machine and which user can have one differs.
pub(crate) fn has_group(isolation: &Isolation) -> bool {
    let mut layers = isolation.layers.iter();
    layers.any(|layer| layer.starts_with("cgroup:"))
}

/// What is missing of the layers that every machine has.
pub(crate) fn missing(isolation: &Isolation) -> Vec<&str> {
    let missing = isolation.missing.iter().map(|name| &**name);
    missing
        .filter(|layer| *layer != Layer::Cgroup.name())
        .collect()
}

/// Whether jails have control groups here. Where they have none, the test is skipped by name; on CI that is an error.
pub(crate) async fn has_groups_or_skips(scene: &Scene, test: &str) -> anyhow::Result<bool> {
    let process = scene.launcher.run(JailSpec::new(["true"])).await?;
    if has_group(process.jail.isolation()) {
        return Ok(true);
    }
    skip(test, "a writable control group")?;
    Ok(false)
}

/// Nothing of the jail is alive.
pub(crate) fn is_gone(jail: &Jail) -> bool {
    !jail.is_alive() && !Path::new(&format!("/proc/{}", jail.identity().pid)).exists()
}
