//! Attempts that other servers let through, by their numbers in `docs/database-cases.md`: each is refused, and is shown to do
//! what it is refused for where nothing stops it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mcp_database::postgres::change::Change;
use mcp_database::postgres::execute::Changes;
use mcp_database::postgres::read::{Ask, Layers};
use mcp_database::postgres::schema::{self, Detail, Kind};
use mcp_database::postgres::{Error, Postgres};
use mcp_database::source::Mode;
use mcp_database::table::Budget;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::database::Database;
use crate::reads::database;

const WITHOUT_FUNCTIONS: Layers = Layers {
    read_only: true,
    functions: false,
};
const WITHOUT_ALL: Layers = Layers {
    read_only: false,
    functions: false,
};

impl Database {
    async fn with(setup: &str) -> anyhow::Result<Option<Self>> {
        let Some(database) = Self::new().await? else {
            return Ok(None);
        };
        database.client.batch_execute(setup).await?;
        Ok(Some(database))
    }

    /// Refused before the server has it.
    async fn is_no_query(&mut self, sql: &str) -> anyhow::Result<()> {
        let refused = self.ask_within(sql, &[], WITHOUT_ALL).await;
        ensure!(
            matches!(refused, Err(Error::Statement(_))),
            "{sql}: {refused:?}"
        );
        Ok(())
    }

    /// Refused by the server, with this state, within these layers.
    async fn is_refused(
        &mut self,
        sql: &str,
        layers: Layers,
        state: &SqlState,
    ) -> anyhow::Result<()> {
        let refused = self.ask_within(sql, &[], layers).await;
        let found = refused.as_ref().err().and_then(Error::state);
        ensure!(found == Some(state), "{sql}: {refused:?}");
        Ok(())
    }

    async fn counted(&self, table: &str) -> anyhow::Result<i64> {
        let count = format!("SELECT count(*) FROM {table}");
        Ok(self.client.query_one(&count, &[]).await?.try_get(0)?)
    }

    fn writing(&self) -> anyhow::Result<Postgres> {
        self.source(|settings| settings.mode = Mode::Write)
    }
}

/// A database with what a case needs, or the end of the test where there is no server.
macro_rules! with {
    ($setup:expr) => {
        match Database::with($setup).await? {
            Some(database) => database,
            None => return Ok(()),
        }
    };
}

const TABLE: &str = "CREATE TABLE t (a int); INSERT INTO t VALUES (1)";

#[tokio::test]
async fn case_1_nothing_follows_a_commit() -> anyhow::Result<()> {
    let mut database = with!(TABLE);
    let bypass = "COMMIT; DROP TABLE t";
    database.is_no_query(bypass).await?;
    for sql in [
        "COMMIT",
        "SELECT 1; COMMIT; DROP TABLE t",
        "SELECT 1) q; DROP TABLE t; SELECT * FROM (SELECT 1",
        "SELECT 'open",
    ] {
        database.is_no_query(sql).await?;
    }
    assert_eq!(database.counted("t").await?, 1);
    // What a server does that sends the text as it is.
    let as_it_is = format!("BEGIN READ ONLY; {bypass}");
    database.client.batch_execute(&as_it_is).await?;
    ensure!(database.counted("t").await.is_err(), "the control drops it");
    Ok(())
}

#[tokio::test]
async fn case_2_a_semicolon_in_quotes_ends_nothing() -> anyhow::Result<()> {
    let mut database = database!();
    for (sql, value) in [
        ("SELECT 'a;b'", "a;b"),
        ("SELECT 'a'';b'", "a';b"),
        (r"SELECT E'a\';b'", "a';b"),
        ("SELECT $$a;b$$", "a;b"),
        ("SELECT $t$a;$$b$t$", "a;$$b"),
        (r"SELECT U&'d\0061;ta'", "da;ta"),
        ("SELECT /* ; /* ; */ ' */ 'x'", "x"),
        ("SELECT \"a;b\" FROM (SELECT 'y'::text AS \"a;b\") s", "y"),
        ("SELECT 'a' -- ;\n ';b'", "a;b"),
    ] {
        assert_eq!(database.value(sql, &[]).await?, json!(value), "{sql}");
    }
    database.is_no_query("SELECT 1 AS U&\"a;b\"").await?;
    for sql in ["SELECT ';'; SELECT 2", "SELECT $$;$$ ; SELECT 2"] {
        database.is_no_query(sql).await?;
    }
    Ok(())
}

