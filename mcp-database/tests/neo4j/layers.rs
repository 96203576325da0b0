//! What each of the layers that keep a read from changing anything is good for, alone; cases 59 to 62 of the anchors.

use anyhow::{Result, ensure};
use mcp_database::neo4j::cypher::gate::{Purpose, Statement};
use mcp_database::neo4j::error::{GraphError, Refusal};
use mcp_database::neo4j::read::Layers;
use serde_json::json;

use crate::graph::{count, graph, read_within, refusal, rows, value};
use crate::support::{all, connect, server, unique};

const ONLY_ACCESS_MODE: Layers = Layers {
    access_mode: true,
    ..Layers::NONE
};
const ONLY_PLAN: Layers = Layers {
    plan: true,
    ..Layers::NONE
};
const ONLY_GATE: Layers = Layers {
    gate: true,
    ..Layers::NONE
};

/// Case 59: statements that write, with a label of the test's own.
fn writes(label: &str) -> Vec<String> {
    [
        "CREATE (n:L)",
        "\\u0043REATE (n:L)",
        "/* */CREATE//\n(n:L)",
        "CREATE (n:L) RETURN n",
        "MERGE (n:L {a: 1})",
        "INSERT (n:L)",
        "MATCH (n:L) SET n.b = 1",
        "MATCH (n:L) REMOVE n.a",
        "MATCH (n:L) DETACH DELETE n",
        "FOREACH (i IN [1] | CREATE (:L))",
        "CALL { CREATE (n:L) RETURN n } RETURN n",
        "UNWIND [1] AS i CALL (i) { CREATE (:L {i: i}) }",
        "UNWIND [1] AS i CALL (i) { CREATE (:L {i: i}) } IN TRANSACTIONS",
        "MATCH (n:L) RETURN n UNION CREATE (n:L) RETURN n",
    ]
    .iter()
    .map(|cypher| cypher.replace(":L", &format!(":{label}")))
    .collect()
}

#[tokio::test]
async fn case_59_a_write_is_refused_by_the_access_mode_alone() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Access");
    let made = format!("CREATE (n:{label} {{a: 1}})");
    read_within(&graph, &made, Layers::NONE).await?;
    for cypher in writes(&label) {
        let outcome = read_within(&graph, &cypher, ONLY_ACCESS_MODE).await;
        assert_eq!(
            refusal(&outcome),
            Some(Refusal::AccessMode),
            "{cypher}: {:?}",
            outcome.err()
        );
        assert_eq!(count(&graph, &label).await?, json!(1), "{cypher}");
    }
    Ok(())
}

#[tokio::test]
async fn case_59_a_write_is_refused_by_its_plan_alone() -> Result<()> {
    let graph = graph!(Read);
    let label = unique("Planned");
    let made = format!("CREATE (n:{label} {{a: 1}})");
    read_within(&graph, &made, Layers::NONE).await?;
    for cypher in writes(&label) {
        let outcome = read_within(&graph, &cypher, ONLY_PLAN).await;
        assert!(
            matches!(outcome, Err(GraphError::NoRead(_))),
            "{cypher}: {:?}",
            outcome.err()
        );
        assert_eq!(count(&graph, &label).await?, json!(1), "{cypher}");
    }
    Ok(())
}

#[tokio::test]
async fn case_59_the_same_writes_are_done_without_the_layers() -> Result<()> {
    let graph = graph!(Read);
    for index in 0..writes("x").len() {
        let label = unique("Done");
        read_within(
            &graph,
            &format!("CREATE (n:{label} {{a: 1}})"),
            Layers::NONE,
        )
        .await?;
        let cypher = &writes(&label)[index];
        let outcome = read_within(&graph, cypher, Layers::NONE).await;
        ensure!(outcome.is_ok(), "{cypher}: {:?}", outcome.err());
        let refused = read_within(&graph, cypher, Layers::ALL).await;
        ensure!(refused.is_err(), "{cypher}");
    }
    Ok(())
}

