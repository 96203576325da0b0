//! Looking at and removing from a tree that others change meanwhile: one name at a time, through no link and into no other mount.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use shared::digest::hex;

use super::super::{NO_LINKS, open_beneath};
use super::MAX_ENTRIES;

/// No link is followed and no other mount entered.
pub(super) const BELOW: ResolveFlags = NO_LINKS.union(ResolveFlags::NO_XDEV);
/// Directories followed below each other; each costs two descriptors while it is looked at.
pub(super) const MAX_DEPTH: usize = 64;
/// Longest target of a link.
const MAX_TARGET: usize = 4096;
/// Entries of a directory that are removed in one round.
pub(super) const PER_ROUND: usize = 1000;
/// Rounds until what others add meanwhile is left.
pub(super) const MAX_ROUNDS: usize = 10_000;

/// What stands under a name, pinned without being opened.
#[derive(Debug)]
pub(super) struct Seen {
    entry: OwnedFd,
    pub(super) stat: Stat,
}

impl Seen {
    pub(super) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Where the pinned link points to.
    pub(super) fn target(&self) -> Result<OsString, Errno> {
        let target = rustix::fs::readlinkat(&self.entry, c"", Vec::with_capacity(256))?;
        if target.as_bytes().len() > MAX_TARGET {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Sets the permissions of exactly this entry, which must be no link.
    pub(super) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        // The kernel takes no pinned descriptor for this, but its name in /proc leads to the entry itself.
        let name = format!("/proc/self/fd/{}", self.entry.as_raw_fd());
        rustix::fs::chmod(name, Mode::from_raw_mode(mode))
    }
}

/// What stands under the path now, itself if it is a link.
pub(super) fn look(directory: BorrowedFd<'_>, path: &Path) -> Result<Option<Seen>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let entry = match open_beneath(directory, path, flags, BELOW) {
        Ok(entry) => entry,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let stat = rustix::fs::fstat(&entry)?;
    Ok(Some(Seen { entry, stat }))
}

/// The directory, open for reading; the empty path is the directory itself.
pub(super) fn open_directory(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    open_beneath(
        directory,
        whole(path),
        OFlags::RDONLY | OFlags::DIRECTORY,
        BELOW,
    )
}

/// The directory, pinned; the empty path is the directory itself.
pub(super) fn pin_directory(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    open_beneath(
        directory,
        whole(path),
        OFlags::PATH | OFlags::DIRECTORY,
        BELOW,
    )
}

/// The file, open for reading; nothing if something else stands there.
pub(super) fn open_file(
    directory: BorrowedFd<'_>,
    path: &Path,
) -> Result<Option<(File, Stat)>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    // Only looked at first: opening a device or a pipe can already do something.
    match look(directory, path)? {
        Some(seen) if seen.file_type() == FileType::RegularFile => {}
        _ => return Ok(None),
    }
    let file = match open_beneath(directory, path, flags, BELOW) {
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        opened => opened?,
    };
    let stat = rustix::fs::fstat(&file)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(regular.then(|| (file.into(), stat)))
}

fn whole(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

/// Names in a directory, at most `most`, and whether these are all.
pub(super) fn names(
    directory: BorrowedFd<'_>,
    most: usize,
) -> Result<(Vec<OsString>, bool), Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(open_directory(directory, Path::new(""))?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == most {
            return Ok((names, false));
        }
        names.push(OsStr::from_bytes(name).to_owned());
    }
    Ok((names, true))
}

