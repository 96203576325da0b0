//! Rows near to a vector, by pgvector.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mcp_database::postgres::Error;
use mcp_database::postgres::vector::{Metric, Near, VectorSearch};
use mcp_database::table::Budget;
use serde_json::{Map, Value, json};

use crate::database::Database;
use crate::reads::database;

fn search(near: Near) -> VectorSearch {
    VectorSearch {
        table: "public.\"Notes.1\"".to_owned(),
        column: None,
        near,
        k: 3,
        metric: Metric::Cosine,
        filter: Map::new(),
        hybrid: None,
        ef_search: None,
    }
}

fn object(value: Value) -> anyhow::Result<Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object),
        other => anyhow::bail!("{other} is no object"),
    }
}

impl Database {
    /// The ids found, and what is said about it.
    async fn near(&self, search: VectorSearch) -> Result<(Vec<Value>, Vec<String>), Error> {
        let (answer, notices) = self
            .postgres
            .nearest(search, Duration::from_secs(30), Budget::default())
            .await?;
        let rows = answer.rows.into_rows();
        Ok((
            rows.into_iter().map(|mut row| row.swap_remove(0)).collect(),
            notices,
        ))
    }

    async fn notes(&self) -> anyhow::Result<()> {
        self.client
            .batch_execute(
                "CREATE EXTENSION vector; CREATE TABLE \"Notes.1\" (id int PRIMARY KEY, words text, kind text, place vector(3)); \
                 INSERT INTO \"Notes.1\" VALUES (1, 'red apples', 'a', '[1,0,0]'), (2, 'green apples', 'b', '[0.9,0.1,0]'), \
                 (3, 'blue sky', 'a', '[0,1,0]'), (4, 'night', 'b', '[0,0,1]'), (5, 'nothing', 'a', NULL); \
                 CREATE INDEX ON \"Notes.1\" USING hnsw (place vector_cosine_ops)",
            )
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn the_nearest_rows_are_found_by_vector_by_example_and_with_words() -> anyhow::Result<()> {
    let database = database!();
    database.notes().await?;
    let near = || Near::Vector(vec![1.0, 0.05, 0.0]);
    assert_eq!(
        database.near(search(near())).await?.0,
        [json!(1), json!(2), json!(3)]
    );
    let like = Near::Row(object(json!({ "id": 3 }))?);
    assert_eq!(database.near(search(like)).await?.0[0], json!(2));
    let mut filtered = search(near());
    filtered.filter = object(json!({ "kind": "b", "id": { "gte": 2, "in": [2, 4, 9] } }))?;
    let (ids, notices) = database.near(filtered).await?;
    assert_eq!(ids, [json!(2), json!(4)]);
    ensure!(
        notices.iter().any(|notice| notice.contains("2 of 3")),
        "{notices:?}"
    );
    let mut hybrid = search(near());
    hybrid.k = 2;
    hybrid.hybrid = Some(("words".to_owned(), "sky".to_owned()));
    ensure!(database.near(hybrid).await?.0.contains(&json!(3)));
    Ok(())
}

#[tokio::test]
async fn case_36_an_example_that_is_not_there_is_near_to_nothing() -> anyhow::Result<()> {
    let database = database!();
    database.notes().await?;
    database
        .client
        .batch_execute("INSERT INTO \"Notes.1\" VALUES (6, 'zeros', 'a', '[0,0,0]')")
        .await?;
    // One that is not there, one without a vector, and one of zeros.
    for id in [77, 5, 6] {
        let like = Near::Row(object(json!({ "id": id }))?);
        assert!(database.near(search(like)).await?.0.is_empty(), "{id}");
    }
    Ok(())
}

#[tokio::test]
async fn vectors_of_every_kind_and_tables_of_several_parts_are_searched() -> anyhow::Result<()> {
    let database = database!();
    database
        .client
        .batch_execute(
            "CREATE EXTENSION vector; CREATE TABLE near (id int, words text, full_one vector(3), half halfvec(3), sparse sparsevec(3)) \
             PARTITION BY RANGE (id); CREATE TABLE low PARTITION OF near FOR VALUES FROM (0) TO (10); \
             CREATE TABLE high PARTITION OF near FOR VALUES FROM (10) TO (20); \
             INSERT INTO near SELECT id, words, v::vector, v::vector::halfvec, v::vector::sparsevec FROM (VALUES \
             (1, 'red apples', '[1,0,0]'), (2, 'blue sky', '[0,1,0]'), (11, 'green apples', '[0.9,0.1,0]'), (12, 'night', '[0,0,1]')) \
             AS t(id, words, v)",
        )
        .await?;
    for column in ["full_one", "half", "sparse"] {
        let of_column = VectorSearch {
            table: "near".to_owned(),
            column: Some(column.to_owned()),
            k: 2,
            ..search(Near::Vector(vec![1.0, 0.05, 0.0]))
        };
        let found = database.near(of_column).await?.0;
        assert_eq!(found, [json!(1), json!(11)], "{column}");
    }
    // Each part has rows at the same places.
    let hybrid = VectorSearch {
        table: "near".to_owned(),
        column: Some("full_one".to_owned()),
        k: 4,
        hybrid: Some(("words".to_owned(), "apples".to_owned())),
        ..search(Near::Vector(vec![1.0, 0.05, 0.0]))
    };
    let mut found = database.near(hybrid).await?.0;
    assert_eq!(found[..2], [json!(1), json!(11)]);
    found.sort_by_key(Value::as_i64);
    assert_eq!(found, [json!(1), json!(2), json!(11), json!(12)]);
    Ok(())
}

#[tokio::test]
async fn case_36_what_cannot_be_searched_is_named() -> anyhow::Result<()> {
    let database = database!();
    let near = |vector: &[f32]| search(Near::Vector(vector.to_vec()));
    let missing = database.near(near(&[1.0])).await;
    ensure!(matches!(missing, Err(Error::Missing(_))), "{missing:?}");
    database.notes().await?;
    // What the source knows of its server it learned before.
    let database = Database {
        postgres: database.source(|_| {})?,
        ..database
    };
    let nowhere = VectorSearch {
        table: "nowhere".to_owned(),
        ..near(&[1.0])
    };
    let no_column = VectorSearch {
        column: Some("words".to_owned()),
        ..near(&[1.0])
    };
    let injected = VectorSearch {
        column: Some("place\" <=> '[1,0,0]'; DROP TABLE x; --".to_owned()),
        ..near(&[1.0, 0.0, 0.0])
    };
    let operator = VectorSearch {
        filter: object(json!({ "kind": { "$where": 1 } }))?,
        ..near(&[1.0, 0.0, 0.0])
    };
    for (wrong, named) in [
        (nowhere, "no table"),
        (near(&[1.0, 2.0]), "2 numbers"),
        (near(&[f32::NAN, 0.0, 0.0]), "not finite"),
        (near(&[0.0, 0.0, 0.0]), "zeros"),
        (no_column, "no vector"),
        (injected, "no column"),
        (operator, "$where"),
    ] {
        let error = database.near(wrong).await.err().context(named)?;
        ensure!(error.to_string().contains(named), "{named}: {error}");
    }
    database
        .client
        .batch_execute("TRUNCATE \"Notes.1\"")
        .await?;
    assert!(database.near(near(&[1.0, 0.0, 0.0])).await?.0.is_empty());
    Ok(())
}
