//! The private root: what of the host is there, read-only; the workspace; memory for `/tmp`; a minimal `/dev` and a fresh `/proc`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::Layer;
use super::child::{Failure, Identity};
use super::order::Order;
use super::pinned::{self, Guard, Watched};
use super::sys::{self, MountAttributes};
use super::workspace;

pub(super) const READ_ONLY: u64 = 0x1;
pub(super) const NO_SETUID: u64 = 0x2;
pub(super) const NO_DEVICES: u64 = 0x4;
const NO_EXECUTION: u64 = 0x8;
const PRIVATE: u64 = 1 << 18;

/// The device nodes of the jail.
pub(super) const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Entries of /proc that tell or control something of the whole machine and that file permissions alone do not close.
const MASKED: [&str; 5] = ["kcore", "keys", "key-users", "sysrq-trigger", "timer_list"];

/// A read-only part of the host, taken out of the host's mounts and not yet put into the jail.
pub(super) enum Part {
    /// The host has a symbolic link here.
    Link { path: PathBuf, to: PathBuf },
    /// A copy of the mount, ready to be attached.
    Tree {
        path: PathBuf,
        tree: OwnedFd,
        directory: bool,
    },
}

/// Takes these read-only parts from the mounts this process sees.
pub(super) fn take_parts(read_only: &[PathBuf]) -> Result<Vec<Part>, Failure> {
    let mut parts: Vec<Part> = Vec::with_capacity(read_only.len());
    for path in read_only {
        let failed = |errno| Failure::new(Layer::PrivateRoot, errno, path.display().to_string());
        if !path.is_absolute() || path == Path::new("/") || has_detours(path) {
            return Err(failed(Errno::INVAL));
        }
        let covered = parts.iter().any(|part| match part {
            Part::Tree { path: above, .. } => path.starts_with(above),
            Part::Link { .. } => false,
        });
        if covered {
            rustix::fs::lstat(path).map_err(failed)?;
            continue;
        }
        let kind = FileType::from_raw_mode(rustix::fs::lstat(path).map_err(failed)?.st_mode);
        if kind == FileType::Symlink {
            let to = std::fs::read_link(path)
                .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
            parts.push(Part::Link {
                path: path.clone(),
                to,
            });
            continue;
        }
        let tree = copy_tree(CWD, path, true).map_err(failed)?;
        set(&tree, true, READ_ONLY | NO_SETUID | NO_DEVICES).map_err(failed)?;
        parts.push(Part::Tree {
            path: path.clone(),
            tree,
            directory: kind == FileType::Directory,
        });
    }
    Ok(parts)
}

/// What of the host a root begins with.
pub(super) enum Base {
    /// Its read-only parts, still to be taken from the mounts this process sees.
    Seen,
    /// The same, taken already.
    Taken(Vec<Part>),
    /// This process stands in a copy of a [`Template`](super::template::Template), which has them in place.
    Standing,
}

/// What a root is made of.
pub(super) struct Materials {
    pub(super) base: Base,
    /// The trees of the workspace and its overlay, where the launcher mapped them.
    pub(super) mapped: Vec<OwnedFd>,
    /// The directories of the workspace and its overlay.
    pub(super) pinned: Vec<OwnedFd>,
    /// The bytes of each pinned input.
    pub(super) inputs: Vec<OwnedFd>,
}

/// A root under construction, in the mount namespace of this process.
pub(super) struct Root {
    /// What a command must not change.
    pub(super) watched: Vec<Watched>,
    tree: OwnedFd,
    proc: OwnedFd,
}

/// Builds the root and makes it this process's own; the host's is gone afterwards.
pub(super) fn enter(
    order: &Order,
    identity: Identity,
    materials: Materials,
) -> Result<Root, Failure> {
    let Materials {
        base,
        mapped,
        pinned,
        inputs,
    } = materials;
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::PrivateRoot, errno, step.to_owned());
    make_mounts_private()?;
    let trees = match &order.workspace {
        Some(workspace) => workspace::take(workspace, mapped, &pinned)?,
        None => Vec::new(),
    };
    let (root, is_standing) = match base {
        Base::Standing => (open_root().map_err(failed("open the root"))?, true),
        Base::Taken(parts) => (begin(parts, identity)?, false),
        Base::Seen => (begin(take_parts(&order.read_only)?, identity)?, false),
    };
    place_tmp(&root, order.limits.tmp_bytes).map_err(failed("mount /tmp"))?;
    place_terminals(&root).map_err(failed("mount /dev/pts"))?;
    let proc = place_proc(&root).map_err(failed("mount /proc"))?;
    mask_proc(&root, &proc).map_err(failed("mask parts of /proc"))?;
    let mut watched = Vec::new();
    match (&order.workspace, order.inputs.first()) {
        (Some(workspace), _) => {
            workspace::place(&root, workspace, trees)?;
            let mut guard = Guard::new(&root, workspace);
            pinned::place_masks(&mut guard, &order.masked)?;
            pinned::place_protected(&mut guard, &order.protected)?;
            pinned::place_linked(&mut guard, &order.linked)?;
            pinned::place_inputs(&mut guard, &order.inputs, &inputs)?;
            watched = guard.into_watched();
        }
        (None, Some(input)) => {
            return Err(Failure::new(
                Layer::PinnedInputs,
                Errno::NOENT,
                input.target.display().to_string(),
            ));
        }
        (None, None) => {}
    }
    if !is_standing {
        leave_host(&root)?;
    }
    Ok(Root {
        watched,
        tree: root,
        proc,
    })
}

