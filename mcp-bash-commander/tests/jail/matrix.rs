//! What each layer is there for: every attempt of the probe in the jail, in jails with one layer left out, and under other sandboxes.
//!
//! `docs/escape-matrix.md` tells it; `UPDATE_EXPECT=1 cargo test -p mcp-bash-commander --test jail matrix::` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use mcp_bash_commander::jail::{JailSpec, Layer};
use serde_json::Value;

use crate::escape::results;
use crate::outside::Outside;
use crate::support::{PLACE, Scene, finish, has_groups_or_skips, missing};
use crate::{cases, container, document, no_userns};

/// What is left out for each column. Without a user, mount or process namespace there is nothing to make a jail in, and
/// `no_new_privs` comes with the launcher too.
const LEFT_OUT: &[Layer] = &[
    Layer::PrivateRoot,
    Layer::IpcNs,
    Layer::UtsNs,
    Layer::NetNs,
    Layer::CgroupNs,
    Layer::Cgroup,
    Layer::Limits,
    Layer::Capabilities,
    Layer::Landlock,
    Layer::Seccomp,
];

/// Attempts that nothing but a control group stops: where a jail has none they are open.
pub(crate) const NEED_GROUP: &[&str] = &["use 200 MiB of memory in four processes"];

pub(crate) type Results = BTreeMap<String, i32>;

/// The probe with all its attempts in a jail whose limits they exceed.
pub(crate) fn measured(
    scene: &Scene,
    context: &Value,
    without: Option<Layer>,
) -> anyhow::Result<JailSpec> {
    let mut spec = scene.probe(&["attempt", &context.to_string()])?;
    spec.without = without.into_iter().collect();
    spec.limits.processes = 60;
    spec.limits.open_files = 256;
    spec.limits.memory_bytes = 128 << 20;
    spec.limits.file_bytes = 4 << 20;
    spec.limits.tmp_bytes = 2 << 20;
    if without == Some(Layer::PrivateRoot) {
        // Then there is no workspace either; the probe is where it is on the host.
        spec.workspace = None;
        spec.command.cwd = scene.path().into();
        spec.read_only.push(scene.path().to_owned());
    }
    Ok(spec)
}

pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// What another sandbox says it is.
    pub(crate) version: String,
    /// Absent where it was not run, for this reason.
    pub(crate) results: Result<Results, String>,
}

impl Column {
    pub(crate) fn open(&self) -> BTreeSet<&str> {
        self.results
            .iter()
            .flatten()
            .filter(|(_, result)| **result == 0)
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

#[tokio::test]
async fn each_layer_stops_something_that_no_other_stops() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let outside = Outside::new(&scene)?;
    let has_groups = has_groups_or_skips(&scene, "the column of the layer cgroup").await?;
    let whole = in_jail(&scene, &outside, None).await?;
    let mut columns = Vec::new();
    let left_out = LEFT_OUT
        .iter()
        .filter(|layer| has_groups || **layer != Layer::Cgroup);
    for layer in left_out {
        columns.push(in_jail(&scene, &outside, Some(*layer)).await?);
    }
    for column in &columns {
        assert!(
            column.open().difference(&whole.open()).next().is_some(),
            "without {} nothing more is open: {:?}",
            column.name,
            column.results
        );
    }
    let attempts: BTreeSet<&str> = whole
        .results
        .iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    let in_cases: BTreeSet<&str> = cases::all()
        .flat_map(|case| case.attempts)
        .copied()
        .collect();
    assert_eq!(
        attempts, in_cases,
        "attempts that are in no case, or that are none"
    );
    let outside_column = Column {
        name: "outside",
        version: String::new(),
        results: Ok(results(&scene.told_outside(&[
            "attempt",
            &outside.context_of_the_control().to_string(),
        ])?)?),
    };
    columns.insert(0, outside_column);
    let in_mode = |name: &'static str, results: Option<Results>| Column {
        name,
        version: String::new(),
        results: results.ok_or_else(|| "no engine".to_owned()),
    };
    columns.push(in_mode("container", container::attempted().await?));
    columns.push(in_mode("no_userns", Some(no_userns::attempted().await?)));
    columns.push(under("bubblewrap", bubblewrap(&scene), &outside));
    columns.push(under("Docker", docker(&scene), &outside));
    let unchecked = if has_groups { &[][..] } else { NEED_GROUP };
    document::is_current(&document::write(&whole, &columns)?, unchecked)
}

