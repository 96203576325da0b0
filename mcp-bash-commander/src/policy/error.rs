//! A policy that cannot be used, and why.

use std::path::PathBuf;

use super::MAX_FILE_BYTES;
use super::rules::RuleError;
use crate::network::SecretError;

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("failed to read the policy `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else could change it.
    #[error(
        "the policy `{path}` can be changed by others (mode {mode:04o}, uid {owner}); run: chmod go-w '{path}', and let this user or root own it"
    )]
    ChangeableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// It is not a file, or far too long.
    #[error("the policy `{0}` is no regular file of at most {MAX_FILE_BYTES} bytes")]
    NoPolicyFile(PathBuf),
    /// It does not read as a policy.
    #[error("the policy `{path}` is not understood: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        reason: String,
    },
    /// A value is out of range.
    #[error("the policy's {field} is {value}; it must be {right}")]
    Value {
        /// `limits.pids`.
        field: &'static str,
        /// What was found.
        value: String,
        /// What would be right.
        right: &'static str,
    },
    /// A rule does not say what it was meant to.
    #[error("the policy's rules")]
    Rule(#[from] RuleError),
    /// A secret cannot be used or kept.
    #[error("the policy's secrets")]
    Secret(#[from] SecretError),
    /// The workspace cannot be one.
    #[error("`{path}`, {named}, cannot be the workspace: {reason}; give --workspace DIR")]
    Workspace {
        /// What says that it is the workspace.
        named: RootFrom,
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// What says which directory is the workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootFrom {
    /// The command line or its environment variable.
    Flag,
    /// The policy file.
    Policy,
    /// Neither.
    Default,
}

impl std::fmt::Display for RootFrom {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Flag => "which --workspace names",
            Self::Policy => "which workspace.root of the policy names",
            Self::Default => "the current directory",
        })
    }
}
