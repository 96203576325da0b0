//! The control group of a jail: what it bounds, what it tells, and that nothing of it is left.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use mcp_bash_commander::jail::{
    CommandSpec, JailError, JailSpec, JailedProcess, Layer, LayerStatus, Lifetime, probe_layers,
};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::support::{
    KilledOnDrop, PLACE, Scene, becomes_true, first_line, has_group, has_groups_or_skips, probe,
};

/// What all groups of jails are called.
const NAME: &str = "mcp-bash-commander.";

/// The directories of the groups of jails that a process is in.
fn groups_of(process: i32) -> anyhow::Result<BTreeSet<PathBuf>> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let paths = groups
        .lines()
        .filter_map(|line| line.rsplit_once(":/"))
        .map(|(_, path)| path)
        .filter(|path| path.contains(NAME));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts: Vec<&Path> = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .filter_map(|line| line.split(' ').nth(4).map(Path::new))
        .collect();
    Ok(paths
        .flat_map(|path| mounts.iter().map(move |mount| mount.join(path)))
        .filter(|directory| directory.exists())
        .collect())
}

fn parent_of(group: &Path) -> anyhow::Result<&Path> {
    group.parent().context("a group stands in another")
}

/// How the command and its jail ended, and what it wrote.
async fn ending(
    scene: &Scene,
    spec: JailSpec,
) -> anyhow::Result<(String, Option<bool>, Option<bool>)> {
    let JailedProcess {
        mut stdout,
        command,
        jail,
        ..
    } = scene.launcher.run(spec).await?;
    let mut text = String::new();
    stdout.read_to_string(&mut text).await?;
    let of_command = command.wait().await.out_of_memory;
    Ok((text, of_command, jail.finished().await.out_of_memory))
}

#[tokio::test]
async fn many_small_processes_together_are_bounded_and_the_end_is_told_to_be_for_want_of_memory()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    if !has_groups_or_skips(&scene, "many_small_processes_together").await? {
        return Ok(());
    }
    let spec = |memory: u64, without: &[Layer]| {
        let mut spec = scene.probe(&["allocate together", "20", "10000000"])?;
        spec.limits.memory_bytes = memory;
        spec.without = without.to_vec();
        anyhow::Ok(spec)
    };
    let little = 64 << 20;
    let (told, of_command, of_jail) = ending(&scene, spec(little, &[])?).await?;
    assert_ne!(told, "0\n");
    assert_eq!((of_command, of_jail), (Some(true), Some(true)), "{told}");
    let enough = ending(&scene, spec(1 << 30, &[])?).await?;
    assert_eq!(enough, ("0\n".to_owned(), Some(false), Some(false)));
    let unbounded = ending(&scene, spec(little, &[Layer::Cgroup])?).await?;
    assert_eq!(unbounded, ("0\n".to_owned(), None, None));
    Ok(())
}

#[tokio::test]
async fn memory_that_files_in_tmp_take_counts_too() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    if !has_groups_or_skips(&scene, "memory_that_files_in_tmp_take").await? {
        return Ok(());
    }
    let spec = |memory: u64| {
        let mut spec = scene.probe(&["fill", "/tmp/big", "100000000"])?;
        spec.limits.memory_bytes = memory;
        anyhow::Ok(spec)
    };
    let (told, of_command, of_jail) = ending(&scene, spec(64 << 20)?).await?;
    assert_eq!(
        (told.as_str(), of_command, of_jail),
        ("", Some(true), Some(true))
    );
    let (told, ..) = ending(&scene, spec(256 << 20)?).await?;
    assert!(told.ends_with(",null]\n"), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_command_of_a_session_is_told_and_those_before_and_after_are_not() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    if !has_groups_or_skips(&scene, "a_command_of_a_session_is_told").await? {
        return Ok(());
    }
    let mut spec = scene.spec(["true"])?;
    spec.lifetime = Lifetime::Kept;
    spec.limits.memory_bytes = 64 << 20;
    let JailedProcess { command, jail, .. } = scene.launcher.run(spec).await?;
    assert_eq!(command.wait().await.out_of_memory, Some(false));
    let told = async |script: &str| {
        let mut spec = CommandSpec::new(["/bin/sh", "-c", script]);
        spec.cwd = PLACE.into();
        let exit = jail.start(&spec).await?.command.wait().await;
        anyhow::Ok((exit.code, exit.out_of_memory))
    };
    let bomb = "./probe 'allocate together' 20 10000000; exit 5";
    assert_eq!(told(bomb).await?, (Some(5), Some(true)));
    assert_eq!(told("exit 6").await?, (Some(6), Some(false)));
    assert_eq!(told(bomb).await?, (Some(5), Some(true)));
    jail.kill()?;
    assert_eq!(jail.finished().await.out_of_memory, Some(true));
    Ok(())
}