async fn in_jail(
    scene: &Scene,
    outside: &Outside,
    without: Option<Layer>,
) -> anyhow::Result<Column> {
    let name = without.map_or("jail", Layer::name);
    let spec = measured(scene, &outside.context, without)?;
    let process = scene.launcher.run(spec).await?;
    let isolation = process.jail.isolation();
    let mut missing: Vec<String> = missing(isolation).into_iter().map(str::to_owned).collect();
    if without == Some(Layer::Cgroup) {
        missing = isolation.missing.iter().map(ToString::to_string).collect();
    }
    let output = finish(process).await?;
    assert_eq!(missing.is_empty(), without.is_none(), "{missing:?}");
    assert!(without.is_none() || missing.contains(&name.to_owned()));
    let told = serde_json::from_str(&output.stdout)
        .with_context(|| format!("{name}: {}{}", output.stdout, output.stderr))?;
    Ok(Column {
        name,
        version: String::new(),
        results: Ok(results(&told)?),
    })
}

#[tokio::test]
async fn leaving_no_new_privs_out_changes_nothing_for_the_launcher_has_it_too() -> anyhow::Result<()>
{
    let scene = Scene::new()?;
    let mut spec = scene.probe(&["describe"])?;
    // Neither of the other two can be had without it.
    spec.without = vec![Layer::NoNewPrivs, Layer::Landlock, Layer::Seccomp];
    let output = scene.output(spec).await?;
    let told: Value = serde_json::from_str(&output.stdout)?;
    assert_eq!(told["status"]["NoNewPrivs"], "1");
    Ok(())
}

/// Another sandbox: the beginning of its command line and its version, or why it cannot be had.
type Sandbox = Result<(Command, String), String>;

fn under(name: &'static str, sandbox: Sandbox, outside: &Outside) -> Column {
    let (version, results) = match sandbox {
        Ok((command, version)) => (version, attempts_under(command, outside)),
        Err(reason) => (String::new(), Err(reason)),
    };
    Column {
        name,
        version,
        results,
    }
}

fn attempts_under(mut sandbox: Command, outside: &Outside) -> Result<Results, String> {
    let output = sandbox
        .args(["./probe", "attempt", &outside.context.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|_| last_line(&output.stderr))
}

/// As strict as its command line is usually written: all namespaces, the toolchain read-only, the workspace writable.
fn bubblewrap(scene: &Scene) -> Sandbox {
    let program = std::env::var_os("BWRAP").unwrap_or_else(|| "bwrap".into());
    let mut command = Command::new(program);
    let version = answer(Command::new(command.get_program()).arg("--version"))?;
    command.args([
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
    ]);
    command.args(["--ro-bind", "/usr", "/usr"]);
    for path in ["/bin", "/sbin", "/lib", "/lib64"] {
        match std::fs::read_link(path) {
            Ok(target) => command.arg("--symlink").arg(target).arg(path),
            Err(_) => command.args(["--ro-bind-try", path, path]),
        };
    }
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
    command
        .arg("--bind")
        .arg(scene.path())
        .args([PLACE, "--chdir", PLACE, "--"]);
    Ok((command, version))
}

fn docker(scene: &Scene) -> Sandbox {
    let version =
        answer(Command::new("docker").args(["version", "--format", "Docker {{.Server.Version}}"]))?;
    let mut command = Command::new("docker");
    let mut volume = scene.path().as_os_str().to_owned();
    volume.push(":");
    volume.push(PLACE);
    command
        .args(["run", "--rm", "--workdir", PLACE, "--volume"])
        .arg(volume);
    command.arg(std::env::var_os("CONTAINER_IMAGE").unwrap_or_else(|| "debian:stable-slim".into()));
    Ok((command, version))
}

/// What it says of itself; the last line of its complaint if it does not.
fn answer(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|_| "not installed".to_owned())?;
    if output.status.success() {
        Ok(last_line(&output.stdout))
    } else {
        Err(last_line(&output.stderr))
    }
}

fn last_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().last().unwrap_or_default();
    last.trim_end_matches('.').to_owned()
}
