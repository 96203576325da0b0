//! What a read cannot do, and that it could if the layer that stops it were not there.

use anyhow::ensure;
use mcp_database::postgres::Error;
use mcp_database::postgres::read::Layers;
use mcp_database::table::Truncation;
use serde_json::json;
use tokio_postgres::error::SqlState;

use crate::database::Database;

/// The test's database, or the end of the test where there is no server.
macro_rules! database {
    () => {
        match Database::new().await? {
            Some(database) => database,
            None => return Ok(()),
        }
    };
}
pub(crate) use database;

#[tokio::test]
async fn the_transaction_refuses_what_is_a_query_and_writes() -> anyhow::Result<()> {
    let mut database = database!();
    database
        .client
        .batch_execute(
            "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE SEQUENCE s; \
             CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (2) RETURNING a'",
        )
        .await?;
    let functions_off = Layers {
        read_only: true,
        functions: false,
    };
    let both_off = Layers {
        read_only: false,
        functions: false,
    };
    for sql in [
        "SELECT nextval('s')",
        "SELECT writes()",
        "SELECT a FROM t FOR UPDATE",
        "SELECT set_config('transaction_read_only', 'off', true), writes()",
    ] {
        let refused = database.ask_within(sql, &[], functions_off).await;
        ensure!(
            matches!(
                &refused,
                Err(Error::Server(error))
                    if error.state == SqlState::READ_ONLY_SQL_TRANSACTION || error.state == SqlState::ACTIVE_SQL_TRANSACTION
            ),
            "{sql}: {refused:?}"
        );
        // The positive control: without the layer the same attempt succeeds.
        database
            .ask_within(sql, &[], both_off)
            .await
            .map_err(|error| {
                anyhow::anyhow!("{sql} does not even succeed when allowed: {error:?}")
            })?;
    }
    // Even so nothing is left of it: every read is rolled back.
    assert_eq!(
        database.value("SELECT count(*) FROM t", &[]).await?,
        json!(1)
    );
    Ok(())
}

#[tokio::test]
async fn functions_with_effects_are_not_called() -> anyhow::Result<()> {
    let mut database = database!();
    database
        .client
        .batch_execute(
            "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE SCHEMA shadow; \
             CREATE FUNCTION shadow.lower(text) RETURNS text VOLATILE LANGUAGE sql AS 'SELECT $1'; CREATE EXTENSION tablefunc",
        )
        .await?;
    let without = Layers {
        read_only: true,
        functions: false,
    };
    for sql in [
        "SELECT * FROM pg_read_file('PG_VERSION')",
        "SELECT a, f FROM t, LATERAL \"pg_read_file\" ('PG_VERSION') f",
        "SELECT pg_catalog . pg_read_file\n('PG_VERSION')",
        "SELECT PG_READ_FILE/**/('PG_VERSION')",
        "SELECT ('PG_VERSION'::text).pg_read_file",
        "SELECT (v.v).pg_ls_dir FROM (SELECT '.'::text AS v) v",
        "SELECT * FROM ROWS FROM (pg_ls_dir('.'))",
        "SELECT pg_advisory_lock(1)",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT pg_notify('a', 'b')",
        "SELECT ts_stat('SELECT $$a$$::tsvector')",
        "SELECT * FROM crosstab('SELECT $$a$$::text, $$b$$::text, pg_advisory_lock(1)::text') AS t(a text, b text)",
        "SELECT pg_sleep(0)",
        "SELECT shadow.lower('A')",
        "SELECT pg_terminate_backend(0)",
        "SELECT 0x1e-set_config('application_name', '1', false)::int",
        "SELECT 0x1e--'\n-length(pg_read_file('PG_VERSION')) AS a--'",
    ] {
        let refused = database.ask(sql, &[]).await;
        ensure!(
            matches!(refused, Err(Error::Function(_))),
            "{sql}: {refused:?}"
        );
        let answered = database.ask_within(sql, &[], without).await;
        ensure!(
            answered.is_ok(),
            "{sql} fails anyhow, so it shows nothing: {answered:?}"
        );
    }
    // This server may be built without XML, and then could not do it either.
    let runs_text = database
        .ask("SELECT query_to_xml('SELECT 1', true, true, '')", &[])
        .await;
    ensure!(
        matches!(runs_text, Err(Error::Function(_))),
        "{runs_text:?}"
    );
    for sql in [
        "SELECT lower('A'), random() < 2, coalesce(a, 1), extract(year FROM now()), now() < clock_timestamp() FROM t",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t",
        "SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t",
        "SELECT pg_total_relation_size('t'), json_build_object('a', a), t.a FROM t",
    ] {
        let answered = database.ask(sql, &[]).await;
        ensure!(answered.is_ok(), "{sql}: {answered:?}");
    }
    Ok(())
}

