//! One pass over the upper directory beside the workspace, which finds what changed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use sha2::Digest as _;
use shared::digest::Digest;

use super::links::stays_inside;
use super::tree::{self, MAX_DEPTH, Seen};
use super::{
    Change, ChangesError, Kind, MAX_ENTRIES, MAX_FILE_BYTES, MAX_TOTAL_BYTES, Overlay, Reason,
    Stamp, What, Workspace, io_failed,
};

/// Bits of a mode that are carried over: never setuid, setgid or sticky, and nobody's to write but the owner's and the group's.
const CARRIED: u32 = 0o775;

/// What a pass found.
pub(super) struct Scanned {
    /// Sorted by path, so that directories come before what is in them.
    pub(super) changes: Vec<Change>,
    /// Whether everything was looked at.
    pub(super) complete: bool,
}

impl Scanned {
    /// Refuses a pass that did not see everything.
    pub(super) fn require_complete(self) -> Result<Vec<Change>, ChangesError> {
        if self.complete {
            return Ok(self.changes);
        }
        Err(ChangesError::TooMuch {
            most: MAX_ENTRIES as u64,
            unit: "entries",
        })
    }
}

impl Overlay {
    /// Finds the changes. Files up to `hash_up_to` bytes are hashed; with `u64::MAX` all that can be carried over, or it fails.
    pub(super) fn scan(
        &self,
        workspace: &Workspace,
        hash_up_to: u64,
    ) -> Result<Scanned, ChangesError> {
        self.check_workspace(workspace)?;
        let mut scan = Scan {
            overlay: self,
            hash_up_to,
            changes: Vec::new(),
            visited: 0,
            hashed: 0,
            complete: true,
        };
        let lower = tree::open_directory(workspace.directory(), Path::new(""))
            .map_err(io_failed("read", workspace.root()))?;
        let place = Place {
            upper: self.upper(),
            lower: Some(lower.as_fd()),
            replaced: false,
            whiteout_files: false,
        };
        scan.directory(&place, Path::new(""), 0)?;
        scan.changes
            .sort_by(|one, other| one.exact.cmp(&other.exact));
        Ok(Scanned {
            changes: scan.changes,
            complete: scan.complete,
        })
    }
}

/// A directory of the upper tree beside the workspace's.
pub(super) struct Place<'a> {
    upper: BorrowedFd<'a>,
    pub(super) lower: Option<BorrowedFd<'a>>,
    /// Whether what only the workspace has is deleted.
    replaced: bool,
    /// Whether empty files may stand for deleted names.
    whiteout_files: bool,
}

pub(super) struct Scan<'a> {
    pub(super) overlay: &'a Overlay,
    hash_up_to: u64,
    changes: Vec<Change>,
    /// Entries looked at, on either side.
    pub(super) visited: usize,
    hashed: u64,
    pub(super) complete: bool,
}

