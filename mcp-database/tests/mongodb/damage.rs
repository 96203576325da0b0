//! What a broken line does to a call, and that the next call is answered: between us and the stand-in stands a proxy that cuts, stalls,
//! or talks nonsense.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcp_database::mongodb::MongoError;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Source, source};

const WHOLE: u8 = 0;
const CUT: u8 = 1;
const STALL: u8 = 2;
const NONSENSE: u8 = 3;
const HUGE: u8 = 4;

/// A way to the server on which everything that the server says from now on is damaged as `damage` says.
async fn through_a_proxy(source: &Source) -> Result<(Source, Arc<AtomicU8>)> {
    let (_, server) = source
        .settings
        .url
        .rsplit_once("127.0.0.1:")
        .context("no address")?;
    let server = format!("127.0.0.1:{}", server.trim_end_matches('/'));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let damage = Arc::new(AtomicU8::new(WHOLE));
    let kind = Arc::clone(&damage);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (server, kind) = (server.clone(), Arc::clone(&kind));
            tokio::spawn(async move { drop(forward(client, &server, &kind).await) });
        }
    });
    let through =
        source.as_other(|settings| settings.url = format!("mongodb://127.0.0.1:{port}/"))?;
    Ok((through, damage))
}

async fn forward(client: TcpStream, server: &str, damage: &AtomicU8) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = tokio::io::copy(&mut from_client, &mut to_server);
    let answering = async {
        let mut part = vec![0; 64 * 1024];
        loop {
            let length = from_server.read(&mut part).await?;
            if length == 0 {
                return Ok(0);
            }
            match damage.load(Ordering::SeqCst) {
                CUT => {
                    to_client.write_all(&part[..length / 2]).await?;
                    return Ok(0);
                }
                STALL => {
                    to_client.write_all(&part[..length / 2]).await?;
                    std::future::pending::<()>().await;
                }
                NONSENSE => {
                    to_client
                        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        .await?;
                }
                HUGE => {
                    to_client
                        .write_all(&[
                            0xFF, 0xFF, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0, 0, 0xDD, 7, 0, 0,
                        ])
                        .await?;
                }
                _ => to_client.write_all(&part[..length]).await?,
            }
        }
    };
    tokio::select! {
        done = asking => done,
        done = answering => done,
    }
    .map(drop)
}

#[tokio::test]
async fn a_broken_line_is_a_clear_error_and_the_next_call_is_answered() -> Result<()> {
    let source = source!("java");
    source.insert("c", json!([{ "a": 1 }])).await?;
    for (name, kind) in [
        ("cut", CUT),
        ("stall", STALL),
        ("nonsense", NONSENSE),
        ("huge", HUGE),
    ] {
        let (through, damage) = through_a_proxy(&source).await?;
        assert_eq!(through.find("c", json!({})).await?.len(), 1);
        damage.store(kind, Ordering::SeqCst);
        let request = through.request("c");
        let reading = through.mongo.read(
            mcp_database::mongodb::read::Operation::Find,
            &request,
            mcp_database::table::Budget::default(),
            Duration::from_secs(8),
            mcp_database::mongodb::read::Layers::ALL,
        );
        let error = reading.await.err().context("it was answered")?;
        assert!(
            matches!(
                error,
                MongoError::Connection(_)
                    | MongoError::NoServer(_)
                    | MongoError::Timeout(_)
                    | MongoError::Reply(_)
            ),
            "{name}: {error:?}"
        );
        let told = error.to_string();
        assert!(
            told.len() < 300 && !told.contains("labels"),
            "{name}: {told}"
        );
        damage.store(WHOLE, Ordering::SeqCst);
        assert_eq!(through.find("c", json!({})).await?.len(), 1, "{name}");
    }
    Ok(())
}
