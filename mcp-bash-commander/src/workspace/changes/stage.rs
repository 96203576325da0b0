//! A new file, link or directory beside the place it is meant for, under a name of its own; gone again unless it is put there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use sha2::Digest as _;
use shared::digest::Digest;

use super::tree::{self, Seen, Unremoved};
use super::{Change, Reason};

/// Why a change was not carried over.
#[derive(Debug)]
pub(super) struct Halt {
    pub(super) reason: Reason,
    /// What the system said, if it was the system.
    pub(super) detail: Option<String>,
}

impl From<Reason> for Halt {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            detail: None,
        }
    }
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self {
            reason: Reason::Failed,
            detail: Some(error.to_string()),
        }
    }
}

impl From<Unremoved> for Halt {
    fn from(unremoved: Unremoved) -> Self {
        match unremoved {
            Unremoved::Kept => Reason::ChangedMeanwhile.into(),
            Unremoved::System(errno) => errno.into(),
        }
    }
}

/// Whom new entries are given to; a server that is not root keeps what it makes.
pub(super) type Owner = Option<(Uid, Gid)>;

pub(super) struct Staged<'a> {
    pub(super) folder: BorrowedFd<'a>,
    pub(super) name: String,
    pub(super) is_directory: bool,
    /// Whether nothing under `name` is to be removed any more.
    pub(super) done: bool,
}

impl<'a> Staged<'a> {
    /// Copies a file of the overlay, if its bytes are exactly those that were hashed.
    pub(super) fn file(
        folder: BorrowedFd<'a>,
        source: File,
        change: &Change,
        owner: Owner,
    ) -> Result<Self, Halt> {
        let name = tree::new_name()?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name.as_str(), flags, Mode::from_raw_mode(0o600))?;
        let staged = Self::new(folder, name, false);
        let mut file = File::from(file);
        let (bytes, sha256) = copy(source, &mut file, change.bytes)?;
        if bytes != change.bytes || Some(&sha256) != change.sha256.as_ref() {
            return Err(Reason::ChangedWhileCopied.into());
        }
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(change.mode.unwrap_or(0o600)))?;
        file.sync_data()?;
        Ok(staged)
    }

    /// Makes a link to what the overlay's link pointed to when it was hashed.
    pub(super) fn link(
        folder: BorrowedFd<'a>,
        source: &Seen,
        change: &Change,
        owner: Owner,
    ) -> Result<Self, Halt> {
        let target = source
            .target()
            .map_err(|_| Halt::from(Reason::ChangedWhileCopied))?;
        if Some(&Digest::of(target.as_bytes())) != change.sha256.as_ref() {
            return Err(Reason::ChangedWhileCopied.into());
        }
        let name = tree::new_name()?;
        rustix::fs::symlinkat(target.as_os_str(), folder, name.as_str())?;
        let staged = Self::new(folder, name, false);
        staged.give_to(owner)?;
        Ok(staged)
    }

    /// Makes an empty directory.
    pub(super) fn directory(folder: BorrowedFd<'a>, mode: u32, owner: Owner) -> Result<Self, Halt> {
        let name = tree::new_name()?;
        rustix::fs::mkdirat(folder, name.as_str(), Mode::from_raw_mode(0o700))?;
        let staged = Self::new(folder, name, true);
        staged.give_to(owner)?;
        if let Some(seen) = tree::look(folder, Path::new(&staged.name))?
            && seen.is_directory()
        {
            seen.set_mode(mode)?;
        }
        Ok(staged)
    }

    fn new(folder: BorrowedFd<'a>, name: String, is_directory: bool) -> Self {
        Self {
            folder,
            name,
            is_directory,
            done: false,
        }
    }

    fn give_to(&self, owner: Owner) -> Result<(), Errno> {
        let Some((uid, gid)) = owner else {
            return Ok(());
        };
        let no_link = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(
            self.folder,
            self.name.as_str(),
            Some(uid),
            Some(gid),
            no_link,
        )
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let flags = if self.is_directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        let _ = rustix::fs::unlinkat(self.folder, self.name.as_str(), flags);
    }
}

/// Copies at most one byte more than `expected`, and hashes exactly what it writes.
fn copy(source: File, to: &mut File, expected: u64) -> Result<(u64, Digest), io::Error> {
    let mut source = source.take(expected.saturating_add(1));
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok((bytes, Digest::from_array(&hasher.finalize().into()))),
            read => {
                hasher.update(&buffer[..read]);
                to.write_all(&buffer[..read])?;
                bytes += read as u64;
            }
        }
    }
}
