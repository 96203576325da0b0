//! Why an exec was refused, always naming the layer that is missing.

use std::path::PathBuf;

use super::Layer;

/// A command did not run, because its jail could not be made exactly as asked. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// A layer of the jail could not be set up; the command was not started.
    #[error("the jail lacks its layer `{layer}`: {detail}: {}", std::io::Error::from_raw_os_error(*errno))]
    Layer {
        /// The missing layer.
        layer: Layer,
        /// The kernel's error number.
        errno: i32,
        /// The step that failed, with the path or name it was about.
        detail: String,
        /// What the operator can do about it.
        hint: String,
    },
    /// The program is not in the jail or cannot be run there. The jail itself was complete.
    #[error("cannot run `{program}` in the jail: {}", std::io::Error::from_raw_os_error(*errno))]
    Program {
        /// The first element of the argument vector.
        program: String,
        /// The kernel's error number: `ENOENT` not found, `EACCES` not executable, `E2BIG` too many arguments.
        errno: i32,
    },
    /// The working directory is not a directory of the jail.
    #[error("`{}` is not a directory inside the jail: {}", path.display(), std::io::Error::from_raw_os_error(*errno))]
    WorkingDirectory {
        /// The directory asked for.
        path: PathBuf,
        /// The kernel's error number.
        errno: i32,
    },
    /// The workspace cannot be used.
    #[error("`{}` cannot be the workspace: {reason}", path.display())]
    Workspace {
        /// The directory asked for.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A pinned input cannot be used.
    #[error("`{}` cannot be pinned: {reason}", path.display())]
    Input {
        /// Its place in the jail.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A container could not be had.
    #[error("no container: {reason}")]
    Container {
        /// What the engine said, or what is wrong with its image.
        reason: String,
        /// What the operator can do about it.
        hint: String,
    },
    /// The request itself is malformed.
    #[error("the command cannot be run: {0}")]
    Request(String),
    /// The launcher is not running. The next call starts it again.
    #[error("the jail's launcher ended ({0}); it is started again by the next call")]
    LauncherLost(String),
    /// The launcher could not be started.
    #[error("the jail's launcher cannot be started: {0}")]
    LauncherStart(std::io::Error),
    /// The jail ended before the command began.
    #[error("the jail ended while it was set up: {0}")]
    Ended(String),
    /// No process of the jail listens on the published port.
    #[error("no process of the jail listens on port {0}")]
    NotServing(u16),
    /// The server's side of the plumbing failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

impl JailError {
    /// What the operator can do, where there is something.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Layer { hint, .. } | Self::Container { hint, .. } => Some(hint),
            _ => None,
        }
    }

    /// A layer that cannot be set up, with what an operator can do.
    pub(super) fn lacks(layer: Layer, errno: rustix::io::Errno, detail: String) -> Self {
        let errno = errno.raw_os_error();
        Self::Layer {
            layer,
            errno,
            detail,
            hint: layer.hint(errno),
        }
    }

    /// Does it come from what this host allows, so that a jail of another kind could be made here?
    pub(super) fn is_of_host(&self) -> bool {
        match self {
            Self::Layer { layer, errno, .. } => layer.is_forbidden_by(*errno),
            Self::Container { .. } => true,
            _ => false,
        }
    }

    pub(super) fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    pub(super) fn errno(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io {
            action,
            source: errno.into(),
        }
    }
}
