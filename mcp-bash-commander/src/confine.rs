//! From the policy to a jail: what every command gets, whoever asked for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::jail::{Access, JailSpec, Masked};
use crate::policy::{self, EnvironmentError, HardLinks, Policy};
use crate::workspace::{Workspace, WorkspaceError};

/// Whether a command changes the workspace itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changes {
    /// As far as the policy lets it; never protected paths.
    Made,
    /// None is made: it reads the workspace, or its changes are kept aside.
    NoneMade,
}

impl Changes {
    /// Whether there can be any.
    pub(crate) fn are_made(self, policy: &Policy) -> bool {
        self == Self::Made && policy.access == policy::Access::ReadWrite
    }
}

/// A jail in which a command has what the policy grants: toolchain, environment with `env` on top, limits, and the workspace as the
/// place it works in. There is no network yet, and what [`closed`] finds is not closed yet.
///
/// # Errors
/// A variable of `env` that is malformed or that only the policy may pass.
pub(crate) fn jail<S: Into<OsString>>(
    policy: &Policy,
    workspace: &Workspace,
    argv: impl IntoIterator<Item = S>,
    env: &BTreeMap<String, String>,
    changes: Changes,
) -> Result<JailSpec, EnvironmentError> {
    let mut jail = JailSpec::with_toolchain(argv, policy.toolchain.clone());
    jail.command.env = policy.environment.of_call(env)?;
    workspace.root().clone_into(&mut jail.command.cwd);
    jail.limits = policy.limits.of_jail();
    jail.modes = policy.modes();
    let place = workspace.for_jail();
    jail.workspace = Some(if changes.are_made(policy) {
        jail.protected = policy.protected.paths().to_vec();
        place
    } else {
        place.with_access(Access::ReadOnly)
    });
    Ok(jail)
}

/// What is to be closed because nobody may read it, as the workspace is now.
///
/// # Errors
/// A workspace that cannot be looked at as a whole: then no command can be run in it.
pub(crate) async fn closed(
    policy: &Arc<Policy>,
    workspace: &Arc<Workspace>,
) -> Result<Vec<Masked>, WorkspaceError> {
    if policy.deny_read.is_empty() {
        return Ok(Vec::new());
    }
    let policy = Arc::clone(policy);
    look_through(workspace, move |workspace| {
        workspace.closed(&|path| policy.denies_reading(path))
    })
    .await
}

/// What must not be written because it is outside the workspace as well, as the workspace is now.
///
/// # Errors
/// A workspace that cannot be looked at as a whole: then no command that changes it can be run.
pub(crate) async fn linked(
    policy: &Policy,
    workspace: &Arc<Workspace>,
) -> Result<Vec<PathBuf>, WorkspaceError> {
    match policy.hard_links {
        HardLinks::Allow => Ok(Vec::new()),
        HardLinks::Protect if workspace.has_none_linked() => Ok(Vec::new()),
        HardLinks::Protect => look_through(workspace, Workspace::linked_outside).await,
    }
}

/// Whether a path that a command sees is a file of the workspace with a name outside it.
pub(crate) async fn is_linked(workspace: &Arc<Workspace>, path: &str) -> bool {
    let Ok(path) = workspace.relative(path) else {
        return false;
    };
    let linked = look_through(workspace, Workspace::linked_outside).await;
    linked.is_ok_and(|linked| linked.contains(&path))
}

/// Whether a path that a command sees is a file where the folder of a protected path would be.
pub(crate) fn is_in_the_way(policy: &Policy, workspace: &Workspace, path: &str) -> bool {
    let absent = workspace.absent(policy.protected.paths());
    workspace
        .relative(path)
        .is_ok_and(|path| absent.in_the_way().contains(&path))
}

/// Looks at all of the workspace, which may take long.
pub(crate) async fn look_through<T: Send + 'static>(
    workspace: &Workspace,
    look: impl FnOnce(&Workspace) -> Result<T, WorkspaceError> + Send + 'static,
) -> Result<T, WorkspaceError> {
    let place = workspace.clone();
    tokio::task::spawn_blocking(move || look(&place))
        .await
        .map_err(|error| WorkspaceError::Io {
            action: "look through",
            path: workspace.root().display().to_string(),
            source: io::Error::other(error),
        })?
}
