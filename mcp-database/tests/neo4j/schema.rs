//! Schemas of graphs, small and with many kinds; case 66 of the anchors.

use anyhow::{Result, ensure};
use mcp_database::neo4j::Neo4j;
use mcp_database::neo4j::read::Layers;
use mcp_database::neo4j::schema::SchemaAsk;

use crate::graph::{graph, read_within};
use crate::support::unique;

async fn run(graph: &Neo4j, cypher: &str, label: &str) -> Result<()> {
    let cypher = cypher.replace(":L", &format!(":{label}"));
    read_within(graph, &cypher, Layers::NONE).await?;
    Ok(())
}

#[tokio::test]
async fn case_66_a_graph_is_told_in_lines_without_apoc() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Told");
    run(
        &graph,
        "CREATE CONSTRAINT FOR (n:L) REQUIRE n.name IS UNIQUE",
        &label,
    )
    .await?;
    run(
        &graph,
        "UNWIND range(1, 1234) AS i CREATE (n:L {name: 'n' + i, tags: ['a']}) \
         FOREACH (x IN CASE WHEN i < 10 THEN [1] ELSE [] END | SET n.`odd name` = i)",
        &label,
    )
    .await?;
    run(
        &graph,
        "MATCH (a:L {name: 'n1'}), (b:L {name: 'n2'}) CREATE (a)-[:L_KNOWS {since: date()}]->(b)",
        &label,
    )
    .await?;
    let ask = SchemaAsk {
        matching: Some(label.to_uppercase()),
        sample: 10_000,
        ..SchemaAsk::default()
    };
    let schema = graph.schema(&ask).await?;
    assert_eq!(
        schema.nodes,
        [format!(
            "(:{label} {{name string!, `odd name` integer?, tags list<string>}}) ~1.2k"
        )]
    );
    assert_eq!(
        schema.relationships,
        [format!(
            "(:{label})-[:{label}_KNOWS {{since date}}]->(:{label}) 1"
        )]
    );
    ensure!(
        schema.constraints.len() == 1 && schema.indexes.len() == 1,
        "{schema:?}"
    );
    ensure!(!schema.is_truncated && !schema.is_sampled);
    let names = SchemaAsk {
        names_only: true,
        ..ask.clone()
    };
    let names = graph.schema(&names).await?;
    assert_eq!(names.nodes, [format!("(:{label}) ~1.2k")]);
    assert_eq!(names.relationships, [format!("[:{label}_KNOWS] 1")]);
    ensure!(names.constraints.is_empty() && names.indexes.is_empty());
    // A label that only a constraint knows is counted as such.
    run(
        &graph,
        "CREATE CONSTRAINT FOR (n:L_Empty) REQUIRE n.name IS UNIQUE",
        &label,
    )
    .await?;
    let empty = SchemaAsk {
        matching: Some(label.clone()),
        ..SchemaAsk::default()
    };
    let schema = graph.schema(&empty).await?;
    ensure!(
        schema.nodes.len() == 2 && schema.nodes[1] == format!("(:{label}_Empty) 0"),
        "{schema:#?}"
    );
    let sampled = SchemaAsk { sample: 100, ..ask };
    ensure!(graph.schema(&sampled).await?.is_sampled);
    Ok(())
}

#[tokio::test]
async fn case_66_ten_thousand_labels_are_told_in_part_and_within_bounds() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Kind");
    for part in 0..20 {
        let labels: Vec<String> = (0..500)
            .map(|number| format!(":{label}_{part:02}_{number:03}"))
            .collect();
        let labels = labels.concat();
        run(&graph, &format!("CREATE (n{labels} {{x: 1}})"), "L").await?;
    }
    let schema = graph.schema(&SchemaAsk::default()).await?;
    ensure!(schema.label_count >= 10_000 && schema.is_truncated);
    assert_eq!(schema.nodes.len(), 50, "{schema:#?}");
    let ask = SchemaAsk {
        matching: Some(format!("{label}_07_1")),
        kinds: 200,
        bytes: 2_000,
        ..SchemaAsk::default()
    };
    let schema = graph.schema(&ask).await?;
    assert_eq!(schema.label_count, 100);
    let bytes: usize = schema.nodes.iter().map(String::len).sum();
    ensure!(schema.is_truncated && bytes < 2_000 && schema.nodes.len() > 20);
    let next = SchemaAsk {
        skip: 90,
        kinds: 50,
        ..ask
    };
    assert_eq!(graph.schema(&next).await?.nodes.len(), 10);
    let nothing = SchemaAsk {
        matching: Some("no such kind".to_owned()),
        ..SchemaAsk::default()
    };
    let schema = graph.schema(&nothing).await?;
    ensure!(schema.nodes.is_empty() && !schema.is_truncated);
    Ok(())
}
