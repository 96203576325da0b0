//! Queries, transactions, and what the server refuses in them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mcp_database::neo4j::bolt::{
    Access, Error, Limits, Query, QueryType, TransactionOptions, Value, entry,
};

use crate::support::{
    all, code, connect, connect_with, one, query, reading, server, unique, write, writing,
};

const ACCESS_MODE: &str = "Neo.ClientError.Statement.AccessMode";

#[tokio::test]
async fn a_read_gives_fields_records_and_a_summary() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let text = "UNWIND [1, 2] AS number RETURN number, 'x' AS text";
    let (started, batch) = connection
        .run_and_pull(&query(text), &reading(), 10)
        .await?;
    assert_eq!(started.fields, ["number", "text"]);
    let expected = vec![
        vec![1.into(), "x".into()],
        vec![Value::Integer(2), "x".into()],
    ];
    assert_eq!(batch.records, expected);
    let summary = batch.summary.context("a summary")?;
    assert_eq!(summary.query_type, Some(QueryType::Read));
    assert_eq!(summary.database.as_deref(), Some("neo4j"));
    assert!(summary.available_after.is_some() && summary.consumed_after.is_some());
    assert_eq!(summary.counters, BTreeMap::new());
    assert_eq!(summary.notifications, []);
    Ok(())
}

#[tokio::test]
async fn a_write_in_read_mode_is_refused_and_leaves_nothing() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let label = unique("Refused");
    let create = format!("CREATE (:{label})");
    let count = format!("MATCH (n:{label}) RETURN count(n)");
    assert_eq!(code(all(&mut connection, &create).await)?, ACCESS_MODE);
    assert_eq!(one(&mut connection, &count).await?, Value::Integer(0));

    connection.begin(&reading()).await?;
    assert_eq!(code(all(&mut connection, &create).await)?, ACCESS_MODE);
    connection.rollback().await?;
    // RUN inside a transaction cannot widen its access.
    connection.begin(&reading()).await?;
    assert_eq!(code(write(&mut connection, &create).await)?, ACCESS_MODE);
    assert!(matches!(connection.commit().await, Err(Error::State(_))));
    connection.rollback().await?;
    assert_eq!(one(&mut connection, &count).await?, Value::Integer(0));

    // The same statement works in write mode, so that it was the mode that refused it.
    write(&mut connection, &create).await?;
    assert_eq!(one(&mut connection, &count).await?, Value::Integer(1));
    write(&mut connection, &format!("MATCH (n:{label}) DELETE n")).await?;
    Ok(())
}

#[tokio::test]
async fn explain_tells_the_type_without_running() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let label = unique("Explained");
    for (text, expected) in [
        ("RETURN 1".to_owned(), QueryType::Read),
        (format!("CREATE (:{label})"), QueryType::Write),
        (format!("CREATE (n:{label}) RETURN n"), QueryType::ReadWrite),
        (
            format!("CREATE INDEX {label} FOR (n:{label}) ON (n.id)"),
            QueryType::Schema,
        ),
        ("SHOW USERS".to_owned(), QueryType::Schema),
        (
            "LOAD CSV FROM 'file:///x' AS row RETURN row".to_owned(),
            QueryType::Read,
        ),
    ] {
        let batch = all(&mut connection, &format!("EXPLAIN {text}")).await?;
        assert_eq!(batch.records, Vec::<Vec<Value>>::new(), "{text}");
        let summary = batch.summary.context("a summary")?;
        assert_eq!(summary.query_type, Some(expected), "{text}");
        assert!(summary.plan.is_some() || text.starts_with("SHOW"), "{text}");
    }
    let count = format!("MATCH (n:{label}) RETURN count(n)");
    assert_eq!(one(&mut connection, &count).await?, Value::Integer(0));
    let profiled = all(&mut connection, "PROFILE RETURN 1")
        .await?
        .summary
        .context("a summary")?;
    assert!(profiled.profile.is_some() && profiled.plan.is_none());
    Ok(())
}

#[tokio::test]
async fn a_hint_about_the_query_arrives() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let batch = all(&mut connection, "EXPLAIN MATCH (a:Aa), (b:Bb) RETURN a, b").await?;
    let notifications = batch.summary.context("a summary")?.notifications;
    let cartesian = "Neo.ClientNotification.Statement.CartesianProduct";
    let found = notifications
        .iter()
        .find(|notification| notification.code == cartesian);
    let found = found.with_context(|| format!("{notifications:?}"))?;
    assert_eq!(found.severity, "INFORMATION");
    assert!(found.title.contains("cartesian") && found.description.contains("cartesian"));
    Ok(())
}

