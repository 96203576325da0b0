//! The workspace in a jail: its directory, mapped for a root server, or an overlay that keeps what is changed of it aside.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

use super::child::Failure;
use super::order::WorkspaceOrder;
use super::root::{NO_DEVICES, NO_SETUID, READ_ONLY, attach, copy_tree, make_directories, set};
use super::sys::{self, MountAttributes};
use super::{Access, Layer};

const ID_MAPPED: u64 = 0x0010_0000;
/// Where the parts of an overlay are mounted while it is made; nothing of it is left when a command starts.
const PARTS: &str = ".overlay";

/// A directory of the host that becomes part of the workspace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    layer: Layer,
    source: &'a Path,
    attributes: u64,
}

impl<'a> Place<'a> {
    /// The workspace's own directory, then that of its overlay if it has one.
    pub(super) fn of(workspace: &'a WorkspaceOrder) -> Vec<Self> {
        let is_changed = workspace.access == Access::ReadWrite && workspace.overlay.is_none();
        let mut places = vec![Self {
            layer: Layer::Workspace,
            source: &workspace.source,
            attributes: NO_SETUID | NO_DEVICES | if is_changed { 0 } else { READ_ONLY },
        }];
        places.extend(workspace.overlay.as_deref().map(|source| Self {
            layer: Layer::Overlay,
            source,
            attributes: NO_SETUID | NO_DEVICES,
        }));
        places
    }

    pub(super) fn failure(&self, errno: Errno) -> Failure {
        Failure::new(self.layer, errno, self.source.display().to_string())
    }

    /// Takes it by its pinned directory, mapped so that its owner's files belong to the jail's user. For privileged servers.
    pub(super) fn take_mapped(
        &self,
        pinned: BorrowedFd<'_>,
        mapping: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd, Failure> {
        let failed = |errno| self.failure(errno);
        let tree = copy_tree(pinned, "", false).map_err(failed)?;
        if let Some(mapping) = mapping {
            let attributes = MountAttributes {
                set: ID_MAPPED,
                user_namespace: mapping.as_raw_fd().try_into().unwrap_or(u64::MAX),
                ..MountAttributes::default()
            };
            sys::mount_setattr(&tree, false, &attributes).map_err(failed)?;
        }
        set(&tree, false, self.attributes).map_err(failed)?;
        Ok(tree)
    }

    /// Takes it by its path, and makes sure that it is still the pinned directory.
    fn take(&self, pinned: &OwnedFd) -> Result<OwnedFd, Failure> {
        let failed = |errno| self.failure(errno);
        let tree = copy_tree(CWD, self.source, true).map_err(failed)?;
        let (now, then) = (
            rustix::fs::fstat(&tree).map_err(failed)?,
            rustix::fs::fstat(pinned).map_err(failed)?,
        );
        if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) {
            return Err(failed(Errno::STALE));
        }
        set(&tree, true, self.attributes).map_err(failed)?;
        Ok(tree)
    }
}

/// The trees of the workspace and its overlay: those the launcher mapped, else taken from the mounts this process sees.
pub(super) fn take(
    workspace: &WorkspaceOrder,
    mapped: Vec<OwnedFd>,
    pinned: &[OwnedFd],
) -> Result<Vec<OwnedFd>, Failure> {
    if !mapped.is_empty() {
        return Ok(mapped);
    }
    Place::of(workspace)
        .into_iter()
        .zip(pinned)
        .map(|(place, pinned)| place.take(pinned))
        .collect()
}

/// Puts the workspace at its place below `root`.
pub(super) fn place(
    root: &OwnedFd,
    workspace: &WorkspaceOrder,
    trees: Vec<OwnedFd>,
) -> Result<(), Failure> {
    let failed = |errno| {
        Failure::new(
            Layer::Workspace,
            errno,
            workspace.target.display().to_string(),
        )
    };
    let mut trees = trees.into_iter();
    let lower = trees.next().ok_or(Errno::BADF).map_err(failed)?;
    let tree = match trees.next() {
        None => lower,
        Some(kept) => overlay(root, &lower, &kept).map_err(|errno| {
            let source = workspace.overlay.as_deref().unwrap_or(Path::new(""));
            Failure::new(Layer::Overlay, errno, source.display().to_string())
        })?,
    };
    make_directories(root.as_fd(), &workspace.target)
        .and_then(|place| attach(&tree, &place, ""))
        .map_err(failed)
}

/// An overlay over `lower` that keeps what is changed in the directory `upper` of `kept`. Its options see to it that what is kept says
/// all there is to say: no file is there by a reference to another.
fn overlay(root: &OwnedFd, lower: &OwnedFd, kept: &OwnedFd) -> Result<OwnedFd, Errno> {
    for (tree, name) in [(lower, "lower"), (kept, "kept")] {
        let place = make_directories(root.as_fd(), &Path::new(PARTS).join(name))?;
        attach(tree, &place, "")?;
    }
    // The paths of an overlay's parts can only be given as text.
    rustix::process::fchdir(root)?;
    let file_system = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (option, value) in [
        ("lowerdir", format!("{PARTS}/lower")),
        ("upperdir", format!("{PARTS}/kept/upper")),
        ("workdir", format!("{PARTS}/kept/work")),
        ("redirect_dir", "nofollow".to_owned()),
        ("metacopy", "off".to_owned()),
        ("index", "off".to_owned()),
        ("xino", "off".to_owned()),
    ] {
        rustix::mount::fsconfig_set_string(&file_system, option, value)?;
    }
    rustix::mount::fsconfig_set_flag(&file_system, "userxattr")?;
    rustix::mount::fsconfig_create(&file_system)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    for name in ["lower", "kept"] {
        let path = format!("{PARTS}/{name}");
        rustix::mount::unmount(path.as_str(), UnmountFlags::DETACH)?;
        rustix::fs::unlinkat(root, path.as_str(), AtFlags::REMOVEDIR)?;
    }
    rustix::fs::unlinkat(root, PARTS, AtFlags::REMOVEDIR)?;
    Ok(mount)
}
