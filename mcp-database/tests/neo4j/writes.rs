//! What a write source changes, tries, asks to be confirmed, and refuses.

use anyhow::{Context as _, Result, ensure};
use mcp_database::neo4j::error::{GraphError, Refusal};
use mcp_database::neo4j::write::{Change, Destruction};
use mcp_database::table::Budget;
use serde_json::{Map, Value, json};

use crate::graph::{count, graph, object, refusal, value};
use crate::support::unique;

fn change<'a>(cypher: &'a str, parameters: &'a Map<String, Value>) -> Change<'a> {
    Change {
        cypher,
        parameters,
        budget: Budget::default(),
        timeout: None,
        dry_run: false,
        expected: None,
    }
}

#[tokio::test]
async fn a_change_is_counted_and_there_afterwards() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Changed");
    let cypher = format!("UNWIND $rows AS row CREATE (n:{label}) SET n = row RETURN n.a AS a");
    let parameters = object(json!({ "rows": [{ "a": 1 }, { "a": 2 }] }));
    let changed = graph.write(change(&cypher, &parameters)).await?;
    assert_eq!(changed.counters.get("nodes-created"), Some(&2));
    assert_eq!(changed.plan.kind, "rw");
    assert!(changed.is_committed && !changed.plan.is_destructive());
    assert_eq!(changed.answer.rows.into_rows(), [[json!(1)], [json!(2)]]);
    assert_eq!(count(&graph, &label).await?, json!(2));
    // More rows than a reply holds are written all the same.
    let many = format!("UNWIND range(1, 5000) AS i CREATE (n:{label} {{i: i}}) RETURN n");
    let changed = graph.write(change(&many, &Map::new())).await?;
    assert_eq!(changed.counters.get("nodes-created"), Some(&5_000));
    ensure!(changed.answer.rows.goes_on());
    assert_eq!(count(&graph, &label).await?, json!(5_002));
    Ok(())
}

#[tokio::test]
async fn another_number_of_changes_than_expected_leaves_nothing() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Expected");
    let none = Map::new();
    let create = format!("UNWIND range(1, 3) AS i CREATE (n:{label})");
    let expecting = |expected| Change {
        expected: Some(expected),
        ..change(&create, &none)
    };
    let refused = graph.write(expecting(5)).await;
    ensure!(
        matches!(
            refused,
            Err(GraphError::Unexpected {
                expected: 5,
                total: 6
            })
        ),
        "{refused:?}"
    );
    assert_eq!(count(&graph, &label).await?, json!(0));
    // Three nodes and three labels.
    assert_eq!(graph.write(expecting(6)).await?.total(), 6);
    assert_eq!(count(&graph, &label).await?, json!(3));
    Ok(())
}

#[tokio::test]
async fn a_trial_counts_and_leaves_nothing() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Tried");
    let none = Map::new();
    let create = format!("CREATE (n:{label})");
    graph.write(change(&create, &none)).await?;
    let delete = format!("MATCH (n:{label}) DETACH DELETE n");
    let trial = Change {
        dry_run: true,
        ..change(&delete, &none)
    };
    let changed = graph.write(trial).await?;
    assert_eq!(changed.counters.get("nodes-deleted"), Some(&1));
    assert!(!changed.is_committed);
    assert_eq!(count(&graph, &label).await?, json!(1));
    let index = format!("CREATE INDEX {label} FOR (n:{label}) ON (n.a)");
    let trial = Change {
        dry_run: true,
        ..change(&index, &none)
    };
    assert_eq!(graph.write(trial).await?.plan.kind, "s");
    let shown = format!("SHOW INDEXES YIELD name WHERE name = '{label}' RETURN count(*)");
    assert_eq!(value(&graph, &shown).await?, json!(0));
    Ok(())
}

