//! Protected paths that are not there, and who wants them to stay so.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{NO_LINKS, Workspace, open_beneath};

/// What somebody wants to stay absent, and how many do. All paths are plain, so their texts can stand for them, which are faster to compare.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted(Arc<Mutex<BTreeMap<OsString, usize>>>);

/// A want that ends when it is dropped.
#[derive(Debug)]
struct Want {
    all: Wanted,
    paths: Vec<PathBuf>,
    /// Folders above them that are not there either: a folder may be made of the name, and nothing else, since that would decide what
    /// the protected path is.
    above: Vec<PathBuf>,
    /// Folders above them that are there: they may be removed, but nothing else than a folder may take their place.
    folders: Vec<PathBuf>,
    /// What is there and no folder where one of these folders would be.
    in_the_way: Vec<PathBuf>,
}

impl Drop for Want {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        for path in self.paths.iter().chain(&self.above) {
            let path = path.as_os_str();
            if let Some(count) = all.get_mut(path) {
                *count -= 1;
                if *count == 0 {
                    all.remove(path);
                }
            }
        }
    }
}

/// Protected paths that are not there, so that whatever comes up in their place can be found and put away. While a clone of it lives, a
/// path that came up all the same counts as absent for everybody else too: one jail made it, and no other may take it for the user's own.
#[derive(Debug, Clone)]
pub struct Absent(Arc<Want>);

/// Looks at one path after the other, and opens a folder only once for all that are looked at in it without a pause.
pub(super) struct Look<'a> {
    workspace: &'a Workspace,
    opened: Option<(&'a Path, Result<OwnedFd, Errno>)>,
}

impl<'a> Look<'a> {
    pub(super) fn at(workspace: &'a Workspace) -> Self {
        Self {
            workspace,
            opened: None,
        }
    }

    /// What kind of file a path names, without following a link there.
    fn kind(&mut self, path: &'a Path) -> Result<FileType, Errno> {
        let (above, name) = split(path)?;
        let folder = match above {
            None => self.workspace.directory(),
            Some(above) => {
                let is_open = matches!(&self.opened, Some((opened, _)) if *opened == above);
                let opened = match self.opened.take().filter(|_| is_open) {
                    Some(opened) => opened,
                    None => (above, self.workspace.look_into(above)),
                };
                let (_, folder) = self.opened.insert(opened);
                folder.as_ref().map_err(|errno| *errno)?.as_fd()
            }
        };
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    pub(super) fn is_there(&mut self, path: &'a Path) -> bool {
        !matches!(self.kind(path), Err(Errno::NOENT | Errno::NOTDIR))
    }

    pub(super) fn is_no_folder(&mut self, path: &'a Path) -> bool {
        self.kind(path)
            .is_ok_and(|kind| kind != FileType::Directory)
    }
}

/// Gives the owner of a folder, who this server is unless it is root, back what a command may have taken from him.
pub(super) fn reopen(folder: &OwnedFd) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(folder)?;
    let is_own = stat.st_uid == rustix::process::geteuid().as_raw();
    if !is_own || stat.st_mode & 0o700 == 0o700 {
        return Ok(());
    }
    let mode = Mode::from_raw_mode((stat.st_mode & 0o7777) | 0o700);
    // A descriptor that only names a folder cannot be used to change it, the path of that descriptor can.
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    rustix::fs::chmod(path, mode)
}

/// The folder of a path below the workspace, if it is not the workspace itself, and its name in there.
pub(super) fn split(path: &Path) -> Result<(Option<&Path>, &OsStr), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    Ok((above, name))
}

impl Absent {
    /// Whether this protected path is one of them.
    pub fn has(&self, path: &Path) -> bool {
        let is_it = |absent: &PathBuf| absent.as_os_str() == path.as_os_str();
        self.0.paths.iter().any(is_it)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.paths.iter().map(PathBuf::as_path)
    }

    /// Folders above them, whether they were there or not.
    pub(super) fn above(&self) -> impl Iterator<Item = &Path> {
        let above = self.0.above.iter().chain(&self.0.folders);
        above.map(PathBuf::as_path)
    }

    /// Files where a folder above one of them would be, as `.git` is one in a worktree: they decide what the protected path is, so they
    /// are to be protected themselves.
    pub fn in_the_way(&self) -> &[PathBuf] {
        &self.0.in_the_way
    }
}

impl Workspace {
    /// Those of the protected `paths` that are not there now, or that a jail made which still runs.
    pub fn absent(&self, paths: &[PathBuf]) -> Absent {
        let mut wanted = self.absent.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut look = Look::at(self);
        let mut paths: Vec<&Path> = paths
            .iter()
            .map(PathBuf::as_path)
            .filter(|path| wanted.contains_key(path.as_os_str()) || !look.is_there(path))
            .collect();
        // Those of one folder beside each other.
        paths.sort_by_key(|path| path.parent().map(Path::as_os_str));
        let mut above: Vec<&Path> = paths
            .iter()
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        above.sort_unstable_by_key(|path| path.as_os_str());
        above.dedup_by_key(|path| path.as_os_str());
        let (mut folders, mut in_the_way) = (Vec::new(), Vec::new());
        above.retain(|path| {
            if wanted.contains_key(path.as_os_str()) || !look.is_there(path) {
                return true;
            }
            if look.is_no_folder(path) {
                in_the_way.push(*path);
            } else {
                folders.push(*path);
            }
            false
        });
        for path in paths.iter().chain(&above) {
            match wanted.get_mut(path.as_os_str()) {
                Some(count) => *count += 1,
                None => drop(wanted.insert(path.as_os_str().to_owned(), 1)),
            }
        }
        let owned = |paths: Vec<&Path>| paths.into_iter().map(Path::to_owned).collect();
        Absent(Arc::new(Want {
            all: self.absent.clone(),
            paths: owned(paths),
            above: owned(above),
            folders: owned(folders),
            in_the_way: owned(in_the_way),
        }))
    }

    pub(super) fn look_into(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut so_far = PathBuf::new();
        let mut folder = Err(Errno::INVAL);
        for name in path.components() {
            so_far.push(name);
            let opened = open_beneath(self.directory(), &so_far, flags, NO_LINKS)?;
            reopen(&opened)?;
            folder = Ok(opened);
        }
        folder
    }
}
