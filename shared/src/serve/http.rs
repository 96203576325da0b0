//! Streamable HTTP: `/mcp` for calls, `/healthz` for anybody, `/metrics` for whoever may call.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::{
    ServerHandler,
    transport::streamable_http_server::tower::{StreamableHttpServerConfig, StreamableHttpService},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    HttpArgs, MAX_REQUEST_BYTES, ServeError, announce,
    json::{Json, is_json},
    sessions::{Admission, Sessions},
    tls,
    tokens::Tokens,
};
use crate::{
    metrics::Metrics,
    principal::{Caller, Kind, Principal, Via},
};

/// Connections at once; further ones wait in the kernel.
const MAX_CONNECTIONS: usize = 512;
/// How long a client may take for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may wait for the head of its first or next request.
const IDLE: Duration = Duration::from_secs(75);
/// How long answers that are under way may take once the server is told to end.
const WIND_UP: Duration = Duration::from_secs(3);
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// A listener that is bound and knows who may call.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    access: Access,
    hosts: Vec<String>,
}

#[derive(Clone)]
struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

#[derive(Debug, Clone)]
enum Access {
    Tokens(Tokens),
    /// Everybody on this machine is this principal.
    Loopback(Principal),
}

#[derive(Clone)]
struct Gate {
    access: Arc<Access>,
    sessions: Arc<Sessions>,
    hosts: Arc<[String]>,
    shutdown: CancellationToken,
}

impl HttpArgs {
    /// Reads what serving would read, without listening.
    ///
    /// # Errors
    /// Nobody named who may call, unusable tokens or certificates.
    pub fn check(&self) -> Result<(), ServeError> {
        match (self.http, &self.tokens) {
            (Some(wanted), _) => access(self, wanted, None).map(drop)?,
            (None, Some(path)) => Tokens::load(path).map(drop)?,
            (None, None) => {}
        }
        certificate(self).map(drop)
    }
}

fn access(
    arguments: &HttpArgs,
    wanted: SocketAddr,
    agent: Option<&str>,
) -> Result<Access, ServeError> {
    Ok(match (&arguments.tokens, arguments.insecure_loopback) {
        (Some(path), _) => Access::Tokens(Tokens::load(path)?),
        (None, true) if wanted.ip().is_loopback() => Access::Loopback(loopback(agent)),
        (None, true) => return Err(ServeError::NotLoopback(wanted)),
        (None, false) => return Err(ServeError::NoTokens),
    })
}

fn certificate(arguments: &HttpArgs) -> Result<Option<Tls>, ServeError> {
    Ok(match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls(tls::acceptor(certificate, key)?)),
        _ => None,
    })
}

