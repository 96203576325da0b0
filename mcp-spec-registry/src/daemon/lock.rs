//! One process holds a state directory.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::oneshot;

/// Why a state directory cannot be held.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "`{path}` is held by process {holder}, which is a running registry; one that a client started ends when it has been idle for 10 minutes. End it with `kill {holder}`, or give --state-dir another directory"
    )]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// What the holder wrote into it.
        holder: String,
    },
    /// The lock cannot be tried.
    #[error("failed to lock `{path}`: {source}")]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

/// Takes the state directory for this process.
///
/// # Errors
/// [`LockError::Held`] names the process that has it.
pub fn hold(state_dir: &Path) -> Result<StateLock, LockError> {
    let path = state_dir.join("registry.lock");
    let io = |source| LockError::Io {
        path: path.clone(),
        source,
    };
    let mut file = open(&path).map_err(io)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // What is not written yet is simply not named.
        let _ = file.read_to_string(&mut holder);
        return Err(LockError::Held {
            path,
            holder: holder.trim().to_owned(),
        });
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(StateLock { _file: file })
}

/// As [`hold`], and gives a registry that is about to end some seconds to do so.
///
/// # Errors
/// As [`hold`].
pub(super) async fn hold_soon(state_dir: &Path) -> Result<StateLock, LockError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let held = hold(state_dir);
    let Err(LockError::Held { path, .. }) = &held else {
        return held;
    };
    let (tell, told) = oneshot::channel();
    let path = path.clone();
    // A thread of its own: where the lock stays held it waits until this process ends, and must not keep it from ending.
    std::thread::spawn(move || {
        let free =
            open(&path).is_ok_and(|file| flock(&file, FlockOperation::LockExclusive).is_ok());
        let _ = tell.send(free);
    });
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(true)) => hold(state_dir),
        _ => held,
    }
}

/// Waits for the turn to start a registry: of several clients that come at once, one starts it and the others find it.
pub(super) fn wait_for_turn(state_dir: &Path) -> std::io::Result<StateLock> {
    let file = open(&state_dir.join("start.lock"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(StateLock { _file: file })
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_holder_who_is_named() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let first = hold(dir.path())?;
        let second = hold(dir.path())
            .map(|_| ())
            .map_err(|error| error.to_string());
        let named = format!("held by process {}", std::process::id());
        assert!(second.is_err_and(|error| error.contains(&named)));
        drop(first);
        hold(dir.path())?;
        Ok(())
    }
}
