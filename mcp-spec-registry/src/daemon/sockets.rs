//! Where the three sockets are, and who may use them.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::Gid;
use tokio::net::UnixListener;

use crate::config::ServeCommand;

/// The kernel's limit of a unix socket's path, without the final NUL.
const LONGEST_PATH: usize = 107;

/// Why the sockets cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel takes no longer path.
    #[error("the socket path `{0}` is over {LONGEST_PATH} bytes; give a shorter --socket-dir")]
    TooLong(PathBuf),
    /// Somebody else could answer in the registry's name.
    #[error("`{path}` belongs to uid {owner}; give a --socket-dir of your own")]
    ForeignOwner {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The group does not exist.
    #[error("there is no group `{0}`")]
    NoGroup(String),
    /// The file system says no.
    #[error("failed to make the socket folder `{path}`: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The folder that holds the sockets' folders: `--socket-dir`, else below `$XDG_RUNTIME_DIR`, else in the state directory.
pub fn folder(state_dir: &Path, given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| shared::state_dir::socket_folder(state_dir))
}

/// Path of one socket: each is in a folder of its own, whose mode says who may use it.
pub fn path(folder: &Path, plane: &str) -> PathBuf {
    folder.join(plane).join(format!("{plane}.sock"))
}

/// Whether the kernel can take the paths of the sockets in this folder.
///
/// # Errors
/// [`SocketError::TooLong`].
pub fn check(folder: &Path) -> Result<(), SocketError> {
    check_length(&path(folder, "approval"))
}

/// The sockets of a running registry.
pub(super) struct Sockets {
    pub(super) agent: UnixListener,
    pub(super) agent_path: PathBuf,
    pub(super) effect: UnixListener,
    pub(super) effect_path: PathBuf,
    pub(super) approval: UnixListener,
    pub(super) approval_path: PathBuf,
}

impl Sockets {
    /// Listens on all three. The caller holds the state directory, so what lies there is left over and replaced.
    pub(super) fn bind(
        state_dir: &Path,
        given: Option<PathBuf>,
        command: &ServeCommand,
    ) -> Result<Self, SocketError> {
        let has_group = command.agent_group.is_some() || command.effect_group.is_some();
        let folder = folder(state_dir, given);
        let outer_mode = if has_group { 0o711 } else { 0o700 };
        make_folder(&folder, outer_mode, None)?;
        let (agent, agent_path) = listen(&folder, "agent", command.agent_group.as_deref())?;
        let (effect, effect_path) = listen(&folder, "effect", command.effect_group.as_deref())?;
        let (approval, approval_path) = listen(&folder, "approval", None)?;
        Ok(Self {
            agent,
            agent_path,
            effect,
            effect_path,
            approval,
            approval_path,
        })
    }
}

fn listen(
    folder: &Path,
    plane: &str,
    group: Option<&str>,
) -> Result<(UnixListener, PathBuf), SocketError> {
    let path = path(folder, plane);
    check_length(&path)?;
    let own = folder.join(plane);
    make_folder(&own, if group.is_some() { 0o750 } else { 0o700 }, group)?;
    let io = |source| SocketError::Io {
        path: path.clone(),
        source,
    };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(io)?;
    // The folder's mode decides; whoever may enter it may also connect.
    fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(io)?;
    Ok((listener, path))
}

/// Says so where the kernel would only say that something is invalid.
pub(super) fn check_length(path: &Path) -> Result<(), SocketError> {
    if path.as_os_str().len() > LONGEST_PATH {
        Err(SocketError::TooLong(path.to_owned()))
    } else {
        Ok(())
    }
}

fn make_folder(path: &Path, mode: u32, group: Option<&str>) -> Result<(), SocketError> {
    let io = |source| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io)?;
    let owner = fs::symlink_metadata(path).map_err(io)?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(SocketError::ForeignOwner {
            path: path.to_owned(),
            owner,
        });
    }
    if let Some(group) = group {
        rustix::fs::chown(path, None, Some(group_id(group)?)).map_err(|error| io(error.into()))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io)
}

/// A group by number or by its line in /etc/group.
pub(super) fn group_id(name: &str) -> Result<Gid, SocketError> {
    let by_name = || {
        let groups = fs::read_to_string("/etc/group").ok()?;
        groups.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name))
                .then(|| fields.nth(1)?.parse().ok())
                .flatten()
        })
    };
    let number: Option<u32> = name.parse().ok().or_else(by_name);
    number
        .map(Gid::from_raw)
        .ok_or_else(|| SocketError::NoGroup(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.mode() & 0o777)
    }

    #[tokio::test]
    async fn each_socket_has_a_folder_that_only_its_users_may_enter() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let folder = dir.path().join("s");
        let command = ServeCommand {
            agent_group: Some("0".to_owned()),
            ..ServeCommand::default()
        };
        let first = Sockets::bind(dir.path(), Some(folder.clone()), &command);
        if rustix::process::geteuid().is_root() {
            first?;
            assert_eq!(mode(&folder.join("agent"))?, 0o750);
            assert_eq!(mode(&folder)?, 0o711);
        }
        // Left over from before, replaced.
        let sockets = Sockets::bind(dir.path(), Some(folder.clone()), &ServeCommand::default())?;
        assert_eq!(mode(&folder)?, 0o700);
        for plane in ["agent", "effect", "approval"] {
            assert_eq!(mode(&folder.join(plane))?, 0o700, "{plane}");
        }
        assert_eq!(sockets.agent_path, path(&folder, "agent"));
        Ok(())
    }

    #[tokio::test]
    async fn a_path_that_the_kernel_would_cut_is_refused() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let long = dir.path().join("x".repeat(100));
        let refused = Sockets::bind(dir.path(), Some(long), &ServeCommand::default());
        assert!(matches!(refused.map(|_| ()), Err(SocketError::TooLong(_))));
        Ok(())
    }

    #[tokio::test]
    async fn a_folder_of_another_uid_is_refused() -> anyhow::Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(()); // nobody else can give a folder away
        }
        let dir = tempfile::tempdir()?;
        let folder = dir.path().join("s");
        fs::create_dir(&folder)?;
        std::os::unix::fs::chown(&folder, Some(65534), None)?;
        let refused = Sockets::bind(dir.path(), Some(folder.clone()), &ServeCommand::default());
        assert!(matches!(
            refused.map(|_| ()),
            Err(SocketError::ForeignOwner { owner: 65534, .. })
        ));
        std::os::unix::fs::chown(&folder, Some(0), None)?;
        Sockets::bind(dir.path(), Some(folder), &ServeCommand::default())?;
        Ok(())
    }
}
