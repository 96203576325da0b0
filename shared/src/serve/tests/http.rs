//! What clients and strangers get over HTTP.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, header::HeaderMap};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, error_of, modern_meta, soon, tight};
use crate::{
    metrics::Metrics,
    principal::Kind,
    serve::{
        HttpArgs, HttpServer, MAX_REQUEST_BYTES, ServeError,
        tokens::{Token, sha256_of, to_file},
    },
};

/// A server on a free loopback port.
struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), ServeError>>,
    fixture: Fixture,
    folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    /// The JSON-RPC message, whether it came as JSON or as the only event of a stream.
    fn message(&self) -> anyhow::Result<Value> {
        let json = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(str::trim)
            .find(|data| !data.is_empty());
        Ok(serde_json::from_str(json.unwrap_or(&self.text))?)
    }
}

impl Server {
    /// Anybody may call.
    async fn open() -> anyhow::Result<Self> {
        Self::start(|arguments| arguments.insecure_loopback = true).await
    }

    /// `alice` and `bob` are agents, `shell` is a service; their tokens are `<name>-token`.
    async fn with_tokens() -> anyhow::Result<Self> {
        let people = [
            ("alice", Kind::Agent),
            ("bob", Kind::Agent),
            ("shell", Kind::Service),
        ];
        let tokens = people.map(|(name, kind)| Token {
            principal: name.to_owned(),
            kind,
            sha256: sha256_of(&format!("{name}-token")),
        });
        let text = to_file(tokens.to_vec())?;
        Self::start_in(tempfile::tempdir()?, |arguments, folder| {
            let path = folder.join("tokens.toml");
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            arguments.tokens = Some(path);
            Ok(())
        })
        .await
    }

    async fn start(change: impl FnOnce(&mut HttpArgs)) -> anyhow::Result<Self> {
        Self::start_in(tempfile::tempdir()?, |arguments, _| {
            change(arguments);
            Ok(())
        })
        .await
    }

    async fn start_in(
        folder: tempfile::TempDir,
        change: impl FnOnce(&mut HttpArgs, PathBuf) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let mut arguments = HttpArgs {
            http: Some("127.0.0.1:0".parse()?),
            ..HttpArgs::default()
        };
        change(&mut arguments, folder.path().to_owned())?;
        let metrics = Metrics::new();
        let fixture = Fixture::new(tight(), metrics.clone())?;
        let server = HttpServer::bind(&arguments, None)
            .await?
            .ok_or_else(|| anyhow::anyhow!("not bound"))?;
        let (address, shutdown) = (server.address(), CancellationToken::new());
        let running = tokio::spawn(server.run(fixture.clone(), metrics, shutdown.clone()));
        Ok(Self {
            address,
            shutdown,
            running,
            fixture,
            folder,
        })
    }

    fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
    }

    /// A POST as every client sends it.
    fn post(&self, token: Option<&str>) -> hyper::http::request::Builder {
        let request = self
            .request("POST", "/mcp")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        match token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn modern_call(&self, token: Option<&str>, tool: &str) -> hyper::http::request::Builder {
        self.post(token)
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let response = soon(sender.send_request(request)).await??;
        let (parts, body) = response.into_parts();
        let body = soon(body.collect()).await??.to_bytes();
        connection.abort();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec())?,
        })
    }

    async fn get(&self, path: &str, token: Option<&str>) -> anyhow::Result<Answer> {
        let mut request = self.request("GET", path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send(request.body(Full::default())?).await
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        soon(self.running).await???;
        drop(self.folder);
        Ok(())
    }
}

fn call_body(tool: &str, arguments: &Value) -> Full<Bytes> {
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": modern_meta()}});
    Full::new(Bytes::from(call.to_string()))
}

fn initialize_body() -> Full<Bytes> {
    let parameters = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    Full::new(Bytes::from(
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": parameters})
            .to_string(),
    ))
}

