//! What a read gives, how much of it, and how it ends; cases 63 to 66 of the anchors.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcp_database::cursor::Rest;
use mcp_database::neo4j::Neo4j;
use mcp_database::neo4j::error::{GraphError, Refusal};
use mcp_database::neo4j::read::{Ask, Layers};
use mcp_database::table::{Budget, Truncation};
use serde_json::{Map, Value, json};

use crate::graph::{ask, graph, object, read_within, refusal, rows, settings, value};
use crate::support::{connect, one, server, unique, wait_until_idle};

#[tokio::test]
async fn case_65_every_kind_of_value_has_its_form() -> Result<()> {
    let graph = graph!(Read);
    for (cypher, expected) in [
        ("RETURN null", json!(null)),
        ("RETURN 9007199254740993", json!("9007199254740993")),
        ("RETURN 0.0/0.0", json!("NaN")),
        ("RETURN -1.0/0.0", json!("-Infinity")),
        ("RETURN date('2024-02-29')", json!("2024-02-29")),
        ("RETURN time('12:00:01.5+02:00')", json!("12:00:01.5+02:00")),
        (
            "RETURN datetime('2024-01-01T00:00:00[Europe/Berlin]')",
            json!("2023-12-31T23:00:00Z[Europe/Berlin]"),
        ),
        (
            "RETURN localdatetime('2024-01-01T10:00')",
            json!("2024-01-01T10:00:00"),
        ),
        ("RETURN duration('P1Y2M3DT4.5S')", json!("P1Y2M3DT4.5S")),
        (
            "RETURN point({latitude: 1.5, longitude: 2})",
            json!({ "srid": 4326, "x": 2.0, "y": 1.5 }),
        ),
        (
            "RETURN {a: [1, null, {b: true}]}",
            json!({ "a": [1, null, { "b": true }] }),
        ),
        ("RETURN $__never IS NULL AND false", json!(null)),
    ] {
        if cypher.contains("__never") {
            let outcome = graph.read(ask(cypher, &Map::new())).await;
            assert_eq!(refusal(&outcome.map(|_| ())), Some(Refusal::Value));
            continue;
        }
        assert_eq!(value(&graph, cypher).await?, expected, "{cypher}");
    }
    Ok(())
}

#[tokio::test]
async fn case_65_nodes_relationships_and_paths_are_compact_also_in_a_cycle() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Path");
    let made = format!(
        "CREATE (a:{label} {{n: 1}})-[:T {{w: 2}}]->(b:{label} {{n: 2}})-[:T]->(a) RETURN elementId(a), elementId(b)"
    );
    let found = read_within(&graph, &made, Layers::NONE).await?;
    let ids = found.answer.rows.into_rows().remove(0);
    let path = format!("MATCH p = (a:{label} {{n: 1}})-[:T*2]->(a) RETURN p");
    let shown = value(&graph, &path).await?;
    assert_eq!(shown["length"], json!(2));
    assert_eq!(shown["path"][0], shown["path"][4]);
    assert_eq!(
        shown["path"][0],
        json!({ "id": ids[0], "labels": [label], "props": { "n": 1 } })
    );
    let back = &shown["path"][3];
    assert_eq!((&back["from"], &back["to"]), (&ids[1], &ids[0]));
    assert_eq!(shown["path"][1]["props"], json!({ "w": 2 }));
    Ok(())
}

#[tokio::test]
async fn case_64_long_lists_and_vectors_are_cut_and_say_so() -> Result<()> {
    let graph = graph!(Read);
    let cypher = "RETURN range(1, 10000) AS list, [i IN range(1, 1536) | i / 2.0] AS vector, \
        reduce(t = '', i IN range(1, 3000) | t + 'x') AS text";
    let found = graph.read(ask(cypher, &Map::new())).await?;
    let kinds: Vec<&str> = found
        .answer
        .columns
        .iter()
        .map(|column| column.kind.as_str())
        .collect();
    assert_eq!(kinds, ["list", "list", "string"]);
    assert_eq!(found.answer.rows.truncated(), Some(Truncation::Cells));
    let row = found.answer.rows.into_rows().remove(0);
    assert_eq!(row[0]["$list"], json!(10_000));
    assert_eq!(
        row[1],
        json!({ "$vector": 1_536, "head": [0.5, 1.0, 1.5, 2.0, 2.5] })
    );
    assert_eq!(row[2]["$cut"], json!(3_000));
    let none = Map::new();
    let whole = Ask {
        whole_vectors: true,
        ..ask(cypher, &none)
    };
    let row = graph.read(whole).await?.answer.rows.into_rows().remove(0);
    assert_eq!(row[1].as_array().map(Vec::len), Some(1_536));
    Ok(())
}

