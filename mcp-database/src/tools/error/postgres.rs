//! PostgreSQL's errors.

use shared::tool_error::{ToolError, code};

use crate::postgres::Error;
use crate::postgres::error::ServerError;
use crate::postgres::statement::StatementError;

impl From<Error> for ToolError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Statement(StatementError::NotAChange(_)) => Self::new("NOT_A_CHANGE", message).with_hint(
                "give INSERT, UPDATE, DELETE, MERGE, a definition, or SELECT of a function; the transaction is made for you",
            ),
            Error::Statement(StatementError::Several(_)) => Self::new("NOT_A_QUERY", message)
                .with_hint("give one statement in `sql`; pg_execute takes more of them in `then`"),
            Error::Statement(StatementError::Unreadable(_)) => Self::new("UNREADABLE_VALUE", message)
                .with_hint("write them as texts in the statement: column::text"),
            Error::Statement(_) => Self::new("NOT_A_QUERY", message)
                .with_hint("give one SELECT, VALUES, TABLE or WITH; changes are pg_execute's"),
            Error::Function(error) => Self::new("FUNCTION_REFUSED", message).with_hint(format!(
                "do without it; if it is harmless, the operator can add \"{}\" to allow_functions of the source",
                error.function()
            )),
            Error::Parameters { .. } => Self::new(code::INVALID_ARGUMENTS, message)
                .with_hint("`params` has a value for each of $1, $2 …"),
            Error::Parameter(_) => Self::new(code::INVALID_ARGUMENTS, message)
                .with_hint("give the value as a string, as SQL would write it between quotes"),
            Error::Server(server) => of_server(&server),
            Error::Value(_) => {
                tracing::error!(error = %message, "a value cannot be read");
                Self::new("UNREADABLE_VALUE", message).with_hint("cast the column to text")
            }
            Error::TimedOut(_) => Self::new(code::TIMEOUT, message)
                .with_hint("ask for less, look with pg_explain, or give a longer `timeout_ms`"),
            Error::Lost(_) => Self::new("CONNECTION_LOST", message)
                .with_hint("call again; whether a change was made before has to be looked at"),
            Error::Unreachable(_) => Self::new("UNREACHABLE", message)
                .with_hint("db_sources shows the source; if it stays so, tell the operator"),
            Error::Exhausted => Self::new(code::BUSY, message).with_hint("call again later, or close cursors with db_cursor"),
            Error::Source(error) => error.into(),
            Error::TooPowerful(_) => Self::new("ROLE_TOO_POWERFUL", message).with_hint(
                "the operator can name a role that only reads (db_sources has the statements), or write allow_superuser = true",
            ),
            Error::Missing(_) => Self::new("NOT_SUPPORTED", message)
                .with_hint("the operator can install it: CREATE EXTENSION …; db_sources lists what there is"),
            Error::Index(_) => Self::new(code::INVALID_ARGUMENTS, message)
                .with_hint("give CREATE INDEX ON table (columns), one in each string"),
            Error::Search(_) => Self::new(code::INVALID_ARGUMENTS, message)
                .with_hint("pg_schema shows tables and their columns"),
            Error::ReadOnly(_) => Self::new("READ_ONLY", message)
                .with_hint("the operator's configuration says mode = \"read\""),
            Error::Empties { .. } => Self::new("CONFIRM_REQUIRED", message)
                .with_hint("look with a dry_run, and name the tables with TRUNCATE if that is meant"),
            Error::Unexpected { .. } => Self::new("UNEXPECTED_COUNT", message)
                .with_hint("look with a dry_run, and decide with what is there now"),
        }
    }
}

/// SQLSTATE in front, then all the server says.
fn of_server(error: &ServerError) -> ToolError {
    let mut message = format!("SQLSTATE {}: {}", error.state.code(), error.message);
    if let Some(detail) = &error.detail {
        message = format!("{message}. {detail}");
    }
    if let Some(position) = error.position {
        message = format!("{message} (at character {position})");
    }
    // It may quote rows: nothing in it looks like a line of ours.
    let message = shared::visible::prose(&message).replace(['\n', '\t'], " ");
    let hint = match error.state.code() {
        "25006" => Some(
            "this tool only reads; changes are pg_execute's, on a source with mode = \"write\"",
        ),
        "42501" => Some("the source's role may not do that; only the operator can grant it"),
        "28P01" | "28000" => Some("the operator has to mend the source's user or password"),
        "53300" => Some("the server has no connection left; call again later"),
        "57P01" | "57P02" | "57P03" => {
            Some("the server is going down or starting; call again in a while")
        }
        "55P03" => Some("something else holds a lock; call again later, or look with db_health"),
        "40001" | "40P01" => Some("nothing was changed; call again"),
        "53400" | "53200" | "53100" => Some("ask for less"),
        "0A000" => Some("the server cannot do that in a query"),
        _ => None,
    };
    let told = ToolError::new("DATABASE_ERROR", message);
    match (&error.hint, hint) {
        (Some(server), _) => told.with_hint(server.clone()),
        (None, Some(hint)) => told.with_hint(hint),
        (None, None) => told,
    }
}
