//! System calls that were denied: init answers each and tells the server which and how often.
//!
//! The answer is always the same and the decision was the filter's: nothing here reads the memory of a process that could change it
//! meanwhile.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::protocol::{Denial, Report};
use super::{datagram, sys};

/// Most kinds of denials that are kept apart for one jail; a program that tries more is told of by these.
const MOST_KINDS: usize = 256;

/// The listener of a jail's filter, and what it was told so far.
pub(super) struct Denials {
    listener: OwnedFd,
    times: HashMap<Key, u64>,
}

type Key = (Option<u64>, i64, [u32; 3]);

impl Denials {
    pub(super) fn new(listener: OwnedFd) -> Self {
        Self {
            listener,
            times: HashMap::new(),
        }
    }

    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// Denies one call that waits. `command_of` says which command a process belongs to.
    pub(super) fn answer(&mut self, status: &OwnedFd, command_of: impl Fn(i32) -> Option<u64>) {
        // A caller that was killed meanwhile needs no answer.
        let Ok(notified) = sys::next_notification(&self.listener) else {
            return;
        };
        let command = command_of(notified.pid);
        let _ = sys::deny(&self.listener, &notified, Errno::PERM);
        let [first, second, third, ..] = notified.arguments.map(|argument| {
            // The lower half is all that any rule looks at.
            u32::try_from(argument & u64::from(u32::MAX)).unwrap_or(u32::MAX)
        });
        let arguments = telling(notified.call, [first, second, third]);
        let key = (command, notified.call, arguments);
        if self.times.len() >= MOST_KINDS && !self.times.contains_key(&key) {
            return;
        }
        let times = self.times.entry(key).or_default();
        *times += 1;
        // The first at once, then ever more seldom: a program that tries again and again must not keep the server busy.
        if times.is_power_of_two() {
            tell(status, key, *times);
        }
    }

    /// Tells the final numbers of a command that ended.
    pub(super) fn settle(&mut self, status: &OwnedFd, command: u64) {
        self.times.retain(|key, times| {
            let is_its = key.0 == Some(command);
            if is_its && !times.is_power_of_two() {
                tell(status, *key, *times);
            }
            !is_its
        });
    }
}

fn tell(status: &OwnedFd, (command, call, arguments): Key, times: u64) {
    let denial = Denial {
        command,
        call,
        arguments,
    };
    let _ = datagram::send(status, &Report::Denied { denial, times }.encode(), &[]);
}

/// The arguments that say what was wanted; the others, addresses and descriptors, would make each denial one of its own kind.
fn telling(call: i64, [first, second, third]: [u32; 3]) -> [u32; 3] {
    match call {
        libc::SYS_socket | libc::SYS_socketpair => [first, second & 0xF, third],
        libc::SYS_ioctl => [0, second, 0],
        libc::SYS_clone | libc::SYS_unshare | libc::SYS_personality => [first, 0, 0],
        _ => [0; 3],
    }
}
