//! How commands and jails end.

use std::time::Duration;

use super::protocol::Consumed;

/// How a command itself ended. Exactly one of `code` and `signal` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit status, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it; 9 also when the whole jail was killed.
    pub signal: Option<i32>,
    /// CPU time of the command and its ended descendants, without the making of the jail.
    pub cpu: Duration,
    /// Largest resident memory of one of these processes, in bytes.
    pub max_rss_bytes: u64,
    /// Processes of the jail that still ran when the command had ended. Unless the jail is kept, they are killed after the
    /// specification's `linger`.
    pub left_running: u32,
    /// Did the kernel kill a process of the jail for want of memory while the command ran? `None` where there is no control group to
    /// tell.
    pub out_of_memory: Option<bool>,
}

/// The end of the whole jail, as its parent outside saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// CPU time of everything that ever ran in the jail, the making of it included.
    pub cpu: Duration,
    /// Largest resident memory of one process, in bytes.
    pub max_rss_bytes: u64,
    /// Did the kernel kill for want of memory? `None` where there is no control group to tell.
    pub out_of_memory: Option<bool>,
}

/// The exit that the wait status of the command, or of init, tells.
pub(super) fn exit_of(status: i32, usage: Consumed, left_running: u32) -> Exit {
    let signalled = libc::WIFSIGNALED(status);
    Exit {
        code: (!signalled).then(|| libc::WEXITSTATUS(status)),
        signal: signalled.then(|| libc::WTERMSIG(status)),
        cpu: Duration::from_micros(usage.cpu_micros),
        max_rss_bytes: usage.max_rss_kib * 1024,
        left_running,
        out_of_memory: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_a_code_or_a_signal_never_both() {
        let ended = exit_of(3 << 8, Consumed::default(), 0);
        assert_eq!((ended.code, ended.signal), (Some(3), None));
        let killed = exit_of(libc::SIGKILL, Consumed::default(), 0);
        assert_eq!((killed.code, killed.signal), (None, Some(9)));
    }
}
