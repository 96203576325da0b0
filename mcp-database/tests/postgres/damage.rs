//! What happens on the way to the server: it is told, and the next call works.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mcp_database::postgres::read::Ask;
use mcp_database::postgres::{Error, Postgres};
use mcp_database::table::Budget;
use serde_json::json;

use crate::database::Database;
use crate::proxy::{Fault, Proxy};
use crate::reads::database;

/// A source that leads through the proxy.
fn through(database: &Database, proxy: &Proxy) -> anyhow::Result<Postgres> {
    let url = database.settings.url.clone();
    let (before, behind) = url.split_once("127.0.0.1:").context("no address")?;
    let (_, path) = behind.split_once('/').context("no database")?;
    let url = format!("{before}127.0.0.1:{}/{path}", proxy.port);
    database.source(|settings| settings.url = url)
}

async fn one(postgres: &Postgres) -> Result<serde_json::Value, Error> {
    let ask = Ask {
        timeout: Duration::from_millis(300),
        ..Ask::new("SELECT 1")
    };
    let (answer, _) = postgres.query(ask, Budget::default()).await?;
    Ok(json!(answer.rows.into_rows()))
}

#[tokio::test]
async fn whatever_happens_on_the_way_is_told_and_the_next_call_works() -> anyhow::Result<()> {
    let database = database!();
    let port = database
        .settings
        .url
        .rsplit(':')
        .next()
        .and_then(|rest| rest.split('/').next());
    let proxy = Proxy::before(port.context("no port")?.parse()?).await?;
    let postgres = through(&database, &proxy)?;
    assert_eq!(one(&postgres).await?, json!([[1]]));
    for fault in [
        Fault::Cut,
        Fault::CutAfter(3),
        Fault::Stall,
        Fault::Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Fault::Garbage(b"D\xff\xff\xff\xff"),
        Fault::Garbage(b"D\x7f\xff\xff\xff"),
        Fault::Garbage(b"Z\x00\x00\x00\x04"),
    ] {
        proxy.set(fault);
        let damaged = one(&postgres).await;
        ensure!(
            matches!(
                damaged,
                Err(Error::Lost(_) | Error::TimedOut(_) | Error::Unreachable(_))
            ),
            "{fault:?}: {damaged:?}"
        );
        proxy.set(Fault::None);
        // The connections that were damaged are found out one by one.
        let mut answered = one(&postgres).await;
        for _ in 0..3 {
            if answered.is_ok() {
                break;
            }
            answered = one(&postgres).await;
        }
        assert_eq!(
            answered.with_context(|| format!("after {fault:?}"))?,
            json!([[1]])
        );
    }
    Ok(())
}