#[tokio::test]
async fn a_thousand_rows_are_written_in_one_batch_and_counted() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let label = unique("Batch");
    let rows: Vec<Value> = (0..1000)
        .map(|number| Value::Map(vec![entry("id", number), entry("name", "n".repeat(100))]))
        .collect();
    let upsert = Query {
        text: format!("UNWIND $rows AS row CREATE (n:{label}) SET n = row"),
        parameters: vec![entry("rows", Value::List(rows))],
    };
    let (_, batch) = connection.run_and_pull(&upsert, &writing(), 1).await?;
    let summary = batch.summary.context("a summary")?;
    let counters = [
        ("labels-added", 1000),
        ("nodes-created", 1000),
        ("properties-set", 2000),
    ];
    let counters = counters.map(|(name, count)| (name.to_owned(), count));
    assert_eq!(summary.counters, BTreeMap::from(counters));
    assert_eq!(summary.query_type, Some(QueryType::Write));
    let deleted = write(&mut connection, &format!("MATCH (n:{label}) DELETE n")).await?;
    let counters = deleted.summary.context("a summary")?.counters;
    assert_eq!(
        counters,
        BTreeMap::from([("nodes-deleted".to_owned(), 1000)])
    );
    Ok(())
}

#[tokio::test]
async fn after_a_failure_the_next_query_works() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    for _ in 0..3 {
        let syntax = code(all(&mut connection, "RETRN 1").await)?;
        assert_eq!(syntax, "Neo.ClientError.Statement.SyntaxError");
        let late = code(all(&mut connection, "UNWIND [1, 0] AS n RETURN 1 / n").await)?;
        assert_eq!(late, "Neo.ClientError.Statement.ArithmeticError");
        assert_eq!(one(&mut connection, "RETURN 1").await?, Value::Integer(1));
    }
    Ok(())
}

#[tokio::test]
async fn a_failed_transaction_must_be_rolled_back_and_loses_everything() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let label = unique("Failed");
    connection.begin(&writing()).await?;
    write(&mut connection, &format!("CREATE (:{label})")).await?;
    code(write(&mut connection, "RETRN 1").await)?;
    // Were this to run, it would be committed on its own.
    let next = write(&mut connection, &format!("CREATE (:{label})")).await;
    assert!(matches!(next, Err(Error::State(_))), "{next:?}");
    connection.rollback().await?;
    let count = format!("MATCH (n:{label}) RETURN count(n)");
    assert_eq!(one(&mut connection, &count).await?, Value::Integer(0));
    Ok(())
}

#[tokio::test]
async fn commit_keeps_and_rollback_forgets() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let label = unique("Kept");
    let create = format!("CREATE (:{label})");
    let count = format!("MATCH (n:{label}) RETURN count(n)");
    for (commit, expected) in [(false, 0), (true, 1)] {
        connection.begin(&writing()).await?;
        write(&mut connection, &create).await?;
        if commit {
            connection.commit().await?;
        } else {
            connection.rollback().await?;
        }
        assert_eq!(
            one(&mut connection, &count).await?,
            Value::Integer(expected)
        );
    }
    write(&mut connection, &format!("MATCH (n:{label}) DELETE n")).await?;
    Ok(())
}

#[tokio::test]
async fn the_time_limit_of_a_transaction_is_kept() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let slow = "UNWIND range(1, 1000000000) AS n WITH n WHERE n < 0 RETURN n";
    let limit = Duration::from_millis(300);
    let options = TransactionOptions {
        timeout: Some(limit),
        ..reading()
    };
    let expected = "Neo.ClientError.Transaction.TransactionTimedOutClientConfiguration";

    let start = Instant::now();
    assert_eq!(
        code(connection.run_and_pull(&query(slow), &options, 1).await)?,
        expected
    );
    assert!(start.elapsed() >= limit, "{:?}", start.elapsed());

    connection.begin(&options).await?;
    assert_eq!(
        code(connection.run_and_pull(&query(slow), &reading(), 1).await)?,
        expected
    );
    connection.rollback().await?;
    assert_eq!(one(&mut connection, "RETURN 1").await?, Value::Integer(1));
    Ok(())
}

