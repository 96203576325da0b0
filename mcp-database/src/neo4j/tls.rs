//! How a connection is encrypted: always verified, by the system's authorities or by those that a source names.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::source::{ClientCertificate, SourceError, Tls};

/// What a source asks for.
///
/// # Errors
/// Files that cannot be read, or hold no certificate or key.
pub(super) fn config(id: &str, tls: &Tls) -> Result<Arc<ClientConfig>, SourceError> {
    let failed = |reason: String| SourceError::Tls {
        id: id.to_owned(),
        reason,
    };
    let (ca_file, client) = match tls {
        Tls::Verified { ca_file, client } => (ca_file.as_deref(), client.as_ref()),
        Tls::OffLoopback | Tls::Disabled => (None, None),
    };
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            for certificate in certificates(file).map_err(failed)? {
                roots
                    .add(certificate)
                    .map_err(|error| failed(format!("{}: {error}", file.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate {
            cert_file,
            key_file,
        }) => {
            let chain = certificates(cert_file).map_err(failed)?;
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| failed(format!("{}: {error}", key_file.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| failed(format!("{}: {error}", cert_file.display())))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", file.display());
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| named(&error))?;
    if certificates.is_empty() {
        return Err(named(&"there is no certificate in it"));
    }
    Ok(certificates)
}
