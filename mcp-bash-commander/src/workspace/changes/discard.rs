//! Throwing changes away, out of a directory that a command filled as it liked.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::Serialize;

use super::baseline::Baseline;
use super::tree::{self, Unremoved};
use super::{ChangesError, Overlay, Workspace, io_failed};

/// What was thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Discarded {
    /// Entries removed from the overlay, deletion marks included.
    pub entries: u64,
}

impl Overlay {
    /// Removes what is at or below the paths from the overlay, so that the workspace's own entries show again. Without paths
    /// everything goes, and the overlay counts as made now.
    ///
    /// # Errors
    /// A path that is none, one within a directory that was replaced as a whole, or a system that refuses.
    pub fn discard(
        &mut self,
        workspace: &Workspace,
        paths: Option<&[String]>,
    ) -> Result<Discarded, ChangesError> {
        self.check_workspace(workspace)?;
        let Some(paths) = paths else {
            let entries = self.empty()?;
            self.baseline = Baseline::now(self.baseline.workspace);
            let saved = self.baseline.save(self.directory.as_fd());
            saved.map_err(super::failed("save", &self.path))?;
            return Ok(Discarded { entries });
        };
        let mut entries = 0;
        let mut wanted: Vec<PathBuf> = Vec::with_capacity(paths.len());
        for path in paths {
            let path = workspace.relative(path)?;
            self.check_discardable(workspace, &path)?;
            wanted.push(path);
        }
        for path in &wanted {
            if let Some((above, name)) = tree::split(path) {
                entries += self.remove(above, &name)?;
            }
        }
        Ok(Discarded { entries })
    }

    /// Removes everything a command left; how many entries.
    ///
    /// # Errors
    /// A system that refuses.
    pub(crate) fn empty(&self) -> Result<u64, ChangesError> {
        let mut entries = 0;
        // A command still running could fill it for ever.
        for _ in 0..tree::MAX_ROUNDS {
            let (names, all) = tree::names(self.upper(), tree::PER_ROUND)
                .map_err(io_failed("list", Path::new("upper")))?;
            for name in &names {
                entries += self.remove(Path::new(""), Path::new(name))?;
            }
            if all {
                break;
            }
        }
        Ok(entries)
    }

    fn remove(&self, above: &Path, name: &Path) -> Result<u64, ChangesError> {
        let path = above.join(name);
        let folder = match tree::pin_directory(self.upper(), above) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(0),
            Err(errno) => return Err(io_failed("enter", above)(errno)),
        };
        match tree::remove(folder.as_fd(), name.as_os_str(), &|_| true) {
            Ok(removed) => Ok(removed),
            Err(Unremoved::System(errno)) => Err(io_failed("remove", &path)(errno)),
            Err(Unremoved::Kept) => Ok(0),
        }
    }

    /// Within a replaced directory nothing of the workspace shows, so removing an entry would delete the workspace's.
    fn check_discardable(&self, workspace: &Workspace, path: &Path) -> Result<(), ChangesError> {
        let stands_below = !matches!(
            tree::look(workspace.directory(), path),
            Ok(None) | Err(Errno::NOTDIR)
        );
        if !stands_below {
            return Ok(());
        }
        for above in path.ancestors().skip(1) {
            if above.as_os_str().is_empty() {
                break;
            }
            let Ok(directory) = tree::open_directory(self.upper(), above) else {
                continue;
            };
            let opaque =
                tree::mark(directory.as_fd(), "opaque").map_err(io_failed("look at", above))?;
            if opaque == Some(b'y') {
                return Err(ChangesError::WithinReplaced {
                    path: path.display().to_string(),
                    directory: above.display().to_string(),
                });
            }
        }
        Ok(())
    }
}
