//! The files of the workspace that nobody may read, as they are now, for a jail to close.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

use super::{BENEATH, NO_LINKS, Workspace, WorkspaceError, open_beneath, unresolved};
use crate::jail::Masked;

/// Most entries of the workspace that are looked at.
const MOST_ENTRIES: usize = 200_000;
/// Most paths that are closed; each is a mount.
const MOST_CLOSED: usize = 1000;
const DEEPEST: usize = 64;

/// An open folder, and the names and kinds of what it holds.
pub(super) type Listing = (OwnedFd, Vec<(PathBuf, FileType)>);

impl Workspace {
    /// The paths that `is_closed` says yes to, without what is below a closed folder. Where one is a link, what it leads to inside the
    /// workspace is closed with it.
    ///
    /// # Errors
    /// A workspace with more entries or closed paths than can be looked at: then no command can be run in it.
    pub fn closed(&self, is_closed: &dyn Fn(&Path) -> bool) -> Result<Vec<Masked>, WorkspaceError> {
        let mut closed: Vec<Masked> = Vec::new();
        let mut looked_at = 0;
        let mut folders = vec![(PathBuf::new(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let entries = match self.listing(&folder) {
                Ok(listing) => listing.map(|(_, entries)| entries),
                // A command can close a folder to this server, and open it again in the next jail.
                Err(error) if is_closed_to_us(&error) && !folder.as_os_str().is_empty() => {
                    closed.push(Masked {
                        path: folder,
                        is_directory: true,
                    });
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (name, kind) in entries.into_iter().flatten() {
                looked_at += 1;
                if looked_at > MOST_ENTRIES || closed.len() > MOST_CLOSED {
                    return Err(WorkspaceError::TooMuchToClose {
                        entries: MOST_ENTRIES,
                        closed: MOST_CLOSED,
                    });
                }
                let path = folder.join(name);
                if is_closed(&path) {
                    closed.extend(self.masked(&path, kind));
                } else if kind == FileType::Directory && depth < DEEPEST {
                    folders.push((path, depth + 1));
                }
            }
        }
        closed.sort();
        closed.dedup();
        Ok(closed)
    }

    fn masked(&self, path: &Path, kind: FileType) -> Option<Masked> {
        match kind {
            FileType::Symlink => {
                let target = open_beneath(self.directory(), path, OFlags::PATH, BENEATH).ok()?;
                let stat = rustix::fs::fstat(&target).ok()?;
                let real =
                    std::fs::read_link(format!("/proc/self/fd/{}", target.as_raw_fd())).ok()?;
                let path = real.strip_prefix(&self.root).ok()?.to_owned();
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                (!path.as_os_str().is_empty()).then_some(Masked { path, is_directory })
            }
            kind => Some(Masked {
                path: path.to_owned(),
                is_directory: kind == FileType::Directory,
            }),
        }
    }

    /// A folder with names and kinds of what it holds; none that is gone.
    pub(super) fn listing(&self, folder: &Path) -> Result<Option<Listing>, WorkspaceError> {
        let place = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened: Result<OwnedFd, Errno> = open_beneath(self.directory(), place, flags, NO_LINKS);
        let directory = match opened {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return Ok(None);
            }
            Err(errno) => return Err(unresolved("open", folder)(errno)),
        };
        let listing = Dir::read_from(directory.as_fd()).map_err(unresolved("list", folder))?;
        let mut entries = Vec::new();
        for entry in listing {
            let entry = entry.map_err(unresolved("list", folder))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let name = PathBuf::from(OsStr::from_bytes(name));
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    rustix::fs::statat(&directory, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                        .map_or(FileType::Unknown, |stat| {
                            FileType::from_raw_mode(stat.st_mode)
                        })
                }
                kind => kind,
            };
            entries.push((name, kind));
        }
        Ok(Some((directory, entries)))
    }
}

/// Whether a folder cannot be looked into for want of permission.
pub(super) fn is_closed_to_us(error: &WorkspaceError) -> bool {
    matches!(error, WorkspaceError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Access, Hidden};

    #[test]
    fn closed_files_and_folders_are_found_and_so_is_what_a_closed_link_leads_to()
    -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir_all(at("a/secrets/deep"))?;
        for file in ["a/.env", "a/secrets/deep/.env", "plain", "real"] {
            std::fs::write(at(file), "x")?;
        }
        std::os::unix::fs::symlink("../real", at("a/key.pem"))?;
        std::os::unix::fs::symlink("/etc/passwd", at("out.pem"))?;
        let hidden = Hidden::new(["**/.env", "secrets/", "*.pem"].map(str::to_owned).to_vec())
            .map_err(anyhow::Error::msg)?;
        let root = home.path().canonicalize()?;
        let workspace = Workspace::open(&root, Access::ReadWrite)?;
        let closed: Vec<_> = workspace
            .closed(&|path| hidden.covers(path))?
            .into_iter()
            .map(|masked| (masked.path.display().to_string(), masked.is_directory))
            .collect();
        let expected = [("a/.env", false), ("a/secrets", true), ("real", false)];
        assert_eq!(
            closed,
            expected.map(|(path, folder)| (path.to_owned(), folder))
        );
        Ok(())
    }
}
