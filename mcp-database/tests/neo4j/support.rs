//! Connections for tests, and a proxy that looks at and tampers with the bytes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use mcp_database::neo4j::bolt::{
    Access, Auth, Batch, Connection, Endpoint, Limits, Map, Query, TransactionOptions, Value,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::server::{Lines, password, server as started};

/// How long a test waits for what takes moments on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Where the server without TLS is; the rest of a test is skipped where this machine cannot have one.
macro_rules! server {
    () => {
        match $crate::support::endpoint("plain")? {
            Some((endpoint, _)) => endpoint,
            None => return Ok(()),
        }
    };
}
pub(crate) use server;

/// Where the server of a flavor is, and what its script says of it.
pub(crate) fn endpoint(flavor: &str) -> Result<Option<(Endpoint, Lines)>> {
    let Some(lines) = started("neo4j", flavor)? else {
        return Ok(None);
    };
    let endpoint = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: lines
            .get("PORT")
            .context("the script says no port")?
            .parse()?,
        tls: None,
    };
    Ok(Some((endpoint, lines)))
}

pub(crate) fn auth() -> Auth {
    Auth::Basic {
        user: "neo4j".to_owned(),
        password: password().to_owned(),
    }
}

pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Connection> {
    connect_with(endpoint, Limits::default()).await
}

pub(crate) async fn connect_with(endpoint: &Endpoint, limits: Limits) -> Result<Connection> {
    Ok(Connection::connect(endpoint, &auth(), limits, PATIENCE).await?)
}

pub(crate) fn query(text: &str) -> Query {
    Query {
        text: text.to_owned(),
        parameters: Map::new(),
    }
}

pub(crate) fn reading() -> TransactionOptions {
    TransactionOptions::default()
}

pub(crate) fn writing() -> TransactionOptions {
    TransactionOptions {
        access: Access::Write,
        ..TransactionOptions::default()
    }
}

/// Everything the query gives, read only.
pub(crate) async fn all(
    connection: &mut Connection,
    text: &str,
) -> Result<Batch, mcp_database::neo4j::bolt::Error> {
    Ok(connection
        .run_and_pull(&query(text), &reading(), 100_000)
        .await?
        .1)
}

pub(crate) async fn write(
    connection: &mut Connection,
    text: &str,
) -> Result<Batch, mcp_database::neo4j::bolt::Error> {
    Ok(connection
        .run_and_pull(&query(text), &writing(), 100_000)
        .await?
        .1)
}

/// The only value of the only record.
pub(crate) async fn one(connection: &mut Connection, text: &str) -> Result<Value> {
    let batch = all(connection, text).await?;
    let [record] = &batch.records[..] else {
        anyhow::bail!("{} records", batch.records.len())
    };
    let [value] = &record[..] else {
        anyhow::bail!("{} values", record.len())
    };
    Ok(value.clone())
}

/// The code of a refusal by the server.
pub(crate) fn code<T: std::fmt::Debug>(
    outcome: Result<T, mcp_database::neo4j::bolt::Error>,
) -> Result<String> {
    match outcome {
        Err(mcp_database::neo4j::bolt::Error::Server { code, .. }) => Ok(code),
        other => anyhow::bail!("expected a refusal, got {other:?}"),
    }
}

/// A name no other test uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}_{}_{number}", std::process::id())
}

/// How many transactions with this tag the server is running.
pub(crate) async fn running(observer: &mut Connection, tag: &str) -> Result<i64> {
    let text =
        format!("SHOW TRANSACTIONS YIELD metaData WHERE metaData.tag = '{tag}' RETURN count(*)");
    one(observer, &text).await?.as_integer().context("a count")
}

/// Waits until the server runs nothing with this text in it.
pub(crate) async fn wait_until_idle(observer: &mut Connection, marker: &str) -> Result<()> {
    let text = format!(
        "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery CONTAINS '{marker}' \
         AND NOT currentQuery STARTS WITH 'SHOW' RETURN count(*)"
    );
    tokio::time::timeout(PATIENCE, async {
        while one(observer, &text).await? != Value::Integer(0) {}
        Ok(())
    })
    .await?
}

/// Waits until the number of transactions with this tag is `wanted`.
pub(crate) async fn wait_until_running(
    observer: &mut Connection,
    tag: &str,
    wanted: i64,
) -> Result<()> {
    let start = std::time::Instant::now();
    while running(observer, tag).await? != wanted {
        anyhow::ensure!(start.elapsed() < PATIENCE, "still not {wanted} of {tag}");
    }
    Ok(())
}

/// A listener that gives every connection to `serve`.
pub(crate) async fn listen<Serving>(
    serve: impl Fn(TcpStream) -> Serving + Send + 'static,
) -> Result<(Endpoint, JoinHandle<()>)>
where
    Serving: Future<Output = std::io::Result<()>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(serve(stream).await);
        }
    });
    Ok((
        Endpoint {
            host: "127.0.0.1".to_owned(),
            port,
            tls: None,
        },
        task,
    ))
}

/// Forwards to `server`, replacing the version offers by `offers` if given, and cutting the
/// connection after so many bytes from the server.
pub(crate) async fn proxy(
    server: &Endpoint,
    offers: Option<[u8; 16]>,
    cut_after: usize,
) -> Result<(Endpoint, JoinHandle<()>)> {
    let address = format!("{}:{}", server.host, server.port);
    listen(move |mut client| {
        let address = address.clone();
        async move {
            let mut server = TcpStream::connect(address).await?;
            let mut handshake = [0; 20];
            client.read_exact(&mut handshake).await?;
            if let Some(offers) = offers {
                handshake[4..].copy_from_slice(&offers);
            }
            server.write_all(&handshake).await?;
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let mut limited = (&mut from_server).take(cut_after as u64);
            tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                _ = tokio::io::copy(&mut limited, &mut to_client) => {}
            }
            Ok(())
        }
    })
    .await
}
