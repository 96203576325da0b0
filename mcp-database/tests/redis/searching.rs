//! Search by text, by vectors and by both, on a real server that has the modules; and what is said where it has not.

use anyhow::{Context as _, Result};
use mcp_database::redis::Redis;
use mcp_database::redis::error::Error;
use mcp_database::redis::read::Read;
use mcp_database::redis::search::filter::Filter;
use mcp_database::redis::search::{Found, Search, SearchError};
use mcp_database::source::Mode;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::support::{Server, call, one, send, server, servers, settings, unique};

/// An index over hashes with a text, a tag, a number and a vector of three numbers.
async fn index(bare: &mut MultiplexedConnection) -> Result<String> {
    let name = unique("index");
    send(
        bare,
        &format!(
            "FT.CREATE {name} ON HASH PREFIX 1 {name}: SCHEMA body TEXT kind TAG price NUMERIC vec VECTOR HNSW 6 \
             TYPE FLOAT32 DIM 3 DISTANCE_METRIC L2"
        ),
    )
    .await?;
    for (key, body, kind, price, vector) in [
        ("a", "red apple", "fruit", 1.0, [1.0_f32, 0.0, 0.0]),
        ("b", "green apple", "fruit", 2.0, [0.0, 1.0, 0.0]),
        ("c", "red car", "a|b} x", 3.0, [0.0, 0.0, 1.0]),
    ] {
        let vector: Vec<u8> = vector
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let mut set = redis::cmd("HSET");
        set.arg(format!("{name}:{key}"))
            .arg("body")
            .arg(body)
            .arg("kind")
            .arg(kind);
        set.arg("price").arg(price).arg("vec").arg(vector);
        set.query_async::<()>(bare).await?;
    }
    Ok(name)
}

/// The ends of the keys of the hits.
fn keys(found: Found) -> Vec<String> {
    let rows = found.answer.rows.into_rows();
    let keys = rows.iter().filter_map(|row| row[0].as_str());
    keys.filter_map(|key| key.rsplit(':').next())
        .map(str::to_owned)
        .collect()
}

fn search(index: &str) -> Search {
    Search {
        index: index.to_owned(),
        count: 10,
        ..Search::default()
    }
}

fn filter(json: Value) -> Result<Option<Filter>> {
    Ok(Some(serde_json::from_value(json)?))
}

/// A source for each version of the protocol.
fn sources(server: &Server) -> Result<[Redis; 2]> {
    let source = |protocol| {
        let url = format!(
            "redis://reader@127.0.0.1:{}?protocol={protocol}",
            server.port
        );
        anyhow::Ok(Redis::open(&settings(&url, Mode::Read)?)?)
    };
    Ok([source(2)?, source(3)?])
}

#[tokio::test]
async fn a_search_is_by_text_by_vector_by_example_and_by_both() -> Result<()> {
    let Some(server) = server("search")? else {
        return Ok(());
    };
    let mut bare = server.bare().await?;
    let name = index(&mut bare).await?;
    for redis in sources(&server)? {
        let text = Search {
            text: Some("Apple RED".to_owned()),
            ..search(&name)
        };
        assert_eq!(keys(redis.search(&text, call()).await?), ["a"]);
        let near = Search {
            vector: Some(vec![0.0, 0.9, 0.1]),
            ..search(&name)
        };
        let found = redis.search(&near, call()).await?;
        let rows = found.answer.rows.into_rows();
        let first = rows.first().context("no hit")?;
        assert_eq!(first[0], format!("{name}:b"));
        assert!(first[1].as_f64().is_some_and(|distance| distance < 0.1));
        assert_eq!(
            first[2],
            json!({ "body": "green apple", "kind": "fruit", "price": "2" })
        );
        let like = Search {
            like_key: Some(format!("{name}:c").as_str().into()),
            count: 1,
            ..search(&name)
        };
        assert_eq!(keys(redis.search(&like, call()).await?), ["c"]);
        let both = Search {
            text: Some("car".to_owned()),
            vector: Some(vec![1.0, 0.0, 0.1]),
            ..search(&name)
        };
        assert_eq!(keys(redis.search(&both, call()).await?)[0], "c");
        let filtered = Search {
            filter: filter(json!({ "number": { "field": "price", "max": 1.5 } }))?,
            ..near
        };
        assert_eq!(keys(redis.search(&filtered, call()).await?), ["a"]);
        assert!(redis.indexes(call()).await?.contains(&name));
    }
    Ok(())
}

