//! Changes on a stand-in, and what keeps them from being larger than they were meant: case 46.

use anyhow::Result;
use mcp_database::mongodb::MongoError;
use mcp_database::mongodb::write::{Change, Request, Write};
use mcp_database::source::Mode;
use serde_json::{Value, json};

use crate::support::{PATIENCE, source};

#[tokio::test]
async fn documents_are_inserted_updated_replaced_and_deleted() -> Result<()> {
    for flavor in ["java", "python"] {
        let source = source!(flavor);
        let inserted = source
            .insert(
                "c",
                json!([{ "_id": 1, "a": 1 }, { "a": 1 }, { "_id": 3, "a": 3 }]),
            )
            .await?;
        assert_eq!(inserted.inserted, 3);
        assert_eq!(inserted.ids[0], 1);
        assert!(inserted.ids[1]["$oid"].is_string());
        let update = Request {
            many: true,
            filter: Some(json!({ "a": 1 })),
            update: Some(json!({ "$set": { "b": "x" }, "$inc": { "a": 1 } })),
            ..source.change("c", Change::Update)
        };
        let updated = source.write(&update).await?;
        assert_eq!(
            (updated.matched, updated.modified, updated.failed),
            (2, 2, None),
            "{flavor}"
        );
        let replace = Request {
            filter: Some(json!({ "_id": 3 })),
            update: Some(json!({ "z": true })),
            ..source.change("c", Change::Replace)
        };
        assert_eq!(source.write(&replace).await?.modified, 1);
        assert_eq!(
            source.find("c", json!({ "_id": 3 })).await?,
            [json!({ "z": true })]
        );
        let upsert = Request {
            filter: Some(json!({ "_id": 9 })),
            update: Some(json!({ "$set": { "a": 9 } })),
            upsert: true,
            ..source.change("c", Change::Update)
        };
        let upserted = source.write(&upsert).await?;
        assert_eq!(
            (upserted.inserted, upserted.matched, upserted.ids),
            (1, 0, vec![json!(9)]),
            "{flavor}"
        );
        let delete = |many| Request {
            many,
            filter: Some(json!({ "a": 2 })),
            ..source.change("c", Change::Delete)
        };
        assert_eq!(source.write(&delete(false)).await?.deleted, 1);
        assert_eq!(source.write(&delete(true)).await?.deleted, 1);
        assert_eq!(source.find("c", json!({})).await?.len(), 2);
    }
    Ok(())
}

