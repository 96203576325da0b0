//! What stands between: a server in recovery, and a pooler that gives each transaction whatever session it has.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use mcp_database::postgres::change::Change;
use mcp_database::postgres::execute::Changes;
use mcp_database::postgres::read::Ask;
use mcp_database::postgres::{Error, Postgres};
use mcp_database::source::Mode;
use mcp_database::table::Budget;
use serde_json::{Value, json};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::database::{Database, connect_with, settings};
use crate::reads::database;
use crate::server::{server, server_with};

async fn rows(postgres: &Postgres, sql: &str) -> Result<Vec<Vec<Value>>, Error> {
    let (answer, _) = postgres.query(Ask::new(sql), Budget::default()).await?;
    Ok(answer.rows.into_rows())
}

fn change(sql: &str) -> anyhow::Result<Changes> {
    Ok(Changes {
        steps: vec![(Change::of(sql)?, Vec::new())],
        is_trial: false,
        may_empty: true,
        expected: None,
        timeout: std::time::Duration::from_secs(30),
        budget: Budget::default(),
    })
}

#[tokio::test]
async fn case_34_a_replica_is_read_and_told_as_one() -> anyhow::Result<()> {
    let Some(lines) = server("postgres", "standby")? else {
        return Ok(());
    };
    let mut settings = settings(&lines, "postgres", "postgres")?;
    settings.mode = Mode::Write;
    let replica = Postgres::open(Arc::new(settings))?;
    ensure!(replica.posture().await?.is_replica);
    let asked = rows(&replica, "SELECT pg_is_in_recovery(), 1").await?;
    assert_eq!(asked, [[json!(true), json!(1)]]);
    let checks = replica.health(&[]).await?;
    for check in &checks {
        ensure!(!check.value.contains("cannot be looked at"), "{check:?}");
    }
    ensure!(
        checks
            .iter()
            .any(|check| check.check == "replication" && check.value.starts_with("replica")),
        "{checks:?}"
    );
    let refused = replica.execute(change("CREATE TABLE t (a int)")?).await;
    let told = refused.err().context("a replica was changed")?.to_string();
    ensure!(told.contains("recovery"), "{told}");
    assert_eq!(rows(&replica, "SELECT 1").await?, [[json!(1)]]);
    Ok(())
}

#[tokio::test]
async fn case_35_a_pooler_that_shares_sessions_serves_every_call() -> anyhow::Result<()> {
    let database = database!();
    let (_, name) = database
        .settings
        .url
        .rsplit_once('/')
        .context("no database")?;
    let port = database.settings.url.split([':', '/']).nth(4);
    let upstream = [("UPSTREAM_PORT", port.context("no port")?)];
    let Some(pooler) = server_with("pgbouncer", "transaction", &upstream)? else {
        return Ok(());
    };
    let mut settings = settings(&pooler, "postgres", name)?;
    settings.mode = Mode::Write;
    let shared = Postgres::open(Arc::new(settings))?;
    database
        .client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('well'); CREATE TABLE t AS SELECT g AS id, 'well'::mood AS mood FROM generate_series(1, 300) g",
        )
        .await?;

    // Another client of the pooler, which has the same driver, has left its statements in the only session that there is.
    let other = connect_with(&pooler, name, "").await?;
    let leave = "DO $$ BEGIN FOR n IN 0..3000 LOOP BEGIN EXECUTE format('PREPARE s%s AS SELECT 1', n); EXCEPTION WHEN duplicate_prepared_statement THEN NULL; END; END LOOP; END $$";
    let left = async || {
        let counted = other.simple_query("SELECT count(*) FROM pg_prepared_statements");
        let counted = counted.await?;
        let count = counted.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        count.context("no count")
    };
    for round in 0..3 {
        other.batch_execute(leave).await?;
        let count: u32 = left().await?;
        ensure!(count > 3000, "round {round}: {count}");
        let (answer, rest) = shared
            .query(Ask::new("SELECT * FROM t ORDER BY id"), Budget::default())
            .await?;
        assert_eq!(answer.rows.len(), 100, "round {round}");
        let mut rest = rest.context("nothing is left")?;
        let next = rest.next(Budget::default()).await?.rows.into_rows();
        assert_eq!(next[0], [json!(101), json!("well")], "round {round}");
        drop(rest);
        other.batch_execute(leave).await?;
        let changed = shared
            .execute(change(
                "UPDATE t SET id = -id WHERE id <= 2 AND id > 0 RETURNING mood",
            )?)
            .await?;
        assert_eq!(changed.total(), if round == 0 { 2 } else { 0 });
        other.batch_execute(leave).await?;
        shared.health(&[]).await?;
        let count: u32 = left().await?;
        assert_eq!(count, 0, "statements stay with the pooler");
    }
    what_is_left_stays_nowhere(&database, &shared, &other).await?;
    let posture = shared.posture().await?;
    ensure!(
        posture
            .findings
            .iter()
            .any(|finding| finding.finding.contains("pooler")),
        "{posture:?}"
    );
    Ok(())
}

/// What a change leaves in its session reaches nobody, and what others leave does not reach us.
async fn what_is_left_stays_nowhere(
    database: &Database,
    shared: &Postgres,
    other: &Client,
) -> anyhow::Result<()> {
    database
        .client
        .batch_execute(
            "DROP ROLE IF EXISTS pooled; CREATE ROLE pooled; CREATE FUNCTION leaves() RETURNS void LANGUAGE plpgsql AS \
             $$ BEGIN CREATE TEMP TABLE left_over (a int); PERFORM pg_advisory_lock(4242), set_config('search_path', 'evil', false), \
             set_config('role', 'pooled', false); END $$",
        )
        .await?;
    shared.execute(change("SELECT leaves()")?).await?;
    let state = "SELECT current_user::text, current_setting('search_path'), to_regclass('pg_temp.left_over') IS NULL, \
                 (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')";
    let seen = other.simple_query(state).await?;
    let seen = seen.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?].join(" "))
        }
        _ => None,
    });
    assert_eq!(seen.as_deref(), Some("postgres \"$user\", public t 0"));
    // What another client leaves is not taken over.
    other
        .batch_execute("SET ROLE pooled; SET search_path TO evil")
        .await?;
    let who = "SELECT current_user::text, current_setting('search_path')";
    assert_eq!(
        rows(shared, who).await?,
        [[json!("postgres"), json!("\"$user\", public")]]
    );
    other.batch_execute("RESET ROLE; RESET search_path").await?;
    database.client.batch_execute("DROP ROLE pooled").await?;
    Ok(())
}
