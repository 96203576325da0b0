//! Which addresses may be dialled: published ports on loopback, and what the operator named.

use std::{
    collections::BTreeMap,
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
};

/// An address beyond loopback that the operator lets checks dial, written `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllowedAddress(String);

/// A text that is no `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address; write HOST:PORT, such as build.example.org:8080 or [::1]:80")]
pub struct AllowedAddressError(String);

impl FromStr for AllowedAddress {
    type Err = AllowedAddressError;

    fn from_str(text: &str) -> Result<Self, AllowedAddressError> {
        if split(text).is_some() {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(AllowedAddressError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for AllowedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where one address leads, decided once: a name whose answer changes later still leads to the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) address: SocketAddr,
    /// What the `Host` header says.
    pub(super) host: String,
}

/// The addresses of one round and where they lead.
#[derive(Debug, Default)]
pub(super) struct Destinations(BTreeMap<String, Result<Destination, String>>);

impl Destinations {
    /// Resolves each address, once, if it may be dialled at all.
    pub(super) fn resolve(addresses: &[String], allowed: &[String]) -> Self {
        let resolved = addresses.iter().map(|address| {
            let destination = destination(&address.to_ascii_lowercase(), allowed);
            (address.clone(), destination)
        });
        Self(resolved.collect())
    }

    pub(super) fn find(&self, address: &str) -> Result<&Destination, String> {
        match self.0.get(address) {
            Some(Ok(destination)) => Ok(destination),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(format!("`{address}` is no address of this round")),
        }
    }

    /// Ports that have to be reachable.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.0
            .values()
            .flatten()
            .map(|destination| destination.address.port())
    }
}

fn destination(address: &str, allowed: &[String]) -> Result<Destination, String> {
    let (host, port) = split(address).ok_or_else(|| format!("`{address}` is no HOST:PORT"))?;
    if let Ok(literal) = address.parse::<SocketAddr>()
        && literal.ip().is_loopback()
    {
        return Ok(Destination {
            address: literal,
            host: "localhost".to_owned(),
        });
    }
    if !allowed
        .iter()
        .any(|allowed| allowed.eq_ignore_ascii_case(address))
    {
        return Err(format!(
            "`{address}` is no loopback address; the operator can allow it with --check-allow {address}"
        ));
    }
    let first = (host.trim_matches(['[', ']']), port)
        .to_socket_addrs()
        .map_err(|error| format!("`{host}` cannot be resolved: {error}"))?
        .next()
        .ok_or_else(|| format!("`{host}` has no address"))?;
    Ok(Destination {
        address: first,
        host: address.to_owned(),
    })
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_ipv6 = |host: &str| {
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let is_host = !host.is_empty() && host.len() <= 253 && host.bytes().all(is_plain);
    (is_host || is_ipv6(host)).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(address: &str, allowed: &[&str]) -> Result<SocketAddr, String> {
        let allowed: Vec<String> = allowed
            .iter()
            .map(|allowed| (*allowed).to_owned())
            .collect();
        let destinations = Destinations::resolve(&[address.to_owned()], &allowed);
        destinations
            .find(address)
            .map(|destination| destination.address)
    }

    #[test]
    fn only_loopback_and_what_the_operator_named_is_dialled() -> anyhow::Result<()> {
        assert_eq!(find("127.0.0.1:80", &[]), Ok("127.0.0.1:80".parse()?));
        assert_eq!(find("[::1]:80", &[]), Ok("[::1]:80".parse()?));
        for elsewhere in [
            "169.254.169.254:80",
            "10.0.0.1:80",
            "[fe80::1]:80",
            "0.0.0.0:80",
            "localhost:80",
        ] {
            let refused = find(elsewhere, &[]).err().unwrap_or_default();
            assert!(refused.contains("--check-allow"), "{elsewhere}: {refused}");
            let other_port = elsewhere.replace(":80", ":81");
            assert!(find(elsewhere, &[&other_port]).is_err(), "{elsewhere}");
        }
        assert_eq!(
            find("10.0.0.1:80", &["10.0.0.1:80"]),
            Ok("10.0.0.1:80".parse()?)
        );
        let named = find("localhost:80", &["LOCALHOST:80"]);
        assert!(named.is_ok_and(|address| address.ip().is_loopback()));
        Ok(())
    }

    #[test]
    fn an_address_of_no_round_is_not_dialled() {
        let destinations = Destinations::resolve(&["127.0.0.1:80".to_owned()], &[]);
        assert!(destinations.find("127.0.0.1:22").is_err());
    }

    #[test]
    fn what_is_no_address_is_refused_when_it_is_configured() {
        for text in [
            "",
            "host",
            "host:",
            "host:0",
            "host:70000",
            "a b:80",
            "http://x:80",
            "[::1:80",
        ] {
            assert!(text.parse::<AllowedAddress>().is_err(), "{text}");
        }
        assert!("Build.example.org:8080".parse::<AllowedAddress>().is_ok());
    }
}
