//! The edges: huge cells, sets and statements, other encodings, rows and tables that one may not see, many calls at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mcp_database::postgres::Error;
use mcp_database::postgres::read::Ask;
use mcp_database::source::Settings;
use mcp_database::table::{Budget, Truncation};
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::database::Database;
use crate::reads::database;

impl Database {
    async fn rows(&self, sql: &str) -> Result<Vec<Vec<Value>>, Error> {
        let (answer, _) = self
            .postgres
            .query(Ask::new(sql), Budget::default())
            .await?;
        Ok(answer.rows.into_rows())
    }
}

#[tokio::test]
async fn case_24_a_cell_of_a_hundred_megabytes_is_told_by_its_head() -> anyhow::Result<()> {
    let database = database!();
    database
        .client
        .batch_execute("CREATE TABLE t AS SELECT repeat('x', 100000000) AS a, decode(repeat('00', 1000000), 'hex') AS b")
        .await?;
    let (answer, _) = database
        .postgres
        .query(Ask::new("TABLE t"), Budget::default())
        .await?;
    assert_eq!(answer.rows.truncated(), Some(Truncation::Cells));
    let rows = answer.rows.into_rows();
    assert_eq!(rows[0][0]["$cut"], json!(100_000_000));
    assert_eq!(rows[0][1]["$bytes"], json!(1_000_000));
    assert_eq!(database.rows("SELECT 1").await?, [[json!(1)]]);
    Ok(())
}

#[tokio::test]
async fn case_5_long_statements_are_taken_or_refused_by_their_length() -> anyhow::Result<()> {
    let database = database!();
    let long = format!("SELECT length('{}')", "x".repeat(100_000));
    assert_eq!(database.rows(&long).await?, [[json!(100_000)]]);
    let longer = format!("SELECT length('{}')", "x".repeat(10_000_000));
    let refused = database.rows(&longer).await;
    ensure!(matches!(refused, Err(Error::Statement(_))), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn case_22_sixteen_hundred_columns_and_none_are_told() -> anyhow::Result<()> {
    let database = database!();
    let many: Vec<String> = (0..1600).map(|number| format!("{number} AS a")).collect();
    let rows = database
        .rows(&format!("SELECT {}", many.join(", ")))
        .await?;
    assert_eq!(rows[0].len(), 1600);
    assert_eq!(database.rows("SELECT").await?, [Vec::<Value>::new()]);
    Ok(())
}

#[tokio::test]
async fn case_30_bytes_that_are_no_text_are_an_error_and_others_are_converted() -> anyhow::Result<()>
{
    let database = database!();
    for (encoding, inserted, expected) in [
        ("SQL_ASCII", "'\\xff'::bytea", None),
        ("LATIN1", "'\\xe4'::bytea", Some("ä")),
    ] {
        let name = format!("encoded_{}", encoding.to_lowercase());
        let create =
            format!("CREATE DATABASE {name} ENCODING {encoding} TEMPLATE template0 LOCALE 'C'");
        database.client.batch_execute(&create).await?;
        let (before, _) = database
            .settings
            .url
            .rsplit_once('/')
            .context("no database")?;
        let url = format!("{before}/{name}");
        let encoded = database.source(|settings| settings.url = url)?;
        let sql = format!("SELECT convert_from({inserted}, '{encoding}')");
        let answered = encoded.query(Ask::new(sql), Budget::default()).await;
        match expected {
            Some(text) => assert_eq!(answered?.0.rows.into_rows(), [[json!(text)]]),
            None => ensure!(
                answered.is_err(),
                "{:?}",
                answered.map(|(answer, _)| answer)
            ),
        }
        let next = encoded
            .query(Ask::new("SELECT 1"), Budget::default())
            .await?;
        assert_eq!(next.0.rows.into_rows(), [[json!(1)]]);
    }
    Ok(())
}

#[tokio::test]
async fn case_31_what_a_role_may_not_see_is_an_error_or_not_there() -> anyhow::Result<()> {
    let database = database!();
    let password = crate::server::password();
    database
        .client
        .batch_execute(&format!(
            "DROP ROLE IF EXISTS edge_reader; CREATE ROLE edge_reader LOGIN PASSWORD '{password}'; \
             CREATE TABLE mine (owner text, a int); ALTER TABLE mine ENABLE ROW LEVEL SECURITY; \
             CREATE POLICY own ON mine USING (owner = current_user); GRANT SELECT ON mine TO edge_reader; \
             INSERT INTO mine VALUES ('edge_reader', 1), ('somebody', 2); CREATE TABLE closed (a int)"
        ))
        .await?;
    let reader = database.source(|settings: &mut Settings| {
        settings.url = settings.url.replace("postgres@", "edge_reader@");
        settings.special.allow_superuser = false;
    })?;
    let (answer, _) = reader
        .query(Ask::new("SELECT a FROM mine"), Budget::default())
        .await?;
    assert_eq!(answer.rows.into_rows(), [[json!(1)]]);
    let refused = reader
        .query(Ask::new("TABLE closed"), Budget::default())
        .await;
    ensure!(
        matches!(&refused, Err(Error::Server(error)) if error.state == SqlState::INSUFFICIENT_PRIVILEGE),
        "{:?}",
        refused.map(|(answer, _)| answer)
    );
    let findings = &reader.posture().await?.findings;
    ensure!(findings.is_empty(), "{findings:?}");
    database
        .client
        .batch_execute("DROP OWNED BY edge_reader; DROP ROLE edge_reader")
        .await?;
    Ok(())
}

#[tokio::test]
async fn case_70_a_hundred_calls_at_once_share_the_connections() -> anyhow::Result<()> {
    let database = database!();
    let postgres = Arc::new(database.postgres);
    let calls = (0..100).map(|number| {
        let postgres = Arc::clone(&postgres);
        tokio::spawn(async move {
            let ask = Ask {
                parameters: vec![json!(number)],
                timeout: Duration::from_mins(1),
                ..Ask::new("SELECT $1::int")
            };
            postgres.query(ask, Budget::default()).await
        })
    });
    let calls: Vec<_> = calls.collect();
    for (number, call) in calls.into_iter().enumerate() {
        let (answer, _) = call.await??;
        assert_eq!(answer.rows.into_rows(), [[json!(number)]]);
    }
    Ok(())
}