impl HttpServer {
    /// Binds the address that `--http` names; `None` without that flag. Says the address on stderr, as
    /// `{"event":"listening","transport":"http","address":…,"url":…}`.
    ///
    /// # Errors
    /// Nobody named who may call, unusable tokens or certificates, an address that is taken.
    pub async fn bind(
        arguments: &HttpArgs,
        agent: Option<&str>,
    ) -> Result<Option<Self>, ServeError> {
        let Some(wanted) = arguments.http else {
            return Ok(None);
        };
        let access = access(arguments, wanted, agent)?;
        let tls = certificate(arguments)?;
        let failed = |source| ServeError::Bind {
            address: wanted,
            source,
        };
        let listener = TcpListener::bind(wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut hosts: Vec<String> = LOOPBACK_NAMES
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        hosts.extend(
            arguments
                .allowed_host
                .iter()
                .map(|host| host.trim().to_ascii_lowercase()),
        );
        if !address.ip().is_unspecified() && !address.ip().is_loopback() {
            // A literal address cannot be bent to another one, as names can.
            hosts.push(
                SocketAddr::new(address.ip(), 0)
                    .to_string()
                    .trim_end_matches(":0")
                    .to_owned(),
            );
        }
        let server = Self {
            listener,
            address,
            tls,
            access,
            hosts,
        };
        server.introduce();
        Ok(Some(server))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    fn introduce(&self) {
        let url = format!("{}://{}/mcp", self.scheme(), self.address);
        announce(
            "listening",
            json!({ "transport": "http", "address": self.address.to_string(), "url": url }),
        );
        if matches!(self.access, Access::Loopback(_)) {
            announce(
                "insecure_loopback",
                json!({ "message": "every process and user of this machine may call this server without a token" }),
            );
        } else if self.tls.is_none() && !self.address.ip().is_loopback() {
            announce(
                "unencrypted",
                json!({ "message": "tokens and results cross the network unencrypted; give --tls-cert and --tls-key, or put a TLS proxy in front" }),
            );
        }
    }

    /// Serves until `shutdown` is cancelled, then lets answers under way end for a moment. `handler` is cloned for each
    /// request or session.
    ///
    /// # Errors
    /// None after binding; connections that fail end alone.
    pub async fn run<S: ServerHandler + Clone>(
        self,
        handler: S,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let Self { listener, tls, .. } = &self;
        let routes = self.routes(handler, metrics, &shutdown);
        let serve = |stream, _peer| connect(stream, tls.clone(), routes.clone(), shutdown.clone());
        serve_connections(listener, MAX_CONNECTIONS, &shutdown, serve).await;
        Ok(())
    }

    fn routes<S: ServerHandler + Clone>(
        &self,
        handler: S,
        metrics: Metrics,
        shutdown: &CancellationToken,
    ) -> Router {
        let sessions = Arc::new(Sessions::default());
        let config = StreamableHttpServerConfig::default()
            .with_cancellation_token(shutdown.child_token())
            .with_max_request_body_bytes(MAX_REQUEST_BYTES)
            .with_json_response(true)
            .with_allowed_hosts(self.hosts.clone())
            .enforce_origin_validation()
            .with_allowed_origins(self.origins());
        let mcp = StreamableHttpService::new(
            move || Ok(handler.clone()),
            sessions.manager.clone(),
            config,
        );
        let gate = Gate {
            access: Arc::new(self.access.clone()),
            sessions,
            hosts: self.hosts.clone().into(),
            shutdown: shutdown.clone(),
        };
        Router::new()
            .route_service("/mcp", mcp)
            .route(
                "/metrics",
                get(move || async move {
                    (
                        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
                        metrics.render(),
                    )
                }),
            )
            .layer(middleware::from_fn_with_state(gate, enter))
            .route("/healthz", get(|| async { "ok\n" }))
            .layer(middleware::map_response(end_connection_after_refusal))
    }

    /// The origins of pages that this very server would serve: exact, with the port.
    fn origins(&self) -> Vec<String> {
        let port = self.address.port();
        self.hosts
            .iter()
            .map(|host| {
                let has_port = host
                    .parse::<http::uri::Authority>()
                    .is_ok_and(|authority| authority.port().is_some());
                if has_port {
                    format!("{}://{host}", self.scheme())
                } else {
                    format!("{}://{host}:{port}", self.scheme())
                }
            })
            .collect()
    }
}

fn loopback(agent: Option<&str>) -> Principal {
    match agent {
        Some(name) => Principal::new(name, Kind::Agent, Via::Flag),
        None => Principal::new("loopback", Kind::Agent, Via::Loopback),
    }
}

/// Hands each connection to `serve`, at most `most` at a time, until `shutdown` is cancelled; those under way then have a moment
/// to end. Dropped before, it drops every connection with it.
pub async fn serve_connections<F>(
    listener: &TcpListener,
    most: usize,
    shutdown: &CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    let next = async || loop {
        let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, peer)) => return Some((stream, peer, slot)),
            Err(error) => {
                // Out of descriptors, mostly; accepting again at once would only spin.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    while let Some(Some((stream, peer, slot))) = shutdown.run_until_cancelled(next()).await {
        let served = serve(stream, peer);
        connections.spawn(async move {
            served.await;
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    }
    let _ = tokio::time::timeout(WIND_UP, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

async fn connect(stream: TcpStream, tls: Option<Tls>, routes: Router, shutdown: CancellationToken) {
    // Without this, answers wait some 40 ms for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    match tls {
        None => answer(stream, routes, shutdown).await,
        Some(Tls(acceptor)) => {
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => answer(stream, routes, shutdown).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        }
    }
}

/// Answers the requests of one connection until it ends, is idle or slow to say what it wants for too long, or the server ends.
pub async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    shutdown: CancellationToken,
) {
    let service =
        hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let routes = routes.clone();
            async move {
                Ok::<_, Infallible>(
                    routes
                        .oneshot(request.map(Body::new))
                        .await
                        .unwrap_or_else(|never| match never {}),
                )
            }
        });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Lets in whoever shows a token of an agent, and marks the request with who it is.
async fn enter(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    if !host_is_allowed(&request, &gate.hosts) {
        return refuse(
            StatusCode::FORBIDDEN,
            "the Host header names a host that this server is not allowed to be; the operator can allow it with --allowed-host",
        );
    }
    let principal = match &*gate.access {
        Access::Loopback(principal) => principal.clone(),
        Access::Tokens(tokens) => {
            match bearer(&request).and_then(|token| tokens.principal(token)) {
                Some(principal) => principal.clone(),
                None => return unauthorized(),
            }
        }
    };
    if principal.kind != Kind::Agent {
        return refuse(StatusCode::FORBIDDEN, "this token is not an agent's");
    }
    match gate
        .sessions
        .admit(request.headers(), &principal.name)
        .await
    {
        Admission::Enter => {}
        Admission::NotFound => {
            return refuse(StatusCode::NOT_FOUND, "Not Found: Session not found");
        }
        Admission::Full => {
            return refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many sessions are open; end one, or wait five minutes",
            );
        }
    }
    let name = principal.name.clone();
    request.extensions_mut().insert(Caller {
        principal,
        ended: gate.shutdown.clone(),
        calls: tokio_util::task::TaskTracker::new(),
    });
    let sent_json = is_json(request.headers());
    let answer = next.run(request).await;
    if sent_json && answer.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return not_a_message();
    }
    gate.sessions.remember(answer.headers(), &name).await;
    answer
}

