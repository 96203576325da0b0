//! What init knows and decides where memory runs out: how many were killed, and that it is never the first.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::{CWD, Mode, OFlags};

use super::cgroup::Kills;

/// How much a command's process is preferred to init, of 1000. Init may well be larger: it is a copy of the launcher, and its end would
/// be that of the whole jail.
const PREFERENCE: i32 = 500;
const MOST: i32 = 1000;

/// Counter and score of a jail's init.
#[derive(Debug)]
pub(super) struct Memory {
    kills: Option<Kills>,
    /// Open, with its value.
    score: Option<(File, i32)>,
}

impl Memory {
    /// To be called before this process becomes undumpable: from then on its file is root's. `proc` has it, if not what stands at
    /// `/proc`.
    pub(super) fn of_init(kills: Option<Kills>, proc: Option<BorrowedFd<'_>>) -> Self {
        let open = || {
            let (directory, path) = proc.map_or((CWD, "/proc/self/oom_score_adj"), |proc| {
                (proc, "self/oom_score_adj")
            });
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let mut file: File = rustix::fs::openat(directory, path, flags, Mode::empty())
                .ok()?
                .into();
            let mut own = String::new();
            file.read_to_string(&mut own).ok()?;
            Some((file, own.trim().parse().ok()?))
        };
        Self {
            kills,
            score: open(),
        }
    }

    /// What it holds open.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = i32> {
        let kills = self.kills.iter().map(|kills| kills.0.as_raw_fd());
        kills.chain(self.score.iter().map(|(file, _)| file.as_raw_fd()))
    }

    /// How many processes of the jail were killed for want of memory; `None` where nothing counts them.
    pub(super) fn kills(&self) -> Option<u64> {
        self.kills.as_ref().and_then(Kills::count)
    }

    /// Starts a process that is killed before this one. It inherits its score, and could not open a file of its own to set it.
    pub(super) fn starting<T>(&self, start: impl FnOnce() -> T) -> T {
        let Some((file, own)) = &self.score else {
            return start();
        };
        // In one piece, as the kernel wants it; without it the kernel goes by size alone.
        let set = |score: i32| drop((&*file).write_all(score.to_string().as_bytes()));
        set(MOST.min(own + PREFERENCE));
        let started = start();
        set(*own);
        started
    }
}