#[tokio::test]
async fn case_3_a_comment_at_the_end_hides_nothing_of_ours() -> anyhow::Result<()> {
    let mut database = database!();
    for sql in [
        "SELECT 1 --",
        "SELECT 1 -- the end",
        "SELECT 1 /* ) q */",
        "SELECT 1; --",
    ] {
        assert_eq!(database.value(sql, &[]).await?, json!(1), "{sql}");
    }
    database.is_no_query("SELECT 1 /*").await
}

#[tokio::test]
async fn case_4_nothing_and_what_is_no_text_is_refused() -> anyhow::Result<()> {
    let mut database = database!();
    for sql in [
        "",
        " ",
        ";",
        "--",
        "/* */",
        "\u{feff}",
        "SELECT 1\0",
        "SELECT '\0'",
    ] {
        database.is_no_query(sql).await?;
    }
    assert_eq!(database.value("\u{feff}SELECT 1", &[]).await?, json!(1));
    let nul = database.ask("SELECT $1::text", &[json!("a\0b")]).await;
    ensure!(nul.is_err(), "{nul:?}");
    assert_eq!(database.value("SELECT 1", &[]).await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn case_6_twenty_thousand_brackets_are_an_error_and_no_end() -> anyhow::Result<()> {
    let mut database = database!();
    let deep = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let refused = database.ask(&deep, &[]).await;
    ensure!(refused.is_err(), "{refused:?}");
    assert_eq!(database.value("SELECT 1", &[]).await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn case_7_no_change_hides_in_a_query() -> anyhow::Result<()> {
    let mut database = with!(TABLE);
    for change in [
        "INSERT INTO t VALUES (2) RETURNING a",
        "UPDATE t SET a = 2 RETURNING a",
        "DELETE FROM t RETURNING a",
        "MERGE INTO t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE RETURNING a",
    ] {
        let with = format!("WITH x AS ({change}) SELECT * FROM x");
        for sql in [
            with.clone(),
            format!("SELECT * FROM ({with}) y"),
            format!("WITH z AS ({with}) SELECT * FROM z"),
            format!("SELECT ({with})"),
            format!("SELECT ({change})"),
        ] {
            let refused = database.ask_within(&sql, &[], WITHOUT_ALL).await;
            ensure!(
                matches!(refused, Err(Error::Server(_))),
                "{sql}: {refused:?}"
            );
        }
    }
    assert_eq!(database.value("SELECT a FROM t", &[]).await?, json!(1));
    let control = "WITH x AS (DELETE FROM t RETURNING a) SELECT * FROM x";
    assert_eq!(database.client.query(control, &[]).await?.len(), 1);
    assert_eq!(database.counted("t").await?, 0);
    Ok(())
}

#[tokio::test]
async fn case_8_a_query_makes_no_table() -> anyhow::Result<()> {
    let mut database = with!(TABLE);
    for sql in [
        "SELECT * INTO u FROM t",
        "WITH x AS (SELECT * INTO u FROM t) SELECT * FROM x",
        "SELECT * FROM (SELECT * INTO u FROM t) x",
    ] {
        let refused = database.ask_within(sql, &[], WITHOUT_ALL).await;
        ensure!(
            matches!(refused, Err(Error::Server(_))),
            "{sql}: {refused:?}"
        );
    }
    ensure!(database.counted("u").await.is_err(), "there is a table");
    let control = "SELECT * INTO u FROM t";
    database.client.batch_execute(control).await?;
    assert_eq!(database.counted("u").await?, 1);
    Ok(())
}

#[tokio::test]
async fn case_9_a_query_locks_no_row() -> anyhow::Result<()> {
    let mut database = with!(TABLE);
    for lock in ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"] {
        for sql in [
            format!("SELECT a FROM t FOR {lock}"),
            format!("SELECT * FROM (SELECT a FROM t FOR {lock}) x"),
            format!("WITH x AS (SELECT a FROM t FOR {lock}) SELECT * FROM x"),
        ] {
            database
                .is_refused(&sql, Layers::ALL, &SqlState::READ_ONLY_SQL_TRANSACTION)
                .await?;
            database.ask_within(&sql, &[], WITHOUT_ALL).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn case_10_a_table_and_values_are_queries() -> anyhow::Result<()> {
    let mut database = with!(TABLE);
    for sql in [
        "TABLE t",
        "(TABLE t)",
        "VALUES (1)",
        "WITH x AS (TABLE t) TABLE x",
    ] {
        assert_eq!(database.value(sql, &[]).await?, json!(1), "{sql}");
    }
    let both = database.ask("VALUES (2) UNION ALL TABLE t", &[]).await?;
    assert_eq!(both.rows.len(), 2);
    Ok(())
}

#[tokio::test]
async fn case_11_a_function_is_known_by_what_the_server_calls() -> anyhow::Result<()> {
    let mut database = with!(
        "CREATE FUNCTION reads(a text DEFAULT pg_read_file('PG_VERSION')) RETURNS text LANGUAGE sql AS 'SELECT $1'; \
         CREATE SCHEMA before; \
         CREATE FUNCTION before.abs(a int) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT pg_read_file(''PG_VERSION'')'"
    );
    for sql in [
        "SELECT reads()",
        "SELECT * FROM reads()",
        "SELECT before.abs(1)",
    ] {
        let refused = database.ask(sql, &[]).await;
        ensure!(
            matches!(refused, Err(Error::Function(_))),
            "{sql}: {refused:?}"
        );
        database.ask_within(sql, &[], WITHOUT_FUNCTIONS).await?;
    }
    // One that stands before the known one in the path.
    let shadowed = database.source(|settings| {
        settings.special.search_path = Some("before, pg_catalog".to_owned());
    })?;
    let refused = shadowed
        .query(Ask::new("SELECT abs(1)"), Budget::default())
        .await;
    ensure!(
        matches!(refused, Err(Error::Function(_))),
        "{:?}",
        refused.err()
    );
    assert_eq!(database.value("SELECT abs(-1)", &[]).await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn case_12_no_function_runs_a_text() -> anyhow::Result<()> {
    let mut database = with!("CREATE EXTENSION dblink; CREATE EXTENSION tablefunc");
    for sql in [
        "SELECT query_to_xml('DELETE FROM t', true, true, '')",
        "SELECT database_to_xml(true, true, '')",
        "SELECT cursor_to_xml('q', 1, true, true, '')",
        "SELECT * FROM ts_stat('SELECT $$a$$::tsvector')",
        "SELECT * FROM crosstab('SELECT 1, 2, 3') AS c(a int, b int)",
        "SELECT dblink_exec('', 'DELETE FROM t')",
        "SELECT * FROM dblink('', 'SELECT 1') AS d(a int)",
        "SELECT ts_rewrite('a'::tsquery, 'SELECT $$a$$::tsquery, $$b$$::tsquery')",
    ] {
        let refused = database.ask(sql, &[]).await;
        ensure!(
            matches!(refused, Err(Error::Function(_))),
            "{sql}: {refused:?}"
        );
    }
    let control = "SELECT count(*) FROM ts_stat('SELECT $$a$$::tsvector')";
    let ran = database.ask_within(control, &[], WITHOUT_FUNCTIONS).await?;
    assert_eq!(ran.rows.into_rows(), [[json!(1)]]);
    Ok(())
}

#[tokio::test]
async fn case_13_a_transaction_stays_as_it_was_begun() -> anyhow::Result<()> {
    let mut database = with!(TABLE);
    database.is_no_query("SET TRANSACTION READ WRITE").await?;
    database
        .is_no_query("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
        .await?;
    database
        .is_refused(
            "SELECT set_config('transaction_read_only', 'off', true)",
            WITHOUT_FUNCTIONS,
            &SqlState::ACTIVE_SQL_TRANSACTION,
        )
        .await?;
    // Without the snapshot that we take first it would be made READ WRITE.
    database
        .client
        .batch_execute(
            "BEGIN READ ONLY; SET TRANSACTION READ WRITE; INSERT INTO t VALUES (2); COMMIT",
        )
        .await?;
    assert_eq!(database.counted("t").await?, 2);
    Ok(())
}

#[tokio::test]
async fn case_14_a_timeout_that_is_set_off_is_kept_from_here() -> anyhow::Result<()> {
    let database = database!();
    let mut ask = Ask::new("SELECT set_config('statement_timeout', '0', true), pg_sleep(600)");
    ask.layers = WITHOUT_FUNCTIONS;
    ask.timeout = Duration::from_millis(200);
    let late = database.postgres.query(ask, Budget::default()).await;
    ensure!(matches!(late, Err(Error::TimedOut(_))), "{:?}", late.err());
    let next = Ask::new("SELECT current_setting('statement_timeout') <> '0'");
    let (answer, _) = database.postgres.query(next, Budget::default()).await?;
    assert_eq!(answer.rows.into_rows(), [[json!(true)]]);
    Ok(())
}

#[tokio::test]
async fn case_16_nothing_is_prepared_executed_or_forgotten() -> anyhow::Result<()> {
    let mut database = database!();
    for sql in [
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "FETCH 1 FROM q",
        "CLOSE ALL",
    ] {
        database.is_no_query(sql).await?;
    }
    Ok(())
}

#[tokio::test]
async fn case_17_nobody_is_notified() -> anyhow::Result<()> {
    let mut database = database!();
    for sql in ["NOTIFY a", "LISTEN a", "UNLISTEN *"] {
        database.is_no_query(sql).await?;
    }
    let refused = database.ask("SELECT pg_notify('a', 'b')", &[]).await;
    ensure!(matches!(refused, Err(Error::Function(_))), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn case_18_nothing_is_copied() -> anyhow::Result<()> {
    let mut database = with!(TABLE);
    for sql in [
        "COPY t TO PROGRAM 'true'",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY t TO STDOUT",
        "COPY t FROM STDIN",
        "COPY t FROM '/etc/passwd'",
    ] {
        database.is_no_query(sql).await?;
        ensure!(Change::of(sql).is_err(), "{sql} is a change");
    }
    let control = "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null'";
    database.client.batch_execute(control).await?;
    Ok(())
}

#[tokio::test]
async fn case_19_no_plan_runs_what_it_explains() -> anyhow::Result<()> {
    let mut database = with!(TABLE);
    for sql in [
        "EXPLAIN ANALYZE DELETE FROM t",
        "EXPLAIN (ANALYZE) DELETE FROM t",
        "EXPLAIN (ANALYZE, FORMAT JSON) DELETE FROM t",
        "EXPLAIN ANALYZE EXECUTE p",
        "EXPLAIN SELECT 1",
    ] {
        database.is_no_query(sql).await?;
    }
    assert_eq!(database.counted("t").await?, 1);
    let control = "EXPLAIN (ANALYZE) DELETE FROM t";
    database.client.batch_execute(control).await?;
    assert_eq!(database.counted("t").await?, 0);
    Ok(())
}

#[tokio::test]
async fn case_20_no_block_is_done_and_no_procedure_commits() -> anyhow::Result<()> {
    let mut database = with!(
        "CREATE TABLE t (a int); CREATE PROCEDURE commits() LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO t VALUES (1); COMMIT; END $$"
    );
    for sql in ["DO $$ BEGIN END $$", "CALL commits()"] {
        database.is_no_query(sql).await?;
    }
    ensure!(Change::of("DO $$ BEGIN END $$").is_err());
    let changes = Changes {
        steps: vec![(Change::of("CALL commits()")?, Vec::new())],
        is_trial: true,
        may_empty: true,
        expected: None,
        timeout: Duration::from_secs(30),
        budget: Budget::default(),
    };
    let refused = database.writing()?.execute(changes).await;
    let state = refused.as_ref().err().and_then(Error::state);
    ensure!(
        state == Some(&SqlState::INVALID_TRANSACTION_TERMINATION),
        "{refused:?}"
    );
    assert_eq!(database.counted("t").await?, 0);
    database.client.batch_execute("CALL commits()").await?;
    assert_eq!(database.counted("t").await?, 1);
    Ok(())
}

#[tokio::test]
async fn case_21_a_function_with_its_owners_rights_writes_nothing() -> anyhow::Result<()> {
    let mut database = with!(
        "CREATE TABLE t (a int); \
         CREATE FUNCTION writes() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO t VALUES (1) RETURNING a'; \
         CREATE FUNCTION claims_to_read() RETURNS int LANGUAGE plpgsql STABLE SECURITY DEFINER AS \
         $$ BEGIN INSERT INTO t VALUES (1); RETURN 1; END $$"
    );
    let refused = database.ask("SELECT writes()", &[]).await;
    ensure!(matches!(refused, Err(Error::Function(_))), "{refused:?}");
    database
        .is_refused(
            "SELECT writes()",
            WITHOUT_FUNCTIONS,
            &SqlState::READ_ONLY_SQL_TRANSACTION,
        )
        .await?;
    let lied = database.ask("SELECT claims_to_read()", &[]).await;
    ensure!(matches!(lied, Err(Error::Server(_))), "{lied:?}");
    assert_eq!(database.counted("t").await?, 0);
    let control = database.client.query("SELECT writes()", &[]).await?;
    assert_eq!((control.len(), database.counted("t").await?), (1, 1));
    Ok(())
}

#[tokio::test]
async fn case_26_a_session_serves_on_after_a_query_that_was_too_slow() -> anyhow::Result<()> {
    let single = with!("SELECT 1");
    let one = single.source(|settings| settings.limits.concurrent = 1)?;
    for _ in 0..3 {
        let mut ask = Ask::new("SELECT pg_sleep(600)");
        ask.layers = WITHOUT_FUNCTIONS;
        ask.timeout = Duration::from_millis(100);
        let late = one.query(ask, Budget::default()).await;
        ensure!(matches!(late, Err(Error::TimedOut(_))), "{:?}", late.err());
        let (answer, _) = one.query(Ask::new("SELECT 1"), Budget::default()).await?;
        assert_eq!(answer.rows.into_rows(), [[json!(1)]]);
    }
    Ok(())
}

#[tokio::test]
async fn case_27_a_backend_that_dies_within_a_page_is_an_error() -> anyhow::Result<()> {
    let database = with!("SELECT 1");
    let mut ask = Ask::new("SELECT g, pg_sleep(0.01) FROM generate_series(1, 100000) g");
    ask.layers = WITHOUT_FUNCTIONS;
    let budget = Budget {
        rows: 5000,
        bytes: 1 << 20,
    };
    let query = database.postgres.query(ask, budget);
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'mcp-database' \
                AND datname = current_database() AND state = 'active' AND query LIKE '%generate_series%'";
    let killed = database.counts(kill, |killed| killed > 0);
    let (answered, killed) = tokio::join!(query, killed);
    killed?;
    let error = answered.err().context("a dead backend answers")?;
    ensure!(!error.to_string().is_empty());
    let (answer, _) = database
        .postgres
        .query(Ask::new("SELECT 1"), Budget::default())
        .await?;
    assert_eq!(answer.rows.into_rows(), [[Value::from(1)]]);
    Ok(())
}

#[tokio::test]
async fn case_32_five_thousand_tables_are_told_in_part() -> anyhow::Result<()> {
    let database = with!(
        "DO $$ BEGIN FOR i IN 1..5000 LOOP EXECUTE format('CREATE TABLE many_%s (a int)', i); \
         IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$"
    );
    let look = schema::ask(Some("many\\_%"), Kind::Relations, Detail::Summary);
    let (answer, rest) = database.postgres.query(look, Budget::default()).await?;
    assert_eq!(answer.rows.len(), 100);
    ensure!(rest.is_some(), "the others cannot be read");
    Ok(())
}
