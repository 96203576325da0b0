//! Nothing of a jail outlives its jail, and no jail outlives its server.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use mcp_bash_commander::jail::{Launcher, Reach};

use crate::support::{KilledOnDrop, Scene, becomes_true, first_line, is_gone, marked, probe};

/// Daemons by every trick of the shell, whose command lines end in `mark`.
fn daemons(mark: &str) -> String {
    format!(
        "sleep {mark} & nohup sleep {mark} >/dev/null 2>&1 & setsid sleep {mark} & \
         (setsid sh -c 'sleep {mark} & sleep {mark}' &) ; sleep 0.1; echo ready; sleep {mark}"
    )
}

/// A number of seconds that stands in no other command line.
fn mark(number: u32) -> String {
    format!("8{number}{}", std::process::id())
}

#[tokio::test]
async fn killing_a_jail_ends_every_daemon_in_it() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mark = mark(1);
    let mut process = scene
        .launcher
        .run(scene.spec(["/bin/sh", "-c", &daemons(&mark)])?)
        .await?;
    first_line(&mut process).await?;
    assert!(marked(&mark).len() >= 5, "{:?}", marked(&mark));
    process.jail.kill()?;
    process.jail.finished().await;
    becomes_true("no daemon is left", || marked(&mark).is_empty()).await?;
    assert_eq!(process.command.wait().await.signal, Some(libc::SIGKILL));
    becomes_true("init was reaped", || is_gone(&process.jail)).await
}

#[tokio::test]
async fn the_end_of_the_command_ends_what_it_left_behind() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mark = mark(2);
    let mut spec = scene.spec([
        "/bin/sh",
        "-c",
        &format!("setsid sleep {mark} & sleep 0.05; exit 3"),
    ])?;
    spec.linger = std::time::Duration::from_millis(50);
    let process = scene.launcher.run(spec).await?;
    let exit = process.command.wait().await;
    assert_eq!((exit.code, exit.left_running), (Some(3), 1));
    process.jail.finished().await;
    becomes_true("nothing is left", || marked(&mark).is_empty()).await
}

#[tokio::test]
async fn dropping_the_last_handle_kills_the_jail() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mark = mark(3);
    let mut process = scene
        .launcher
        .run(scene.spec(["/bin/sh", "-c", &daemons(&mark)])?)
        .await?;
    first_line(&mut process).await?;
    assert!(!marked(&mark).is_empty());
    drop(process);
    becomes_true("nothing is left", || marked(&mark).is_empty()).await
}

#[tokio::test]
async fn signals_reach_the_command_or_everybody_in_the_jail_and_nobody_else() -> anyhow::Result<()>
{
    let scene = Scene::new()?;
    let command = "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut process = scene
        .launcher
        .run(scene.spec(["/bin/sh", "-c", command])?)
        .await?;
    first_line(&mut process).await?;
    process.command.signal(libc::SIGTERM, Reach::Group)?;
    assert_eq!(process.command.wait().await.code, Some(7));

    let mark = mark(4);
    let mut process = scene
        .launcher
        .run(scene.spec(["/bin/sh", "-c", &daemons(&mark)])?)
        .await?;
    first_line(&mut process).await?;
    process.command.signal(libc::SIGKILL, Reach::Jail)?;
    assert_eq!(process.command.wait().await.signal, Some(libc::SIGKILL));
    becomes_true("nothing is left", || marked(&mark).is_empty()).await
}

#[tokio::test]
async fn a_killed_server_leaves_no_process_of_any_jail() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mark = mark(5);
    let mut server = KilledOnDrop(
        Command::new(probe())
            .arg("serve")
            .arg(scene.path())
            .arg(daemons(&mark))
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut line = String::new();
    BufReader::new(
        server
            .0
            .stdout
            .take()
            .ok_or_else(|| anyhow::anyhow!("no output"))?,
    )
    .read_line(&mut line)?;
    // The mark also stands in the command lines of the server and of the shell.
    becomes_true("the daemons run", || marked(&mark).len() >= 6).await?;
    let launchers = children(server.0.id())?;
    assert_eq!(launchers.len(), 1);
    drop(server);
    becomes_true("nothing is left", || marked(&mark).is_empty()).await?;
    becomes_true("the launcher is gone", || {
        launchers
            .iter()
            .all(|launcher| !std::path::Path::new(&format!("/proc/{launcher}")).exists())
    })
    .await
}

#[tokio::test]
async fn a_killed_launcher_takes_its_jails_along_and_the_next_call_works() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mark = mark(6);
    let mut process = scene
        .launcher
        .run(scene.spec(["/bin/sh", "-c", &daemons(&mark)])?)
        .await?;
    first_line(&mut process).await?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.jail.identity().pid))?;
    let launcher = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap_or_default()
        .trim()
        .to_owned();
    Command::new("kill").args(["-KILL", &launcher]).status()?;
    process.jail.finished().await;
    assert_eq!(process.command.wait().await.signal, Some(libc::SIGKILL));
    becomes_true("nothing is left", || marked(&mark).is_empty()).await?;
    assert_eq!(scene.shell("echo again").await?.stdout, "again\n");
    Ok(())
}

#[tokio::test]
async fn a_launcher_that_cannot_start_is_an_error() {
    assert!(Launcher::start_from("/no/such/program".as_ref()).is_err());
}

#[tokio::test]
async fn many_jails_one_after_the_other_leave_nothing_open() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let open = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    scene.shell("true").await?;
    let before = open();
    for _ in 0..50 {
        assert_eq!(scene.shell("exit 4").await?.exit.code, Some(4));
    }
    becomes_true("all descriptors are closed", || open() <= before + 8).await
}

#[tokio::test]
async fn many_jails_at_once_do_not_disturb_each_other() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut running = Vec::new();
    for number in 0..30 {
        running.push(
            scene
                .launcher
                .run(scene.spec(["/bin/sh", "-c", &format!("echo {number}; exit {number}")])?)
                .await?,
        );
    }
    for (number, process) in (0..).zip(running) {
        let output = crate::support::finish(process).await?;
        assert_eq!(
            (output.stdout, output.exit.code),
            (format!("{number}\n"), Some(number))
        );
    }
    Ok(())
}

/// The processes that `parent` started, from whichever of its threads.
fn children(parent: u32) -> anyhow::Result<Vec<i32>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that ends meanwhile has no parent any more.
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.contains(&format!("PPid:\t{parent}\n")) {
            children.push(pid);
        }
    }
    Ok(children)
}
