//! Where a server is, by the URL of a source: `bolt://`, `bolt+s://`, `neo4j://`, `neo4j+s://`.
//!
//! A routing scheme (`neo4j`) asks the server named and no other: there is no routing here, and of a cluster the leader has to be
//! named for writes.

use crate::source::{Settings, SourceError, Tls, is_loopback};

const DEFAULT_PORT: u16 = 7687;

/// A server and a database of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, that of IPv6 without brackets.
    pub host: String,
    /// 7687 if none is given.
    pub port: u16,
    /// Whether TLS is spoken; it is verified then.
    pub tls: bool,
    /// Whether the scheme is a routing one, which is not followed.
    pub is_routing: bool,
    /// Who asks.
    pub user: Option<String>,
    /// The database; the user's home database if none is given.
    pub database: Option<String>,
}

impl Address {
    /// Reads the URL of a source, and decides whether TLS is spoken.
    ///
    /// # Errors
    /// What cannot be used; never a password.
    pub fn of(settings: &Settings) -> Result<Self, SourceError> {
        let wrong = |reason: String| SourceError::Url {
            id: settings.id.clone(),
            reason,
        };
        let (scheme, rest) = settings.url.split_once("://").ok_or_else(|| {
            wrong("it has no scheme; it begins like bolt://host or neo4j+s://host".to_owned())
        })?;
        let (is_routing, wants_tls) = match scheme {
            "bolt" => (false, false),
            "bolt+s" => (false, true),
            "neo4j" => (true, false),
            "neo4j+s" => (true, true),
            "bolt+ssc" | "neo4j+ssc" => {
                return Err(wrong(format!(
                    "{scheme} believes every certificate; use {} and name the server's authority in ca_file",
                    scheme.trim_end_matches("sc")
                )));
            }
            _ => {
                return Err(wrong(format!(
                    "`{scheme}` is no scheme of Neo4j: bolt, bolt+s, neo4j, neo4j+s"
                )));
            }
        };
        let (rest, query) = rest
            .split_once('?')
            .map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(user, place)| (Some(user), place));
        if user.is_some_and(|user| user.contains(':')) {
            return Err(SourceError::PasswordInUrl(settings.id.clone()));
        }
        let (host, port) = host_and_port(place).map_err(wrong)?;
        let tls = match &settings.tls {
            Tls::OffLoopback => wants_tls || !is_loopback(&host),
            Tls::Verified { .. } => true,
            Tls::Disabled if wants_tls => {
                return Err(wrong(format!(
                    "{scheme} speaks TLS, and tls = \"disable\" does not"
                )));
            }
            Tls::Disabled => false,
        };
        let read = |text: &str, what: &str| {
            decoded(text).ok_or_else(|| wrong(format!("its {what} is not encoded rightly")))
        };
        let user = user
            .filter(|user| !user.is_empty())
            .map(|user| read(user, "user"))
            .transpose()?;
        let mut database = Some(path.trim_end_matches('/'))
            .filter(|path| !path.is_empty())
            .map(|path| read(path, "database"))
            .transpose()?;
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let Some(("database", named)) = pair.split_once('=') else {
                let name = pair.split('=').next().unwrap_or_default();
                return Err(wrong(format!("it knows `?database=`, and not `{name}`")));
            };
            let named = read(named, "database")?;
            if database.as_ref().is_some_and(|database| *database != named) {
                return Err(wrong("it names two databases".to_owned()));
            }
            database = Some(named);
        }
        if let Some(name) = database.as_deref().filter(|name| !is_database(name)) {
            return Err(wrong(format!("`{name}` is no name of a database")));
        }
        Ok(Self {
            host,
            port,
            tls,
            is_routing,
            user,
            database,
        })
    }
}

fn host_and_port(place: &str) -> Result<(String, u16), String> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest
                .split_once(']')
                .ok_or("its address has no closing bracket")?;
            (
                host,
                behind.strip_prefix(':').or(behind.is_empty().then_some("")),
            )
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, Some("")),
        },
    };
    let port = match port {
        Some("") => Some(DEFAULT_PORT),
        Some(digits) => digits.parse().ok().filter(|port| *port != 0),
        None => None,
    };
    let port = port.ok_or("its port is none")?;
    if host.is_empty()
        || host.contains(|c: char| c.is_whitespace() || c.is_control() || "%/\\".contains(c))
    {
        return Err("it names no host".to_owned());
    }
    Ok((host.to_owned(), port))
}

fn is_database(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && !name.contains(|c: char| c.is_control() || c == '`' || c == '/')
}

/// Reads `%41`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Engine, Limits, Mode, Special};

    fn settings(url: &str, tls: Tls) -> Settings {
        Settings {
            id: "graph".to_owned(),
            engine: Engine::Neo4j,
            url: url.to_owned(),
            password: None,
            mode: Mode::Read,
            tls,
            limits: Limits::default(),
            special: Special::default(),
        }
    }

    fn address(url: &str) -> Result<Address, SourceError> {
        Address::of(&settings(url, Tls::OffLoopback))
    }

    #[test]
    fn a_url_says_where_who_and_what() -> anyhow::Result<()> {
        let expected = Address {
            host: "db.example.org".to_owned(),
            port: 7687,
            tls: true,
            is_routing: true,
            user: Some("a@b".to_owned()),
            database: Some("movies".to_owned()),
        };
        assert_eq!(address("neo4j+s://a%40b@db.example.org/movies")?, expected);
        assert_eq!(
            address("neo4j+s://a%40b@db.example.org:/?database=movies")?,
            expected
        );
        let own = address("bolt://[::1]:7000")?;
        assert_eq!(
            (own.host.as_str(), own.port, own.tls, own.database),
            ("::1", 7000, false, None)
        );
        Ok(())
    }

    #[test]
    fn another_machine_is_reached_over_tls_unless_the_operator_says_otherwise() -> anyhow::Result<()>
    {
        assert!(address("bolt://db.example.org")?.tls);
        assert!(address("bolt://localhost.example.org")?.tls);
        assert!(address("bolt+s://localhost")?.tls);
        assert!(!Address::of(&settings("bolt://db.example.org", Tls::Disabled))?.tls);
        assert!(Address::of(&settings("bolt+s://db.example.org", Tls::Disabled)).is_err());
        Ok(())
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_telling_a_password() {
        for url in [
            "localhost:7687",
            "http://localhost",
            "bolt+ssc://localhost",
            "bolt://",
            "bolt://host:0",
            "bolt://host:x",
            "bolt://[::1",
            "bolt://[::1]x",
            "bolt://host?policy=eu",
            "bolt://host/a?database=b",
            "bolt://host/a%zz",
            "bolt://host/a/b",
            "bolt://neo4j:secret@host",
            "bolt://:secret@host",
        ] {
            let error = address(url).err().map(|error| error.to_string());
            assert!(
                error
                    .as_ref()
                    .is_some_and(|error| !error.contains("secret")),
                "{url}: {error:?}"
            );
        }
    }
}
