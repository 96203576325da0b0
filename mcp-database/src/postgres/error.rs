//! What can go wrong between an agent's statement and PostgreSQL's answer.

use std::time::Duration;

use tokio_postgres::error::{ErrorPosition, SqlState};

use super::functions::FunctionError;
use super::statement::StatementError;
use super::value::ValueError;
use crate::source::SourceError;

/// Bytes that are told of a server's detail, which quotes values.
const LONGEST_DETAIL: usize = 500;

/// A statement that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no statement of the kind asked for.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It calls what it may not call.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// Another number of parameters than the statement has.
    #[error("the statement has {wanted} parameters, and {given} are given")]
    Parameters {
        /// `$1` to `$n`.
        wanted: usize,
        /// Values.
        given: usize,
    },
    /// A parameter that cannot be sent as its type.
    #[error("{0}")]
    Parameter(String),
    /// The server refused it, or the statement failed.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// A value that is not as its type says.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The statement took too long and was ended, at the server too.
    #[error("the statement did not end within {} s and was cancelled", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The connection ended in the middle.
    #[error("the connection to the database was lost: {0}")]
    Lost(String),
    /// No connection can be made.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// Every connection is in use.
    #[error("all connections of the source are in use")]
    Exhausted,
    /// The configuration.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The role may do more than a source that only reads should.
    #[error("the source only reads, but its role {0}")]
    TooPowerful(String),
    /// The server has not what is asked for.
    #[error("the server has not {0}")]
    Missing(&'static str),
    /// Something else than an index to imagine.
    #[error("`{0}` is no single CREATE INDEX")]
    Index(String),
    /// A search that cannot be made.
    #[error("{0}")]
    Search(String),
    /// The source only reads.
    #[error("the source `{0}` only reads")]
    ReadOnly(String),
    /// It would leave nothing of whole tables, which its text does not say; nothing was changed.
    #[error("it would leave no row of {tables}; nothing was changed")]
    Empties {
        /// Their names.
        tables: String,
        /// Rows that it would affect.
        affected: u64,
    },
    /// Another number of rows than expected; nothing was changed.
    #[error("{affected} rows would be affected, and {expected} are expected; nothing was changed")]
    Unexpected {
        /// By the statements.
        affected: u64,
        /// By the caller.
        expected: u64,
    },
}

/// What a server says of a statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    /// SQLSTATE.
    pub state: SqlState,
    /// What is wrong.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What it advises.
    pub hint: Option<String>,
    /// The character of the caller's text, from 1, that it is about.
    pub position: Option<usize>,
}

impl Error {
    /// What a driver's error says; `place` turns a character of what was sent into one of the caller's text.
    pub fn of(error: &tokio_postgres::Error, place: impl Fn(usize) -> usize) -> Self {
        use std::error::Error as _;
        if let Some(server) = error.as_db_error() {
            let position = match server.position() {
                Some(ErrorPosition::Original(sent)) => {
                    Some(place(usize::try_from(*sent).unwrap_or(usize::MAX)))
                }
                _ => None,
            };
            let shown = |text: &str| shared::budget::ends(text, LONGEST_DETAIL).into_owned();
            return Self::Server(Box::new(ServerError {
                state: server.code().clone(),
                message: shown(server.message()),
                detail: server.detail().map(shown),
                hint: server.hint().map(shown),
                position,
            }));
        }
        let cause = error.source();
        if let Some(parameter) =
            cause.and_then(|cause| cause.downcast_ref::<super::parameter::ParameterError>())
        {
            return Self::Parameter(parameter.to_string());
        }
        let text = cause.map_or_else(|| error.to_string(), ToString::to_string);
        if error.is_closed() {
            return Self::Lost("it was closed".to_owned());
        }
        Self::Lost(text)
    }

    /// The same, where nothing of the caller's text was sent.
    pub fn outside(error: &tokio_postgres::Error) -> Self {
        Self::of(error, |place| place)
    }

    /// The server's SQLSTATE, if it is the server's.
    pub fn state(&self) -> Option<&SqlState> {
        match self {
            Self::Server(server) => Some(&server.state),
            _ => None,
        }
    }

    /// The server's word for a statement that took too long, in ours.
    pub(super) fn in_time(self, timeout: Duration) -> Self {
        if self.state() == Some(&SqlState::QUERY_CANCELED) {
            Self::TimedOut(timeout)
        } else {
            self
        }
    }

    /// Whether the connection can be used for something else afterwards.
    pub fn leaves_connection_usable(&self) -> bool {
        !matches!(
            self,
            Self::Lost(_) | Self::TimedOut(_) | Self::Value(_) | Self::Unreachable(_)
        )
    }
}
