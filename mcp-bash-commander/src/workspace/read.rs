//! Reading files of the workspace, bounded.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{OFlags, ResolveFlags};
use shared::digest::Digest;

use super::{
    BENEATH, Workspace, WorkspaceError, digest_of, failed, open_beneath, require_regular,
    unresolved,
};

/// Files up to this size are hashed on every read, so that the next write can say what it expects.
const HASHED_UP_TO: u64 = 16 << 20;
/// How far into a slice one looks for the NUL that text never has.
const BINARY_LOOK: usize = 8192;

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSlice {
    /// The bytes, fewer than asked for only at the end of the file.
    pub bytes: Vec<u8>,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// Digest of the whole file; absent for files over 16 MiB.
    pub sha256: Option<Digest>,
}

impl FileSlice {
    /// Whether this is no text: a NUL near the beginning.
    pub fn is_binary(&self) -> bool {
        self.bytes.iter().take(BINARY_LOOK).any(|byte| *byte == 0)
    }
}

impl Workspace {
    /// Reads at most `max_bytes` bytes from `offset` on. Links are followed as long as they stay in the workspace.
    ///
    /// # Errors
    /// A path that is missing, leads outside, or is no regular file.
    pub fn read(
        &self,
        path: &str,
        offset: u64,
        max_bytes: usize,
    ) -> Result<FileSlice, WorkspaceError> {
        let relative = self.relative(path)?;
        let file = open_regular(self.directory(), &relative, BENEATH, &relative)?;
        let size = file
            .metadata()
            .map_err(failed("look at", &relative))?
            .size();
        let wanted = size.saturating_sub(offset).min(max_bytes as u64);
        let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(max_bytes)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read", &relative)(error)),
            }
        }
        bytes.truncate(filled);
        let sha256 = if size <= HASHED_UP_TO {
            // A file that grows meanwhile is not followed for ever.
            Some(digest_of(file.take(HASHED_UP_TO)).map_err(failed("read", &relative))?)
        } else {
            None
        };
        Ok(FileSlice {
            bytes,
            size,
            sha256,
        })
    }

    /// The file itself, opened for reading, for as long as its bytes are needed.
    ///
    /// # Errors
    /// A path that is missing, leads outside, or is no regular file.
    pub fn open_file(&self, path: &str) -> Result<File, WorkspaceError> {
        let relative = self.relative(path)?;
        open_regular(self.directory(), &relative, BENEATH, &relative)
    }

    /// The digest of a whole file, whatever its size.
    ///
    /// # Errors
    /// A path that is missing, leads outside, or is no regular file.
    pub fn digest(&self, path: &str) -> Result<Digest, WorkspaceError> {
        let relative = self.relative(path)?;
        digest_of(open_regular(
            self.directory(),
            &relative,
            BENEATH,
            &relative,
        )?)
        .map_err(failed("read", &relative))
    }
}

/// Opens a regular file below a directory for reading; `path` is relative to it, `shown` is what errors call it.
pub(super) fn open_regular(
    directory: BorrowedFd<'_>,
    path: &Path,
    resolve: ResolveFlags,
    shown: &Path,
) -> Result<File, WorkspaceError> {
    // Only looked at first: opening a device or a pipe can already do something.
    let looked_at =
        open_beneath(directory, path, OFlags::PATH, resolve).map_err(unresolved("open", shown))?;
    let stat = rustix::fs::fstat(&looked_at).map_err(unresolved("look at", shown))?;
    require_regular(stat.st_mode, shown)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_beneath(directory, path, flags, resolve).map_err(unresolved("open", shown))?;
    let stat = rustix::fs::fstat(&file).map_err(unresolved("look at", shown))?;
    require_regular(stat.st_mode, shown)?;
    Ok(file.into())
}
