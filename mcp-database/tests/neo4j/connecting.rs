//! Connections: versions, passwords, TLS.

use std::sync::Arc;

use anyhow::{Context, Result};
use mcp_database::neo4j::bolt::{Auth, Connection, Endpoint, Error, Limits, Tls, Value};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::server::password;
use crate::support::{PATIENCE, auth, connect, endpoint, one, server};

async fn attempt(endpoint: &Endpoint) -> Result<Connection, Error> {
    Connection::connect(endpoint, &auth(), Limits::default(), PATIENCE).await
}

fn tls(trusted: Option<CertificateDer<'static>>, server_name: &str) -> Result<Option<Tls>> {
    let mut roots = RootCertStore::empty();
    if let Some(certificate) = trusted {
        roots.add(certificate)?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server_name = ServerName::try_from(server_name.to_owned())?;
    Ok(Some(Tls {
        config: Arc::new(config),
        server_name,
    }))
}

fn encrypted() -> Result<Option<(Endpoint, CertificateDer<'static>)>> {
    let Some((endpoint, lines)) = endpoint("tls")? else {
        return Ok(None);
    };
    let file = lines.get("CA").context("the script names no authority")?;
    Ok(Some((endpoint, CertificateDer::from_pem_file(file)?)))
}

#[tokio::test]
async fn the_newest_common_version_is_spoken() -> Result<()> {
    let connection = connect(&server!()).await?;
    assert_eq!(connection.bolt_version(), (5, 8));
    assert!(
        connection.server_agent().starts_with("Neo4j/5."),
        "{}",
        connection.server_agent()
    );
    connection.close().await?;
    Ok(())
}

#[tokio::test]
async fn case_73_a_wrong_password_is_refused_and_never_shown() -> Result<()> {
    let endpoint = server!();
    let secret = "correct-horse-battery";
    let auth = Auth::Basic {
        user: "neo4j".to_owned(),
        password: secret.to_owned(),
    };
    let outcome = Connection::connect(&endpoint, &auth, Limits::default(), PATIENCE).await;
    let Err(error) = outcome else {
        anyhow::bail!("logged in")
    };
    assert!(
        matches!(&error, Error::Authentication { code, .. }
        if code == "Neo.ClientError.Security.Unauthorized"),
        "{error:?}"
    );
    let shown = format!("{error} {error:?} {auth:?}");
    assert!(
        !shown.contains(secret) && shown.contains("neo4j"),
        "{shown}"
    );
    let connection = attempt(&endpoint).await?;
    assert!(!format!("{connection:?}").contains(password()));
    let outcome = Connection::connect(&endpoint, &Auth::None, Limits::default(), PATIENCE).await;
    assert!(
        matches!(outcome, Err(Error::Authentication { .. })),
        "{outcome:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_encrypted_connection_needs_a_trusted_certificate() -> Result<()> {
    let Some((endpoint, certificate)) = encrypted()? else {
        return Ok(());
    };
    let trusting = Endpoint {
        tls: tls(Some(certificate.clone()), "localhost")?,
        ..endpoint.clone()
    };
    let mut connection = attempt(&trusting).await?;
    assert_eq!(one(&mut connection, "RETURN 1").await?, Value::Integer(1));
    connection.close().await?;
    for (trusted, name) in [
        (None, "localhost"),
        (Some(certificate), "elsewhere.example"),
    ] {
        let distrusting = Endpoint {
            tls: tls(trusted, name)?,
            ..endpoint.clone()
        };
        let outcome = attempt(&distrusting).await;
        assert!(matches!(outcome, Err(Error::Tls(_))), "{outcome:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_mismatch_of_encryption_is_named_in_both_directions() -> Result<()> {
    let plain = server!();
    let Some((encrypted, certificate)) = encrypted()? else {
        return Ok(());
    };
    let outcome = attempt(&encrypted).await;
    let Err(Error::TlsMismatch(hint)) = outcome else {
        anyhow::bail!("{outcome:?}")
    };
    assert!(hint.contains("use bolt+s://"), "{hint}");

    let outcome = attempt(&Endpoint {
        tls: tls(Some(certificate), "localhost")?,
        ..plain
    })
    .await;
    let Err(Error::TlsMismatch(hint)) = outcome else {
        anyhow::bail!("{outcome:?}")
    };
    assert!(hint.contains("use bolt://"), "{hint}");
    Ok(())
}
