//! What cannot be made exactly as asked is refused, with the reason, and nothing runs.

use std::path::Path;

use mcp_bash_commander::jail::{
    Access, JailError, Layer, LayerStatus, Mode, Workspace, probe_layers,
};

use crate::support::{PLACE, Scene, missing};

#[tokio::test]
async fn a_missing_toolchain_path_is_named() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.spec(["touch", "ran"])?;
    spec.read_only.push("/no/such/toolchain".into());
    let Err(JailError::Layer {
        layer,
        detail,
        errno,
        ..
    }) = scene.launcher.run(spec).await
    else {
        anyhow::bail!("it ran");
    };
    assert_eq!(
        (layer, detail.as_str(), errno),
        (Layer::PrivateRoot, "/no/such/toolchain", libc::ENOENT)
    );
    assert!(!scene.path().join("ran").exists());
    Ok(())
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_of_its_own() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    std::fs::write(scene.path().join("plain"), "no program")?;
    for (program, expected) in [
        ("no-such-program", libc::ENOENT),
        ("./none", libc::ENOENT),
        ("./plain", libc::EACCES),
    ] {
        let Err(JailError::Program {
            program: named,
            errno,
        }) = scene.launcher.run(scene.spec([program])?).await
        else {
            anyhow::bail!("{program} ran");
        };
        assert_eq!((named.as_str(), errno), (program, expected));
    }
    Ok(())
}

#[tokio::test]
async fn a_working_directory_outside_is_refused_and_none_other_taken() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let outside = tempfile::tempdir()?;
    for cwd in [outside.path(), Path::new("/w/gone"), Path::new("/w/probe")] {
        let mut spec = scene.spec(["touch", "ran"])?;
        spec.command.cwd = cwd.to_owned();
        let refused = scene.launcher.run(spec).await.err();
        assert!(
            matches!(refused, Some(JailError::WorkingDirectory { .. })),
            "{cwd:?}: {refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_workspace_replaced_after_it_was_pinned_is_not_used() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let parent = tempfile::tempdir()?;
    let place = parent.path().join("workspace");
    std::fs::create_dir(&place)?;
    std::fs::write(place.join("which"), "pinned")?;
    let mut spec = scene.spec(["cat", "which"])?;
    spec.workspace = Some(Workspace::open(&place, PLACE.as_ref(), Access::ReadWrite)?);
    std::fs::rename(&place, parent.path().join("moved"))?;
    std::fs::create_dir(&place)?;
    std::fs::write(place.join("which"), "planted")?;
    match scene.launcher.run(spec).await {
        Ok(process) => assert_eq!(crate::support::finish(process).await?.stdout, "pinned"),
        Err(error) => assert!(
            matches!(
                error,
                JailError::Layer {
                    layer: Layer::Workspace,
                    ..
                }
            ),
            "{error:?}"
        ),
    }
    Ok(())
}

#[tokio::test]
async fn a_limit_above_the_hosts_own_is_refused() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let mut spec = scene.spec(["true"])?;
    spec.limits.open_files = 1 << 40;
    let refused = scene.launcher.run(spec).await.err();
    assert!(
        matches!(
            refused,
            Some(JailError::Layer {
                layer: Layer::Limits,
                ..
            })
        ),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn every_layer_is_there_and_none_is_missing() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    let process = scene.launcher.run(scene.spec(["true"])?).await?;
    let isolation = process.jail.isolation();
    assert_eq!(
        (isolation.mode, missing(isolation)),
        (Mode::Strict, Vec::new())
    );
    assert!(
        isolation
            .layers
            .iter()
            .any(|layer| layer.starts_with("landlock:"))
    );
    assert_ne!(isolation.kernel_uid, 0);
    let workspace = Workspace::open(scene.path(), PLACE.as_ref(), Access::ReadWrite)?;
    for report in probe_layers(&scene.launcher, Some(workspace)).await {
        assert!(
            report.status == LayerStatus::Applied
                || ["pinned_inputs", "overlay", "cgroup"].contains(&report.layer.as_str()),
            "{report:?}"
        );
    }
    Ok(())
}
