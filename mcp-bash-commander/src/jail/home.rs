//! The launcher's own namespaces, which it leaves for the moment in which it clones: what is not made anew for a jail, the clone has from
//! where it was made.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::sys::{self, Side};

/// The mount and network namespaces of this process.
#[derive(Debug)]
pub(super) struct Home {
    mounts: OwnedFd,
    network: OwnedFd,
    proc: OwnedFd,
    /// Its root, where that is not the topmost one of its mounts (chroot), to which entering them leads.
    root: Option<OwnedFd>,
}

/// Where a clone is to stand, apart from what its own flags make.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Elsewhere<'a> {
    pub(super) mounts: Option<BorrowedFd<'a>>,
    pub(super) network: Option<BorrowedFd<'a>>,
}

impl Elsewhere<'_> {
    /// Is it nowhere else?
    pub(super) fn is_here(self) -> bool {
        self.mounts.is_none() && self.network.is_none()
    }
}

impl Home {
    /// None where this process may not leave its namespaces.
    pub(super) fn find() -> Option<Self> {
        let identity = || rustix::fs::stat("/").map(|root| (root.st_dev, root.st_ino));
        let here = identity().ok()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty()).ok()?;
        let mut home = Self {
            mounts: of_process("self", "mnt").ok()?,
            network: of_process("self", "net").ok()?,
            proc: rustix::fs::open("/proc", flags, Mode::empty()).ok()?,
            root: None,
        };
        home.enter_own().ok()?;
        if identity() != Ok(here) {
            home.root = Some(root);
        }
        home.come_back();
        Some(home)
    }

    /// The `/proc` of here, for a clone that does not see it any more.
    pub(super) fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// Clones this process as [`sys::clone_process`] does, with the new one elsewhere. The old one never stays there.
    pub(super) fn clone_elsewhere(
        &self,
        flags: libc::c_int,
        elsewhere: Elsewhere<'_>,
    ) -> Result<Side, Errno> {
        if elsewhere.is_here() {
            return sys::clone_process(flags);
        }
        let cloned = enter(elsewhere).and_then(|()| sys::clone_process(flags));
        if matches!(cloned, Ok(Side::Child)) {
            return cloned;
        }
        self.come_back();
        cloned
    }

    fn come_back(&self) {
        let root = self.root.as_ref();
        let back = self.enter_own().and_then(|()| {
            root.map_or(Ok(()), |root| {
                rustix::process::fchdir(root)?;
                rustix::process::chroot(".")
            })
        });
        if back.is_err() {
            // Whatever it would take from here would not be the host's. The server starts another.
            sys::exit_now(1);
        }
    }

    fn enter_own(&self) -> Result<(), Errno> {
        enter(Elsewhere {
            mounts: Some(self.mounts.as_fd()),
            network: Some(self.network.as_fd()),
        })
    }
}

fn enter(Elsewhere { mounts, network }: Elsewhere<'_>) -> Result<(), Errno> {
    if let Some(network) = network {
        move_into_link_name_space(network, Some(LinkNameSpaceType::Network))?;
    }
    if let Some(mounts) = mounts {
        move_into_link_name_space(mounts, Some(LinkNameSpaceType::Mount))?;
    }
    Ok(())
}

/// A namespace of a process, kept alive by its descriptor.
pub(super) fn of_process(process: impl std::fmt::Display, kind: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(
        format!("/proc/{process}/ns/{kind}"),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
