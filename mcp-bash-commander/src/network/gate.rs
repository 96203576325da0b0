//! From a destination to a connection: decide, resolve once, check the addresses, dial a checked one.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::address::{Destination, Host};
use super::allow::{AllowList, permitted};
use super::refusal::{ConnectFailure, Connected, Event, Reason, Refusal};

/// How long a name may take to be resolved.
const RESOLVE_TIME: Duration = Duration::from_secs(10);
/// How long a connection may take to be made, all addresses together.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;
/// Most names that are being resolved at a time: each takes a thread that nothing can interrupt.
const MAX_LOOKUPS: usize = 16;
/// Silence after which a connection is probed, so that one whose other end is gone does not last.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// Finds the addresses of a name.
pub trait Resolve: Send + Sync {
    /// The addresses, in the order they are to be tried. A name with a dot at its end is complete, and never a part of another.
    fn lookup(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the host.
#[derive(Debug)]
pub struct SystemResolver(Arc<Semaphore>);

impl Default for SystemResolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

impl Resolve for SystemResolver {
    fn lookup(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let permit = Arc::clone(&self.0)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            tokio::task::spawn_blocking(move || {
                let addresses = (name.as_str(), 0).to_socket_addrs()?;
                drop(permit);
                Ok(addresses.map(|address| address.ip()).collect())
            })
            .await?
        })
    }
}

/// Makes the connections that the allow list allows, and reports all that was asked for.
pub(super) struct Gate {
    allow: AllowList,
    resolver: Box<dyn Resolve>,
    sink: Box<dyn Fn(Event) + Send + Sync>,
}

impl Gate {
    pub(super) fn new(
        allow: AllowList,
        resolver: Box<dyn Resolve>,
        sink: Box<dyn Fn(Event) + Send + Sync>,
    ) -> Self {
        Self {
            allow,
            resolver,
            sink,
        }
    }

    /// Connects to the destination, if it is allowed.
    ///
    /// # Errors
    /// The refusal, already reported.
    pub(super) async fn open(&self, destination: &Destination) -> Result<TcpStream, Refusal> {
        match self.connect(destination).await {
            Ok((stream, address)) => {
                (self.sink)(Event::Connected(Connected {
                    host: destination.host().to_string(),
                    port: destination.port(),
                    address,
                }));
                Ok(stream)
            }
            Err(reason) => Err(self.refuse(Refusal::of(destination, reason))),
        }
    }

    /// Reports a refusal.
    pub(super) fn refuse(&self, refusal: Refusal) -> Refusal {
        (self.sink)(Event::Refused(refusal.clone()));
        refusal
    }

    async fn connect(&self, destination: &Destination) -> Result<(TcpStream, SocketAddr), Reason> {
        let entry = self.allow.entry_for(destination)?;
        let addresses = match destination.host() {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                // The operator's own names are looked up as every program of the host does. Of a name that the command chose, no
                // search domain may make another one.
                let name = if entry.is_exact() {
                    name.as_str().to_owned()
                } else {
                    format!("{}.", name.as_str())
                };
                match timeout(RESOLVE_TIME, self.resolver.lookup(name)).await {
                    Ok(Ok(addresses)) => addresses,
                    Ok(Err(_)) | Err(_) => return Err(Reason::NotResolved),
                }
            }
        };
        let mut addresses = permitted(addresses, entry)?;
        addresses.truncate(MAX_ADDRESSES);
        dial(&addresses, destination.port())
            .await
            .map_err(|cause| Reason::Unreachable { cause })
    }
}

/// Connects to the first address that answers; each has its share of the time that is left.
async fn dial(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, SocketAddr), ConnectFailure> {
    let deadline = Instant::now() + CONNECT_TIME;
    let mut failure = ConnectFailure::Failed;
    for (tried, &address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let address = SocketAddr::new(address, port);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        failure = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => match prepare(&stream) {
                Ok(()) => return Ok((stream, address)),
                Err(_) => ConnectFailure::Failed,
            },
            Ok(Err(error)) => match error.kind() {
                io::ErrorKind::ConnectionRefused => ConnectFailure::Refused,
                io::ErrorKind::TimedOut => ConnectFailure::TimedOut,
                _ => ConnectFailure::Failed,
            },
            Err(_) => ConnectFailure::TimedOut,
        };
    }
    Err(failure)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    Ok(())
}
