//! The folder where a server keeps what must outlive it: its owner's alone.

use std::{
    fs::{DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// A state directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Neither `--state-dir` nor a home to derive it from.
    #[error("neither XDG_STATE_HOME nor HOME is an absolute path; give --state-dir DIR")]
    NoHome,
    /// It belongs to another user.
    #[error("`{path}` belongs to uid {owner}, not to uid {uid}; give --state-dir DIR of your own")]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// Group or others may enter or change it.
    #[error("`{path}` is open to others (mode {mode:04o}); run: chmod 700 '{path}'")]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something else has its name.
    #[error("`{0}` is not a directory")]
    NoDirectory(PathBuf),
    /// It cannot be made or looked at.
    #[error("failed to use `{path}` as state directory: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The state directory of a server, made (0700) where it is missing, refused where it is not its owner's alone. Default
/// is `$XDG_STATE_HOME/spec-driven-ai/<server>`, without that variable below `~/.local/state`.
///
/// # Errors
/// A directory that is not ours, is open to others, or cannot be made.
pub fn open(server: &str, given: Option<&Path>) -> Result<PathBuf, StateDirError> {
    let path = match given {
        Some(path) => std::path::absolute(path).map_err(|source| StateDirError::Io {
            path: path.to_owned(),
            source,
        })?,
        None => default_path(server)?,
    };
    check(&path, &make(&path)?)?;
    Ok(path)
}

/// Where the state of a server is kept if nobody says otherwise.
///
/// # Errors
/// No absolute `XDG_STATE_HOME` or `HOME`.
pub fn default_path(server: &str) -> Result<PathBuf, StateDirError> {
    let absolute = |variable: &str| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|home| home.join("spec-driven-ai").join(server))
        .ok_or(StateDirError::NoHome)
}

/// Where a server with this state directory has its sockets unless told otherwise: `$XDG_RUNTIME_DIR/spec-driven-ai/<8 hex of the
/// directory's path>`, or `sockets` in the directory where the system has no such place.
pub fn socket_folder(state_dir: &Path) -> PathBuf {
    // Systems without a login session leave the variable unset, or name a folder that is not there.
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|path| path.is_absolute() && path.is_dir()) {
        Some(runtime) => {
            // However the directory was named, its sockets are in one place.
            let path = state_dir
                .canonicalize()
                .unwrap_or_else(|_| state_dir.to_owned());
            let digest = crate::digest::Digest::of(path.as_os_str().as_encoded_bytes());
            runtime.join("spec-driven-ai").join(digest.short())
        }
        None => state_dir.join("sockets"),
    }
}

fn make(path: &Path) -> Result<Metadata, StateDirError> {
    let failed = |source| StateDirError::Io {
        path: path.to_owned(),
        source,
    };
    match path.symlink_metadata() {
        Ok(metadata) => return Ok(metadata),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Err(_) => {}
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    path.symlink_metadata().map_err(failed)
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), StateDirError> {
    let path = path.to_owned();
    let uid = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() {
        return Err(StateDirError::NoDirectory(path));
    }
    if metadata.uid() != uid {
        return Err(StateDirError::ForeignOwner {
            path,
            owner: metadata.uid(),
            uid,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateDirError::OpenToOthers { path, mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn a_missing_state_directory_is_made_for_its_owner_alone() -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("a/b/state");
        assert_eq!(open("x", Some(&path))?, path);
        assert_eq!(path.metadata()?.mode() & 0o7777, 0o700);
        open("x", Some(&path))?;
        Ok(())
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused_with_the_command_that_mends_it()
    -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let path = home.path().join("state");
        fs::create_dir(&path)?;
        for mode in [0o750, 0o701, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            let refused = open("x", Some(&path))
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(
                refused.contains(&format!("chmod 700 '{}'", path.display())),
                "{refused}"
            );
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        open("x", Some(&path))?;
        Ok(())
    }

    #[test]
    fn a_link_or_file_in_its_place_is_refused() -> anyhow::Result<()> {
        let home = tempfile::tempdir()?;
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link)?;
        assert!(matches!(
            open("x", Some(&link)),
            Err(StateDirError::NoDirectory(_))
        ));
        let file = home.path().join("file");
        fs::write(&file, "")?;
        assert!(matches!(
            open("x", Some(&file)),
            Err(StateDirError::NoDirectory(_))
        ));
        Ok(())
    }
}
