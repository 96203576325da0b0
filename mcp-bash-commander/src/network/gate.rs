//! From a destination to a connection: decide, resolve once, check the addresses, dial a checked one.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::address::{Destination, Host};
use super::allow::permitted;
use super::range::is_public;
use super::refusal::{ConnectFailure, Connected, Event, Reason, Refusal};
use super::secrets::{Secret, SecretValue};
use super::{Reachable, tls};

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

/// A connection to the host of a secret.
pub(super) type Upstream = Either<TlsStream<TcpStream>, TcpStream>;

/// Makes the connections that the allow list allows, and reports all that was asked for.
pub(super) struct Gate {
    reachable: Reachable,
    resolver: Box<dyn Resolve>,
    sink: Box<dyn Fn(Event) + Send + Sync>,
}

impl Gate {
    pub(super) fn new(
        reachable: Reachable,
        resolver: Box<dyn Resolve>,
        sink: Box<dyn Fn(Event) + Send + Sync>,
    ) -> Self {
        Self {
            reachable,
            resolver,
            sink,
        }
    }

    /// Connects to the destination, if it is allowed.
    ///
    /// # Errors
    /// The refusal, already reported.
    pub(super) async fn open(&self, destination: &Destination) -> Result<TcpStream, Refusal> {
        match self.connect(destination, None).await {
            Ok((stream, address)) => {
                self.connected(destination, address);
                Ok(stream)
            }
            Err(reason) => Err(self.refuse(Refusal::of(destination, reason))),
        }
    }

    /// The secret that is added to a plain request to this destination.
    pub(super) fn secret_for(&self, destination: &Destination) -> Option<&Secret> {
        self.reachable.secrets.for_request(destination)
    }

    /// Connects to the host of a secret, so that nobody else can hear it, and gives the secret.
    ///
    /// # Errors
    /// The refusal, already reported: also where there is no secret, for without it the request would be another one.
    pub(super) async fn open_for(
        &self,
        secret: &Secret,
    ) -> Result<(Upstream, SecretValue), Refusal> {
        let destination = secret.destination();
        let opened = async {
            let value = self.read(secret).await?;
            let (stream, address) = self.connect(destination, Some(secret)).await?;
            let stream = if secret.is_encrypted() {
                Either::Left(encrypted(stream, destination).await?)
            } else {
                Either::Right(stream)
            };
            Ok((stream, address, value))
        };
        match opened.await {
            Ok((stream, address, value)) => {
                self.connected(destination, address);
                Ok((stream, value))
            }
            Err(reason) => Err(self.refuse(Refusal::of(destination, reason))),
        }
    }

    async fn read(&self, secret: &Secret) -> Result<SecretValue, Reason> {
        let wanted = secret.clone();
        let why = match tokio::task::spawn_blocking(move || wanted.read()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(unusable)) => unusable.to_string(),
            Err(error) => error.to_string(),
        };
        let secret = secret.name().to_owned();
        tracing::error!(%secret, %why, "a secret cannot be used, so the request was not sent");
        Err(Reason::NoSecret { secret })
    }

    fn connected(&self, destination: &Destination, address: SocketAddr) {
        (self.sink)(Event::Connected(Connected {
            host: destination.host().to_string(),
            port: destination.port(),
            address,
        }));
    }

    /// Reports a refusal.
    pub(super) fn refuse(&self, refusal: Refusal) -> Refusal {
        (self.sink)(Event::Refused(refusal.clone()));
        refusal
    }

    async fn connect(
        &self,
        destination: &Destination,
        secret: Option<&Secret>,
    ) -> Result<(TcpStream, SocketAddr), Reason> {
        let entry = self.reachable.allow.entry_for(destination)?;
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
        if let Some(secret) = secret.filter(|secret| !secret.is_encrypted()) {
            addresses = near(addresses, secret)?;
        }
        addresses.truncate(MAX_ADDRESSES);
        dial(&addresses, destination.port())
            .await
            .map_err(|cause| Reason::Unreachable { cause })
    }
}

/// Those of the addresses at which a secret can be sent without encryption.
fn near(addresses: Vec<IpAddr>, secret: &Secret) -> Result<Vec<IpAddr>, Reason> {
    let public = addresses
        .iter()
        .copied()
        .find(|&address| is_public(address));
    let near: Vec<_> = addresses
        .into_iter()
        .filter(|&address| !is_public(address))
        .collect();
    match public {
        Some(address) if near.is_empty() => Err(Reason::Unencrypted {
            secret: secret.name().to_owned(),
            address,
        }),
        _ => Ok(near),
    }
}

async fn encrypted(
    stream: TcpStream,
    destination: &Destination,
) -> Result<TlsStream<TcpStream>, Reason> {
    let cause = match timeout(CONNECT_TIME, tls::connect(stream, destination.host())).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => {
            tracing::warn!(%error, %destination, "there is no TLS with the host of a secret");
            ConnectFailure::Tls
        }
        Err(_) => ConnectFailure::TimedOut,
    };
    Err(Reason::Unreachable { cause })
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
