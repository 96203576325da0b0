//! What the machine shows of processes: who is alive, what they hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// A process, and no later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) id: u32,
    started: u64,
}

impl Process {
    /// The process of this number, and its state; `None` where there is none.
    fn look(id: u32) -> Option<(Self, String)> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The state is field 3, the first one after the name; the start is field 22.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.to_owned();
        let started = fields.nth(18)?.parse().ok()?;
        Some((Self { id, started }, state))
    }

    /// Whether it runs; one that only waits to be reaped does not.
    pub(crate) fn is_alive(self) -> bool {
        Self::look(self.id).is_some_and(|(now, state)| now == self && state != "Z" && state != "X")
    }

    fn is_zombie(self) -> bool {
        Self::look(self.id).is_some_and(|(now, state)| now == self && state == "Z")
    }
}

/// A process and all its descendants.
pub(crate) fn family(root: u32) -> Vec<Process> {
    let mut family: Vec<Process> = Process::look(root)
        .map(|(process, _)| process)
        .into_iter()
        .collect();
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        next += 1;
        // A process may end while one looks.
        let threads = fs::read_dir(format!("/proc/{}/task", parent.id));
        for thread in threads.into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            family.extend(
                children
                    .split_whitespace()
                    .filter_map(|id| Some(Process::look(id.parse().ok()?)?.0)),
            );
        }
    }
    family
}

/// The launcher of a server.
pub(crate) fn launcher(server: u32) -> anyhow::Result<u32> {
    let launcher = family(server).get(1).map(|process| process.id);
    launcher.context("the server has no launcher")
}

/// A line of `/proc/PID/status` in kilobytes: `VmRSS`, `VmHWM`.
pub(crate) fn kilobytes(id: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .with_context(|| format!("no {field}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Everything that a server could leak, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) server_files: usize,
    pub(crate) launcher_files: usize,
    pub(crate) server_mounts: usize,
    pub(crate) launcher_mounts: usize,
    /// Server, launcher, and whatever is in jails.
    pub(crate) processes: usize,
    pub(crate) zombies: usize,
    pub(crate) cgroups: usize,
    /// Those its processes are in, or hold by a file or a mount.
    pub(crate) network_namespaces: usize,
}

impl Holdings {
    pub(crate) fn of(server: u32) -> anyhow::Result<Self> {
        let launcher = launcher(server)?;
        let family = family(server);
        let mut namespaces = BTreeSet::new();
        for process in &family {
            let link = fs::read_link(format!("/proc/{}/ns/net", process.id));
            namespaces.extend(link.ok());
        }
        for id in [server, launcher] {
            namespaces.extend(open_files(id)?.into_iter().filter(|file| {
                let name = file.to_string_lossy();
                name.starts_with("net:") || name.starts_with("/proc/") && name.contains("/ns/")
            }));
            namespaces.extend(
                mounts(id)?
                    .lines()
                    .filter(|line| line.starts_with("nsfs"))
                    .map(Into::into),
            );
        }
        Ok(Self {
            server_files: open_files(server)?.len(),
            launcher_files: open_files(launcher)?.len(),
            server_mounts: mounts(server)?.lines().count(),
            launcher_mounts: mounts(launcher)?.lines().count(),
            processes: family.len(),
            zombies: family.iter().filter(|process| process.is_zombie()).count(),
            cgroups: folders_below("/sys/fs/cgroup".as_ref()),
            network_namespaces: namespaces.len(),
        })
    }
}

fn open_files(id: u32) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let files = fs::read_dir(format!("/proc/{id}/fd"))?;
    Ok(files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .collect())
}

fn mounts(id: u32) -> anyhow::Result<String> {
    Ok(fs::read_to_string(format!("/proc/{id}/mounts"))?)
}

fn folders_below(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| 1 + folders_below(&entry.path()))
        .sum()
}