impl Scan<'_> {
    fn directory(
        &mut self,
        place: &Place<'_>,
        path: &Path,
        depth: usize,
    ) -> Result<(), ChangesError> {
        let Some(mut names) = self.names(place.upper, path)? else {
            return Ok(());
        };
        if let Some(lower) = place.lower
            && place.replaced
        {
            names.extend(self.names(lower, path)?.unwrap_or_default());
        }
        for name in names {
            if self.visited >= MAX_ENTRIES {
                self.complete = false;
                return Ok(());
            }
            self.visited += 1;
            self.entry(place, &path.join(&name), Path::new(&name), depth)?;
        }
        Ok(())
    }

    /// Names in order; nothing if the directory cannot be read, which is told as a change then.
    fn names(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<Option<BTreeSet<OsString>>, ChangesError> {
        match tree::names(directory, MAX_ENTRIES - self.visited) {
            Ok((names, all)) => {
                self.complete &= all;
                Ok(Some(names.into_iter().collect()))
            }
            Err(Errno::ACCESS) => {
                self.unreadable(path, What::Directory);
                Ok(None)
            }
            Err(errno) => Err(io_failed("list", path)(errno)),
        }
    }

    fn entry(
        &mut self,
        place: &Place<'_>,
        path: &Path,
        name: &Path,
        depth: usize,
    ) -> Result<(), ChangesError> {
        let lower = match place.lower.map(|lower| tree::look(lower, name)) {
            None => None,
            Some(Ok(lower)) => lower,
            Some(Err(_)) => {
                self.unreadable(path, What::Special);
                return Ok(());
            }
        };
        let upper = match tree::look(place.upper, name) {
            Ok(Some(upper)) => upper,
            Ok(None) if place.replaced => {
                self.deleted(place, path, name, lower.as_ref());
                return Ok(());
            }
            // Gone again since the directory was listed.
            Ok(None) => return Ok(()),
            Err(Errno::ACCESS | Errno::XDEV) => {
                self.unreadable(path, What::Special);
                return Ok(());
            }
            Err(errno) => return Err(io_failed("look at", path)(errno)),
        };
        match upper.file_type() {
            _ if tree::is_whiteout(&upper.stat) => {
                self.deleted(place, path, name, lower.as_ref());
                Ok(())
            }
            FileType::RegularFile => self.file(place, path, name, lower.as_ref()),
            FileType::Directory => self.subdirectory(place, path, name, upper, lower, depth),
            FileType::Symlink => self.link(place, path, name, &upper, lower.as_ref()),
            _ => {
                let mut change = self.change(path, Kind::Special, What::Special, None);
                change.blocked.get_or_insert(Reason::Special);
                self.changes.push(change);
                Ok(())
            }
        }
    }

    fn deleted(&mut self, place: &Place<'_>, path: &Path, name: &Path, lower: Option<&Seen>) {
        let Some(lower) = lower else {
            return;
        };
        let what = what(lower.file_type());
        let mut change = self.change(path, Kind::Deleted, what, Some(&lower.stat));
        self.take_along(&mut change, place, path, name, lower);
        self.changes.push(change);
    }

    fn subdirectory(
        &mut self,
        place: &Place<'_>,
        path: &Path,
        name: &Path,
        upper: Seen,
        lower: Option<Seen>,
        depth: usize,
    ) -> Result<(), ChangesError> {
        let mode = upper.stat.st_mode & CARRIED;
        let both = lower.as_ref().is_some_and(Seen::is_directory);
        let kind = match &lower {
            None => Kind::Created,
            Some(_) if both => Kind::Modified,
            Some(_) => Kind::TypeChanged,
        };
        let stat = lower.as_ref().map(|lower| &lower.stat);
        let mut change = self.change(path, kind, What::Directory, stat);
        set_mode(&mut change, mode, upper.stat.st_mode, stat.filter(|_| both));
        if kind == Kind::TypeChanged
            && let Some(lower) = &lower
        {
            self.take_along(&mut change, place, path, name, lower);
        }
        // Descriptors are few where the tree is deep.
        drop((upper, lower));
        if depth + 1 >= MAX_DEPTH {
            change.blocked.get_or_insert(Reason::TooDeep);
            self.changes.push(change);
            return Ok(());
        }
        let opened = tree::open_directory(place.upper, name).and_then(|upper| {
            Ok(match place.lower.filter(|_| both) {
                Some(lower) => (upper, Some(tree::open_directory(lower, name)?)),
                None => (upper, None),
            })
        });
        let (upper, lower) = match opened {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(_) => {
                change.blocked.get_or_insert(Reason::Unreadable);
                self.changes.push(change);
                return Ok(());
            }
        };
        refuse_marks(upper.as_fd(), path, &["redirect"])?;
        let opaque = tree::mark(upper.as_fd(), "opaque").map_err(io_failed("look at", path))?;
        if kind != Kind::Modified || change.mode_changed {
            self.changes.push(change);
        }
        let inside = Place {
            upper: upper.as_fd(),
            lower: lower.as_ref().map(AsFd::as_fd),
            replaced: opaque == Some(b'y'),
            whiteout_files: opaque == Some(b'x'),
        };
        self.directory(&inside, path, depth + 1)
    }

    fn file(
        &mut self,
        place: &Place<'_>,
        path: &Path,
        name: &Path,
        lower: Option<&Seen>,
    ) -> Result<(), ChangesError> {
        let (file, stat) = match tree::open_file(place.upper, name) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(()),
            Err(_) => {
                self.unreadable(path, What::File);
                return Ok(());
            }
        };
        refuse_marks(file.as_fd(), path, &["redirect", "metacopy"])?;
        if place.whiteout_files
            && stat.st_size == 0
            && tree::mark(file.as_fd(), "whiteout")
                .map_err(io_failed("look at", path))?
                .is_some()
        {
            self.deleted(place, path, name, lower);
            return Ok(());
        }
        let old = lower.filter(|lower| lower.file_type() == FileType::RegularFile);
        let kind = match lower {
            None => Kind::Created,
            Some(_) if old.is_some() => Kind::Modified,
            Some(_) => Kind::TypeChanged,
        };
        let mut change = self.change(path, kind, What::File, lower.map(|lower| &lower.stat));
        change.bytes = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let mode = stat.st_mode & CARRIED;
        set_mode(&mut change, mode, stat.st_mode, old.map(|old| &old.stat));
        if change.bytes > MAX_FILE_BYTES {
            change.blocked.get_or_insert(Reason::TooLarge);
            self.changes.push(change);
            return Ok(());
        }
        let twin = match (old, place.lower) {
            (Some(old), Some(lower)) if old.stat.st_size == stat.st_size => {
                if let Ok(twin) = tree::open_file(lower, name) {
                    twin.map(|(twin, _)| twin)
                } else {
                    change.blocked.get_or_insert(Reason::Unreadable);
                    None
                }
            }
            _ => None,
        };
        let same = self.read(&mut change, file, twin)?;
        if kind == Kind::Modified && same && !change.mode_changed {
            return Ok(());
        }
        if let Some(lower) = lower {
            self.take_along(&mut change, place, path, name, lower);
        }
        if old.is_some_and(|old| old.stat.st_nlink > 1) {
            change.blocked.get_or_insert(Reason::HardLinked);
        }
        self.changes.push(change);
        Ok(())
    }

    /// Hashes the file and compares it with the other on the way. Whether they are equal is known only if it fits the limits.
    fn read(
        &mut self,
        change: &mut Change,
        file: File,
        mut twin: Option<File>,
    ) -> Result<bool, ChangesError> {
        let hash = change.bytes <= self.hash_up_to;
        if self.hashed + change.bytes > MAX_TOTAL_BYTES {
            if self.hash_up_to == u64::MAX {
                return Err(ChangesError::TooMuch {
                    most: MAX_TOTAL_BYTES,
                    unit: "bytes",
                });
            }
            return Ok(false);
        }
        if !hash && twin.is_none() {
            return Ok(false);
        }
        self.hashed += change.bytes;
        let failed = |error: std::io::Error| super::failed("read", &change.exact)(error);
        let mut hasher = sha2::Sha256::new();
        let mut same = twin.is_some();
        let mut bytes = 0;
        let mut buffer = vec![0; 64 * 1024];
        let mut other = vec![0; if twin.is_some() { 64 * 1024 } else { 0 }];
        // A file that grows meanwhile is not followed for ever.
        let mut content = file.take(change.bytes);
        loop {
            let read = content.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if hash {
                hasher.update(&buffer[..read]);
            }
            if let Some(file) = &mut twin
                && same
            {
                same =
                    file.read_exact(&mut other[..read]).is_ok() && other[..read] == buffer[..read];
                if !same && !hash {
                    break;
                }
            }
        }
        if hash {
            change.sha256 = Some(Digest::from_array(&hasher.finalize().into()));
        }
        Ok(same && bytes == change.bytes)
    }

    fn link(
        &mut self,
        place: &Place<'_>,
        path: &Path,
        name: &Path,
        upper: &Seen,
        lower: Option<&Seen>,
    ) -> Result<(), ChangesError> {
        let target = upper.target().map_err(io_failed("read the link", path))?;
        let old = lower.filter(|lower| lower.file_type() == FileType::Symlink);
        let kind = match (lower, old) {
            (None, _) => Kind::Created,
            (_, Some(old)) => {
                if old.target().is_ok_and(|old| old == target) {
                    return Ok(());
                }
                Kind::Modified
            }
            _ => Kind::TypeChanged,
        };
        let mut change = self.change(path, kind, What::Link, lower.map(|lower| &lower.stat));
        change.bytes = target.as_bytes().len() as u64;
        change.sha256 = Some(Digest::of(target.as_bytes()));
        if !stays_inside(path, Path::new(&target)) {
            change.blocked.get_or_insert(Reason::LeavesWorkspace);
        }
        if let Some(lower) = lower {
            self.take_along(&mut change, place, path, name, lower);
        }
        self.changes.push(change);
        Ok(())
    }

    fn change(&self, path: &Path, kind: Kind, what: What, lower: Option<&Stat>) -> Change {
        let changed = lower.is_some_and(|stat| !self.overlay.baseline.is_unchanged(path, stat));
        let blocked = if path.to_str().is_none() {
            Some(Reason::NotUtf8)
        } else {
            changed.then_some(Reason::ChangedMeanwhile)
        };
        Change {
            path: path.to_string_lossy().into_owned(),
            kind,
            what,
            bytes: 0,
            sha256: None,
            mode: None,
            mode_changed: false,
            deleted_entries: 0,
            blocked,
            exact: path.to_owned(),
            lower: lower.map(Stamp::of),
        }
    }

    fn unreadable(&mut self, path: &Path, what: What) {
        let mut change = self.change(path, Kind::Modified, what, None);
        change.blocked.get_or_insert(Reason::Unreadable);
        self.changes.push(change);
    }
}

fn refuse_marks(
    entry: BorrowedFd<'_>,
    path: &Path,
    marks: &[&'static str],
) -> Result<(), ChangesError> {
    for mark in marks {
        let found = tree::mark(entry, mark).map_err(io_failed("look at", path))?;
        if found.is_some() {
            return Err(ChangesError::Marked {
                path: path.to_string_lossy().into_owned(),
                mark,
            });
        }
    }
    Ok(())
}

/// The mode an entry gets. Where the command left it as it was, it stays so, even if writable by all.
fn set_mode(change: &mut Change, carried: u32, mode: u32, old: Option<&Stat>) {
    let kept = old
        .map(|old| old.st_mode & 0o777)
        .filter(|old| *old == mode & 0o777);
    change.mode = Some(kept.unwrap_or(carried));
    change.mode_changed = old.is_some_and(|old| Some(old.st_mode & 0o777) != change.mode);
}

fn what(file_type: FileType) -> What {
    match file_type {
        FileType::RegularFile => What::File,
        FileType::Directory => What::Directory,
        FileType::Symlink => What::Link,
        _ => What::Special,
    }
}
