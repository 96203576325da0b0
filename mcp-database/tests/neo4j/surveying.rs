//! What is found out about a server: its posture and its health; case 66 of the anchors.

use anyhow::{Context as _, Result, ensure};
use mcp_database::finding::{Severity, Status};
use mcp_database::neo4j::read::Layers;

use crate::graph::{graph, read_within};
use crate::support::unique;

#[tokio::test]
async fn the_posture_says_what_community_cannot() -> Result<()> {
    let graph = graph!(Read);
    let posture = graph.posture(None).await?;
    ensure!(posture.version.starts_with("5."), "{posture:?}");
    assert_eq!(posture.edition, "community");
    assert_eq!(posture.user.as_deref(), Some("neo4j"));
    assert_eq!(posture.database.as_deref(), Some("neo4j"));
    assert_eq!(posture.features, ["fulltext", "vector"]);
    let first = posture.findings.first().context("no finding")?;
    assert_eq!(first.severity, Severity::Medium);
    ensure!(first.finding.contains("no roles"));
    ensure!(
        posture
            .findings
            .iter()
            .any(|finding| finding.advice.contains("procedures.allowlist"))
    );
    Ok(())
}

#[tokio::test]
async fn the_health_is_told_check_by_check() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Health");
    read_within(
        &graph,
        &format!("CREATE CONSTRAINT {label} FOR (n:{label}) REQUIRE n.a IS UNIQUE"),
        Layers::NONE,
    )
    .await?;
    let checks = graph.health(&[], None).await?;
    let names: Vec<&str> = checks.iter().map(|check| check.check.as_str()).collect();
    assert_eq!(
        names,
        [
            "answer",
            "indexes_failed",
            "indexes_filling",
            "indexes_unused",
            "constraints",
            "long_transactions",
            "waiting_for_locks",
            "size",
            "heap",
            "limits"
        ]
    );
    for check in &checks {
        ensure!(
            (check.status == Status::Ok) == check.advice.is_none(),
            "{check:?}"
        );
    }
    let limits = checks.last().context("no check")?;
    assert_eq!(limits.status, Status::Warn);
    let wanted = ["limits".to_owned(), "no such check".to_owned()];
    assert_eq!(
        graph.health(&wanted, None).await?,
        std::slice::from_ref(limits)
    );
    Ok(())
}

#[tokio::test]
async fn case_66_an_index_that_failed_or_fills_is_found() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Filling");
    // Values that no range index takes make the index fail.
    for cypher in [
        format!("CREATE (n:{label} {{a: reduce(t = '', i IN range(1, 40000) | t + 'x')}})"),
        format!("CREATE INDEX {label} FOR (n:{label}) ON (n.a)"),
    ] {
        read_within(&graph, &cypher, Layers::NONE).await?;
    }
    let state = format!("SHOW INDEXES YIELD name, state WHERE name = '{label}' RETURN state");
    while crate::graph::value(&graph, &state).await? == "POPULATING" {}
    let checks = graph.health(&[], None).await?;
    let failed = checks
        .iter()
        .find(|check| check.check == "indexes_failed")
        .context("no check")?;
    assert_eq!(failed.status, Status::Fail);
    ensure!(failed.value.contains(&label), "{failed:?}");
    read_within(&graph, &format!("DROP INDEX {label}"), Layers::NONE).await?;
    Ok(())
}