#[tokio::test]
async fn case_28_a_planner_is_not_blown_up() -> anyhow::Result<()> {
    let mut database = database!();
    for bomb in [
        "SELECT length(repeat(repeat(repeat('x', 1000), 1000), 1000))",
        "SELECT length(repeat('x', 1 << 29))",
        "SELECT length(repeat('x', 1e8::int))",
        "SELECT length(repeat('x', (2 ^ 29)::int))",
    ] {
        let refused = database.ask(bomb, &[]).await;
        ensure!(
            matches!(refused, Err(Error::Statement(_))),
            "{bomb}: {refused:?}"
        );
    }
    let harmless = "SELECT length(repeat('x', 1000))";
    assert_eq!(database.value(harmless, &[]).await?, json!(1000));
    Ok(())
}

#[tokio::test]
async fn case_25_rows_are_capped_by_the_server_and_the_connection_is_free_at_once()
-> anyhow::Result<()> {
    let mut database = database!();
    for sql in [
        "SELECT * FROM generate_series(1, 100000000)",
        "WITH q AS (SELECT * FROM generate_series(1, 6000)) SELECT * FROM q LIMIT 5000",
        "SELECT 1 FROM generate_series(1, 200) UNION ALL SELECT 2",
    ] {
        // A series as a table is made whole before its first row; this one is made as it is read.
        let sql = sql.replace(
            "* FROM generate_series(1, 100000000)",
            "generate_series(1, 100000000)",
        );
        let answer = database.ask(&sql, &[]).await?;
        assert_eq!(answer.rows.truncated(), Some(Truncation::Rows), "{sql}");
        assert_eq!(answer.rows.into_rows().len(), 100, "{sql}");
        assert_eq!(database.value("SELECT 1", &[]).await?, json!(1));
    }
    let wide = database
        .ask("SELECT repeat('x', 1900) FROM generate_series(1, 100)", &[])
        .await?;
    assert_eq!(wide.rows.truncated(), Some(Truncation::Bytes));
    let all = database.ask("SELECT generate_series(1, 100)", &[]).await?;
    assert_eq!(all.rows.truncated(), None);
    Ok(())
}

#[tokio::test]
async fn an_error_names_its_place_and_leaves_the_connection_usable() -> anyhow::Result<()> {
    let mut database = database!();
    for sql in [
        "SELECT nope FROM pg_class",
        "  ;SELECT nope",
        "-- ü\nSELECT nope",
    ] {
        let Err(Error::Server(error)) = database.ask(sql, &[]).await else {
            anyhow::bail!("{sql} is no error of the server");
        };
        assert_eq!(error.state, SqlState::UNDEFINED_COLUMN);
        let expected = sql.find("nope").map(|at| sql[..at].chars().count() + 1);
        assert_eq!(error.position, expected, "{sql}");
        assert_eq!(database.value("SELECT 1", &[]).await?, json!(1));
    }
    let wrong = database.ask("SELECT $1::int, $2::int", &[json!(1)]).await;
    ensure!(
        matches!(
            wrong,
            Err(Error::Parameters {
                wanted: 2,
                given: 1
            })
        ),
        "{wrong:?}"
    );
    let deep = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let too_deep = database.ask(&deep, &[]).await;
    ensure!(
        matches!(too_deep, Err(Error::Server { .. })),
        "{too_deep:?}"
    );
    assert_eq!(database.value("SELECT 1", &[]).await?, json!(1));
    Ok(())
}