#[tokio::test]
async fn case_60_files_addresses_and_procedures_are_refused_by_the_gate_alone() -> Result<()> {
    let graph = graph!(Read);
    for cypher in [
        "LOAD CSV FROM 'file:///etc/hostname' AS row RETURN row",
        "LOAD CSV FROM 'http://127.0.0.1:1/x' AS row RETURN row",
        "L\\u004fAD/**/csv FROM 'http://127.0.0.1:1/x' AS row RETURN row",
        "CALL apoc.load.json('file:///etc/passwd')",
        "RETURN apoc.cypher.doIt('CREATE (n)', {})",
        "CALL apoc.cypher.doIt('CREATE (n)', {}) YIELD value RETURN value",
        "CALL dbms.listConfig()",
        "CALL dbms.killConnections([])",
        "CALL dbms.queryJmx('java.lang:type=Memory')",
        "CALL `dbms` . `killConnection` ('bolt-0')",
        "CALL db.clearQueryCaches()",
        "CALL tx.setMetaData({a: 1})",
        "CALL db.stats.retrieve('GRAPH COUNTS')",
    ] {
        let outcome = read_within(&graph, cypher, ONLY_GATE).await;
        assert!(
            matches!(outcome, Err(GraphError::Gate(_))),
            "{cypher}: {:?}",
            outcome.err()
        );
    }
    // In read access alone they are done, and some of them with a plan of a read, too.
    let without_gate = Layers {
        gate: false,
        ..Layers::ALL
    };
    for (cypher, layers) in [
        ("CALL dbms.listConfig()", ONLY_ACCESS_MODE),
        ("CALL dbms.killConnections([])", ONLY_ACCESS_MODE),
        (
            "CALL dbms.queryJmx('java.lang:type=Memory')",
            ONLY_ACCESS_MODE,
        ),
        ("CALL db.clearQueryCaches()", ONLY_ACCESS_MODE),
        ("CALL tx.setMetaData({a: 1})", ONLY_ACCESS_MODE),
        ("CALL db.stats.retrieve('GRAPH COUNTS')", without_gate),
        ("CALL db.stats.clear('QUERIES')", without_gate),
    ] {
        let outcome = read_within(&graph, cypher, layers).await;
        ensure!(outcome.is_ok(), "{cypher}: {:?}", outcome.err());
    }
    let fetched = "LOAD CSV FROM 'http://127.0.0.1:1/x' AS row RETURN row";
    let outcome = read_within(&graph, fetched, without_gate).await;
    let told = outcome.err().map(|error| error.to_string());
    ensure!(
        told.as_ref()
            .is_some_and(|told| told.contains("ExternalResourceFailed")),
        "nobody tried to fetch: {told:?}"
    );
    Ok(())
}

#[tokio::test]
async fn case_60_load_csv_reads_what_somebody_serves_without_the_gate() -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let graph = graph!(Read);
    let (endpoint, serving) = crate::support::listen(|mut stream| async move {
        let mut request = [0; 64];
        let _ = stream.read(&mut request).await?;
        let reply = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 7\r\nConnection: close\r\n\r\nsecret\n";
        stream.write_all(reply.as_bytes()).await
    })
    .await?;
    let cypher = format!(
        "LOAD CSV FROM 'http://127.0.0.1:{}/' AS row RETURN row[0]",
        endpoint.port
    );
    let without_gate = Layers {
        gate: false,
        ..Layers::ALL
    };
    let found = read_within(&graph, &cypher, without_gate).await?;
    assert_eq!(found.answer.rows.into_rows(), [[json!("secret")]]);
    let refused = read_within(&graph, &cypher, Layers::ALL).await;
    assert!(matches!(refused, Err(GraphError::Gate(_))));
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn case_61_names_that_look_like_key_words_are_names() -> Result<()> {
    let graph = graph!(Read);
    for cypher in [
        "MATCH (n:CREATE) RETURN n",
        "MATCH (n:Merge) RETURN n.Merge, n.call, n.load",
        "MATCH (n:`LOAD CSV`) RETURN n.`CALL dbms.x`",
        "MATCH (n:`\\u0043REATE`) RETURN n",
        "MATCH (n)-[:CALL|DELETE]->(m) RETURN n.set",
        "RETURN {call: 1, load: 2, show: 3} AS call",
        "RETURN 'CALL dbms.killConnection(1); LOAD CSV' AS `use`",
        "WITH 1 AS delete RETURN delete",
        "RETURN /* CREATE (n) */ 1 // DELETE",
    ] {
        rows(&graph, cypher).await?;
    }
    let hidden = read_within(&graph, "C\\u0052EATE (n:Hidden)", Layers::ALL).await;
    assert!(matches!(hidden, Err(GraphError::NoRead(_))));
    Ok(())
}

#[tokio::test]
async fn case_62_schema_and_administration_are_refused_by_the_plan_alone() -> Result<()> {
    let graph = graph!(Read);
    let name = unique("planned");
    let create = format!("CREATE INDEX {name} FOR (n:{name}) ON (n.a)");
    for cypher in [
        create.as_str(),
        "CREATE CONSTRAINT FOR (n:Planned) REQUIRE n.a IS UNIQUE",
        "DROP INDEX no_such_index IF EXISTS",
        "SHOW USERS",
        "SHOW DATABASES",
        "CREATE USER mallory SET PASSWORD 'long-enough-1'",
        "ALTER CURRENT USER SET PASSWORD FROM 'a' TO 'b'",
    ] {
        let outcome = read_within(&graph, cypher, ONLY_PLAN).await;
        assert!(
            matches!(outcome, Err(GraphError::NoRead(_))),
            "{cypher}: {:?}",
            outcome.err()
        );
    }
    let shown = format!("SHOW INDEXES YIELD name WHERE name = '{name}' RETURN count(*)");
    assert_eq!(value(&graph, &shown).await?, json!(0));
    read_within(&graph, &create, Layers::NONE).await?;
    assert_eq!(value(&graph, &shown).await?, json!(1));
    read_within(&graph, &format!("DROP INDEX {name}"), Layers::NONE).await?;
    Ok(())
}

