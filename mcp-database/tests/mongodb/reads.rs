//! Reads of a stand-in.

use anyhow::{Context as _, Result};
use mcp_database::mongodb::MongoError;
use mcp_database::mongodb::read::{Layers, Operation, Request};
use mcp_database::table::{Budget, Truncation};
use serde_json::{Value, json};

use crate::support::{PATIENCE, refusal, source, values};

#[tokio::test]
async fn documents_come_in_pages_until_there_are_no_more() -> Result<()> {
    for flavor in ["java", "python"] {
        let source = source!(flavor);
        let many: Vec<Value> = (0..250).map(|number| json!({ "_id": number })).collect();
        source.insert("c", many.clone().into()).await?;
        for operation in [Operation::Find, Operation::Aggregate] {
            let request = match operation {
                Operation::Find => Request {
                    sort: Some(json!({ "_id": 1 })),
                    ..source.request("c")
                },
                _ => Request {
                    pipeline: Some(json!([{ "$sort": { "_id": 1 } }])),
                    ..source.request("c")
                },
            };
            let reading = source.read(operation, &request).await?;
            assert_eq!(reading.answer.rows.truncated(), Some(Truncation::Rows));
            assert_eq!(reading.answer.columns[0].name, "document");
            let mut found = reading.answer.rows.into_rows();
            let mut rest = reading.rest.context("nothing is left")?;
            let mut pages = 1;
            loop {
                let page = rest.next(Budget::default()).await?;
                pages += 1;
                let goes_on = page.rows.goes_on();
                found.extend(page.rows.into_rows());
                if !goes_on {
                    break;
                }
            }
            assert_eq!(pages, 3);
            assert_eq!(found.concat(), many, "{flavor} {operation:?}");
            assert!(rest.next(Budget::default()).await.is_err());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_find_takes_all_its_arguments() -> Result<()> {
    let source = source!("java");
    let docs = json!([{ "_id": 1, "a": 1, "b": 2 }, { "_id": 2, "a": 1, "b": 1 }, { "_id": 3, "a": 2, "b": 0 }, { "_id": 4, "a": 0 }]);
    source.insert("c", docs).await?;
    let request = Request {
        filter: Some(json!({ "a": { "$gte": 1 } })),
        projection: Some(json!({ "_id": 1 })),
        sort: Some(json!([{ "b": 1 }, { "a": -1 }])),
        skip: Some(1),
        limit: Some(2),
        hint: Some(json!("_id_")),
        ..source.request("c")
    };
    assert_eq!(
        source.found(Operation::Find, &request).await?,
        [json!({ "_id": 2 }), json!({ "_id": 1 })]
    );
    let request = Request {
        sort: Some(json!("{\"b\": -1, \"a\": 1}")),
        projection: Some(json!({ "_id": 1 })),
        limit: Some(1),
        ..source.request("c")
    };
    assert_eq!(
        source.found(Operation::Find, &request).await?,
        [json!({ "_id": 1 })]
    );
    Ok(())
}

#[tokio::test]
async fn counts_and_values_are_a_row_each() -> Result<()> {
    for flavor in ["java", "python"] {
        let source = source!(flavor);
        source
            .insert(
                "c",
                json!([{ "a": 1 }, { "a": 2 }, { "a": 2 }, { "a": "x" }]),
            )
            .await?;
        let count = Request {
            filter: Some(json!({ "a": 2 })),
            ..source.request("c")
        };
        assert_eq!(source.found(Operation::Count, &count).await?, [json!(2)]);
        let distinct = Request {
            field: Some("a".to_owned()),
            ..source.request("c")
        };
        let mut found = source.found(Operation::Distinct, &distinct).await?;
        found.sort_by_key(Value::to_string);
        assert_eq!(found, [json!("x"), json!(1), json!(2)]);
        let budget = Budget {
            rows: 2,
            bytes: 1_000,
        };
        let reading = source
            .mongo
            .read(
                Operation::Distinct,
                &distinct,
                budget,
                PATIENCE,
                Layers::ALL,
            )
            .await?;
        assert_eq!(reading.answer.rows.len(), 2);
        let mut rest = reading.rest.context("nothing is left")?;
        assert_eq!(rest.next(budget).await?.rows.len(), 1);
    }
    Ok(())
}

/// Case 45, as far as a stand-in has it: views, capped collections and time series are in `recorded`.
#[tokio::test]
async fn case_45_a_collection_that_is_not_there_is_empty() -> Result<()> {
    for flavor in ["java", "python"] {
        let source = source!(flavor);
        assert_eq!(
            source.find("nothing", json!({})).await?,
            Vec::<Value>::new()
        );
        assert_eq!(
            source
                .aggregate("nothing", json!([{ "$match": {} }]))
                .await?,
            Vec::<Value>::new()
        );
        assert_eq!(
            source
                .found(Operation::Count, &source.request("nothing"))
                .await?,
            [json!(0)]
        );
        let schema = source
            .mongo
            .schema(&source.db, "nothing", 100, PATIENCE)
            .await?;
        assert!(schema.missing && schema.fields.is_empty(), "{schema:?}");
    }
    Ok(())
}

/// Case 39.
#[tokio::test]
async fn case_39_a_string_that_looks_like_an_object_id_is_told_when_nothing_is_found() -> Result<()>
{
    let source = source!("java");
    let id = "0123456789abcdef01234567";
    source
        .insert("c", json!([{ "_id": { "$oid": id }, "a": 1 }]))
        .await?;
    for (operation, request) in [
        (
            Operation::Find,
            Request {
                filter: Some(json!({ "_id": id })),
                ..source.request("c")
            },
        ),
        (
            Operation::Count,
            Request {
                filter: Some(json!({ "_id": id })),
                ..source.request("c")
            },
        ),
        (
            Operation::Aggregate,
            Request {
                pipeline: Some(json!([{ "$match": { "_id": id } }])),
                ..source.request("c")
            },
        ),
    ] {
        let reading = source.read(operation, &request).await?;
        assert!(
            reading.notices.iter().any(|notice| notice.contains("$oid")),
            "{operation:?} {:?}",
            reading.notices
        );
    }
    let request = Request {
        filter: Some(json!({ "_id": { "$oid": id } })),
        ..source.request("c")
    };
    let reading = source.read(Operation::Find, &request).await?;
    assert!(reading.notices.is_empty());
    assert_eq!(values(reading).len(), 1);
    let request = Request {
        filter: Some(json!({ "_id": { "$oid": "xyz" } })),
        ..source.request("c")
    };
    let error = refusal(source.read(Operation::Find, &request).await)?;
    assert_eq!(
        error.to_string(),
        "`filter._id.$oid`: `xyz` is no ObjectId; write 24 hexadecimal digits"
    );
    Ok(())
}

/// Case 40: in a filter an operator is the caller's right.
#[tokio::test]
async fn case_40_an_operator_in_a_filter_is_an_operator() -> Result<()> {
    let source = source!("java");
    source
        .insert("c", json!([{ "a": "x" }, { "a": 1 }]))
        .await?;
    assert_eq!(
        source.find("c", json!({ "a": { "$gt": "" } })).await?,
        [json!({ "a": "x" })]
    );
    Ok(())
}

#[tokio::test]
async fn what_the_server_refuses_is_told_with_its_code() -> Result<()> {
    let source = source!("java");
    source.insert("c", json!([{ "a": 1 }])).await?;
    let request = Request {
        filter: Some(json!({ "a": { "$nonsense": 1 } })),
        ..source.request("c")
    };
    let error = refusal(source.read(Operation::Find, &request).await)?;
    assert!(
        matches!(error, MongoError::Server { code: 2, .. }),
        "{error:?}"
    );
    assert_eq!(source.find("c", json!({})).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn case_70_a_hundred_reads_at_once_are_all_answered() -> Result<()> {
    let source = source!("java");
    source.insert("c", json!([{ "a": 1 }])).await?;
    let reads = (0..100).map(|_| source.find("c", json!({ "a": 1 })));
    for found in futures_util::future::join_all(reads).await {
        assert_eq!(found?, [json!({ "a": 1 })]);
    }
    Ok(())
}

#[tokio::test]
async fn a_collection_is_told_by_its_fields_and_indexes() -> Result<()> {
    let source = source!("java");
    source
        .insert(
            "c",
            json!([{ "_id": 1, "a": { "b": "x" }, "l": [1, "y"] }, { "_id": 2 }]),
        )
        .await?;
    let schema = source.mongo.schema(&source.db, "c", 100, PATIENCE).await?;
    let paths: Vec<(&str, f64)> = schema
        .fields
        .iter()
        .map(|field| (field.path.as_str(), field.share))
        .collect();
    assert_eq!(
        paths,
        [
            ("_id", 1.0),
            ("a", 0.5),
            ("a.b", 1.0),
            ("l", 0.5),
            ("l[]", 1.0)
        ]
    );
    assert_eq!(schema.sampled, 2);
    assert_eq!(schema.indexes[0].keys, "{\"_id\": 1}");
    let databases = source.mongo.databases(PATIENCE).await?;
    assert!(databases.iter().any(|one| one.name == source.db));
    let collections = source.mongo.collections(&source.db, PATIENCE).await?;
    assert_eq!(collections.collections[0].name, "c");
    assert_eq!(collections.collections[0].documents, Some(2));
    Ok(())
}