/// A refusal may leave the rest of the body unread, and the connection then ends. A client that is not told would send its next call
/// into it.
async fn end_connection_after_refusal(mut answer: Response) -> Response {
    if answer.status().is_client_error() || answer.status().is_server_error() {
        let close = header::HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

/// The SDK checks this too, for its own route; here it stands in front of all that needs a token.
fn host_is_allowed(request: &Request, hosts: &[String]) -> bool {
    let named = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let Some(Ok(authority)) = named.map(str::parse::<http::uri::Authority>) else {
        return false;
    };
    let (host, whole) = (
        authority.host().to_ascii_lowercase(),
        authority.as_str().to_ascii_lowercase(),
    );
    hosts
        .iter()
        .any(|allowed| *allowed == host || *allowed == whole)
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The SDK calls JSON that it cannot read an unsupported media type.
fn not_a_message() -> Response {
    let error = json!({ "code": -32700, "message": "Parse error: the body is not one JSON-RPC 2.0 message of MCP" });
    (
        StatusCode::BAD_REQUEST,
        Json(json!({ "jsonrpc": "2.0", "error": error })),
    )
        .into_response()
}

fn unauthorized() -> Response {
    let mut response = refuse(
        StatusCode::UNAUTHORIZED,
        "send a token: Authorization: Bearer TOKEN",
    );
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn refuse(status: StatusCode, reason: &'static str) -> Response {
    (status, format!("{reason}\n")).into_response()
}