#[tokio::test]
async fn what_takes_away_more_than_it_names_is_told_by_its_plan() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Destroyed");
    let none = Map::new();
    let constraint = format!("CREATE CONSTRAINT {label} FOR (n:{label}) REQUIRE n.id IS UNIQUE");
    let made = graph.write(change(&constraint, &none)).await?;
    assert_eq!((made.plan.kind, made.plan.destruction), ("s", None));
    for (cypher, expected) in [
        ("MATCH (n:L {id: 1}) DETACH DELETE n", None),
        ("MATCH (n:L {id: 1}) WHERE n.x = 2 DELETE n", None),
        ("MATCH (n) WHERE elementId(n) = 'x' DETACH DELETE n", None),
        (
            "MATCH (n:L) DETACH DELETE n",
            Some(Destruction::DeletesWithoutKey),
        ),
        (
            "MATCH (n:L {name: 'a'}) DELETE n",
            Some(Destruction::DeletesWithoutKey),
        ),
        (
            "MATCH (:L {id: 1})-[*]->(m) DETACH DELETE m",
            Some(Destruction::DeletesWithoutKey),
        ),
        (
            "MATCH (n:L) WHERE n.id > 0 DETACH DELETE n",
            Some(Destruction::DeletesWithoutKey),
        ),
        (
            "MATCH (n:L) CALL (n) { DETACH DELETE n }",
            Some(Destruction::DeletesWithoutKey),
        ),
        ("MATCH (n:L) SET n.x = 1", Some(Destruction::ChangesAll)),
        ("MATCH (n:L) REMOVE n.x", Some(Destruction::ChangesAll)),
        ("MATCH (n:L {name: 'a'}) SET n.x = 1", None),
        ("MERGE (n:L {id: 1}) SET n.x = 1", None),
        ("DROP CONSTRAINT L", Some(Destruction::DropsSchema)),
    ] {
        let cypher = cypher.replace('L', &label);
        let cypher = cypher
            .replace(&format!("DE{label}ETE"), "DELETE")
            .replace(&format!("CA{label}{label}"), "CALL");
        let plan = graph.plan(change(&cypher, &none)).await;
        let plan = plan.with_context(|| cypher.clone())?;
        assert_eq!(plan.destruction, expected, "{cypher}");
    }
    let drop = format!("DROP CONSTRAINT {label}");
    graph.write(change(&drop, &none)).await?;
    Ok(())
}

#[tokio::test]
async fn a_write_source_does_not_administer_and_reads_no_files() -> Result<()> {
    let graph = graph!(Write);
    for cypher in [
        "CREATE USER mallory SET PASSWORD 'long-enough-1'",
        "ALTER CURRENT USER SET PASSWORD FROM 'a' TO 'b'",
        "CREATE DATABASE x",
        "LOAD CSV FROM 'file:///etc/hostname' AS row CREATE (n {x: row})",
        "MATCH (n) CALL (n) { DELETE n } IN TRANSACTIONS",
        "CALL apoc.cypher.doIt('CREATE (n)', {})",
        "USE system CREATE USER mallory SET PASSWORD 'long-enough-1'",
        "TERMINATE TRANSACTIONS 'neo4j-transaction-1'",
        "CREATE (n:Several); CREATE (n:Several)",
    ] {
        let outcome = graph.write(change(cypher, &Map::new())).await;
        assert!(
            matches!(outcome, Err(GraphError::Gate(_))),
            "{cypher}: {outcome:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_read_source_writes_nothing() -> Result<()> {
    let graph = graph!(Read);
    let none = Map::new();
    let outcome = graph.write(change("CREATE (n:Never)", &none)).await;
    assert!(matches!(outcome, Err(GraphError::ReadOnly(_))));
    let outcome = graph.plan(change("CREATE (n:Never)", &none)).await;
    assert!(matches!(outcome, Err(GraphError::ReadOnly(_))));
    assert_eq!(count(&graph, "Never").await?, json!(0));
    Ok(())
}

#[tokio::test]
async fn a_violated_constraint_leaves_nothing_and_says_so() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("Unique");
    let none = Map::new();
    let constraint = format!("CREATE CONSTRAINT {label} FOR (n:{label}) REQUIRE n.id IS UNIQUE");
    graph.write(change(&constraint, &none)).await?;
    let twice = format!("UNWIND [1, 2, 1] AS id CREATE (n:{label} {{id: id}})");
    let outcome = graph.write(change(&twice, &none)).await;
    assert_eq!(refusal(&outcome), Some(Refusal::Schema), "{outcome:?}");
    assert_eq!(count(&graph, &label).await?, json!(0));
    graph
        .write(change(&format!("DROP CONSTRAINT {label}"), &none))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_write_that_is_given_up_is_rolled_back() -> Result<()> {
    let graph = graph!(Write);
    let label = unique("GivenUp");
    let cypher = format!(
        "UNWIND range(1, 100000000) AS i CREATE (n:{label}) WITH n WHERE id(n) < 0 RETURN n"
    );
    let none = Map::new();
    let slow = Change {
        timeout: Some(std::time::Duration::from_millis(500)),
        ..change(&cypher, &none)
    };
    ensure!(graph.write(slow).await.is_err());
    assert_eq!(count(&graph, &label).await?, json!(0));
    Ok(())
}
