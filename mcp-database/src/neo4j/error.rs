//! Why a call to Neo4j failed, what kind of failure that is, and what to do about it; without anything secret.

use std::time::Duration;

use super::bolt::{self, QueryType};
use super::cypher::gate::{EXPLAIN, GateError};
use super::parameter::ParameterError;
use crate::source::SourceError;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The statement is not let through.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// Its plan is none of a read.
    #[error("the statement is no read: by its plan it {0}")]
    NoRead(&'static str),
    /// A parameter that cannot be sent.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Arguments that do not go together, or name what there is not.
    #[error("{0}")]
    Argument(String),
    /// Nodes at the ends of relationships that are not there; nothing was changed.
    #[error("ends of relationships are not there ({count}), and nothing was changed; missing: {}", .missing.join(", "))]
    MissingEnds {
        /// How many.
        count: usize,
        /// The first of them, as `(:Label {key: value})`.
        missing: Vec<String>,
    },
    /// Another number of changes than was expected; nothing was changed.
    #[error("{total} changes would be made where {expected} were expected; nothing was changed")]
    Unexpected {
        /// As the caller said.
        expected: u64,
        /// As the server counted.
        total: u64,
    },
    /// The source only reads.
    #[error("the source `{0}` is read-only")]
    ReadOnly(String),
    /// The password or the certificates cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No connection.
    #[error("the database cannot be reached: {reason}")]
    Unreachable {
        /// What the connection says.
        reason: String,
        /// What to do.
        hint: Option<&'static str>,
    },
    /// The server refuses the user.
    #[error("the server refused the login: {message} ({code})")]
    Login {
        /// The server's code.
        code: String,
        /// Its words.
        message: String,
    },
    /// The server refused the statement or ended it.
    #[error("{message} ({code})")]
    Server {
        /// What kind of refusal it is.
        refusal: Refusal,
        /// The server's code: `Neo.ClientError.Statement.SyntaxError`.
        code: String,
        /// Its words, without the quoted statement.
        message: String,
        /// The character of the statement that it is about, from 1.
        position: Option<usize>,
    },
    /// No answer within the time of the call; the server was told to stop.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// A single row, or all the rows together, take more memory than a call may.
    #[error("the rows take more than {0} bytes of memory")]
    TooLarge(usize),
    /// The change was sent, and then the connection or the time ended.
    #[error("it is unknown whether the change was made: {0}")]
    Unknown(String),
    /// The connection failed on the way.
    #[error("the connection to the database failed: {0}")]
    Connection(String),
}

/// What kind of refusal a code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The text is no Cypher, or has no meaning.
    Syntax,
    /// A write in read access.
    AccessMode,
    /// No such database, or it is not available.
    Database,
    /// A constraint, or another rule of the schema.
    Schema,
    /// It took too long.
    TimedOut,
    /// It took too much memory.
    Memory,
    /// The user may not.
    Permission,
    /// A parameter is missing, or a value has another type than is needed.
    Value,
    /// A procedure that is not there or failed.
    Procedure,
    /// Somebody ended it.
    Terminated,
    /// The server does not write: another of its cluster does.
    NotTheLeader,
    /// It may work when tried again.
    Transient,
    /// Anything else.
    Other,
}

impl Refusal {
    fn of(code: &str) -> Self {
        let class = code.strip_prefix("Neo.").unwrap_or(code);
        match class {
            "ClientError.Statement.AccessMode" => Self::AccessMode,
            "ClientError.Statement.SyntaxError" | "ClientError.Statement.SemanticError" => {
                Self::Syntax
            }
            "ClientError.Cluster.NotALeader"
            | "ClientError.General.ForbiddenOnReadOnlyDatabase"
            | "ClientError.General.WriteOnReadOnlyAccessDatabase" => Self::NotTheLeader,
            "ClientError.Transaction.Terminated" | "TransientError.Transaction.Terminated" => {
                Self::Terminated
            }
            _ if class.contains("TimedOut") => Self::TimedOut,
            _ if class.contains("OutOfMemory") || class.contains("TransactionMemoryLimit") => {
                Self::Memory
            }
            _ if class.starts_with("ClientError.Database.")
                || class.starts_with("TransientError.Database.") =>
            {
                Self::Database
            }
            _ if class.starts_with("ClientError.Schema.") => Self::Schema,
            _ if class.starts_with("ClientError.Security.") => Self::Permission,
            _ if class.starts_with("ClientError.Procedure.") => Self::Procedure,
            _ if class.starts_with("ClientError.Statement.") => Self::Value,
            _ if class.starts_with("TransientError.") => Self::Transient,
            _ => Self::Other,
        }
    }

    fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::AccessMode => {
                "this tool only reads; changes are made by graph_write or graph_upsert of a source that allows them"
            }
            Self::Database => {
                "the operator names the database in the url of the source, as its path"
            }
            Self::Schema => "graph_schema shows constraints and indexes",
            Self::TimedOut | Self::Memory => {
                "ask for less: bind the start of the pattern to an indexed property, bound every `*`, add LIMIT"
            }
            Self::Permission => "the operator decides what the user of the source may do",
            Self::Value => {
                "give every `$name` of the statement in params, with the type that it needs"
            }
            Self::Transient => "try once more",
            Self::NotTheLeader => {
                "the server named in the url does not write; the operator has to name the leader of the cluster"
            }
            Self::Syntax | Self::Procedure | Self::Terminated | Self::Other => return None,
        })
    }
}