#[tokio::test]
async fn a_source_for_reading_changes_nothing() -> Result<()> {
    let source = source!("java");
    let reading = source.as_other(|settings| settings.mode = Mode::Read)?;
    let error = reading.insert("c", json!([{ "a": 1 }])).await.err();
    assert!(matches!(error, Some(MongoError::ReadOnly(_))), "{error:?}");
    assert_eq!(source.find("c", json!({})).await?, Vec::<Value>::new());
    // The same is done where the source is for writing.
    source.insert("c", json!([{ "a": 1 }])).await?;
    assert_eq!(source.find("c", json!({})).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() -> Result<()> {
    let source = source!("java");
    source
        .insert("c", json!([{ "a": 1 }, { "a": 1 }, { "a": 2 }]))
        .await?;
    let delete = |many: bool| Request {
        many,
        filter: Some(json!({ "a": 1 })),
        ..source.change("c", Change::Delete)
    };
    for (request, deleted) in [(delete(true), 2), (delete(false), 1)] {
        let outcome = source
            .mongo
            .write(&Write::of(&request)?, true, PATIENCE)
            .await?;
        assert_eq!((outcome.dry_run, outcome.deleted), (true, deleted));
    }
    let upsert = Request {
        filter: Some(json!({ "a": 7 })),
        update: Some(json!({ "$set": { "b": 1 } })),
        upsert: true,
        ..source.change("c", Change::Update)
    };
    let outcome = source
        .mongo
        .write(&Write::of(&upsert)?, true, PATIENCE)
        .await?;
    assert_eq!((outcome.matched, outcome.inserted), (0, 1));
    assert_eq!(source.find("c", json!({})).await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_change_of_more_than_is_expected_is_refused_and_would_be_done() -> Result<()> {
    let source = source!("java");
    source.insert("c", json!([{ "a": 1 }, { "a": 1 }])).await?;
    let delete = |expect_max| Request {
        many: true,
        filter: Some(json!({})),
        expect_max,
        ..source.change("c", Change::Delete)
    };
    assert!(Write::of(&delete(None))?.is_destructive());
    let error = source.write(&delete(Some(1))).await.err();
    assert!(
        matches!(error, Some(MongoError::TooMany { found: 2, most: 1 })),
        "{error:?}"
    );
    assert_eq!(source.find("c", json!({})).await?.len(), 2);
    assert_eq!(source.write(&delete(Some(2))).await?.deleted, 2);
    Ok(())
}

#[tokio::test]
async fn a_second_document_with_the_same_id_is_told_and_what_was_done_before_is_counted()
-> Result<()> {
    for flavor in ["java", "python"] {
        let source = source!(flavor);
        source.insert("c", json!([{ "_id": 1 }])).await?;
        let outcome = source.insert("c", json!([{ "_id": 1 }])).await;
        assert!(
            matches!(outcome, Err(MongoError::DuplicateKey { code: 11000, .. })),
            "{flavor} {outcome:?}"
        );
        let outcome = source
            .insert("c", json!([{ "_id": 2 }, { "_id": 1 }, { "_id": 3 }]))
            .await?;
        assert_eq!(
            (outcome.inserted, outcome.ids),
            (1, vec![json!(2)]),
            "{flavor}"
        );
        assert_eq!(outcome.failed.map(|failed| failed.index), Some(1));
    }
    Ok(())
}

/// Sent without the check, the stand-in stores the operator as if it were a value, and nobody asks for it by that name again.
#[tokio::test]
async fn case_46_an_operator_where_a_value_is_stored_is_refused() -> Result<()> {
    let source = source!("java");
    source.insert("c", json!([{ "_id": 1, "a": 1 }])).await?;
    let update = |update: Value| Request {
        filter: Some(json!({ "_id": 1 })),
        update: Some(update),
        ..source.change("c", Change::Update)
    };
    for wrong in [
        json!({ "$set": { "a": { "$gt": "" } } }),
        json!({ "$set": { "a": 1 }, "b": 2 }),
        json!({ "b": 2 }),
    ] {
        let error = source.write(&update(wrong.clone())).await.err();
        assert!(
            matches!(error, Some(MongoError::Argument { .. })),
            "{wrong} {error:?}"
        );
    }
    assert_eq!(source.find("c", json!({})).await?, [json!({ "a": 1 })]);
    let client = mongodb::Client::with_uri_str(&source.settings.url).await?;
    let collection = client
        .database(&source.db)
        .collection::<bson::Document>("c");
    collection
        .update_one(
            bson::doc! { "_id": 1 },
            bson::doc! { "$set": { "a": { "$gt": "" } } },
        )
        .await?;
    assert_eq!(
        source.find("c", json!({})).await?,
        [json!({ "a": { "$gt": "" } })]
    );
    assert!(
        source
            .find("c", json!({ "a": { "$gt": "" } }))
            .await?
            .is_empty()
    );
    Ok(())
}

#[tokio::test]
async fn an_update_may_be_a_pipeline_where_the_server_has_them() -> Result<()> {
    let source = source!("python");
    source.insert("c", json!([{ "_id": 1, "a": 1 }])).await?;
    let update = Request {
        filter: Some(json!({ "_id": 1 })),
        update: Some(json!([{ "$set": { "b": { "$add": ["$a", 1] } } }])),
        ..source.change("c", Change::Update)
    };
    source.write(&update).await?;
    assert_eq!(
        source.find("c", json!({})).await?,
        [json!({ "a": 1, "b": 2 })]
    );
    Ok(())
}
