//! Secrets of the operator that the proxy adds to requests: commands use them and never have them.

mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hyper::header::{self, HeaderName};
use serde::{Deserialize, Serialize, Serializer};

use super::address::{AddressError, Destination, Host, readable};
use super::allow::{AllowList, Entry};
use super::{HTTP_PORT, HTTPS_PORT};
pub use value::{SecretValue, Unusable};

/// Most characters of a secret's name.
const LONGEST_NAME: usize = 32;
/// What stands for the secret in `inject.value`.
const PLACE: &str = "{}";

/// Headers that are about the message or its way and say nothing about who asks.
const NOT_FOR_SECRETS: [HeaderName; 13] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A secret that cannot be used as it stands in the policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It has no name that could be told to a command.
    #[error("`{0}` is no name; write 1 to {LONGEST_NAME} letters, digits, `-` or `_`")]
    Name(String),
    /// It comes from nowhere, or from two places.
    #[error("[secrets.{0}] needs one of from_env = \"NAME\" and from_file = \"/PATH\"")]
    Source(String),
    /// The host is none.
    #[error("[secrets.{secret}] inject.host, without a port, is not understood: {problem}")]
    Host {
        /// The secret.
        secret: String,
        /// What is wrong with the host.
        problem: AddressError,
    },
    /// The header is none that can carry a secret.
    #[error(
        "[secrets.{secret}] inject.header is `{header}`; it must be a header that says who asks, as Authorization"
    )]
    Header {
        /// The secret.
        secret: String,
        /// The header.
        header: String,
    },
    /// The secret has no place in the value.
    #[error(
        "[secrets.{0}] inject.value must be printable ASCII with {PLACE} once, where the secret goes, as in \"Bearer {PLACE}\""
    )]
    Value(String),
    /// The proxy would not let the request through.
    #[error(
        "[secrets.{secret}] is for `{destination}`, which [network] allow does not have; add it there"
    )]
    NotAllowed {
        /// The secret.
        secret: String,
        /// Its host and port.
        destination: String,
    },
    /// Anybody on the way could read it.
    #[error(
        "[secrets.{secret}] has tls = false, which is for hosts on this machine or network only: the entry of \
         [network] allow for `{destination}` must say private = true"
    )]
    Unencrypted {
        /// The secret.
        secret: String,
        /// Its host and port.
        destination: String,
    },
    /// Two secrets are for the same requests.
    #[error(
        "[secrets.{first}] and [secrets.{second}] are both for requests to {url}; leave one of them"
    )]
    Twice {
        /// One of them.
        first: String,
        /// The other.
        second: String,
        /// What they are both for.
        url: String,
    },
}

/// A table `[secrets.NAME]` as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenSecret {
    from_env: Option<String>,
    from_file: Option<PathBuf>,
    inject: WrittenInjection,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenInjection {
    host: String,
    header: String,
    value: Option<String>,
    port: Option<u16>,
    tls: Option<bool>,
}

/// Where a secret comes from. It is looked up when it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A variable of the server's environment.
    FromEnv(String),
    /// A file that nobody else reads.
    FromFile(PathBuf),
}

/// One secret: where it comes from and what it is added to. It never holds the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    name: String,
    source: Source,
    #[serde(serialize_with = "as_text")]
    destination: Destination,
    header: String,
    value: String,
    tls: bool,
}

/// The secrets of a policy, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// Checks secrets as a policy has them.
    ///
    /// # Errors
    /// The first that is not understood, that the allow list lets nowhere, or that is for the same requests as another.
    pub fn new(
        written: BTreeMap<String, WrittenSecret>,
        allow: &AllowList,
    ) -> Result<Self, SecretError> {
        let secrets = written
            .into_iter()
            .map(|(name, written)| Secret::check(name, written, allow))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, second) in secrets.iter().enumerate() {
            if let Some(first) = secrets[..index].iter().find(|first| first.meets(second)) {
                return Err(SecretError::Twice {
                    first: first.name.clone(),
                    second: second.name.clone(),
                    url: second.url(),
                });
            }
        }
        Ok(Self(secrets))
    }

    /// Each of them.
    pub fn all(&self) -> &[Secret] {
        &self.0
    }

    /// What is added to requests for `host:port`, in words.
    pub fn explain(&self, host_port: &str) -> Option<String> {
        let asked = Destination::parse(host_port.as_bytes(), None).ok()?;
        self.for_request(&asked).map(Secret::explanation)
    }

    /// The secret for a plain request to this destination.
    pub(super) fn for_request(&self, asked: &Destination) -> Option<&Secret> {
        self.0.iter().find(|secret| secret.is_for(asked))
    }

    /// Those that can be read now, to be found in texts.
    pub fn known(&self) -> KnownSecrets<'_> {
        let known = |secret| Some((secret, Secret::read(secret).ok()?));
        KnownSecrets(self.0.iter().filter_map(known).collect())
    }
}

