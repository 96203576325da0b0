//! Changes: all or none, tried or made, counted, and only where they are meant.

use std::time::Duration;

use anyhow::ensure;
use mcp_database::postgres::Error;
use mcp_database::postgres::change::Change;
use mcp_database::postgres::execute::Changes;
use mcp_database::source::Mode;
use mcp_database::table::Budget;
use serde_json::{Value, json};

use crate::database::Database;
use crate::reads::database;

fn changes(steps: &[(&str, &[Value])]) -> anyhow::Result<Changes> {
    let steps = steps
        .iter()
        .map(|(sql, values)| Ok((Change::of(sql)?, values.to_vec())));
    Ok(Changes {
        steps: steps.collect::<anyhow::Result<_>>()?,
        is_trial: false,
        may_empty: true,
        expected: None,
        timeout: Duration::from_secs(30),
        budget: Budget::default(),
    })
}

#[tokio::test]
async fn changes_are_made_together_or_not_at_all() -> anyhow::Result<()> {
    let mut database = database!();
    let writing = database.source(|settings| settings.mode = Mode::Write)?;
    let made = writing
        .execute(changes(&[
            (
                "CREATE TABLE t (a int PRIMARY KEY, at timestamptz DEFAULT 'infinity')",
                &[],
            ),
            (
                "INSERT INTO t SELECT * FROM generate_series(1, $1::int)",
                &[json!(5)],
            ),
            ("DELETE FROM t WHERE a > $1 RETURNING a, at", &[json!(3)]),
        ])?)
        .await?;
    assert_eq!(made.affected, [0, 5, 2]);
    assert_eq!(
        made.returned.rows.into_rows(),
        [[json!(4), json!("infinity")], [json!(5), json!("infinity")]]
    );
    let half = changes(&[
        ("DELETE FROM t WHERE a = 1", &[]),
        ("INSERT INTO t VALUES (2)", &[]),
    ])?;
    let failed = writing.execute(half).await;
    ensure!(matches!(failed, Err(Error::Server(_))), "{failed:?}");
    assert_eq!(
        database.value("SELECT count(*) FROM t", &[]).await?,
        json!(3)
    );
    Ok(())
}

#[tokio::test]
async fn a_trial_and_an_unexpected_count_change_nothing() -> anyhow::Result<()> {
    let mut database = database!();
    let writing = database.source(|settings| settings.mode = Mode::Write)?;
    let table = "CREATE TABLE t AS SELECT generate_series(1, 4) AS a";
    database.client.batch_execute(table).await?;
    let all = changes(&[("DELETE FROM t", &[])])?;
    let trial = Changes {
        is_trial: true,
        ..all.clone()
    };
    assert_eq!(writing.execute(trial).await?.total(), 4);
    let expecting = Changes {
        expected: Some(3),
        ..all.clone()
    };
    let refused = writing.execute(expecting).await;
    ensure!(
        matches!(
            refused,
            Err(Error::Unexpected {
                affected: 4,
                expected: 3
            })
        ),
        "{refused:?}"
    );
    assert_eq!(
        database.value("SELECT count(*) FROM t", &[]).await?,
        json!(4)
    );
    // The positive control.
    assert_eq!(writing.execute(all).await?.total(), 4);
    assert_eq!(
        database.value("SELECT count(*) FROM t", &[]).await?,
        json!(0)
    );
    Ok(())
}

