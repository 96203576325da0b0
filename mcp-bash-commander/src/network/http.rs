//! The HTTP face of the proxy: CONNECT tunnels, and plain `http://` requests, one of them per connection.

mod head;
mod masked;

use std::io::{self, Cursor};
use std::pin::pin;
use std::sync::Mutex;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::address::Destination;
use super::gate::Gate;
use super::proxy::{finish, tunnel};
use super::refusal::{ConnectFailure, Reason, Refusal};
use super::secrets::{Secret, SecretValue};
use super::{HTTP_PORT, HTTPS_PORT};
use head::{Head, NotHttp, Wanted};
use masked::{Mask, Masked};

/// Bytes read from the client's request at once, and kept of the head of an answer.
const BUFFER: usize = 4 * 1024;
const MAX_ANSWER_HEAD: usize = 64 * 1024;

/// Headers that are about one connection and no further.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

type Body = Either<Masked<Incoming>, Full<Bytes>>;

pub(super) async fn serve(mut client: TcpStream, gate: &Gate, deadline: Instant) -> io::Result<()> {
    let mut received = Vec::new();
    let length = timeout_at(deadline, read_head(&mut client, &mut received))
        .await
        .unwrap_or(Ok(Err(StatusCode::REQUEST_TIMEOUT)))?;
    let head = length.and_then(|length| {
        Head::parse(&received[..length]).map_err(|NotHttp| StatusCode::BAD_REQUEST)
    });
    let head = match head {
        Ok(head) => head,
        Err(status) => {
            let sent = head::authority(head::target(&received));
            let refusal = gate.refuse(Refusal::unread(sent, None, Reason::Malformed));
            return refuse(client, status, &refusal).await;
        }
    };
    let wanted = head
        .wanted()
        .map_err(|reason| gate.refuse(Refusal::unread(head::authority(head.target), None, reason)));
    let with_secret = match &wanted {
        Ok(Wanted::Request(destination)) => gate.secret_for(destination),
        Ok(Wanted::Tunnel(_)) | Err(_) => None,
    };
    if let Some(secret) = with_secret {
        return match gate.open_for(secret).await {
            Ok((upstream, value)) => {
                let passing = Passing::with_secret(secret, &value)?;
                forward(client, received, upstream, &passing).await
            }
            Err(refusal) => refuse(client, status(&refusal.reason), &refusal).await,
        };
    }
    let opened = match wanted {
        Ok(wanted) => gate
            .open(wanted.destination())
            .await
            .map(|upstream| (wanted, upstream)),
        Err(refusal) => Err(refusal),
    };
    match opened {
        Ok((Wanted::Tunnel(_), mut upstream)) => {
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await?;
            // Sent on without waiting for the answer, it belongs to the destination.
            upstream.write_all(&received[head.length..]).await?;
            tunnel(client, upstream).await
        }
        Ok((Wanted::Request(destination), upstream)) => {
            forward(client, received, upstream, &Passing::to(&destination)).await
        }
        Err(refusal) => refuse(client, status(&refusal.reason), &refusal).await,
    }
}

/// How a request is passed on.
struct Passing<'a> {
    destination: &'a Destination,
    /// What `Host` leaves out.
    default_port: u16,
    added: Option<Added>,
}

/// What is added to a request and must not come back.
struct Added {
    header: HeaderName,
    value: HeaderValue,
    mask: Mask,
}

impl<'a> Passing<'a> {
    fn to(destination: &'a Destination) -> Self {
        Self {
            destination,
            default_port: HTTP_PORT,
            added: None,
        }
    }

    fn with_secret(secret: &'a Secret, value: &SecretValue) -> io::Result<Self> {
        let mut header_value =
            HeaderValue::try_from(secret.header_value(value)).map_err(io::Error::other)?;
        header_value.set_sensitive(true);
        Ok(Self {
            destination: secret.destination(),
            default_port: if secret.is_encrypted() {
                HTTPS_PORT
            } else {
                HTTP_PORT
            },
            added: Some(Added {
                header: HeaderName::try_from(secret.header()).map_err(io::Error::other)?,
                value: header_value,
                mask: Mask::of(value).map_err(io::Error::other)?,
            }),
        })
    }

    fn host_header(&self) -> Result<HeaderValue, hyper::http::Error> {
        let host = if self.destination.port() == self.default_port {
            self.destination.host().to_string()
        } else {
            self.destination.to_string()
        };
        Ok(HeaderValue::try_from(host)?)
    }
}