#[tokio::test]
async fn case_58_nothing_in_a_value_is_read_as_a_query() -> Result<()> {
    let Some(server) = server("search")? else {
        return Ok(());
    };
    let mut bare = server.bare().await?;
    let name = index(&mut bare).await?;
    for redis in sources(&server)? {
        for (condition, expected) in [
            (
                json!({ "tag": { "field": "kind", "any_of": ["a|b} x"] } }),
                vec!["c"],
            ),
            (
                json!({ "tag": { "field": "kind", "any_of": ["*"] } }),
                vec![],
            ),
            (
                json!({ "tag": { "field": "kind", "any_of": ["fruit} | @kind:{a"] } }),
                vec![],
            ),
            (
                json!({ "tag": { "field": "kind", "any_of": ["x}) | (*"] } }),
                vec![],
            ),
            (
                json!({ "tag": { "field": "kind", "any_of": ["$p0", "\\", "f*", "%fruit%"] } }),
                vec![],
            ),
            (
                json!({ "text": { "field": "body", "words": "car | apple" } }),
                vec![],
            ),
            (
                json!({ "text": { "field": "body", "words": "@kind:{fruit}" } }),
                vec![],
            ),
            (
                json!({ "text": { "field": "body", "words": "a*" } }),
                vec![],
            ),
            (
                json!({ "not": { "tag": { "field": "kind", "any_of": ["fruit"] } } }),
                vec!["c"],
            ),
            (
                json!({ "any": [
                    { "number": { "field": "price", "min": 3 } },
                    { "all": [
                        { "text": { "field": "body", "words": "red" } },
                        { "tag": { "field": "kind", "any_of": ["fruit"] } },
                    ] },
                ] }),
                vec!["a", "c"],
            ),
        ] {
            let search = Search {
                filter: filter(condition.clone())?,
                ..search(&name)
            };
            let found = redis.search(&search, call()).await;
            let mut found = keys(found.with_context(|| condition.to_string())?);
            found.sort();
            assert_eq!(found, expected, "{condition}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_search_that_cannot_be_is_refused_with_what_would_be_right() -> Result<()> {
    let Some(server) = server("search")? else {
        return Ok(());
    };
    let mut bare = server.bare().await?;
    let name = index(&mut bare).await?;
    let [redis, _] = sources(&server)?;
    for (wrong, expected) in [
        (
            Search {
                vector: Some(vec![1.0; 4]),
                ..search(&name)
            },
            "the vector has 4 numbers, and the field `vec` has 3",
        ),
        (
            Search {
                vector: Some(vec![1.0, f32::NAN, 0.0]),
                ..search(&name)
            },
            "the number 1 of the vector is not finite",
        ),
        (
            Search {
                like_key: Some("missing".into()),
                ..search(&name)
            },
            "the key `missing` has no vector in `vec`",
        ),
        (
            Search {
                filter: filter(json!({ "tag": { "field": "body", "any_of": ["a"] } }))?,
                ..search(&name)
            },
            "the index has no TAG field `body`; it has: kind",
        ),
        (
            Search {
                text: Some("...".to_owned()),
                ..search(&name)
            },
            "the text has no words to search for",
        ),
        (
            search(&name),
            "give a text, a vector, a key to be like, or a filter",
        ),
    ] {
        let error = redis.search(&wrong, call()).await.err().context("found")?;
        assert_eq!(error.to_string(), expected);
    }
    let error = redis.search(&search("nosuch"), call()).await.err();
    assert!(
        matches!(&error, Some(Error::Search(SearchError::Index { known, .. })) if known.contains(&name)),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_index_of_more_than_the_prefix_is_not_searched() -> Result<()> {
    let Some(server) = server("search")? else {
        return Ok(());
    };
    let mut bare = server.bare().await?;
    let name = index(&mut bare).await?;
    for (prefix, is_good) in [(format!("{name}:"), true), (format!("{name}:a"), false)] {
        let mut settings = server.settings("reader", Mode::Read)?;
        settings.special.key_prefix = Some(prefix);
        let redis = Redis::open(&settings)?;
        let search = Search {
            text: Some("apple".to_owned()),
            ..search(&name)
        };
        let outcome = redis.search(&search, call()).await;
        assert_eq!(outcome.is_ok(), is_good, "{:?}", outcome.err());
    }
    Ok(())
}

#[tokio::test]
async fn json_is_read_and_searched_by_its_paths() -> Result<()> {
    let Some(server) = server("search")? else {
        return Ok(());
    };
    let mut bare = server.bare().await?;
    let name = unique("json");
    send(
        &mut bare,
        &format!(
            "FT.CREATE {name} ON JSON PREFIX 1 {name}: SCHEMA $.vec AS near VECTOR FLAT 6 TYPE FLOAT64 DIM 2 \
             DISTANCE_METRIC COSINE $.title AS title TEXT"
        ),
    )
    .await?;
    for (key, vector) in [("a", "[1,0]"), ("b", "[0,1]")] {
        let document = format!(r#"{{"vec":{vector},"title":"{key}"}}"#);
        send(&mut bare, &format!("JSON.SET {name}:{key} $ {document}")).await?;
    }
    for redis in sources(&server)? {
        let read = Read {
            keys: vec![format!("{name}:a").as_str().into()],
            ..Read::default()
        };
        let row = one(redis.read(&read, call()).await?)?;
        assert_eq!(row[4], json!({ "vec": [1, 0], "title": "a" }));
        let get = crate::support::argv(&format!("JSON.GET {name}:a $.title"));
        assert_eq!(
            one(redis.command(&get, false, call()).await?.0)?,
            [r#"["a"]"#]
        );
        let like = Search {
            like_key: Some(format!("{name}:b").as_str().into()),
            count: 1,
            ..search(&name)
        };
        assert_eq!(keys(redis.search(&like, call()).await?), ["b"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_server_without_the_module_says_so() -> Result<()> {
    for server in servers()? {
        let redis = server.source("admin", Mode::Read)?;
        for outcome in [
            redis.search(&search("any"), call()).await.map(drop),
            redis.indexes(call()).await.map(drop),
        ] {
            assert!(
                matches!(outcome, Err(Error::Search(SearchError::NotSupported))),
                "{outcome:?}"
            );
        }
    }
    Ok(())
}
