//! Real overlay mounts, changed by real shells; each test runs as root and as an ordinary user.

mod committing;
mod hostile;
mod keeping;
mod telling;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::*;
use crate::policy::Access;

/// An uid and gid that own nothing.
const NOBODY: u32 = 65534;

struct Place {
    home: tempfile::TempDir,
    workspace: Workspace,
    overlay: Overlay,
    /// How `unshare` makes the namespace that the overlay is mounted in.
    namespace: &'static [&'static str],
}

impl Place {
    /// A workspace as `setup` makes it, an overlay of it, and beside them `outside/secret`.
    fn new(setup: &str) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let root = home.path().canonicalize()?.join("workspace");
        fs::create_dir(&root)?;
        fs::create_dir(home.path().join("seen"))?;
        fs::create_dir(home.path().join("outside"))?;
        fs::write(home.path().join("outside/secret"), "secret")?;
        shell(&root, setup)?;
        let workspace = Workspace::open(&root, Access::ReadWrite)?;
        let overlay = Overlay::create(&home.path().join("overlay"), &workspace)?;
        Ok(Self {
            home,
            workspace,
            overlay,
            namespace: &["--user", "--map-root-user", "--mount"],
        })
    }

    fn root(&self) -> &Path {
        self.workspace.root()
    }

    fn upper(&self) -> PathBuf {
        self.home.path().join("overlay/upper")
    }

    fn outside(&self) -> PathBuf {
        self.home.path().join("outside")
    }

    /// Runs the script in the overlay, mounted as a jail does it.
    fn run(&self, script: &str) -> anyhow::Result<()> {
        let options = "lowerdir=workspace,upperdir=overlay/upper,workdir=overlay/work,\
             redirect_dir=nofollow,metacopy=off,index=off,userxattr";
        let output = Command::new("unshare")
            .args(self.namespace)
            .args(["sh", "-c"])
            .arg(format!(
                "mount -t overlay overlay -o {options} seen || exit 99\ncd seen && set -e\n{script}"
            ))
            .current_dir(self.home.path())
            .output()
            .context("this test needs `unshare` of util-linux")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() != Some(99) && !said.starts_with("unshare:"),
            "this test needs overlay mounts in a user namespace, which this host refuses: {said}"
        );
        ensure!(output.status.success(), "the script failed: {said}");
        Ok(())
    }

    /// Each change as `kind what path`.
    fn told(&self) -> anyhow::Result<Vec<String>> {
        let listing = self.overlay.list(&self.workspace, None, 1000)?;
        ensure!(listing.complete && listing.omitted == 0, "not all is told");
        Ok(listing.changes.iter().map(line).collect())
    }

    fn commit(&mut self) -> anyhow::Result<Committed> {
        self.commit_with(&[], false)
    }

    fn commit_with(&mut self, protected: &[&str], force: bool) -> anyhow::Result<Committed> {
        let protected = Protected::new(protected)?;
        let commit = Commit {
            paths: None,
            protected: &protected,
            expect: None,
            force,
        };
        Ok(self.overlay.commit(&self.workspace, &commit, |_| Ok(()))?)
    }

    fn read(&self, path: &str) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.root().join(path))?)
    }
}

fn line(change: &Change) -> String {
    let Change {
        kind, what, path, ..
    } = change;
    let blocked = match change.blocked {
        Some(reason) => format!(" {reason:?}"),
        None => String::new(),
    };
    format!("{kind:?} {what:?} {path}{blocked}")
}

fn skipped(committed: &Committed) -> Vec<String> {
    let lines = committed.skipped.iter();
    lines
        .map(|skipped| format!("{:?} {}", skipped.reason, skipped.path))
        .collect()
}

fn shell(directory: &Path, script: &str) -> anyhow::Result<()> {
    let output = Command::new("sh")
        .args(["-c", &format!("set -e\n{script}")])
        .current_dir(directory)
        .output()?;
    if !output.status.success() {
        bail!("{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Everything below a directory: type, permissions, and content or target.
fn snapshot(directory: &Path) -> anyhow::Result<BTreeMap<PathBuf, (u32, Vec<u8>)>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(directory_now) = todo.pop() {
        for entry in fs::read_dir(directory_now)? {
            let path = entry?.path();
            let metadata = path.symlink_metadata()?;
            let content = if metadata.is_symlink() {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else if metadata.is_dir() {
                todo.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path)?
            };
            let below = path.strip_prefix(directory)?.to_owned();
            found.insert(below, (metadata.mode(), content));
        }
    }
    Ok(found)
}

/// Whether the tests are root's; then all of them are run once more by an ordinary user.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn an_ordinary_user_has_the_same_results() -> anyhow::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let home = tempfile::tempdir()?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let tests = home.path().join("tests");
    fs::copy(std::env::current_exe()?, &tests)?;
    fs::set_permissions(&tests, fs::Permissions::from_mode(0o755))?;
    let temporary = home.path().join("temporary");
    fs::create_dir(&temporary)?;
    chown(&temporary, Some(NOBODY), Some(NOBODY))?;
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&tests)
        .args(["workspace::changes::", "--skip", "an_ordinary_user"])
        .env("TMPDIR", &temporary)
        .current_dir(&temporary)
        .output()
        .context("this test needs `setpriv` of util-linux")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "as an ordinary user: {said}");
    ensure!(!said.contains(" 0 passed"), "no test ran: {said}");
    Ok(())
}
