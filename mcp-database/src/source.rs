//! What the operator says of a database: where it is, who asks, what may be done with it and how much of it at once.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::table::Budget;

/// Largest password file, in bytes.
const LONGEST_PASSWORD: u64 = 64 * 1024;

/// The databases there are clients for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL, and what speaks its protocol.
    Postgres,
    /// Redis, Valkey, Dragonfly.
    Redis,
    /// MongoDB.
    Mongodb,
    /// Neo4j.
    Neo4j,
}

impl Engine {
    /// Its name in configurations and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Mongodb => "mongodb",
            Self::Neo4j => "neo4j",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What may be done with a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Reading alone.
    #[default]
    Read,
    /// Also changing.
    Write,
}

impl Mode {
    /// Its name in configurations and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// How a connection is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tls {
    /// Verified against the system's authorities, but to this machine itself, where there is nothing to protect it from.
    #[default]
    OffLoopback,
    /// Always, and verified: chain and name.
    Verified {
        /// Authorities (PEM) to be believed instead of the system's.
        ca_file: Option<PathBuf>,
        /// Certificate chain and key (PEM) to be known by.
        client: Option<ClientCertificate>,
    },
    /// Never; whoever is on the way reads and changes what is said.
    Disabled,
}

/// Who the server's server can know us by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Chain, PEM.
    pub cert_file: PathBuf,
    /// Key, PEM.
    pub key_file: PathBuf,
}

/// Where a password is; it is read when a connection is made, so that it can be changed without a new start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// In a file; a line break at its end does not count.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
}

impl Password {
    /// The password.
    ///
    /// # Errors
    /// A file or a variable that cannot be read; never what is in it.
    pub fn read(&self) -> Result<Zeroizing<String>, SourceError> {
        match self {
            Self::File(path) => {
                let failed = |reason: String| SourceError::Password {
                    place: format!("file `{}`", path.display()),
                    reason,
                };
                let length = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
                if length.len() > LONGEST_PASSWORD {
                    return Err(failed(format!("it has {} bytes", length.len())));
                }
                let text = std::fs::read_to_string(path).map(Zeroizing::new);
                let text = text.map_err(|error| failed(error.to_string()))?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                let line = line.strip_suffix('\r').unwrap_or(line);
                Ok(Zeroizing::new(line.to_owned()))
            }
            Self::Variable(name) => match std::env::var(name) {
                Ok(text) => Ok(Zeroizing::new(text)),
                Err(_) => Err(SourceError::Password {
                    place: format!("environment variable `{name}`"),
                    reason: "it is not set, or no text".to_owned(),
                }),
            },
        }
    }
}

/// How much may be asked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What a reply holds where the call does not say.
    pub reply: Budget,
    /// How long a statement may run where the call does not say.
    pub timeout: Duration,
    /// How long it may run at most.
    pub longest_timeout: Duration,
    /// Calls at once.
    pub concurrent: usize,
}

impl Default for Limits {
    /// 100 rows, 64 KiB; 30 s, at most 300 s; 5 calls.
    fn default() -> Self {
        Self {
            reply: Budget::default(),
            timeout: Duration::from_secs(30),
            longest_timeout: Duration::from_mins(5),
            concurrent: 5,
        }
    }
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name in calls.
    pub id: String,
    /// What it is.
    pub engine: Engine,
    /// Where it is and who asks, without a password.
    pub url: String,
    /// Its password.
    pub password: Option<Password>,
    /// What may be done.
    pub mode: Mode,
    /// How the connection is protected.
    pub tls: Tls,
    /// How much at once.
    pub limits: Limits,
    /// What only some engines know.
    pub special: Special,
}

/// What only some engines know; the rest has it empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Special {
    /// PostgreSQL: serve a read source although its role is a superuser.
    pub allow_superuser: bool,
    /// PostgreSQL: volatile functions that reads may call, with their schemas. Neo4j: procedures and functions that they may.
    pub allow_functions: Vec<String>,
    /// PostgreSQL: where names without a schema are looked up.
    pub search_path: Option<String>,
    /// Redis: with what every key must begin.
    pub key_prefix: Option<String>,
    /// Redis: the streams and channels of the agents' bus; a `*` at the end stands for any rest.
    pub streams: Vec<String>,
    /// MongoDB: where reads may go, by the names of the protocol (`primary`, `secondaryPreferred` …).
    pub read_preference: Option<String>,
}

/// A source that cannot be used as it is written.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No URL of the engine.
    #[error("the url of source `{id}` cannot be used: {reason}")]
    Url {
        /// Source.
        id: String,
        /// Without anything secret.
        reason: String,
    },
    /// A password in the URL, where logs and process lists show it.
    #[error(
        "the url of source `{0}` has a password in it; take it out, and name a file with password_file or a variable with password_env \
         (on the command line --password-file, or DATABASE_PASSWORD in the environment)"
    )]
    PasswordInUrl(String),
    /// An unprotected way to another machine.
    #[error(
        "source `{id}` reaches `{host}` without TLS; leave `tls` out to verify it, or write tls = \"disable\" if the way there is safe"
    )]
    Unprotected {
        /// Source.
        id: String,
        /// Where it leads.
        host: String,
    },
    /// A password that is not where it should be.
    #[error("the password in {place} cannot be read: {reason}")]
    Password {
        /// Where it should be.
        place: String,
        /// Why.
        reason: String,
    },
    /// Certificates that cannot be used.
    #[error("the TLS files of source `{id}` cannot be used: {reason}")]
    Tls {
        /// Source.
        id: String,
        /// Why.
        reason: String,
    },
}

/// Whether a host name or address is this machine itself; a path is a socket on it.
pub fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.starts_with('/')
        || bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for own in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "/run/x",
        ] {
            assert!(is_loopback(own), "{own}");
        }
        for other in [
            "",
            "localhost.example.org",
            "10.0.0.1",
            "127.0.0.1.example.org",
            "db@localhost",
            "::2",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn a_password_is_a_line_of_a_file_and_not_told_in_errors() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("password");
        std::fs::write(&path, " p w \r\n")?;
        assert_eq!(*Password::File(path.clone()).read()?, " p w ");
        std::fs::write(&path, b"\xffsecret")?;
        let error = Password::File(path).read().err().map(|e| e.to_string());
        assert!(error.is_some_and(|error| !error.contains("secret")));
        assert!(
            Password::Variable("NO_SUCH_VARIABLE".to_owned())
                .read()
                .is_err()
        );
        Ok(())
    }
}
