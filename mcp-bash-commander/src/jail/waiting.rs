//! Does a process wait for input? Told by what it is blocked in, read in /proc from outside the jail.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use rustix::io::Errno;

use super::{Identity, Input, usage};

/// Most descriptors that are looked at of one call that waits for several.
const MOST_POLLED: u64 = 64;
/// Major device number of terminals.
const TERMINALS: u32 = 136;

/// The input of a command, as its processes hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwaitedInput {
    device: u64,
    /// The inode of a pipe, the device number of a terminal.
    node: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Pipe(u64),
    Terminal(u64),
}

impl AwaitedInput {
    /// What to look for.
    ///
    /// # Errors
    /// A descriptor the kernel tells nothing of.
    pub fn of(input: &Input) -> io::Result<Self> {
        let descriptor = input.descriptor();
        let stat = rustix::fs::fstat(descriptor)?;
        let node = if input.is_terminal() {
            // Both ends belong to one file system, and the number of a terminal is its minor device number.
            let name = rustix::pty::ptsname(descriptor, Vec::new())?;
            let number: u32 = name
                .to_str()
                .ok()
                .and_then(|name| name.rsplit('/').next()?.parse().ok())
                .ok_or(Errno::NOTTY)?;
            Node::Terminal(rustix::fs::makedev(TERMINALS, number))
        } else {
            Node::Pipe(stat.st_ino)
        };
        Ok(Self {
            device: stat.st_dev,
            node,
        })
    }

    /// Is a process of the jail blocked reading it?
    pub fn is_read_in(&self, init: Identity) -> bool {
        usage::processes(init)
            .unwrap_or_default()
            .into_iter()
            .any(|pid| self.is_read_by(pid))
    }

    fn is_read_by(&self, pid: i32) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return false;
        };
        threads.flatten().any(|thread| {
            let call = fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
            waited_for(pid, &call)
                .into_iter()
                .any(|descriptor| self.is_descriptor(pid, descriptor))
        })
    }

    fn is_descriptor(&self, pid: i32, descriptor: u64) -> bool {
        let Ok(file) = fs::metadata(format!("/proc/{pid}/fd/{descriptor}")) else {
            return false;
        };
        let is_node = match self.node {
            Node::Pipe(inode) => file.ino() == inode,
            Node::Terminal(device) => file.rdev() == device,
        };
        is_node && file.dev() == self.device
    }
}

/// The descriptors a blocked call waits to read from; `call` is a line of `/proc/<pid>/syscall`.
fn waited_for(pid: i32, call: &str) -> Vec<u64> {
    let mut fields = call.split_whitespace();
    let Some(Ok(number)) = fields.next().map(str::parse::<i64>) else {
        // It runs, or is gone.
        return Vec::new();
    };
    let arguments: Vec<u64> = fields
        .filter_map(|field| u64::from_str_radix(field.trim_start_matches("0x"), 16).ok())
        .collect();
    let argument = |at: usize| arguments.get(at).copied().unwrap_or(0);
    match number {
        libc::SYS_read | libc::SYS_readv => vec![argument(0)],
        libc::SYS_ppoll => polled(pid, argument(0), argument(1)),
        libc::SYS_pselect6 => selected(pid, argument(0), argument(1)),
        libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => in_epoll(pid, argument(0)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => polled(pid, argument(0), argument(1)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => selected(pid, argument(0), argument(1)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => in_epoll(pid, argument(0)),
        _ => Vec::new(),
    }
}

/// The descriptors of an array of `struct pollfd` that are waited on to be readable.
fn polled(pid: i32, address: u64, count: u64) -> Vec<u64> {
    const READABLE: u8 = 1;
    let bytes = memory(pid, address, count.min(MOST_POLLED) * 8);
    bytes
        .chunks_exact(8)
        .filter(|entry| entry[4] & READABLE != 0)
        .filter_map(|entry| {
            let descriptor = i32::from_ne_bytes(entry[..4].try_into().ok()?);
            u64::try_from(descriptor).ok()
        })
        .collect()
}

/// The members of the set of descriptors that are to be readable.
fn selected(pid: i32, count: u64, address: u64) -> Vec<u64> {
    if address == 0 {
        return Vec::new();
    }
    let count = count.min(MOST_POLLED);
    let bytes = memory(pid, address, count.div_ceil(8));
    (0..count)
        .filter(|descriptor| {
            let byte = usize::try_from(descriptor / 8).unwrap_or(usize::MAX);
            bytes
                .get(byte)
                .is_some_and(|byte| byte & (1 << (descriptor % 8)) != 0)
        })
        .collect()
}

fn in_epoll(pid: i32, descriptor: u64) -> Vec<u64> {
    let told = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap_or_default();
    told.lines()
        .filter_map(|line| {
            line.strip_prefix("tfd:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .collect()
}

/// Bytes of a process's memory. They may change meanwhile: nothing depends on them but what a caller is told.
fn memory(pid: i32, address: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = fs::File::open(format!("/proc/{pid}/mem"))
        .and_then(|memory| memory.read_exact_at(&mut bytes, address));
    if read.is_ok() { bytes } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_reads_names_its_descriptor_and_one_that_does_not_names_none() {
        let read = format!(
            "{} 0x0 0x7ffd 0x1000 0x0 0x0 0x0 0x7ffc 0x7f01",
            libc::SYS_read
        );
        assert_eq!(waited_for(1, &read), [0]);
        let written = format!(
            "{} 0x1 0x7ffd 0x1000 0x0 0x0 0x0 0x7ffc 0x7f01",
            libc::SYS_write
        );
        assert!(waited_for(1, &written).is_empty());
        assert!(waited_for(1, "running\n").is_empty());
        assert!(waited_for(1, "").is_empty());
    }
}
