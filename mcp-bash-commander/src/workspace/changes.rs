//! What a command changed that saw the workspace through an overlay: told, compared, carried over into the workspace, or discarded.
//!
//! The upper directory is read as it lies on the disk, outside every jail. A command wrote it, so it is taken for hostile: no
//! link in it is followed, no mount entered, and every count, depth and size has an end.

mod baseline;
mod commit;
mod diff;
mod discard;
mod links;
mod list;
mod place;
mod protected;
mod scan;
mod stage;
mod survey;
mod tree;

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use serde::Serialize;
use shared::digest::Digest;

use super::{Workspace, WorkspaceError};
use baseline::{Baseline, Stamp};
pub use commit::{Applied, Commit, Committed, Skipped};
pub use diff::Diff;
pub use discard::Discarded;
pub use list::Listing;
pub use protected::Protected;

/// Most changes of one overlay, and most entries looked at for them.
const MAX_ENTRIES: usize = 50_000;
/// Longest file that is compared, hashed or carried over, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Most bytes hashed for one digest or commit.
const MAX_TOTAL_BYTES: u64 = 2 << 30;

/// Changes that cannot be told or carried over as asked.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The overlay's own files are not as the server left them.
    #[error("`{}` is no overlay of this workspace: {reason}", path.display())]
    NoOverlay {
        /// The overlay's directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The upper directory refers to files by other names, which the mount options must forbid.
    #[error(
        "`{path}` bears the overlay mark `{mark}`; mount with redirect_dir and metacopy off, and discard it"
    )]
    Marked {
        /// Path below the workspace.
        path: String,
        /// `redirect` or `metacopy`.
        mark: &'static str,
    },
    /// More than can be looked at.
    #[error("the overlay holds more than {most} {unit}; discard what is not needed")]
    TooMuch {
        /// Limit.
        most: u64,
        /// What was counted.
        unit: &'static str,
    },
    /// The changes are not those that were approved.
    #[error("the changes are not those expected: expected {expected}, found {found}")]
    Digest {
        /// What the caller expected.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// A path of the call at and below which nothing changed.
    #[error(
        "nothing changed at or below `{0}`; give a path as listed, or the deleted directory above it"
    )]
    Unchanged(String),
    /// A part of a replaced directory: without it the workspace's own entry would be hidden, as if it were deleted.
    #[error(
        "`{path}` cannot be discarded alone: `{directory}` was replaced as a whole; discard that"
    )]
    WithinReplaced {
        /// Path of the call.
        path: String,
        /// The replaced directory.
        directory: String,
    },
    /// A protected path that is none.
    #[error("`{0}` cannot be protected: give a relative path without `..`")]
    NotProtectable(String),
    /// The workspace refuses.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The system refused.
    #[error("failed to {action} `{path}`: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Path below the workspace, or of the overlay.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is new.
    Created,
    /// Other bytes, another target or other permissions.
    Modified,
    /// It is gone; a directory with everything below it.
    Deleted,
    /// Something else took its name, such as a directory that of a file.
    TypeChanged,
    /// A pipe, socket or device stands there now.
    Special,
}

/// What a path is now; for a deletion, what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Anything else.
    Special,
}

/// Why a change is not carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It would change a protected path.
    Protected,
    /// A pipe, socket or device.
    Special,
    /// Its name, or that of a directory above, is not UTF-8. Such paths are told with replacement characters.
    NotUtf8,
    /// A link with an absolute target, one that leads outside, or one with `..` behind a name.
    LeavesWorkspace,
    /// The workspace's own entry changed since the overlay was made, or since the change was looked at.
    ChangedMeanwhile,
    /// The upper directory changed between looking and copying.
    ChangedWhileCopied,
    /// The workspace's file has other names, some perhaps outside.
    HardLinked,
    /// The server may not read it, in the overlay or in the workspace, or a file system is mounted there.
    Unreadable,
    /// More bytes than one file may have.
    TooLarge,
    /// More directories above or below it than can be followed.
    TooDeep,
    /// The directory it belongs into was not carried over.
    ParentSkipped,
    /// The caller refused it.
    Refused,
    /// The system refused.
    Failed,
}

