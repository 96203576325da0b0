//! What a jail is asked to be: the command, what it may see, and how much of everything it may use.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use sha2::{Digest, Sha256};

use super::layer::LayerSet;
use super::{JailError, Layer, Lookups, Mode};

/// One command. Nothing is inherited: what is not named here is not there.
#[derive(Debug, Clone)]
pub struct CommandSpec {
    /// The program and its arguments. A first element without `/` is looked up in the `PATH` of `env`, inside the jail.
    pub argv: Vec<OsString>,
    /// The complete environment.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory, an absolute path inside the jail.
    pub cwd: PathBuf,
    /// What the command reads and where it writes.
    pub stdin: Stdin,
}

impl CommandSpec {
    /// A command with a plain `PATH`, in `/tmp`, that reads nothing.
    pub fn new<S: Into<OsString>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: vec![(
                "PATH".into(),
                "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin".into(),
            )],
            cwd: PathBuf::from("/tmp"),
            stdin: Stdin::Null,
        }
    }
}

/// A jail and the first command in it.
#[derive(Debug, Clone)]
pub struct JailSpec {
    /// The first command.
    pub command: CommandSpec,
    /// Does the jail end with its first command, or is it kept for further ones?
    pub lifetime: Lifetime,
    /// The directory of the host the command works in.
    pub workspace: Option<Workspace>,
    /// Absolute paths of the host that appear read-only at the same place. A path that is a symbolic link on the host is
    /// the same link in the jail; a path that does not exist refuses the exec.
    pub read_only: Vec<PathBuf>,
    /// Files whose bytes are fixed before the command starts.
    pub inputs: Vec<PinnedInput>,
    /// Paths of the workspace, relative to it, that are read-only where they exist and cannot be moved away.
    pub protected: Vec<PathBuf>,
    /// Files of the workspace that are outside as well, and so not the command's to change. Whoever removes one on the host harms nobody.
    pub linked: Vec<PathBuf>,
    /// Paths of the workspace that nobody may read: an empty file or folder stands there, and cannot be moved away.
    pub masked: Vec<Masked>,
    /// Tells which files of the host its commands look for in vain; slow, for learning what a toolchain needs.
    pub observe: Option<Lookups>,
    /// How it may be made, the best first: the next one is tried where this host does not allow one.
    pub modes: Vec<Mode>,
    /// Layers that are left out, to measure what each is there for; `isolation.missing` names them. The server leaves none out.
    pub without: Vec<Layer>,
    /// TCP ports commands may listen on, beside what `network` allows.
    pub published: Vec<u16>,
    /// What commands can reach.
    pub network: Network,
    /// Upper bounds.
    pub limits: Limits,
    /// How long processes left behind by the command may go on after it ended, for instance to flush a pipe, before the jail
    /// is killed. Of no meaning for a kept jail.
    pub linger: Duration,
}

impl JailSpec {
    /// A jail for one command with the system's toolchain, no workspace, no network, no ports and the default limits.
    pub fn new<S: Into<OsString>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::with_toolchain(argv, system_toolchain())
    }

    /// The same with this toolchain instead of the system's.
    pub fn with_toolchain<S: Into<OsString>>(
        argv: impl IntoIterator<Item = S>,
        read_only: Vec<PathBuf>,
    ) -> Self {
        Self {
            command: CommandSpec::new(argv),
            lifetime: Lifetime::Command,
            workspace: None,
            read_only,
            inputs: Vec::new(),
            protected: Vec::new(),
            linked: Vec::new(),
            masked: Vec::new(),
            observe: None,
            modes: vec![Mode::Strict],
            without: Vec::new(),
            published: Vec::new(),
            network: Network::None,
            limits: Limits::default(),
            linger: Duration::from_millis(500),
        }
    }

    /// The layers of a strict jail that have something to do in this one.
    pub(super) fn needed(&self) -> LayerSet {
        let workspace = self.workspace.as_ref();
        let is_needed = |layer: &Layer| match layer {
            Layer::Workspace => workspace.is_some(),
            Layer::Overlay => workspace.is_some_and(|workspace| workspace.overlay.is_some()),
            Layer::PinnedInputs => !self.inputs.is_empty(),
            _ => true,
        };
        Layer::STRICT.into_iter().filter(is_needed).collect()
    }

    /// Those of them that are asked for when it is made this way.
    pub(super) fn layers(&self, mode: Mode) -> LayerSet {
        let is_asked = |layer: &Layer| {
            self.needed().contains(*layer)
                && mode.has(*layer)
                && !self.without.contains(layer)
                && (*layer != Layer::NetNs || self.network != Network::Host)
        };
        Layer::STRICT.into_iter().filter(is_asked).collect()
    }
}

