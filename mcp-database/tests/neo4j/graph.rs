//! Sources of the servers, and what tests ask of them.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcp_database::neo4j::Neo4j;
use mcp_database::neo4j::error::{GraphError, Refusal};
use mcp_database::neo4j::read::{Ask, Found, Layers};
use mcp_database::source::{Engine, Limits, Mode, Password, Settings, Special, Tls};
use mcp_database::table::Budget;
use serde_json::{Map, Value, json};

use crate::server::password;
use crate::support::endpoint;

/// A source of the server without TLS; the rest of a test is skipped where this machine cannot have one.
macro_rules! graph {
    ($mode:ident) => {
        match $crate::graph::settings(mcp_database::source::Mode::$mode)? {
            Some(settings) => mcp_database::neo4j::Neo4j::open(&settings)?,
            None => return Ok(()),
        }
    };
}
pub(crate) use graph;

/// A file with the password of the servers, for as long as the run.
pub(crate) fn password_file() -> Result<PathBuf> {
    static FILE: LazyLock<Option<(tempfile::TempDir, PathBuf)>> = LazyLock::new(|| {
        let folder = tempfile::tempdir().ok()?;
        let path = folder.path().join("password");
        std::fs::write(&path, password()).ok()?;
        Some((folder, path))
    });
    let (_, path) = FILE.as_ref().context("no file for the password")?;
    Ok(path.clone())
}

pub(crate) fn settings(mode: Mode) -> Result<Option<Settings>> {
    let Some((endpoint, _)) = endpoint("plain")? else {
        return Ok(None);
    };
    Ok(Some(Settings {
        id: "graph".to_owned(),
        engine: Engine::Neo4j,
        url: format!("bolt://neo4j@127.0.0.1:{}/neo4j", endpoint.port),
        password: Some(Password::File(password_file()?)),
        mode,
        tls: Tls::OffLoopback,
        limits: Limits::default(),
        special: Special::default(),
    }))
}

/// A query as tests ask it: 100 rows, nothing kept.
pub(crate) fn ask<'a>(cypher: &'a str, parameters: &'a Map<String, Value>) -> Ask<'a> {
    Ask {
        cypher,
        parameters,
        budget: Budget::default(),
        timeout: Some(Duration::from_mins(1)),
        keep: Duration::ZERO,
        whole_vectors: false,
    }
}

pub(crate) async fn read_within(
    graph: &Neo4j,
    cypher: &str,
    layers: Layers,
) -> Result<Found, GraphError> {
    graph.read_within(ask(cypher, &Map::new()), layers).await
}

/// The rows of a read.
pub(crate) async fn rows(graph: &Neo4j, cypher: &str) -> Result<Vec<Vec<Value>>> {
    let found = graph.read(ask(cypher, &Map::new())).await;
    let found = found.with_context(|| cypher.to_owned())?;
    Ok(found.answer.rows.into_rows())
}

/// The only value of the only row.
pub(crate) async fn value(graph: &Neo4j, cypher: &str) -> Result<Value> {
    let mut rows = rows(graph, cypher).await?;
    ensure!(rows.len() == 1, "{cypher} gives {} rows", rows.len());
    let mut row = rows.remove(0);
    ensure!(row.len() == 1, "{cypher} gives {} columns", row.len());
    Ok(row.remove(0))
}

/// How many nodes have a label.
pub(crate) async fn count(graph: &Neo4j, label: &str) -> Result<Value> {
    value(graph, &format!("MATCH (n:`{label}`) RETURN count(n)")).await
}

pub(crate) fn refusal<T>(outcome: &Result<T, GraphError>) -> Option<Refusal> {
    match outcome {
        Err(GraphError::Server { refusal, .. }) => Some(*refusal),
        _ => None,
    }
}

/// An object of JSON.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => Map::from_iter([("value".to_owned(), json!(other))]),
    }
}
