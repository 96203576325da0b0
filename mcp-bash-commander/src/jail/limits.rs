//! Resource limits of a jailed command, set in the command's own process before it starts.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Layer, Limits, child::Failure};

/// Sets every limit, hard and soft, that of processes to `most_processes` if this process is to bound them. A limit above the inherited
/// hard limit is refused, not silently lowered.
pub(super) fn apply(limits: &Limits, most_processes: Option<u64>) -> Result<(), Failure> {
    let wanted = [
        (Resource::Cpu, limits.cpu_seconds, "cpu_seconds"),
        (Resource::Data, limits.memory_bytes, "memory_bytes"),
        (Resource::Fsize, limits.file_bytes, "file_bytes"),
        (Resource::Nofile, limits.open_files, "open_files"),
        // Too little for a file, and at exactly 1 the kernel gives nothing to a handler of the host either; at 0 it would.
        (Resource::Core, 1, "core"),
        (Resource::Memlock, 8 << 20, "memlock"),
        (Resource::Msgqueue, 800 << 10, "msgqueue"),
        (Resource::Sigpending, 4096, "sigpending"),
    ];
    let of_processes = most_processes.map(|most| (Resource::Nproc, most, "processes"));
    for (resource, limit, name) in wanted.into_iter().chain(of_processes) {
        let inherited = getrlimit(resource).maximum;
        // Locked memory and queues are bounds of ours, not asked for: what is lower already stays.
        let ours = matches!(
            resource,
            Resource::Memlock | Resource::Msgqueue | Resource::Sigpending
        );
        let limit = if ours {
            limit.min(inherited.unwrap_or(u64::MAX))
        } else {
            limit
        };
        setrlimit(
            resource,
            Rlimit {
                current: Some(limit),
                maximum: Some(limit),
            },
        )
        .map_err(|errno: Errno| Failure::new(Layer::Limits, errno, format!("{name} {limit}")))?;
    }
    Ok(())
}
