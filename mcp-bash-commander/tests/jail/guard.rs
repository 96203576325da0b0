//! Pinned and protected paths whose guard is taken away from outside: no further command starts, and a running one is told of.

use mcp_bash_commander::jail::{CommandSpec, Jail, JailError, Layer, Lifetime, PinnedInput};

use crate::support::{PLACE, Scene, finish, first_line};

fn shell(command: &str) -> CommandSpec {
    let mut spec = CommandSpec::new(["/bin/sh", "-c", command]);
    spec.cwd = PLACE.into();
    spec
}

/// A kept jail with these protected paths and, if there is one, this pinned input.
async fn guarded(scene: &Scene, protected: &[&str], pinned: Option<&str>) -> anyhow::Result<Jail> {
    let mut spec = scene.spec(["true"])?;
    spec.protected = protected.iter().map(Into::into).collect();
    let target = |name| std::path::Path::new(PLACE).join(name);
    let inputs = pinned.map(|name| PinnedInput::seal(&target(name), &b"hashed"[..], 99));
    spec.inputs = inputs.into_iter().collect::<Result<_, _>>()?;
    spec.lifetime = Lifetime::Kept;
    Ok(scene.launcher.run(spec).await?.jail)
}

async fn is_refused(jail: &Jail) -> bool {
    matches!(
        jail.start(&shell("true")).await,
        Err(JailError::Layer {
            layer: Layer::Workspace,
            errno: libc::ESTALE,
            ..
        })
    )
}

#[tokio::test]
async fn what_runs_when_the_host_replaces_a_protected_path_is_ended_and_nothing_more_runs()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    let git = scene.path().join(".git");
    std::fs::create_dir_all(git.join("hooks"))?;
    std::fs::write(git.join("config"), "old")?;
    let jail = guarded(&scene, &[".git/hooks", ".git/config"], None).await?;
    let mut running = jail.start(&shell("echo ready; sleep 1000")).await?;
    first_line(&mut running).await?;
    // As git itself changes its files.
    std::fs::write(git.join("config.lock"), "new")?;
    std::fs::rename(git.join("config.lock"), git.join("config"))?;
    let command = running.command.clone();
    assert_eq!(finish(running).await?.exit.signal, Some(libc::SIGKILL));
    assert_eq!(command.replaced(), [std::path::Path::new("/w/.git/config")]);
    assert!(is_refused(&jail).await);
    Ok(())
}

#[tokio::test]
async fn a_session_in_which_a_protected_path_came_up_later_runs_nothing_more() -> anyhow::Result<()>
{
    let scene = Scene::new()?;
    let jail = guarded(&scene, &[".git/config"], None).await?;
    finish(jail.start(&shell("true")).await?).await?;
    std::fs::create_dir(scene.path().join(".git"))?;
    std::fs::write(scene.path().join(".git/config"), "new")?;
    assert!(is_refused(&jail).await);
    // When it is gone again, so is the reason.
    std::fs::remove_file(scene.path().join(".git/config"))?;
    assert!(!is_refused(&jail).await);
    Ok(())
}

#[tokio::test]
async fn a_pinned_input_that_another_jail_replaced_is_told_and_ends_the_session()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    std::fs::write(scene.path().join("input"), "on disk")?;
    let jail = guarded(&scene, &[], Some("input")).await?;
    let before = jail.start(&shell("cat input")).await?;
    let command = before.command.clone();
    assert_eq!(finish(before).await?.stdout, "hashed");
    assert!(command.replaced().is_empty());

    let mut running = jail.start(&shell("cat input; echo; sleep 1000")).await?;
    assert_eq!(first_line(&mut running).await?, "hashed");
    scene
        .shell("echo planted > other; mv -f other input")
        .await?;
    let command = running.command.clone();
    assert_eq!(finish(running).await?.exit.signal, Some(libc::SIGKILL));
    assert_eq!(command.replaced(), [std::path::Path::new("/w/input")]);
    assert!(is_refused(&jail).await);
    Ok(())
}
