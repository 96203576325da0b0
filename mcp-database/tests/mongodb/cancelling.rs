//! What is given up ends at the server, in its own session and no other; the server is in this process, as neither stand-in shows it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bson::{Document, doc};
use mcp_database::mongodb::read::{Layers, Operation, Request};
use mcp_database::table::Budget;
use serde_json::json;

use crate::support::PATIENCE;
use crate::wire::{Recorded, Reply, batch};

fn request(coll: &str) -> Request {
    Request {
        db: "d".to_owned(),
        coll: coll.to_owned(),
        ..Request::default()
    }
}

fn session(command: &Document) -> Result<Document> {
    Ok(command.get_document("lsid").context("no session")?.clone())
}

/// The sessions that were to be killed.
fn killed(commands: &[Document]) -> Vec<Document> {
    let sessions = commands
        .iter()
        .filter_map(|command| command.get_array("killSessions").ok());
    sessions
        .flatten()
        .filter_map(|one| one.as_document().cloned())
        .collect()
}

#[tokio::test]
async fn a_dropped_read_ends_in_its_own_session() -> Result<()> {
    let server = Recorded::start(|name, command| match (name, command.get_str("find")) {
        ("find", Ok("slow")) => Reply::Silence,
        ("find", _) => batch(&[doc! { "a": 1 }], 0),
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    let (slow, quick) = (request("slow"), request("quick"));
    let read = |request| {
        source.read(
            Operation::Find,
            request,
            Budget::default(),
            PATIENCE,
            Layers::ALL,
        )
    };
    tokio::select! {
        _ = read(&slow) => anyhow::bail!("it was answered"),
        asked = server.wait_for("find", 1) => { asked?; }
    }
    read(&quick).await?;
    let asked = server.asked("find");
    let given_up = session(asked.first().context("no find")?)?;
    let kills = server.wait_for("killSessions", 1).await?;
    assert_eq!(killed(&kills), std::slice::from_ref(&given_up));
    // While it was killed, its session was nobody else's.
    assert_ne!(session(asked.last().context("no find")?)?, given_up);
    Ok(())
}

#[tokio::test]
async fn a_read_that_is_out_of_time_ends_at_the_server_too() -> Result<()> {
    let server = Recorded::start(|name, _| match name {
        "find" | "aggregate" | "distinct" | "explain" => Reply::Silence,
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    let limit = Duration::from_millis(200);
    for (number, (operation, request)) in [
        (Operation::Find, request("c")),
        (
            Operation::Aggregate,
            Request {
                pipeline: Some(json!([])),
                ..request("c")
            },
        ),
        (Operation::Count, request("c")),
        (
            Operation::Distinct,
            Request {
                field: Some("a".to_owned()),
                ..request("c")
            },
        ),
    ]
    .into_iter()
    .enumerate()
    {
        source.server(PATIENCE).await?;
        let outcome = source
            .read(operation, &request, Budget::default(), limit, Layers::ALL)
            .await;
        let error = outcome.err().map(|error| error.to_string());
        assert_eq!(
            error.as_deref(),
            Some("not done within 200 ms"),
            "{operation:?}"
        );
        server.wait_for("killSessions", number + 1).await?;
    }
    for name in ["find", "aggregate", "distinct"] {
        for command in server.asked(name) {
            assert_eq!(
                command.get_i32("maxTimeMS").ok().or(command
                    .get_i64("maxTimeMS")
                    .ok()
                    .and_then(|ms| i32::try_from(ms).ok())),
                Some(200),
                "{command}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_rest_lets_go_of_its_cursor() -> Result<()> {
    let documents: Vec<Document> = (0..3).map(|number| doc! { "a": number }).collect();
    let server = Recorded::start(move |name, _| match name {
        "find" => batch(&documents, 77),
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    let budget = Budget {
        rows: 2,
        bytes: 1_000,
    };
    let reading = source
        .read(
            Operation::Find,
            &request("c"),
            budget,
            PATIENCE,
            Layers::ALL,
        )
        .await?;
    assert_eq!(reading.answer.rows.len(), 2);
    let find = server.asked("find");
    let find = find.first().context("no find")?;
    // One more than fits tells whether there are more.
    assert_eq!(
        find.get_i32("batchSize").ok().or(find
            .get_i64("batchSize")
            .ok()
            .and_then(|size| i32::try_from(size).ok())),
        Some(3)
    );
    drop(reading.rest.context("nothing is left")?);
    let kills = server.wait_for("killCursors", 1).await?;
    assert_eq!(kills[0].get_array("cursors")?[0].as_i64(), Some(77));
    assert_eq!(
        killed(&server.wait_for("killSessions", 1).await?),
        [session(find)?]
    );
    Ok(())
}

#[tokio::test]
async fn a_next_page_that_was_given_up_is_the_end_of_the_result() -> Result<()> {
    let server = Recorded::start(|name, _| match name {
        "find" => batch(&[doc! { "a": 1 }, doc! { "a": 2 }], 77),
        "getMore" => Reply::Silence,
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    let budget = Budget {
        rows: 1,
        bytes: 1_000,
    };
    let reading = source
        .read(
            Operation::Find,
            &request("c"),
            budget,
            PATIENCE,
            Layers::ALL,
        )
        .await?;
    let mut rest = reading.rest.context("nothing is left")?;
    tokio::select! {
        _ = rest.next(Budget { rows: 5, bytes: 1_000 }) => anyhow::bail!("it was answered"),
        asked = server.wait_for("getMore", 1) => { asked?; }
    }
    server.wait_for("killSessions", 1).await?;
    let error = rest.next(budget).await.err().context("it was answered")?;
    assert_eq!(error.code, "UNKNOWN_CURSOR");
    Ok(())
}

#[tokio::test]
async fn every_call_has_a_session_of_its_own_while_it_runs() -> Result<()> {
    let server = Recorded::start(|name, _| match name {
        "find" => batch(&[doc! { "a": 1 }, doc! { "a": 2 }], 77),
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    let budget = Budget {
        rows: 1,
        bytes: 1_000,
    };
    let request = request("c");
    let mut kept = Vec::new();
    for _ in 0..5 {
        let reading = source.read(Operation::Find, &request, budget, PATIENCE, Layers::ALL);
        kept.push(reading.await?.rest.context("nothing is left")?);
    }
    let sessions = server
        .asked("find")
        .iter()
        .map(session)
        .collect::<Result<Vec<_>>>()?;
    for (number, one) in sessions.iter().enumerate() {
        assert!(!sessions[..number].contains(one));
    }
    Ok(())
}
