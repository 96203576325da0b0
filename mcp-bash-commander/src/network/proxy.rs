//! The proxy: accepts on the socket that was made inside the jail's network, and passes on what the gate lets through.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use shared::serve::serve_connections;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::gate::{Gate, Resolve, SystemResolver};
use super::refusal::Event;
use super::{Reachable, http, socks};

/// Most connections at a time; further ones wait to be accepted.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// How long a client may take to say where it wants to go.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Bytes buffered for each direction of a tunnel.
const BUFFER: usize = 16 * 1024;
/// How long a client that got its last answer is listened to, and for how many bytes.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: u64 = 256 * 1024;

/// A running proxy for HTTP and SOCKS5 on one port. Dropping it closes the port and resets every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    acceptor: JoinHandle<()>,
}

impl Proxy {
    /// Serves a TCP socket that already listens, from within a Tokio runtime. `sink` is told of every request, once; it is called
    /// between reads and writes, so it must neither wait nor keep without bound.
    ///
    /// # Errors
    /// A descriptor that is no listening TCP socket.
    pub fn start(
        listener: OwnedFd,
        reachable: impl Into<Reachable>,
        sink: impl Fn(Event) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::with_resolver(listener, reachable, SystemResolver::default(), sink)
    }

    /// The same with other answers to names than the host's.
    ///
    /// # Errors
    /// A descriptor that is no listening TCP socket.
    pub fn with_resolver(
        listener: OwnedFd,
        reachable: impl Into<Reachable>,
        resolver: impl Resolve + 'static,
        sink: impl Fn(Event) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        if !rustix::net::sockopt::socket_acceptconn(&listener)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the proxy's socket does not listen",
            ));
        }
        let listener = std::net::TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let gate = Gate::new(reachable.into(), Box::new(resolver), Box::new(sink));
        Ok(Self {
            address: listener.local_addr()?,
            acceptor: tokio::spawn(accept(listener, Arc::new(gate))),
        })
    }

    /// Where the jail reaches it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, gate: Arc<Gate>) {
    // It ends by being dropped with this task, and every connection with it.
    let endless = CancellationToken::new();
    serve_connections(&listener, MAX_CONNECTIONS, &endless, |client, _| {
        let gate = Arc::clone(&gate);
        async move {
            if let Err(error) = serve(client, &gate).await {
                tracing::debug!(%error, "a connection through the proxy was cut short");
            }
        }
    })
    .await;
}

async fn serve(client: TcpStream, gate: &Gate) -> io::Result<()> {
    let deadline = Instant::now() + HEAD_TIME;
    client.set_nodelay(true)?;
    let mut first = [0];
    let seen = timeout_at(deadline, client.peek(&mut first))
        .await
        .unwrap_or(Ok(0))?;
    match first[0] {
        _ if seen == 0 => Ok(()),
        4 | 5 => socks::serve(client, gate, deadline).await,
        _ => http::serve(client, gate, deadline).await,
    }
}

/// Copies both ways until both have ended; the end of one direction is passed on.
///
/// Whatever cuts it short resets both connections: an orderly end would make half an answer look whole.
pub(super) async fn tunnel(mut client: TcpStream, mut upstream: TcpStream) -> io::Result<()> {
    client.set_zero_linger()?;
    upstream.set_zero_linger()?;
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await?;
    rustix::net::sockopt::set_socket_linger(&client, None)?;
    rustix::net::sockopt::set_socket_linger(&upstream, None)?;
    Ok(())
}

/// Ends a connection so that the last answer arrives: closing it with unread bytes would take the answer back.
pub(super) async fn finish(mut client: TcpStream) -> io::Result<()> {
    client.shutdown().await?;
    let (reader, _) = client.split();
    let mut rest = tokio::io::AsyncReadExt::take(reader, FAREWELL_BYTES);
    let _ = timeout(
        FAREWELL_TIME,
        tokio::io::copy(&mut rest, &mut tokio::io::sink()),
    )
    .await;
    Ok(())
}
