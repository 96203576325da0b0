//! The allow list of a policy: which hosts and ports commands may reach, and what it says about one of them.

mod entry;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::address::{AddressError, Destination, Host};
use super::range::is_public;
use super::refusal::{Reason, Refusal};
pub use entry::{Entry, WrittenEntry};

/// Most entries of a list; more is a mistake.
const MAX_ENTRIES: usize = 1024;

/// An allow list that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowListError {
    /// An entry is no host and port.
    #[error("the entry `{entry}` of [network] allow is not understood: {problem}")]
    Address {
        /// The entry.
        entry: String,
        /// What is wrong with it.
        problem: AddressError,
    },
    /// A wildcard stands where none can.
    #[error(
        "the entry `{0}` of [network] allow has a wildcard that is none; `*.` before a host name stands for all names below it"
    )]
    Wildcard(String),
    /// An address is not in the form it is compared in.
    #[error("the entry `{entry}` of [network] allow must be written as `{canonical}`")]
    NotCanonical {
        /// The entry.
        entry: String,
        /// How to write it.
        canonical: String,
    },
    /// The entry could never let anything through.
    #[error(
        "the entry `{0}` of [network] allow is no public address; write {{ host = \"{0}\", private = true }} if it is to be reached"
    )]
    Private(String),
    /// Two entries are for the same.
    #[error("the entry `{0}` of [network] allow is there twice; leave one of them")]
    Twice(String),
    /// There are too many.
    #[error("[network] allow has {0} entries; at most {MAX_ENTRIES} are taken")]
    TooMany(usize),
}

/// What commands may reach: any destination that one of the entries matches, and nothing if there are none. Lists that mean the
/// same are equal and serialise to the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<WrittenEntry>")]
pub struct AllowList(Vec<Entry>);

/// What an allow list says about a destination, before any name is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// It may be reached, at public addresses.
    Allowed {
        /// The host as it is compared and resolved.
        host: String,
        /// The port.
        port: u16,
        /// The entry that says so.
        entry: String,
        /// Whether at non-public addresses too.
        private: bool,
    },
    /// It may not.
    Refused(Refusal),
}

impl AllowList {
    /// Checks entries as a policy has them, in any order.
    ///
    /// # Errors
    /// The first entry that is not understood, could never let anything through, or is there twice.
    pub fn new(written: &[WrittenEntry]) -> Result<Self, AllowListError> {
        if written.len() > MAX_ENTRIES {
            return Err(AllowListError::TooMany(written.len()));
        }
        let mut entries = written
            .iter()
            .map(Entry::check)
            .collect::<Result<Vec<_>, _>>()?;
        entries.sort();
        if let Some(pair) = entries
            .windows(2)
            .find(|pair| pair[0].to_string() == pair[1].to_string())
        {
            return Err(AllowListError::Twice(pair[0].to_string()));
        }
        Ok(Self(entries))
    }

    /// The entries, sorted.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// What would become of a request for `host:port`, as far as that can be said without resolving or dialling.
    pub fn explain(&self, host_port: &str) -> Decision {
        let asked = host_port.as_bytes();
        let Ok(destination) = Destination::parse(asked, None) else {
            return Decision::Refused(Refusal::unread(asked, None, Reason::Malformed));
        };
        match self.entry_for(&destination) {
            Ok(entry) => Decision::Allowed {
                host: destination.host().to_string(),
                port: destination.port(),
                entry: entry.to_string(),
                private: entry.private(),
            },
            Err(reason) => Decision::Refused(Refusal::of(&destination, reason)),
        }
    }

    /// The entry that allows the destination; of several, the one that allows most.
    pub(super) fn entry_for(&self, destination: &Destination) -> Result<&Entry, Reason> {
        let entry = self
            .0
            .iter()
            .filter(|entry| entry.matches(destination))
            .max_by_key(|entry| (entry.private(), entry.is_exact()))
            .ok_or(Reason::NotAllowed)?;
        if let Host::Address(address) = destination.host() {
            permitted(vec![*address], entry)?;
        }
        Ok(entry)
    }
}

