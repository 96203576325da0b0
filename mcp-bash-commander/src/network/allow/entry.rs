//! One entry of an allow list, as it is written and as it is checked.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::super::address::{Destination, Host, Name, readable};
use super::super::range::is_public;
use super::AllowListError;

/// An entry as it stands in the policy: `"host:port"`, or `{ host = "host:port", private = true }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenEntry {
    /// Host and port; `*.` before a name stands for every name below it.
    pub host: String,
    /// Whether non-public addresses may be dialled for it.
    pub private: bool,
}

impl From<&str> for WrittenEntry {
    fn from(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            private: false,
        }
    }
}

impl<'de> Deserialize<'de> for WrittenEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            host: String,
            #[serde(default)]
            private: bool,
        }

        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = WrittenEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"host:port\" or { host = \"host:port\", private = true }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WrittenEntry, E> {
                Ok(text.into())
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<WrittenEntry, A::Error> {
                let Table { host, private } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(WrittenEntry { host, private })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Pattern {
    Exactly(Host),
    Below(Name),
}

/// One checked entry. It prints as `host:port` or `*.host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pattern: Pattern,
    port: u16,
    private: bool,
}

impl Entry {
    /// Whether non-public addresses may be dialled for it.
    pub fn private(&self) -> bool {
        self.private
    }

    /// Whether it names one host rather than all below a name.
    pub(in crate::network) fn is_exact(&self) -> bool {
        matches!(self.pattern, Pattern::Exactly(_))
    }

    pub(super) fn check(written: &WrittenEntry) -> Result<Self, AllowListError> {
        let text = written.host.as_str();
        let quoted = || readable(text.as_bytes());
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(AllowListError::Wildcard(quoted()));
        }
        let destination = Destination::parse(rest.as_bytes(), None).map_err(|problem| {
            AllowListError::Address {
                entry: quoted(),
                problem,
            }
        })?;
        let pattern = match (destination.host().clone(), below) {
            (Host::Name(name), true) => Pattern::Below(name),
            (Host::Address(_), true) => return Err(AllowListError::Wildcard(quoted())),
            (host @ Host::Name(_), false) => Pattern::Exactly(host),
            (host @ Host::Address(address), false) => {
                if destination.to_string() != text {
                    return Err(AllowListError::NotCanonical {
                        entry: quoted(),
                        canonical: destination.to_string(),
                    });
                }
                if !written.private && !is_public(address) {
                    return Err(AllowListError::Private(quoted()));
                }
                Pattern::Exactly(host)
            }
        };
        Ok(Self {
            pattern,
            port: destination.port(),
            private: written.private,
        })
    }

    pub(super) fn matches(&self, destination: &Destination) -> bool {
        self.port == destination.port()
            && match (&self.pattern, destination.host()) {
                (Pattern::Exactly(host), asked) => host == asked,
                (Pattern::Below(name), Host::Name(asked)) => asked
                    .as_str()
                    .strip_suffix(name.as_str())
                    .and_then(|below| below.strip_suffix('.'))
                    .is_some(),
                (Pattern::Below(_), Host::Address(_)) => false,
            }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Exactly(host) => write!(f, "{host}:{}", self.port),
            Pattern::Below(name) => write!(f, "*.{}:{}", name.as_str(), self.port),
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Table {
            host: String,
            private: bool,
        }
        if self.private {
            let (host, private) = (self.to_string(), true);
            Table { host, private }.serialize(serializer)
        } else {
            serializer.collect_str(self)
        }
    }
}
