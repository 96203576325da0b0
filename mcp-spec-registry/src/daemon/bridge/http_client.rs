//! A client for one HTTP endpoint: plain HTTP, connections kept for the next request.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// More are closed once they are free.
const MOST_KEPT: usize = 8;
/// Where servers of this project speak MCP.
const DEFAULT_PATH: &str = "/mcp";

/// A client for one endpoint.
pub(super) struct Client {
    /// `host:port`, as the Host header says it.
    authority: String,
    path: String,
    /// `Bearer …`.
    credential: Option<HeaderValue>,
    kept: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Client {
    pub(super) fn new(url: &str, token: Option<Zeroizing<String>>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => anyhow::bail!(
                "--connect speaks plain HTTP only, and `{url}` is https; point your client at the URL itself, or lead a loopback port \
                 there (ssh -L) and give http://127.0.0.1:PORT"
            ),
            _ => anyhow::bail!("`{url}` is neither unix:PATH nor http://HOST:PORT/PATH"),
        }
        let authority = uri.authority().context("the URL names no host")?;
        anyhow::ensure!(
            !authority.as_str().contains('@'),
            "credentials do not belong into a URL; use --token-file"
        );
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path == "/" { DEFAULT_PATH } else { path };
        let bearer = |token: Zeroizing<String>| {
            let bearer = Zeroizing::new(format!("Bearer {}", token.as_str()));
            let mut value = HeaderValue::from_str(&bearer)
                .ok()
                .context("the token holds characters that no token has")?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        };
        Ok(Self {
            authority: authority.as_str().to_owned(),
            path: path.to_owned(),
            credential: token.map(bearer).transpose()?,
            kept: Mutex::default(),
        })
    }

    /// `host:port`.
    pub(super) fn address(&self) -> &str {
        &self.authority
    }

    /// Sends a request; its connection is free for the next one when the answer's head is there and its body was read.
    pub(super) async fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = self.path.parse()?;
        *request.headers_mut() = headers;
        request
            .headers_mut()
            .insert(header::HOST, HeaderValue::from_str(&self.authority)?);
        if let Some(credential) = &self.credential {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, credential.clone());
        }
        let (connection, response) = self.exchange(request).await?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_KEPT {
            kept.push(connection);
        }
        Ok(response)
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(SendRequest<Full<Bytes>>, Response<Incoming>)> {
        let mut unsent = request;
        for _ in 0..=MOST_KEPT {
            let mut connection = self.connection().await?;
            match connection.try_send_request(unsent).await {
                Ok(response) => return Ok((connection, response)),
                // A kept connection that the server closed in the meantime: nothing was sent.
                Err(mut failed) => match failed.take_message() {
                    Some(request) => unsent = request,
                    None => {
                        return Err(failed.into_error()).with_context(|| {
                            format!("the registry at {} hung up", self.authority)
                        });
                    }
                },
            }
        }
        anyhow::bail!(
            "the registry at {} hangs up on every connection",
            self.authority
        )
    }

    async fn connection(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let free = || {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|connection| !connection.is_closed());
            let ready = kept.iter().position(SendRequest::is_ready)?;
            Some(kept.swap_remove(ready))
        };
        if let Some(connection) = free() {
            return Ok(connection);
        }
        let address = if self
            .authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        {
            self.authority.clone()
        } else {
            format!("{}:80", self.authority)
        };
        let connecting = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(&address)).await;
        let stream = connecting
            .with_context(|| {
                format!(
                    "no registry answers at {address} within {} s",
                    CONNECT_TIME.as_secs()
                )
            })?
            .with_context(|| format!("no registry answers at {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