#[tokio::test]
async fn a_source_that_only_reads_changes_nothing() -> anyhow::Result<()> {
    let database = database!();
    let refused = database
        .postgres
        .execute(changes(&[("CREATE TABLE t (a int)", &[])])?)
        .await;
    ensure!(matches!(refused, Err(Error::ReadOnly(_))), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_change_calls_no_function_that_reaches_out_of_the_database() -> anyhow::Result<()> {
    let database = database!();
    let writing = database.source(|settings| settings.mode = Mode::Write)?;
    let setup = "CREATE SEQUENCE s; CREATE TABLE t (a text); \
                 CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING 1'";
    database.client.batch_execute(setup).await?;
    for sql in [
        "INSERT INTO t SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_terminate_backend(0)",
        "SELECT setval('s', 5000)",
        "UPDATE t SET a = query_to_xml('select 1', true, true, '')::text WHERE true",
        "SELECT set_config('statement_timeout', '0', false)",
    ] {
        let refused = writing.execute(changes(&[(sql, &[])])?).await;
        ensure!(
            matches!(refused, Err(Error::Function(_))),
            "{sql}: {refused:?}"
        );
    }
    let fine = changes(&[
        ("SELECT writes()", &[]),
        ("INSERT INTO t VALUES (nextval('s'))", &[]),
    ])?;
    writing.execute(fine).await?;
    Ok(())
}

#[tokio::test]
async fn a_change_counts_all_that_it_touches() -> anyhow::Result<()> {
    let database = database!();
    let writing = database.source(|settings| settings.mode = Mode::Write)?;
    database
        .client
        .batch_execute(
            "CREATE TABLE parent (a int PRIMARY KEY); CREATE TABLE child (a int REFERENCES parent ON DELETE CASCADE); \
             INSERT INTO parent SELECT generate_series(1, 5); INSERT INTO child SELECT 1 + g % 5 FROM generate_series(1, 20) g; \
             CREATE FUNCTION empties() RETURNS void LANGUAGE sql AS 'DELETE FROM child'; \
             CREATE FUNCTION wipes() RETURNS void LANGUAGE plpgsql AS $$ BEGIN TRUNCATE child; END $$",
        )
        .await?;
    for (sql, touched) in [
        ("WITH d AS (DELETE FROM child RETURNING a) SELECT 1", 20),
        ("SELECT empties()", 20),
        ("DELETE FROM parent", 25),
        ("TRUNCATE child", 20),
        ("TRUNCATE parent, child", 25),
        ("TRUNCATE parent CASCADE", 25),
        ("DROP TABLE parent CASCADE", 5),
        ("DROP SCHEMA public CASCADE", 25),
        ("DROP FUNCTION empties", 0),
        ("ALTER TABLE child DROP COLUMN a", 20),
        ("ALTER TABLE child ALTER COLUMN a TYPE bigint", 20),
        ("ALTER TABLE child ADD COLUMN b int", 0),
        ("SELECT wipes()", 20),
        (
            "WITH d AS (DELETE FROM child RETURNING a) SELECT a FROM d",
            20,
        ),
    ] {
        let trial = Changes {
            is_trial: true,
            ..changes(&[(sql, &[])])?
        };
        assert_eq!(writing.execute(trial).await?.total(), touched, "{sql}");
    }
    Ok(())
}

#[tokio::test]
async fn a_trial_sees_what_is_checked_at_the_end() -> anyhow::Result<()> {
    let database = database!();
    let writing = database.source(|settings| settings.mode = Mode::Write)?;
    database
        .client
        .batch_execute(
            "CREATE TABLE parent (a int PRIMARY KEY); \
             CREATE TABLE child (a int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
        )
        .await?;
    let trial = Changes {
        is_trial: true,
        ..changes(&[("INSERT INTO child VALUES (999)", &[])])?
    };
    let refused = writing.execute(trial).await;
    ensure!(matches!(refused, Err(Error::Server(_))), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_query_behind_with_is_read_as_a_query() -> anyhow::Result<()> {
    let database = database!();
    let writing = database.source(|settings| settings.mode = Mode::Write)?;
    let query = changes(&[(
        "WITH d AS (SELECT 1 AS id) SELECT id, 'pg_class'::regclass AS k, point(1, 2) AS p FROM d",
        &[],
    )])?;
    let executed = writing.execute(query).await?;
    assert_eq!(executed.total(), 0);
    let rows = executed.returned.rows.into_rows();
    assert_eq!(rows, [[json!(1), json!("pg_class"), json!("(1,2)")]]);
    database
        .client
        .batch_execute("CREATE TABLE t AS SELECT 1 AS id, 'pg_class'::regclass AS k")
        .await?;
    let within = "WITH d AS (UPDATE t SET id = 2 RETURNING *) SELECT id, k FROM d";
    let refused = writing.execute(changes(&[(within, &[])])?).await;
    let told = refused.err().map(|error| error.to_string());
    ensure!(
        told.as_ref()
            .is_some_and(|told| told.contains("columns k cannot")),
        "{told:?}"
    );
    Ok(())
}

#[tokio::test]
async fn what_a_function_leaves_in_its_session_is_nobody_elses() -> anyhow::Result<()> {
    let database = database!();
    let writing = database.source(|settings| settings.mode = Mode::Write)?;
    database
        .client
        .batch_execute(
            "DROP ROLE IF EXISTS another; CREATE ROLE another; CREATE FUNCTION turns() RETURNS void LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM set_config('role', 'another', false); \
             FOR i IN 0..50 LOOP EXECUTE format('PREPARE left_%s AS SELECT 1', i); END LOOP; END $$",
        )
        .await?;
    for _ in 0..3 {
        writing
            .execute(changes(&[("SELECT turns()", &[])])?)
            .await?;
        let who = changes(&[(
            "SELECT current_user::text, (SELECT count(*) FROM pg_prepared_statements WHERE name ~ '^left')",
            &[],
        )])?;
        let rows = writing.execute(who).await?.returned.rows.into_rows();
        assert_eq!(rows, [[json!("postgres"), json!(0)]]);
    }
    database.client.batch_execute("DROP ROLE another").await?;
    Ok(())
}
