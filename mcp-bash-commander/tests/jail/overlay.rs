//! A workspace behind an overlay: a command changes it as it likes, and the directory on the host stays as it was.

use std::fs;

use mcp_bash_commander::jail::{Access, JailSpec, Layer};
use mcp_bash_commander::policy;
use mcp_bash_commander::workspace::Workspace;
use mcp_bash_commander::workspace::changes::{Commit, Kind, Overlay, Protected};

use crate::support::{Scene, missing};

/// A workspace with an overlay that keeps its changes beside it.
struct Kept {
    scene: Scene,
    workspace: Workspace,
    overlay: Overlay,
    _state: tempfile::TempDir,
}

impl Kept {
    fn new() -> anyhow::Result<Self> {
        let scene = Scene::new()?;
        fs::write(scene.path().join("old"), "old\n")?;
        fs::create_dir_all(scene.path().join("folder/below"))?;
        fs::write(scene.path().join("folder/below/file"), "deep\n")?;
        let workspace = Workspace::open(scene.path(), policy::Access::ReadWrite)?;
        let state = tempfile::tempdir()?;
        let overlay = Overlay::create(&state.path().join("overlay"), &workspace)?;
        Ok(Self {
            scene,
            workspace,
            overlay,
            _state: state,
        })
    }

    fn spec(&self, command: &str) -> anyhow::Result<JailSpec> {
        let mut spec = self.scene.spec(["/bin/sh", "-c", command])?;
        spec.workspace = spec
            .workspace
            .map(|workspace| workspace.with_overlay(self.overlay.path()))
            .transpose()?;
        Ok(spec)
    }

    async fn shell(&self, command: &str) -> anyhow::Result<String> {
        let output = self.scene.output(self.spec(command)?).await?;
        Ok(output.stdout + &output.stderr)
    }

    fn changes(&self) -> anyhow::Result<Vec<(String, Kind)>> {
        let listing = self.overlay.list(&self.workspace, None, 100)?;
        Ok(listing
            .changes
            .into_iter()
            .map(|change| (change.path, change.kind))
            .collect())
    }
}

#[tokio::test]
async fn what_a_command_changes_is_kept_aside_and_listed_exactly() -> anyhow::Result<()> {
    let kept = Kept::new()?;
    let told = kept
        .shell("echo new > new; echo changed >> old; rm -r folder; cat old; ls; ls -A / | grep overlay")
        .await?;
    assert_eq!(told, "old\nchanged\nnew\nold\nprobe\n");
    let on_host = |path: &str| fs::read_to_string(kept.scene.path().join(path));
    assert_eq!(on_host("old")?, "old\n");
    assert_eq!(on_host("folder/below/file")?, "deep\n");
    assert!(on_host("new").is_err());
    assert_eq!(
        kept.changes()?,
        [
            ("folder".to_owned(), Kind::Deleted),
            ("new".to_owned(), Kind::Created),
            ("old".to_owned(), Kind::Modified),
        ]
    );
    // Another jail with the same overlay goes on from there.
    assert_eq!(kept.shell("cat new; ls").await?, "new\nnew\nold\nprobe\n");
    Ok(())
}

#[tokio::test]
async fn kept_changes_are_carried_over_and_belong_to_the_workspaces_owner() -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let mut kept = Kept::new()?;
    kept.shell("echo new > new; mkdir made; mv old made/moved; rm -r folder")
        .await?;
    let commit = Commit {
        paths: None,
        protected: &Protected::new(Vec::<&str>::new())?,
        expect: Some(&kept.overlay.digest(&kept.workspace, None)?),
        force: false,
    };
    let committed = kept.overlay.commit(&kept.workspace, &commit, |_| Ok(()))?;
    assert!(committed.skipped.is_empty(), "{committed:?}");
    let path = |name: &str| kept.scene.path().join(name);
    assert_eq!(fs::read_to_string(path("new"))?, "new\n");
    assert_eq!(fs::read_to_string(path("made/moved"))?, "old\n");
    assert!(!path("old").exists() && !path("folder").exists());
    assert_eq!(
        fs::metadata(path("made/moved"))?.uid(),
        fs::metadata(kept.scene.path())?.uid()
    );
    Ok(())
}

#[tokio::test]
async fn the_layer_is_named_and_everything_else_holds_behind_it() -> anyhow::Result<()> {
    let kept = Kept::new()?;
    let process = kept.scene.launcher.run(kept.spec("exit 0")?).await?;
    let layers = &process.jail.isolation().layers;
    assert!(layers.iter().any(|layer| layer == Layer::Overlay.name()));
    assert_eq!(missing(process.jail.isolation()), [""; 0]);
    let told = kept
        .shell("cp /bin/true s && chmod u+s s; mknod n c 1 3; python3 -c 'import socket; socket.socket(1).bind(\"sock\")'; stat -c %A s")
        .await?;
    assert!(told.contains("-rwxr-xr-x"), "{told}");
    for denied in ["chmod: changing", "mknod: n: Permission", "PermissionError"] {
        assert!(told.contains(denied), "{denied}: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn a_read_only_workspace_takes_changes_nowhere() -> anyhow::Result<()> {
    let kept = Kept::new()?;
    let mut spec = kept.spec("echo x > new; ls")?;
    spec.workspace = spec
        .workspace
        .map(|workspace| workspace.with_access(Access::ReadOnly));
    let output = kept.scene.output(spec).await?;
    assert_eq!(output.stdout, "folder\nold\nprobe\n");
    assert!(kept.changes()?.is_empty());
    Ok(())
}
