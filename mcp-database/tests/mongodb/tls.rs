//! A server behind TLS is believed only if its certificate is signed by whom the operator trusts, and names where we wanted to go.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use mcp_database::mongodb::{MongoError, Mongodb};
use mcp_database::source::Tls;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::support::{PATIENCE, settings};
use crate::wire::{Recorded, Reply};

/// A certificate that signs itself, and its key.
struct Certificate {
    file: PathBuf,
    key: PathBuf,
}

/// `None` where this machine has no openssl: the test is then skipped by name.
fn certificate(folder: &Path, name: &str, subject: &str) -> Result<Option<Certificate>> {
    let (file, key) = (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    );
    let mut making = Command::new("openssl");
    making
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=test",
            "-addext",
            &format!("subjectAltName={subject}"),
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&file);
    let Ok(output) = making.output() else {
        ensure!(
            std::env::var_os("CI").is_none_or(|ci| ci != "1"),
            "openssl is missing"
        );
        eprintln!("skipped: the tests of TLS need openssl");
        return Ok(None);
    };
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Some(Certificate { file, key }))
}

async fn behind(certificate: &Certificate) -> Result<Recorded> {
    let chain = CertificateDer::pem_file_iter(&certificate.file)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Recorded::start_within(Some(TlsAcceptor::from(Arc::new(config))), |_, _| {
        Reply::Usual
    })
    .await
}

async fn reached(server: &Recorded, authority: &Certificate) -> Result<Result<(), MongoError>> {
    let mut settings = settings(&format!("mongodb://localhost:{}/", server.port));
    settings.tls = Tls::Verified {
        ca_file: Some(authority.file.clone()),
        client: None,
    };
    Ok(Mongodb::open(&settings)?.server(PATIENCE).await.map(drop))
}

#[tokio::test]
async fn a_certificate_is_verified_by_its_authority_and_its_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let made = |name: &str, subject: &str| certificate(folder.path(), name, subject);
    let (Some(own), Some(other), Some(stranger)) = (
        made("own", "DNS:localhost")?,
        made("other", "DNS:localhost")?,
        made("stranger", "DNS:db.example.org")?,
    ) else {
        return Ok(());
    };
    let server = behind(&own).await?;
    reached(&server, &own)
        .await?
        .context("the right certificate")?;
    let error = reached(&server, &other)
        .await?
        .err()
        .context("another authority")?;
    assert!(
        matches!(&error, MongoError::NoServer(reason) if reason.contains("certificate")),
        "{error:?}"
    );
    let server = behind(&stranger).await?;
    let error = reached(&server, &stranger)
        .await?
        .err()
        .context("another name")?;
    assert!(
        matches!(&error, MongoError::NoServer(reason) if reason.contains("certificate")),
        "{error:?}"
    );
    Ok(())
}

/// A server without TLS is not spoken to in the clear, and one with TLS is told apart from one that is not there.
#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to_where_tls_is_wanted() -> Result<()> {
    let server = Recorded::start(|_, _| Reply::Usual).await?;
    let mut settings = settings(&format!("mongodb://localhost:{}/", server.port));
    settings.tls = Tls::Verified {
        ca_file: None,
        client: None,
    };
    let error = Mongodb::open(&settings)?.server(PATIENCE).await.err();
    assert!(matches!(error, Some(MongoError::NoServer(_))), "{error:?}");
    assert_eq!(
        server.asked("hello").len() + server.asked("isMaster").len(),
        0
    );
    settings.tls = Tls::OffLoopback;
    Mongodb::open(&settings)?.server(PATIENCE).await?;
    Ok(())
}