/// Secrets with their values.
#[derive(Debug)]
pub struct KnownSecrets<'a>(Vec<(&'a Secret, SecretValue)>);

impl KnownSecrets<'_> {
    /// The text with each of them in it replaced by its name.
    pub fn hide(&self, text: &str) -> String {
        self.0
            .iter()
            .fold(text.to_owned(), |text, (secret, value)| {
                text.replace(value.expose(), &format!("[secret {}]", secret.name))
            })
    }
}

impl Secret {
    fn check(name: String, written: WrittenSecret, allow: &AllowList) -> Result<Self, SecretError> {
        let WrittenSecret {
            from_env,
            from_file,
            inject,
        } = written;
        if !is_name(&name) {
            return Err(SecretError::Name(readable(name.as_bytes())));
        }
        let source = match (from_env, from_file) {
            (Some(variable), None) if is_name(&variable) => Source::FromEnv(variable),
            (None, Some(path)) if path.is_absolute() => Source::FromFile(path),
            _ => return Err(SecretError::Source(name)),
        };
        let tls = inject.tls.unwrap_or(true);
        let port = inject
            .port
            .unwrap_or(if tls { HTTPS_PORT } else { HTTP_PORT });
        let destination = Host::parse(inject.host.as_bytes())
            .and_then(|host| Destination::new(host, port))
            .map_err(|problem| SecretError::Host {
                secret: name.clone(),
                problem,
            })?;
        let header = HeaderName::from_bytes(inject.header.as_bytes())
            .ok()
            .filter(|header| !NOT_FOR_SECRETS.contains(header))
            .ok_or_else(|| SecretError::Header {
                secret: name.clone(),
                header: readable(inject.header.as_bytes()),
            })?;
        let value = inject.value.unwrap_or_else(|| PLACE.to_owned());
        let is_printable = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_printable || value.matches(PLACE).count() != 1 {
            return Err(SecretError::Value(name));
        }
        let Ok(entry) = allow.entry_for(&destination) else {
            return Err(SecretError::NotAllowed {
                secret: name,
                destination: destination.to_string(),
            });
        };
        if !tls && !Entry::private(entry) {
            return Err(SecretError::Unencrypted {
                secret: name,
                destination: destination.to_string(),
            });
        }
        Ok(Self {
            name,
            source,
            destination,
            header: header.as_str().to_owned(),
            value,
            tls,
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Its file, if it comes from one.
    pub fn file(&self) -> Option<&Path> {
        match &self.source {
            Source::FromFile(path) => Some(path),
            Source::FromEnv(_) => None,
        }
    }

    /// Its variable, if it comes from the environment.
    pub fn variable(&self) -> Option<&str> {
        match &self.source {
            Source::FromEnv(variable) => Some(variable),
            Source::FromFile(_) => None,
        }
    }

    /// What it is added to, in words.
    pub fn explanation(&self) -> String {
        format!(
            "secret {} is added to requests to {}",
            self.name,
            self.url()
        )
    }

    /// The secret itself, as it is now.
    ///
    /// # Errors
    /// Why there is none that could be used; the text never holds any of it.
    pub fn read(&self) -> Result<SecretValue, Unusable> {
        SecretValue::read(&self.source)
    }

    /// Where requests go that it is added to.
    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The header that carries it.
    pub(super) fn header(&self) -> &str {
        &self.header
    }

    /// The header's value.
    pub(super) fn header_value(&self, value: &SecretValue) -> String {
        self.value.replace(PLACE, value.expose())
    }

    /// Whether it goes over TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        self.tls
    }

    /// What commands ask for: plain HTTP, which goes no further than the proxy.
    fn url(&self) -> String {
        let (host, port) = (self.destination.host(), self.destination.port());
        match port {
            HTTP_PORT => format!("http://{host}/"),
            HTTPS_PORT if self.tls => format!("http://{host}/"),
            _ => format!("http://{host}:{port}/"),
        }
    }

    /// Whether a plain request to this destination is one it is added to. The ports that URLs leave out stand for each other.
    fn is_for(&self, asked: &Destination) -> bool {
        let is_default = self.tls && self.destination.port() == HTTPS_PORT;
        asked.host() == self.destination.host()
            && (asked.port() == self.destination.port() || is_default && asked.port() == HTTP_PORT)
    }

    fn meets(&self, other: &Self) -> bool {
        self.is_for(&other.destination) || other.is_for(&self.destination)
    }
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn as_text<S: Serializer>(destination: &Destination, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(destination)
}

#[cfg(test)]
mod tests;
