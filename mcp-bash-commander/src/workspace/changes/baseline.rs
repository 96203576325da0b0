//! What tells a change of the workspace made since the overlay from one made before: a moment of the kernel's clock, and the entries
//! that commits themselves wrote since.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

use super::{MAX_ENTRIES, tree};

/// Where it is kept, beside `upper`.
const FILE: &str = "made";
/// Longest file that is read.
const MAX_BYTES: u64 = 64 << 20;
/// Entries remembered; one that does not fit is later taken for changed meanwhile.
const MAX_KNOWN: usize = 2 * MAX_ENTRIES;

/// What identifies a state of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            modified: modified(stat),
            changed: changed(stat),
        }
    }

    /// Whether it is the same file with the same bytes. A rename, or another of its names going, does not count.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        (self.inode, self.modified) == (other.inode, other.modified)
    }
}

/// When and over what the overlay was made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Baseline {
    version: u32,
    /// Inode of the workspace's root.
    pub(super) workspace: u64,
    /// Seconds and nanoseconds of the last moment before.
    made: (i64, i64),
    /// Entries of the workspace as commits left them.
    known: BTreeMap<String, Stamp>,
}

impl Baseline {
    /// A baseline of this moment: what changed before has an earlier time stamp, what changes after a later one.
    pub(super) fn now(workspace: u64) -> Self {
        let made = read_clock(ClockId::Realtime);
        // Time stamps of files move on by ticks of a coarser clock.
        while read_clock(ClockId::RealtimeCoarse) <= made {
            std::thread::sleep(Duration::from_millis(1));
        }
        Self {
            version: 1,
            workspace,
            made,
            known: BTreeMap::new(),
        }
    }

    pub(super) fn load(overlay: BorrowedFd<'_>) -> io::Result<Self> {
        let Some((file, _)) = tree::open_file(overlay, Path::new(FILE))? else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text)?;
        let baseline: Self = serde_json::from_str(&text)?;
        if baseline.version != 1 {
            return Err(io::Error::other(format!(
                "version {} is unknown; 1 is known",
                baseline.version
            )));
        }
        Ok(baseline)
    }

    /// Writes it whole, or leaves the old one.
    pub(super) fn save(&self, overlay: BorrowedFd<'_>) -> io::Result<()> {
        const NEW: &str = "made.new";
        let flags =
            OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(overlay, NEW, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(file);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        Ok(rustix::fs::renameat(overlay, NEW, overlay, FILE)?)
    }

    /// Whether the entry of the workspace is as it was when the overlay was made, or as a commit left it.
    pub(super) fn is_unchanged(&self, path: &Path, stat: &Stat) -> bool {
        changed(stat) <= self.made
            || path
                .to_str()
                .and_then(|path| self.known.get(path))
                .is_some_and(|known| *known == Stamp::of(stat))
    }

    /// The same by the bytes alone, for entries whose other names are just being removed.
    pub(super) fn has_old_content(&self, stat: &Stat) -> bool {
        let stamp = Stamp::of(stat);
        stamp.modified <= self.made || (self.known.values()).any(|known| known.same_content(&stamp))
    }

    /// Remembers an entry as a commit left it.
    pub(super) fn learn(&mut self, path: &Path, stat: &Stat) {
        if let Some(path) = path.to_str()
            && self.known.len() < MAX_KNOWN
        {
            self.known.insert(path.to_owned(), Stamp::of(stat));
        }
    }
}

fn read_clock(clock: ClockId) -> (i64, i64) {
    let time = rustix::time::clock_gettime(clock);
    (time.tv_sec, time.tv_nsec)
}

fn modified(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, nanoseconds(stat.st_mtime_nsec))
}

fn changed(stat: &Stat) -> (i64, i64) {
    (stat.st_ctime, nanoseconds(stat.st_ctime_nsec))
}

/// The kernel's width of this field differs between machines.
fn nanoseconds(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(0)
}
