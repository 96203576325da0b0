//! Serving MCP in both protocol eras: on stdin and stdout, on any stream with the same framing, and over Streamable HTTP.

mod http;
mod json;
mod lines;
mod sessions;
mod tls;
pub mod tokens;

use std::{
    future::Future,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
};

use rmcp::{ServerHandler, service::ServerInitializeError, transport::stdio_pipes};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

pub use self::http::{HttpServer, answer, serve_connections};
pub use self::json::Json;
use self::lines::LineTransport;
use crate::{
    metrics::Metrics,
    principal::{Caller, Principal},
};

/// The largest request: of a line on stdio, of a body over HTTP.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// How a server is reached and as whom; flattened into an effect server's own arguments.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeArgs {
    /// Streamable HTTP.
    #[command(flatten)]
    pub http: HttpArgs,
    /// Name of the agent that calls over stdio, or over HTTP without a token [default: uid:<n>].
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Where state is kept [default: $XDG_STATE_HOME/spec-driven-ai/<server>].
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Where and to whom Streamable HTTP is served.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct HttpArgs {
    /// Serve Streamable HTTP on this address (for example 127.0.0.1:8080; port 0 takes a free one).
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Who may call over HTTP: a TOML file of [[token]] entries with principal, kind and sha256.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_loopback")]
    pub tokens: Option<PathBuf>,
    /// Let every process of this machine call over HTTP without a token; loopback addresses only.
    #[arg(long)]
    pub insecure_loopback: bool,
    /// Certificate chain (PEM) for HTTPS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Host name by which HTTP clients may call this server, besides loopback names; may be given several times.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub allowed_host: Vec<String>,
}

/// Serving that cannot begin, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// HTTP without saying who may call.
    #[error(
        "--http needs --tokens FILE, or on loopback --insecure-loopback to let every local process call"
    )]
    NoTokens,
    /// `--insecure-loopback` where others could call.
    #[error("--insecure-loopback is for loopback addresses, and `{0}` is none; give --tokens FILE")]
    NotLoopback(SocketAddr),
    /// The token file cannot be used.
    #[error(transparent)]
    Tokens(#[from] tokens::TokensError),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The address cannot be listened on.
    #[error("failed to listen on `{address}`: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be handled.
    #[error("failed to handle signals: {0}")]
    Signals(io::Error),
    /// The client began with what is no MCP.
    #[error("the client did not begin an MCP session: {0}")]
    Handshake(Box<ServerInitializeError>),
    /// The task that served failed.
    #[error("the serving task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Runs a server's future on a runtime of one thread and returns at its end without waiting for what else runs: a blocked
/// read of stdin must not keep the process alive.
///
/// # Errors
/// A runtime that cannot be made.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(result)
}

/// Handles SIGTERM and SIGINT from now on by cancelling the returned token, on which everything hangs that must end with
/// the server. To be called before anything is served.
///
/// # Errors
/// Handlers that cannot be installed.
pub fn shutdown_on_signals() -> Result<CancellationToken, ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending on a signal");
        token.cancel();
    });
    Ok(shutdown)
}

/// Serves as the arguments say, over HTTP or stdio, until stdin ends or `shutdown` is cancelled; cancels it at the end.
/// `handler` is cloned for each connection or request, so its state is shared.
///
/// # Errors
/// What keeps it from serving.
pub async fn serve<S: ServerHandler + Clone>(
    handler: S,
    arguments: &ServeArgs,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let _ended = shutdown.clone().drop_guard();
    if let Some(server) = HttpServer::bind(&arguments.http, arguments.agent.as_deref()).await? {
        return server.run(handler, metrics, shutdown).await;
    }
    let (reader, writer) = stdio_pipes();
    connection(
        handler,
        reader,
        writer,
        Principal::of_flag(arguments.agent.as_deref()),
        &metrics,
        &shutdown,
    )
    .await
}

/// Serves one MCP session with stdio's framing on any pair of streams, as this principal, until the reader ends or `ended`
/// is cancelled. Either way, calls that still run are told to stop at once.
///
/// # Errors
/// A client that does not begin as MCP clients do.
pub async fn connection<S, R, W>(
    handler: S,
    reader: R,
    writer: W,
    principal: Principal,
    metrics: &Metrics,
    ended: &CancellationToken,
) -> Result<(), ServeError>
where
    S: ServerHandler,
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let began = std::time::Instant::now();
    let session = ended.child_token();
    let _session_ended = session.clone().drop_guard();
    let transport = LineTransport::new(
        reader,
        writer,
        Caller {
            principal,
            ended: session,
            calls: tokio_util::task::TaskTracker::new(),
        },
    );
    let result =
        match rmcp::service::serve_server_with_ct(handler, transport, ended.child_token()).await {
            Ok(running) => running
                .waiting()
                .await
                .map(|_| ())
                .map_err(ServeError::Task),
            Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
                Ok(())
            }
            Err(error) => Err(ServeError::Handshake(Box::new(error))),
        };
    metrics.observe(
        "mcp_server_session_duration_seconds",
        "How long sessions lasted.",
        &[("network_transport", "pipe")],
        began.elapsed(),
    );
    result
}

/// Says something about the process as one JSON line on stderr, whatever the log level: an address to connect to, a mode
/// that the operator must know of. `event` is stable, for scripts.
pub fn announce(event: &str, mut fields: Value) {
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("event".to_owned(), event.into());
    }
    // A stderr that nobody reads any more is no reason to fail.
    let _ = writeln!(io::stderr(), "{fields}");
}

#[cfg(test)]
mod tests;
