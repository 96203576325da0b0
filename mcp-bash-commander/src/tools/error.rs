//! How the shell's errors read to the model.

use shared::tool_error::{ToolError, code};

use crate::jail::JailError;
use crate::policy::EnvironmentError;
use crate::session::{InputError, SessionError};
use crate::workspace::changes::ChangesError;
use crate::workspace::{EditError, SearchError, WorkspaceError};

/// Arguments that are each well formed but cannot be used.
pub(super) fn invalid(message: impl Into<String>, hint: &str) -> ToolError {
    ToolError::new(code::INVALID_ARGUMENTS, message).with_hint(hint)
}

impl From<WorkspaceError> for ToolError {
    fn from(error: WorkspaceError) -> Self {
        let (code, hint) = match &error {
            WorkspaceError::Path { .. } => (
                code::INVALID_ARGUMENTS,
                "give a path relative to the workspace, without `..`",
            ),
            WorkspaceError::Outside(_) => (
                "OUTSIDE_WORKSPACE",
                "only files of the workspace can be used",
            ),
            WorkspaceError::Symlink(_) => {
                ("SYMLINK_ESCAPE", "name the file itself instead of a link")
            }
            WorkspaceError::NotFound(_) => ("NOT_FOUND", "look for it with exec: ls, find"),
            WorkspaceError::NotRegular { .. } => (
                "NOT_A_FILE",
                "only regular files can be used; list folders with exec: ls",
            ),
            WorkspaceError::HardLinked(_) => (
                "HARD_LINKED",
                "copy it to a new name with exec: cp, and write that",
            ),
            WorkspaceError::ReadOnly => ("READ_ONLY", "the operator's policy says access = \"ro\""),
            WorkspaceError::Changed { .. } => (
                "FILE_CHANGED",
                "read the file again, and decide with what is there now",
            ),
            WorkspaceError::TooLong { .. } => ("TOO_LONG", "write it in parts with exec"),
            WorkspaceError::TooMuchToClose { .. } => (
                "WORKSPACE_UNUSABLE",
                "nothing was run; the operator can give a smaller workspace or fewer patterns in workspace.deny_read",
            ),
            WorkspaceError::TooManyEntries(_) | WorkspaceError::TooManyLinked { .. } => (
                "WORKSPACE_UNUSABLE",
                "nothing was run; workspace = \"overlay\" or \"readonly\" of the call changes no file outside; the operator can write \
                 hard_links = \"allow\" under [workspace] of the policy, and commands then change what lies outside as well",
            ),
            WorkspaceError::Unusable(_) | WorkspaceError::Io { .. } => return io_failure(&error),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

impl From<EditError> for ToolError {
    fn from(error: EditError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            EditError::Workspace(error) => return error.into(),
            EditError::Count(_) => (code::INVALID_ARGUMENTS, "give 1 to 100 edits"),
            EditError::EmptyOld { .. } => (
                code::INVALID_ARGUMENTS,
                "give the text to replace; a whole new content is write_file's",
            ),
            EditError::NoMatch { .. } => (
                "NO_MATCH",
                "nothing was changed; read the file again and copy the text exactly",
            ),
            EditError::Ambiguous { .. } => (
                "AMBIGUOUS",
                "nothing was changed; give more lines around it, or `all`",
            ),
            EditError::NothingChanged { .. } => ("NOTHING_CHANGED", "it is already as asked"),
            EditError::NotText { .. } => ("NOT_TEXT", "change binary files with exec"),
            EditError::TooLong { .. } => ("TOO_LONG", "change it with exec, for instance sed"),
        };
        Self::new(code, message).with_hint(hint)
    }
}

impl From<ChangesError> for ToolError {
    fn from(error: ChangesError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            ChangesError::Workspace(error) => return error.into(),
            ChangesError::Digest { .. } => (
                "CHANGES_DIFFER",
                "nothing was carried over; `list` the same `paths` again, which the digest is of, and decide with what is there now",
            ),
            ChangesError::Unchanged(_) | ChangesError::WithinReplaced { .. } => {
                (code::INVALID_ARGUMENTS, "`list` shows the paths")
            }
            ChangesError::TooMuch { .. } => (
                "TOO_LONG",
                "nothing was carried over; commit parts by `paths`, or discard what is not needed",
            ),
            ChangesError::NoOverlay { .. }
            | ChangesError::Marked { .. }
            | ChangesError::NotProtectable(_)
            | ChangesError::Io { .. } => return io_failure(&error),
        };
        Self::new(code, message).with_hint(hint)
    }
}

impl From<SearchError> for ToolError {
    fn from(error: SearchError) -> Self {
        let message = error.to_string();
        match error {
            SearchError::Workspace(error) => error.into(),
            SearchError::Denied(_) => Self::new("READ_DENIED", message)
                .with_hint("the operator's policy says so in workspace.deny_read"),
            SearchError::Range {
                name,
                given,
                least,
                most,
            } => {
                // The tool has another name for it.
                let name = if name == "most" { "max" } else { name };
                invalid(
                    format!("`{name}` is {given}"),
                    &format!("give {least} to {most}"),
                )
            }
            _ => Self::new(code::INVALID_ARGUMENTS, message)
                .with_hint("change what it names; `literal` looks for plain text"),
        }
    }
}

/// The model learns what the system said; it names nothing but the path of the call.
fn io_failure(error: &dyn std::error::Error) -> ToolError {
    tracing::warn!(error = %error, "a file could not be used");
    ToolError::new("IO_ERROR", error.to_string())
        .with_hint("if it is the disk or a permission, tell the operator")
}

impl From<SessionError> for ToolError {
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        match error {
            SessionError::Jail(error) => error.into(),
            SessionError::Full(_) => Self::new("TOO_MANY_SESSIONS", message)
                .with_hint("wait for one to end, or stop one: list_sessions, stop"),
            SessionError::Unknown(_) => {
                Self::new("UNKNOWN_SESSION", message).with_hint("list_sessions shows yours")
            }
            SessionError::Ending => Self::new(code::CANCELLED, message),
            SessionError::RunEnded => Self::new("RUN_STOPPED", message)
                .with_hint("run_get of the spec registry shows where the run stands"),
            SessionError::OtherTerms { .. } => Self::new("SESSION_DIFFERS", message)
                .with_hint("give the same `workspace`, `network` and ports as the session's first call, or another session name"),
            SessionError::Unrecorded(source) => {
                tracing::error!(error = %source, "no command runs: its start cannot be recorded");
                Self::new(code::AUDIT_UNAVAILABLE, message)
                    .with_hint("tell the operator to run `mcp-bash-commander doctor`")
            }
            SessionError::Proxy(_) => Self::new("NETWORK_UNUSABLE", message)
                .with_hint("try again; if it fails again, tell the operator"),
            SessionError::Publish { .. } => Self::new("PORT_NOT_PUBLISHED", message)
                .with_hint("try again; if it fails again, tell the operator"),
        }
    }
}

