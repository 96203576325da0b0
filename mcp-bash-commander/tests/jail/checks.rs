//! Commands that measure an outcome: run where they can change nothing, told by how they ended.

use std::sync::Arc;
use std::time::Duration;

use mcp_bash_commander::check::{CheckError, Checker};
use mcp_bash_commander::jail::JailError;
use mcp_bash_commander::policy::Policy;
use mcp_bash_commander::workspace::Workspace;

use crate::support::{Scene, becomes_true, marked};

fn checker(scene: &Scene) -> anyhow::Result<Checker> {
    let policy = Policy::load(None, Some(scene.path()))?;
    let workspace = Workspace::open(&policy.workspace, policy.access)?;
    Ok(Checker {
        launcher: scene.launcher.clone(),
        workspace: Arc::new(workspace),
        policy: Arc::new(policy),
    })
}

fn shell(command: &str) -> Vec<String> {
    ["/bin/sh", "-c", command].map(str::to_owned).to_vec()
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_check_sees_the_workspace_and_cannot_change_it() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    std::fs::write(scene.path().join("result"), "all is well\n")?;
    let checker = checker(&scene)?;
    let seen = checker
        .run(&shell("cat result; exit 3"), Some("is well"), LONG)
        .await?;
    assert_eq!((seen.exit_code, seen.text_found), (Some(3), Some(true)));
    let tried = checker
        .run(
            &shell("echo x > result; echo x > new; rm result; exit 0"),
            Some("is well"),
            LONG,
        )
        .await?;
    assert_eq!(tried.text_found, Some(false));
    assert_eq!(
        std::fs::read_to_string(scene.path().join("result"))?,
        "all is well\n"
    );
    assert!(!scene.path().join("new").exists());
    Ok(())
}

#[tokio::test]
async fn a_check_that_does_not_end_is_ended_and_never_looks_like_a_success() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let checker = checker(&scene)?;
    let mark = format!("77{}", std::process::id());
    for command in [
        format!("setsid sleep {mark} & sleep {mark}"),
        // Its output ends, it does not.
        format!("exec >&- 2>&-; sleep {mark}"),
        // It ends, its output does not.
        format!("sleep {mark} & exit 0"),
    ] {
        let started = std::time::Instant::now();
        let late = checker
            .run(&shell(&command), None, Duration::from_millis(300))
            .await?;
        let is_honest = late.timed_out && late.exit_code.is_none()
            || late.exit_code == Some(0) && command.ends_with("exit 0");
        assert!(is_honest, "{command}: {late:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
        becomes_true("nothing is left", || marked(&mark).is_empty()).await?;
    }
    let missing = checker
        .run(&["/no/such/program".to_owned()], None, LONG)
        .await;
    assert!(
        matches!(missing, Err(CheckError::Jail(JailError::Program { .. }))),
        "{missing:?}"
    );
    Ok(())
}
