//! Hosts and ports in the one spelling that is decided about, resolved and dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest text quoted from a request.
const MAX_QUOTED: usize = 255;
/// Longest host name, in characters.
const MAX_NAME: usize = 253;
/// Longest label of a host name, in characters.
const MAX_LABEL: usize = 63;

/// A host or port that cannot be read in exactly one way. The texts are quoted from what was given, made printable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no port.
    #[error("`{0}` has no port; write host:port")]
    NoPort(String),
    /// The port is none.
    #[error("`{0}` is no port; write a number from 1 to 65535")]
    Port(String),
    /// There is no host.
    #[error("the host is empty; write host:port")]
    Empty,
    /// Something stands in it that belongs into no host name.
    #[error(
        "`{0}` is no host name; write ASCII letters, digits, `-`, `_` and dots (an international name as xn--…), or an \
         IPv6 address in brackets"
    )]
    Character(String),
    /// A label is wrong.
    #[error(
        "`{0}` has a label that is empty, longer than {MAX_LABEL} characters, or begins or ends with `-`"
    )]
    Label(String),
    /// It is too long.
    #[error("`{0}` is longer than the {MAX_NAME} characters a host name may have")]
    TooLong(String),
    /// It would be an IPv4 address to some programs and a name to others.
    #[error(
        "`{0}` ends in a number, but is no IPv4 address; write four decimal numbers as in 192.0.2.7"
    )]
    Number(String),
    /// It is no IPv6 address.
    #[error("`{0}` is no IPv6 address; write it as in [2001:db8::1]")]
    Ipv6(String),
    /// It is an IPv4 address in disguise.
    #[error("`{0}` is an IPv4 address written as an IPv6 one; write the IPv4 address")]
    Mapped(String),
}

/// A host name: lower-case ASCII, without a dot at its end, and never to be taken for an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(String);

impl Name {
    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, AddressError> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let wrong = |error: fn(String) -> AddressError| Err(error(readable(text.as_bytes())));
        if name.is_empty() {
            return Err(AddressError::Empty);
        }
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        {
            return wrong(AddressError::Character);
        }
        if name.len() > MAX_NAME {
            return wrong(AddressError::TooLong);
        }
        if !name.split('.').all(is_label) {
            return wrong(AddressError::Label);
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            return wrong(AddressError::Number);
        }
        Ok(Self(name))
    }
}

/// A host that can be decided about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// A name, to be resolved.
    Name(Name),
    /// An address, never an IPv4 one in the shape of IPv6.
    Address(IpAddr),
}

impl Host {
    /// Reads a host name or an IPv4 address; `[…]` is an IPv6 address.
    ///
    /// # Errors
    /// What has no or more than one meaning.
    pub(super) fn parse(text: &[u8]) -> Result<Self, AddressError> {
        let Ok(ascii) = std::str::from_utf8(text) else {
            return Err(AddressError::Character(readable(text)));
        };
        if let Some(inner) = ascii.strip_prefix('[') {
            let address: Ipv6Addr = inner
                .strip_suffix(']')
                .and_then(|inner| inner.parse().ok())
                .ok_or_else(|| AddressError::Ipv6(readable(text)))?;
            return Self::of_address(address.into());
        }
        // The standard parser takes four decimal numbers without leading zeros and nothing else.
        if let Ok(address) = ascii.strip_suffix('.').unwrap_or(ascii).parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        Name::parse(ascii).map(Self::Name)
    }

