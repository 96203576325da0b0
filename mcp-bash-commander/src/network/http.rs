//! The HTTP face of the proxy: CONNECT tunnels, and plain `http://` requests, one of them per connection.

mod head;

use std::io::{self, Cursor};
use std::pin::pin;
use std::sync::Mutex;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::address::Destination;
use super::gate::Gate;
use super::proxy::{finish, tunnel};
use super::refusal::{ConnectFailure, Reason, Refusal};
use head::{Head, NotHttp, Wanted};

/// Bytes read from the client's request at once, and kept of the head of an answer.
const BUFFER: usize = 4 * 1024;
const MAX_ANSWER_HEAD: usize = 64 * 1024;

/// The port of `http://` without one.
const HTTP_PORT: u16 = 80;

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

type Body = Either<Incoming, Full<Bytes>>;

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
            forward(client, received, upstream, &destination).await
        }
        Err(refusal) => refuse(client, status(refusal.reason), &refusal).await,
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
    upstream: TcpStream,
    destination: &Destination,
) -> io::Result<()> {
    client.set_zero_linger()?;
    let (sender, upstream_connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_ANSWER_HEAD)
        .handshake(TokioIo::new(upstream))
        .await
        .map_err(io::Error::other)?;
    let sender = Mutex::new(sender);
    let service = service_fn(|request| pass_on(request, &sender, destination));

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
    destination: &Destination,
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
    headers.insert(header::HOST, host_header(destination)?);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));

    let answer = match sender.lock() {
        Ok(mut sender) => sender.send_request(request),
        Err(_) => return bad_gateway(destination),
    };
    match answer.await {
        // Nothing was asked to be upgraded.
        Ok(answer) if answer.status() != StatusCode::SWITCHING_PROTOCOLS => {
            let mut answer = answer.map(Either::Left);
            *answer.version_mut() = Version::HTTP_11;
            remove_hop_by_hop(answer.headers_mut());
            Ok(answer)
        }
        Ok(_) | Err(_) => bad_gateway(destination),
    }
}

fn bad_gateway(destination: &Destination) -> Result<Response<Body>, hyper::http::Error> {
    let text = format!("{destination} was reached, but gave no answer in HTTP/1.1\n");
    Response::builder()
        .status(StatusCode::BAD_GATEWAY)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Either::Right(Full::from(text)))
}

fn host_header(destination: &Destination) -> Result<HeaderValue, hyper::http::Error> {
    let host = match destination.port() {
        HTTP_PORT => destination.host().to_string(),
        _ => destination.to_string(),
    };
    Ok(HeaderValue::try_from(host)?)
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

fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::NotAllowed | Reason::PrivateAddress { .. } => StatusCode::FORBIDDEN,
        Reason::Malformed => StatusCode::BAD_REQUEST,
        Reason::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Reason::Unreachable {
            cause: ConnectFailure::TimedOut,
        } => StatusCode::GATEWAY_TIMEOUT,
        Reason::NotResolved | Reason::Unreachable { .. } => StatusCode::BAD_GATEWAY,
    }
}
