//! Files of the workspace that a command cannot change: pinned inputs and protected paths. Nor can it move them away, for every directory
//! above one becomes a mount point.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use sha2::{Digest as _, Sha256};

use super::child::Failure;
use super::codec::{Reader, Writer};
use super::order::{InputOrder, WorkspaceOrder};
use super::root::{
    NO_DEVICES, NO_SETUID, READ_ONLY, attach, copy_tree, has_detours, make_directories, memory,
    resolve, set,
};
use super::{JailError, Layer, Masked};

/// The workspace at its place in the new root, with the directories that cannot be moved.
pub(super) struct Guard<'a> {
    root: &'a OwnedFd,
    workspace: &'a WorkspaceOrder,
    directories: Vec<PathBuf>,
    watched: Vec<Watched>,
}

/// A path that a command must not change, as it stood when the jail was made.
///
/// The mount over it can be lost all the same: whoever renames something over the file outside the jail takes it away. So it is looked at
/// again before and after each command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    path: PathBuf,
    /// Device and inode; none of a path that was not there.
    stood: Option<(u64, u64)>,
    /// The mount it stood on, where that guards it. While something is put in its place, the mount goes first.
    mount: Option<u64>,
    /// When whatever is below it changed last, where nothing keeps commands from changing it.
    stamp: Option<Stamp>,
}

/// A digest of the names, inodes and times of change of everything below a path. No process without rights can set a time of change.
type Stamp = [u8; 32];

/// Most files below one path whose changes are looked at.
const MOST_STAMPED: usize = 10_000;

impl Watched {
    /// A path of the jail, to stand as `pinned` does on the host.
    pub(super) fn like(path: PathBuf, pinned: impl AsFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(pinned)?;
        Ok(Self {
            path,
            stood: Some((stat.st_dev, stat.st_ino)),
            mount: None,
            stamp: None,
        })
    }

    /// The same, guarded by the mount that stands there now.
    pub(super) fn guarded(self) -> Self {
        let mount = mount_of(&self.path).filter(|_| self.was_there());
        Self { mount, ..self }
    }

    /// A path as it stands now, with all that is below it.
    pub(super) fn stamped(path: PathBuf) -> Result<Self, Errno> {
        match rustix::fs::lstat(&path) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                Err(Errno::LOOP)
            }
            Ok(stat) => Ok(Self {
                stood: Some((stat.st_dev, stat.st_ino)),
                mount: None,
                stamp: Some(stamp(&path)?),
                path,
            }),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(Self::absent(path)),
            Err(errno) => Err(errno),
        }
    }

    /// A path of the jail at which nothing is to be.
    pub(super) fn absent(path: PathBuf) -> Self {
        Self {
            path,
            stood: None,
            mount: None,
            stamp: None,
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) -> Result<(), JailError> {
        let (device, inode) = self.stood.unwrap_or_default();
        writer.numbers(&[u64::from(self.was_there()), device, inode]);
        writer.path(&self.path)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let was_there = reader.number()? != 0;
        let stood = (reader.number()?, reader.number()?);
        Some(Self {
            stood: was_there.then_some(stood),
            mount: None,
            stamp: None,
            path: reader.path()?,
        })
    }

    /// The path, as the jail has it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Was there something?
    pub(super) fn was_there(&self) -> bool {
        self.stood.is_some()
    }

    /// Does it stand as it did?
    pub(super) fn is_intact(&self) -> bool {
        match rustix::fs::lstat(&self.path) {
            Ok(stat) => {
                self.stood == Some((stat.st_dev, stat.st_ino))
                    && (self.mount.is_none() || self.mount == mount_of(&self.path))
                    && (self.stamp.is_none() || self.stamp == stamp(&self.path).ok())
            }
            Err(Errno::NOENT | Errno::NOTDIR) => self.stood.is_none(),
            // The command closed a folder above it to itself. A mount stands all the same.
            Err(Errno::ACCESS) => self.stamp.is_none(),
            Err(_) => false,
        }
    }
}

/// A link could be turned, and what it leads to be changed.
pub(super) fn require_no_link(place: impl AsFd) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(place)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Err(Errno::LOOP),
        _ => Ok(()),
    }
}

/// The kernel's number of the mount at a path.
fn mount_of(path: &Path) -> Option<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let told = rustix::fs::statx(CWD, path, flags, StatxFlags::MNT_ID).ok()?;
    (told.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(told.stx_mnt_id)
}

fn stamp(path: &Path) -> Result<Stamp, Errno> {
    let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut digest = Sha256::new();
    let mut left = vec![path.to_owned()];
    let mut count = 0;
    while let Some(path) = left.pop() {
        count += 1;
        if count > MOST_STAMPED {
            return Err(Errno::FBIG);
        }
        let stat = rustix::fs::lstat(&path)?;
        digest.update(path.as_os_str().as_encoded_bytes());
        digest.update([0]);
        for number in [
            stat.st_ino,
            stat.st_ctime.cast_unsigned(),
            stat.st_ctime_nsec,
        ] {
            digest.update(number.to_le_bytes());
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let entries = std::fs::read_dir(&path).map_err(io)?;
            let mut names = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(io)?;
            names.sort_unstable();
            left.extend(names);
        }
    }
    Ok(digest.finalize().into())
}

impl<'a> Guard<'a> {
    pub(super) fn new(root: &'a OwnedFd, workspace: &'a WorkspaceOrder) -> Self {
        Self {
            root,
            workspace,
            directories: Vec::new(),
            watched: Vec::new(),
        }
    }