impl From<InputError> for ToolError {
    fn from(error: InputError) -> Self {
        let (code, hint) = match &error {
            InputError::None => ("NO_INPUT", "start it again with one of these"),
            InputError::Closed => ("INPUT_CLOSED", "read_output shows what it wrote"),
            InputError::Full { .. } => (
                "INPUT_NOT_TAKEN",
                "look with read_output what it does, and write the rest later",
            ),
            InputError::NoTerminal => ("NO_TERMINAL", "leave `resize` out"),
            InputError::Io(_) => return io_failure(&error),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

impl From<JailError> for ToolError {
    fn from(error: JailError) -> Self {
        let message = error.to_string();
        match &error {
            JailError::Layer { hint, .. } | JailError::Container { hint, .. } => {
                tracing::error!(%error, "no command runs: the jail is not complete");
                Self::new("JAIL_INCOMPLETE", message).with_hint(format!("nothing was run. For the operator: {hint}"))
            }
            JailError::Program { .. } => Self::new("PROGRAM_NOT_RUN", message)
                .with_hint("only programs of the system and the workspace can be run; look with `command -v NAME`"),
            JailError::WorkingDirectory { .. } => {
                Self::new("NO_SUCH_DIRECTORY", message).with_hint("cwd is relative to the workspace")
            }
            JailError::Request(_) => Self::new(code::INVALID_ARGUMENTS, message),
            JailError::Workspace { .. } | JailError::Input { .. } => Self::new("WORKSPACE_UNUSABLE", message)
                .with_hint("tell the operator to run `mcp-bash-commander doctor`"),
            JailError::LauncherLost(_)
            | JailError::LauncherStart(_)
            | JailError::Ended(_)
            | JailError::NotServing(_)
            | JailError::Io { .. } => {
                tracing::error!(%error, "a jail failed");
                Self::new("JAIL_FAILED", message).with_hint("nothing was left running; try again once, then tell the operator")
            }
        }
    }
}

impl From<EnvironmentError> for ToolError {
    fn from(error: EnvironmentError) -> Self {
        let message = error.to_string();
        match error {
            EnvironmentError::LoadsCode(_) | EnvironmentError::Fixed(_) => Self::new("ENVIRONMENT_REFUSED", message)
                .with_hint("leave it out; if the work needs it, the operator can add it to env.pass of the policy"),
            EnvironmentError::Malformed(_) | EnvironmentError::TooLong(_) => Self::new(code::INVALID_ARGUMENTS, message),
        }
    }
}