#[tokio::test]
async fn parameters_carry_what_text_does_not() -> Result<()> {
    let graph = graph!(Read);
    let parameters =
        object(json!({ "a": "x' RETURN 2 //", "b": [1, 2.5, null], "c": { "d": true } }));
    let found = graph
        .read(ask("RETURN $a AS a, $b AS b, $c.d AS d", &parameters))
        .await?;
    assert_eq!(
        found.answer.rows.into_rows(),
        [[json!("x' RETURN 2 //"), json!([1, 2.5, null]), json!(true)]]
    );
    let names: Vec<String> = found
        .answer
        .columns
        .into_iter()
        .map(|column| column.name)
        .collect();
    assert_eq!(names, ["a", "b", "d"]);
    Ok(())
}

fn kept<'a>(cypher: &'a str, parameters: &'a Map<String, Value>, budget: Budget) -> Ask<'a> {
    Ask {
        budget,
        keep: Duration::from_mins(2),
        ..ask(cypher, parameters)
    }
}

#[tokio::test]
async fn pages_put_together_are_the_whole_result() -> Result<()> {
    let graph = graph!(Read);
    let none = Map::new();
    let budget = Budget {
        rows: 300,
        bytes: 1_000,
    };
    let found = graph
        .read(kept("UNWIND range(1, 1000) AS n RETURN n", &none, budget))
        .await?;
    assert_eq!(found.answer.rows.truncated(), Some(Truncation::Bytes));
    let mut numbers = found.answer.rows.into_rows();
    let mut rest = found.rest.context("nothing is left")?;
    loop {
        let page = rest.next(budget).await?;
        let goes_on = page.rows.goes_on();
        numbers.extend(page.rows.into_rows());
        if !goes_on {
            break;
        }
    }
    let expected: Vec<Vec<Value>> = (1..=1000).map(|n| vec![json!(n)]).collect();
    assert_eq!(numbers, expected);
    let exact = kept(
        "UNWIND range(1, 300) AS n RETURN n",
        &none,
        Budget {
            bytes: 100_000,
            ..budget
        },
    );
    let found = graph.read(exact).await?;
    assert!(found.rest.is_none() && found.answer.rows.truncated().is_none());
    Ok(())
}

