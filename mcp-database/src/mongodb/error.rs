//! Everything that can go wrong between a call and MongoDB, without any secret in it.

use std::time::Duration;

use mongodb::error::{CommandError, Error, ErrorKind, WriteFailure};

use super::ejson::EjsonError;
use super::gate::GateError;
use crate::source::SourceError;

/// A call that could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum MongoError {
    /// The source cannot be used as it is written.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An argument that is no extended JSON.
    #[error(transparent)]
    Ejson(#[from] EjsonError),
    /// A read that asks for more than reading.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// An argument that does not belong to the others, or is missing.
    #[error("`{argument}`: {reason}")]
    Argument {
        /// Its name.
        argument: String,
        /// What would be right.
        reason: String,
    },
    /// A change, and the source is for reading.
    #[error("source `{0}` is for reading alone")]
    ReadOnly(String),
    /// More would change than the caller expects.
    #[error(
        "{found} documents would be changed, and at most {most} are expected; nothing was changed"
    )]
    TooMany {
        /// How many, or at least so many.
        found: u64,
        /// How many were expected.
        most: u64,
    },
    /// Nobody answers at the address.
    #[error("no server answers: {0}")]
    NoServer(String),
    /// A replica set without a primary.
    #[error("the replica set has no primary that can be reached")]
    NoPrimary,
    /// Members of a replica set that may not serve this.
    #[error("no member of the replica set fits the source's read preference")]
    NoMember,
    /// The name in a `mongodb+srv` URL cannot be looked up.
    #[error("the servers of the mongodb+srv name cannot be looked up: {0}")]
    Dns(String),
    /// A server that is too old.
    #[error("the server is older than MongoDB 4.4, the oldest there is a client for: {0}")]
    TooOld(String),
    /// The server does not know the user, or not by this password.
    #[error("the server refused the login: {0}")]
    Authentication(String),
    /// The server knows the user, who may not do this.
    #[error("{message} ({code} {name})")]
    Unauthorized {
        /// The server's code.
        code: i32,
        /// The code's name.
        name: String,
        /// The server's own words.
        message: String,
    },
    /// The time is over.
    #[error("not done within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// A second document with the same key.
    #[error("{message} ({code} DuplicateKey)")]
    DuplicateKey {
        /// The server's code.
        code: i32,
        /// The server's own words, which name the index.
        message: String,
    },
    /// What this server does not have.
    #[error("{what} is not supported by this server: {message}")]
    NotSupported {
        /// `$vectorSearch`, `explain`.
        what: String,
        /// The server's own words.
        message: String,
    },
    /// The server refused it, or failed.
    #[error("{message} ({code} {name})")]
    Server {
        /// The server's code.
        code: i32,
        /// The code's name.
        name: String,
        /// The server's own words.
        message: String,
    },
    /// The connection was lost; the next call makes another.
    #[error("the connection failed: {0}")]
    Connection(String),
    /// What answers says what no server says.
    #[error("the server's reply cannot be read: {0}")]
    Reply(String),
    /// A kept result that was ended by an earlier error or cancelled call.
    #[error("the result ended with an earlier call that failed or was cancelled")]
    Ended,
}

/// Codes of commands, stages and operators that a server does not know.
const UNKNOWN: [i32; 5] = [59, 115, 168, 238, 40324];
/// A search without the program that searches.
const SEARCH_NOT_ENABLED: i32 = 31082;

impl MongoError {
    pub(super) fn argument(argument: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Argument {
            argument: argument.into(),
            reason: reason.into(),
        }
    }

    /// The same, of which `what` may be what the server does not have.
    pub(super) fn about(self, what: &str) -> Self {
        match self {
            Self::Server { code, message, .. }
                if UNKNOWN.contains(&code) || code == SEARCH_NOT_ENABLED =>
            {
                Self::NotSupported {
                    what: what.to_owned(),
                    message,
                }
            }
            other => other,
        }
    }

    /// The server's code, where the server spoke.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Unauthorized { code, .. }
            | Self::DuplicateKey { code, .. }
            | Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What the server says, told apart by its code.
    pub(super) fn spoken(code: i32, name: &str, message: &str, limit: Duration) -> Self {
        let (name, message) = (name.to_owned(), message.to_owned());
        match code {
            13 | 8000 => Self::Unauthorized {
                code,
                name,
                message,
            },
            18 => Self::Authentication(message),
            50 | 262 => Self::Timeout(limit),
            11000 | 11001 => Self::DuplicateKey { code, message },
            _ => Self::Server {
                code,
                name,
                message,
            },
        }
    }

