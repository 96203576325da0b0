//! Connections to one server: one that all plain commands share, and lines of their own for what blocks, belongs together, or may
//! bring much.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::address::{Address, encryption};
use super::error::Error;

/// How long making a connection may take.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long the server may take to answer a greeting in TLS.
const GREETING: Duration = Duration::from_secs(5);
/// Bytes that one answer on a line may have. Made of small numbers it takes eight times the memory.
pub(super) const LARGEST_ANSWER: u64 = 16 * 1024 * 1024;
/// Lines that are kept open when nobody uses them.
const KEPT: usize = 4;

/// When a call has to be over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self {
            at: Instant::now() + limit,
            limit,
        }
    }

    /// What is left of it.
    pub(super) fn rest(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// What is said when it is over.
    pub(super) fn passed(self, address: &str) -> Error {
        Error::Timeout {
            address: address.to_owned(),
            limit: self.limit,
        }
    }

    /// Whether so little of it is left that nothing more should be begun.
    pub(super) fn is_near(self) -> bool {
        self.rest() < self.limit / 5
    }
}

/// The connections to one server; none is made before it is needed.
pub(super) struct Lines {
    address: Address,
    shared: tokio::sync::Mutex<Option<Arc<Link>>>,
    idle: Mutex<Vec<Link>>,
}

impl Lines {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            shared: tokio::sync::Mutex::new(None),
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Asks over the connection that all share. A call that is dropped leaves it as it is: its answer is read and forgotten.
    pub(super) async fn ask(&self, command: &Cmd, deadline: Deadline) -> Result<Value, Error> {
        let link = self.shared(deadline).await?;
        let answer = link.ask(command, deadline, &self.address).await;
        self.keep_or_forget(&link, &answer).await;
        answer
    }

    /// The same for several commands at once; each has its answer, which may be a refusal.
    pub(super) async fn ask_all(
        &self,
        commands: &Pipeline,
        deadline: Deadline,
    ) -> Result<Vec<Value>, Error> {
        let link = self.shared(deadline).await?;
        let answers = link.ask_all(commands, deadline, &self.address).await;
        self.keep_or_forget(&link, &answers).await;
        answers
    }

    async fn shared(&self, deadline: Deadline) -> Result<Arc<Link>, Error> {
        let connecting = async {
            let mut shared = self.shared.lock().await;
            if let Some(link) = shared.as_ref().filter(|link| link.is_alive()) {
                return Ok(Arc::clone(link));
            }
            let link = Arc::new(Link::connect(&self.address, u64::MAX, deadline).await?);
            *shared = Some(Arc::clone(&link));
            Ok(link)
        };
        in_time(connecting, deadline, &self.address).await
    }

    async fn keep_or_forget<T>(&self, link: &Arc<Link>, outcome: &Result<T, Error>) {
        if outcome.as_ref().is_err_and(Error::is_final) {
            let mut shared = self.shared.lock().await;
            if shared
                .as_ref()
                .is_some_and(|known| Arc::ptr_eq(known, link))
            {
                *shared = None;
            }
        }
    }

