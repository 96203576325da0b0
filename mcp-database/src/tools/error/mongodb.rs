//! MongoDB's errors.

use rmcp::RoleServer;
use rmcp::service::RequestContext;
use shared::call;
use shared::tool_error::{ToolError, code};

use crate::mongodb::MongoError;

/// The error for the model; that nothing reached the database is noted.
pub(in crate::tools) fn refusal(
    context: &RequestContext<RoleServer>,
    error: MongoError,
) -> ToolError {
    if matches!(error, MongoError::Gate(_) | MongoError::ReadOnly(_)) {
        call::was_refused(context);
    }
    error.into()
}

impl From<MongoError> for ToolError {
    fn from(error: MongoError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            MongoError::Source(error) => return error.into(),
            MongoError::Ejson(_) | MongoError::Argument { .. } => {
                return Self::new(code::INVALID_ARGUMENTS, message);
            }
            MongoError::Gate(error) if error.place == "a change" => (
                "NOT_A_CHANGE",
                "give plain documents, filters and update operators",
            ),
            MongoError::Gate(error) if error.writes() => {
                ("NOT_A_QUERY", "changes are mongo_write's")
            }
            MongoError::Gate(_) => return Self::new("NOT_A_QUERY", message),
            MongoError::ReadOnly(_) => (
                "READ_ONLY",
                "the operator's configuration says mode = \"read\"",
            ),
            MongoError::TooMany { .. } => (
                "UNEXPECTED_COUNT",
                "look with a dry_run, and decide with what is there now",
            ),
            MongoError::NoServer(_)
            | MongoError::NoPrimary
            | MongoError::NoMember
            | MongoError::Dns(_)
            | MongoError::TooOld(_) => (
                "UNREACHABLE",
                "db_sources shows the source; if it stays so, tell the operator",
            ),
            MongoError::Authentication(_) => (
                "UNREACHABLE",
                "the operator has to mend the source's user or password",
            ),
            MongoError::Connection(_) => (
                "CONNECTION_LOST",
                "call again; whether a change was made before has to be looked at",
            ),
            MongoError::Reply(_) => {
                tracing::error!(error = %message, "a reply cannot be read");
                ("UNREADABLE_VALUE", "leave out fields with a projection")
            }
            MongoError::Unauthorized { .. } => (
                "DATABASE_ERROR",
                "the source's user may not do that; only the operator can grant it",
            ),
            MongoError::DuplicateKey { .. } => (
                "DATABASE_ERROR",
                "a unique index has this key already; update that document, or give another key",
            ),
            MongoError::Server { .. } => return Self::new("DATABASE_ERROR", message),
            MongoError::Timeout(_) => (
                code::TIMEOUT,
                "ask for less, look with mongo_explain, or give a longer `timeout_ms`",
            ),
            MongoError::NotSupported { .. } => (
                "NOT_SUPPORTED",
                "do it in another way; db_sources tells what the server is",
            ),
            MongoError::Ended => ("UNKNOWN_CURSOR", "ask the query again"),
        };
        Self::new(code, message).with_hint(hint)
    }
}
