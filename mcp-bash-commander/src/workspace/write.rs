//! Writing files of the workspace: whole, atomically, through no link.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;
use shared::digest::{Digest, hex};

use super::{
    NO_LINKS, Workspace, WorkspaceError, digest_of, failed, open_beneath, require_regular,
    unresolved,
};
use crate::policy::Access;

/// Longest content of one call, in bytes.
const MAX_CONTENT_BYTES: usize = 8 << 20;

/// What a call expects to find before it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// No file of this name.
    Absent,
    /// A file with this digest.
    Content(Digest),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no such file"),
            Self::Content(digest) => digest.fmt(f),
        }
    }
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its path below the workspace.
    pub path: PathBuf,
    /// Digest of its bytes.
    pub sha256: Digest,
    /// Their number.
    pub bytes: u64,
    /// Whether the file is new.
    pub created: bool,
}

impl Workspace {
    /// Writes a whole file: under another name first, then renamed into place, so that a reader sees the old bytes or the new
    /// ones. Missing folders are made. An existing file keeps its mode; `executable` adds the right to run it.
    ///
    /// Files with more than one hard link are refused: replacing one would cut it off from its other names unseen, and what a
    /// name outside the workspace shares with one inside is not the workspace's to change.
    ///
    /// # Errors
    /// A path through a link or outside, something that is no regular file, or not what was expected.
    pub fn write(
        &self,
        path: &str,
        content: &[u8],
        expected: Option<&Expected>,
        executable: bool,
    ) -> Result<Written, WorkspaceError> {
        if self.access == Access::ReadOnly {
            return Err(WorkspaceError::ReadOnly);
        }
        let relative = self.relative(path)?;
        if content.len() > MAX_CONTENT_BYTES {
            return Err(WorkspaceError::TooLong {
                path: path.to_owned(),
                bytes: content.len() as u64,
                most: MAX_CONTENT_BYTES as u64,
            });
        }
        self.replace(relative, content, expected, executable)
    }

    /// [`Self::write`] for a path that is already relative and a content whose length the caller has bounded.
    pub(super) fn replace(
        &self,
        relative: PathBuf,
        content: &[u8],
        expected: Option<&Expected>,
        executable: bool,
    ) -> Result<Written, WorkspaceError> {
        if self.access == Access::ReadOnly {
            return Err(WorkspaceError::ReadOnly);
        }
        let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
            return Err(WorkspaceError::Path {
                path: relative.display().to_string(),
                reason: "it has no file name",
            });
        };
        let folder = self.folder(parent)?;
        let existing = existing_file(folder.as_fd(), name, &relative)?;
        if let Some(expected) = expected {
            check_expected(folder.as_fd(), name, &relative, existing.as_ref(), expected)?;
        }
        let replacement = Replacement::create(folder.as_fd(), &relative)?;
        replacement.fill(content, existing.as_ref(), executable, &relative)?;
        let exclusively = expected == Some(&Expected::Absent);
        replacement.rename_to(name, exclusively, &relative)?;
        Ok(Written {
            sha256: Digest::of(content),
            bytes: content.len() as u64,
            created: existing.is_none(),
            path: relative,
        })
    }

    /// The folder, made where it is missing, through no link.
    fn folder(&self, parent: &Path) -> Result<OwnedFd, WorkspaceError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let whole = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        match open_beneath(self.directory(), whole, flags, NO_LINKS) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(unresolved("enter", parent)),
        }
        let mut folder: Option<OwnedFd> = None;
        for name in parent {
            let above = folder.as_ref().map_or(self.directory(), AsFd::as_fd);
            let name = Path::new(name);
            match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => give_to_owner_of(above, name, parent)?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(unresolved("make the folder", parent)(errno)),
            }
            folder = Some(
                open_beneath(above, name, flags, NO_LINKS).map_err(unresolved("enter", parent))?,
            );
        }
        folder.ok_or_else(|| WorkspaceError::NotFound(parent.display().to_string()))
    }
}

