//! Searches by text, by vector and by example; cases 64 and 66 of the anchors.

use anyhow::{Result, ensure};
use mcp_database::neo4j::Neo4j;
use mcp_database::neo4j::error::GraphError;
use mcp_database::neo4j::read::Layers;
use mcp_database::neo4j::search::{Search, Sought};
use mcp_database::neo4j::walk::Start;
use serde_json::{Value, json};

use crate::graph::{graph, object, read_within};
use crate::support::unique;

fn search(sought: Sought, label: &str) -> Search {
    Search {
        sought,
        index: None,
        label: Some(label.to_owned()),
        hits: 3,
        hops: 0,
        around: 20,
        timeout: None,
    }
}

/// Documents with text and vectors, one of them with an author.
async fn documents(graph: &Neo4j) -> Result<String> {
    let label = unique("Doc");
    for cypher in [
        "CREATE FULLTEXT INDEX Lft FOR (n:L) ON EACH [n.text]",
        "CREATE VECTOR INDEX Lv FOR (n:L) ON (n.e) OPTIONS {indexConfig: {`vector.dimensions`: 3, `vector.similarity_function`: 'cosine'}}",
        "CREATE (:Author {name: 'ada'})-[:WROTE]->(:L {name: 'one', text: 'a red fox (quick)', e: [1.0, 0.0, 0.0]}), \
         (:L {name: 'two', text: 'a red hen', e: [0.9, 0.1, 0.0]}), (:L {name: 'three', text: 'a blue whale', e: [0.0, 0.0, 1.0]})",
    ] {
        let cypher = cypher
            .replace("Lft", &format!("{label}_text"))
            .replace("Lv", &format!("{label}_vector"))
            .replace(":L", &format!(":{label}"));
        read_within(graph, &cypher, Layers::NONE).await?;
    }
    read_within(graph, "CALL db.awaitIndexes(60)", Layers::NONE).await?;
    Ok(label)
}

fn names(hits: &[mcp_database::neo4j::search::Hit]) -> Vec<&str> {
    hits.iter()
        .filter_map(|hit| hit.node["props"]["name"].as_str())
        .collect()
}

#[tokio::test]
async fn nodes_are_found_by_their_text_whatever_is_in_it() -> Result<()> {
    let graph = graph!(Read);
    let label = documents(&graph).await?;
    let text = |text: &str| Sought::Text(text.to_owned());
    let found = graph.search(&search(text("red AND (fox"), &label)).await?;
    assert_eq!(names(&found.hits)[0], "one");
    assert_eq!(found.index, format!("{label}_text"));
    let lucene = Sought::Lucene("text:red AND NOT text:fox".to_owned());
    let found = graph.search(&search(lucene, &label)).await?;
    assert_eq!(names(&found.hits), ["two"]);
    let broken = graph
        .search(&search(Sought::Lucene("red AND (".to_owned()), &label))
        .await;
    ensure!(
        matches!(broken, Err(GraphError::Server { .. })),
        "{broken:?}"
    );
    Ok(())
}

#[tokio::test]
async fn nodes_are_found_by_vector_and_by_example_with_what_is_around() -> Result<()> {
    let graph = graph!(Read);
    let label = documents(&graph).await?;
    let vector = Search {
        hops: 1,
        hits: 2,
        ..search(Sought::Vector(vec![1.0, 0.05, 0.0]), &label)
    };
    let found = graph.search(&vector).await?;
    assert_eq!(names(&found.hits), ["one", "two"]);
    assert_eq!(found.around.len(), 1);
    assert_eq!(found.around[0].name, "ada");
    assert_eq!(found.links[0].kind, "WROTE");
    let like = Sought::Like(Start::Key {
        label: label.clone(),
        key: object(json!({ "name": "two" })),
    });
    let found = graph.search(&search(like, &label)).await?;
    assert_eq!(names(&found.hits), ["one", "three"]);
    Ok(())
}

#[tokio::test]
async fn case_66_a_vector_or_an_index_that_does_not_fit_is_named() -> Result<()> {
    let graph = graph!(Read);
    let label = documents(&graph).await?;
    for (sought, expected) in [
        (Sought::Vector(vec![1.0, 2.0]), "has 2 dimensions"),
        (
            Sought::Vector(vec![1.0, f64::NAN, 0.0]),
            "at 2 of the vector",
        ),
        (Sought::Vector(vec![0.0; 3]), "zeros"),
        (Sought::Text("  ".to_owned()), "empty"),
    ] {
        let outcome = graph.search(&search(sought, &label)).await;
        let Err(GraphError::Argument(told)) = &outcome else {
            anyhow::bail!("{outcome:?}");
        };
        ensure!(told.contains(expected), "{told}");
    }
    let nothing = graph
        .search(&search(Sought::Text("a".to_owned()), "NoSuchLabel"))
        .await;
    ensure!(
        matches!(&nothing, Err(GraphError::Argument(told)) if told.contains("no full text index")),
        "{nothing:?}"
    );
    let unknown = Search {
        index: Some("nope".to_owned()),
        ..search(Sought::Vector(vec![1.0; 3]), &label)
    };
    let unknown = graph.search(&unknown).await;
    ensure!(
        matches!(&unknown, Err(GraphError::Argument(told)) if told.contains(&format!("{label}_vector"))),
        "{unknown:?}"
    );
    Ok(())
}

#[tokio::test]
async fn case_64_vectors_do_not_flood_the_hits() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Wide");
    for cypher in [
        format!("CREATE FULLTEXT INDEX {label} FOR (n:{label}) ON EACH [n.text]"),
        format!("CREATE (:{label} {{text: 'wide', e: [i IN range(1, 1536) | toFloat(i)]}})"),
        "CALL db.awaitIndexes(60)".to_owned(),
    ] {
        read_within(&graph, &cypher, Layers::NONE).await?;
    }
    let found = graph
        .search(&search(Sought::Text("wide".to_owned()), &label))
        .await?;
    let vector: &Value = &found.hits[0].node["props"]["e"];
    assert_eq!(vector["$vector"], json!(1_536));
    Ok(())
}
