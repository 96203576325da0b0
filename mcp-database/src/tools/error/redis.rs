//! Redis's errors.

use rmcp::RoleServer;
use rmcp::service::RequestContext;
use shared::call;
use shared::tool_error::{ToolError, code};

use crate::redis::bus::BusError;
use crate::redis::command::GateError;
use crate::redis::error::{Error, Refusal};
use crate::redis::search::SearchError;
use crate::redis::value::ValueError;
use crate::redis::write::WriteError;

/// The error for the model; that nothing reached the database is noted.
pub(in crate::tools) fn refusal(
    context: &RequestContext<RoleServer>,
    error: impl Into<Error>,
) -> ToolError {
    let error = error.into();
    if matches!(
        error,
        Error::ReadOnlySource(_)
            | Error::OutsidePrefix { .. }
            | Error::Gate(_)
            | Error::Bus(BusError::NoStreams(_) | BusError::Unlisted { .. })
            | Error::Search(SearchError::OutsidePrefix { .. })
    ) {
        call::was_refused(context);
    }
    error.into()
}

impl From<Error> for ToolError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Source(error) => error.into(),
            Error::Connection { .. } | Error::Protocol { .. } => Self::new("UNREACHABLE", message)
                .with_hint("db_sources shows the source; if it stays so, tell the operator"),
            Error::Lost { .. } => Self::new("CONNECTION_LOST", message)
                .with_hint("call again; whether a change was made before has to be looked at"),
            Error::Timeout { .. } => Self::new(code::TIMEOUT, message)
                .with_hint("ask for less; whether a change was made has to be looked at"),
            Error::TooLarge { .. } | Error::TooMany { .. } => {
                Self::new(code::RESULT_TOO_LARGE, message)
                    .with_hint("ask for less at once: fewer keys, or a smaller `count`")
            }
            Error::Server { refusal, .. } => {
                let told = Self::new("DATABASE_ERROR", message);
                match advice(refusal) {
                    Some(advice) => told.with_hint(advice),
                    None => told,
                }
            }
            Error::ReadOnlySource(_) => Self::new("READ_ONLY", message)
                .with_hint("the operator's configuration says mode = \"read\""),
            Error::OutsidePrefix { .. } => Self::new("OUTSIDE_PREFIX", message)
                .with_hint("the operator's configuration says so with key_prefix"),
            Error::Value(error) => error.into(),
            Error::Write(error) => error.into(),
            Error::Gate(error) => error.into(),
            Error::Bus(error) => error.into(),
            Error::Search(error) => error.into(),
        }
    }
}

impl From<ValueError> for ToolError {
    fn from(error: ValueError) -> Self {
        Self::new(code::INVALID_ARGUMENTS, error.to_string())
    }
}

impl From<WriteError> for ToolError {
    fn from(error: WriteError) -> Self {
        Self::new(code::INVALID_ARGUMENTS, error.to_string())
    }
}

impl From<GateError> for ToolError {
    fn from(error: GateError) -> Self {
        let message = error.to_string();
        match error {
            GateError::Empty | GateError::Name(_) | GateError::Count(_) => {
                Self::new(code::INVALID_ARGUMENTS, message)
            }
            GateError::Never { .. } | GateError::Flags { .. } => {
                Self::new("COMMAND_REFUSED", message)
                    .with_hint("kv_read and kv_write do what is usual")
            }
            GateError::ReadSource(_) | GateError::Unconfirmed(_) => {
                Self::new("NOT_A_QUERY", message)
                    .with_hint("this tool only reads; changes are kv_write's")
            }
            GateError::Keyless(_) => Self::new("OUTSIDE_PREFIX", message)
                .with_hint("name the keys, or find them with kv_read by a `pattern`"),
        }
    }
}

impl From<BusError> for ToolError {
    fn from(error: BusError) -> Self {
        let message = error.to_string();
        match error {
            BusError::NoStreams(_) | BusError::Unlisted { .. } => {
                Self::new("NOT_A_STREAM", message)
                    .with_hint("the operator lists streams and channels with `streams`")
            }
            BusError::Handle(_) => {
                Self::new("UNKNOWN_SUBSCRIPTION", message).with_hint("open a new one")
            }
            BusError::TooManySubscriptions(_) => Self::new(code::BUSY, message),
            BusError::Name(_) | BusError::Block(_) | BusError::Count { .. } | BusError::Id(_) => {
                Self::new(code::INVALID_ARGUMENTS, message)
            }
        }
    }
}

impl From<SearchError> for ToolError {
    fn from(error: SearchError) -> Self {
        let message = error.to_string();
        match error {
            SearchError::NotSupported => {
                Self::new("NOT_SUPPORTED", message).with_hint("db_sources lists what there is")
            }
            SearchError::OutsidePrefix { .. } => Self::new("OUTSIDE_PREFIX", message)
                .with_hint("the operator's configuration says so with key_prefix"),
            _ => Self::new(code::INVALID_ARGUMENTS, message),
        }
    }
}

/// What a caller can do about what the server says.
fn advice(refusal: Refusal) -> Option<&'static str> {
    Some(match refusal {
        Refusal::WrongType => "read the key with kv_read: its type says what can be done with it",
        Refusal::NoAuth | Refusal::WrongPass => {
            "the operator has to mend the source's user or password"
        }
        Refusal::NoPerm => "the source's user may not do that; only the operator can grant it",
        Refusal::ReadOnlyReplica => {
            "this is a replica; the operator can name its primary in the source"
        }
        Refusal::Loading => "the server still loads its data; call again in a while",
        Refusal::OutOfMemory => "its memory is full: reads still work; db_health shows it",
        Refusal::Moved => "this source is one node of a cluster, and the key is on another",
        Refusal::Busy => "a script runs too long; call again later",
        Refusal::NoGroup => "call bus_read with `create_group`, or look with bus_ack and `groups`",
        Refusal::GroupExists => "use the group as it is",
        Refusal::UnknownCommand => "this server has no such command, or its version lacks it",
        Refusal::NotPersisted => {
            "the server takes no writes until it can save its data; tell the operator"
        }
        Refusal::Other => return None,
    })
}
