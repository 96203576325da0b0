//! Where a server is, who asks, and how the way there is protected: read from the settings without connecting.

use std::sync::Arc;

use redis::{IntoConnectionInfo as _, ProtocolVersion};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::source::{Password, Settings, SourceError, Tls, is_loopback};
use crate::tls;

/// Where a server is.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// The source's name.
    pub(super) id: String,
    /// A name or an address, without brackets.
    pub(super) host: String,
    /// Usually 6379.
    pub(super) port: u16,
    /// Whether the way there is encrypted, and how the server is known.
    pub(super) tls: Option<Tls>,
    /// The user; `None` is `default`.
    pub(super) user: Option<String>,
    /// Where the password is.
    pub(super) password: Option<Password>,
    /// The number of the database.
    pub(super) database: i64,
    /// Which shapes the answers have.
    pub(super) protocol: ProtocolVersion,
}

impl Address {
    /// From the settings of a source.
    pub(super) fn of(settings: &Settings) -> Result<Self, SourceError> {
        let failed = |reason: &str| SourceError::Url {
            id: settings.id.clone(),
            reason: reason.to_owned(),
        };
        let mut url = redis::parse_redis_url(&settings.url)
            .ok_or_else(|| failed("it is no redis://[user@]host[:port][/database]"))?;
        if url.password().is_some() {
            return Err(SourceError::PasswordInUrl(settings.id.clone()));
        }
        let is_encrypted = match url.scheme() {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(failed("only redis:// and rediss:// are known")),
        };
        if url.fragment().is_some() {
            return Err(failed("nothing may stand behind a `#`"));
        }
        for (name, value) in url.query_pairs() {
            if name != "protocol" || !matches!(&*value, "2" | "3") {
                return Err(failed(
                    "behind the `?` only protocol=2 and protocol=3 are known",
                ));
            }
        }
        // The library only knows the encrypted ones where it encrypts itself.
        if url.set_scheme("redis").is_err() {
            return Err(failed("only redis:// and rediss:// are known"));
        }
        // What the library says about a URL may have the URL in it.
        let info = url
            .into_connection_info()
            .map_err(|_| failed("it is no redis://[user@]host[:port][/database]"))?;
        let (redis::ConnectionAddr::Tcp(host, port)
        | redis::ConnectionAddr::TcpTls { host, port, .. }) = info.addr()
        else {
            return Err(failed("only redis:// and rediss:// are known"));
        };
        let tls = match &settings.tls {
            Tls::Disabled if is_encrypted => {
                return Err(failed("rediss:// is encrypted, and tls is disabled"));
            }
            Tls::Disabled => None,
            Tls::OffLoopback if is_loopback(host) && !is_encrypted => None,
            verified => Some(verified.clone()),
        };
        let user = info.redis_settings().username();
        Ok(Self {
            id: settings.id.clone(),
            host: host.clone(),
            port: *port,
            tls,
            user: user.filter(|user| !user.is_empty()).map(str::to_owned),
            password: settings.password.clone(),
            database: info.redis_settings().db(),
            protocol: info.redis_settings().protocol(),
        })
    }

    /// Host and port, for messages.
    pub(super) fn name(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// What encrypts the way to a server, and by which name the server is to be known.
pub(super) fn encryption(
    address: &Address,
    tls: &Tls,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), SourceError> {
    let (id, host) = (&address.id, &address.host);
    let name = ServerName::try_from(host.clone()).map_err(|_| SourceError::Tls {
        id: id.clone(),
        reason: format!("`{host}` can stand in no certificate"),
    })?;
    Ok((Arc::new(tls::config(id, tls)?), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Engine, Limits, Mode, Special};

    fn settings(url: &str, tls: Tls) -> Settings {
        Settings {
            id: "cache".to_owned(),
            engine: Engine::Redis,
            url: url.to_owned(),
            password: None,
            mode: Mode::Read,
            tls,
            limits: Limits::default(),
            special: Special::default(),
        }
    }

    #[test]
    fn a_url_says_where_and_who() -> anyhow::Result<()> {
        let address = Address::of(&settings(
            "redis://some%40one@[::1]:7000/3?protocol=3",
            Tls::OffLoopback,
        ))?;
        assert_eq!(address.name(), "[::1]:7000");
        assert_eq!(address.user.as_deref(), Some("some@one"));
        assert_eq!(address.database, 3);
        assert_eq!(address.protocol, ProtocolVersion::RESP3);
        assert!(address.tls.is_none());
        let plain = Address::of(&settings("valkey://localhost", Tls::OffLoopback))?;
        assert_eq!(
            (plain.name().as_str(), plain.user),
            ("localhost:6379", None)
        );
        Ok(())
    }

    #[test]
    fn the_way_to_another_machine_is_encrypted_unless_the_operator_says_no() -> anyhow::Result<()> {
        let tls = |url, tls| Address::of(&settings(url, tls)).map(|address| address.tls.is_some());
        assert!(tls("redis://db.example.org", Tls::OffLoopback)?);
        assert!(tls("redis://localhost.example.org", Tls::OffLoopback)?);
        assert!(tls("rediss://localhost", Tls::OffLoopback)?);
        assert!(!tls("redis://db.example.org", Tls::Disabled)?);
        Ok(())
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_repeating_it() {
        for url in [
            "redis://user:secret@localhost",
            "redis://:secret@localhost",
            "http://secret@localhost",
            "rediss://secret@localhost/#insecure",
            "redis://secret@localhost/?x=1",
            "redis://secret@localhost/?protocol=4",
            "redis://secret@localhost/x",
            "redis+unix:///secret",
            "secret",
            "",
        ] {
            let error = Address::of(&settings(url, Tls::OffLoopback));
            let error = error.err().map(|error| error.to_string());
            assert!(
                error.is_some_and(|error| !error.contains("secret")),
                "{url}"
            );
        }
        let both = Address::of(&settings("rediss://localhost", Tls::Disabled));
        assert!(both.is_err());
    }
}
