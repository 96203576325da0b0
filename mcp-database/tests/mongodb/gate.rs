//! What a read may not ask, and that it would be done if nobody looked: cases 37, 38 and 44.

use anyhow::Result;
use mcp_database::mongodb::MongoError;
use mcp_database::mongodb::read::{Layers, Operation, Request};
use serde_json::{Value, json};

use crate::support::{refusal, source};

const OFF: Layers = Layers { gate: false };

/// Without the gate the same pipelines write, on the stand-in that has the stage.
#[tokio::test]
async fn case_37_a_pipeline_that_writes_is_refused_and_would_write() -> Result<()> {
    for (flavor, stage) in [
        ("java", json!({ "$out": "copy" })),
        ("java", json!({ "$merge": { "into": "copy" } })),
        ("python", json!({ "$merge": { "into": "copy" } })),
    ] {
        let source = source!(flavor);
        source.insert("c", json!([{ "a": 1 }])).await?;
        let request = Request {
            pipeline: Some(json!([{ "$match": {} }, stage])),
            ..source.request("c")
        };
        let error = refusal(source.read(Operation::Aggregate, &request).await)?;
        assert!(
            matches!(&error, MongoError::Gate(gate) if gate.path.starts_with("pipeline[1].$")),
            "{error}"
        );
        assert_eq!(source.find("copy", json!({})).await?, Vec::<Value>::new());
        source
            .read_within(Operation::Aggregate, &request, OFF)
            .await?;
        assert_eq!(
            source.find("copy", json!({})).await?,
            [json!({ "a": 1 })],
            "{flavor} {stage}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn case_44_a_stage_within_a_stage_is_refused_before_the_server_is_asked() -> Result<()> {
    let source = source!("java");
    source.insert("c", json!([{ "a": 1 }])).await?;
    for (stage, path) in [
        (
            json!({ "$facet": { "f": [{ "$out": "copy" }] } }),
            "pipeline[0].$facet.f[0].$out",
        ),
        (
            json!({ "$lookup": { "from": "c", "pipeline": [{ "$merge": { "into": "copy" } }], "as": "l" } }),
            "pipeline[0].$lookup.pipeline[0].$merge",
        ),
        (
            json!({ "$unionWith": { "coll": "c", "pipeline": [{ "$out": "copy" }] } }),
            "pipeline[0].$unionWith.pipeline[0].$out",
        ),
        (json!({ "$changeStream": {} }), "pipeline[0].$changeStream"),
    ] {
        let request = Request {
            pipeline: Some(json!([stage])),
            ..source.request("c")
        };
        let error = refusal(source.read(Operation::Aggregate, &request).await)?;
        assert!(
            matches!(&error, MongoError::Gate(gate) if gate.path == path),
            "{error}"
        );
    }
    assert_eq!(source.find("copy", json!({})).await?, Vec::<Value>::new());
    Ok(())
}

#[tokio::test]
async fn case_38_javascript_is_refused_and_would_run() -> Result<()> {
    let source = source!("python");
    source.insert("c", json!([{ "a": 1 }, { "a": 2 }])).await?;
    let request = Request {
        filter: Some(json!({ "$where": "this.a > 1" })),
        ..source.request("c")
    };
    let error = refusal(source.read(Operation::Find, &request).await)?;
    assert!(
        matches!(&error, MongoError::Gate(gate) if gate.path == "filter.$where"),
        "{error}"
    );
    let reading = source.read_within(Operation::Find, &request, OFF).await?;
    assert_eq!(reading.answer.rows.len(), 1);
    Ok(())
}

/// The last layer: a user who may only read.
#[tokio::test]
async fn a_user_who_may_read_writes_nothing_without_the_gate() -> Result<()> {
    let source = source!("python");
    source.insert("c", json!([{ "a": 1 }])).await?;
    let reader =
        source.as_other(|settings| settings.url = settings.url.replace("admin@", "reader@"))?;
    let request = Request {
        pipeline: Some(json!([{ "$merge": { "into": "copy" } }])),
        ..reader.request("c")
    };
    let error = refusal(
        reader
            .read_within(Operation::Aggregate, &request, OFF)
            .await,
    )?;
    assert!(
        matches!(error, MongoError::Unauthorized { code: 13, .. }),
        "{error:?}"
    );
    assert_eq!(reader.find("c", json!({})).await?, [json!({ "a": 1 })]);
    let error = reader.insert("c", json!([{ "a": 2 }])).await.err();
    assert!(
        matches!(error, Some(MongoError::Unauthorized { .. })),
        "{error:?}"
    );
    Ok(())
}
