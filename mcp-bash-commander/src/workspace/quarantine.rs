//! Protected paths that a command made where there were none: found when it has ended, and put away.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
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

impl Workspace {
    fn is_there(&self, path: &Path) -> bool {
        !matches!(
            self.parent_of(path).and_then(|(parent, name)| {
                rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            }),
            Err(Errno::NOENT | Errno::NOTDIR)
        )
    }

    fn parent_of<'a>(&self, path: &'a Path) -> Result<(std::os::fd::OwnedFd, &'a Path), Errno> {
        let name = Path::new(path.file_name().ok_or(Errno::INVAL)?);
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = open_beneath(
            self.directory(),
            parent,
            OFlags::PATH | OFlags::DIRECTORY,
            NO_LINKS,
        )?;
        Ok((parent, name))
    }

    /// Moves those of the paths that are there now into `folder`, or beside themselves under another name where that is on another file
    /// system. Links are moved, not followed.
    pub fn put_away(&self, paths: &[PathBuf], folder: &Path) -> Vec<PutAway> {
        paths
            .iter()
            .filter(|path| self.is_there(path))
            .map(|path| PutAway {
                path: path.clone(),
                to: self
                    .move_away(path, folder)
                    .map_err(|errno| errno.to_string()),
            })
            .collect()
    }

    fn move_away(&self, path: &Path, folder: &Path) -> Result<PathBuf, Errno> {
        let (parent, name) = self.parent_of(path)?;
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
        let protected: Vec<PathBuf> = [".git/config", ".git/hooks", ".vscode", ".mcp.json"]
            .map(PathBuf::from)
            .to_vec();
        std::fs::create_dir(at(".git/hooks"))?;
        std::fs::write(at(".git/hooks/pre-commit"), "evil")?;
        std::os::unix::fs::symlink("/etc/passwd", at(".mcp.json"))?;
        let put_away = workspace.put_away(&protected[1..], &state.path().join("away"));
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
}
