//! The one process that is the registry: holds the state directory, listens on three sockets and the approval page.

mod activity;
mod agents;
pub mod bridge;
pub mod launch;
pub mod lock;
pub mod pipe;
pub mod sockets;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use axum::{
    Extension, Router,
    extract::{ConnectInfo, Request, connect_info::Connected},
    middleware::{Next, from_fn},
    serve::IncomingStream,
};
use serde_json::json;
use shared::{
    metrics::Metrics,
    serve::{HttpServer, announce, shutdown_on_signals},
};
use time::OffsetDateTime;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::{
    approval, checks::Engine, config::ServeCommand, effect_plane, keys::Keys, registry::Registry,
    run::transition::Limits, server::SpecRegistry, store::sqlite::SqliteStore,
};
use activity::Activity;
use sockets::Sockets;

/// Connections to the approval page at once.
const MOST_BROWSERS: usize = 64;

/// Uid of the process at the other end of a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerUid(pub u32);

impl Connected<IncomingStream<'_, UnixListener>> for PeerUid {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        // A peer whose uid cannot be told is nobody's.
        Self(stream.io().peer_cred().map_or(u32::MAX, |peer| peer.uid()))
    }
}

/// Serves until a signal, or until nobody has needed it for `--idle-exit`. `detached` is a registry that a client started: it
/// says on stdout that it is ready.
///
/// # Errors
/// A state directory that is in use or not safe, sockets or addresses that cannot be listened on.
pub async fn serve(
    state_dir: PathBuf,
    socket_dir: Option<PathBuf>,
    command: ServeCommand,
) -> anyhow::Result<()> {
    let shutdown = shutdown_on_signals()?;
    let _lock = lock::hold_soon(&state_dir).await?;
    let sockets = Sockets::bind(&state_dir, socket_dir, &command)?;
    let registry = open_registry(&state_dir, &command)?;

    let page = listen_for_browsers(command.approval_listen).await?;
    let page_address = page.local_addr()?;
    let page_url = format!("http://localhost:{}", page_address.port());
    registry.set_page(page_url.clone());

    let metrics = Metrics::new();
    let handler = SpecRegistry::new(registry.clone(), metrics.clone())?;
    let http = HttpServer::bind(&command.http, None).await?;
    announce(
        "ready",
        json!({
            "state_dir": state_dir, "agent_socket": sockets.agent_path, "effect_socket": sockets.effect_path,
            "approval_socket": sockets.approval_path, "approval_page": page_url,
        }),
    );
    if command.detached {
        launch::report_ready()?;
    }

    let activity = Activity::default();
    let served = tokio::spawn(registry.clone().keep_time());
    let agents = agents::serve(
        sockets.agent,
        registry.clone(),
        handler.clone(),
        metrics.clone(),
        activity.clone(),
        shutdown.clone(),
    );
    let effects = serve_unix(
        sockets.effect,
        effect_plane::router(registry.clone()),
        &activity,
        &shutdown,
    );
    let approvals = serve_unix(
        sockets.approval,
        approval::api::router(registry.clone()),
        &activity,
        &shutdown,
    );
    let pages = serve_page(page, page_address, registry.clone(), &activity, &shutdown);
    let over_http = async {
        match http {
            Some(http) => Ok(http.run(handler, metrics, shutdown.clone()).await?),
            None => anyhow::Ok(()),
        }
    };
    let idle = activity.end_when_idle(command.idle_exit, registry.clone(), shutdown.clone());
    let result = tokio::try_join!(agents, effects, approvals, pages, over_http, idle);
    shutdown.cancel();
    served.abort();
    result.map(|_| ())
}

/// The registry over its state directory.
pub(crate) fn open_registry(
    state_dir: &std::path::Path,
    command: &ServeCommand,
) -> anyhow::Result<Registry> {
    let keys = Arc::new(Keys::of_state(state_dir)?);
    let store = Arc::new(SqliteStore::open(state_dir, Arc::clone(&keys))?);
    let mut limits = Limits::default();
    if let Some(grant) = command.grant_ttl {
        limits.grant = grant.try_into().context("--grant-ttl is too long")?;
    }
    let engine = Engine::new(&command.check_allow);
    Ok(Registry::new(
        store,
        keys,
        limits,
        Arc::new(OffsetDateTime::now_utc),
        engine,
    ))
}

/// Whether everything that the command line of `serve` names is there and fits, without listening.
pub(crate) fn check(command: &ServeCommand) -> anyhow::Result<()> {
    command.http.check()?;
    page_address(command.approval_listen)?;
    for group in [&command.agent_group, &command.effect_group] {
        group.as_deref().map(sockets::group_id).transpose()?;
    }
    Ok(())
}

fn page_address(wanted: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let address = wanted.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    anyhow::ensure!(
        address.ip().is_loopback(),
        "--approval-listen is `{address}`; the page is for loopback addresses (reach it from elsewhere through a tunnel)"
    );
    Ok(address)
}

async fn listen_for_browsers(wanted: Option<SocketAddr>) -> anyhow::Result<TcpListener> {
    let address = page_address(wanted)?;
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("failed to listen for the approval page on {address}"))
}

async fn serve_page(
    listener: TcpListener,
    address: SocketAddr,
    registry: Registry,
    activity: &Activity,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let page = activity.count(approval::page::router(registry, address));
    // Whoever can reach the port, with or without a secret, gets no more of the process's descriptors than these.
    shared::serve::serve_connections(&listener, MOST_BROWSERS, shutdown, |stream, peer| {
        let routes = page.clone().layer(Extension(ConnectInfo(peer)));
        shared::serve::answer(stream, routes, shutdown.clone())
    })
    .await;
    Ok(())
}

async fn serve_unix(
    listener: UnixListener,
    router: Router,
    activity: &Activity,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let router = activity.count(router).layer(from_fn(with_peer));
    let service = router.into_make_service_with_connect_info::<PeerUid>();
    // Waiting for work is cut off at the end, not waited for.
    tokio::select! {
        served = axum::serve(listener, service) => served?,
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

/// Lets handlers take the peer's uid as an extension.
async fn with_peer(
    ConnectInfo(peer): ConnectInfo<PeerUid>,
    mut request: Request,
    next: Next,
) -> axum::response::Response {
    request.extensions_mut().insert(peer);
    next.run(request).await
}
