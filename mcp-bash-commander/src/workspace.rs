//! Files of the workspace as the server itself touches them: resolved by the kernel below a directory pinned at start, so
//! that no link, rename or `..` that a command plants leads the server outside.

mod absent;
pub mod changes;
mod closed;
mod edit;
mod linked;
mod quarantine;
mod read;
mod search;
mod write;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use shared::digest::Digest;

use crate::jail;
use crate::policy::Access;
pub use absent::Absent;
pub use edit::{Edit, EditError, Edited, Hint, Occurrences};
pub use quarantine::PutAway;
pub use read::FileSlice;
pub use search::{
    Bound, Breadth, Found, LeftOut, Match, Query, Report, SearchError, SkippedFiles, Snippet,
};
pub use write::{Expected, Written};

/// Longest path a call may give, in bytes.
const MAX_PATH_BYTES: usize = 4096;
/// How often a resolution that a concurrent rename disturbed is tried again.
const RESOLVE_TRIES: usize = 64;

/// A file of the workspace that cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The path itself is wrong.
    #[error("`{path}` is no path below the workspace: {reason}")]
    Path {
        /// The path of the call, shortened.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The path leads out of the workspace.
    #[error("`{0}` leads outside the workspace")]
    Outside(String),
    /// A symbolic link where none is followed.
    #[error("`{0}` goes through a symbolic link, which is not followed here")]
    Symlink(String),
    /// There is nothing there.
    #[error("there is no `{0}` in the workspace")]
    NotFound(String),
    /// Something else than a file.
    #[error("`{path}` is {kind}, not a regular file")]
    NotRegular {
        /// The path.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// The file has another name, perhaps outside.
    #[error("`{0}` has other names (hard links), some perhaps outside the workspace")]
    HardLinked(String),
    /// The policy says read-only.
    #[error("the workspace is read-only by the policy")]
    ReadOnly,
    /// The file is not what the call expected.
    #[error("`{path}` is not as expected: expected {expected}, found {found}")]
    Changed {
        /// The path.
        path: String,
        /// What the call expected.
        expected: String,
        /// What is there.
        found: String,
    },
    /// More than one call takes.
    #[error("the content of `{path}` has {bytes} bytes; one call takes at most {most}")]
    TooLong {
        /// The path.
        path: String,
        /// Bytes given.
        bytes: u64,
        /// Bytes taken.
        most: u64,
    },
    /// The files that the policy closes cannot all be found.
    #[error("the workspace has more than {entries} entries, or {closed} that deny_read closes")]
    TooMuchToClose {
        /// Most entries looked at.
        entries: usize,
        /// Most paths closed.
        closed: usize,
    },
    /// The files that have names outside cannot all be found.
    #[error("the workspace has more than {0} entries, too many to look for hard links")]
    TooManyEntries(usize),
    /// The files that have names outside are too many to be guarded.
    #[error(
        "{found} files of the workspace have names outside it (hard links), among them `{first}`; at most {most} can be guarded"
    )]
    TooManyLinked {
        /// How many.
        found: usize,
        /// How many there may be.
        most: usize,
        /// One of them.
        first: String,
    },
    /// The workspace cannot be opened at all.
    #[error(transparent)]
    Unusable(#[from] jail::JailError),
    /// The system refused.
    #[error("failed to {action} `{path}`: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The path.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// The directory that commands and file tools share.
#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
    access: Access,
    pinned: jail::Workspace,
    linked: linked::Known,
    absent: absent::Wanted,
}

impl Workspace {
    /// Pins the directory; it keeps its place in the jail.
    ///
    /// # Errors
    /// A directory that cannot be a workspace.
    pub fn open(root: &Path, access: Access) -> Result<Self, WorkspaceError> {
        let in_jail = match access {
            Access::ReadOnly => jail::Access::ReadOnly,
            Access::ReadWrite => jail::Access::ReadWrite,
        };
        let pinned = jail::Workspace::open(root, root, in_jail)?;
        Ok(Self {
            root: root.to_owned(),
            access,
            pinned,
            linked: linked::Known::default(),
            absent: absent::Wanted::default(),
        })
    }

    /// Where it stands on the host and in the jail.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it may be changed.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The same directory as the jail takes it.
    pub fn for_jail(&self) -> jail::Workspace {
        self.pinned.clone()
    }

    /// The absolute path of a file of the workspace, as a command sees it.
    ///
    /// # Errors
    /// A path that is none below the workspace.
    pub fn path_in_jail(&self, path: &str) -> Result<PathBuf, WorkspaceError> {
        Ok(self.root.join(self.relative(path)?))
    }

    fn directory(&self) -> BorrowedFd<'_> {
        self.pinned.directory()
    }

    /// The path below the root, without `.` parts; absolute paths must begin with the root.
    ///
    /// # Errors
    /// A path that is none below the workspace.
    pub fn relative(&self, path: &str) -> Result<PathBuf, WorkspaceError> {
        let wrong = |reason| WorkspaceError::Path {
            path: path.chars().take(200).collect(),
            reason,
        };
        if path.is_empty() {
            return Err(wrong("it is empty"));
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(wrong("it is longer than 4096 bytes"));
        }
        if path.contains('\0') {
            return Err(wrong("it holds a NUL"));
        }
        let given = Path::new(path);
        let below = if given.is_absolute() {
            given
                .strip_prefix(&self.root)
                .map_err(|_| WorkspaceError::Outside(path.to_owned()))?
        } else {
            given
        };
        let mut relative = PathBuf::new();
        for component in below.components() {
            match component {
                Component::Normal(name) => relative.push(name),
                Component::CurDir => {}
                Component::ParentDir => return Err(wrong("it holds `..`")),
                Component::RootDir | Component::Prefix(_) => return Err(wrong("it is absolute")),
            }
        }
        if relative.as_os_str().is_empty() {
            return Err(wrong("it names the workspace itself"));
        }
        if path.ends_with('/') {
            return Err(wrong("it ends in `/`"));
        }
        Ok(relative)
    }
}

/// Links that stay below the directory are followed, all others refused.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
/// No link at all is followed.
const NO_LINKS: ResolveFlags = BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Opens below a directory; a rename at the same moment makes the kernel ask for another try.
fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut tries = 0;
    loop {
        tries += 1;
        match rustix::fs::openat2(
            directory,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            Err(Errno::AGAIN | Errno::INTR) if tries < RESOLVE_TRIES => {}
            result => return result,
        }
    }
}

/// The error behind a failed resolution.
fn unresolved(action: &'static str, path: &Path) -> impl FnOnce(Errno) -> WorkspaceError {
    let path = path.display().to_string();
    move |errno| match errno {
        Errno::XDEV => WorkspaceError::Outside(path),
        Errno::LOOP => WorkspaceError::Symlink(path),
        Errno::NOENT => WorkspaceError::NotFound(path),
        other => WorkspaceError::Io {
            action,
            path,
            source: other.into(),
        },
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> WorkspaceError {
    let path = path.display().to_string();
    move |source| WorkspaceError::Io {
        action,
        path,
        source,
    }
}

/// Refuses everything but regular files.
fn require_regular(mode: u32, path: &Path) -> Result<(), WorkspaceError> {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Symlink => return Err(WorkspaceError::Symlink(path.display().to_string())),
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something unknown",
    };
    Err(WorkspaceError::NotRegular {
        path: path.display().to_string(),
        kind,
    })
}

/// The digest of everything a reader has left.
fn digest_of(mut content: impl std::io::Read) -> std::io::Result<Digest> {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(Digest::from_array(&hasher.finalize().into())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests;
