//! A kept jail: one command after another in it, each ended for itself, all of them with the jail.

use mcp_bash_commander::jail::{CommandSpec, Jail, JailError, Lifetime, Reach};

use crate::support::{Output, PLACE, Scene, becomes_true, finish, first_line, is_gone, marked};

/// A jail that is kept, and the scene around it.
async fn kept(scene: &Scene) -> anyhow::Result<Jail> {
    let mut spec = scene.spec(["/bin/sh", "-c", "exit 0"])?;
    spec.lifetime = Lifetime::Kept;
    let process = scene.launcher.run(spec).await?;
    assert_eq!(process.command.wait().await.code, Some(0));
    Ok(process.jail)
}

fn shell(command: &str) -> CommandSpec {
    let mut spec = CommandSpec::new(["/bin/sh", "-c", command]);
    spec.cwd = PLACE.into();
    spec
}

async fn output(jail: &Jail, command: &str) -> anyhow::Result<Output> {
    finish(jail.start(&shell(command)).await?).await
}

/// A number of seconds that stands in no other command line.
fn mark(number: u32) -> String {
    format!("9{number}{}", std::process::id())
}

#[tokio::test]
async fn commands_of_a_session_share_tmp_and_end_one_by_one() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let jail = kept(&scene).await?;
    output(&jail, "echo left > /tmp/file").await?;
    assert_eq!(output(&jail, "cat /tmp/file").await?.stdout, "left\n");
    let failed = output(&jail, "echo problem >&2; exit 7").await?;
    assert_eq!(
        (failed.exit.code, failed.stderr.as_str()),
        (Some(7), "problem\n")
    );
    assert!(jail.is_alive());
    assert_eq!(output(&jail, "echo $0").await?.exit.code, Some(0));
    Ok(())
}

#[tokio::test]
async fn a_later_command_has_every_layer_the_first_one_had() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let jail = kept(&scene).await?;
    let fresh = scene.told(&["describe"]).await?;
    let later = output(&jail, "exec ./probe describe").await?;
    let later: serde_json::Value = serde_json::from_str(&later.stdout)?;
    for fact in ["effective_uid", "core_limit", "descriptors", "devices"] {
        assert_eq!(later[fact], fresh[fact], "{fact}");
    }
    for line in [
        "CapEff",
        "CapBnd",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Uid",
    ] {
        assert_eq!(later["status"][line], fresh["status"][line], "{line}");
    }
    Ok(())
}

#[tokio::test]
async fn a_command_is_ended_with_all_its_daemons_and_its_neighbour_goes_on() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let jail = kept(&scene).await?;
    let (neighbour, doomed) = (mark(1), mark(2));
    let mut other = jail
        .start(&shell(&format!("echo ready; sleep {neighbour}")))
        .await?;
    first_line(&mut other).await?;
    let daemons = format!(
        "sleep {doomed} & nohup sleep {doomed} >/dev/null 2>&1 & setsid sleep {doomed} & \
         (setsid sh -c 'sleep {doomed} & sleep {doomed}' &) ; sleep 0.1; echo ready; sleep {doomed}"
    );
    let mut process = jail.start(&shell(&daemons)).await?;
    first_line(&mut process).await?;
    assert!(marked(&doomed).len() >= 5, "{:?}", marked(&doomed));
    process.command.signal(libc::SIGKILL, Reach::Tree)?;
    assert_eq!(process.command.wait().await.signal, Some(libc::SIGKILL));
    becomes_true("no daemon is left", || marked(&doomed).is_empty()).await?;
    assert_eq!(other.command.exit(), None);
    assert!(!marked(&neighbour).is_empty());
    jail.kill()?;
    jail.finished().await;
    becomes_true("nothing is left", || marked(&neighbour).is_empty()).await?;
    becomes_true("init was reaped", || is_gone(&jail)).await
}

#[tokio::test]
async fn what_a_command_leaves_running_is_counted_and_stays_with_the_session() -> anyhow::Result<()>
{
    let scene = Scene::new()?;
    let jail = kept(&scene).await?;
    let mark = mark(3);
    let left = output(&jail, &format!("sleep {mark} >/dev/null 2>&1 & exit 0")).await?;
    assert_eq!(left.exit.left_running, 1);
    assert!(!marked(&mark).is_empty());
    drop(jail);
    becomes_true("nothing is left", || marked(&mark).is_empty()).await
}

#[tokio::test]
async fn a_program_that_is_not_there_ends_nothing_but_its_own_start() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let jail = kept(&scene).await?;
    let missing = jail.start(&CommandSpec::new(["/no/such/program"])).await;
    assert!(
        matches!(&missing, Err(JailError::Program { program, .. }) if program == "/no/such/program"),
        "{missing:?}"
    );
    let mut nowhere = CommandSpec::new(["true"]);
    nowhere.cwd = "/no/such/directory".into();
    assert!(matches!(
        jail.start(&nowhere).await,
        Err(JailError::WorkingDirectory { .. })
    ));
    assert_eq!(output(&jail, "echo on").await?.stdout, "on\n");
    jail.kill()?;
    jail.finished().await;
    assert!(jail.start(&CommandSpec::new(["true"])).await.is_err());
    Ok(())
}

#[tokio::test]
async fn hundreds_of_commands_one_after_the_other_and_at_once_leave_nothing_open()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    let jail = kept(&scene).await?;
    let descriptors = || std::fs::read_dir("/proc/self/fd").map(Iterator::count);
    let before = descriptors()?;
    for _ in 0..100 {
        assert_eq!(output(&jail, ":").await?.exit.code, Some(0));
    }
    let mut running = tokio::task::JoinSet::new();
    for number in 0..100 {
        let jail = jail.clone();
        running.spawn(async move { output(&jail, &format!("echo {number}")).await });
    }
    let mut told: Vec<u32> = Vec::new();
    while let Some(output) = running.join_next().await {
        told.push(output??.stdout.trim().parse()?);
    }
    told.sort_unstable();
    assert_eq!(told, (0..100).collect::<Vec<_>>());
    // Other tests of this process open some meanwhile, and close them.
    let few = || descriptors().is_ok_and(|now| now < before + 100);
    becomes_true("fewer are open than one for each other command", few).await?;
    assert_eq!(jail.usage()?.processes, 0);
    Ok(())
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_any_more_does_not_run_on() -> anyhow::Result<()> {
    use std::future::Future as _;
    let scene = Scene::new()?;
    let jail = kept(&scene).await?;
    let mark = mark(4);
    for _ in 0..20 {
        let spec = shell(&format!("sleep {mark}"));
        let mut starting = Box::pin(jail.start(&spec));
        // It is asked for, and given up before the answer can be there.
        let waker = std::task::Waker::noop();
        let polled = starting
            .as_mut()
            .poll(&mut std::task::Context::from_waker(waker));
        assert!(polled.is_pending());
        drop(starting);
    }
    // Asked for after them, it is started after them.
    assert_eq!(output(&jail, "echo on").await?.stdout, "on\n");
    becomes_true("none is left", || marked(&mark).is_empty()).await
}
