//! What the gate lets through and what not, without a server.

use super::*;

fn verdict(cypher: &str, purpose: Purpose) -> Result<(), GateError> {
    let allowed = ["apoc.text.*".to_owned(), "my.own.procedure".to_owned()];
    Statement::of(cypher, purpose, &allowed).map(|_| ())
}

fn read(cypher: &str) -> Result<(), GateError> {
    verdict(cypher, Purpose::Read)
}

#[test]
fn key_words_as_names_pass() {
    for cypher in [
        "MATCH (n:CREATE) RETURN n",
        "MATCH (n:Merge) RETURN n.Merge, n.call, n.load, n.use",
        "MATCH (n:`CALL dbms.x`) RETURN n.`LOAD CSV`",
        "RETURN {call: 1, load: 2, show: 3} AS call",
        "RETURN 'CALL dbms.killConnection(1); LOAD CSV'",
        "RETURN 1 // CALL dbms.listConfig()",
        "MATCH (n) /* LOAD CSV */ RETURN n",
        "MATCH (n)-[:CALL]->() RETURN n",
        "RETURN $load, $`CALL db.x`",
        "MATCH (n) WHERE n.a IN transactions RETURN n",
        "RETURN date.truncate('day', date()), DATETIME({year: 1}), duration . between(a, b)",
        "RETURN apoc.text.join(['a'], '')",
        "MATCH (n) WHERE n.name IN ['a'] AND (n.x = 1) RETURN count(n), n {.call, .x}",
        "CALL db.labels() YIELD label RETURN label",
        "CALL db.labels",
        "CALL /* */ db . labels ()",
        "CALL gds.pageRank.stream('g')",
        "CALL my.own.procedure()",
        "CALL { RETURN 1 AS x } RETURN x",
        "UNWIND [1] AS x CALL (x) { RETURN x AS y } RETURN y",
        "SHOW INDEXES",
        "show all fulltext indexes yield name return name",
        "SHOW USER DEFINED FUNCTIONS",
        "RETURN 1;",
        " ; RETURN 1",
    ] {
        // A semicolon at the front is a second statement for the server, too.
        let expected = if cypher.starts_with(" ;") {
            Err(GateError::Several(4))
        } else {
            Ok(())
        };
        assert_eq!(read(cypher), expected, "{cypher}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of attempts")]
fn what_reads_beyond_the_graph_is_refused_with_its_place() {
    use GateError::{Function, InTransactions, LoadCsv, Procedure, Terminate, Use};
    let procedure = |name: &str, position| Procedure {
        name: name.to_owned(),
        position,
    };
    let function = |name: &str, position| Function {
        name: name.to_owned(),
        position,
    };
    for (cypher, expected) in [
        ("LOAD CSV FROM 'file:///x' AS row RETURN row", LoadCsv(1)),
        ("L\\u004fAD/**/csv FROM $u AS r RETURN r", LoadCsv(1)),
        (
            "RETURN 1 AS x load\n// a\ncsv FROM 'x' AS r RETURN r",
            LoadCsv(15),
        ),
        (
            "CALL dbms.killConnection('1')",
            procedure("dbms.killConnection", 6),
        ),
        (
            "c\\u0061ll `dbms` . `listConfig` ()",
            procedure("dbms.listConfig", 6),
        ),
        ("CALL `dbms.listConfig`()", procedure("dbms.listConfig", 6)),
        (
            "MATCH (n) CALL/**/dbms.queryJmx('*') YIELD name RETURN name",
            procedure("dbms.queryJmx", 19),
        ),
        (
            "CALL { CALL tx.setMetaData({}) RETURN 1 AS x } RETURN x",
            procedure("tx.setMetaData", 13),
        ),
        (
            "RETURN 1.CALL dbms.listConfig()",
            procedure("dbms.listConfig", 15),
        ),
        (
            "WITH 1 AS as CALL apoc.cypher.doIt('', {}) YIELD value RETURN 1",
            procedure("apoc.cypher.doIt", 19),
        ),
        (
            "OPTIONAL CALL apoc.load.json('x')",
            procedure("apoc.load.json", 15),
        ),
        ("CALL DB.LABELS()", procedure("DB.LABELS", 6)),
        ("CALL gds.stream()", procedure("gds.stream", 6)),
        (
            "RETURN apoc.load.json('file:///etc/passwd')",
            function("apoc.load.json", 8),
        ),
        (
            "RETURN `apoc`.load /* */ . `json` ('x')",
            function("apoc.load.json", 8),
        ),
        (
            "RETURN `apoc.load.json`('x')",
            function("apoc.load.json", 8),
        ),
        (
            "RETURN (1).apoc.load.json('x')",
            function("apoc.load.json", 12),
        ),
        (
            "RETURN date.truncate('day', apoc.cypher.runFirstColumnSingle('', {}))",
            function("apoc.cypher.runFirstColumnSingle", 29),
        ),
        (
            "RETURN genai.vector.encode('x', 'OpenAI', {})",
            function("genai.vector.encode", 8),
        ),
        ("USE neo4j RETURN 1", Use(1)),
        ("use(other) RETURN 1", Use(1)),
        (
            "CALL { USE graph.byName('x') RETURN 1 AS x } RETURN x",
            Use(8),
        ),
        (
            "CALL { RETURN 1 AS x } IN TRANSACTIONS RETURN x",
            InTransactions(27),
        ),
        (
            "CALL { RETURN 1 AS x } in 4 concurrent transactions OF 10 ROWS RETURN x",
            InTransactions(40),
        ),
        ("TERMINATE TRANSACTIONS 'x'", Terminate(1)),
        (
            "SHOW TRANSACTIONS YIELD transactionId AS x TERMINATE TRANSACTION x",
            GateError::Show {
                what: "TRANSACTIONS".to_owned(),
                position: 1,
            },
        ),
        (
            "SHOW ALL USERS",
            GateError::Show {
                what: "ALL USERS".to_owned(),
                position: 1,
            },
        ),
        (
            "SHOW SETTINGS",
            GateError::Show {
                what: "SETTINGS".to_owned(),
                position: 1,
            },
        ),
        (
            "/* */ explain RETURN 1",
            GateError::Prefix {
                word: "EXPLAIN",
                position: 7,
            },
        ),
        (
            "PROFILE RETURN 1",
            GateError::Prefix {
                word: "PROFILE",
                position: 1,
            },
        ),
        (
            "CYPHER 25 RETURN 1",
            GateError::Prefix {
                word: "CYPHER",
                position: 1,
            },
        ),
        ("RETURN 1; RETURN 2", GateError::Several(11)),
        ("", GateError::Empty),
        (" // nothing\n;", GateError::Empty),
    ] {
        assert_eq!(read(cypher), Err(expected), "{cypher}");
    }
}

#[test]
fn a_write_changes_the_graph_and_its_schema_and_nothing_else() {
    for cypher in [
        "CREATE (n:A {x: 1})",
        "CREATE p = (a)-[:B]->(c) RETURN p",
        "MATCH (n) DETACH DELETE n",
        "CREATE INDEX a IF NOT EXISTS FOR (n:A) ON (n.x)",
        "CREATE VECTOR INDEX a FOR (n:A) ON (n.x)",
        "CREATE CONSTRAINT FOR (n:A) REQUIRE n.x IS UNIQUE",
        "DROP INDEX a",
        "INSERT (n:A)",
        "CALL db.create.setNodeVectorProperty(n, 'x', [1.0])",
    ] {
        assert_eq!(verdict(cypher, Purpose::Write), Ok(()), "{cypher}");
    }
    for cypher in [
        "CREATE USER a SET PASSWORD 'x'",
        "CREATE OR REPLACE DATABASE x",
        "CREATE /* */ \\u0041LIAS x FOR DATABASE y",
        "DROP DATABASE x",
        "DROP USER x",
        "ALTER CURRENT USER SET PASSWORD FROM 'a' TO 'b'",
        "GRANT ROLE admin TO x",
        "STOP DATABASE x",
        "RENAME USER a TO b",
        "ENABLE SERVER 'x'",
    ] {
        let outcome = verdict(cypher, Purpose::Write);
        assert!(
            matches!(outcome, Err(GateError::Administration { .. })),
            "{cypher}: {outcome:?}"
        );
    }
    for cypher in [
        "LOAD CSV FROM 'x' AS r CREATE (n)",
        "MATCH (n) CALL (n) { DELETE n } IN TRANSACTIONS",
        "CALL dbms.killConnections([])",
        "TERMINATE TRANSACTION 'x'",
        "SHOW USERS",
        "USE system CREATE USER a SET PASSWORD 'x'",
    ] {
        assert!(verdict(cypher, Purpose::Write).is_err(), "{cypher}");
    }
}

#[test]
fn words_are_found_where_they_are_key_words() -> anyhow::Result<()> {
    let found = |cypher: &str| -> anyhow::Result<bool> {
        Ok(Statement::unchecked(cypher)?.has_word("DELETE"))
    };
    assert!(found("MATCH (n) detach d\\u0065lete n")?);
    assert!(found("FOREACH (x IN [n] | DELETE x)")?);
    assert!(!found(
        "MATCH (n:DELETE {delete: 1}) RETURN n.delete, 'DELETE', `DELETE`, $delete"
    )?);
    let drop = Statement::unchecked("/* */ drop INDEX a")?;
    assert_eq!(drop.first_word().as_deref(), Some("DROP"));
    Ok(())
}

#[test]
fn a_long_statement_is_looked_through_in_time() {
    let many = format!("RETURN {}1", "a.b + ".repeat(100_000));
    assert_eq!(read(&many), Ok(()));
    assert_eq!(
        read(&"x".repeat(LONGEST + 1)),
        Err(GateError::TooLong(LONGEST + 1))
    );
}

#[test]
fn letters_of_another_alphabet_do_not_hide_a_key_word() {
    // The Kelvin sign and the long s are folded to letters of ASCII by some.
    assert_eq!(folded("uſe"), "USE");
    assert!(matches!(read("uſe x RETURN 1"), Err(GateError::Use(1))));
}
