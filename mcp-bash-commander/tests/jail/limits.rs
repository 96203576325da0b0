//! Limits: a command that wants too much is stopped, and says so itself.

use serde_json::json;

use crate::support::{Scene, first_line};

#[tokio::test]
async fn a_fork_bomb_stops_at_the_limit_of_processes() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.probe(&["fork", "100"])?;
    spec.limits.processes = 20;
    spec.linger = std::time::Duration::ZERO;
    let output = scene.output(spec).await?;
    let (count, errno): (u64, i32) = serde_json::from_str(&output.stdout)?;
    assert!(count < 20, "{count} processes");
    assert_eq!(errno, libc::EAGAIN);
    let control = scene.output(scene.probe(&["fork", "30"])?).await?;
    assert_eq!(control.stdout.trim(), "[30,0]");
    Ok(())
}

#[tokio::test]
async fn memory_ends_at_its_limit() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.probe(&["allocate", "200000000"])?;
    spec.limits.memory_bytes = 64 << 20;
    let output = scene.output(spec).await?;
    let (bytes, errno): (u64, i32) = serde_json::from_str(&output.stdout)?;
    assert!(bytes < 64 << 20, "{bytes} bytes");
    assert_eq!(errno, libc::ENOMEM);
    let control = scene.told(&["allocate", "200000000"]).await?;
    assert_eq!(control[1], 0);
    Ok(())
}

#[tokio::test]
async fn the_private_tmp_has_a_size_and_is_gone_afterwards() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.probe(&["fill", "/tmp/big", "4000000"])?;
    spec.limits.tmp_bytes = 1 << 20;
    let output = scene.output(spec).await?;
    assert_eq!(
        output.stdout.trim(),
        json!([1 << 20, libc::ENOSPC]).to_string()
    );
    let control = scene.told(&["fill", "/tmp/big", "4000000"]).await?;
    assert_eq!(control[1], json!(null));
    assert_eq!(scene.shell("ls -A /tmp").await?.stdout, "");
    Ok(())
}

#[tokio::test]
async fn a_file_ends_at_its_limit() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.spec([
        "/bin/sh",
        "-c",
        "trap '' XFSZ; head -c 300000 /dev/zero > big; stat -c %s big",
    ])?;
    spec.limits.file_bytes = 100_000;
    assert_eq!(scene.output(spec).await?.stdout, "100000\n");
    Ok(())
}

#[tokio::test]
async fn processor_time_ends_at_its_limit() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.spec(["/bin/sh", "-c", "while :; do :; done"])?;
    spec.limits.cpu_seconds = 1;
    let exit = scene.output(spec).await?.exit;
    assert_eq!(exit.signal, Some(libc::SIGKILL));
    // The kernel holds the limit against what its clock ticks sampled, not against what was really used.
    assert!(exit.cpu.as_millis() >= 500, "{:?}", exit.cpu);
    Ok(())
}

#[tokio::test]
async fn where_memory_runs_out_a_command_is_killed_before_its_init() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let command = "cat /proc/self/oom_score_adj; exec sleep 1000";
    let mut process = scene
        .launcher
        .run(scene.spec(["/bin/sh", "-c", command])?)
        .await?;
    let of_command: i32 = first_line(&mut process).await?.parse()?;
    let score = |process: &str| -> anyhow::Result<i32> {
        let text = std::fs::read_to_string(format!("/proc/{process}/oom_score_adj"))?;
        Ok(text.trim().parse()?)
    };
    let of_init = score(&process.jail.identity().pid.to_string())?;
    assert_eq!(of_init, score("self")?);
    assert_eq!(of_command, (of_init + 500).min(1000));
    Ok(())
}
