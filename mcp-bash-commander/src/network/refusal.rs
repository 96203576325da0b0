//! What the proxy reports: destinations that were refused, and those a connection was made to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::address::{Destination, readable};

/// Why a destination was not reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// No entry of the allow list matches it.
    NotAllowed,
    /// It is allowed, but only at public addresses, and it has none.
    PrivateAddress {
        /// The first of its addresses.
        address: IpAddr,
    },
    /// What was asked for is no destination in a form that could be decided about.
    Malformed,
    /// It is allowed, but has no address.
    NotResolved,
    /// It is allowed, but no connection could be made.
    Unreachable {
        /// What became of the last attempt.
        cause: ConnectFailure,
    },
    /// A protocol or command that the proxy does not speak.
    Unsupported,
    /// What is to be added to requests there is missing.
    NoSecret {
        /// Its name in the policy.
        secret: String,
    },
    /// A secret would go there without encryption, and it is far away.
    Unencrypted {
        /// Its name in the policy.
        secret: String,
        /// The first of the host's public addresses.
        address: IpAddr,
    },
}

/// What became of an attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectFailure {
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// No TLS, or not with a certificate that this machine trusts.
    Tls,
    /// No way there, or anything else.
    Failed,
}

/// A destination that a jailed command asked for and did not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The host, canonical where it could be read; else what was sent instead, at most 255 printable ASCII characters; empty if
    /// nothing named one.
    pub host: String,
    /// The port, where one could be read.
    pub port: Option<u16>,
    /// Why.
    pub reason: Reason,
}

/// A connection that the proxy made for a jailed command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Connected {
    /// The host that was decided about.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The checked address that was dialled.
    pub address: SocketAddr,
}

/// What the proxy did with one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It was refused.
    Refused(Refusal),
    /// It was connected.
    Connected(Connected),
}

impl Refusal {
    /// The refusal of a destination that could be read.
    pub(super) fn of(destination: &Destination, reason: Reason) -> Self {
        Self {
            host: destination.host().to_string(),
            port: Some(destination.port()),
            reason,
        }
    }

    /// The refusal of something else; `sent` is what stood in the host's place.
    pub(super) fn unread(sent: &[u8], port: Option<u16>, reason: Reason) -> Self {
        Self {
            host: readable(sent),
            port,
            reason,
        }
    }
}

/// One line for the command and its reader.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.as_str(), self.port) {
            ("", _) => f.write_str("the request")?,
            (host, Some(port)) => write!(f, "{host}:{port}")?,
            (host, None) => f.write_str(host)?,
        }
        match &self.reason {
            Reason::NotAllowed => f.write_str(
                " is not allowed: the operator's policy decides what can be reached ([network] allow)",
            ),
            Reason::PrivateAddress { address } => write!(
                f,
                " has the non-public address {address}: the operator's policy decides whether that can be reached ([network] allow, \
                 private = true)"
            ),
            Reason::Malformed => f.write_str(
                " names no destination as the operator's policy does ([network] allow): ask for an ASCII host name \
                 or IP address with a port, in plain HTTP/1.1 or SOCKS5",
            ),
            Reason::NotResolved => f.write_str(
                " is allowed by the operator's policy ([network] allow), but its name has no address",
            ),
            Reason::Unreachable { cause } => write!(
                f,
                " is allowed by the operator's policy ([network] allow), but {}",
                match cause {
                    ConnectFailure::Refused => "refused the connection",
                    ConnectFailure::TimedOut => "did not answer in time",
                    ConnectFailure::Tls =>
                        "does not speak TLS with a certificate that the server's machine trusts",
                    ConnectFailure::Failed => "cannot be reached",
                }
            ),
            Reason::Unsupported => f.write_str(
                " was asked for in a way that is not supported: the way out to what the operator's policy names ([network] allow) \
                 is HTTP CONNECT, a plain http:// request, or SOCKS5 CONNECT without a user",
            ),
            Reason::NoSecret { secret } => write!(
                f,
                " is allowed by the operator's policy ([network] allow), but the secret `{secret}` that is added to requests there \
                 ([secrets.{secret}]) is missing: `doctor` tells the operator why"
            ),
            Reason::Unencrypted { secret, address } => write!(
                f,
                " has the public address {address}, to which the secret `{secret}` of the operator's policy ([secrets.{secret}], \
                 tls = false) is not sent"
            ),
        }
    }
}
