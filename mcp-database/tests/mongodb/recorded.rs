//! What neither stand-in answers as MongoDB does: replies in the shape of MongoDB's documentation, by a server in this process.

use anyhow::Result;
use bson::{DateTime, Document, doc};
use mcp_database::finding::Status;
use mcp_database::mongodb::MongoError;
use mcp_database::mongodb::health::Wanted;
use mcp_database::mongodb::read::{Layers, Operation, Request};
use mcp_database::mongodb::schema::Kind;
use mcp_database::mongodb::search::{Search, Wanted as Sought};
use mcp_database::table::{Budget, Truncation};
use serde_json::json;

use crate::support::{PATIENCE, source};
use crate::wire::{Recorded, Reply, batch, hello};

fn request() -> Request {
    Request {
        db: "d".to_owned(),
        coll: "c".to_owned(),
        ..Request::default()
    }
}

#[tokio::test]
async fn a_read_is_explained_with_the_index_that_it_wants() -> Result<()> {
    let server = Recorded::start(|name, command| match name {
        "explain" => {
            let scan = doc! { "stage": "COLLSCAN", "filter": { "status": { "$eq": "open" } }, "direction": "forward" };
            let mut reply = doc! { "queryPlanner": { "namespace": "d.c", "winningPlan": scan, "rejectedPlans": [] } };
            if command.get_str("verbosity").is_ok_and(|verbosity| verbosity == "executionStats") {
                reply.insert("executionStats", doc! { "executionSuccess": true, "nReturned": 2, "executionTimeMillis": 7,
                    "totalKeysExamined": 0, "totalDocsExamined": 5_000 });
            }
            Reply::With(reply)
        }
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    let find = Request {
        filter: Some(json!({ "status": "open", "n": { "$gt": 5 } })),
        sort: Some(json!({ "at": -1 })),
        ..request()
    };
    let explained = source
        .explain(Operation::Find, &find, true, PATIENCE)
        .await?;
    assert!(explained.plan.collection_scan);
    assert_eq!(
        explained
            .plan
            .executed
            .map(|executed| executed.docs_examined),
        Some(5_000)
    );
    assert!(
        explained.advice[0].contains(r#"{"status": 1, "at": -1, "n": 1}"#),
        "{:?}",
        explained.advice
    );
    let aggregate = Request {
        pipeline: Some(json!([{ "$match": { "status": "open" } }, { "$sort": { "at": 1 } }])),
        ..request()
    };
    let explained = source
        .explain(Operation::Aggregate, &aggregate, false, PATIENCE)
        .await?;
    assert_eq!(explained.plan.executed, None);
    assert!(
        explained.advice[0].contains(r#"{"status": 1, "at": 1}"#),
        "{:?}",
        explained.advice
    );
    let asked = server.asked("explain");
    assert!(
        asked
            .iter()
            .all(|command| command.contains_key("maxTimeMS"))
    );
    // An explanation that executes must not execute what writes.
    let writes = Request {
        pipeline: Some(json!([{ "$out": "x" }])),
        ..request()
    };
    let refused = source
        .explain(Operation::Aggregate, &writes, true, PATIENCE)
        .await
        .err();
    assert!(matches!(refused, Some(MongoError::Gate(_))), "{refused:?}");
    assert_eq!(server.asked("explain").len(), asked.len());
    Ok(())
}

#[tokio::test]
async fn a_server_without_explain_is_told_so() -> Result<()> {
    let source = source!("java");
    let error = source
        .mongo
        .explain(Operation::Find, &source.request("c"), false, PATIENCE)
        .await
        .err();
    assert!(
        matches!(&error, Some(MongoError::NotSupported { what, .. }) if what == "explain"),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn health_is_told_check_by_check() -> Result<()> {
    let member = |state: &str, millis: i64| {
        doc! { "name": "a:1", "health": 1.0, "stateStr": state, "optimeDate": DateTime::from_millis(millis) }
    };
    let server = Recorded::start(move |name, command| match name {
        "hello" | "isMaster" | "ismaster" => {
            let mut hello = hello();
            hello.insert("setName", "rs");
            Reply::With(hello)
        }
        "serverStatus" => Reply::With(doc! { "connections": { "current": 10, "available": 51_190, "totalCreated": 50 } }),
        "currentOp" => Reply::With(doc! { "inprog": [
            { "type": "op", "opid": 12_345, "op": "query", "ns": "d.c", "secs_running": 42_i64, "active": true,
              "planSummary": "COLLSCAN", "command": { "find": "c", "filter": { "a": 1 } } },
        ] }),
        "replSetGetStatus" => Reply::With(doc! { "set": "rs", "members": [member("PRIMARY", 60_000), member("SECONDARY", 30_000)] }),
        "listCollections" => batch(&[doc! { "name": "c", "type": "collection", "options": {} }], 0),
        "listIndexes" => batch(&[
            doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
            doc! { "v": 2, "key": { "b": 1, "a": -1 }, "name": "b_1_a_-1" },
        ], 0),
        "aggregate" if command.to_string().contains("$indexStats") => batch(&[
            doc! { "name": "_id_", "key": { "_id": 1 }, "host": "a:1", "accesses": { "ops": 5_i64, "since": DateTime::from_millis(0) } },
            doc! { "name": "b_1_a_-1", "key": { "b": 1 }, "host": "a:1", "accesses": { "ops": 0_i64, "since": DateTime::from_millis(0) } },
        ], 0),
        "count" => Reply::With(doc! { "n": 7 }),
        _ => Reply::Usual,
    })
    .await?;
    let checks = server
        .source()?
        .health(&Wanted::ALL, Some("d"), PATIENCE)
        .await?;
    let told: Vec<(&str, Status)> = checks
        .iter()
        .map(|check| (check.check.as_str(), check.status))
        .collect();
    assert_eq!(
        told,
        [
            ("connections", Status::Ok),
            ("operations", Status::Warn),
            ("replication", Status::Warn),
            ("unused_indexes", Status::Warn),
        ]
    );
    assert!(checks[1].value.contains("for 42 s"), "{checks:?}");
    assert_eq!(checks[2].value, "a:1 PRIMARY; a:1 SECONDARY, 30 s behind");
    assert_eq!(checks[3].value, r#"d.c: b_1_a_-1 {"b": 1, "a": -1}"#);
    Ok(())
}

#[tokio::test]
async fn what_may_not_be_asked_is_told_in_its_check() -> Result<()> {
    let server = Recorded::start(|name, _| match name {
        "currentOp" => Reply::Failure(
            13,
            "Unauthorized",
            "not authorized on admin to execute command { currentOp: 1 }",
        ),
        _ => Reply::Usual,
    })
    .await?;
    let checks = server
        .source()?
        .health(&[Wanted::Operations], None, PATIENCE)
        .await?;
    assert_eq!(checks[0].status, Status::Warn);
    assert!(checks[0].value.contains("not authorized"), "{checks:?}");
    Ok(())
}

/// Case 45.
#[tokio::test]
async fn case_45_collections_are_told_by_their_kind_and_size() -> Result<()> {
    let server = Recorded::start(|name, command| match name {
        "listCollections" => batch(&[
            doc! { "name": "orders", "type": "collection", "options": {} },
            doc! { "name": "log", "type": "collection", "options": { "capped": true, "size": 4096 } },
            doc! { "name": "open", "type": "view", "options": { "viewOn": "orders", "pipeline": [] } },
            doc! { "name": "weather", "type": "timeseries", "options": { "timeseries": { "timeField": "at" } } },
        ], 0),
        "collStats" => match command.get_str("collStats") {
            Ok("log") => Reply::Failure(13, "Unauthorized", "not authorized"),
            _ => Reply::With(doc! { "ns": "d.orders", "size": 1_000_i64, "count": 10, "totalIndexSize": 500_i64 }),
        },
        "count" => Reply::With(doc! { "n": 3 }),
        _ => Reply::Usual,
    })
    .await?;
    let told = server
        .source()?
        .collections("d", PATIENCE)
        .await?
        .collections;
    let told: Vec<_> = told
        .iter()
        .map(|one| (one.name.as_str(), one.kind, one.documents, one.bytes))
        .collect();
    assert_eq!(
        told,
        [
            ("log", Kind::Capped, Some(3), None),
            ("open", Kind::View, None, None),
            ("orders", Kind::Collection, Some(10), Some(1_000)),
            ("weather", Kind::Timeseries, Some(10), Some(1_000)),
        ]
    );
    Ok(())
}

/// Case 48, and a time limit that the server holds.
#[tokio::test]
async fn case_48_a_server_that_gives_up_says_why() -> Result<()> {
    let server = Recorded::start(|name, command| match (name, command.get_str("find")) {
        ("find", Ok("sorted")) => Reply::Failure(
            292,
            "QueryExceededMemoryLimitNoDiskUseAllowed",
            "Sort exceeded memory limit of 104857600 bytes, but did not opt in to external sorting.",
        ),
        ("find", _) => Reply::Failure(50, "MaxTimeMSExpired", "operation exceeded time limit"),
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    let sorted = Request {
        coll: "sorted".to_owned(),
        sort: Some(json!({ "a": 1 })),
        ..request()
    };
    let read = |request| {
        source.read(
            Operation::Find,
            request,
            Budget::default(),
            PATIENCE,
            Layers::ALL,
        )
    };
    let error = read(&sorted).await.err();
    assert!(
        matches!(error, Some(MongoError::Server { code: 292, .. })),
        "{error:?}"
    );
    let late = request();
    let error = read(&late).await.err();
    assert!(
        matches!(error, Some(MongoError::Timeout(limit)) if limit == PATIENCE),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn what_came_before_the_time_was_over_is_given() -> Result<()> {
    let server = Recorded::start(|name, _| match name {
        "find" => batch(&[doc! { "a": 1 }], 77),
        "getMore" => Reply::Failure(50, "MaxTimeMSExpired", "operation exceeded time limit"),
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    let reading = source
        .read(
            Operation::Find,
            &request(),
            Budget::default(),
            PATIENCE,
            Layers::ALL,
        )
        .await?;
    assert_eq!(reading.answer.rows.truncated(), Some(Truncation::Time));
    assert_eq!(reading.answer.rows.len(), 1);
    assert!(reading.rest.is_none());
    Ok(())
}

/// A reply that is no BSON, within a message that is one.
#[tokio::test]
async fn a_reply_that_is_none_is_an_error() -> Result<()> {
    for reply in [
        doc! {},
        doc! { "cursor": 1 },
        doc! { "cursor": { "id": 0_i64, "ns": "d.c", "firstBatch": [1] } },
    ] {
        let answer: Document = reply.clone();
        let server = Recorded::start(move |name, _| match name {
            "find" => Reply::With(answer.clone()),
            _ => Reply::Usual,
        })
        .await?;
        let source = server.source()?;
        let error = source
            .read(
                Operation::Find,
                &request(),
                Budget::default(),
                PATIENCE,
                Layers::ALL,
            )
            .await
            .err();
        assert!(
            matches!(error, Some(MongoError::Reply(_))),
            "{reply} {error:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_search_that_the_server_does_not_have_is_told_so() -> Result<()> {
    let sought = |wanted: Sought, index: Option<&str>| Search {
        db: "d".to_owned(),
        coll: "c".to_owned(),
        wanted,
        index: index.map(str::to_owned),
        filter: None,
        limit: 5,
    };
    let vector = || Sought::Vector {
        path: "v".to_owned(),
        vector: vec![0.5, 1.0],
    };
    let java = source!("java");
    let recorded = Recorded::start(|name, _| match name {
        "aggregate" => Reply::Failure(
            31082,
            "SearchNotEnabled",
            "Using $search and $vectorSearch aggregation stages requires additional configuration.",
        ),
        _ => Reply::Usual,
    })
    .await?;
    let recorded = recorded.source()?;
    for source in [&java.mongo, &recorded] {
        for (search, expected) in [
            (sought(vector(), Some("i")), "$vectorSearch"),
            (
                sought(Sought::Text("dog".to_owned()), Some("default")),
                "$search",
            ),
        ] {
            let error = source
                .search(&search, Budget::default(), PATIENCE)
                .await
                .err();
            assert!(
                matches!(&error, Some(MongoError::NotSupported { what, .. }) if what == expected),
                "{error:?}"
            );
        }
    }
    let words = sought(Sought::Text("dog".to_owned()), None);
    let error = java
        .mongo
        .search(&words, Budget::default(), PATIENCE)
        .await
        .err();
    assert!(
        matches!(&error, Some(MongoError::Argument { argument, .. }) if argument == "index"),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn words_are_found_by_a_text_index_and_vectors_by_theirs() -> Result<()> {
    let server = Recorded::start(|name, command| match name {
        "listIndexes" => batch(&[doc! { "v": 2, "key": { "_fts": "text", "_ftsx": 1 }, "name": "t_text", "weights": { "t": 1 } }], 0),
        "aggregate" if command.to_string().contains("$indexStats") => batch(&[], 0),
        "aggregate" => batch(&[doc! { "t": "dog", "score": 1.5 }], 0),
        _ => Reply::Usual,
    })
    .await?;
    let source = server.source()?;
    for (wanted, index, stage) in [
        (Sought::Text("dog".to_owned()), None, "$match"),
        (
            Sought::Vector {
                path: "v".to_owned(),
                vector: vec![0.5],
            },
            Some("i".to_owned()),
            "$vectorSearch",
        ),
    ] {
        let search = Search {
            db: "d".to_owned(),
            coll: "c".to_owned(),
            wanted,
            index,
            filter: None,
            limit: 3,
        };
        let reading = source.search(&search, Budget::default(), PATIENCE).await?;
        assert_eq!(reading.answer.rows.len(), 1);
        let asked = server.asked("aggregate");
        let pipeline = asked
            .last()
            .and_then(|asked| asked.get_array("pipeline").ok());
        let first = pipeline.and_then(|pipeline| pipeline.first()?.as_document());
        assert!(
            first.is_some_and(|first| first.contains_key(stage)),
            "{first:?}"
        );
    }
    Ok(())
}