/// Whether this is how the kernel marks a deleted name.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The first byte of a mark of the overlay on an open file or directory; 0 for an empty one. A mount with `userxattr`, the only kind in a
/// user namespace, makes its marks as `user.overlay.*`.
pub(super) fn mark(entry: BorrowedFd<'_>, name: &str) -> Result<Option<u8>, Errno> {
    let mut value = [0; 8];
    match rustix::fs::fgetxattr(entry, format!("user.overlay.{name}"), &mut value) {
        Ok(_) => Ok(Some(value[0])),
        // Longer than any of the short marks.
        Err(Errno::RANGE) => Ok(Some(0)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A name that nothing has yet.
pub(super) fn new_name() -> Result<String, Errno> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| Errno::IO)?;
    Ok(format!(".writing-{}", hex(&random)))
}

/// Why a removal stopped.
#[derive(Debug)]
pub(super) enum Unremoved {
    /// An entry that must stay.
    Kept,
    /// The system refused.
    System(Errno),
}

impl From<Errno> for Unremoved {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// Removes what stands under a name of `top`, directories with everything below, however deep. Gives the number of entries removed;
/// removes nothing if there is one for which `may_go` says no.
pub(super) fn remove(
    top: BorrowedFd<'_>,
    name: &OsStr,
    may_go: &dyn Fn(&Stat) -> bool,
) -> Result<u64, Unremoved> {
    check(top, Path::new(name), may_go, 0)?;
    let mut removal = Removal {
        top,
        may_go,
        deep: Vec::new(),
        removed: 0,
    };
    removal.entry(top, name, 0)?;
    while let Some(name) = removal.deep.pop() {
        removal.entry(top, OsStr::new(&name), 0)?;
    }
    Ok(removal.removed)
}

/// Looks at everything that would be removed, as far down as a list looks.
fn check(
    directory: BorrowedFd<'_>,
    name: &Path,
    may_go: &dyn Fn(&Stat) -> bool,
    depth: usize,
) -> Result<(), Unremoved> {
    let Some(seen) = look(directory, name)? else {
        return Ok(());
    };
    if !may_go(&seen.stat) {
        return Err(Unremoved::Kept);
    }
    if !seen.is_directory() || depth == MAX_DEPTH {
        return Ok(());
    }
    drop(seen);
    // What cannot be listed yet is looked at when it is removed.
    let Ok(inner) = open_directory(directory, name) else {
        return Ok(());
    };
    for name in names(inner.as_fd(), MAX_ENTRIES)?.0 {
        check(inner.as_fd(), Path::new(&name), may_go, depth + 1)?;
    }
    Ok(())
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    may_go: &'a dyn Fn(&Stat) -> bool,
    /// Directories that were too deep, moved up to be removed from there.
    deep: Vec<String>,
    removed: u64,
}

impl Removal<'_> {
    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        depth: usize,
    ) -> Result<(), Unremoved> {
        let path = Path::new(name);
        let Some(seen) = look(directory, path)? else {
            return Ok(());
        };
        if !(self.may_go)(&seen.stat) {
            return Err(Unremoved::Kept);
        }
        if !seen.is_directory() {
            rustix::fs::unlinkat(directory, path, AtFlags::empty())?;
            self.removed += 1;
            return Ok(());
        }
        if seen.stat.st_mode & 0o700 != 0o700 {
            // Only the owner can, and must where he is not root; anyone else fails below.
            let _ = seen.set_mode(0o700);
        }
        if depth == MAX_DEPTH {
            let moved = new_name()?;
            rustix::fs::renameat(directory, path, self.top, moved.as_str())?;
            self.deep.push(moved);
            return Ok(());
        }
        drop(seen);
        let inner = open_directory(directory, path)?;
        // What others add meanwhile is removed too, but not for ever.
        for _ in 0..MAX_ROUNDS {
            let (names, all) = names(inner.as_fd(), PER_ROUND)?;
            for name in &names {
                self.entry(inner.as_fd(), name, depth + 1)?;
            }
            if all {
                break;
            }
        }
        rustix::fs::unlinkat(directory, path, AtFlags::REMOVEDIR)?;
        self.removed += 1;
        Ok(())
    }
}

/// The directory above and the name of a path that has both.
pub(super) fn split(path: &Path) -> Option<(&Path, PathBuf)> {
    Some((path.parent()?, PathBuf::from(path.file_name()?)))
}
