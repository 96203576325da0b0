//! What is cancelled ends on the server.

use std::time::Duration;

use anyhow::Result;
use mcp_database::neo4j::bolt::{Connection, TransactionOptions, Value, entry, terminate_tagged};

use crate::support::{
    code, connect, one, query, reading, running, server, unique, wait_until_running,
};

/// Busy for much longer than a test waits for its end, and gives no record meanwhile.
const SLOW: &str = "UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b \
    WITH a, b WHERE a * b < 0 RETURN a";
/// The same, and gives records faster than anybody reads them.
const FLOOD: &str = "UNWIND range(1, 1000000000) AS n RETURN n, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'";
fn tagged(tag: &str) -> TransactionOptions {
    TransactionOptions {
        metadata: vec![entry("tag", tag)],
        ..reading()
    }
}

/// Starts the query and gives up waiting for it once the server is at work.
async fn abandon(
    busy: &mut Connection,
    observer: &mut Connection,
    text: &str,
    tag: &str,
) -> Result<()> {
    let (query, options) = (query(text), tagged(tag));
    tokio::select! {
        outcome = busy.run_and_pull(&query, &options, u32::MAX) => anyhow::bail!("{outcome:?}"),
        at_work = wait_until_running(observer, tag, 1) => { at_work?; }
    }
    tokio::time::timeout(Duration::from_millis(300), busy_for_a_while(observer, tag))
        .await
        .unwrap_or(Ok(()))
}

async fn busy_for_a_while(observer: &mut Connection, tag: &str) -> Result<()> {
    loop {
        anyhow::ensure!(
            running(observer, tag).await? == 1,
            "the query ended by itself"
        );
    }
}

#[tokio::test]
async fn a_reset_stops_a_running_query() -> Result<()> {
    let endpoint = server!();
    let (mut busy, mut observer) = (connect(&endpoint).await?, connect(&endpoint).await?);
    for text in [SLOW, FLOOD] {
        let tag = unique("reset");
        abandon(&mut busy, &mut observer, text, &tag).await?;
        busy.reset().await?;
        wait_until_running(&mut observer, &tag, 0).await?;
        assert_eq!(one(&mut busy, "RETURN 1").await?, Value::Integer(1));
    }
    Ok(())
}

#[tokio::test]
async fn the_next_query_stops_the_one_before() -> Result<()> {
    let endpoint = server!();
    let (mut busy, mut observer) = (connect(&endpoint).await?, connect(&endpoint).await?);
    let tag = unique("next");
    abandon(&mut busy, &mut observer, SLOW, &tag).await?;
    assert_eq!(one(&mut busy, "RETURN 1").await?, Value::Integer(1));
    assert_eq!(running(&mut observer, &tag).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_reset_within_a_transaction_rolls_it_back() -> Result<()> {
    let endpoint = server!();
    let (mut busy, mut observer) = (connect(&endpoint).await?, connect(&endpoint).await?);
    let tag = unique("transaction");
    busy.begin(&tagged(&tag)).await?;
    abandon(&mut busy, &mut observer, SLOW, &tag).await?;
    busy.rollback().await?;
    wait_until_running(&mut observer, &tag, 0).await?;
    assert_eq!(one(&mut busy, "RETURN 1").await?, Value::Integer(1));
    Ok(())
}

#[tokio::test]
async fn a_tagged_query_is_terminated_from_another_connection() -> Result<()> {
    let endpoint = server!();
    let (mut busy, mut observer) = (connect(&endpoint).await?, connect(&endpoint).await?);
    let (tag, bystander) = (unique("terminate"), unique("bystander"));
    let mut other = connect(&endpoint).await?;
    abandon(&mut other, &mut observer, SLOW, &bystander).await?;
    let victim = tokio::spawn({
        let options = tagged(&tag);
        async move { busy.run_and_pull(&query(SLOW), &options, 1).await }
    });
    wait_until_running(&mut observer, &tag, 1).await?;
    assert_eq!(terminate_tagged(&mut observer, "tag", &tag).await?, 1);
    assert_eq!(
        code(victim.await?)?,
        "Neo.ClientError.Transaction.Terminated"
    );
    wait_until_running(&mut observer, &tag, 0).await?;
    assert_eq!(running(&mut observer, &bystander).await?, 1);
    assert_eq!(
        terminate_tagged(&mut observer, "tag", "no-such-tag").await?,
        0
    );
    other.reset().await?;
    Ok(())
}

#[tokio::test]
async fn a_dropped_connection_takes_its_query_along() -> Result<()> {
    let endpoint = server!();
    let mut observer = connect(&endpoint).await?;
    for text in [SLOW, FLOOD] {
        let (mut busy, tag) = (connect(&endpoint).await?, unique("drop"));
        abandon(&mut busy, &mut observer, text, &tag).await?;
        drop(busy);
        wait_until_running(&mut observer, &tag, 0).await?;
    }
    Ok(())
}
