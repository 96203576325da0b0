//! The processes of a jail as its init sees them: in the jail's own /proc, or as its descendants in the host's.

use std::collections::HashMap;
use std::fs;

use super::protocol::CommandNumber;
use super::sys;

/// More generations than a process can have within any limit of processes.
const MOST_GENERATIONS: usize = 4096;
/// How often the tree below a command is looked through for processes that were born meanwhile.
const MOST_ROUNDS: usize = 64;

/// How many processes the jail has beside this one; `has_own` says whether it has process numbers of its own.
pub(super) fn others(has_own: bool) -> u32 {
    // All others descend from this process, those whose parents have ended directly.
    if !sys::has_children() {
        return 0;
    }
    let count = if has_own {
        all().len().saturating_sub(1)
    } else {
        below(own()).len()
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn own() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Sends `signal` to every process of the jail but this one.
pub(super) fn signal_everyone(has_own: bool, signal: i32) {
    if has_own {
        let _ = sys::signal_everyone(signal);
    } else {
        signal_below(own(), signal);
    }
}

/// Kills everything that descends from this process and not from one of its children that are `spared`. They are held first: then none
/// can have children faster than they are killed.
pub(super) fn end_others(spared: impl Fn(i32) -> bool) {
    let doomed = || -> Vec<i32> {
        let tree = Tree::now();
        let children = tree.children(own()).iter().filter(|child| !spared(**child));
        children
            .flat_map(|child| std::iter::once(*child).chain(tree.below(*child)))
            .collect()
    };
    for signal in [libc::SIGSTOP, libc::SIGKILL] {
        until_none_is_fresh(doomed, signal);
    }
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
    signal_below(leader, signal);
    let _ = sys::signal(leader, signal);
}

fn signal_below(leader: i32, signal: i32) {
    until_none_is_fresh(|| below(leader), signal);
}

/// Sends `signal` once to each of the processes that `look` finds, until it finds no further ones.
fn until_none_is_fresh(look: impl Fn() -> Vec<i32>, signal: i32) {
    let mut told: Vec<i32> = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let fresh: Vec<i32> = look()
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
}

/// Everything that descends from `leader`.
fn below(leader: i32) -> Vec<i32> {
    Tree::now().below(leader)
}

/// Which process is whose child.
struct Tree(HashMap<i32, Vec<i32>>);

impl Tree {
    fn now() -> Self {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for pid in all() {
            if let Some(parent) = parent(pid) {
                children.entry(parent).or_default().push(pid);
            }
        }
        Self(children)
    }

    fn children(&self, of: i32) -> &[i32] {
        self.0.get(&of).map_or(&[], Vec::as_slice)
    }

    fn below(&self, leader: i32) -> Vec<i32> {
        let mut found = self.children(leader).to_vec();
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            found.extend_from_slice(self.children(*pid));
            next += 1;
        }
        found
    }
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