impl TryFrom<Vec<WrittenEntry>> for AllowList {
    type Error = AllowListError;

    fn try_from(written: Vec<WrittenEntry>) -> Result<Self, AllowListError> {
        Self::new(&written)
    }
}

/// Those of a host's addresses that may be dialled for the entry that allows it.
pub(super) fn permitted(addresses: Vec<IpAddr>, entry: &Entry) -> Result<Vec<IpAddr>, Reason> {
    let first = *addresses.first().ok_or(Reason::NotResolved)?;
    let permitted: Vec<_> = addresses
        .into_iter()
        .filter(|&address| entry.private() || is_public(address))
        .collect();
    if permitted.is_empty() {
        return Err(Reason::PrivateAddress { address: first });
    }
    Ok(permitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Network {
        allow: AllowList,
    }

    fn list(toml: &str) -> Result<AllowList, toml::de::Error> {
        toml::from_str::<Network>(toml).map(|network| network.allow)
    }

    fn allowed(list: &AllowList, asked: &str) -> bool {
        matches!(list.explain(asked), Decision::Allowed { .. })
    }

    fn refused(list: &AllowList, asked: &str) -> Option<Reason> {
        match list.explain(asked) {
            Decision::Refused(refusal) => Some(refusal.reason),
            Decision::Allowed { .. } => None,
        }
    }

    #[test]
    fn an_empty_list_allows_nothing() -> anyhow::Result<()> {
        for empty in [AllowList::default(), list("allow = []")?] {
            for asked in [
                "static.example.org:443",
                "localhost:80",
                "127.0.0.1:80",
                "[::1]:80",
            ] {
                assert_eq!(refused(&empty, asked), Some(Reason::NotAllowed), "{asked}");
            }
        }
        Ok(())
    }

    #[test]
    fn an_entry_allows_its_host_and_port_only() -> anyhow::Result<()> {
        let list =
            list(r#"allow = ["static.example.org:443", "1.1.1.1:443", "[2606:4700::1111]:443"]"#)?;
        for asked in [
            "static.example.org:443",
            "STATIC.example.org.:443",
            "1.1.1.1:443",
            "[2606:4700:0::1111]:443",
        ] {
            assert!(allowed(&list, asked), "{asked}");
        }
        for asked in [
            "static.example.org:80",
            "example.org:443",
            "a.static.example.org:443",
            "xstatic.example.org:443",
            "static.example.org.evil.test:443",
            "1.1.1.2:443",
        ] {
            assert_eq!(refused(&list, asked), Some(Reason::NotAllowed), "{asked}");
        }
        assert_eq!(
            refused(&list, "static.example.org"),
            Some(Reason::Malformed)
        );
        Ok(())
    }

    #[test]
    fn a_wildcard_is_for_names_below_and_never_for_the_name_itself() -> anyhow::Result<()> {
        let list = list(r#"allow = ["*.example.org:443"]"#)?;
        for asked in ["a.example.org:443", "a.b.example.org:443"] {
            assert!(allowed(&list, asked), "{asked}");
        }
        for asked in [
            "example.org:443",
            "xexample.org:443",
            "a.example.org:444",
            "a.example.org.evil.test:443",
            "1.1.1.1:443",
        ] {
            assert_eq!(refused(&list, asked), Some(Reason::NotAllowed), "{asked}");
        }
        Ok(())
    }

    #[test]
    fn a_bad_entry_is_named() {
        for (toml, named) in [
            (
                r#"["static.example.org"]"#,
                "`static.example.org` has no port",
            ),
            (r#"["static.example.org:0"]"#, "`0` is no port"),
            (r#"["static.example.org:99999"]"#, "`99999` is no port"),
            (
                r#"["https://static.example.org:443"]"#,
                "https://static.example.org:443",
            ),
            (r#"["*:443"]"#, "`*:443`"),
            (r#"["*.*.org:443"]"#, "`*.*.org:443`"),
            (r#"["st*.example.org:443"]"#, "`st*.example.org:443`"),
            (r#"["static.example.org:*"]"#, "`static.example.org:*`"),
            (r#"["*.1.1.1.1:443"]"#, "`*.1.1.1.1:443`"),
            (r#"["2001:db8::1:443"]"#, "`2001:db8::1:443`"),
            (
                r#"["[2606:4700:0::1111]:443"]"#,
                "as `[2606:4700::1111]:443`",
            ),
            (r#"["[::ffff:1.1.1.1]:443"]"#, "write the IPv4 address"),
            (r#"["1.1.1.1.:443"]"#, "as `1.1.1.1:443`"),
            (r#"["010.1.1.1:443"]"#, "`010.1.1.1:443`"),
            (
                r#"["127.0.0.1:80"]"#,
                "`127.0.0.1:80` of [network] allow is no public address",
            ),
            (r#"["b\u00fccher.example:443"]"#, "xn--"),
            (
                r#"["a.example:1", "A.example.:1"]"#,
                "`a.example:1` of [network] allow is there twice",
            ),
            (
                r#"["a.example:1", { host = "a.example:1", private = true }]"#,
                "there twice",
            ),
            (r#"[{ host = "a.example:1", privat = true }]"#, "privat"),
            (r"[443]", "\"host:port\""),
        ] {
            let message = list(&format!("allow = {toml}"))
                .err()
                .map(|error| error.to_string());
            assert!(
                message
                    .as_ref()
                    .is_some_and(|message| message.contains(named)),
                "{toml}: {message:?}"
            );
        }
        assert_eq!(
            AllowList::new(&["*:443".into()]),
            Err(AllowListError::Wildcard("*:443".to_owned()))
        );
        let many: Vec<WrittenEntry> = (1..=1025)
            .map(|port| format!("a.example:{port}").as_str().into())
            .collect();
        assert_eq!(AllowList::new(&many), Err(AllowListError::TooMany(1025)));
    }

    #[test]
    fn lists_that_mean_the_same_serialise_to_the_same() -> anyhow::Result<()> {
        let one = list(
            r#"allow = ["static.example.org:443", "*.example.org:443", { host = "index.internal:8080", private = true }]"#,
        )?;
        let other = list(
            r#"allow = [{ private = true, host = "Index.internal.:8080" },
                { host = "*.Example.org:443" }, "static.example.org:443"]"#,
        )?;
        assert_eq!(one, other);
        let json = serde_json::to_string(&one)?;
        assert_eq!(
            json,
            r#"[{"host":"index.internal:8080","private":true},"static.example.org:443","*.example.org:443"]"#
        );
        assert_eq!(serde_json::from_str::<AllowList>(&json)?, one);
        Ok(())
    }

    #[test]
    fn only_a_private_entry_lets_non_public_addresses_through() -> anyhow::Result<()> {
        let list = list(
            r#"allow = ["a.example:1", { host = "*.internal:1", private = true }, "x.internal:1",
                { host = "10.0.0.5:1", private = true }]"#,
        )?;
        let addresses: Vec<IpAddr> = vec!["10.0.0.1".parse()?, "1.1.1.1".parse()?, "::1".parse()?];
        let entry = |asked: &str| -> anyhow::Result<&Entry> {
            list.entry_for(&Destination::parse(asked.as_bytes(), None)?)
                .map_err(|reason| anyhow::anyhow!("{reason:?}"))
        };
        assert_eq!(
            permitted(addresses.clone(), entry("a.example:1")?),
            Ok(vec![addresses[1]])
        );
        assert_eq!(
            permitted(vec![addresses[0]], entry("a.example:1")?),
            Err(Reason::PrivateAddress {
                address: addresses[0]
            })
        );
        assert_eq!(
            permitted(vec![], entry("a.example:1")?),
            Err(Reason::NotResolved)
        );
        for private in ["y.internal:1", "x.internal:1", "10.0.0.5:1"] {
            assert_eq!(
                permitted(addresses.clone(), entry(private)?),
                Ok(addresses.clone()),
                "{private}"
            );
        }
        Ok(())
    }
}
