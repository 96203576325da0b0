//! What a container is given of the server's: the socket its init connects to, the bytes of pinned inputs, and emptiness for what is
//! closed. All of it goes as soon as the container has it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::jail::owner::Owner;
use crate::jail::{JailError, PinnedInput};

/// The folder of one container, removed with this value.
pub(super) struct Files {
    directory: PathBuf,
    user: (u32, u32),
}

const SOCKET: &str = "socket";
const EMPTY_FOLDER: &str = "empty";
const EMPTY_FILE: &str = "nothing";

impl Files {
    /// Makes the folder of container `number` of this server; `user` shall be able to read what is in it.
    pub(super) fn make(
        directory: &Path,
        owner: &Owner,
        number: u64,
        user: (u32, u32),
    ) -> Result<Self, JailError> {
        let failed = || JailError::io("make the files of a container");
        let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        private(directory).map_err(failed())?;
        let directory = directory.join(format!("{owner}.{number}"));
        private(&directory).map_err(failed())?;
        let files = Self { directory, user };
        for (folder, mode) in [(SOCKET, 0o700), (EMPTY_FOLDER, 0o500)] {
            let path = files.directory.join(folder);
            private(&path).map_err(failed())?;
            files.give(&path, mode).map_err(failed())?;
        }
        let nothing = files.directory.join(EMPTY_FILE);
        File::create_new(&nothing).map_err(failed())?;
        files.give(&nothing, 0o400).map_err(failed())?;
        Ok(files)
    }

    /// Lets the container's user read, and nobody change.
    fn give(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(self.user.0), Some(self.user.1))?;
        }
        Ok(())
    }

    /// A folder with nothing in it.
    pub(super) fn empty_folder(&self) -> PathBuf {
        self.directory.join(EMPTY_FOLDER)
    }

    /// A file without bytes.
    pub(super) fn empty_file(&self) -> PathBuf {
        self.directory.join(EMPTY_FILE)
    }

    /// The folder of the socket.
    pub(super) fn socket_folder(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// A file with the bytes of a pinned input.
    pub(super) fn input(
        &self,
        number: usize,
        input: &PinnedInput,
        is_executable: bool,
    ) -> io::Result<PathBuf> {
        let path = self.directory.join(format!("input-{number}"));
        let mut file = File::create_new(&path)?;
        let sealed = File::from(input.sealed.try_clone()?);
        let mut offset = 0;
        while offset < input.length {
            let rest = usize::try_from(input.length - offset).unwrap_or(usize::MAX);
            if rustix::fs::sendfile(&file, &sealed, Some(&mut offset), rest.min(1 << 30))? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        io::Write::flush(&mut file)?;
        self.give(&path, if is_executable { 0o500 } else { 0o400 })?;
        Ok(path)
    }

    /// The socket that the container's init connects to.
    pub(super) fn listener(&self) -> io::Result<OwnedFd> {
        let folder = File::open(self.socket_folder())?;
        let name = Path::new(crate::jail::contained::SOCKET)
            .file_name()
            .unwrap_or_default();
        // By the descriptor, since the name of a socket may have 107 bytes only.
        let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&short)?)?;
        self.give(&self.socket_folder().join(name), 0o600)?;
        rustix::net::listen(&socket, 1)?;
        Ok(socket)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, folder = %self.directory.display(), "files of a container are left");
        }
    }
}

/// Removes the folders of servers that are gone; `this` asks.
pub(super) fn remove_left(directory: &Path, this: &Owner) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(Owner::told);
        if owner.is_some_and(|(owner, _)| owner.is_gone(this))
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, folder = %entry.path().display(), "files of a container are left");
        }
    }
}
