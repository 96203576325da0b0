//! For servers that run as root: the mapping by which the workspace owner's files belong to the jail's user, inside the jail only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;

use super::sys::{self, Side};

/// The user namespaces that hold the mappings made so far, by owner's uid and gid.
#[derive(Default)]
pub(super) struct Mappings(HashMap<(u32, u32), OwnedFd>);

impl Mappings {
    /// A user namespace in which `owner` on disk is `jailed` in the kernel's eyes; `None` if they are the same.
    pub(super) fn of(
        &mut self,
        owner: (u32, u32),
        jailed: (u32, u32),
    ) -> Result<Option<&OwnedFd>, Errno> {
        if owner == jailed {
            return Ok(None);
        }
        Ok(Some(match self.0.entry(owner) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => place.insert(user_namespace(owner, jailed)?),
        }))
    }
}

/// A user namespace that maps one uid and one gid, kept alive by nothing but its descriptor.
fn user_namespace(inside: (u32, u32), outside: (u32, u32)) -> Result<OwnedFd, Errno> {
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match sys::clone_process(libc::CLONE_NEWUSER)? {
        Side::Child => {
            drop(go);
            // Ends with the launcher, or as soon as it is killed below.
            let _ = rustix::io::read(&wait, &mut [0; 1]);
            sys::exit_now(0)
        }
        Side::Parent { pid, pidfd } => {
            let namespace = write_map(pid, inside, outside).and_then(|()| {
                rustix::fs::open(
                    format!("/proc/{pid}/ns/user"),
                    OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
            });
            // The launcher's loop reaps it like any other child.
            let _ = rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL);
            namespace
        }
    }
}

/// Maps one uid and one gid of the new user namespace of `pid`.
pub(super) fn write_map(pid: i32, inside: (u32, u32), outside: (u32, u32)) -> Result<(), Errno> {
    let write = |name: &str, content: String| {
        fs::write(format!("/proc/{pid}/{name}"), content)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    // An unprivileged process may map groups only when they cannot be dropped inside.
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("{} {} 1", inside.1, outside.1))?;
    write("uid_map", format!("{} {} 1", inside.0, outside.0))
}
