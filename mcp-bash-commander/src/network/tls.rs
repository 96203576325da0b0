//! TLS to hosts that secrets are for, with the certificate authorities that the machine trusts.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::Host;

/// Read by the first use and good for all later ones.
static CONNECTOR: OnceCell<TlsConnector> = OnceCell::const_new();

/// Makes the connection an encrypted one, with exactly this host at its other end.
pub(super) async fn connect(stream: TcpStream, host: &Host) -> io::Result<TlsStream<TcpStream>> {
    let name = match host {
        Host::Name(name) => {
            ServerName::try_from(name.as_str().to_owned()).map_err(io::Error::other)?
        }
        Host::Address(address) => ServerName::from(*address),
    };
    let connector = CONNECTOR
        .get_or_try_init(|| async { tokio::task::spawn_blocking(connector).await? })
        .await?;
    connector.connect(name, stream).await
}

fn connector() -> io::Result<TlsConnector> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificate authorities cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(io::Error::other(
            "there are no certificate authorities on this machine",
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
