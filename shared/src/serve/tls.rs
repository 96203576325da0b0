//! HTTPS: the certificate and its key, read once at start.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read `{path}`: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no PEM of the kind it should be.
    #[error("`{path}` holds no {wanted} in PEM: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Others can read the key.
    #[error("`{path}` is open to others (mode {mode:04o}); run: chmod 600 '{path}'")]
    OpenKey {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// They do not belong together.
    #[error("the certificate and its key cannot be used: {0}")]
    Pair(#[from] rustls::Error),
}

/// What turns accepted connections into encrypted ones.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let pem = |path: &Path, wanted, reason: &dyn ToString| TlsError::Pem {
        path: path.to_owned(),
        wanted,
        reason: reason.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem(certificate, "certificate", &error))?;
    if chain.is_empty() {
        return Err(pem(certificate, "certificate", &"there is none"));
    }
    let mode = std::fs::metadata(key)
        .map_err(|source| unreadable(key, source))?
        .mode()
        & 0o7777;
    if mode & 0o027 != 0 {
        return Err(TlsError::OpenKey {
            path: key.to_owned(),
            mode,
        });
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| pem(key, "private key", &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> TlsError {
    TlsError::Unreadable {
        path: path.to_owned(),
        source,
    }
}