/// One change.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// Path below the workspace, with replacement characters where it is not UTF-8.
    pub path: String,
    /// What happened.
    pub kind: Kind,
    /// To what.
    pub what: What,
    /// Size of the file, or length of the link's target; 0 for everything else.
    pub bytes: u64,
    /// Digest of the file's bytes or of the link's target; absent for deletions and for what was too long to be hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Permission bits it gets when carried over: never setuid, setgid, sticky or writable by all. Absent for links.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Whether a file or directory that was there has other permissions now.
    pub mode_changed: bool,
    /// Entries of the workspace that go with it, itself included: of a deletion, or of a directory that something else replaces.
    pub deleted_entries: u64,
    /// Why it will not be carried over, as far as that is known without asking what is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Reason>,
    /// Exact path below the workspace.
    #[serde(skip)]
    exact: PathBuf,
    /// The workspace's own entry when it was looked at.
    #[serde(skip)]
    lower: Option<Stamp>,
}

/// An overlay of a workspace: its directory holds `upper` and `work` for the mount, and `made`, which says what it was made over.
///
/// While a command sees the overlay, nothing may be committed or discarded: a mounted overlay must not change underneath. Nothing
/// here becomes unsafe if it happens; the command may only see stale files.
#[derive(Debug)]
pub struct Overlay {
    path: PathBuf,
    directory: OwnedFd,
    upper: OwnedFd,
    baseline: Baseline,
}

impl Overlay {
    /// Makes the directory with everything in it. It, `upper` and `work` belong to the workspace's owner, as whom the jail uses them; nobody
    /// but the server gets there from outside.
    ///
    /// # Errors
    /// A directory that is there already, or cannot be made.
    pub fn create(path: &Path, workspace: &Workspace) -> Result<Self, ChangesError> {
        let of_overlay = |error: io::Error| failed("make the overlay", path)(error);
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(of_overlay)?;
        let directory = open_directory(path).map_err(|errno| of_overlay(errno.into()))?;
        let root = rustix::fs::fstat(workspace.directory()).map_err(io_failed("look at", path))?;
        let give_to_owner = |directory: BorrowedFd<'_>, name: &str| {
            if !rustix::process::geteuid().is_root() {
                return Ok(());
            }
            let (uid, gid) = (Uid::from_raw(root.st_uid), Gid::from_raw(root.st_gid));
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
            rustix::fs::chownat(directory, name, Some(uid), Some(gid), flags)
        };
        give_to_owner(directory.as_fd(), "").map_err(io_failed("make the overlay", path))?;
        for name in ["upper", "work"] {
            rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o700))
                .and_then(|()| {
                    give_to_owner(directory.as_fd(), name)?;
                    // The overlay's root shows the permissions of `upper`.
                    let mode = Mode::from_raw_mode(root.st_mode & 0o777);
                    rustix::fs::chmodat(&directory, name, mode, AtFlags::empty())
                })
                .map_err(io_failed("make the overlay", path))?;
        }
        let baseline = Baseline::now(root.st_ino);
        baseline.save(directory.as_fd()).map_err(of_overlay)?;
        let upper = tree::open_directory(directory.as_fd(), Path::new("upper"))
            .map_err(io_failed("open the overlay", path))?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            upper,
            baseline,
        })
    }

    /// Pins an overlay made earlier.
    ///
    /// # Errors
    /// A directory that [`Overlay::create`] did not make.
    pub fn open(path: &Path) -> Result<Self, ChangesError> {
        let directory = open_directory(path).map_err(io_failed("open the overlay", path))?;
        let upper = tree::open_directory(directory.as_fd(), Path::new("upper"))
            .map_err(io_failed("open the overlay", path))?;
        let baseline =
            Baseline::load(directory.as_fd()).map_err(|error| ChangesError::NoOverlay {
                path: path.to_owned(),
                reason: format!("its file `made` cannot be used: {error}"),
            })?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            upper,
            baseline,
        })
    }

    /// The directory that holds `upper` and `work`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn upper(&self) -> BorrowedFd<'_> {
        self.upper.as_fd()
    }

    /// Refuses another workspace than the one it was made over.
    fn check_workspace(&self, workspace: &Workspace) -> Result<(), ChangesError> {
        let root = rustix::fs::fstat(workspace.directory())
            .map_err(io_failed("look at", workspace.root()))?;
        if root.st_ino == self.baseline.workspace {
            return Ok(());
        }
        Err(ChangesError::NoOverlay {
            path: self.path.clone(),
            reason: format!(
                "it was made over another directory than `{}`",
                workspace.root().display()
            ),
        })
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ChangesError {
    let path = path.display().to_string();
    move |source| ChangesError::Io {
        action,
        path,
        source,
    }
}

fn io_failed(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> ChangesError {
    let failed = failed(action, path);
    move |errno| failed(errno.into())
}

#[cfg(test)]
mod tests;
