//! The processes of a jail as its init sees them in the jail's own /proc.

use std::collections::HashMap;
use std::fs;

use super::protocol::CommandNumber;
use super::sys;

/// More generations than a process can have within any limit of processes.
const MOST_GENERATIONS: usize = 4096;
/// How often the tree below a command is looked through for processes that were born meanwhile.
const MOST_ROUNDS: usize = 64;

/// How many processes the jail has beside this one.
pub(super) fn others() -> u32 {
    u32::try_from(all().len().saturating_sub(1)).unwrap_or(u32::MAX)
}

/// The command that `pid` belongs to: the nearest one above it, else the only one there is.
pub(super) fn command_of(
    commands: &HashMap<i32, CommandNumber>,
    pid: i32,
) -> Option<CommandNumber> {
    let mut at = pid;
    for _ in 0..MOST_GENERATIONS {
        if let Some(command) = commands.get(&at) {
            return Some(*command);
        }
        match parent(at) {
            Some(above) if above > 1 => at = above,
            _ => break,
        }
    }
    let mut numbers = commands.values();
    match (numbers.next(), numbers.next()) {
        (Some(only), None) => Some(*only),
        _ => None,
    }
}

/// Sends `signal` to `leader` and everything below it, the leader last: while it lives, nothing below it can get away.
pub(super) fn signal_tree(leader: i32, signal: i32) {
    if signal == libc::SIGKILL {
        // Else it could see its children end and end by itself, which would look like an end of its own.
        let _ = sys::signal(leader, libc::SIGSTOP);
    }
    let mut told: Vec<i32> = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let fresh: Vec<i32> = below(leader)
            .into_iter()
            .filter(|pid| !told.contains(pid))
            .collect();
        if fresh.is_empty() {
            break;
        }
        for pid in &fresh {
            let _ = sys::signal(*pid, signal);
        }
        told.extend(fresh);
    }
    let _ = sys::signal(leader, signal);
}

/// Everything that descends from `leader`.
fn below(leader: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in all() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&leader).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let more = children.remove(pid).unwrap_or_default();
        found.extend(more);
        next += 1;
    }
    found
}

fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}
