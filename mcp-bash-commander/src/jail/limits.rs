//! Resource limits of a jailed command, set in the command's own process before it starts.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Layer, Limits, child::Failure};

/// Sets every limit, hard and soft. A limit above the inherited hard limit is refused, not silently lowered.
///
/// The kernel counts processes by user and user namespace: where the jail has none of its own, its user's other processes would count
/// too, and the number of the jail's is bounded by whoever made its surroundings.
pub(super) fn apply(limits: &Limits, has_user_namespace: bool) -> Result<(), Failure> {
    let of_processes = (Resource::Nproc, limits.processes, "processes");
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
    let of_processes = has_user_namespace.then_some(of_processes);
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
