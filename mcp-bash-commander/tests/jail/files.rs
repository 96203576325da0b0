//! Files between a command and the host: protected paths, strange names, and what changes on the host meanwhile.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use mcp_bash_commander::jail::{Access, CommandSpec, Jail, Lifetime, Workspace};

use crate::support::{PLACE, Scene, finish};

/// The outcome of a shell command in a kept jail.
async fn told(jail: &Jail, command: &str) -> anyhow::Result<String> {
    let mut spec = CommandSpec::new(["/bin/sh", "-c", command]);
    spec.cwd = PLACE.into();
    Ok(finish(jail.start(&spec).await?).await?.stdout)
}

#[tokio::test]
async fn a_protected_path_is_not_written_nor_moved_nor_rebuilt_by_way_of_its_parent()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    let git = scene.path().join(".git");
    std::fs::create_dir_all(git.join("hooks"))?;
    std::fs::write(git.join("hooks/pre-commit"), "kept")?;
    std::fs::write(git.join("config"), "kept")?;
    let attack = "exec 2>&1
        for protected in .git/hooks/pre-commit .git/hooks/new .git/config; do
            echo planted > $protected && echo wrote $protected
        done
        ln -sf /tmp/x .git/config && echo linked
        rm -rf .git/hooks .git/config; mv .git/hooks .git/h && echo moved hooks
        mv .git g && mkdir -p .git/hooks && echo rebuilt
        mv .git/config .git/c && echo moved config
        echo free > .git/index && echo index";
    let output = scene.shell(attack).await?;
    assert!(
        output.stdout.contains("\nrebuilt") || output.stdout.contains("wrote"),
        "the control: {}",
        output.stdout
    );

    std::fs::remove_dir_all(scene.path().join(".git"))?;
    std::fs::create_dir_all(git.join("hooks"))?;
    std::fs::write(git.join("hooks/pre-commit"), "kept")?;
    std::fs::write(git.join("config"), "kept")?;
    let mut spec = scene.spec(["/bin/sh", "-c", attack])?;
    spec.protected = vec![".git/hooks".into(), ".git/config".into()];
    let output = scene.output(spec).await?;
    let done: Vec<_> = output
        .stdout
        .lines()
        .filter(|line| !line.contains(": "))
        .collect();
    assert_eq!(done, ["index"], "{}", output.stdout);
    for path in ["hooks/pre-commit", "config"] {
        assert_eq!(std::fs::read_to_string(git.join(path))?, "kept", "{path}");
    }
    assert_eq!(std::fs::read_dir(git.join("hooks"))?.count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_workspace_of_any_name_is_the_one_that_was_named() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let long = "x".repeat(255);
    let names: [OsString; 8] = [
        "*".into(),
        "[a".into(),
        "a\nb".into(),
        " ".into(),
        "$(touch made)".into(),
        "-rf".into(),
        long.into(),
        OsString::from_vec(vec![0xFF, b',', b':', b'=', b'\\']),
    ];
    for name in names {
        let source = scene.path().join(&name);
        std::fs::create_dir(&source)?;
        std::fs::write(source.join("which"), name.as_encoded_bytes())?;
        let mut target = OsString::from("/w/");
        target.push(&name);
        for target in ["/w".into(), target] {
            let mut spec = scene.spec(["cat", "which"])?;
            spec.command.cwd = (&target).into();
            spec.workspace = Some(Workspace::open(&source, target.as_ref(), Access::ReadOnly)?);
            let output = scene.output(spec).await?;
            assert_eq!(output.stdout, name.to_string_lossy(), "{target:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_the_host_replaces_is_seen_at_once_and_can_be_worked_with() -> anyhow::Result<()>
{
    let scene = Scene::new()?;
    std::fs::write(scene.path().join("file"), "old")?;
    let mut spec = scene.spec(["true"])?;
    spec.lifetime = Lifetime::Kept;
    let jail = scene.launcher.run(spec).await?.jail;
    assert_eq!(told(&jail, "cat file").await?, "old");
    std::fs::write(scene.path().join("next"), "new")?;
    std::fs::rename(scene.path().join("next"), scene.path().join("file"))?;
    assert_eq!(
        told(&jail, "cat file && echo more >> file && cat file").await?,
        "newnewmore\n"
    );
    Ok(())
}