#[tokio::test]
async fn a_billion_rows_give_a_page_and_open_results_take_no_place() -> Result<()> {
    let graph = graph!(Read);
    let none = Map::new();
    let mut open: Vec<Box<dyn Rest>> = Vec::new();
    // More than calls are allowed at once.
    for _ in 0..8 {
        let cypher = "UNWIND range(1, 1000000000) AS n RETURN n";
        let found = graph.read(kept(cypher, &none, Budget::default())).await?;
        assert_eq!(found.answer.rows.truncated(), Some(Truncation::Rows));
        open.push(found.rest.context("nothing is left")?);
    }
    let next = open[3]
        .next(Budget {
            rows: 1,
            bytes: 100,
        })
        .await?;
    assert_eq!(next.rows.into_rows(), [[json!(101)]]);
    drop(open);
    assert_eq!(value(&graph, "RETURN 1").await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn what_is_dropped_ends_at_the_server() -> Result<()> {
    let graph = graph!(Read);
    let mut observer = connect(&server!()).await?;
    let marker = unique("dropped");
    let cypher = format!("UNWIND range(1, 1000000000) AS n RETURN n, '{marker}'");
    let none = Map::new();
    let found = graph.read(kept(&cypher, &none, Budget::default())).await?;
    let shown = format!(
        "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery CONTAINS '{marker}' \
         AND NOT currentQuery STARTS WITH 'SHOW' RETURN count(*)"
    );
    assert_eq!(one(&mut observer, &shown).await?, 1.into());
    drop(found.rest);
    wait_until_idle(&mut observer, &marker).await?;

    // A call that is given up in the midst of its work.
    let slow = format!(
        "UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b WITH a, b WHERE a * b < 0 RETURN a, '{marker}'"
    );
    let call = graph.read(ask(&slow, &none));
    tokio::select! {
        outcome = call => anyhow::bail!("it ended: {:?}", outcome.err()),
        at_work = async {
            while one(&mut observer, &shown).await? == 0.into() {}
            anyhow::Ok(())
        } => at_work?,
    }
    wait_until_idle(&mut observer, &marker).await?;
    assert_eq!(value(&graph, "RETURN 1").await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn case_63_what_explodes_ends_in_time_and_the_next_call_is_served() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Dense");
    let made = format!(
        "UNWIND range(1, 12) AS i CREATE (:{label} {{i: i}}) WITH count(*) AS c \
         MATCH (a:{label}), (b:{label}) CREATE (a)-[:T]->(b)"
    );
    read_within(&graph, &made, Layers::NONE).await?;
    let brief = Duration::from_millis(700);
    for cypher in [
        "UNWIND range(1, 100000) AS a UNWIND range(1, 100000) AS b UNWIND range(1, 100000) AS c WITH a WHERE a < 0 RETURN count(a)".to_owned(),
        format!("MATCH (a:{label})-[:T*]->(b) RETURN count(b)"),
        "RETURN [n IN range(1, 1000000000) WHERE n < 0 | n]".to_owned(),
    ] {
        let none = Map::new();
        let outcome = graph.read(Ask { timeout: Some(brief), ..ask(&cypher, &none) }).await;
        let is_over = matches!(
            &outcome,
            Err(GraphError::Timeout(_) | GraphError::Server { refusal: Refusal::TimedOut | Refusal::Memory, .. })
        );
        ensure!(is_over, "{cypher}: {:?}", outcome.err());
        assert_eq!(value(&graph, "RETURN 1").await?, json!(1));
    }
    // More memory than a reply may take is an error, and no more than that.
    let outcome = graph
        .read(ask("RETURN range(1, 1000000000)", &Map::new()))
        .await;
    ensure!(
        matches!(
            outcome,
            Err(GraphError::TooLarge(_) | GraphError::Connection(_))
        ) || refusal(&outcome.map(|_| ())) == Some(Refusal::Memory)
    );
    assert_eq!(value(&graph, "RETURN 1").await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn case_63_a_regex_that_backtracks_frees_the_call() -> Result<()> {
    let Some(mut settings) = settings(mcp_database::source::Mode::Read)? else {
        return Ok(());
    };
    settings.limits.concurrent = 1;
    let graph = Neo4j::open(&settings)?;
    // The server looks at no clock within a match; this one takes it seconds.
    let cypher = "RETURN $text =~ '((a|aa)+)+\\\\2c'";
    let parameters = object(json!({ "text": "a".repeat(18) }));
    let outcome = graph
        .read(Ask {
            timeout: Some(Duration::from_millis(500)),
            ..ask(cypher, &parameters)
        })
        .await;
    ensure!(outcome.is_err());
    // The only place is free again, whatever the server still does.
    assert_eq!(value(&graph, "RETURN 1").await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn errors_name_their_kind_and_place() -> Result<()> {
    let graph = graph!(Read);
    let none = Map::new();
    let outcome = graph.read(ask("MATCH (n)\nRETURN nope", &none)).await;
    let Err(GraphError::Server {
        refusal,
        position,
        message,
        ..
    }) = outcome
    else {
        anyhow::bail!("no error of the server");
    };
    assert_eq!((refusal, position), (Refusal::Syntax, Some(18)));
    assert_eq!(message, "Variable `nope` not defined");
    assert_eq!(
        rows(&graph, "MATCH (n:NoSuchLabel_) RETURN n").await?.len(),
        0
    );
    let found = graph
        .read(ask("MATCH (n:NoSuchLabel_) RETURN n", &none))
        .await?;
    ensure!(
        found
            .notices
            .iter()
            .any(|notice| notice.contains("NoSuchLabel_")),
        "{:?}",
        found.notices
    );
    Ok(())
}

#[tokio::test]
async fn case_70_a_hundred_calls_at_once_share_the_connections() -> Result<()> {
    let graph = std::sync::Arc::new(graph!(Read));
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let graph = std::sync::Arc::clone(&graph);
            tokio::spawn(async move { value(&graph, &format!("RETURN {number}")).await })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await??, json!(number));
    }
    Ok(())
}
