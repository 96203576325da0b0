//! Results that do not fit one reply, statements that do not end, connections that break.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use mcp_database::postgres::Error;
use mcp_database::postgres::read::{Ask, Layers};
use mcp_database::source::Settings;
use mcp_database::table::{Budget, Truncation};
use serde_json::{Value, json};

use crate::database::Database;
use crate::reads::database;

const SMALL: Budget = Budget {
    rows: 3,
    bytes: 64 * 1024,
};

/// A query that runs for minutes if nobody ends it, and can be found by its mark.
fn endless(mark: &str) -> Ask {
    Ask {
        // Sleeping is what the gate over functions is there for.
        layers: Layers {
            functions: false,
            ..Layers::ALL
        },
        ..Ask::new(format!("SELECT '{mark}', pg_sleep(600)"))
    }
}

impl Database {
    /// Waits until as many statements with the mark run as are wanted.
    async fn running(&self, mark: &str, wanted: i64) -> anyhow::Result<()> {
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%{mark}%'"
        );
        self.counts(&count, |count| count == wanted).await
    }
}

#[tokio::test]
async fn pages_put_together_are_the_whole_result() -> anyhow::Result<()> {
    let database = database!();
    let ask = Ask::new("SELECT g, repeat('x', 1900) FROM generate_series(1, 1200) g");
    for budget in [
        Budget {
            rows: 700,
            bytes: 1 << 20,
        },
        Budget {
            rows: 1000,
            bytes: 20_000,
        },
    ] {
        let (answer, mut rest) = database.postgres.query(ask.clone(), budget).await?;
        let mut goes_on = answer.rows.goes_on();
        let mut all = answer.rows.into_rows();
        while goes_on {
            let rest = rest.as_mut().context("nothing is left")?;
            let answer = rest.next(budget).await?;
            goes_on = answer.rows.goes_on();
            ensure!(answer.rows.len() <= budget.rows);
            all.extend(answer.rows.into_rows());
        }
        let numbers: Vec<Value> = all.into_iter().map(|mut row| row.swap_remove(0)).collect();
        let expected: Vec<Value> = (1..=1200).map(|number| json!(number)).collect();
        ensure!(numbers == expected, "{} rows", numbers.len());
    }
    Ok(())
}

#[tokio::test]
async fn an_open_result_sees_nothing_that_came_later() -> anyhow::Result<()> {
    let database = database!();
    database
        .client
        .batch_execute("CREATE TABLE t AS SELECT generate_series(1, 6) AS a")
        .await?;
    let (first, rest) = database.postgres.query(Ask::new("TABLE t"), SMALL).await?;
    assert_eq!(first.rows.truncated(), Some(Truncation::Rows));
    database.client.batch_execute("DELETE FROM t").await?;
    let second = rest.context("nothing is left")?.next(SMALL).await?;
    assert_eq!(second.rows.truncated(), None);
    assert_eq!(
        second.rows.into_rows(),
        [[json!(4)], [json!(5)], [json!(6)]]
    );
    Ok(())
}

#[tokio::test]
async fn case_26_a_query_that_nobody_waits_for_ends_at_the_server() -> anyhow::Result<()> {
    let database = database!();
    let mark = "nobody waits";
    let query = database.postgres.query(endless(mark), SMALL);
    let started = async { database.running(mark, 1).await };
    tokio::select! {
        answered = query => bail!("answered: {:?}", answered.map(|(answer, _)| answer)),
        started = started => started?,
    }
    database.running(mark, 0).await?;
    let (answer, _) = database.postgres.query(Ask::new("SELECT 1"), SMALL).await?;
    assert_eq!(answer.rows.into_rows(), [[json!(1)]]);
    Ok(())
}

#[tokio::test]
async fn case_26_a_query_that_comes_behind_its_cancelling_ends_at_the_server() -> anyhow::Result<()>
{
    let database = database!();
    let late = "SELECT g, CASE WHEN g > 4 THEN pg_sleep(600) END FROM generate_series(1, 9) g";
    let ask = Ask {
        layers: endless("").layers,
        ..Ask::new(late)
    };
    let (_, rest) = database.postgres.query(ask, SMALL).await?;
    let mut rest = rest.context("nothing is left")?;
    let ours = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'mcp-database'";
    let pid = format!("SELECT pid {ours}");
    let row = database.client.query_one(&pid, &[]).await?;
    let backend: i32 = row.try_get(0)?;
    let signal = |name: &str| -> anyhow::Result<()> {
        let sent = Command::new("kill")
            .args(["-s", name, &backend.to_string()])
            .status()?;
        ensure!(sent.success(), "no {name} for the backend");
        Ok(())
    };
    // While it stands still, what it is asked waits on the line, and the cancelling as a signal.
    signal("STOP")?;
    let given_up = tokio::time::timeout(Duration::from_millis(10), rest.next(SMALL)).await;
    ensure!(given_up.is_err(), "it answers while it stands still");
    drop(rest);
    let is_told = async {
        // The bit of SIGINT.
        while pending(backend)?.is_none_or(|signals| signals & 2 == 0) {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), is_told).await??;
    signal("CONT")?;
    database
        .counts(&format!("SELECT count(*) {ours}"), |left| left == 0)
        .await
}

/// The signals that wait for a process.
fn pending(process: i32) -> anyhow::Result<Option<u64>> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    Ok(line
        .map(|signals| u64::from_str_radix(signals.trim(), 16))
        .transpose()?)
}