impl GraphError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Gate(error) => error.hint(),
            Self::NoRead(_) => Refusal::AccessMode.hint(),
            Self::Unreachable { hint, .. } => *hint,
            Self::Login { code, .. } if code.ends_with("AuthenticationRateLimit") => {
                Some("too many wrong passwords; the server takes none for some seconds")
            }
            Self::Login { .. } => Some(
                "the operator has to look at user and password of the source; it is not tried again for some seconds",
            ),
            Self::Server { refusal, .. } => refusal.hint(),
            Self::Timeout(_) | Self::TooLarge(_) => Refusal::TimedOut.hint(),
            Self::MissingEnds { .. } => {
                Some("give these nodes in the same call, or correct their keys")
            }
            Self::Unexpected { .. } => {
                Some("look with a dry_run, and decide with what is there now")
            }
            Self::ReadOnly(_) => Some("the operator's configuration says mode = \"read\""),
            Self::Unknown(_) => Some("read what is there before trying again"),
            Self::Connection(_) => Some("call again"),
            _ => None,
        }
    }

    /// A failure of a statement that was sent as it is.
    pub(super) fn of(error: bolt::Error) -> Self {
        Self::with_prefix(error, 0)
    }

    /// A failure of a statement that was sent behind [`EXPLAIN`].
    pub(super) fn of_explained(error: bolt::Error) -> Self {
        Self::with_prefix(error, EXPLAIN.len())
    }

    fn with_prefix(error: bolt::Error, prefix: usize) -> Self {
        match error {
            bolt::Error::Server { code, message } => {
                let position = offset(&message).map(|at| at.saturating_sub(prefix) + 1);
                Self::Server {
                    refusal: Refusal::of(&code),
                    message: without_quote(&message),
                    code,
                    position,
                }
            }
            bolt::Error::Authentication { code, message } => Self::Login { code, message },
            bolt::Error::TooLarge { limit } => Self::TooLarge(limit),
            bolt::Error::Parameters(reason) => {
                Self::Argument(format!("the parameters cannot be sent: {reason}"))
            }
            other => Self::Connection(other.to_string()),
        }
    }

    /// A failure to connect.
    pub(super) fn connecting(error: bolt::Error) -> Self {
        let hint = match &error {
            bolt::Error::Authentication { code, message } => {
                return Self::Login {
                    code: code.clone(),
                    message: message.clone(),
                };
            }
            // What goes wrong behind the greeting is no matter of connecting.
            bolt::Error::Server { .. } => return Self::of(error),
            bolt::Error::TlsMismatch(_) => Some(
                "to another machine TLS is spoken whatever the scheme; tls = \"disable\" of the source speaks without",
            ),
            bolt::Error::Tls(_) => {
                Some("the operator can name the authority of the server's certificate in ca_file")
            }
            _ => None,
        };
        let reason = error.to_string();
        Self::Unreachable { reason, hint }
    }
}

/// What a statement does by its kind.
pub(super) fn doing(kind: Option<QueryType>) -> &'static str {
    match kind {
        Some(QueryType::Read) => "reads",
        Some(QueryType::Write) => "writes",
        Some(QueryType::ReadWrite) => "reads and writes",
        Some(QueryType::Schema) => "changes the schema or administers the server",
        None => "does what the server does not say",
    }
}

/// The place in a message: `… (line 1, column 9 (offset: 8))`.
fn offset(message: &str) -> Option<usize> {
    let (_, rest) = message.rsplit_once("(offset: ")?;
    rest.split_once(')')?.0.parse().ok()
}

/// The first line of a message, without the place: the lines behind quote the statement as it was sent.
fn without_quote(message: &str) -> String {
    if offset(message).is_none() {
        return message.to_owned();
    }
    let told = message
        .rsplit_once("(line ")
        .map_or(message, |(told, _)| told);
    told.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_in_the_callers_text() {
        let error = |prefix| {
            let server = bolt::Error::Server {
                code: "Neo.ClientError.Statement.SyntaxError".to_owned(),
                message:
                    "Variable `x` not defined (line 2, column 8 (offset: 15))\n\"RETURN x\"\n        ^"
                        .to_owned(),
            };
            GraphError::with_prefix(server, prefix)
        };
        let GraphError::Server {
            refusal,
            message,
            position,
            ..
        } = error(EXPLAIN.len())
        else {
            panic!("no error of the server");
        };
        assert_eq!(
            (refusal, message.as_str(), position),
            (Refusal::Syntax, "Variable `x` not defined", Some(8))
        );
    }

    #[test]
    fn refusals_are_told_apart_by_their_codes() {
        for (code, expected) in [
            ("Neo.ClientError.Statement.AccessMode", Refusal::AccessMode),
            ("Neo.ClientError.Statement.ParameterMissing", Refusal::Value),
            (
                "Neo.ClientError.Database.DatabaseNotFound",
                Refusal::Database,
            ),
            (
                "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
                Refusal::Memory,
            ),
            (
                "Neo.ClientError.Transaction.TransactionTimedOutClientConfiguration",
                Refusal::TimedOut,
            ),
            (
                "Neo.ClientError.Schema.ConstraintValidationFailed",
                Refusal::Schema,
            ),
            ("Neo.ClientError.Cluster.NotALeader", Refusal::NotTheLeader),
            (
                "Neo.TransientError.Transaction.DeadlockDetected",
                Refusal::Transient,
            ),
            ("Neo.DatabaseError.General.UnknownError", Refusal::Other),
        ] {
            assert_eq!(Refusal::of(code), expected, "{code}");
        }
    }
}