#[tokio::test]
async fn a_modern_call_is_answered_as_plain_json() -> anyhow::Result<()> {
    let server = Server::open().await?;
    let answer = server
        .send(
            server
                .modern_call(None, "echo")
                .body(call_body("echo", &json!({"text": "a"})))?,
        )
        .await?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(
        answer.message()?["result"]["structuredContent"],
        json!({"text": "a", "caller": "loopback"})
    );

    let answer = server
        .send(
            server
                .modern_call(None, "echo")
                .body(call_body("echo", &json!({"text": 5})))?,
        )
        .await?;
    assert_eq!(
        error_of(&answer.message()?["result"])?.code,
        "INVALID_ARGUMENTS"
    );
    server.stop().await
}

#[tokio::test]
async fn the_token_says_who_calls_in_both_eras() -> anyhow::Result<()> {
    let server = Server::with_tokens().await?;
    for name in ["alice", "bob"] {
        let token = format!("{name}-token");
        let answer = server
            .send(
                server
                    .modern_call(Some(&token), "echo")
                    .body(call_body("echo", &json!({"text": "a"})))?,
            )
            .await?;
        assert_eq!(
            answer.message()?["result"]["structuredContent"]["caller"],
            name
        );

        let answer = server
            .send(server.post(Some(&token)).body(initialize_body())?)
            .await?;
        let session = answer.headers["mcp-session-id"].clone();
        let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "a"}}});
        let request = server
            .post(Some(&token))
            .header("mcp-session-id", &session)
            .body(Full::new(Bytes::from(call.to_string())))?;
        assert_eq!(
            server.send(request).await?.message()?["result"]["structuredContent"]["caller"],
            name
        );
    }
    server.stop().await
}

#[tokio::test]
async fn no_header_gets_more_sessions_than_there_are() -> anyhow::Result<()> {
    const MOST: usize = 256;
    let server = Server::open().await?;
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}).to_string();
    let mut alive = 0;
    for _ in 0..MOST + 8 {
        // As a request of the later era, which has no sessions; the body begins one all the same.
        let request = server.post(None).header("mcp-method", "initialize");
        let begun = server.send(request.body(initialize_body())?).await?;
        let Some(session) = begun.headers.get("mcp-session-id") else {
            continue;
        };
        let request = server
            .post(None)
            .header("mcp-session-id", session)
            .body(Full::new(Bytes::from(list.clone())))?;
        alive += usize::from(server.send(request).await?.status == StatusCode::OK);
    }
    assert!(alive <= MOST, "{alive} sessions");
    assert!(alive > 1, "the control: sessions can be begun so");
    server.stop().await
}

#[tokio::test]
async fn a_session_serves_only_the_principal_that_began_it() -> anyhow::Result<()> {
    let server = Server::with_tokens().await?;
    let session = server
        .send(server.post(Some("alice-token")).body(initialize_body())?)
        .await?
        .headers["mcp-session-id"]
        .clone();
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}).to_string();
    for (token, status) in [
        ("bob-token", StatusCode::NOT_FOUND),
        ("alice-token", StatusCode::OK),
    ] {
        let request = server
            .post(Some(token))
            .header("mcp-session-id", &session)
            .body(Full::new(Bytes::from(list.clone())))?;
        assert_eq!(server.send(request).await?.status, status, "{token}");
    }
    for (token, status) in [
        ("bob-token", StatusCode::NOT_FOUND),
        ("alice-token", StatusCode::ACCEPTED),
    ] {
        let request = server
            .request("DELETE", "/mcp")
            .header("authorization", format!("Bearer {token}"));
        let answer = server
            .send(
                request
                    .header("mcp-session-id", &session)
                    .body(Full::default())?,
            )
            .await?;
        assert_eq!(answer.status, status, "{token}: {}", answer.text);
    }
    server.stop().await
}

