//! What goes wrong between this server and Redis, told apart by what a caller can do about it.

use std::time::Duration;

use redis::ErrorKind;
use serde::Serialize;
use shared::budget::head;

use super::bus::BusError;
use super::command::GateError;
use super::search::SearchError;
use super::value::ValueError;
use super::write::WriteError;
use crate::source::SourceError;

/// Bytes of what a server says that are shown.
const LONGEST_MESSAGE: usize = 500;

/// Why a server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The key holds another type.
    WrongType,
    /// Nobody has logged in.
    NoAuth,
    /// User and password do not fit, or the user is switched off.
    WrongPass,
    /// The user may not.
    NoPerm,
    /// A replica, which takes no writes.
    ReadOnlyReplica,
    /// It still reads its data from disk.
    Loading,
    /// Its memory is full.
    OutOfMemory,
    /// The key is on another node of a cluster.
    Moved,
    /// A script keeps it busy.
    Busy,
    /// No such stream, or no such group.
    NoGroup,
    /// The group is there already.
    GroupExists,
    /// It has no such command.
    UnknownCommand,
    /// It cannot write its data to disk, and so takes no writes.
    NotPersisted,
    /// Whatever else.
    Other,
}

impl Refusal {
    fn of(code: &str, message: &str) -> Self {
        match code {
            "WRONGTYPE" => Self::WrongType,
            "NOAUTH" => Self::NoAuth,
            "WRONGPASS" => Self::WrongPass,
            "NOPERM" => Self::NoPerm,
            "READONLY" => Self::ReadOnlyReplica,
            "LOADING" => Self::Loading,
            "OOM" => Self::OutOfMemory,
            "MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN" | "TRYAGAIN" => Self::Moved,
            "BUSY" => Self::Busy,
            "NOGROUP" => Self::NoGroup,
            "BUSYGROUP" => Self::GroupExists,
            "MISCONF" => Self::NotPersisted,
            "ERR"
                if message
                    .get(.."unknown command".len())
                    .is_some_and(|start| start.eq_ignore_ascii_case("unknown command"))
                    || message
                        .get(.."unknown subcommand".len())
                        .is_some_and(|start| start.eq_ignore_ascii_case("unknown subcommand")) =>
            {
                Self::UnknownCommand
            }
            _ => Self::Other,
        }
    }
}

/// A call that Redis did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source cannot be used as it is written.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no connection.
    #[error("no connection to {address}: {reason}")]
    Connection {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// The connection ended before the answer was there: whether anything was done is not known.
    #[error("the connection to {address} ended: {reason}")]
    Lost {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// Nothing came in time.
    #[error("no answer from {address} within {} ms", limit.as_millis())]
    Timeout {
        /// Host and port.
        address: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// What came is no answer.
    #[error("{address} does not answer as Redis does: {reason}")]
    Protocol {
        /// Host and port.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More came than is taken.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// More elements came than are taken.
    #[error("the answer has more than {limit} elements")]
    TooMany {
        /// Elements.
        limit: usize,
    },
    /// The server refused.
    #[error("{code} {message}")]
    Server {
        /// What a caller can do about it.
        refusal: Refusal,
        /// The first word of what the server says.
        code: String,
        /// The rest.
        message: String,
    },
    /// The source may only be read.
    #[error("source `{0}` may only be read")]
    ReadOnlySource(String),
    /// The key is not one of this source's.
    #[error("the key `{key}` does not begin with `{prefix}`, as every key of this source must")]
    OutsidePrefix {
        /// The key.
        key: String,
        /// The prefix.
        prefix: String,
    },
    /// A value that cannot be sent.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A command that may not be sent.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// A write that makes no sense.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A message that may not be sent or taken.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A search that cannot be made.
    #[error(transparent)]
    Search(#[from] SearchError),
}

impl Error {
    /// Why the server refused, if it did.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Server { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }

    /// Whether the connection that it came over is of no use any more.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Connection { .. }
                | Self::Lost { .. }
                | Self::Timeout { .. }
                | Self::Protocol { .. }
                | Self::TooLarge { .. }
        )
    }

    /// What the server said.
    pub(super) fn of_server(error: &redis::ServerError) -> Self {
        Self::of_text(error.code(), error.details().unwrap_or_default())
    }

    fn of_text(code: &str, message: &str) -> Self {
        Self::Server {
            refusal: Refusal::of(code, message),
            code: head(code, LONGEST_MESSAGE).text.to_owned(),
            message: head(message, LONGEST_MESSAGE).text.to_owned(),
        }
    }

    /// What the client library says.
    pub(super) fn of_client(error: &redis::RedisError, address: &str) -> Self {
        let address = address.to_owned();
        let reason = || {
            let detail = error.detail().unwrap_or_default();
            let text = error.to_string();
            head(
                if detail.is_empty() { &text } else { detail },
                LONGEST_MESSAGE,
            )
            .text
            .to_owned()
        };
        match error.kind() {
            // A connection that ends within an answer is no bad answer.
            ErrorKind::Parse if reason().contains("end of input") => Self::Lost {
                address,
                reason: "it ended within an answer".to_owned(),
            },
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::Protocol {
                address,
                reason: reason(),
            },
            ErrorKind::AuthenticationFailed => Self::of_text("WRONGPASS", &reason()),
            _ => match error.code() {
                Some(code) => Self::of_text(code, error.detail().unwrap_or_default()),
                None => Self::Lost {
                    address,
                    reason: reason(),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_told_apart() {
        for (code, message, expected) in [
            ("WRONGTYPE", "Operation against a key", Refusal::WrongType),
            ("NOAUTH", "Authentication required.", Refusal::NoAuth),
            (
                "WRONGPASS",
                "invalid username-password pair",
                Refusal::WrongPass,
            ),
            ("NOPERM", "this user has no permissions", Refusal::NoPerm),
            ("READONLY", "You can't write", Refusal::ReadOnlyReplica),
            ("LOADING", "Redis is loading", Refusal::Loading),
            ("OOM", "command not allowed", Refusal::OutOfMemory),
            ("MOVED", "1 127.0.0.1:1", Refusal::Moved),
            ("BUSY", "Redis is busy", Refusal::Busy),
            ("ERR", "unknown command 'X'", Refusal::UnknownCommand),
            (
                "ERR",
                "Unknown subcommand or wrong number",
                Refusal::UnknownCommand,
            ),
            ("ERR", "syntax error", Refusal::Other),
            ("ERR", "ünknown", Refusal::Other),
        ] {
            assert_eq!(Refusal::of(code, message), expected, "{code} {message}");
        }
    }

    #[test]
    fn what_a_server_says_is_bounded() {
        let error = Error::of_text("ERR", &"x".repeat(10_000));
        assert!(error.to_string().len() < 600);
    }
}