#[tokio::test]
async fn everything_of_a_jail_is_in_its_group_which_is_not_the_jails_to_change_and_goes_with_it()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    if !has_groups_or_skips(&scene, "everything_of_a_jail_is_in_its_group").await? {
        return Ok(());
    }
    let script = "sleep 1000 & setsid sleep 1000 & cat /proc/self/cgroup | tr '\\n' ' '; echo; \
                  find / -name cgroup.procs 2>/dev/null | wc -l; read line";
    let mut spec = scene.spec(["/bin/sh", "-c", script])?;
    spec.command.stdin = mcp_bash_commander::jail::Stdin::Pipe;
    spec.limits.processes = 77;
    let mut process = scene.launcher.run(spec).await?;
    let init = process.jail.identity().pid;
    let seen = first_line(&mut process).await?;
    assert!(
        !seen.contains(NAME) && seen.contains("memory:/ ") | seen.contains("0::/ "),
        "its own group is the topmost one it sees: {seen}"
    );
    assert_eq!(first_line(&mut process).await?, "0");
    let groups = groups_of(init)?;
    let kernel_uid = process.jail.isolation().kernel_uid;
    let mut bounds = BTreeSet::new();
    for group in &groups {
        let inside = || fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        // What counted the lines may just be ending.
        becomes_true("init, the shell and both that it started are in it", || {
            inside().lines().count() == 4
        })
        .await?;
        assert!(inside().lines().any(|pid| pid == init.to_string()));
        let file = fs::metadata(group.join("cgroup.procs"))?;
        assert!(file.mode() & 0o022 == 0);
        assert!(!crate::support::is_root() || file.uid() != kernel_uid);
        for file in ["pids.max", "memory.max", "memory.limit_in_bytes"] {
            if let Ok(bound) = fs::read_to_string(group.join(file)) {
                bounds.insert(bound.trim().parse::<u64>()?);
            }
        }
    }
    // In version 1 a group for processes is one more; the jail's user namespace bounds them already.
    let layers = &process.jail.isolation().layers;
    let processes = layers
        .iter()
        .any(|layer| layer == "cgroup:v2")
        .then_some(77);
    let expected = std::iter::once((2 << 30) + (8 << 20)).chain(processes);
    assert_eq!(bounds, expected.collect());
    process.jail.kill()?;
    process.jail.finished().await;
    becomes_true("its groups are gone", || {
        groups.iter().all(|group| !group.exists())
    })
    .await
}

#[tokio::test]
async fn groups_go_with_a_server_that_lets_its_launcher_go() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    if !has_groups_or_skips(&scene, "groups_go_with_a_server").await? {
        return Ok(());
    }
    let process = scene.launcher.run(scene.spec(["sleep", "1000"])?).await?;
    let groups = groups_of(process.jail.identity().pid)?;
    assert!(!groups.is_empty());
    drop(scene);
    becomes_true("its groups are gone", || {
        groups.iter().all(|group| !group.exists())
    })
    .await
}

#[tokio::test]
async fn what_a_crashed_server_leaves_is_removed_by_the_next_and_nothing_else_is()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    if !has_groups_or_skips(&scene, "what_a_crashed_server_leaves").await? {
        return Ok(());
    }
    let neighbour = scene.launcher.run(scene.spec(["sleep", "1000"])?).await?;
    let others = groups_of(neighbour.jail.identity().pid)?;
    let mut server = KilledOnDrop(
        Command::new(probe())
            .arg("serve")
            .arg(scene.path())
            .arg("sleep 1000")
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut line = String::new();
    let output = server.0.stdout.take().context("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    let identity: Value = serde_json::from_str(&line)?;
    let init = i32::try_from(identity["pid"].as_i64().context("no pid")?)?;
    let left = groups_of(init)?;
    assert!(!left.is_empty());
    // The launcher first: of the server's end it might hear in time.
    let status = fs::read_to_string(format!("/proc/{init}/status"))?;
    let launcher = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .context("no parent")?;
    Command::new("kill")
        .args(["-KILL", launcher.trim()])
        .status()?;
    becomes_true("the launcher was reaped", || {
        !Path::new(&format!("/proc/{}", launcher.trim())).exists()
    })
    .await?;
    drop(server);
    assert!(left.iter().all(|group| group.exists()), "{left:?}");

    let foreign: Vec<PathBuf> = left
        .iter()
        .map(|group| Ok(parent_of(group)?.join(format!("foreign-{}", std::process::id()))))
        .collect::<anyhow::Result<_>>()?;
    for group in &foreign {
        fs::create_dir(group)?;
    }
    let next = Scene::new()?;
    next.shell("true").await?;
    let gone = becomes_true("what was left is gone", || {
        left.iter().all(|group| !group.exists())
    })
    .await;
    let others_stand = foreign.iter().chain(&others).all(|group| group.exists());
    neighbour.jail.kill()?;
    neighbour.jail.finished().await;
    for group in &foreign {
        fs::remove_dir(group)?;
    }
    assert!(others_stand && others.len() == left.len());
    gone
}

/// As root, and with a control group of its own, a server has groups; an ordinary user's has none. This test shows either.
#[tokio::test]
async fn a_group_that_cannot_be_had_is_named_and_refuses_only_where_it_is_required()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    let process = scene.launcher.run(scene.spec(["echo", "ran"])?).await?;
    let isolation = process.jail.isolation().clone();
    let is_there = has_group(&isolation);
    assert_eq!(
        isolation.missing.contains(&"cgroup".into()),
        !is_there,
        "{isolation:?}"
    );
    let mut spec = scene.spec(["/bin/sh", "-c", "echo ran > ran"])?;
    spec.limits.require_cgroup = true;
    let ran = scene.output(spec).await;
    let reports = probe_layers(&scene.launcher, None).await;
    let report = reports
        .iter()
        .find(|report| report.layer.starts_with("cgroup") && report.layer != "cgroup_ns")
        .context("no report")?;
    assert_eq!(scene.path().join("ran").exists(), is_there);
    if is_there {
        assert!(["cgroup:v1", "cgroup:v2"].contains(&report.layer.as_str()));
        assert_eq!((ran.is_ok(), report.status), (true, LayerStatus::Applied));
        return Ok(());
    }
    let refused = ran.err().context("it was not refused")?;
    let Some(JailError::Layer { layer, hint, .. }) = refused.downcast_ref() else {
        anyhow::bail!("{refused:?}");
    };
    assert_eq!(*layer, Layer::Cgroup);
    assert!(hint.contains("Delegate=yes"), "{hint}");
    assert_eq!(report.status, LayerStatus::Absent);
    assert_eq!(report.fix.as_ref(), Some(hint));
    Ok(())
}
