//! The private root: what of the host is there, read-only; the workspace; memory for `/tmp`; a minimal `/dev` and a fresh `/proc`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::child::{Failure, Identity};
use super::protocol::{InputOrder, Order, WorkspaceOrder};
use super::sys::{self, MountAttributes};
use super::{Access, Layer};

const READ_ONLY: u64 = 0x1;
const NO_SETUID: u64 = 0x2;
const NO_DEVICES: u64 = 0x4;
const NO_EXECUTION: u64 = 0x8;
const ID_MAPPED: u64 = 0x0010_0000;
const PRIVATE: u64 = 1 << 18;

/// The device nodes of the jail.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

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

/// Takes the read-only parts of `order` from the mounts this process sees.
pub(super) fn take_parts(order: &Order) -> Result<Vec<Part>, Failure> {
    let mut parts: Vec<Part> = Vec::with_capacity(order.read_only.len());
    for path in &order.read_only {
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

/// Takes the workspace by its pinned directory, mapped so that its owner's files belong to the jail's user. For privileged servers.
pub(super) fn take_mapped_workspace(
    workspace: &WorkspaceOrder,
    pinned: BorrowedFd<'_>,
    mapping: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Failure> {
    let failed = |errno| {
        Failure::new(
            Layer::Workspace,
            errno,
            workspace.source.display().to_string(),
        )
    };
    let tree = copy_tree(pinned, "", false).map_err(failed)?;
    if let Some(mapping) = mapping {
        let attributes = MountAttributes {
            set: ID_MAPPED,
            user_namespace: std::os::fd::AsRawFd::as_raw_fd(&mapping)
                .try_into()
                .unwrap_or(u64::MAX),
            ..MountAttributes::default()
        };
        sys::mount_setattr(&tree, false, &attributes).map_err(failed)?;
    }
    set(&tree, false, workspace_attributes(workspace)).map_err(failed)?;
    Ok(tree)
}

/// Takes the workspace by its path, and makes sure that it is still the pinned directory.
fn take_workspace(workspace: &WorkspaceOrder, pinned: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let failed = |errno| {
        Failure::new(
            Layer::Workspace,
            errno,
            workspace.source.display().to_string(),
        )
    };
    let tree = copy_tree(CWD, &workspace.source, true).map_err(failed)?;
    let (now, then) = (
        rustix::fs::fstat(&tree).map_err(failed)?,
        rustix::fs::fstat(pinned).map_err(failed)?,
    );
    if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) {
        return Err(failed(Errno::STALE));
    }
    set(&tree, true, workspace_attributes(workspace)).map_err(failed)?;
    Ok(tree)
}

fn workspace_attributes(workspace: &WorkspaceOrder) -> u64 {
    match workspace.access {
        Access::ReadOnly => NO_SETUID | NO_DEVICES | READ_ONLY,
        Access::ReadWrite => NO_SETUID | NO_DEVICES,
    }
}

/// A root under construction, in the mount namespace of this process.
pub(super) struct Root {
    root: OwnedFd,
    proc: OwnedFd,
}

/// Builds the root and makes it this process's own; the host's is gone afterwards.
///
/// `workspace` is an already mapped tree, where the launcher could make one; `pinned` the workspace's directory.
pub(super) fn enter(
    order: &Order,
    identity: Identity,
    parts: Option<Vec<Part>>,
    workspace: Option<OwnedFd>,
    pinned: Option<BorrowedFd<'_>>,
    inputs: &[OwnedFd],
) -> Result<Root, Failure> {
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::PrivateRoot, errno, step.to_owned());
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|errno| Failure::new(Layer::MntNs, errno, "make all mounts private".to_owned()))?;
    let parts = match parts {
        Some(parts) => parts,
        None => take_parts(order)?,
    };
    let workspace = match (&order.workspace, workspace, pinned) {
        (Some(_), Some(mapped), _) => Some(mapped),
        (Some(workspace), None, Some(pinned)) => Some(take_workspace(workspace, pinned)?),
        _ => None,
    };
    let devices = DEVICES
        .iter()
        .map(|name| Ok((name, copy_tree(CWD, Path::new("/dev").join(name), false)?)))
        .collect::<Result<Vec<_>, Errno>>()
        .map_err(failed("take device nodes from /dev"))?;

    let root = memory("1m", "0755", NO_SETUID | NO_DEVICES).map_err(failed("make a tmpfs"))?;
    attach(&root, CWD, "/").map_err(failed("mount the new root"))?;
    for part in parts {
        place_part(&root, part)?;
    }
    place_tmp(&root, order.limits.tmp_bytes).map_err(failed("mount /tmp"))?;
    place_devices(&root, devices).map_err(failed("fill /dev"))?;
    place_terminals(&root).map_err(failed("mount /dev/pts"))?;
    place_etc(&root, identity).map_err(failed("fill /etc"))?;
    let proc = place_proc(&root).map_err(failed("mount /proc"))?;
    if let (Some(tree), Some(workspace)) = (workspace, &order.workspace) {
        let placed = make_directories(root.as_fd(), &workspace.target)
            .and_then(|place| attach(&tree, &place, ""));
        placed.map_err(|errno| {
            Failure::new(
                Layer::Workspace,
                errno,
                workspace.target.display().to_string(),
            )
        })?;
        place_inputs(&root, workspace, &order.inputs, inputs)?;
    } else if let Some(input) = order.inputs.first() {
        return Err(Failure::new(
            Layer::PinnedInputs,
            Errno::NOENT,
            input.target.display().to_string(),
        ));
    }

    rustix::process::fchdir(&root).map_err(failed("enter the new root"))?;
    rustix::process::pivot_root(".", ".").map_err(failed("pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed("detach the host's root"))?;
    rustix::process::chdir("/").map_err(failed("enter the new root"))?;
    Ok(Root { root, proc })
}

impl Root {
    /// Makes `/` and `/proc` read-only, when all that had to be written there is.
    pub(super) fn seal(self) -> Result<(), Failure> {
        let flags = READ_ONLY | NO_SETUID | NO_DEVICES | NO_EXECUTION;
        set(&self.root, false, flags)
            .and_then(|()| set(&self.proc, false, flags))
            .map_err(|errno| {
                Failure::new(
                    Layer::PrivateRoot,
                    errno,
                    "make / and /proc read-only".to_owned(),
                )
            })
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
        let file = rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o444))?;
        std::fs::File::from(file)
            .write_all(content.as_bytes())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
    Ok(())
}

fn place_proc(root: &OwnedFd) -> Result<OwnedFd, Errno> {
    let place = make_directories(root.as_fd(), Path::new("/proc"))?;
    let file_system = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&file_system)?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = rustix::mount::fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    attach(&proc, &place, "")?;
    for name in MASKED {
        let masked = copy_tree(root.as_fd(), "dev/null", false)?;
        match attach(&masked, &proc, name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(proc)
}

/// Puts the sealed bytes of each input, as a read-only file of its own, over the file of that name in the workspace. The directories
/// on the way become mount points, so that none can be moved away and rebuilt.
fn place_inputs(
    root: &OwnedFd,
    workspace: &WorkspaceOrder,
    inputs: &[InputOrder],
    sealed: &[OwnedFd],
) -> Result<(), Failure> {
    const STORE: &str = ".pinned";
    if inputs.is_empty() {
        return Ok(());
    }
    let failed =
        |step: &'static str| move |errno| Failure::new(Layer::PinnedInputs, errno, step.to_owned());
    let bytes: u64 = inputs
        .iter()
        .map(|input| input.length.next_multiple_of(4096) + 4096)
        .sum();
    let store = memory(
        &(bytes + (64 << 10)).to_string(),
        "0755",
        NO_SETUID | NO_DEVICES,
    )
    .map_err(failed("make a tmpfs"))?;
    make_directories(root.as_fd(), Path::new(STORE))
        .and_then(|place| attach(&store, &place, ""))
        .map_err(failed("mount a tmpfs"))?;
    let mut guarded: Vec<PathBuf> = Vec::new();
    for (number, (input, content)) in inputs.iter().zip(sealed).enumerate() {
        let failed = |errno| {
            Failure::new(
                Layer::PinnedInputs,
                errno,
                input.target.display().to_string(),
            )
        };
        let inside = input
            .target
            .strip_prefix(&workspace.target)
            .map_err(|_| failed(Errno::XDEV))?;
        if has_detours(inside) || inside.as_os_str().is_empty() {
            return Err(failed(Errno::INVAL));
        }
        let above: Vec<&Path> = inside
            .ancestors()
            .skip(1)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        for directory in above.into_iter().rev() {
            if guarded.iter().any(|guarded| guarded == directory) {
                continue;
            }
            let place = resolve(root.as_fd(), &workspace.target.join(directory)).map_err(failed)?;
            let again = copy_tree(&place, "", false).map_err(failed)?;
            attach(&again, &place, "").map_err(failed)?;
            guarded.push(directory.to_owned());
        }
        let place = resolve(root.as_fd(), &input.target).map_err(failed)?;
        let replaced = rustix::fs::fstat(&place).map_err(failed)?;
        if FileType::from_raw_mode(replaced.st_mode) != FileType::RegularFile {
            return Err(failed(Errno::INVAL));
        }
        let mode = Mode::from_raw_mode((replaced.st_mode & 0o111) | 0o444);
        let name = number.to_string();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&store, &name, flags, mode).map_err(failed)?;
        copy(content, &file, input.length).map_err(failed)?;
        drop(file);
        let pinned = copy_tree(&store, &name, false).map_err(failed)?;
        set(&pinned, false, READ_ONLY | NO_SETUID | NO_DEVICES).map_err(failed)?;
        attach(&pinned, &place, "").map_err(failed)?;
    }
    // The files live on in their mounts; the store itself disappears.
    rustix::process::fchdir(root)
        .and_then(|()| rustix::mount::unmount(STORE, UnmountFlags::DETACH))
        .and_then(|()| rustix::fs::unlinkat(root, STORE, AtFlags::REMOVEDIR))
        .map_err(failed("unmount the store of pinned inputs"))
}

/// Copies exactly `length` bytes, from the beginning.
fn copy(from: &OwnedFd, to: &OwnedFd, length: u64) -> Result<(), Errno> {
    let mut offset = 0;
    while offset < length {
        let rest = usize::try_from(length - offset)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        if rustix::fs::sendfile(to, from, Some(&mut offset), rest)? == 0 {
            return Err(Errno::IO);
        }
    }
    Ok(())
}

/// A new file system in memory, not attached anywhere.
fn memory(size: &str, mode: &str, attributes: u64) -> Result<OwnedFd, Errno> {
    let file_system = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&file_system, "size", size)?;
    rustix::mount::fsconfig_set_string(&file_system, "mode", mode)?;
    rustix::mount::fsconfig_create(&file_system)?;
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
    rustix::mount::fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// A detached copy of the mount at `path` below `directory`; with everything mounted below it if `recursive`.
fn copy_tree(
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
fn set(mount: &OwnedFd, recursive: bool, attributes: u64) -> Result<(), Errno> {
    let attributes = MountAttributes {
        set: attributes,
        propagation: PRIVATE,
        ..MountAttributes::default()
    };
    sys::mount_setattr(mount, recursive, &attributes)
}

/// Attaches a detached mount at `path` below `place`, or at `place` itself if `path` is empty.
fn attach(mount: &OwnedFd, place: impl AsFd, path: &str) -> Result<(), Errno> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    flags.set(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH, path.is_empty());
    rustix::mount::move_mount(mount.as_fd(), "", place.as_fd(), path, flags)
}

/// Opens `path` below `root` as the jail will see it, without following any link.
fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
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
fn make_directories(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let mut directory = resolve(root, Path::new("."))?;
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            // A directory of the read-only toolchain may be there already.
            Err(Errno::ROFS) if resolve(directory.as_fd(), Path::new(name)).is_ok() => {}
            Err(errno) => return Err(errno),
        }
        directory = resolve(directory.as_fd(), Path::new(name))?;
    }
    Ok(directory)
}

fn parent<'a>(root: BorrowedFd<'_>, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    Ok((make_directories(root, parent)?, name))
}

fn has_detours(path: &Path) -> bool {
    path.components()
        .any(|component| matches!(component, Component::ParentDir | Component::CurDir))
}