#[tokio::test]
async fn a_result_stays_open_between_pulls() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let numbers = |from: i64, to: i64| (from..=to).map(|n| vec![n.into()]).collect::<Vec<_>>();
    let text = "UNWIND range(1, 10) AS n RETURN n";
    let (_, first) = connection.run_and_pull(&query(text), &reading(), 4).await?;
    assert_eq!((first.records, first.summary), (numbers(1, 4), None));
    assert!(connection.has_open_result());
    assert!(matches!(
        all(&mut connection, "RETURN 1").await,
        Err(Error::State(_))
    ));
    assert_eq!(connection.pull(4).await?.records, numbers(5, 8));
    let last = connection.pull(4).await?;
    assert_eq!(last.records, numbers(9, 10));
    assert!(last.summary.is_some() && !connection.has_open_result());
    assert!(matches!(connection.pull(1).await, Err(Error::State(_))));

    // Exactly as many as there are: the server already knows that it has no more.
    let (_, exact) = connection
        .run_and_pull(&query(text), &reading(), 10)
        .await?;
    assert!(exact.summary.is_some());

    let billion = "UNWIND range(1, 1000000000) AS n RETURN n";
    connection.run(&query(billion), &reading()).await?;
    assert_eq!(connection.pull(2).await?.records, numbers(1, 2));
    connection.reset().await?;
    connection.run(&query(text), &reading()).await?;
    let summary = connection.discard().await?;
    assert_eq!(summary.query_type, Some(QueryType::Read));
    assert_eq!(one(&mut connection, "RETURN 1").await?, Value::Integer(1));
    Ok(())
}

#[tokio::test]
async fn an_unknown_database_is_refused() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let database = Some("nowhere".to_owned());
    let options = TransactionOptions {
        database,
        ..reading()
    };
    let expected = "Neo.ClientError.Database.DatabaseNotFound";
    let outcome = connection
        .run_and_pull(&query("RETURN 1"), &options, 1)
        .await;
    assert_eq!(code(outcome)?, expected);
    assert_eq!(code(connection.begin(&options).await)?, expected);
    let system = TransactionOptions {
        database: Some("system".to_owned()),
        ..reading()
    };
    let (_, batch) = connection
        .run_and_pull(&query("SHOW USERS"), &system, 10)
        .await?;
    assert_eq!(
        batch
            .summary
            .and_then(|summary| summary.database)
            .as_deref(),
        Some("system")
    );
    Ok(())
}

#[tokio::test]
async fn a_reply_is_bounded_in_memory() -> Result<()> {
    let endpoint = server!();
    let limits = Limits {
        max_batch_bytes: 1_000_000,
        max_message_bytes: 1_000_000,
    };
    let mut connection = connect_with(&endpoint, limits).await?;
    // Small integers: a byte each on the wire, and much more in memory.
    let many = all(&mut connection, "UNWIND range(1, 90000) AS n RETURN 1").await;
    assert!(
        matches!(many, Err(Error::TooLarge { .. })),
        "{:?}",
        many.map(|b| b.records.len())
    );
    let list = all(&mut connection, "RETURN [n IN range(1, 90000) | 1]").await;
    assert!(matches!(list, Err(Error::TooLarge { .. })));
    assert_eq!(one(&mut connection, "RETURN 1").await?, Value::Integer(1));
    let wide = all(&mut connection, "RETURN [n IN range(1, 300000) | 1000000]").await;
    assert!(matches!(wide, Err(Error::TooLarge { .. })));
    assert!(connection.is_closed());
    assert!(matches!(
        all(&mut connection, "RETURN 1").await,
        Err(Error::State(_))
    ));
    Ok(())
}

#[tokio::test]
async fn what_is_discarded_has_been_written_all_the_same() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let label = unique("Discarded");
    let create = format!("UNWIND range(1, 5000) AS n CREATE (m:{label}) RETURN m");
    connection.run(&query(&create), &writing()).await?;
    assert_eq!(
        connection.discard().await?.counters.get("nodes-created"),
        Some(&5000)
    );
    connection.run(&query(&create), &writing()).await?;
    assert_eq!(connection.pull(10).await?.records.len(), 10);
    connection.discard().await?;
    let count = format!("MATCH (m:{label}) RETURN count(m)");
    assert_eq!(one(&mut connection, &count).await?, Value::Integer(10_000));
    write(&mut connection, &format!("MATCH (m:{label}) DELETE m")).await?;
    Ok(())
}

#[tokio::test]
async fn access_is_reading_unless_asked_otherwise() {
    assert_eq!(TransactionOptions::default().access, Access::Read);
}