    /// What the driver says, told apart. `limit` is how long the server had.
    pub(super) fn of(error: &Error, limit: Duration) -> Self {
        match error.kind.as_ref() {
            ErrorKind::Command(error) => command(error, limit),
            ErrorKind::Write(WriteFailure::WriteError(error)) => Self::spoken(
                error.code,
                error.code_name.as_deref().unwrap_or_default(),
                &error.message,
                limit,
            ),
            ErrorKind::Write(WriteFailure::WriteConcernError(error)) => {
                Self::spoken(error.code, &error.code_name, &error.message, limit)
            }
            ErrorKind::InsertMany(error) => {
                let first = error
                    .write_errors
                    .as_ref()
                    .and_then(|errors| errors.first());
                match (first, &error.write_concern_error) {
                    (Some(first), _) => Self::spoken(
                        first.code,
                        first.code_name.as_deref().unwrap_or_default(),
                        &first.message,
                        limit,
                    ),
                    (None, Some(error)) => {
                        Self::spoken(error.code, &error.code_name, &error.message, limit)
                    }
                    (None, None) => Self::Reply("a failure without an error".to_owned()),
                }
            }
            ErrorKind::Authentication { message, .. } => {
                Self::Authentication(without_kinds(message).to_owned())
            }
            ErrorKind::ServerSelection { message, .. } => selection(message),
            ErrorKind::IncompatibleServer { message, .. } if message.contains("wire version") => {
                Self::TooOld(message.clone())
            }
            ErrorKind::DnsResolve { message, .. } => Self::Dns(message.clone()),
            ErrorKind::Io(error) => Self::Connection(error.to_string()),
            ErrorKind::ConnectionPoolCleared { message, .. } => {
                Self::Connection(without_kinds(message).to_owned())
            }
            ErrorKind::InvalidResponse { message, .. } => Self::Reply(message.clone()),
            ErrorKind::Bson(error) => Self::Reply(error.to_string()),
            ErrorKind::InvalidTlsConfig { message, .. } => Self::Connection(message.clone()),
            ErrorKind::InvalidArgument { message, .. } => {
                Self::argument("arguments", message.clone())
            }
            ErrorKind::IncompatibleServer { message, .. } => Self::NotSupported {
                what: "the operation".to_owned(),
                message: message.clone(),
            },
            other => Self::Connection(without_kinds(&other.to_string()).to_owned()),
        }
    }
}

fn command(error: &CommandError, limit: Duration) -> MongoError {
    MongoError::spoken(error.code, &error.code_name, &error.message, limit)
}

/// Why no server was found: the driver tells it in a description of the whole topology.
fn selection(message: &str) -> MongoError {
    if let Some(from) = message.find("reports wire version") {
        let end = message[from..]
            .find([';', '}', '"'])
            .map_or(message.len(), |end| from + end);
        return MongoError::TooOld(message[from..end].trim().to_owned());
    }
    let cause = message
        .rsplit("Error: ")
        .next()
        .filter(|_| message.contains("Error: "))
        .map(|cause| without_kinds(cause).to_owned());
    match cause {
        Some(cause) => MongoError::NoServer(cause),
        None if message.contains("ReplicaSetNoPrimary") => MongoError::NoPrimary,
        None if message.contains("ReplicaSetWithPrimary") => MongoError::NoMember,
        None => MongoError::NoServer("nothing was heard of it in time".to_owned()),
    }
}

/// The one sentence of an error that the driver prints with all its parts.
fn without_kinds(message: &str) -> &str {
    let start = message.rfind("Kind: ").map_or(0, |at| at + "Kind: ".len());
    let rest = &message[start..];
    rest.find(", labels: ").map_or(rest, |end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_of_a_topology_becomes_one_sentence() {
        for (message, expected) in [
            (
                "Server selection timeout: No available servers. Topology: { Type: Unknown, Servers: [ { Address: 127.0.0.1:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {\"x\"}, source: None, server response: None } ] }",
                "no server answers: I/O error: Connection refused (os error 111)",
            ),
            (
                "Server selection timeout: No available servers. Topology: { Type: ReplicaSetNoPrimary, Set Name: rs, Servers: [ { Address: a:1, Type: RsSecondary } ] }",
                "the replica set has no primary that can be reached",
            ),
            (
                "Server at a:1 reports wire version 8, but this version of the MongoDB Rust Driver requires at least 9",
                "the server is older than MongoDB 4.4, the oldest there is a client for: reports wire version 8, but this version of the MongoDB Rust Driver requires at least 9",
            ),
        ] {
            assert_eq!(selection(message).to_string(), expected);
        }
    }
}
