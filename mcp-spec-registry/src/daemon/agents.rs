//! The agent socket: one greeting line that says who is calling, then MCP with stdio's framing.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use shared::{
    metrics::Metrics,
    principal::{Kind, Principal, Via},
    serve::connection,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::activity::Activity;
use crate::{
    registry::{Registry, blocking},
    server::SpecRegistry,
    store::TokenKind,
};

/// The greeting comes at once and is short.
const GREETING_TIME: Duration = Duration::from_secs(10);
const GREETING_BYTES: u64 = 4096;
/// More connections at once wait for their turn.
const MOST_AGENTS: usize = 256;

/// The first line on the agent socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Greeting {
    /// A name, believed only from the registry's own uid.
    pub(super) agent: Option<String>,
    /// A token, which says who it is whatever the uid.
    pub(super) token: Option<String>,
}

/// Serves every connection of the agent socket as an MCP session of its own.
pub(super) async fn serve(
    listener: UnixListener,
    registry: Registry,
    handler: SpecRegistry,
    metrics: Metrics,
    activity: Activity,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(MOST_AGENTS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return Ok(());
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors or memory; others may end and free some.
                    tracing::warn!(%error, "failed to accept an agent");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => return Ok(()),
        };
        let guest = activity.arrive();
        let (registry, handler, metrics, shutdown) = (
            registry.clone(),
            handler.clone(),
            metrics.clone(),
            shutdown.clone(),
        );
        tokio::spawn(async move {
            let _guest = (guest, slot);
            if let Err(error) = session(stream, registry, handler, &metrics, &shutdown).await {
                tracing::warn!(%error, "an agent's session ended");
            }
        });
    }
}

async fn session(
    stream: UnixStream,
    registry: Registry,
    handler: SpecRegistry,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut greeting = (&mut reader).take(GREETING_BYTES);
    tokio::time::timeout(GREETING_TIME, greeting.read_until(b'\n', &mut line)).await??;
    if line.is_empty() {
        return Ok(());
    }
    let greeting: Greeting = serde_json::from_slice(&line)
        .map_err(|error| anyhow::anyhow!("the greeting is not understood: {error}"))?;
    let principal = principal_of(greeting, uid, &registry).await?;
    registry.saw_agent(&principal.name, uid);
    connection(handler, reader, writer, principal, metrics, shutdown).await?;
    Ok(())
}

async fn principal_of(
    greeting: Greeting,
    uid: u32,
    registry: &Registry,
) -> anyhow::Result<Principal> {
    if let Some(token) = greeting.token {
        let registry = registry.clone();
        let row = blocking(move || registry.principal_of(&token)).await?;
        let row = row.filter(|row| row.kind == TokenKind::Agent);
        let row =
            row.ok_or_else(|| anyhow::anyhow!("no agent has the token that uid {uid} presented"))?;
        return Ok(Principal::new(row.principal, Kind::Agent, Via::Token));
    }
    let is_own = uid == rustix::process::geteuid().as_raw();
    match greeting.agent.filter(|_| is_own) {
        Some(name) => {
            let is_plain = |character: char| {
                character.is_ascii_alphanumeric()
                    || matches!(character, '-' | '_' | '.' | ':' | '@')
            };
            anyhow::ensure!(
                !name.is_empty() && name.len() <= 64 && name.chars().all(is_plain),
                "an agent's name has 1 to 64 ASCII letters, digits and . _ : @ -"
            );
            Ok(Principal::new(name, Kind::Agent, Via::Flag))
        }
        None => Ok(Principal::of_uid(uid)),
    }
}
