//! Processes of a jail that are stopped, killed or too many, seen by those around.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::escape::results;
use crate::matrix::{NEED_GROUP, measured};
use crate::outside::Outside;
use crate::support::{Scene, becomes_true, finish, first_line, has_group, is_gone};

#[tokio::test]
async fn a_killed_init_is_the_end_of_its_jail_and_a_stopped_one_holds_nobody() -> anyhow::Result<()>
{
    let scene = Scene::new()?;
    for is_stopped in [false, true] {
        let mut process = scene
            .launcher
            .run(scene.spec(["/bin/sh", "-c", "echo ready; sleep 1000"])?)
            .await?;
        first_line(&mut process).await?;
        let init = Pid::from_raw(process.jail.identity().pid)
            .ok_or_else(|| anyhow::anyhow!("no process"))?;
        if is_stopped {
            kill_process(init, Signal::STOP)?;
            process.jail.kill()?;
        } else {
            kill_process(init, Signal::KILL)?;
        }
        let exit = process.command.wait().await;
        assert_eq!(exit.code, None, "{exit:?}");
        process.jail.finished().await;
        becomes_true("nothing of the jail is left", || is_gone(&process.jail)).await?;
    }
    assert_eq!(scene.shell("echo next").await?.stdout, "next\n");
    Ok(())
}

#[tokio::test]
async fn while_one_jail_is_full_of_processes_another_works_and_the_full_one_can_be_killed()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    // What it forks stays; the shell itself forks no more.
    let full = "./probe fork 100; exec sleep 1000";
    let mut spec = scene.spec(["/bin/sh", "-c", full])?;
    spec.limits.processes = 40;
    let mut process = scene.launcher.run(spec).await?;
    let (_, errno): (u64, i32) = serde_json::from_str(&first_line(&mut process).await?)?;
    assert_eq!(errno, libc::EAGAIN);
    assert_eq!(scene.shell("echo works").await?.stdout, "works\n");
    process.jail.kill()?;
    process.jail.finished().await;
    becomes_true("nothing of it is left", || is_gone(&process.jail)).await
}

#[tokio::test]
async fn a_jail_that_cannot_be_made_is_refused_by_the_name_of_its_layer() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    // Inside a jail there are no further user namespaces: a host that forbids them, close at hand.
    let output = scene
        .output(scene.probe(&["serve", "/w", "echo ran > ran"])?)
        .await?;
    assert_ne!(output.exit.code, Some(0));
    assert!(
        output.stderr.contains("user_ns") && output.stdout.is_empty(),
        "{}{}",
        output.stdout,
        output.stderr
    );
    assert!(!scene.path().join("ran").exists());
    Ok(())
}

#[tokio::test]
async fn filters_and_rules_piled_up_end_with_an_error_and_disturb_nobody() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    for (pile, most, error) in [
        ("pile rules", "100", libc::E2BIG),
        ("pile filters", "20000", libc::ENOMEM),
    ] {
        let told: Value = scene.told(&[pile, most]).await?;
        assert_eq!(told[1], error, "{pile}: {told}");
    }
    assert_eq!(scene.shell("echo next").await?.stdout, "next\n");
    Ok(())
}

#[tokio::test]
async fn a_program_run_from_memory_or_from_tmp_is_jailed_like_any_other() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let outside = Outside::new(&scene)?;
    let mut spec = measured(&scene, &outside.context, None)?;
    spec.command.argv.insert(1, "from memory".into());
    // The copy in memory is a file too.
    spec.limits.file_bytes = 1 << 30;
    let process = scene.launcher.run(spec).await?;
    let has_group = has_group(process.jail.isolation());
    let output = finish(process).await?;
    anyhow::ensure!(
        output.exit.code == Some(0),
        "{:?} {}",
        output.exit,
        output.stderr
    );
    let attempts = results(&serde_json::from_str(&output.stdout)?)?;
    let open: Vec<_> = attempts
        .iter()
        .filter(|(_, result)| **result == 0)
        .map(|(name, _)| name.as_str())
        .filter(|name| has_group || !NEED_GROUP.contains(name))
        .collect();
    assert_eq!(open, ["write a file of 8 MiB"]);
    let ordinary = scene.told(&["describe"]).await?;
    let from_memory = scene.told(&["from memory", "describe"]).await?;
    let copied = scene
        .shell("cp probe /tmp/copy && exec /tmp/copy describe")
        .await?;
    let copied: Value = serde_json::from_str(&copied.stdout)?;
    for fact in [
        "CapEff",
        "CapBnd",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Uid",
    ] {
        assert_eq!(
            from_memory["status"][fact], ordinary["status"][fact],
            "{fact}"
        );
        assert_eq!(copied["status"][fact], ordinary["status"][fact], "{fact}");
    }
    Ok(())
}
