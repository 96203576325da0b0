//! What is stored comes back as it is: cases 41, 42 and 43.

use anyhow::Result;
use mcp_database::mongodb::read::{Operation, Request};
use mcp_database::table::Truncation;
use serde_json::{Value, json};

use crate::support::{source, values};

#[tokio::test]
async fn case_43_every_type_comes_back_as_it_was_written() -> Result<()> {
    let document = json!({
        "double": 1.5,
        "nan": { "$numberDouble": "NaN" },
        "infinity": { "$numberDouble": "-Infinity" },
        "text": "täxt",
        "object": { "a": { "b": [1, [2, []]] } },
        "binary": { "$binary": { "base64": "AQID", "subType": "00" } },
        "uuid": { "$binary": { "base64": "yO2rw/c4TKO2jauSqRR4ow==", "subType": "04" } },
        "id": { "$oid": "0123456789abcdef01234567" },
        "yes": true,
        "date": { "$date": "2026-11-22T10:00:00Z" },
        "old": { "$date": { "$numberLong": "-62135596800000" } },
        "null": null,
        "regex": { "$regularExpression": { "pattern": "^a", "options": "im" } },
        "int": 5,
        "exact": 9_007_199_254_740_991_i64,
        "long": { "$numberLong": "9007199254740993" },
        "timestamp": { "$timestamp": { "t": 5, "i": 6 } },
        "decimal": { "$numberDecimal": "1.50" },
        "decimal_nan": { "$numberDecimal": "NaN" },
        "min": { "$minKey": 1 },
        "max": { "$maxKey": 1 },
    });
    for flavor in ["java", "python"] {
        let source = source!(flavor);
        source.insert("c", json!([document])).await?;
        assert_eq!(
            source.find("c", json!({})).await?,
            std::slice::from_ref(&document),
            "{flavor}"
        );
    }
    Ok(())
}

/// The other stand-in makes subtype 0 of it.
#[tokio::test]
async fn binary_subtypes_stay_and_vectors_are_shortened() -> Result<()> {
    let source = source!("python");
    let own = json!({ "$binary": { "base64": "AQID", "subType": "80" } });
    // 0x27: single precision; 1.0 and 2.5.
    let vector = json!({ "$binary": { "base64": "JwAAAIA/AAAgQA==", "subType": "09" } });
    let long: Vec<f64> = (0..100).map(f64::from).map(|number| number + 0.5).collect();
    source
        .insert("c", json!([{ "own": own, "vector": vector, "long": long }]))
        .await?;
    let found = source.find("c", json!({})).await?;
    assert_eq!(found[0]["own"], own);
    assert_eq!(found[0]["vector"], json!([1.0, 2.5]));
    assert_eq!(
        found[0]["long"],
        json!({ "$vector": 100, "head": [0.5, 1.5, 2.5, 3.5, 4.5] })
    );
    let request = Request {
        whole_vectors: true,
        ..source.request("c")
    };
    let found = source.found(Operation::Find, &request).await?;
    assert_eq!(found[0]["long"], json!(long));
    Ok(())
}

#[tokio::test]
async fn case_41_names_of_fields_may_be_anything_that_is_no_operator() -> Result<()> {
    let source = source!("java");
    let document =
        json!({ "a": { "b.c": 1, "": 2, "__proto__": { "x": 1 }, "constructor": 3, "ü \"'": 4 } });
    source.insert("c", json!([document])).await?;
    assert_eq!(source.find("c", json!({})).await?, [document]);
    Ok(())
}

#[tokio::test]
async fn case_42_a_document_of_fourteen_megabytes_does_not_reach_a_reply_whole() -> Result<()> {
    let source = source!("java");
    let many: Vec<Value> = (0..10_000)
        .map(|number| json!({ "n": number, "t": "x".repeat(980) }))
        .collect();
    source
        .insert(
            "c",
            json!([{ "_id": 1, "a_text": "ü".repeat(2_000_000), "many": many }]),
        )
        .await?;
    source.insert("c", json!([{ "_id": 2 }])).await?;
    let request = Request {
        sort: Some(json!({ "_id": 1 })),
        ..source.request("c")
    };
    let reading = source.read(Operation::Find, &request).await?;
    assert_eq!(reading.answer.rows.truncated(), Some(Truncation::Bytes));
    let mut rest = reading.rest;
    let found = reading.answer.rows.into_rows();
    let bytes = serde_json::to_string(&found)?.len();
    assert!(bytes < 80_000, "{bytes} bytes");
    let document = &found[0][0];
    assert_eq!(document["a_text"]["$cut"], 2_000_000);
    let shown = document["many"].as_array().map_or(0, Vec::len);
    assert_eq!(
        document["many"][shown - 1],
        json!({ "$cut": 10_000 - (shown - 1) })
    );
    if let Some(rest) = &mut rest {
        let next = rest.next(mcp_database::table::Budget::default()).await?;
        assert_eq!(next.rows.into_rows(), [[json!({ "_id": 2 })]]);
    }
    Ok(())
}

#[tokio::test]
async fn case_42_documents_may_stand_a_hundred_deep_within_each_other() -> Result<()> {
    let source = source!("java");
    let mut document = json!({ "end": 1 });
    for _ in 0..97 {
        document = json!({ "a": document });
    }
    source.insert("c", json!([document])).await?;
    let reading = source
        .read(
            Operation::Find,
            &Request {
                projection: Some(json!({ "_id": 0 })),
                ..source.request("c")
            },
        )
        .await?;
    assert_eq!(reading.answer.rows.truncated(), None);
    assert_eq!(values(reading), [document.clone()]);
    for _ in 0..3 {
        document = json!({ "a": document });
    }
    let error = source.insert("c", json!([document])).await.err();
    assert!(error.is_some_and(|error| error.to_string().contains("100 deep")));
    Ok(())
}
