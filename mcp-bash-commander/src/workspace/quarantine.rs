//! Protected paths that a command made where there were none: found when it has ended, and put away.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
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

/// Protected paths that are not there, so that whatever comes up in their place can be found and put away.
#[derive(Debug, Clone, Default)]
pub struct Absent {
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

/// The folder of a path below the workspace, if it is not the workspace itself, and its name in there.
fn split(path: &Path) -> Result<(Option<&Path>, &OsStr), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    Ok((above, name))
}

impl Workspace {
    /// Those of the protected `paths` that are not there now.
    pub fn absent(&self, paths: &[PathBuf]) -> Absent {
        let mut look = Look::at(self);
        let mut paths: Vec<&Path> = paths
            .iter()
            .map(PathBuf::as_path)
            .filter(|path| !look.is_there(path))
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
        above.retain(|path| !look.is_there(path));
        let owned = |paths: Vec<&Path>| paths.into_iter().map(Path::to_owned).collect();
        Absent {
            paths: owned(paths),
            above: owned(above),
        }
    }

    fn look_into(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        open_beneath(self.directory(), path, flags, NO_LINKS)
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