#[tokio::test]
async fn case_26_a_query_that_takes_too_long_ends_at_the_server() -> anyhow::Result<()> {
    let database = database!();
    let mark = "too long";
    let ask = Ask {
        timeout: Duration::from_millis(200),
        ..endless(mark)
    };
    let late = database.postgres.query(ask, SMALL).await;
    ensure!(matches!(late, Err(Error::TimedOut(_))), "{:?}", late.err());
    database.running(mark, 0).await?;
    // What a statement sets for itself to get around it is gone with the gate over functions on.
    let around = "SELECT set_config('statement_timeout', '0', false)";
    let refused = database.postgres.query(Ask::new(around), SMALL).await;
    ensure!(
        matches!(refused, Err(Error::Function(_))),
        "{:?}",
        refused.err()
    );
    Ok(())
}

#[tokio::test]
async fn rows_that_came_before_the_time_was_over_are_told() -> anyhow::Result<()> {
    let database = database!();
    let slow = "SELECT a FROM (VALUES (1), (2), (3)) t(a) WHERE a < 3 OR pg_sleep(600) IS NULL";
    let ask = Ask {
        timeout: Duration::from_millis(200),
        layers: endless("").layers,
        ..Ask::new(slow)
    };
    let (answer, rest) = database.postgres.query(ask, Budget::default()).await?;
    assert!(rest.is_none());
    assert_eq!(answer.rows.truncated(), Some(Truncation::Time));
    assert_eq!(answer.rows.into_rows(), [[json!(1)], [json!(2)]]);
    Ok(())
}

#[tokio::test]
async fn case_15_what_a_statement_leaves_in_its_session_is_gone_for_the_next() -> anyhow::Result<()>
{
    let database = database!();
    let leaves = Ask {
        layers: endless("").layers,
        ..Ask::new("SELECT pg_advisory_lock(42), set_config('search_path', 'nowhere', false)")
    };
    let single = Budget { rows: 1, ..SMALL };
    database.postgres.query(leaves, single).await?;
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42";
    database.counts(held, |locks| locks == 0).await?;
    let path = Ask::new("SELECT current_setting('search_path')");
    let (answer, _) = database.postgres.query(path, single).await?;
    assert_eq!(answer.rows.into_rows(), [[json!("\"$user\", public")]]);
    Ok(())
}

#[tokio::test]
async fn case_27_a_killed_backend_is_an_error_and_the_next_call_works() -> anyhow::Result<()> {
    let database = database!();
    let (_, rest) = database
        .postgres
        .query(Ask::new("SELECT generate_series(1, 100)"), SMALL)
        .await?;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'mcp-database' \
                AND datname = current_database()";
    database.client.query_one(kill, &[]).await?;
    let gone = rest.context("nothing is left")?.next(SMALL).await;
    ensure!(gone.is_err(), "rows of a dead backend");
    for _ in 0..3 {
        if database
            .postgres
            .query(Ask::new("SELECT 1"), SMALL)
            .await
            .is_ok()
        {
            return Ok(());
        }
    }
    bail!("no call works after a backend was killed")
}

#[tokio::test]
async fn a_superuser_is_not_served_where_only_reading_is_meant() -> anyhow::Result<()> {
    let database = database!();
    let strict = database.source(|settings| settings.special.allow_superuser = false)?;
    let refused = strict.query(Ask::new("SELECT 1"), SMALL).await;
    ensure!(
        matches!(refused, Err(Error::TooPowerful(_))),
        "{:?}",
        refused.err()
    );
    ensure!(matches!(strict.admits().await, Err(Error::TooPowerful(_))));
    database.postgres.admits().await?;
    let mut plain = database.settings.clone();
    plain.url.push_str("?sslmode=require");
    let refused = mcp_database::postgres::Postgres::open(Arc::new(plain)).err();
    ensure!(
        refused
            .as_ref()
            .is_some_and(|error| error.to_string().contains("sslmode")),
        "{refused:?}"
    );
    let posture = database.postgres.posture().await?;
    ensure!(
        posture
            .findings
            .iter()
            .any(|finding| finding.finding.contains("superuser"))
    );
    Ok(())
}

#[tokio::test]
async fn case_73_no_error_has_a_credential_in_it() -> anyhow::Result<()> {
    let database = database!();
    let secret = "hunter2-not-to-be-seen";
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("password");
    std::fs::write(&file, secret)?;
    let wrong = |settings: &mut Settings| {
        settings.password = Some(mcp_database::source::Password::File(file.clone()));
    };
    let mut errors = Vec::new();
    let denied = database.source(wrong)?;
    errors.push(denied.query(Ask::new("SELECT 1"), SMALL).await.err());
    let nowhere = database.source(|settings| {
        wrong(settings);
        settings.url = "postgres://postgres@127.0.0.1:1/x".to_owned();
    })?;
    errors.push(nowhere.query(Ask::new("SELECT 1"), SMALL).await.err());
    for error in errors {
        let error = error.context("it connects with a wrong password")?;
        let told = format!("{error} {error:?}");
        ensure!(!told.contains(secret), "{told}");
    }
    let mut settings = database.settings.clone();
    settings.url = format!("postgres://postgres:{secret}@127.0.0.1/x");
    let refused = mcp_database::postgres::Postgres::open(Arc::new(settings));
    let told = refused
        .err()
        .context("a password in the url is taken")?
        .to_string();
    ensure!(
        !told.contains(secret) && told.contains("password_file"),
        "{told}"
    );
    Ok(())
}
