//! PostgreSQL 15, reached over TLS alone, with the extension that imagines indexes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mcp_database::postgres::change::Change;
use mcp_database::postgres::execute::Changes;
use mcp_database::postgres::explain::Explain;
use mcp_database::postgres::read::Ask;
use mcp_database::postgres::{Error, Postgres};
use mcp_database::source::{ClientCertificate, Mode, Settings, SourceError, Tls};
use mcp_database::table::Budget;
use serde_json::json;

use crate::database::settings;
use crate::server::{Lines, server};

/// A source that may be changed, its certificate authority named.
fn writing(lines: &Lines) -> anyhow::Result<Settings> {
    let mut settings = settings(lines, "postgres", "postgres")?;
    settings.mode = Mode::Write;
    settings.tls = Tls::Verified {
        ca_file: Some(PathBuf::from(
            lines.get("CA").context("the script says no CA")?,
        )),
        client: None,
    };
    Ok(settings)
}

fn open(settings: Settings) -> anyhow::Result<Postgres> {
    Ok(Postgres::open(Arc::new(settings))?)
}

async fn execute(postgres: &Postgres, statements: &[&str]) -> anyhow::Result<()> {
    let steps = statements
        .iter()
        .map(|sql| Ok((Change::of(sql)?, Vec::new())));
    let changes = Changes {
        steps: steps.collect::<anyhow::Result<_>>()?,
        is_trial: false,
        may_empty: true,
        expected: None,
        timeout: Duration::from_secs(30),
        budget: Budget::default(),
    };
    postgres.execute(changes).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_is_verified_and_a_client_known_by_its_certificate() -> anyhow::Result<()> {
    let Some(lines) = server("postgres", "15")? else {
        return Ok(());
    };
    let one = || Ask::new("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    let verified = writing(&lines)?;
    let postgres = open(verified.clone())?;
    let (answer, _) = postgres.query(one(), Budget::default()).await?;
    assert_eq!(answer.rows.into_rows(), [[json!(true)]]);
    assert!(postgres.posture().await?.version.starts_with("15."));

    let plain = Settings {
        tls: Tls::Disabled,
        ..verified.clone()
    };
    let refused = open(plain)?.query(one(), Budget::default()).await;
    ensure!(refused.is_err(), "without TLS it is let in");

    let unknown = Settings {
        tls: Tls::Verified {
            ca_file: None,
            client: None,
        },
        ..verified.clone()
    };
    let refused = open(unknown)?.query(one(), Budget::default()).await.err();
    ensure!(
        matches!(
            refused,
            Some(Error::Unreachable(_) | Error::Source(SourceError::Tls { .. }))
        ),
        "an authority that nobody named is believed: {refused:?}"
    );

    let elsewhere = Settings {
        url: verified
            .url
            .replace("127.0.0.1", "localhost.localdomain.invalid"),
        ..verified.clone()
    };
    ensure!(
        open(elsewhere)?
            .query(one(), Budget::default())
            .await
            .is_err()
    );

    let roles = open(verified.clone())?;
    // Made by hand: roles are nothing that agents make.
    let made = Ask::new("SELECT 1 FROM pg_roles WHERE rolname = 'certuser'");
    roles.query(made, Budget::default()).await?;
    let file = |key: &str| {
        lines
            .get(key)
            .map(PathBuf::from)
            .with_context(|| format!("no {key}"))
    };
    let known = Settings {
        url: verified.url.replace("postgres@", "certuser@"),
        password: None,
        tls: Tls::Verified {
            ca_file: Some(file("CA")?),
            client: Some(ClientCertificate {
                cert_file: file("CLIENT_CERT")?,
                key_file: file("CLIENT_KEY")?,
            }),
        },
        ..verified
    };
    let answer = open(known)?.query(one(), Budget::default()).await;
    // The role is not there, which the server says only of whom it knows by his certificate.
    ensure!(
        matches!(&answer, Err(error) if error.to_string().contains("certuser")),
        "{:?}",
        answer.map(|(answer, _)| answer)
    );
    Ok(())
}

#[tokio::test]
async fn an_index_is_imagined_before_it_is_advised() -> anyhow::Result<()> {
    let Some(lines) = server("postgres", "15")? else {
        return Ok(());
    };
    let postgres = open(writing(&lines)?)?;
    execute(
        &postgres,
        &[
            "CREATE EXTENSION IF NOT EXISTS hypopg",
            "CREATE TABLE orders AS SELECT g AS id, g % 5000 AS customer, g AS at FROM generate_series(1, 200000) g",
            "ANALYZE orders",
        ],
    )
    .await?;
    let postgres = open(writing(&lines)?)?;
    let explain = Explain {
        ask: Ask::new("SELECT * FROM orders WHERE customer = 7 ORDER BY at"),
        is_run: false,
        indexes: Vec::new(),
        is_advised: true,
    };
    let advised = postgres.explain(explain.clone()).await?;
    let told = advised.notices.join("\n");
    ensure!(
        told.contains("with CREATE INDEX ON orders (customer"),
        "{told}"
    );
    let imagined = Explain {
        indexes: vec!["CREATE INDEX ON orders (customer)".to_owned()],
        is_advised: false,
        ..explain.clone()
    };
    let told = postgres.explain(imagined).await?.notices.join("\n");
    ensure!(told.contains("instead of"), "{told}");
    // Nothing of it is left for the next.
    let plain = Explain {
        is_advised: false,
        ..explain.clone()
    };
    let told = postgres.explain(plain).await?.notices.join("\n");
    ensure!(told.contains("reads the whole table"), "{told}");
    let forged = Explain {
        indexes: vec!["DROP TABLE orders".to_owned()],
        ..explain.clone()
    };
    let refused = postgres.explain(forged).await;
    ensure!(matches!(refused, Err(Error::Index(_))), "{refused:?}");
    let calling = Explain {
        indexes: vec!["CREATE INDEX ON orders ((pg_advisory_lock(customer) IS NULL))".to_owned()],
        ..explain.clone()
    };
    let refused = postgres.explain(calling).await;
    ensure!(matches!(refused, Err(Error::Function(_))), "{refused:?}");
    let many = Explain {
        indexes: vec!["CREATE INDEX ON orders (customer)".to_owned(); 1_000],
        ..explain
    };
    let refused = postgres.explain(many).await;
    ensure!(matches!(refused, Err(Error::Index(_))), "{refused:?}");
    Ok(())
}
