//! What depends on what, in graphs that would explode as paths; cases 63 and 65 of the anchors.

use anyhow::{Context as _, Result, ensure};
use mcp_database::neo4j::Neo4j;
use mcp_database::neo4j::deps::{Mode, Question};
use mcp_database::neo4j::error::GraphError;
use mcp_database::neo4j::read::Layers;
use mcp_database::neo4j::walk::{CutReason, Direction, Start};
use serde_json::json;

use crate::graph::{graph, object, read_within};
use crate::support::unique;

fn question(label: &str, name: &str) -> Question {
    Question {
        start: Start::Key {
            label: label.to_owned(),
            key: object(json!({ "name": name })),
        },
        direction: Direction::Down,
        types: Vec::new(),
        depth: 10,
        nodes: 100,
        mode: Mode::List,
        timeout: None,
    }
}

/// `web` needs `api` and `auth`, `api` needs `db` and `auth`, `auth` needs `db`; `db` logs to `web`.
async fn services(graph: &Neo4j) -> Result<String> {
    let label = unique("Service");
    let cypher = format!(
        "CREATE (web:{label} {{name: 'web'}}), (api:{label} {{name: 'api'}}), (auth:{label} {{name: 'auth'}}), (db:{label}:Store {{name: 'db'}}) \
         CREATE (web)-[:NEEDS]->(api), (web)-[:NEEDS]->(auth), (api)-[:NEEDS]->(db), (api)-[:NEEDS]->(auth), (auth)-[:NEEDS]->(db), (db)-[:LOGS]->(web)"
    );
    read_within(graph, &cypher, Layers::NONE).await?;
    Ok(label)
}

#[tokio::test]
async fn dependencies_are_listed_by_depth_in_both_directions() -> Result<()> {
    let graph = graph!(Read);
    let label = services(&graph).await?;
    let needs = Question {
        types: vec!["NEEDS".to_owned()],
        ..question(&label, "web")
    };
    let found = graph.dependencies(&needs).await?;
    let mut names: Vec<(usize, &str)> = found
        .nodes
        .iter()
        .map(|node| (node.depth, node.name.as_str()))
        .collect();
    names.sort_unstable();
    assert_eq!(names, [(1, "api"), (1, "auth"), (2, "db")]);
    assert_eq!((found.cut, found.reached), (None, 3));
    let up = Question {
        start: Start::Id(
            found
                .nodes
                .iter()
                .find(|node| node.name == "db")
                .context("no db")?
                .id
                .clone(),
        ),
        direction: Direction::Up,
        mode: Mode::Impact,
        ..needs
    };
    let impact = graph.dependencies(&up).await?;
    let counts: Vec<(usize, usize)> = impact
        .levels
        .iter()
        .map(|level| (level.depth, level.count))
        .collect();
    assert_eq!(counts, [(1, 2), (2, 1)]);
    assert_eq!(impact.levels[0].labels.get(&label), Some(&2));
    Ok(())
}

#[tokio::test]
async fn a_tree_and_its_cycles_are_told_in_lines() -> Result<()> {
    let graph = graph!(Read);
    let label = services(&graph).await?;
    let tree = Question {
        mode: Mode::Tree,
        ..question(&label, "web")
    };
    let found = graph.dependencies(&tree).await?;
    assert_eq!(found.tree[0], format!("(:{label} web)"));
    assert_eq!(found.tree.len(), 7, "{:#?}", found.tree);
    let cycles = Question {
        mode: Mode::Cycles,
        ..tree.clone()
    };
    let found = graph.dependencies(&cycles).await?;
    ensure!(!found.cycles.is_empty());
    for cycle in &found.cycles {
        assert_eq!(cycle.first(), cycle.last());
        ensure!(cycle.iter().any(|name| name.contains("db")), "{cycle:?}");
    }
    let none = Question {
        types: vec!["NEEDS".to_owned()],
        ..cycles
    };
    ensure!(graph.dependencies(&none).await?.cycles.is_empty());
    Ok(())
}

#[tokio::test]
async fn case_63_paths_without_number_are_walked_node_by_node() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Layered");
    // Ten layers of ten, each joined with the next: ten thousand million paths.
    let cypher = format!(
        "CREATE (s:{label} {{name: 'start', layer: 0}}) WITH s \
         UNWIND range(1, 10) AS layer UNWIND range(1, 10) AS i CREATE (:{label} {{name: layer + '.' + i, layer: layer}}) \
         WITH count(*) AS c MATCH (a:{label}), (b:{label}) WHERE b.layer = a.layer + 1 CREATE (a)-[:T]->(b)"
    );
    read_within(&graph, &cypher, Layers::NONE).await?;
    let found = graph.dependencies(&question(&label, "start")).await?;
    assert_eq!((found.reached, found.cut), (100, None));
    let cut = async |question: Question| {
        let cut = graph.dependencies(&question).await?.cut;
        anyhow::Ok(cut.map(|cut| (cut.reason, cut.depth)))
    };
    let shallow = Question {
        depth: 3,
        ..question(&label, "start")
    };
    assert_eq!(cut(shallow).await?, Some((CutReason::Depth, 4)));
    let few = Question {
        nodes: 25,
        ..question(&label, "start")
    };
    assert_eq!(cut(few).await?, Some((CutReason::Nodes, 3)));
    Ok(())
}

#[tokio::test]
async fn a_node_with_countless_relationships_is_cut() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Hub");
    let cypher = format!(
        "CREATE (h:{label} {{name: 'hub'}}) WITH h UNWIND range(1, 15000) AS i CREATE (h)-[:T]->(:{label}Leaf)"
    );
    read_within(&graph, &cypher, Layers::NONE).await?;
    let found = graph
        .dependencies(&Question {
            nodes: 50,
            ..question(&label, "hub")
        })
        .await?;
    assert_eq!(found.reached, 50);
    ensure!(found.cut.is_some());
    Ok(())
}

#[tokio::test]
async fn a_start_that_is_none_or_several_is_told() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Start");
    let cypher = format!("UNWIND [1, 2] AS i CREATE (:{label} {{name: 'a'}})");
    read_within(&graph, &cypher, Layers::NONE).await?;
    for (question, expected) in [
        (question(&label, "b"), "no node has"),
        (question(&label, "a"), "more than one node has"),
        (
            Question {
                start: Start::Id("x`".to_owned()),
                ..question(&label, "a")
            },
            "no node has",
        ),
        (
            Question {
                depth: 11,
                ..question(&label, "a")
            },
            "the depth 11",
        ),
    ] {
        let outcome = graph.dependencies(&question).await;
        let Err(GraphError::Argument(told)) = &outcome else {
            anyhow::bail!("{outcome:?}");
        };
        ensure!(told.contains(expected), "{told}");
    }
    Ok(())
}
