//! How a source is opened and what keeps it from answering; case 67 of the anchors.

use anyhow::{Context as _, Result, ensure};
use mcp_database::neo4j::Neo4j;
use mcp_database::neo4j::deps::{self, Question};
use mcp_database::neo4j::error::{GraphError, Refusal};
use mcp_database::neo4j::schema::SchemaAsk;
use mcp_database::neo4j::search::{Search, Sought};
use mcp_database::neo4j::upsert::Upsert;
use mcp_database::neo4j::walk::{Direction, Start};
use mcp_database::source::{Mode, Password, Settings, SourceError, Tls};
use serde_json::{Map, json};

use crate::graph::{ask, refusal, settings, value};
use crate::support::{connect, endpoint, proxy, unique, write};

/// The settings of a read source, changed; the rest of a test is skipped where there is no server.
macro_rules! changed {
    ($change:expr) => {
        match settings(Mode::Read)? {
            Some(mut settings) => {
                let change: &dyn Fn(&mut Settings) = &$change;
                change(&mut settings);
                settings
            }
            None => return Ok(()),
        }
    };
}

async fn failure(settings: &Settings) -> Result<GraphError> {
    let graph = Neo4j::open(settings)?;
    let outcome = graph.read(ask("RETURN 1", &Map::new())).await;
    outcome.err().context("it answered")
}

