//! Paths of the workspace that no commit changes, whichever way their directories are turned.

use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;
use serde::Serialize;

use super::super::{BENEATH, open_beneath};
use super::{Change, ChangesError, Kind, What, Workspace, tree};

/// Files and directories that stay as they are, with everything below them, such as `.git/hooks` or `.mcp.json`. Upper and lower case
/// are not told apart, because some file systems do not either.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Protected {
    paths: Vec<PathBuf>,
}

impl Protected {
    /// Protects these paths, relative to the workspace's root, whether or not they exist.
    ///
    /// # Errors
    /// An absolute path, an empty one, or one with `..` or a NUL.
    pub fn new<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, ChangesError> {
        let mut kept = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let mut clean = PathBuf::new();
            for component in path.components() {
                match component {
                    Component::Normal(name) => clean.push(name),
                    Component::CurDir => {}
                    _ => return Err(ChangesError::NotProtectable(path.display().to_string())),
                }
            }
            if clean.as_os_str().is_empty() || clean.as_os_str().as_bytes().contains(&0) {
                return Err(ChangesError::NotProtectable(path.display().to_string()));
            }
            kept.push(clean);
        }
        Ok(Self { paths: kept })
    }

    /// The paths, relative to the workspace's root.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Whether it is one of them, or below one.
    pub fn contains(&self, path: &Path) -> bool {
        self.paths
            .iter()
            .any(|protected| path.starts_with(protected))
    }

    /// The same with the places that protected paths lead to through links of the workspace.
    pub(super) fn resolved(&self, workspace: &Workspace) -> Self {
        let mut paths = self.paths.clone();
        let real = |directory: &dyn AsRawFd| {
            std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()
        };
        let root = real(&workspace.directory());
        for path in &self.paths {
            if let Ok(place) = open_beneath(workspace.directory(), path, OFlags::PATH, BENEATH)
                && let (Some(place), Some(root)) = (real(&place), &root)
                && let Ok(below) = place.strip_prefix(root)
                && !below.as_os_str().is_empty()
                && !paths.iter().any(|known| known == below)
            {
                paths.push(below.to_owned());
            }
        }
        Self { paths }
    }

    /// Whether a file written at `path` would be a protected one, or stand where the folder above one must be.
    pub fn forbids(&self, path: &Path, workspace: &Workspace) -> bool {
        let resolved = self.resolved(workspace);
        let mut paths = resolved.paths.iter();
        paths.any(|protected| begins_with(path, protected) || begins_with(protected, path))
    }

    /// Whether the change would change a protected path.
    pub(super) fn covers(&self, change: &Change, workspace: &Workspace) -> bool {
        self.paths.iter().any(|path| {
            if begins_with(&change.exact, path) {
                return true;
            }
            if !begins_with(path, &change.exact) {
                return false;
            }
            // A directory above a protected path: it may be made, or get other permissions. Anything else that takes its name
            // decides what stands at the protected path.
            match (change.kind, change.what) {
                (Kind::Created | Kind::Modified, What::Directory) => false,
                (Kind::Deleted, What::Directory) => exists(workspace, path),
                _ => true,
            }
        })
    }
}

fn begins_with(path: &Path, beginning: &Path) -> bool {
    let mut names = path.components();
    beginning.components().all(|wanted| {
        names.next().is_some_and(|name| {
            let (name, wanted) = (name.as_os_str(), wanted.as_os_str());
            name.as_bytes().eq_ignore_ascii_case(wanted.as_bytes())
        })
    })
}

/// Whether something stands there; what cannot be told counts as something.
fn exists(workspace: &Workspace, path: &Path) -> bool {
    use rustix::io::Errno;
    !matches!(
        tree::look(workspace.directory(), path),
        Ok(None) | Err(Errno::NOTDIR)
    )
}
