//! Protected paths that a command made where there were none: found when it has ended, and put away.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::absent::{Absent, Look, reopen, split};
use super::{NO_LINKS, Workspace, open_beneath};

/// A protected path that was made and is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAway {
    /// Path below the workspace.
    pub path: PathBuf,
    /// Where it is now; the error's text if it could not be moved and is still there.
    pub to: Result<PathBuf, String>,
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

impl Workspace {
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
        let above: Vec<&Path> = absent
            .above()
            .filter(|path| look.is_no_folder(path))
            .collect();
        let mut put_away: Vec<PutAway> = above.iter().filter_map(away).collect();
        // What was below one of them went with it.
        let mut look = Look::at(self);
        let made: Vec<&Path> = absent.paths().filter(|path| look.is_there(path)).collect();
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
