//! Streamable HTTP: one POST a message, answered as JSON or as a stream of events.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{Era, Inbox};

const SESSION: &str = "mcp-session-id";

/// Where a server listens, and how to be let in.
#[derive(Clone, Debug)]
pub struct HttpEndpoint {
    /// The address the server has bound.
    pub address: SocketAddr,
    /// The bearer token, where the server wants one.
    pub token: Option<String>,
}

/// Sends one request to a server on a connection of its own and reads the whole answer.
///
/// # Errors
/// The address cannot be reached, or what comes back is not HTTP.
pub async fn send(
    address: SocketAddr,
    request: Request<Vec<u8>>,
) -> anyhow::Result<Response<String>> {
    let mut connection = connect(address).await?;
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts, Full::new(Bytes::from(body)));
    let (parts, body) = connection.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(
        parts,
        String::from_utf8_lossy(&body).into_owned(),
    ))
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("no server at {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

pub(super) struct Http {
    endpoint: HttpEndpoint,
    era: Era,
    inbox: Inbox,
    /// The session of the legacy era, once the server has named it.
    session: Mutex<Option<String>>,
    /// Connections nobody uses at the moment.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Http {
    pub(super) fn new(endpoint: HttpEndpoint, era: Era, inbox: Inbox) -> Self {
        Self {
            endpoint,
            era,
            inbox,
            session: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    pub(super) async fn notify(&self, message: &Value) -> anyhow::Result<()> {
        let (connection, response) = self.post(message).await?;
        let status = response.status();
        response.into_body().collect().await?;
        self.keep(connection);
        if !status.is_success() {
            bail!("the notification was answered with HTTP {status}");
        }
        Ok(())
    }

    pub(super) async fn exchange(&self, id: u64, message: &Value) -> anyhow::Result<Value> {
        let (connection, response) = self.post(message).await?;
        if let Some(session) = response.headers().get(SESSION) {
            let session = session.to_str()?.to_owned();
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        }
        let status = response.status();
        let is_stream = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if is_stream {
            let answer = self.read_events(id, response.into_body()).await?;
            self.keep(connection);
            return Ok(answer);
        }
        let body = response.into_body().collect().await?.to_bytes();
        self.keep(connection);
        serde_json::from_slice(&body)
            .with_context(|| format!("HTTP {status}: {}", String::from_utf8_lossy(&body)))
    }

    /// Reads events to the end of the stream, so that the connection can be used again.
    async fn read_events(&self, id: u64, mut body: Incoming) -> anyhow::Result<Value> {
        let mut unread = Vec::new();
        let mut answer = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            unread.extend(data.iter().filter(|byte| **byte != b'\r'));
            while let Some(end) = unread.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = unread.drain(..end + 2).collect();
                let Some(message) = read_event(&String::from_utf8_lossy(&event))? else {
                    continue;
                };
                if message["id"] == id && message.get("method").is_none() {
                    answer = Some(message);
                } else {
                    self.inbox.push(message);
                }
            }
        }
        answer.context("the stream of events ended without the answer")
    }

    async fn post(
        &self,
        message: &Value,
    ) -> anyhow::Result<(SendRequest<Full<Bytes>>, Response<Incoming>)> {
        loop {
            let (mut connection, is_fresh) = match self.pop() {
                Some(connection) => (connection, false),
                None => (connect(self.endpoint.address).await?, true),
            };
            match connection.ready().await {
                Ok(()) => {
                    let response = connection.send_request(self.request(message)?).await?;
                    return Ok((connection, response));
                }
                Err(error) if is_fresh => return Err(error.into()),
                Err(_) => {} // the server has closed it while it was idle
            }
        }
    }

    fn request(&self, message: &Value) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::post("/mcp")
            .header("host", self.endpoint.address.to_string())
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(token) = &self.endpoint.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let method = message["method"].as_str().unwrap_or_default();
        if method != "initialize" {
            request = request.header("mcp-protocol-version", self.era.revision());
        }
        if self.era == Era::Modern {
            request = request.header("mcp-method", method);
            if let Some(name) = subject(method, &message["params"]) {
                request = request.header("mcp-name", name);
            }
        }
        if let Some(session) = &*self.session.lock().unwrap_or_else(PoisonError::into_inner) {
            request = request.header(SESSION, session);
        }
        Ok(request.body(Full::new(Bytes::from(message.to_string())))?)
    }

    fn pop(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
    }
}

/// What the `Mcp-Name` header repeats of a request's parameters.
fn subject<'message>(method: &str, parameters: &'message Value) -> Option<&'message str> {
    match method {
        "tools/call" | "prompts/get" => parameters["name"].as_str(),
        "resources/read" => parameters["uri"].as_str(),
        _ => None,
    }
}

fn read_event(event: &str) -> anyhow::Result<Option<Value>> {
    let data: Vec<&str> = event
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| data.strip_prefix(' ').unwrap_or(data))
        .collect();
    let data = data.join("\n");
    if data.is_empty() {
        return Ok(None); // a comment that keeps the connection alive, or an event without a message
    }
    serde_json::from_str(&data)
        .map(Some)
        .with_context(|| format!("an event is not JSON: {data}"))
}