#[tokio::test]
async fn case_62_commands_are_refused_by_the_gate_alone() -> Result<()> {
    let graph = graph!(Read);
    for cypher in [
        "SHOW USERS",
        "SHOW SETTINGS",
        "SHOW TRANSACTIONS",
        "SHOW TRANSACTIONS YIELD transactionId AS id TERMINATE TRANSACTIONS id YIELD message RETURN message",
        "TERMINATE TRANSACTIONS 'neo4j-transaction-1'",
        "USE system SHOW USERS",
        "USE neo4j RETURN 1",
        "EXPLAIN RETURN 1",
        "PROFILE RETURN 1",
        "CYPHER 5 RETURN 1",
        "RETURN 1; RETURN 2",
        "CALL { RETURN 1 AS x } IN TRANSACTIONS RETURN x",
    ] {
        let outcome = read_within(&graph, cypher, ONLY_GATE).await;
        assert!(
            matches!(outcome, Err(GraphError::Gate(_))),
            "{cypher}: {:?}",
            outcome.err()
        );
    }
    let without_gate = Layers {
        gate: false,
        ..Layers::ALL
    };
    for cypher in [
        "SHOW SETTINGS",
        "SHOW TRANSACTIONS",
        "USE neo4j RETURN 1",
        "CALL { RETURN 1 AS x } IN TRANSACTIONS RETURN x",
    ] {
        let outcome = read_within(&graph, cypher, without_gate).await;
        ensure!(outcome.is_ok(), "{cypher}: {:?}", outcome.err());
    }
    rows(&graph, "SHOW ALL INDEXES YIELD name RETURN name LIMIT 1").await?;
    Ok(())
}

/// Whole numbers below a bound by Knuth's generator: the same attempts each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> Result<usize> {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Ok(usize::try_from(self.0 >> 33)? % bound)
    }

    fn some(&mut self, pieces: &[&str], most: usize) -> Result<String> {
        let mut text = String::new();
        for _ in 0..self.below(most + 1)? {
            text.push_str(pieces[self.below(pieces.len())?]);
        }
        Ok(text)
    }

    /// A comment or a blank.
    fn gap(&mut self) -> Result<String> {
        let inner = self.some(
            &["'", "\"", "`", "//", "/*", "\\\\", " * ", "\\u0027", "x"],
            3,
        )?;
        Ok(match self.below(5)? {
            0 => format!("/*{inner}*/"),
            1 => format!("//{inner}\n"),
            2 => format!(" //{inner}\r"),
            3 => format!("\u{2028}//{inner}\\u000a"),
            _ => " ".to_owned(),
        })
    }

    /// A statement with a call, among strings, names and comments that look like others of these.
    fn statement(&mut self) -> Result<String> {
        let within = [
            "//", "/*", "*/", "\\\\", "\\n", "\\u0041", "\n", "CALL ", "x", ";",
        ];
        let text = format!(
            "WITH '{}' AS a, \"{}\" AS b, 1 AS `{}` {}CALL{} db{}.stats.`clear`{}('QUERIES') YIELD section{}RETURN section{}",
            self.some(&[&within[..], &["\"", "`", "\\'"]].concat(), 4)?,
            self.some(&[&within[..], &["'", "`", "\\\""]].concat(), 4)?,
            self.some(
                &[&within[..], &["'", "\"", "``", "\\u0060\\u0060", "\\"]].concat(),
                4
            )? + "n",
            self.gap()?,
            self.gap()?,
            self.gap()?,
            self.gap()?,
            self.gap()?,
            self.gap()?,
        );
        // Now and then something that does not belong there.
        let stray = [
            "'", "\"", "`", "\\", "\\u0027", "\\u0060", "\\u000a", "//", "/*", "*/", "\r",
            "\u{85}", "\0",
        ];
        let mut characters: Vec<char> = text.chars().collect();
        for _ in 0..self.below(3)? {
            let at = self.below(characters.len())?;
            let piece = stray[self.below(stray.len())?];
            characters.splice(at..at, piece.chars());
        }
        Ok(characters.into_iter().collect())
    }
}

/// Wherever the server's own plan has the call, the gate must have seen it.
#[tokio::test]
async fn case_61_the_server_sees_no_call_that_the_gate_does_not() -> Result<()> {
    let mut connection = connect(&server!()).await?;
    let mut dice = Dice(0x5EED);
    let mut called = 0;
    for _ in 0..1_500 {
        let text = dice.statement()?;
        let Ok(planned) = all(&mut connection, &format!("EXPLAIN {text}")).await else {
            continue;
        };
        let plan = planned.summary.and_then(|summary| summary.plan);
        if format!("{plan:?}").contains("ProcedureCall") {
            called += 1;
            let verdict = Statement::of(&text, Purpose::Read, &[]);
            ensure!(
                verdict.is_err(),
                "the gate does not see the call in {text:?}"
            );
        }
    }
    ensure!(called > 200, "{called} calls show little");
    Ok(())
}