/// Cuts the mounts of this process off from those they are copies of.
pub(super) fn make_mounts_private() -> Result<(), Failure> {
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|errno| Failure::new(Layer::MntNs, errno, "make all mounts private".to_owned()))
}

/// A root, mounted over the host's, with what all jails of this toolchain and identity have in common.
pub(super) fn begin(parts: Vec<Part>, identity: Identity) -> Result<OwnedFd, Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::PrivateRoot, errno, step.to_owned());
    let devices = DEVICES
        .iter()
        .map(|name| {
            let node = copy_tree(CWD, Path::new("/dev").join(name), false)?;
            // It can be written, its times and owner cannot be changed.
            set(&node, false, READ_ONLY | NO_SETUID)?;
            Ok((name, node))
        })
        .collect::<Result<Vec<_>, Errno>>()
        .map_err(failed("take device nodes from /dev"))?;
    let root = memory("1m", "0755", NO_SETUID | NO_DEVICES).map_err(failed("make a tmpfs"))?;
    attach(&root, CWD, "/").map_err(failed("mount the new root"))?;
    for part in parts {
        place_part(&root, part)?;
    }
    place_devices(&root, devices).map_err(failed("fill /dev"))?;
    place_etc(&root, identity).map_err(failed("fill /etc"))?;
    Ok(root)
}

/// Makes `root`, which is mounted over the host's, this process's only one.
pub(super) fn leave_host(root: &OwnedFd) -> Result<(), Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::PrivateRoot, errno, step.to_owned());
    rustix::process::fchdir(root).map_err(failed("enter the new root"))?;
    rustix::process::pivot_root(".", ".").map_err(failed("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed("detach the host's root"))?;
    rustix::process::chdir("/").map_err(failed("enter the new root"))
}

fn open_root() -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty())
}

/// The attributes of `/` and `/proc` when all that had to be written there is.
const SEALED: u64 = READ_ONLY | NO_SETUID | NO_DEVICES | NO_EXECUTION;

/// Makes a mount read-only, and nothing of it a program.
pub(super) fn seal(mount: &OwnedFd) -> Result<(), Failure> {
    set(mount, false, SEALED).map_err(|errno| {
        let what = "make / and /proc read-only".to_owned();
        Failure::new(Layer::PrivateRoot, errno, what)
    })
}

impl Root {
    /// Makes `/` and `/proc` read-only, when all that had to be written there is.
    pub(super) fn seal(&self) -> Result<(), Failure> {
        seal(&self.tree)?;
        seal(&self.proc)
    }
}

fn place_part(root: &OwnedFd, part: Part) -> Result<(), Failure> {
    match part {
        Part::Link { path, to } => parent(root.as_fd(), &path)
            .and_then(|(parent, name)| rustix::fs::symlinkat(&to, &parent, name))
            .map_err(|errno| Failure::new(Layer::PrivateRoot, errno, path.display().to_string())),
        Part::Tree {
            path,
            tree,
            directory,
        } => {
            let place = || {
                let place = if directory {
                    make_directories(root.as_fd(), &path)?
                } else {
                    let (parent, name) = parent(root.as_fd(), &path)?;
                    rustix::fs::openat(
                        &parent,
                        name,
                        OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                        Mode::from_raw_mode(0o444),
                    )?
                };
                attach(&tree, &place, "")
            };
            place().map_err(|errno| {
                Failure::new(Layer::PrivateRoot, errno, path.display().to_string())
            })
        }
    }
}

fn place_tmp(root: &OwnedFd, bytes: u64) -> Result<(), Errno> {
    // Inodes take kernel memory too: one for each 4 KiB is what the kernel itself would allow for the size.
    let place = make_directories(root.as_fd(), Path::new("/tmp"))?;
    let file_system = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&file_system, "size", bytes.max(4096).to_string())?;
    rustix::mount::fsconfig_set_string(
        &file_system,
        "nr_inodes",
        (bytes / 4096).clamp(64, 1 << 20).to_string(),
    )?;
    rustix::mount::fsconfig_set_string(&file_system, "mode", "1777")?;
    rustix::mount::fsconfig_create(&file_system)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    attach(&mount, &place, "")
}

