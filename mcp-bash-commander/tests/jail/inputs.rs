//! Pinned inputs, standard input, arguments and output.

use std::path::Path;

use mcp_bash_commander::jail::{Access, JailError, Layer, PinnedInput, Stdin, Workspace};

use crate::support::{PLACE, Scene};

fn pinned(path: &str, content: &str) -> Result<PinnedInput, JailError> {
    PinnedInput::seal(&Path::new(PLACE).join(path), content.as_bytes(), 1 << 20)
}

#[tokio::test]
async fn a_pinned_input_has_the_hashed_bytes_and_cannot_be_changed_or_moved_away()
-> anyhow::Result<()> {
    let scene = Scene::new()?;
    std::fs::create_dir_all(scene.path().join("site/deep"))?;
    std::fs::write(
        scene.path().join("site/deep/page"),
        "changed after it was hashed",
    )?;
    std::fs::write(scene.path().join("site/other"), "free")?;
    let mut spec = scene.spec([
        "/bin/sh",
        "-c",
        "
        cat site/deep/page; echo
        (echo evil > site/deep/page) 2>/dev/null && echo written
        rm -f site/deep/page 2>/dev/null && echo removed
        chmod 777 site/deep/page 2>/dev/null && echo chmodded
        mv site away 2>/dev/null && echo moved
        mv site/deep site/away 2>/dev/null && echo moved deep
        echo x > site/other && cat site/other site/deep/page; ls -A /",
    ])?;
    spec.inputs = vec![pinned("site/deep/page", "hashed")?];
    let output = scene.output(spec).await?;
    assert_eq!(
        output.stdout,
        "hashed\nx\nhashedbin\ndev\netc\nlib\nlib64\nproc\nsbin\ntmp\nusr\nw\n".replace(
            "lib64\n",
            if Path::new("/lib64").exists() {
                "lib64\n"
            } else {
                ""
            }
        ),
        "{}",
        output.stderr
    );
    assert_eq!(
        std::fs::read_to_string(scene.path().join("site/deep/page"))?,
        "changed after it was hashed"
    );
    Ok(())
}

#[tokio::test]
async fn an_input_without_its_file_or_behind_a_link_is_refused() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    std::fs::write(scene.path().join("real"), "")?;
    std::os::unix::fs::symlink("real", scene.path().join("link"))?;
    for path in ["missing", "link", "../etc/passwd", "."] {
        let mut spec = scene.spec(["true"])?;
        spec.inputs = vec![pinned(path, "x")?];
        let refused = scene.launcher.run(spec).await.err();
        assert!(
            matches!(
                refused,
                Some(JailError::Layer {
                    layer: Layer::PinnedInputs,
                    ..
                })
            ),
            "{path}: {refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn standard_input_is_the_given_bytes_or_nothing() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    assert_eq!(scene.shell("wc -c").await?.stdout.trim(), "0");
    let mut spec = scene.spec(["cat"])?;
    spec.command.stdin = Stdin::Bytes(vec![b'x'; 300_000]);
    assert_eq!(scene.output(spec).await?.stdout.len(), 300_000);
    Ok(())
}

#[tokio::test]
async fn arguments_reach_the_program_unchanged() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let output = scene
        .output(scene.spec(["printf", "<%s>", "a b", "$(id)", "*", "", "\n", "'"])?)
        .await?;
    assert_eq!(output.stdout, "<a b><$(id)><*><><\n><'>");
    Ok(())
}

#[tokio::test]
async fn all_output_arrives_before_its_end() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    for _ in 0..20 {
        assert_eq!(
            scene.shell("seq 1 20000 | tail -1").await?.stdout,
            "20000\n"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_a_left_behind_process_still_writes_is_not_lost() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let output = scene.shell("(sleep 0.1; echo late) & echo early").await?;
    assert_eq!(output.stdout, "early\nlate\n");
    assert_eq!(
        (output.exit.code, output.exit.left_running > 0),
        (Some(0), true)
    );
    Ok(())
}

#[tokio::test]
async fn a_read_only_workspace_takes_no_change() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.spec(["/bin/sh", "-c", "echo x > made || ls"])?;
    spec.workspace = Some(Workspace::open(
        scene.path(),
        PLACE.as_ref(),
        Access::ReadOnly,
    )?);
    assert_eq!(scene.output(spec).await?.stdout, "probe\n");
    assert!(!scene.path().join("made").exists());
    Ok(())
}

#[tokio::test]
async fn the_workspace_can_be_worked_in() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let output = scene
        .shell("mkdir -p a/b && echo 1 > a/b/c && mv a/b/c d && ln -s d l && ln d h && rm -r a && chmod 755 d && touch -d 2020-01-01 d && cat l h")
        .await?;
    assert_eq!(
        (output.stdout.as_str(), output.exit.code),
        ("1\n1\n", Some(0)),
        "{}",
        output.stderr
    );
    Ok(())
}