#[tokio::test]
async fn without_a_token_of_an_agent_only_health_is_shown() -> anyhow::Result<()> {
    let server = Server::with_tokens().await?;
    for token in [None, Some("wrong"), Some(""), Some("alice")] {
        for answer in [
            server
                .send(
                    server
                        .modern_call(token, "echo")
                        .body(call_body("echo", &json!({"text": "a"})))?,
                )
                .await?,
            server.get("/metrics", token).await?,
        ] {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token:?}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    assert_eq!(
        server.get("/metrics", Some("shell-token")).await?.status,
        StatusCode::FORBIDDEN,
        "a service is no agent"
    );
    assert_eq!(server.get("/healthz", None).await?.status, StatusCode::OK);

    server
        .send(
            server
                .modern_call(Some("alice-token"), "echo")
                .body(call_body("echo", &json!({"text": "a"})))?,
        )
        .await?;
    let metrics = server.get("/metrics", Some("alice-token")).await?;
    assert!(
        metrics
            .text
            .contains("mcp_server_operation_duration_seconds_count"),
        "{}",
        metrics.text
    );
    server.stop().await
}

#[tokio::test]
async fn http_does_not_start_unless_someone_said_who_may_call() -> anyhow::Result<()> {
    let http = Some("127.0.0.1:0".parse()?);
    let silent = HttpServer::bind(
        &HttpArgs {
            http,
            ..HttpArgs::default()
        },
        None,
    )
    .await;
    assert!(matches!(silent, Err(ServeError::NoTokens)));
    let open = HttpArgs {
        http: Some("0.0.0.0:0".parse()?),
        insecure_loopback: true,
        ..HttpArgs::default()
    };
    assert!(matches!(
        HttpServer::bind(&open, None).await,
        Err(ServeError::NotLoopback(_))
    ));
    assert!(
        HttpServer::bind(
            &HttpArgs {
                http,
                insecure_loopback: true,
                ..HttpArgs::default()
            },
            None
        )
        .await?
        .is_some()
    );
    Ok(())
}

#[tokio::test]
async fn https_answers_whoever_trusts_the_certificate_and_nobody_in_plain_text()
-> anyhow::Result<()> {
    // A certificate for localhost that is good for nothing but this test.
    const CERTIFICATE: &str = include_str!("tls-cert.pem");
    const KEY: &str = include_str!("tls-key.pem");
    let write = |arguments: &mut HttpArgs, folder: PathBuf, mode: u32| -> anyhow::Result<()> {
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, CERTIFICATE)?;
        std::fs::write(&key, KEY)?;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode))?;
        (
            arguments.tls_cert,
            arguments.tls_key,
            arguments.insecure_loopback,
        ) = (Some(certificate), Some(key), true);
        Ok(())
    };
    let open_key = Server::start_in(tempfile::tempdir()?, |arguments, folder| {
        write(arguments, folder, 0o644)
    })
    .await;
    assert!(open_key.is_err_and(|error| error.to_string().contains("chmod 600")));
    let server = Server::start_in(tempfile::tempdir()?, |arguments, folder| {
        write(arguments, folder, 0o600)
    })
    .await?;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect("localhost".try_into()?, stream)
        .await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let origin = format!("https://localhost:{}", server.address.port());
    let request = server
        .modern_call(None, "echo")
        .header("origin", origin)
        .body(call_body("echo", &json!({"text": "a"})))?;
    assert_eq!(
        soon(sender.send_request(request)).await??.status(),
        StatusCode::OK
    );

    assert!(
        server.get("/healthz", None).await.is_err(),
        "plain text is not answered"
    );
    drop(sender);
    server.stop().await
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_turned_away_and_an_allowed_one_is_not() -> anyhow::Result<()> {
    let server = Server::start(|arguments| {
        arguments.insecure_loopback = true;
        arguments.allowed_host = vec!["agents.example".to_owned(), "registry:8080".to_owned()];
    })
    .await?;
    let port = server.address.port();
    let own = |host: &str| format!("{host}:{port}");
    for (host, allowed) in [
        (own("127.0.0.1"), true),
        (own("localhost"), true),
        (own("[::1]"), true),
        (own("agents.example"), true),
        ("agents.example".to_owned(), true),
        ("AGENTS.example".to_owned(), true),
        ("registry:8080".to_owned(), true),
        ("registry:8081".to_owned(), false),
        (own("evil.example"), false),
        ("localhost.evil.example".to_owned(), false),
        (String::new(), false),
    ] {
        for path in ["/mcp", "/metrics"] {
            let mut request = server
                .modern_call(None, "echo")
                .uri(path)
                .method(if path == "/mcp" { "POST" } else { "GET" });
            if let Some(headers) = request.headers_mut() {
                headers.insert("host", host.parse()?);
            }
            let answer = server
                .send(request.body(call_body("echo", &json!({"text": "a"})))?)
                .await?;
            let expected = if allowed {
                StatusCode::OK
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(answer.status, expected, "{host} {path}: {}", answer.text);
        }
    }
    for (origin, allowed) in [
        (format!("http://localhost:{port}"), true),
        (format!("http://agents.example:{port}"), true),
        (format!("https://localhost:{port}"), false),
        (format!("http://localhost:{}", port ^ 1), false),
        ("http://localhost".to_owned(), false),
        ("http://evil.example".to_owned(), false),
        ("null".to_owned(), false),
    ] {
        let request = server.modern_call(None, "echo").header("origin", &origin);
        let answer = server
            .send(request.body(call_body("echo", &json!({"text": "a"})))?)
            .await?;
        let expected = if allowed {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(answer.status, expected, "{origin}: {}", answer.text);
    }
    server.stop().await
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_the_limit_and_the_server_goes_on()
-> anyhow::Result<()> {
    let server = Server::open().await?;
    let text = "x".repeat(10 * 1024 * 1024);
    let answer = server
        .send(
            server
                .modern_call(None, "echo")
                .body(call_body("echo", &json!({"text": text})))?,
        )
        .await;
    // The server answers without reading on, so a client may see the answer or only that its writing failed.
    if let Ok(answer) = answer {
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        // Nobody must send the next call into what is left of this connection.
        assert_eq!(answer.headers["connection"], "close");
        assert!(
            answer.text.contains(&MAX_REQUEST_BYTES.to_string()),
            "{}",
            answer.text
        );
    }
    let answer = server
        .send(
            server
                .modern_call(None, "echo")
                .body(call_body("echo", &json!({"text": "a"})))?,
        )
        .await?;
    assert_eq!(answer.status, StatusCode::OK);
    server.stop().await
}

#[tokio::test]
async fn headers_that_contradict_the_body_and_bad_json_are_refused() -> anyhow::Result<()> {
    let server = Server::open().await?;
    let headers = [
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-method", "tools/list"),
        ("mcp-name", "change"),
    ];
    for (name, value) in headers {
        let mut request = server.modern_call(None, "echo");
        if let Some(headers) = request.headers_mut() {
            headers.insert(name, value.parse()?);
        }
        let answer = server
            .send(request.body(call_body("echo", &json!({"text": "a"})))?)
            .await?;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{name}: {}",
            answer.text
        );
        assert_eq!(answer.message()?["error"]["code"], -32020, "{name}");
    }
    let answer = server
        .send(
            server
                .modern_call(None, "echo")
                .body(Full::new(Bytes::from("{nonsense")))?,
        )
        .await?;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.message()?["error"]["code"], -32700);
    server.stop().await
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_its_call() -> anyhow::Result<()> {
    let server = Server::open().await?;
    let stream = TcpStream::connect(server.address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = server
        .modern_call(None, "hang")
        .body(call_body("hang", &json!({})))?;
    let waiting = tokio::spawn(async move { sender.send_request(request).await });
    soon(server.fixture.signs.hanging.notified()).await?;
    waiting.abort();
    connection.abort();
    soon(server.fixture.signs.stopped.notified()).await?;
    server.stop().await
}

#[tokio::test]
async fn the_end_of_the_server_ends_calls_under_way_in_both_eras() -> anyhow::Result<()> {
    for modern in [true, false] {
        let server = Server::open().await?;
        let request = if modern {
            server
                .modern_call(None, "hang")
                .body(call_body("hang", &json!({})))?
        } else {
            let session = server
                .send(server.post(None).body(initialize_body())?)
                .await?
                .headers["mcp-session-id"]
                .clone();
            let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "hang", "arguments": {}}});
            server
                .post(None)
                .header("mcp-session-id", &session)
                .body(Full::new(Bytes::from(call.to_string())))?
        };
        let stream = TcpStream::connect(server.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let waiting = tokio::spawn(async move { sender.send_request(request).await });
        soon(server.fixture.signs.hanging.notified()).await?;
        let stopped = server.fixture.signs.clone();
        server.stop().await?;
        soon(stopped.stopped.notified()).await?;
        waiting.abort();
    }
    Ok(())
}
