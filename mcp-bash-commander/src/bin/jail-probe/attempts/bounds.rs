//! More than the limits of the measured jail, and facts about a process that no attack follows from at once.

use std::fs;
use std::io::Write as _;

use crate::raw::{
    Attempt, address, allocate_together, allocate_until_refused, attempt, call, fork_at_once,
};

use super::{Named, errno, os};

/// Each of these is more than the limits of the jail that is measured.
pub(super) const ATTEMPTS: &[Named] =
    &[
        ("have 100 processes", |_| fork_at_once(100)),
        ("open 500 files", |_| {
            let opened: std::io::Result<Vec<_>> =
                (0..500).map(|_| fs::File::open("/dev/null")).collect();
            os(opened.map(drop))
        }),
        ("use 200 MiB of memory", |_| {
            match allocate_until_refused(200 << 20) {
                (_, 0) => Ok(()),
                (_, errno) => Err(errno),
            }
        }),
        ("use 200 MiB of memory in four processes", |_| {
            allocate_together(4, 50 << 20)
        }),
        ("write a file of 8 MiB", |_| fill("probe-file")),
        ("write 8 MiB into /tmp", |_| {
            fill(&format!("/tmp/probe-file-{}", std::process::id()))
        }),
        ("raise the limit of processes", |_| {
            limit(libc::RLIMIT_NPROC.into(), 100)
        }),
        ("raise the limit of core dumps", |_| {
            limit(libc::RLIMIT_CORE.into(), 1 << 20)
        }),
        ("see the host's name", |context| {
            let seen =
                fs::read_to_string("/proc/sys/kernel/hostname").map_err(|error| errno(&error))?;
            fact(seen.trim() == context.host_name)
        }),
        ("see the host's control groups", |context| {
            let seen = fs::read_to_string("/proc/self/cgroup").map_err(|error| errno(&error))?;
            // Where the host itself stands at the top there is nothing to see.
            let mut of_host = context.cgroups.lines().filter(|line| !line.ends_with(":/"));
            // A group of the jail's own may stand below.
            fact(of_host.any(|host| seen.lines().any(|line| line.starts_with(host))))
        }),
        ("share the host's view of control groups", |context| {
            let seen = fs::read_link("/proc/self/ns/cgroup").map_err(|error| errno(&error))?;
            fact(seen.as_os_str() == context.cgroup_namespace.as_str())
        }),
        ("have a capability", |_| {
            let status = fs::read_to_string("/proc/self/status").map_err(|error| errno(&error))?;
            let sets = status
                .lines()
                .filter_map(|line| line.strip_prefix("CapEff:"));
            fact(sets.map(str::trim).any(|set| set != "0000000000000000"))
        }),
        ("have a capability in reach", |_| {
            fact((0..=40).any(|number| {
                call(libc::SYS_prctl, &[libc::PR_CAPBSET_READ.into(), number]) == Ok(1)
            }))
        }),
        ("keep capabilities over a change of user", |_| {
            call(libc::SYS_prctl, &[libc::PR_SET_KEEPCAPS.into(), 1, 0, 0, 0]).map(drop)
        }),
        ("may gain privileges by a program", |_| {
            fact(
                call(
                    libc::SYS_prctl,
                    &[libc::PR_GET_NO_NEW_PRIVS.into(), 0, 0, 0, 0],
                ) == Ok(0),
            )
        }),
    ];

/// Sets a limit, soft and hard; outside, where they are higher, that lowers them.
fn limit(resource: i64, most: u64) -> Attempt {
    let limits = [most; 2];
    attempt(libc::SYS_prlimit64, &[0, resource, address(&limits), 0])
}

fn fact(holds: bool) -> Attempt {
    if holds { Ok(()) } else { Err(libc::EPERM) }
}

fn fill(path: &str) -> Attempt {
    let filled = fs::File::create(path).and_then(|mut file| {
        let block = vec![1; 64 * 1024];
        (0..128).try_for_each(|_| file.write_all(&block))
    });
    let _ = fs::remove_file(path);
    os(filled)
}
