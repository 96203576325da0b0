//! The attempts, by name: each is one thing a jailed command must not be able to do.

mod bounds;
mod files;
mod kernel;
mod processes;
mod sockets;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read as _;

use serde::Deserialize;

use crate::raw::{Attempt, address, apart, attempt, call, room, text};

/// What there is outside to be reached.
#[derive(Deserialize)]
pub(crate) struct Context {
    /// A file outside every grant, by its absolute path.
    canary: String,
    /// A path to it with `..`, from the working directory.
    detour: String,
    /// A symbolic link to it in the working directory.
    link: String,
    /// A local socket of the host, and an abstract one.
    socket: String,
    abstract_socket: String,
    /// TCP and UDP listeners of the host.
    tcp: u16,
    udp: u16,
    /// The process id of the server.
    server: i32,
    /// The process id of init; for the control, of a process that stands for it.
    init: i32,
    /// Keys of a System V shared memory segment, of semaphores and of a queue; and the name of a POSIX queue, without its slash.
    shared_memory: i32,
    semaphores: i32,
    messages: i32,
    queue: String,
    /// A block device of the host.
    disk: String,
    /// The host's name, its control groups as a process sees them, and the namespace of those.
    host_name: String,
    cgroups: String,
    cgroup_namespace: String,
}

/// A name and what is tried under it.
type Named = (&'static str, fn(&Context) -> Attempt);

/// Makes every attempt in a process of its own. 0 is success, a positive number the error, a negative one the signal that ended it.
pub(crate) fn all(context: &Context) -> BTreeMap<&'static str, i32> {
    [
        files::ATTEMPTS,
        processes::ATTEMPTS,
        kernel::ATTEMPTS,
        sockets::ATTEMPTS,
        bounds::ATTEMPTS,
    ]
    .into_iter()
    .flatten()
    .map(|(name, action)| (*name, apart(|| action(context))))
    .collect()
}

const AT_FDCWD: i64 = -100;
const PTRACE_SEIZE: i64 = 0x4206;

/// An address that is not mapped: EFAULT says that the call came through.
fn read_memory(pid: i32) -> Attempt {
    let (local, remote) = ([room(&[0; 8]), 8], [0x1000_i64, 8]);
    reached(
        call(
            libc::SYS_process_vm_readv,
            &[pid.into(), address(&local), 1, address(&remote), 1, 0],
        ),
        &[libc::EFAULT],
    )
}

fn os(result: std::io::Result<()>) -> Attempt {
    result.map_err(|error| errno(&error))
}

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EINVAL)
}

/// Reads a first byte; a file without one told nothing.
fn read(path: &str) -> Attempt {
    os(fs::File::open(path).and_then(|mut file| file.read_exact(&mut [0; 1])))
}

fn unshare(namespace: i32) -> Attempt {
    attempt(libc::SYS_unshare, &[namespace.into()])
}

fn open_to_write(path: &str) -> Attempt {
    os(OpenOptions::new().write(true).open(path).map(drop))
}

/// Success also for errors that only the code behind every check can give.
fn reached(result: Result<i64, i32>, behind: &[i32]) -> Attempt {
    match result {
        Err(errno) if !behind.contains(&errno) => Err(errno),
        _ => Ok(()),
    }
}

fn attempt_clone(flags: i32) -> Attempt {
    match call(
        libc::SYS_clone,
        &[i64::from(flags | libc::SIGCHLD), 0, 0, 0, 0],
    )? {
        0 => Ok(()),
        child => attempt(libc::SYS_wait4, &[child, 0, 0, 0]),
    }
}

/// A software event of this process.
fn perf_attributes() -> [u32; 32] {
    let mut attributes = [0; 32];
    attributes[0] = 1;
    attributes[1] = 128;
    attributes
}

/// Sends a few bytes to a port of 127.0.0.1, connecting first unless the flags do that.
fn send_to(kind: i32, protocol: i64, port: u16, flags: i64) -> Attempt {
    let [high, low] = port.to_be_bytes();
    let name = [2, 0, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0_u8];
    let socket = call(libc::SYS_socket, &[2, kind.into(), protocol])?;
    if flags == 0 {
        attempt(libc::SYS_connect, &[socket, address(&name), 16])?;
        return attempt(libc::SYS_write, &[socket, text("sent"), 4]);
    }
    attempt(
        libc::SYS_sendto,
        &[socket, text("sent"), 4, flags, address(&name), 16],
    )
}
