//! Everything that can go wrong between this client and a server, without any secret in it.

use super::packstream::PackstreamError;

/// Why an operation failed. No variant ever holds the password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused or aborted the request, such as `Neo.ClientError.Statement.SyntaxError`.
    #[error("{message} ({code})")]
    Server {
        /// The server's classified code: `Neo.<classification>.<category>.<title>`.
        code: String,
        /// The server's own words; may quote the query.
        message: String,
    },
    /// The server refused the credentials.
    #[error("the server refused the login: {message} ({code})")]
    Authentication {
        /// The server's code, such as `Neo.ClientError.Security.Unauthorized`.
        code: String,
        /// The server's own words.
        message: String,
    },
    /// The socket failed; the connection is closed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// TLS was spoken, but the two sides could not agree, most often over the certificate.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// One side speaks TLS and the other does not.
    #[error("{0}")]
    TlsMismatch(&'static str),
    /// Whatever answered is not a Bolt server of a version this client knows.
    #[error("the peer does not speak Bolt: {0}")]
    Protocol(String),
    /// A parameter cannot be sent.
    #[error("the query parameters cannot be sent: {0}")]
    Parameters(PackstreamError),
    /// The server was silent for too long; the connection is closed.
    #[error("no answer within {} s while {activity}", .limit.as_secs_f32())]
    Timeout {
        /// What was waited for, such as "connecting".
        activity: &'static str,
        /// How long.
        limit: std::time::Duration,
    },
    /// The reply is larger than the caller allows; ask for fewer records or smaller columns.
    #[error("the reply is larger than {limit} bytes")]
    TooLarge {
        /// The limit that was exceeded, in bytes.
        limit: usize,
    },
    /// The connection is not in a state for this operation, such as a commit without a transaction.
    #[error("{0}")]
    State(&'static str),
}

impl From<PackstreamError> for Error {
    fn from(error: PackstreamError) -> Self {
        Self::Protocol(error.to_string())
    }
}