#[tokio::test]
async fn case_67_a_routing_url_reaches_a_single_server() -> Result<()> {
    let settings = changed!(|settings| settings.url = settings.url.replace("bolt://", "neo4j://"));
    let graph = Neo4j::open(&settings)?;
    ensure!(graph.address().is_routing);
    assert_eq!(value(&graph, "RETURN 1").await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn case_67_encryption_that_does_not_match_is_named() -> Result<()> {
    let settings = changed!(|settings| {
        settings.tls = Tls::Verified {
            ca_file: None,
            client: None,
        };
    });
    let error = failure(&settings).await?;
    ensure!(
        matches!(&error, GraphError::Unreachable { hint: Some(_), .. }),
        "{error:?}"
    );
    let Some((endpoint, lines)) = endpoint("tls")? else {
        return Ok(());
    };
    let ca = lines.get("CA").context("the script names no authority")?;
    let encrypted = Settings {
        url: format!("bolt+s://neo4j@localhost:{}", endpoint.port),
        tls: Tls::Verified {
            ca_file: Some(ca.into()),
            client: None,
        },
        ..settings.clone()
    };
    assert_eq!(
        value(&Neo4j::open(&encrypted)?, "RETURN 1").await?,
        json!(1)
    );
    let in_the_clear = Settings {
        url: format!("bolt://neo4j@127.0.0.1:{}", endpoint.port),
        tls: Tls::OffLoopback,
        ..settings.clone()
    };
    let error = failure(&in_the_clear).await?;
    ensure!(error.to_string().contains("bolt+s://"), "{error}");
    // The system knows no such authority.
    let distrusting = Settings {
        tls: Tls::OffLoopback,
        ..encrypted
    };
    let error = failure(&distrusting).await?;
    ensure!(
        error.hint().is_some_and(|hint| hint.contains("ca_file")),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn case_67_a_wrong_password_is_told_once_and_not_tried_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2-hunter2")?;
    // A user of its own, so that nobody else is locked out.
    let user = unique("locked");
    let Some((server, _)) = endpoint("plain")? else {
        return Ok(());
    };
    let create = format!("CREATE USER {user} SET PASSWORD 'right-and-long' CHANGE NOT REQUIRED");
    write(&mut connect(&server).await?, &create).await?;
    let settings = changed!(|settings| {
        settings.url = settings.url.replace("neo4j@", &format!("{user}@"));
        settings.password = Some(Password::File(file.clone()));
    });
    let graph = Neo4j::open(&settings)?;
    for _ in 0..20 {
        let outcome = graph.read(ask("RETURN 1", &Map::new())).await;
        let Err(GraphError::Login { code, message }) = outcome else {
            anyhow::bail!("{:?}", outcome.err());
        };
        // Twenty attempts would have locked the user out.
        assert_eq!(code, "Neo.ClientError.Security.Unauthorized");
        ensure!(!message.contains("hunter2"));
    }
    // Each source of its own tries, until the server has enough.
    let mut codes = Vec::new();
    for _ in 0..5 {
        if let GraphError::Login { code, .. } = failure(&settings).await? {
            codes.push(code);
        }
    }
    ensure!(
        codes
            .iter()
            .any(|code| code.ends_with("AuthenticationRateLimit")),
        "{codes:?}"
    );
    Ok(())
}

#[tokio::test]
async fn case_67_an_unknown_database_is_named() -> Result<()> {
    let settings = changed!(|settings| settings.url = format!("{}where", settings.url));
    let error = failure(&settings).await?;
    assert_eq!(refusal::<()>(&Err(error)), Some(Refusal::Database));
    Ok(())
}

#[tokio::test]
async fn case_67_a_dead_server_stops_no_start_and_is_tried_again() -> Result<()> {
    let settings = changed!(|settings| settings.url = "bolt://neo4j@127.0.0.1:1".to_owned());
    let error = failure(&settings).await?;
    ensure!(matches!(error, GraphError::Unreachable { .. }), "{error}");
    let settings = changed!(|settings| settings.password = Some(Password::File("/no/such".into())));
    let error = failure(&settings).await?;
    ensure!(
        matches!(error, GraphError::Source(SourceError::Password { .. })),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn case_67_bolt_4_4_is_spoken_too() -> Result<()> {
    let Some((server, _)) = endpoint("plain")? else {
        return Ok(());
    };
    let mut offers = [0; 16];
    offers[..4].copy_from_slice(&[0, 2, 4, 4]);
    let (through, serving) = proxy(&server, Some(offers), usize::MAX).await?;
    let settings = changed!(
        |settings| settings.url = format!("bolt://neo4j@127.0.0.1:{}/neo4j", through.port)
    );
    let graph = Neo4j::open(&settings)?;
    assert_eq!(value(&graph, "RETURN 1").await?, json!(1));
    let refused = graph.read(ask("CREATE (n)", &Map::new())).await;
    ensure!(refused.is_err());
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn case_67_a_connection_killed_mid_pull_is_an_error_and_replaced() -> Result<()> {
    let Some((server, _)) = endpoint("plain")? else {
        return Ok(());
    };
    let (through, serving) = proxy(&server, None, 20_000).await?;
    let settings = changed!(
        |settings| settings.url = format!("bolt://neo4j@127.0.0.1:{}/neo4j", through.port)
    );
    let graph = Neo4j::open(&settings)?;
    assert_eq!(value(&graph, "RETURN 1").await?, json!(1));
    let large = "UNWIND range(1, 1000) AS n RETURN n, reduce(t = '', i IN range(1, 500) | t + 'x')";
    let outcome = graph.read(ask(large, &Map::new())).await;
    ensure!(
        matches!(outcome, Err(GraphError::Connection(_))),
        "{:?}",
        outcome.err()
    );
    assert_eq!(value(&graph, "RETURN 2").await?, json!(2));
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn connections_that_died_unused_are_replaced() -> Result<()> {
    let Some((server, _)) = endpoint("plain")? else {
        return Ok(());
    };
    let (through, serving) = proxy(&server, None, usize::MAX).await?;
    let settings = changed!(
        |settings| settings.url = format!("bolt://neo4j@127.0.0.1:{}/neo4j", through.port)
    );
    let graph = Neo4j::open(&settings)?;
    assert_eq!(value(&graph, "RETURN 1").await?, json!(1));
    serving.abort();
    let outcome = graph.read(ask("RETURN 1", &Map::new())).await;
    ensure!(
        matches!(outcome, Err(GraphError::Unreachable { .. })),
        "{:?}",
        outcome.err()
    );
    Ok(())
}

#[test]
fn every_call_can_move_between_threads() -> Result<()> {
    fn moves<T: Send>(_: T) {}
    let settings = Settings {
        id: "graph".to_owned(),
        engine: mcp_database::source::Engine::Neo4j,
        url: "bolt://localhost".to_owned(),
        password: None,
        mode: Mode::Write,
        tls: Tls::OffLoopback,
        limits: mcp_database::source::Limits::default(),
        special: mcp_database::source::Special::default(),
    };
    let graph = Neo4j::open(&settings)?;
    let none = Map::new();
    let change = mcp_database::neo4j::write::Change {
        cypher: "",
        parameters: &none,
        budget: mcp_database::table::Budget::default(),
        timeout: None,
        dry_run: true,
        expected: None,
    };
    moves(graph.read(ask("", &none)));
    moves(graph.plan(change));
    moves(graph.write(change));
    moves(graph.upsert(Upsert {
        nodes: &[],
        relationships: &[],
        timeout: None,
        dry_run: true,
    }));
    moves(graph.schema(&SchemaAsk::default()));
    moves(graph.posture(None));
    moves(graph.health(&[], None));
    let start = Start::Id(String::new());
    moves(graph.dependencies(&Question {
        start: start.clone(),
        direction: Direction::Up,
        types: Vec::new(),
        depth: 1,
        nodes: 1,
        mode: deps::Mode::List,
        timeout: None,
    }));
    moves(graph.search(&Search {
        sought: Sought::Like(start),
        index: None,
        label: None,
        hits: 1,
        hops: 0,
        around: 0,
        timeout: None,
    }));
    Ok(())
}