    /// The host with this address.
    ///
    /// # Errors
    /// An IPv4 address in the shape of IPv6: the kernel would dial another one than was decided about.
    pub(super) fn of_address(address: IpAddr) -> Result<Self, AddressError> {
        match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                Err(AddressError::Mapped(v6.to_string()))
            }
            _ => Ok(Self::Address(address)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(&name.0),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A host and a port from 1 to 65535.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Destination {
    host: Host,
    port: u16,
}

impl Destination {
    /// A port of a host.
    ///
    /// # Errors
    /// The port 0.
    pub(super) fn new(host: Host, port: u16) -> Result<Self, AddressError> {
        match port {
            0 => Err(AddressError::Port("0".to_owned())),
            _ => Ok(Self { host, port }),
        }
    }

    /// Reads `host:port`; `default` stands in for an absent port.
    ///
    /// # Errors
    /// What has no or more than one meaning.
    pub(super) fn parse(text: &[u8], default: Option<u16>) -> Result<Self, AddressError> {
        // The colons of an IPv6 address are inside its brackets.
        let from = text.iter().rposition(|&byte| byte == b']').unwrap_or(0);
        let colon = text[from..].iter().rposition(|&byte| byte == b':');
        let (host, port) = match colon {
            Some(colon) => (&text[..from + colon], read_port(&text[from + colon + 1..])?),
            None => (
                text,
                default.ok_or_else(|| AddressError::NoPort(readable(text)))?,
            ),
        };
        Self::new(Host::parse(host)?, port)
    }

    /// The host.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What somebody sent, as printable ASCII of at most 255 characters.
pub(super) fn readable(bytes: &[u8]) -> String {
    bytes
        .escape_ascii()
        .take(MAX_QUOTED)
        .map(char::from)
        .collect()
}

fn read_port(digits: &[u8]) -> Result<u16, AddressError> {
    let wrong = || AddressError::Port(readable(digits));
    if !digits.iter().all(u8::is_ascii_digit) || digits.first() == Some(&b'0') {
        return Err(wrong());
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(wrong)
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
}

/// Whether resolvers take a host that ends in this label for an IPv4 address, in decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_digit())
        || label
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &[u8]) -> Result<String, AddressError> {
        Destination::parse(text, None).map(|destination| destination.to_string())
    }

    #[test]
    fn a_destination_has_one_spelling() -> anyhow::Result<()> {
        for (written, read) in [
            ("static.example.org:443", "static.example.org:443"),
            ("Static.EXAMPLE.org.:443", "static.example.org:443"),
            ("xn--bcher-kva.example:1", "xn--bcher-kva.example:1"),
            ("under_score.example:65535", "under_score.example:65535"),
            ("localhost:80", "localhost:80"),
            ("1.example:80", "1.example:80"),
            ("0x7f.example:80", "0x7f.example:80"),
            ("192.0.2.7:80", "192.0.2.7:80"),
            ("192.0.2.7.:80", "192.0.2.7:80"),
            ("[2001:DB8:0:0:0:0:0:1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(canonical(written.as_bytes())?, read, "{written}");
            assert_eq!(canonical(read.as_bytes())?, read, "{read} stays itself");
        }
        assert_eq!(
            Destination::parse(b"a.example", Some(80))?.to_string(),
            "a.example:80"
        );
        Ok(())
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let long_label = format!("{}.example:1", "a".repeat(64));
        let long_name = format!("{}example:1", "a.".repeat(124));
        let cases: &[&[u8]] = &[
            b"",
            b":443",
            b".:443",
            b"static.example.org",
            b"static.example.org:",
            b"static.example.org:0",
            b"static.example.org:00443",
            b"static.example.org:+443",
            b"static.example.org:65536",
            b"static.example.org:443 ",
            b"static.example.org:80:443",
            b"static.example.org..:443",
            b".static.example.org:443",
            b"static..example.org:443",
            b"-static.example.org:443",
            b"static-.example.org:443",
            b"static.example.org\0.evil.test:443",
            b"evil.test\0static.example.org:443",
            b"static.example.org\r\nHost: evil.test:443",
            b"static.example.org\n:443",
            b" static.example.org:443",
            b"static.example.org :443",
            b"static.example.org\t:443",
            b"evil.test@static.example.org:443",
            b"static.example.org@evil.test:443",
            b"static.example.org%00.evil.test:443",
            b"static%2eexample.org:443",
            b"static.example.org/evil.test:443",
            b"static.example.org\\evil.test:443",
            b"static.example.org#evil.test:443",
            b"static.example.org?evil.test:443",
            b"*.example.org:443",
            b"static\xe3\x80\x82example\xe3\x80\x82org:443",
            "b\u{fc}cher.example:443".as_bytes(),
            "\u{ff53}tatic.example.org:443".as_bytes(),
            "static.example.org\u{200b}:443".as_bytes(),
            b"static.example\xff.org:443",
            b"2130706433:80",
            b"0x7f000001:80",
            b"0X7F.1:80",
            b"0x:80",
            b"0x7f.1:80",
            b"127.1:80",
            b"127.0.1:80",
            b"0177.0.0.1:80",
            b"127.0.0.01:80",
            b"127.0.0.256:80",
            b"127.0.0.1.1:80",
            b"127.0.0.0x1:80",
            b"127.0.0.1..:80",
            b"example.1:80",
            b"::1:80",
            b"[::1:80",
            b"::1]:80",
            b"[::1]80",
            b"[[::1]]:80",
            b"[]:80",
            b"[127.0.0.1]:80",
            b"[static.example.org]:443",
            b"[fe80::1%eth0]:80",
            b"[fe80::1%25eth0]:80",
            b"[::ffff:127.0.0.1]:80",
            b"[::ffff:7f00:1]:80",
            b"[0:0:0:0:0:ffff:a9fe:a9fe]:80",
            b"[::1].:80",
            long_label.as_bytes(),
            long_name.as_bytes(),
        ];
        for case in cases {
            assert!(canonical(case).is_err(), "{}", case.escape_ascii());
        }
    }

    #[test]
    fn quoted_hosts_are_short_and_printable() {
        let quoted = readable(&[0x1b; 4000]);
        assert_eq!(quoted.len(), 255);
        assert!(quoted.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(readable(b"a\0b\r\n\xff"), "a\\x00b\\r\\n\\xff");
    }
}