    /// A line for the caller alone. Unless it is given back by [`Line::release`], it is closed when it is dropped, which also ends
    /// what the server still does for it.
    pub(super) async fn line(self: &Arc<Self>, deadline: Deadline) -> Result<Line, Error> {
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(Link::is_alive);
            idle.pop()
        };
        let link = match idle {
            Some(link) => link,
            None => Link::connect(&self.address, LARGEST_ANSWER, deadline).await?,
        };
        Ok(Line {
            lines: Arc::clone(self),
            link,
        })
    }

    /// A connection for subscriptions, and the count of what came over it.
    pub(super) async fn subscriber(
        &self,
        deadline: Deadline,
    ) -> Result<(PubSub, Arc<Meter>), Error> {
        let address = &self.address;
        let connecting = async {
            let (stream, meter) = open(address, LARGEST_ANSWER).await?;
            let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
            if let Some(password) = password(address)? {
                info = info.set_password(password.as_str());
            }
            if let Some(user) = &address.user {
                info = info.set_username(user);
            }
            let connection = PubSub::new(&info, stream).await;
            let connection = connection.map_err(|error| Error::of_client(&error, &address.name()));
            Ok((connection?, meter))
        };
        in_time(connecting, deadline.at_most(CONNECTING), address).await
    }

    /// Whether somebody who does not log in is let in as `default`.
    pub(super) async fn lets_anybody_in(&self, deadline: Deadline) -> Result<bool, Error> {
        let mut nobody = self.address.clone();
        nobody.user = None;
        nobody.password = None;
        nobody.database = 0;
        nobody.protocol = ProtocolVersion::RESP2;
        let outcome = async {
            let link = Link::connect(&nobody, LARGEST_ANSWER, deadline).await?;
            link.ask(&redis::cmd("PING"), deadline, &nobody).await
        };
        match outcome.await {
            Ok(_) => Ok(true),
            Err(Error::Server { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Deadline {
    fn at_most(self, limit: Duration) -> Self {
        let shorter = Self::after(limit);
        if shorter.at < self.at { shorter } else { self }
    }
}

/// A line for one caller.
pub(super) struct Line {
    lines: Arc<Lines>,
    link: Link,
}

impl Line {
    pub(super) async fn ask(&mut self, command: &Cmd, deadline: Deadline) -> Result<Value, Error> {
        self.link.meter.start();
        self.link.ask(command, deadline, &self.lines.address).await
    }

    /// Several commands at once; each has its answer, which may be a refusal.
    pub(super) async fn ask_all(
        &mut self,
        commands: &Pipeline,
        deadline: Deadline,
    ) -> Result<Vec<Value>, Error> {
        self.link.meter.start();
        self.link
            .ask_all(commands, deadline, &self.lines.address)
            .await
    }

    /// Gives it back for others, after all answers are read and nothing is watched or open on it.
    pub(super) fn release(self) {
        if !self.link.is_alive() {
            return;
        }
        let mut idle = self
            .lines
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(self.link);
        }
    }
}

/// A connection and the task that works it.
struct Link {
    connection: MultiplexedConnection,
    meter: Arc<Meter>,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    async fn connect(address: &Address, limit: u64, deadline: Deadline) -> Result<Self, Error> {
        let connecting = async {
            let (stream, meter) = open(address, limit).await?;
            // Who asks is said below, where a refusal keeps its name.
            let info = RedisConnectionInfo::default().set_skip_set_lib_name();
            let config = AsyncConnectionConfig::new().set_response_timeout(None);
            let (connection, driver) =
                MultiplexedConnection::new_with_config(&info, stream, config)
                    .await
                    .map_err(|error| Error::of_client(&error, &address.name()))?;
            let link = Self {
                connection,
                meter,
                driver: tokio::spawn(driver),
            };
            link.log_in(address, deadline).await?;
            Ok(link)
        };
        in_time(connecting, deadline.at_most(CONNECTING), address).await
    }

    async fn log_in(&self, address: &Address, deadline: Deadline) -> Result<(), Error> {
        let password = password(address)?;
        let resp3 = address.protocol == ProtocolVersion::RESP3;
        let mut greeting = redis::cmd(if resp3 { "HELLO" } else { "AUTH" });
        if resp3 {
            greeting.arg(3);
        }
        if let Some(password) = &password {
            let user = address.user.as_deref();
            if resp3 {
                greeting.arg("AUTH").arg(user.unwrap_or("default"));
            } else if let Some(user) = user {
                greeting.arg(user);
            }
            greeting.arg(password.as_str());
        }
        if resp3 || password.is_some() {
            self.ask(&greeting, deadline, address).await?;
        }
        if address.database != 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(address.database);
            self.ask(&select, deadline, address).await?;
        }
        Ok(())
    }

    fn is_alive(&self) -> bool {
        !self.driver.is_finished()
    }

    async fn ask(
        &self,
        command: &Cmd,
        deadline: Deadline,
        address: &Address,
    ) -> Result<Value, Error> {
        let mut connection = self.connection.clone();
        let asking = async {
            let answer = connection.req_packed_command(command).await;
            match answer.map_err(|error| self.failure(&error, address))? {
                Value::ServerError(error) => Err(Error::of_server(&error)),
                answer => Ok(answer),
            }
        };
        in_time(asking, deadline, address).await
    }

    async fn ask_all(
        &self,
        commands: &Pipeline,
        deadline: Deadline,
        address: &Address,
    ) -> Result<Vec<Value>, Error> {
        let mut connection = self.connection.clone();
        let asking = async {
            let answers = connection.req_packed_commands(commands, 0, commands.len());
            let answers = answers.await;
            answers.map_err(|error| self.failure(&error, address))
        };
        in_time(asking, deadline, address).await
    }

    fn failure(&self, error: &redis::RedisError, address: &Address) -> Error {
        if self.meter.is_over() {
            return Error::TooLarge {
                limit: self.meter.limit,
            };
        }
        Error::of_client(error, &address.name())
    }
}

async fn in_time<T>(
    work: impl Future<Output = Result<T, Error>>,
    deadline: Deadline,
    address: &Address,
) -> Result<T, Error> {
    match tokio::time::timeout_at(deadline.at, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(deadline.passed(&address.name())),
    }
}

/// The password as it is now. A user without one is sent an empty one: not to log in would make it `default`.
fn password(address: &Address) -> Result<Option<Zeroizing<String>>, Error> {
    Ok(match &address.password {
        Some(password) => Some(password.read()?),
        None => address.user.as_ref().map(|_| Zeroizing::default()),
    })
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

async fn open(address: &Address, limit: u64) -> Result<(Metered, Arc<Meter>), Error> {
    let failed = |error: io::Error| Error::Connection {
        address: address.name(),
        reason: error.to_string(),
    };
    let prepared = match &address.tls {
        None => None,
        Some(tls) => Some(encryption(address, tls)?),
    };
    let tcp = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let stream: Box<dyn Stream> = match prepared {
        None => Box::new(tcp),
        Some((config, name)) => {
            let connector = tokio_rustls::TlsConnector::from(config);
            let greeting = tokio::time::timeout(GREETING, connector.connect(name, tcp)).await;
            // A server without TLS takes the greeting for a command that has not ended yet.
            let silent = || {
                io::Error::other(
                    "the server does not answer the greeting; it may speak without TLS",
                )
            };
            let stream = greeting.unwrap_or_else(|_| Err(silent()));
            Box::new(stream.map_err(|error| Error::Connection {
                address: address.name(),
                reason: format!("TLS: {error}"),
            })?)
        }
    };
    let meter = Arc::new(Meter {
        limit,
        received: AtomicU64::new(0),
    });
    let metered = Metered {
        stream,
        meter: Arc::clone(&meter),
    };
    Ok((metered, meter))
}

/// How much came since an answer was asked for.
pub(super) struct Meter {
    limit: u64,
    received: AtomicU64,
}

impl Meter {
    /// Counts anew.
    pub(super) fn start(&self) {
        self.received.store(0, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.received.load(Ordering::Relaxed) > self.limit
    }
}

/// A stream that ends when more comes than an answer may have.
struct Metered {
    stream: Box<dyn Stream>,
    meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = u64::try_from(buffer.filled().len() - before).unwrap_or(u64::MAX);
        self.meter.received.fetch_add(came, Ordering::Relaxed);
        if self.meter.is_over() {
            // Of the kinds of errors, the library gives a connection up for this one.
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        outcome
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
