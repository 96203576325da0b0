//! Asks the registry over its approval socket.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::{daemon::launch, registry::RegistryError};

/// Largest answer: a plan of 64 KiB, shown whole with everything around it.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Why an answer could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// No registry runs, and none could be started.
    #[error("{0:#}")]
    Connect(anyhow::Error),
    /// The connection broke.
    #[error("the registry hung up: {0}")]
    Transport(String),
    /// It is no registry, or another version.
    #[error("the registry's answer cannot be read: {0}; are both of the same version?")]
    Answer(String),
    /// It refuses.
    #[error("{}: {}\n{}", .0.code, .0.message, .0.hint)]
    Refused(RegistryError),
}

/// The registry of a state directory, started when none runs.
#[derive(Debug, Clone)]
pub(super) struct Client {
    state_dir: PathBuf,
    socket_dir: Option<PathBuf>,
}

impl Client {
    /// Connects once, so that a registry that does not start is known before anything is asked.
    pub(super) fn connect(
        state_dir: &Path,
        socket_dir: Option<PathBuf>,
    ) -> Result<Self, ClientError> {
        let client = Self {
            state_dir: state_dir.to_owned(),
            socket_dir,
        };
        client.stream()?;
        Ok(client)
    }

    fn stream(&self) -> Result<std::os::unix::net::UnixStream, ClientError> {
        launch::connect(&self.state_dir, self.socket_dir.clone(), launch::HUMANS)
            .map_err(ClientError::Connect)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        parse(
            &self
                .send(Method::GET, path, Bytes::new(), "application/json")
                .await?,
        )
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ClientError::Answer(error.to_string()))?;
        parse(
            &self
                .send(Method::POST, path, body.into(), "application/json")
                .await?,
        )
    }

    /// One request on a connection of its own; the body of a good answer.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        content_type: &str,
    ) -> Result<Bytes, ClientError> {
        let transport = |error: &dyn std::fmt::Display| ClientError::Transport(error.to_string());
        let stream = self.stream()?;
        stream
            .set_nonblocking(true)
            .map_err(|error| transport(&error))?;
        let stream = UnixStream::from_std(stream).map_err(|error| transport(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| transport(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "approval")
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(body))
            .map_err(|error| transport(&error))?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| transport(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MOST_BYTES)
                .collect()
                .await;
            let body = body
                .map_err(|error| ClientError::Transport(error.to_string()))?
                .to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            let shown = || shared::visible::prose(&String::from_utf8_lossy(&body));
            Err(serde_json::from_slice(&body).map_or_else(
                |_| ClientError::Answer(format!("{status}: {}", shown())),
                ClientError::Refused,
            ))
        };
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection ends with the answer, or without one.
            _ = connection => exchange.await,
        }
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ClientError> {
    // A 204 is nothing, which reads as `null`.
    let body: &[u8] = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body).map_err(|error| ClientError::Answer(error.to_string()))
}

/// A path segment with everything but letters, digits, `-`, `_` and `.` escaped.
pub(super) fn segment(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            escaped.push(char::from(DIGITS[usize::from(byte >> 4)]));
            escaped.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    escaped
}
