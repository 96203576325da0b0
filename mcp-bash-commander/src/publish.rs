//! A published port: a loopback listener of the host whose connections continue on sockets made inside the jail's network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use shared::serve::serve_connections;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::jail::Jail;

/// Most connections through one published port at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 128;

/// Bytes buffered for each direction of a connection.
const BUFFER: usize = 16 * 1024;

/// How long a connection into the jail may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// A port of a jail that the host's loopback interface reaches, for as long as this value lives. It keeps the jail alive too.
#[derive(Debug)]
pub struct PublishedPort {
    port: u16,
    address: SocketAddr,
    relay: JoinHandle<()>,
}

impl PublishedPort {
    /// Listens on a free port of 127.0.0.1 and passes each connection to `port` inside the jail. Where nobody listens in there, the
    /// connection is reset. Ends with the jail.
    pub async fn open(jail: &Jail, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let relay = tokio::spawn(relay(listener, jail.clone(), port));
        Ok(Self {
            port,
            address,
            relay,
        })
    }

    /// The port inside the jail.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address on the host.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for PublishedPort {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn relay(listener: TcpListener, jail: Jail, port: u16) {
    let endless = CancellationToken::new();
    let serving = serve_connections(&listener, MAX_CONNECTIONS, &endless, |outside, _| {
        let jail = jail.clone();
        async move {
            if let Err(error) = join(outside, &jail, port).await {
                tracing::debug!(port, %error, "a connection to a published port failed");
            }
        }
    });
    // Dropped when the jail is over, or with this task, it ends every connection.
    tokio::select! {
        () = serving => {}
        _ = jail.finished() => {}
    }
}

/// Connects `outside` with the jail and copies both ways until both have ended; the end of one direction is passed on.
///
/// Whatever cuts it short (nobody listens, the jail ends, this task is dropped) resets the connection: an orderly end would make
/// half an answer look whole.
async fn join(mut outside: TcpStream, jail: &Jail, port: u16) -> io::Result<()> {
    outside.set_zero_linger()?;
    let mut inside = tokio::time::timeout(CONNECT_TIME, jail.connect(port))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    outside.set_nodelay(true)?;
    inside.set_nodelay(true)?;
    tokio::io::copy_bidirectional_with_sizes(&mut outside, &mut inside, BUFFER, BUFFER).await?;
    rustix::net::sockopt::set_socket_linger(&outside, None)?;
    Ok(())
}
