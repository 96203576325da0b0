//! What the processes of a jail use and who serves, read in /proc from outside the jail.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::Serialize;

use super::{Identity, JailError};

/// The processes of a jail at one moment, its init left out: that one is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Is there at least one process?
    pub alive: bool,
    /// How many processes.
    pub processes: u32,
    /// Memory of all of them together, in bytes: the proportional share (PSS) of each where the kernel tells it, else its resident
    /// size.
    pub memory_bytes: u64,
    /// Is each process counted by its proportional share, so that shared pages count once?
    pub memory_is_proportional: bool,
    /// The uids the kernel sees, ascending.
    pub kernel_uids: Vec<u32>,
}

/// A process that was killed because it served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndedProcess {
    /// Its process id in the server's pid namespace.
    pub pid: i32,
    /// Its name, as in `/proc/<pid>/comm`.
    pub name: String,
}

/// Start time of a process that had ended before it was looked at; the kernel's own first process starts later.
const GONE: u64 = 0;

/// The identity of the process `pid`. Of one that has ended it is an identity that no process has.
pub(super) fn identify(pid: i32) -> Identity {
    let start_ticks = stat_field(pid, 22).unwrap_or(GONE);
    Identity { pid, start_ticks }
}

pub(super) fn measure(init: Identity) -> io::Result<Usage> {
    let mut usage = Usage {
        alive: false,
        processes: 0,
        memory_bytes: 0,
        memory_is_proportional: true,
        kernel_uids: Vec::new(),
    };
    let mut uids = BTreeSet::new();
    for pid in processes(init)? {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
            continue;
        };
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        if status.contains("\nState:\tZ") {
            continue;
        }
        usage.processes += 1;
        uids.extend(number("Uid:").and_then(|uid| u32::try_from(uid).ok()));
        let proportional = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .ok()
            .and_then(|rollup| {
                let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
                line.split_whitespace().next()?.parse::<u64>().ok()
            });
        let kib = proportional.or_else(|| {
            usage.memory_is_proportional = false;
            number("VmRSS:")
        });
        usage.memory_bytes += kib.unwrap_or(0) * 1024;
    }
    usage.alive = usage.processes > 0;
    usage.kernel_uids = uids.into_iter().collect();
    Ok(usage)
}

/// Does a process of the jail listen on `port`?
pub(super) fn serves(init: Identity, port: u16) -> io::Result<bool> {
    let sockets = listening_sockets(init.pid, port)?;
    let mut processes = processes(init)?.into_iter();
    Ok(processes.any(|pid| holds_one_of(pid, &sockets)))
}

pub(super) fn end_serving(init: Identity, port: u16) -> Result<Vec<EndedProcess>, JailError> {
    let in_proc = "read the jail's processes in /proc";
    let sockets = listening_sockets(init.pid, port).map_err(JailError::io(in_proc))?;
    let mut ended = Vec::new();
    for pid in processes(init).map_err(JailError::io(in_proc))? {
        // The pidfd comes first: should the process end now and its number be used again, the signal reaches nobody.
        let Some(pidfd) = open(pid) else { continue };
        if holds_one_of(pid, &sockets) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
                ended.push(EndedProcess {
                    pid,
                    name: name.trim_end().to_owned(),
                });
            }
        }
    }
    if ended.is_empty() {
        Err(JailError::NotServing(port))
    } else {
        Ok(ended)
    }
}

fn open(pid: i32) -> Option<OwnedFd> {
    rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

fn holds_one_of(pid: i32, sockets: &HashSet<String>) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
}

/// The sockets that listen on `port` in the network namespace of `pid`, as the links of `/proc/<pid>/fd` name them.
fn listening_sockets(pid: i32, port: u16) -> io::Result<HashSet<String>> {
    let mut tables = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    tables.push_str(&fs::read_to_string(format!("/proc/{pid}/net/tcp6")).unwrap_or_default());
    Ok(tables
        .lines()
        .filter_map(|line| listening_inode(line, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect())
}

fn listening_inode(line: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let matches = *fields.get(3)? == LISTEN && u16::from_str_radix(local_port, 16).ok()? == port;
    matches.then(|| fields.get(9).copied()).flatten()
}

/// Every process below `init`, which adopts all orphans of the jail. Empty when init is gone.
pub(super) fn processes(init: Identity) -> io::Result<Vec<i32>> {
    if init.start_ticks == GONE || identify(init.pid) != init {
        return Ok(Vec::new());
    }
    let mut found = children(init.pid)?;
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid)?);
        next += 1;
    }
    Ok(found)
}

fn children(pid: i32) -> io::Result<Vec<i32>> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(
                list.split_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            ),
            Err(_) if !thread.path().exists() => {}
            // A kernel without CONFIG_PROC_CHILDREN.
            Err(_) => return children_by_parent(pid),
        }
    }
    Ok(found)
}

fn children_by_parent(parent: i32) -> io::Result<Vec<i32>> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if let Ok(parent) = stat_field(pid, 4) {
            parents.insert(pid, parent);
        }
    }
    let parent = u64::try_from(parent).unwrap_or(0);
    Ok(parents
        .into_iter()
        .filter_map(|(pid, of)| (of == parent).then_some(pid))
        .collect())
}

/// Field `number` of `/proc/<pid>/stat`, counted from 1 as in the manual; only fields behind the name.
fn stat_field(pid: i32, number: usize) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    fields
        .split_whitespace()
        .nth(number - 3)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port_and_a_connection_is_not() {
        let listening = "   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65534 0 4711 1";
        let connected = "   1: 0100007F:0050 0100007F:D431 01 00000000:00000000 00:00000000 00000000 65534 0 4712 1";
        assert_eq!(listening_inode(listening, 80), Some("4711"));
        assert_eq!(listening_inode(listening, 81), None);
        assert_eq!(listening_inode(connected, 80), None);
    }

    #[test]
    fn both_ways_of_finding_children_agree() -> anyhow::Result<()> {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()?;
        let pid = i32::try_from(child.id())?;
        let own = i32::try_from(std::process::id())?;
        let (by_list, by_parent) = (children(own)?, children_by_parent(own)?);
        child.kill()?;
        child.wait()?;
        assert!(by_list.contains(&pid) && by_parent.contains(&pid));
        Ok(())
    }

    #[test]
    fn a_process_number_used_again_is_another_identity() -> anyhow::Result<()> {
        let own = identify(i32::try_from(std::process::id())?);
        let other = Identity {
            start_ticks: own.start_ticks + 1,
            ..own
        };
        assert_eq!(processes(other)?, Vec::<i32>::new());
        Ok(())
    }
}