fn place_devices(root: &OwnedFd, devices: Vec<(&&str, OwnedFd)>) -> Result<(), Errno> {
    let directory = make_directories(root.as_fd(), Path::new("/dev"))?;
    for (name, node) in devices {
        let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
        let place = rustix::fs::openat(&directory, *name, flags, Mode::from_raw_mode(0o444))?;
        attach(&node, &place, "")?;
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("shm", "/tmp"),
        ("ptmx", "pts/ptmx"),
    ] {
        rustix::fs::symlinkat(to, &directory, name)?;
    }
    Ok(())
}

/// Terminals of the jail's own: none of the host's can be named in here, and none of these outside.
fn place_terminals(root: &OwnedFd) -> Result<(), Errno> {
    let place = make_directories(root.as_fd(), Path::new("/dev/pts"))?;
    let file_system = rustix::mount::fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&file_system, "ptmxmode", "0666")?;
    rustix::mount::fsconfig_set_string(&file_system, "mode", "0600")?;
    rustix::mount::fsconfig_set_string(&file_system, "max", "64")?;
    rustix::mount::fsconfig_create(&file_system)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    attach(&mount, &place, "")
}

fn place_etc(root: &OwnedFd, identity: Identity) -> Result<(), Errno> {
    let directory = make_directories(root.as_fd(), Path::new("/etc"))?;
    let Identity { uid, gid, .. } = identity;
    for (name, content) in [
        (
            "passwd",
            format!("root:x:0:0:root:/:/sbin/nologin\njail:x:{uid}:{gid}:jail:/tmp:/bin/sh\n"),
        ),
        ("group", format!("root:x:0:\njail:x:{gid}:\n")),
        (
            "hosts",
            "127.0.0.1 localhost jail\n::1 localhost\n".to_owned(),
        ),
        ("hostname", "jail\n".to_owned()),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n".to_owned(),
        ),
        ("resolv.conf", String::new()),
    ] {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o444)) {
            // The host's own was granted.
            Err(Errno::EXIST | Errno::ROFS) => continue,
            file => file?,
        };
        std::fs::File::from(file)
            .write_all(content.as_bytes())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
    Ok(())
}

/// Shows the processes of this one's own namespace.
pub(super) fn place_proc(root: &OwnedFd) -> Result<OwnedFd, Errno> {
    let place = make_directories(root.as_fd(), Path::new("/proc"))?;
    let file_system = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&file_system)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = rustix::mount::fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    attach(&proc, &place, "")?;
    Ok(proc)
}

fn mask_proc(root: &OwnedFd, proc: &OwnedFd) -> Result<(), Errno> {
    for name in MASKED {
        let masked = copy_tree(root.as_fd(), "dev/null", false)?;
        match attach(&masked, proc, name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A new file system in memory, not attached anywhere.
pub(super) fn memory(size: &str, mode: &str, attributes: u64) -> Result<OwnedFd, Errno> {
    let file_system = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&file_system, "size", size)?;
    rustix::mount::fsconfig_set_string(&file_system, "mode", mode)?;
    rustix::mount::fsconfig_create(&file_system)?;
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
    rustix::mount::fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// A detached copy of the mount at `path` below `directory`; with everything mounted below it if `recursive`.
pub(super) fn copy_tree(
    directory: impl AsFd,
    path: impl rustix::path::Arg,
    recursive: bool,
) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    rustix::mount::open_tree(directory.as_fd(), path, flags)
}

/// Adds attributes to a mount and cuts it off from what is mounted on the host later.
pub(super) fn set(mount: &OwnedFd, recursive: bool, attributes: u64) -> Result<(), Errno> {
    let attributes = MountAttributes {
        set: attributes,
        propagation: PRIVATE,
        ..MountAttributes::default()
    };
    sys::mount_setattr(mount, recursive, &attributes)
}

/// Attaches a detached mount at `path` below `place`, or at `place` itself if `path` is empty.
pub(super) fn attach(mount: &OwnedFd, place: impl AsFd, path: &str) -> Result<(), Errno> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    flags.set(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH, path.is_empty());
    rustix::mount::move_mount(mount.as_fd(), "", place.as_fd(), path, flags)
}

/// Opens `path` below `root` as the jail will see it, without following any link.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    rustix::fs::openat2(
        root,
        inside,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Makes `path` and all directories above it below `root`, and opens it.
pub(super) fn make_directories(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let mut made: Option<OwnedFd> = None;
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        let directory = made.as_ref().map_or(root, OwnedFd::as_fd);
        match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            // A directory of the read-only toolchain may be there already.
            Err(Errno::ROFS) if resolve(directory, Path::new(name)).is_ok() => {}
            Err(errno) => return Err(errno),
        }
        made = Some(resolve(directory, Path::new(name))?);
    }
    made.map_or_else(|| resolve(root, Path::new(".")), Ok)
}

fn parent<'a>(root: BorrowedFd<'_>, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    Ok((make_directories(root, parent)?, name))
}

pub(super) fn has_detours(path: &Path) -> bool {
    path.components()
        .any(|component| matches!(component, Component::ParentDir | Component::CurDir))
}
