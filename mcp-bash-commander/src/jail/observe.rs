//! Which files of the host commands look for in vain: for learning what a toolchain needs, never for deciding anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{seccomp, sys};

/// Most paths that are kept.
const MOST: usize = 10_000;
const LONGEST_PATH: usize = 4096;

/// The absolute paths that commands looked for, with how often. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Lookups(Arc<Mutex<BTreeMap<PathBuf, u64>>>);

impl Lookups {
    /// All so far.
    pub fn all(&self) -> BTreeMap<PathBuf, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Answers a jail's filter in a thread of its own, until the jail ends.
    pub(super) fn watch(&self, listener: OwnedFd) -> io::Result<()> {
        let lookups = self.clone();
        std::thread::Builder::new()
            .name("observer".to_owned())
            .spawn(move || lookups.answer_all(&listener))
            .map(drop)
    }

    fn answer_all(&self, listener: &OwnedFd) {
        loop {
            let mut watched = [PollFd::new(listener, PollFlags::IN)];
            match poll(&mut watched, None) {
                Ok(_) if watched[0].revents().contains(PollFlags::IN) => self.answer(listener),
                Err(Errno::INTR) => {}
                // No process of the jail is left.
                Ok(_) | Err(_) => return,
            }
        }
    }

    fn answer(&self, listener: &OwnedFd) {
        let Ok(notified) = sys::next_notification(listener) else {
            return;
        };
        let [_, _, flags, mode, ..] = notified.arguments;
        let Some(argument) = seccomp::looked_for(notified.call) else {
            let _ = sys::deny(listener, &notified, Errno::PERM);
            return;
        };
        if seccomp::makes_setuid(notified.call, flags, mode) {
            let _ = sys::deny(listener, &notified, Errno::PERM);
            return;
        }
        if let Some(path) = path_at(notified.pid, notified.arguments[argument]) {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() < MOST || known.contains_key(&path) {
                *known.entry(path).or_default() += 1;
            }
        }
        let _ = sys::let_through(listener, &notified);
    }
}

/// An absolute path in the memory of a process.
fn path_at(pid: i32, address: u64) -> Option<PathBuf> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = vec![0; LONGEST_PATH];
    // What follows the path in memory may not be there to be read.
    let mut length = 0;
    while length < bytes.len() {
        let page_end = 4096 - (usize::try_from(address).ok()? + length) % 4096;
        let until = (length + page_end).min(bytes.len());
        let read = memory
            .read_at(&mut bytes[length..until], address + length as u64)
            .ok()?;
        let end = bytes[length..length + read]
            .iter()
            .position(|byte| *byte == 0);
        if let Some(end) = end {
            bytes.truncate(length + end);
            let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
            return path.is_absolute().then(|| normal(&path));
        }
        if read == 0 {
            return None;
        }
        length += read;
    }
    None
}

/// The path without `.` and doubled slashes; `..` stays, for it may follow a link.
fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}
