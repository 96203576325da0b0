//! Protected paths that a command made where there were none: found when it has ended, and put away.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{NO_LINKS, Workspace, open_beneath};

/// A protected path that was made and is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAway {
    /// Path below the workspace.
    pub path: PathBuf,
    /// Where it is now; the error's text if it could not be moved and is still there.
    pub to: Result<PathBuf, String>,
}

/// What somebody wants to stay absent, and how many do.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted(Arc<Mutex<BTreeMap<PathBuf, usize>>>);

/// A want that ends when it is dropped.
#[derive(Debug)]
struct Want {
    all: Wanted,
    paths: Vec<PathBuf>,
}

impl Drop for Want {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        for path in &self.paths {
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
pub struct Absent {
    #[expect(dead_code, reason = "held for its drop alone")]
    want: Arc<Want>,
    paths: Vec<PathBuf>,
    /// Folders above them that are not there either: a folder may be made of the name, and nothing else, since that would decide what
    /// the protected path is.
    above: Vec<PathBuf>,
}

/// Looks at one path after the other, and opens a folder only once for all that are looked at in it without a pause.
struct Look<'a> {
    workspace: &'a Workspace,
    opened: Option<(&'a Path, Result<OwnedFd, Errno>)>,
}

impl<'a> Look<'a> {
    fn at(workspace: &'a Workspace) -> Self {
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

    fn is_there(&mut self, path: &'a Path) -> bool {
        !matches!(self.kind(path), Err(Errno::NOENT | Errno::NOTDIR))
    }

    fn is_no_folder(&mut self, path: &'a Path) -> bool {
        self.kind(path)
            .is_ok_and(|kind| kind != FileType::Directory)
    }
}

/// Gives the owner of a folder, who this server is unless it is root, back what a command may have taken from him.
fn reopen(folder: &OwnedFd) -> Result<(), Errno> {
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

/// How deep a folder is looked through that is about to be moved.
const DEEPEST: usize = 64;

/// Removes the names of files below a folder that have others: what is moved out of the workspace must not make a file that stays there
/// look like one of somebody else's. Nothing is lost, the file has its other name.
fn remove_second_names(parent: BorrowedFd<'_>, name: &Path, depth: usize) -> Result<(), Errno> {
    if depth == DEEPEST {
        return Ok(());
    }
    let named = open_beneath(parent, name, OFlags::PATH | OFlags::DIRECTORY, NO_LINKS)?;
    reopen(&named)?;
    let folder = open_beneath(parent, name, OFlags::RDONLY | OFlags::DIRECTORY, NO_LINKS)?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => remove_second_names(folder.as_fd(), name, depth + 1)?,
            FileType::RegularFile if stat.st_nlink > 1 => {
                rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The folder of a path below the workspace, if it is not the workspace itself, and its name in there.
fn split(path: &Path) -> Result<(Option<&Path>, &OsStr), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    Ok((above, name))
}

impl Absent {
    /// Whether this protected path is one of them.
    pub fn has(&self, path: &Path) -> bool {
        self.paths.iter().any(|absent| absent == path)
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
            .filter(|path| wanted.contains_key(*path) || !look.is_there(path))
            .collect();
        // Those of one folder beside each other.
        paths.sort_by_key(|path| path.parent());
        let mut above: Vec<&Path> = paths
            .iter()
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        above.sort_unstable();
        above.dedup();
        above.retain(|path| wanted.contains_key(*path) || !look.is_there(path));
        let owned = |paths: Vec<&Path>| paths.into_iter().map(Path::to_owned).collect();
        let (paths, above): (Vec<PathBuf>, Vec<PathBuf>) = (owned(paths), owned(above));
        let all: Vec<PathBuf> = paths.iter().chain(&above).cloned().collect();
        for path in &all {
            *wanted.entry(path.clone()).or_default() += 1;
        }
        let want = Want {
            all: self.absent.clone(),
            paths: all,
        };
        Absent {
            want: Arc::new(want),
            paths,
            above,
        }
    }

    fn look_into(&self, path: &Path) -> Result<OwnedFd, Errno> {
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

    /// Moves those that are there now into `folder`, or beside themselves under another name where that is on another file
    /// system. Links are moved, not followed.
    pub fn put_away(&self, absent: &Absent, folder: &Path) -> Vec<PutAway> {
        let away = |path: &&Path| {
            let to = match self.move_away(path, folder) {
                // It was below one that was just moved.
                Err(Errno::NOENT | Errno::NOTDIR) => return None,
                to => to.map_err(|errno| errno.to_string()),
            };
            let path = path.to_path_buf();
            Some(PutAway { path, to })
        };
        let mut look = Look::at(self);
        let above = absent.above.iter().map(PathBuf::as_path);
        let above: Vec<&Path> = above.filter(|path| look.is_no_folder(path)).collect();
        let mut put_away: Vec<PutAway> = above.iter().filter_map(away).collect();
        // What was below one of them went with it.
        let mut look = Look::at(self);
        let paths = absent.paths.iter().map(PathBuf::as_path);
        let made: Vec<&Path> = paths.filter(|path| look.is_there(path)).collect();
        put_away.extend(made.iter().filter_map(away));
        put_away
    }

    fn move_away(&self, path: &Path, folder: &Path) -> Result<PathBuf, Errno> {
        let (above, name) = split(path)?;
        let parent = self.look_into(above.unwrap_or(Path::new(".")))?;
        let is_folder = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if is_folder {
            remove_second_names(parent.as_fd(), Path::new(name), 0)?;
        }
        let plain = name.to_string_lossy();
        let new = format!("{plain}.{:016x}", getrandom::u64().unwrap_or_default());
        let away = std::fs::create_dir_all(folder)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|()| {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(folder, flags, Mode::empty())
            })
            .and_then(|away| rustix::fs::renameat(parent.as_fd(), name, &away, new.as_str()));
        if away.is_ok() {
            return Ok(folder.join(new));
        }
        let beside = format!(".put-away-{new}");
        rustix::fs::renameat(parent.as_fd(), name, parent.as_fd(), beside.as_str())?;
        Ok(path.with_file_name(beside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Access;

    #[test]
    fn what_was_made_is_moved_and_what_was_there_stays() -> anyhow::Result<()> {
        let (home, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir(at(".git"))?;
        std::fs::write(at(".git/config"), "old")?;
        let workspace = Workspace::open(home.path(), Access::ReadWrite)?;
        let protected = [".git/config", ".git/hooks", ".vscode", ".mcp.json"];
        let absent = workspace.absent(&protected.map(PathBuf::from));
        std::fs::create_dir(at(".git/hooks"))?;
        std::fs::write(at(".git/hooks/pre-commit"), "evil")?;
        std::os::unix::fs::symlink("/etc/passwd", at(".mcp.json"))?;
        let put_away = workspace.put_away(&absent, &state.path().join("away"));
        assert_eq!(put_away.len(), 2);
        for entry in &put_away {
            let to = entry.to.clone().map_err(anyhow::Error::msg)?;
            assert!(to.symlink_metadata().is_ok(), "{entry:?}");
        }
        assert!(!at(".git/hooks").exists() && at(".mcp.json").symlink_metadata().is_err());
        assert_eq!(std::fs::read(at(".git/config"))?, b"old");
        assert_eq!(
            std::fs::read_dir(home.path())?.count(),
            1,
            "nothing else was left"
        );
        Ok(())
    }

    #[test]
    fn a_repository_may_be_made_but_no_file_or_link_in_its_place() -> anyhow::Result<()> {
        let (home, state) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let git = home.path().join(".git");
        let workspace = Workspace::open(home.path(), Access::ReadWrite)?;
        let absent = workspace.absent(&[".git/config", ".git/hooks"].map(PathBuf::from));
        let put_away = || workspace.put_away(&absent, &state.path().join("away"));
        std::fs::write(&git, "gitdir: evil")?;
        assert_eq!(put_away().len(), 1);
        std::os::unix::fs::symlink("evil", &git)?;
        assert_eq!(put_away().len(), 1);
        std::fs::create_dir(&git)?;
        assert!(put_away().is_empty() && git.is_dir());
        Ok(())
    }
}