/// A server that runs as root makes folders for the owner of the folder above, who else could not use them.
fn give_to_owner_of(
    above: BorrowedFd<'_>,
    name: &Path,
    parent: &Path,
) -> Result<(), WorkspaceError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = rustix::fs::fstat(above).map_err(unresolved("look at", parent))?;
    let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
    rustix::fs::chownat(above, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(unresolved("give away", parent))
}

/// What stands under the name now, if it is something one may replace.
fn existing_file(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
) -> Result<Option<Stat>, WorkspaceError> {
    let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(unresolved("look at", path)(errno)),
    };
    require_regular(stat.st_mode, path)?;
    if stat.st_nlink > 1 {
        return Err(WorkspaceError::HardLinked(path.display().to_string()));
    }
    Ok(Some(stat))
}

fn check_expected(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    existing: Option<&Stat>,
    expected: &Expected,
) -> Result<(), WorkspaceError> {
    let found = if existing.is_some() {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open_beneath(folder, Path::new(name), flags, NO_LINKS)
            .map_err(unresolved("open", path))?;
        let stat = rustix::fs::fstat(&file).map_err(unresolved("look at", path))?;
        require_regular(stat.st_mode, path)?;
        Expected::Content(digest_of(File::from(file)).map_err(failed("read", path))?)
    } else {
        Expected::Absent
    };
    if found == *expected {
        return Ok(());
    }
    Err(changed(path, expected, &found.to_string()))
}

fn changed(path: &Path, expected: &Expected, found: &str) -> WorkspaceError {
    WorkspaceError::Changed {
        path: path.display().to_string(),
        expected: expected.to_string(),
        found: found.to_owned(),
    }
}

/// A new file under a name of its own; gone again unless it is renamed into place.
struct Replacement<'a> {
    folder: BorrowedFd<'a>,
    name: String,
    file: File,
    in_place: bool,
}

impl<'a> Replacement<'a> {
    fn create(folder: BorrowedFd<'a>, path: &Path) -> Result<Self, WorkspaceError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| failed("name a new file for", path)(error.into()))?;
        let name = format!(".writing-{}", hex(&random));
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name.as_str(), flags, Mode::from_raw_mode(0o600))
            .map_err(unresolved("write beside", path))?;
        Ok(Self {
            folder,
            name,
            file: file.into(),
            in_place: false,
        })
    }

    fn fill(
        &self,
        content: &[u8],
        existing: Option<&Stat>,
        executable: bool,
        path: &Path,
    ) -> Result<(), WorkspaceError> {
        (&self.file)
            .write_all(content)
            .map_err(failed("write", path))?;
        if rustix::process::geteuid().is_root() {
            // What is new belongs to whom the folder belongs, who else could not use it.
            let owned = match existing {
                Some(stat) => *stat,
                None => rustix::fs::fstat(self.folder).map_err(unresolved("look at", path))?,
            };
            let (uid, gid) = (owned.st_uid, owned.st_gid);
            rustix::fs::fchown(
                &self.file,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
            )
            .map_err(unresolved("give away", path))?;
        }
        let kept = existing.map_or(0o644, |stat| stat.st_mode & 0o777);
        let mode = if executable { kept | 0o111 } else { kept };
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))
            .map_err(unresolved("set the mode of", path))?;
        self.file.sync_data().map_err(failed("write", path))
    }

    fn rename_to(
        mut self,
        name: &OsStr,
        exclusively: bool,
        path: &Path,
    ) -> Result<(), WorkspaceError> {
        let flags = if exclusively {
            RenameFlags::NOREPLACE
        } else {
            RenameFlags::empty()
        };
        match rustix::fs::renameat_with(self.folder, self.name.as_str(), self.folder, name, flags) {
            Ok(()) => {
                self.in_place = true;
                Ok(())
            }
            Err(Errno::EXIST) if exclusively => {
                Err(changed(path, &Expected::Absent, "a file made meanwhile"))
            }
            Err(errno) => Err(unresolved("replace", path)(errno)),
        }
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if !self.in_place {
            let _ = rustix::fs::unlinkat(self.folder, self.name.as_str(), AtFlags::empty());
        }
    }
}
