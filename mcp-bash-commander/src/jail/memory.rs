//! What init knows and decides where memory runs out: how many were killed, and that it is never the first.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;

use super::cgroup::Kills;

/// How much a command's process is preferred to init, of 1000. Init may well be larger: it is a copy of the launcher, and its end would
/// be that of the whole jail.
const PREFERENCE: i32 = 500;
const MOST: i32 = 1000;

/// The kernel's own file of this process.
const SCORE: &str = "/proc/self/oom_score_adj";

/// Counter and score of a jail's init.
#[derive(Debug)]
pub(super) struct Memory {
    kills: Option<Kills>,
    /// Open, with its value.
    score: Option<(File, i32)>,
}

impl Memory {
    /// To be called before this process becomes undumpable: from then on its file is root's.
    pub(super) fn of_init(kills: Option<Kills>) -> Self {
        let open = || {
            let own = fs::read_to_string(SCORE).ok()?.trim().parse().ok()?;
            let file = OpenOptions::new().write(true).open(SCORE).ok()?;
            Some((file, own))
        };
        Self {
            kills,
            score: open(),
        }
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
