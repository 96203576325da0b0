//! Nodes and relationships that are brought in by their keys.

use anyhow::{Result, ensure};
use mcp_database::neo4j::Neo4j;
use mcp_database::neo4j::error::GraphError;
use mcp_database::neo4j::upsert::{Count, Node, Relationship, Upsert, Upserted};
use serde_json::{Value, json};

use crate::graph::{count, graph, rows, value};
use crate::support::unique;

async fn bring(
    graph: &Neo4j,
    nodes: Value,
    relationships: Value,
    dry_run: bool,
) -> Result<Result<Upserted, GraphError>> {
    let nodes: Vec<Node> = serde_json::from_value(nodes)?;
    let relationships: Vec<Relationship> = serde_json::from_value(relationships)?;
    let upsert = Upsert {
        nodes: &nodes,
        relationships: &relationships,
        timeout: None,
        dry_run,
    };
    Ok(graph.upsert(upsert).await)
}

fn counted(created: u64, matched: u64) -> Count {
    Count { created, matched }
}

#[tokio::test]
async fn what_is_there_is_matched_and_what_is_not_is_made() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Brought");
    let node = |name: &str, tier: i64| json!({ "label": label, "key": { "name": name }, "props": { "tier": tier } });
    let link = json!([{
        "type": "DEPENDS ON",
        "from": { "label": label, "key": { "name": "a" } },
        "to": { "label": label, "key": { "name": "b" } },
        "props": { "since": 2024 },
    }]);
    let nodes = json!([node("a", 1), node("b", 2)]);
    let tried = bring(&graph, nodes.clone(), link.clone(), true).await??;
    assert_eq!(
        (tried.nodes, tried.relationships),
        (counted(2, 0), counted(1, 0))
    );
    assert_eq!(count(&graph, &label).await?, json!(0));
    let first = bring(&graph, nodes, link.clone(), false).await??;
    assert_eq!(
        (first.nodes, first.relationships),
        (counted(2, 0), counted(1, 0))
    );
    ensure!(first.notices.iter().any(|notice| notice.contains(&label)));
    let second = bring(&graph, json!([node("b", 3), node("c", 4)]), link, false).await??;
    assert_eq!(
        (second.nodes, second.relationships),
        (counted(1, 1), counted(0, 1))
    );
    let found =
        format!("MATCH (a:{label})-[r:`DEPENDS ON`]->(b) RETURN a.name, r.since, b.name, b.tier");
    assert_eq!(
        rows(&graph, &found).await?,
        [[json!("a"), json!(2024), json!("b"), json!(3)]]
    );
    Ok(())
}

#[tokio::test]
async fn missing_ends_are_named_and_nothing_is_changed() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Ends");
    let nodes = json!([{ "label": label, "key": { "name": "a" } }]);
    let link = json!([{
        "type": "T",
        "from": { "label": label, "key": { "name": "a" } },
        "to": { "label": label, "key": { "name": "gone" } },
    }]);
    let outcome = bring(&graph, nodes, link, false).await?;
    let Err(GraphError::MissingEnds {
        count: missing,
        missing: names,
    }) = outcome
    else {
        anyhow::bail!("{outcome:?}");
    };
    assert_eq!(missing, 1);
    assert_eq!(names, [format!("(:{label} {{name: \"gone\"}})")]);
    assert_eq!(count(&graph, &label).await?, json!(0));
    Ok(())
}

#[tokio::test]
async fn thousands_come_in_batches_and_all_or_none() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Many");
    let constraint = format!("CREATE CONSTRAINT {label} FOR (n:{label}) REQUIRE n.id IS UNIQUE");
    crate::graph::read_within(&graph, &constraint, mcp_database::neo4j::read::Layers::NONE).await?;
    let node = |id: i64| json!({ "label": label, "key": { "id": id } });
    let nodes: Vec<Value> = (0..1_234).map(node).collect();
    let links: Vec<Value> = (1..1_234)
        .map(|id| {
            json!({
                "type": "NEXT",
                "from": { "label": label, "key": { "id": id - 1 } },
                "to": { "label": label, "key": { "id": id } },
                "key": { "step": id },
            })
        })
        .collect();
    let upserted = bring(&graph, json!(nodes), json!(links), false).await??;
    assert_eq!(upserted.nodes, counted(1_234, 0));
    assert_eq!(upserted.relationships, counted(1_233, 0));
    ensure!(upserted.notices.is_empty(), "{:?}", upserted.notices);
    // One that cannot be written takes the others along.
    let mut nodes: Vec<Value> = (2_000..2_600).map(node).collect();
    nodes.push(json!({ "label": label, "key": { "id": 3_000 }, "props": { "list": [1, "a"] } }));
    let refused = bring(&graph, json!(nodes), json!([]), false).await?;
    ensure!(refused.is_err(), "{refused:?}");
    assert_eq!(count(&graph, &label).await?, json!(1_234));
    Ok(())
}

#[tokio::test]
async fn hostile_names_are_names() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Hostile");
    let hostile = format!("{label}`) DETACH DELETE n //\\u0060) \\ 'x'");
    let property = "k`: 1}) //\\u0060";
    let node = json!({ "label": hostile, "key": { property: "'; DROP" }, "props": { "a.b c": 1 } });
    let kind = "T`]->() //\\u0060";
    let end = json!({ "label": hostile, "key": { property: "'; DROP" } });
    let link = json!([{ "type": kind, "from": end, "to": end, "props": {} }]);
    bring(&graph, json!([node]), link, false).await??;
    let found = format!(
        "MATCH (n)-[r]->(n) WHERE any(l IN labels(n) WHERE l STARTS WITH '{label}') RETURN labels(n)[0], properties(n), type(r)"
    );
    assert_eq!(
        rows(&graph, &found).await?,
        [[
            json!(hostile),
            json!({ property: "'; DROP", "a.b c": 1 }),
            json!(kind)
        ]]
    );
    Ok(())
}

#[tokio::test]
async fn a_key_of_several_nodes_changes_none_of_them() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Twice");
    let made = format!("UNWIND [1, 2] AS i CREATE (:{label} {{name: 'a'}})");
    crate::graph::read_within(&graph, &made, mcp_database::neo4j::read::Layers::NONE).await?;
    let node = json!([{ "label": label, "key": { "name": "a" }, "props": { "x": 1 } }]);
    let outcome = bring(&graph, node, json!([]), false).await?;
    ensure!(
        matches!(outcome, Err(GraphError::Argument(_))),
        "{outcome:?}"
    );
    let changed = format!("MATCH (n:{label}) WHERE n.x = 1 RETURN count(n)");
    assert_eq!(value(&graph, &changed).await?, json!(0));
    Ok(())
}

#[tokio::test]
async fn a_read_source_takes_nothing_in() -> Result<()> {
    let graph = graph!(Read);
    let node = json!([{ "label": "Never", "key": { "name": "a" } }]);
    let outcome = bring(&graph, node, json!([]), false).await?;
    assert!(matches!(outcome, Err(GraphError::ReadOnly(_))));
    Ok(())
}