/// A path below the workspace that is closed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Masked {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// Is it a directory?
    pub is_directory: bool,
}

/// How long a jail lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as its first command.
    #[default]
    Command,
    /// Until it is killed or its last handle is dropped, whatever becomes of its commands.
    Kept,
}

/// What commands can reach over a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// Nothing: they may only listen on published ports.
    #[default]
    None,
    /// Each other, over a loopback interface of the jail's own.
    Loopback,
    /// Each other, and a proxy of the server's whose listener stands on the jail's loopback interface.
    Proxy,
    /// Whatever the host reaches: there is no network of the jail's own.
    Host,
}

/// The parts of this host every command needs to run at all, those of them that exist: programs, libraries, the loader's cache,
/// certificates of authorities.
pub fn system_toolchain() -> Vec<PathBuf> {
    [
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/etc/ld.so.cache",
        "/etc/alternatives",
        "/etc/ssl/certs",
    ]
    .into_iter()
    .map(PathBuf::from)
    .filter(|path| path.symlink_metadata().is_ok())
    .collect()
}

/// May the command change the workspace?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Files can be read and run.
    ReadOnly,
    /// Files can also be written, made and removed; never setuid, never device nodes or sockets.
    ReadWrite,
}

/// A directory of the host, pinned when it was opened: renaming it or planting a link in its place later changes nothing.
#[derive(Debug, Clone)]
pub struct Workspace {
    pub(super) directory: Arc<OwnedFd>,
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) access: Access,
    pub(super) overlay: Option<Overlay>,
}

/// A directory of the server's with `upper` and `work` in it, in which an overlay keeps what commands change.
#[derive(Debug, Clone)]
pub(super) struct Overlay {
    pub(super) directory: Arc<OwnedFd>,
    pub(super) source: PathBuf,
}

impl Workspace {
    /// Pins the directory `source` of the host, to appear at `target` in the jail; both are absolute.
    pub fn open(source: &Path, target: &Path, access: Access) -> Result<Self, JailError> {
        let unusable = |reason: &str| JailError::Workspace {
            path: source.to_owned(),
            reason: reason.to_owned(),
        };
        if target == Path::new("/") || !target.is_absolute() {
            return Err(unusable(
                "its place in the jail must be an absolute path below `/`",
            ));
        }
        let source = source
            .canonicalize()
            .map_err(|error| unusable(&error.to_string()))?;
        if source == Path::new("/") {
            return Err(unusable("the whole file system cannot be a workspace"));
        }
        let directory = pin(&source).map_err(|error| unusable(&error.to_string()))?;
        Ok(Self {
            directory: Arc::new(directory),
            source,
            target: target.to_owned(),
            access,
            overlay: None,
        })
    }

    /// The same directory, writable, with every change kept in `overlay` instead: a directory with an empty `upper` and `work` in it.
    pub fn with_overlay(mut self, overlay: &Path) -> Result<Self, JailError> {
        let directory = pin(overlay).map_err(|error| JailError::Workspace {
            path: overlay.to_owned(),
            reason: error.to_string(),
        })?;
        self.access = Access::ReadWrite;
        self.overlay = Some(Overlay {
            directory: Arc::new(directory),
            source: overlay.to_owned(),
        });
        Ok(self)
    }

    /// The same directory with other rights, without an overlay.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self.overlay = None;
        self
    }

    /// May the command change it, or what it sees of it?
    pub fn access(&self) -> Access {
        self.access
    }

    /// Are changes kept aside?
    pub fn is_overlaid(&self) -> bool {
        self.overlay.is_some()
    }

    /// The pinned directory, opened with `O_PATH`.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn pin(directory: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, rustix::fs::Mode::empty())
}

