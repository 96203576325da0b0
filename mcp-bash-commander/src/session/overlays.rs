//! Where overlays keep what commands change, each for as long as its session is remembered.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::lock;
use crate::workspace::Workspace;
use crate::workspace::changes::{ChangesError, Overlay};

/// The folder of one server's overlays. Those of servers that are gone are removed when another opens its own.
#[derive(Debug, Clone)]
pub struct OverlayFolder(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Locked for as long as the server lives: that tells others whose folder is left over.
    _lock: File,
}

impl OverlayFolder {
    /// Makes a folder below the state directory, and removes what servers that were killed left there.
    ///
    /// # Errors
    /// A state directory that cannot be written to.
    pub fn open(state: &Path) -> io::Result<Self> {
        let all = state.join("overlays");
        make_private(&all)?;
        for entry in fs::read_dir(&all)?.flatten() {
            let path = entry.path();
            // A folder whose lock can be had belongs to nobody any more.
            if locked(&path).is_ok() {
                remove_folder(&path);
            }
        }
        let path = all.join(format!(
            "{:016x}",
            getrandom::u64().map_err(io::Error::from)?
        ));
        make_private(&path)?;
        let lock = locked(&path)?;
        Ok(Self(Arc::new(Folder { path, _lock: lock })))
    }

    /// An overlay over the workspace, empty.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn create(&self, workspace: &Arc<Workspace>) -> Result<Arc<Changes>, ChangesError> {
        let name = getrandom::u64().unwrap_or_default();
        let path = self.0.path.join(format!("{name:016x}"));
        let overlay = Overlay::create(&path, workspace)?;
        Ok(Arc::new(Changes {
            folder: self.clone(),
            path,
            workspace: Arc::clone(workspace),
            overlay: Mutex::new(overlay),
        }))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove_folder(&self.path);
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn locked(folder: &Path) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(folder.join("lock"), flags, Mode::from_raw_mode(0o600))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file.into())
}

fn remove_folder(folder: &Path) {
    for overlay in fs::read_dir(folder).into_iter().flatten().flatten() {
        if overlay.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&overlay.path());
        }
    }
    // What cannot be removed is tried again by the next server.
    let _ = fs::remove_file(folder.join("lock"));
    let _ = fs::remove_dir(folder);
}

/// Removes an overlay, whatever a command made of its inside.
fn remove(path: &Path) {
    let emptied = match Overlay::open(path) {
        Ok(overlay) => overlay.empty().map(drop),
        // A server was killed while it made this one, so no command has seen it.
        Err(_) => Ok(()),
    };
    let result = emptied.map_err(|error| error.to_string()).and_then(|()| {
        // The kernel's own folders cannot be listed by everyone; empty ones can be removed all the same.
        for name in ["work/work", "work/index", "work", "upper"] {
            let _ = fs::remove_dir(path.join(name));
        }
        fs::remove_dir_all(path).map_err(|error| error.to_string())
    });
    if let Err(error) = result {
        tracing::warn!(%error, path = %path.display(), "an overlay cannot be removed");
    }
}

/// What commands changed behind one overlay. Removed with its last user.
#[derive(Debug)]
pub struct Changes {
    /// Held for as long as this is used.
    #[expect(dead_code, reason = "held for its drop alone")]
    folder: OverlayFolder,
    path: PathBuf,
    workspace: Arc<Workspace>,
    overlay: Mutex<Overlay>,
}

impl Changes {
    /// Its directory, for the jail.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The workspace it lies over.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// The overlay, for one user at a time.
    pub fn overlay(&self) -> MutexGuard<'_, Overlay> {
        lock(&self.overlay)
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        remove(&self.path);
    }
}