impl Added {
    fn to_request(&self, headers: &mut HeaderMap) {
        // In a compressed answer, or in pieces of one, what must not come back would not be found.
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        headers.remove(header::RANGE);
        headers.remove(header::IF_RANGE);
        headers.insert(self.header.clone(), self.value.clone());
    }
}

/// Reads up to the end of the request's head, with what came along, and tells where it ends.
async fn read_head(
    client: &mut TcpStream,
    received: &mut Vec<u8>,
) -> io::Result<Result<usize, StatusCode>> {
    let mut chunk = [0; BUFFER];
    loop {
        match head::length(received) {
            Ok(Some(length)) => return Ok(Ok(length)),
            Ok(None) if received.len() >= head::MAX_HEAD => {
                return Ok(Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
            Ok(None) => {}
            Err(NotHttp) => return Ok(Err(StatusCode::BAD_REQUEST)),
        }
        let room = BUFFER.min(head::MAX_HEAD - received.len());
        match client.read(&mut chunk[..room]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => received.extend_from_slice(&chunk[..read]),
        }
    }
}

/// Passes one request on, and its answer back. What the client sends behind it is dropped.
async fn forward(
    mut client: TcpStream,
    received: Vec<u8>,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    passing: &Passing<'_>,
) -> io::Result<()> {
    client.set_zero_linger()?;
    let (sender, upstream_connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_ANSWER_HEAD)
        .handshake(TokioIo::new(upstream))
        .await
        .map_err(io::Error::other)?;
    let sender = Mutex::new(sender);
    let service = service_fn(|request| pass_on(request, &sender, passing));

    let (reader, writer) = client.split();
    let stream = tokio::io::join(Cursor::new(received).chain(reader), writer);
    let mut client_connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut upstream_connection = pin!(upstream_connection);
    let mut upstream_ended = false;
    loop {
        tokio::select! {
            served = &mut client_connection => {
                served.map_err(io::Error::other)?;
                break;
            }
            // How it ended is told by the request that was under way.
            _ = &mut upstream_connection, if !upstream_ended => upstream_ended = true,
        }
    }
    rustix::net::sockopt::set_socket_linger(&client, None)?;
    finish(client).await
}

async fn pass_on(
    mut request: Request<Incoming>,
    sender: &Mutex<SendRequest<Incoming>>,
    passing: &Passing<'_>,
) -> Result<Response<Body>, hyper::http::Error> {
    let path = request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_hop_by_hop(headers);
    // Answered here already.
    headers.remove(header::EXPECT);
    headers.insert(header::HOST, passing.host_header()?);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(added) = &passing.added {
        added.to_request(headers);
    }

    let answer = match sender.lock() {
        Ok(mut sender) => sender.send_request(request),
        Err(_) => return bad_gateway(passing.destination),
    };
    match answer.await {
        // Nothing was asked to be upgraded.
        Ok(answer) if answer.status() != StatusCode::SWITCHING_PROTOCOLS => {
            let mask = passing.added.as_ref().map(|added| &added.mask);
            let mut answer = answer.map(|body| Either::Left(Masked::new(body, mask.cloned())));
            *answer.version_mut() = Version::HTTP_11;
            remove_hop_by_hop(answer.headers_mut());
            if let Some(mask) = mask {
                mask.headers(answer.headers_mut());
                answer.extensions_mut().remove::<ReasonPhrase>();
            }
            Ok(answer)
        }
        Ok(_) | Err(_) => bad_gateway(passing.destination),
    }
}

fn bad_gateway(destination: &Destination) -> Result<Response<Body>, hyper::http::Error> {
    let text = format!("{destination} was reached, but gave no answer in HTTP/1.1\n");
    Response::builder()
        .status(StatusCode::BAD_GATEWAY)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Either::Right(Full::from(text)))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // How long the body is stays true on the next connection.
        .filter(|name| name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

async fn refuse(mut client: TcpStream, status: StatusCode, refusal: &Refusal) -> io::Result<()> {
    let text = format!("{refusal}\n");
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    client.write_all(answer.as_bytes()).await?;
    finish(client).await
}

fn status(reason: &Reason) -> StatusCode {
    match reason {
        Reason::NotAllowed
        | Reason::PrivateAddress { .. }
        | Reason::NoSecret { .. }
        | Reason::Unencrypted { .. } => StatusCode::FORBIDDEN,
        Reason::Malformed => StatusCode::BAD_REQUEST,
        Reason::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Reason::Unreachable {
            cause: ConnectFailure::TimedOut,
        } => StatusCode::GATEWAY_TIMEOUT,
        Reason::NotResolved | Reason::Unreachable { .. } => StatusCode::BAD_GATEWAY,
    }
}