/// A file of the jail whose bytes were copied and sealed before the command starts: what was hashed is what is there.
#[derive(Debug, Clone)]
pub struct PinnedInput {
    pub(super) target: PathBuf,
    pub(super) sealed: Arc<OwnedFd>,
    pub(super) length: u64,
    sha256: [u8; 32],
}

impl PinnedInput {
    /// Copies at most `limit` bytes of `content` into sealed memory. In the jail they stand read-only at `target`, an absolute path
    /// where a regular file exists in the workspace.
    pub fn seal(target: &Path, content: impl Read, limit: u64) -> Result<Self, JailError> {
        let failed = |reason: String| JailError::Input {
            path: target.to_owned(),
            reason,
        };
        let memory = rustix::fs::memfd_create(
            "pinned-input",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL,
        )
        .map_err(|error| failed(error.to_string()))?;
        let mut memory = File::from(memory);
        let mut hasher = Sha256::new();
        let mut length = 0;
        let mut content = content.take(limit.saturating_add(1));
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = content
                .read(&mut buffer)
                .map_err(|error| failed(error.to_string()))?;
            if read == 0 {
                break;
            }
            length += read as u64;
            if length > limit {
                return Err(failed(format!("longer than {limit} bytes")));
            }
            hasher.update(&buffer[..read]);
            memory
                .write_all(&buffer[..read])
                .map_err(|error| failed(error.to_string()))?;
        }
        memory
            .rewind()
            .and_then(|()| {
                rustix::fs::fcntl_add_seals(
                    &memory,
                    SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
                )
                .map_err(Into::into)
            })
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            target: target.to_owned(),
            sealed: Arc::new(memory.into()),
            length,
            sha256: hasher.finalize().into(),
        })
    }

    /// SHA-256 of the sealed bytes.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

/// What the command reads on file descriptor 0.
#[derive(Debug, Clone, Default)]
pub enum Stdin {
    /// Nothing: `/dev/null`.
    #[default]
    Null,
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// A pipe that its handle writes to.
    Pipe,
    /// A terminal of the jail's own, which is also standard output and error.
    Terminal(TerminalSize),
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: NonZeroU16,
    /// Characters in a line.
    pub columns: NonZeroU16,
}

/// Upper bounds of one jail. Wall-clock time is the caller's to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// CPU seconds of each process (`RLIMIT_CPU`).
    pub cpu_seconds: u64,
    /// Bytes of private memory of each process (`RLIMIT_DATA`); where a control group can be had, of all memory of the jail.
    pub memory_bytes: u64,
    /// Processes and threads in the jail together.
    pub processes: u64,
    /// Bytes of the largest file a process may write (`RLIMIT_FSIZE`).
    pub file_bytes: u64,
    /// Open files of each process (`RLIMIT_NOFILE`).
    pub open_files: u64,
    /// Bytes in `/tmp`, which is memory and vanishes with the jail.
    pub tmp_bytes: u64,
    /// Is the command refused where no control group can be had that bounds the whole jail?
    pub require_cgroup: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_seconds: 300,
            memory_bytes: 2 << 30,
            processes: 256,
            file_bytes: 1 << 30,
            open_files: 1024,
            tmp_bytes: 256 << 20,
            require_cgroup: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_cannot_be_changed_and_are_what_was_hashed() -> anyhow::Result<()> {
        let input = PinnedInput::seal(Path::new("/w/a"), &b"hello"[..], 5)?;
        let mut file = File::from(input.sealed.try_clone()?);
        assert_eq!(input.sha256()[..4], [0x2c, 0xf2, 0x4d, 0xba]);
        assert!(file.write_all(b"H").is_err(), "a sealed file took a write");
        let mut content = String::new();
        file.read_to_string(&mut content)?;
        assert_eq!((content.as_str(), input.length), ("hello", 5));
        Ok(())
    }

    #[test]
    fn an_input_over_its_limit_is_refused() {
        assert!(PinnedInput::seal(Path::new("/w/a"), &b"hello!"[..], 5).is_err());
    }

    #[test]
    fn the_whole_file_system_is_no_workspace() {
        assert!(Workspace::open("/".as_ref(), "/w".as_ref(), Access::ReadOnly).is_err());
        assert!(Workspace::open("/usr".as_ref(), "/".as_ref(), Access::ReadOnly).is_err());
    }
}
