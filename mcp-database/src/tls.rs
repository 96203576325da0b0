//! TLS to a database: always verified, by the system's authorities or by those that the operator names.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::source::{ClientCertificate, Settings, SourceError, Tls, is_loopback};

/// Whether connections of a source are to be protected, given every host that its URL names.
///
/// # Errors
/// No host at all.
pub fn is_wanted<'a>(
    settings: &Settings,
    hosts: impl IntoIterator<Item = &'a str>,
) -> Result<bool, SourceError> {
    let mut hosts = hosts.into_iter().peekable();
    if hosts.peek().is_none() {
        return Err(SourceError::Url {
            id: settings.id.clone(),
            reason: "it names no host".to_owned(),
        });
    }
    Ok(match settings.tls {
        Tls::Disabled => false,
        Tls::Verified { .. } => true,
        Tls::OffLoopback => hosts.any(|host| !is_loopback(host)),
    })
}

/// The configuration of TLS for the source of this name; reads the files it names.
///
/// # Errors
/// Files that are not there, or hold no certificates or no key.
pub fn config(id: &str, tls: &Tls) -> Result<ClientConfig, SourceError> {
    let (ca_file, client) = match tls {
        Tls::Verified { ca_file, client } => (ca_file.as_deref(), client.as_ref()),
        Tls::OffLoopback | Tls::Disabled => (None, None),
    };
    let failed = |reason: String| SourceError::Tls {
        id: id.to_owned(),
        reason,
    };
    let authorities = match ca_file {
        Some(path) => certificates(path).map_err(failed)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities);
    if added == 0 {
        let place = ca_file.map_or("the system's store".to_owned(), |path| {
            format!("`{}`", path.display())
        });
        return Err(failed(format!("no authority is in {place}")));
    }
    let builder =
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?
            .with_root_certificates(roots);
    match client {
        None => Ok(builder.with_no_client_auth()),
        Some(ClientCertificate {
            cert_file,
            key_file,
        }) => {
            let chain = certificates(cert_file).map_err(failed)?;
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| failed(format!("`{}`: {error}", key_file.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| failed(error.to_string()))
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("`{}`: {error}", path.display()))
}