    pub(super) fn into_watched(self) -> Vec<Watched> {
        self.watched
    }

    /// Remembers what stands at `target` now.
    fn watch(&mut self, target: &Path) -> Result<(), Errno> {
        let place = resolve(self.root.as_fd(), target)?;
        self.watched.push(Watched::like(target.to_owned(), &place)?);
        Ok(())
    }

    /// Makes every directory above `inside`, a path below the workspace, a mount point.
    fn above(&mut self, inside: &Path) -> Result<(), Errno> {
        let above: Vec<&Path> = inside
            .ancestors()
            .skip(1)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        for directory in above.into_iter().rev() {
            if self.directories.iter().any(|guarded| guarded == directory) {
                continue;
            }
            let place = resolve(self.root.as_fd(), &self.workspace.target.join(directory))?;
            let again = copy_tree(&place, "", false)?;
            attach(&again, &place, "")?;
            self.directories.push(directory.to_owned());
        }
        Ok(())
    }
}

/// Puts nothing over each masked path: of a file the device that has no bytes, of a directory one without entries. A path that is gone
/// needs no mask.
pub(super) fn place_masks(guard: &mut Guard<'_>, masked: &[Masked]) -> Result<(), Failure> {
    const EMPTY: &str = ".empty";
    if masked.is_empty() {
        return Ok(());
    }
    let failed = |path: &Path| {
        let what = format!("close {}", path.display());
        move |errno| Failure::new(Layer::Workspace, errno, what)
    };
    rustix::fs::mkdirat(guard.root, EMPTY, Mode::from_raw_mode(0o500))
        .map_err(failed(Path::new(EMPTY)))?;
    for Masked { path, is_directory } in masked {
        let target = guard.workspace.target.join(path);
        match guard.above(path) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(failed(path)(errno)),
        }
        let place = match resolve(guard.root.as_fd(), &target) {
            Ok(place) => place,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(failed(path)(errno)),
        };
        let nothing = if *is_directory { EMPTY } else { "dev/null" };
        let mask = copy_tree(guard.root.as_fd(), nothing, false).map_err(failed(path))?;
        set(&mask, false, READ_ONLY | NO_SETUID).map_err(failed(path))?;
        attach(&mask, &place, "").map_err(failed(path))?;
        guard.watch(&target).map_err(failed(path))?;
    }
    rustix::fs::unlinkat(guard.root, EMPTY, AtFlags::REMOVEDIR).map_err(failed(Path::new(EMPTY)))
}

/// Makes the protected paths that exist read-only. One behind a link or of a kind that cannot be mounted refuses the exec: the link could
/// be turned.
pub(super) fn place_protected(guard: &mut Guard<'_>, protected: &[PathBuf]) -> Result<(), Failure> {
    for path in protected {
        let target = guard.workspace.target.join(path);
        if make_read_only(guard, path).map_err(unprotected(path))? {
            guard.watch(&target).map_err(unprotected(path))?;
        } else {
            guard.watched.push(Watched::absent(target));
        }
    }
    Ok(())
}

/// The same for files that are outside as well, without watching them: where one is gone, nothing is left to be guarded.
pub(super) fn place_linked(guard: &mut Guard<'_>, linked: &[PathBuf]) -> Result<(), Failure> {
    for path in linked {
        make_read_only(guard, path).map_err(unprotected(path))?;
    }
    Ok(())
}

fn unprotected(path: &Path) -> impl FnOnce(Errno) -> Failure {
    let what = format!("protect {}", path.display());
    move |errno| Failure::new(Layer::Workspace, errno, what)
}

/// False where there is nothing.
fn make_read_only(guard: &mut Guard<'_>, path: &Path) -> Result<bool, Errno> {
    if has_detours(path) || path.is_absolute() {
        return Err(Errno::INVAL);
    }
    let target = guard.workspace.target.join(path);
    let place = match resolve(guard.root.as_fd(), &target) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    require_no_link(&place)?;
    guard.above(path)?;
    let place = if path.components().count() > 1 {
        // Its directory is another mount now.
        resolve(guard.root.as_fd(), &target)?
    } else {
        place
    };
    let again = copy_tree(&place, "", true)?;
    set(&again, true, READ_ONLY | NO_SETUID | NO_DEVICES)?;
    attach(&again, &place, "")?;
    Ok(true)
}

/// Puts the sealed bytes of each input, as a read-only file of its own, over the file of that name in the workspace. The directories
/// on the way become mount points, so that none can be moved away and rebuilt.
pub(super) fn place_inputs(
    guard: &mut Guard<'_>,
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
    make_directories(guard.root.as_fd(), Path::new(STORE))
        .and_then(|place| attach(&store, &place, ""))
        .map_err(failed("mount a tmpfs"))?;
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
            .strip_prefix(&guard.workspace.target)
            .map_err(|_| failed(Errno::XDEV))?;
        if has_detours(inside) || inside.as_os_str().is_empty() {
            return Err(failed(Errno::INVAL));
        }
        guard.above(inside).map_err(failed)?;
        let place = resolve(guard.root.as_fd(), &input.target).map_err(failed)?;
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
        guard.watch(&input.target).map_err(failed)?;
    }
    // The files live on in their mounts; the store itself disappears.
    rustix::process::fchdir(guard.root)
        .and_then(|()| rustix::mount::unmount(STORE, UnmountFlags::DETACH))
        .and_then(|()| rustix::fs::unlinkat(guard.root, STORE, AtFlags::REMOVEDIR))
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
