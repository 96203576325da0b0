//! One connection to a server, and what can be done on it: run, pull, begin, commit, reset.
//!
//! Every future may be dropped at any point. Until the answer to a request has been read the
//! connection counts as unsettled, and the next operation first sends RESET, which also stops what
//! the server is still doing.

use std::fmt;
use std::time::Duration;

use super::error::Error;
use super::exchange::{
    Answer, BEGIN, COMMIT, DISCARD, Exchange, GOODBYE, PULL, Phase, RESET, ROLLBACK, RUN,
};
use super::framing::Framing;
use super::login::log_in;
use super::query::{Query, TransactionOptions};
use super::summary::{self, Summary};
use super::transport::{self, Auth, Endpoint, Version};
use super::value::{Map, Value, entry, get};

/// How much a reply may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message on the wire, that is of one record; a larger one closes the connection.
    pub max_message_bytes: usize,
    /// Bytes of memory for the records of one pull; more is an error, and the connection stays
    /// usable.
    pub max_batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 64 * 1024 * 1024,
            max_batch_bytes: 256 * 1024 * 1024,
        }
    }
}

/// A query that the server has accepted; its records are waiting to be pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The names of the columns.
    pub fields: Vec<String>,
}

/// Some records of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// One value for each field.
    pub records: Vec<Vec<Value>>,
    /// Present when these were the last records; otherwise the result stays open.
    pub summary: Option<Summary>,
}

/// A connection that has logged in.
///
/// Dropping it closes the socket. A server that notices ends the query of the connection at once,
/// but where a proxy or a broken network hides the end, only [`TransactionOptions::timeout`] or
/// [`terminate_tagged`](super::terminate_tagged) stop it.
pub struct Connection {
    exchange: Exchange,
    version: Version,
    server_agent: String,
    in_transaction: bool,
    available_after: Option<Duration>,
}

impl Connection {
    /// Connects and logs in, all within `timeout`.
    ///
    /// Later operations wait as long as the server keeps saying that it is alive. Limit them by
    /// [`TransactionOptions::timeout`], or drop their future and [`Self::reset`].
    pub async fn connect(
        endpoint: &Endpoint,
        auth: &Auth,
        limits: Limits,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let connecting = async {
            let (stream, version) = transport::open(endpoint).await?;
            let mut exchange = Exchange {
                framing: Framing::new(stream, limits.max_message_bytes),
                phase: Phase::Unsettled,
                utc: version.major >= 5,
                max_batch_bytes: limits.max_batch_bytes,
                unanswered: 0,
            };
            let server_agent = log_in(&mut exchange, version, auth).await?;
            Ok(Self {
                exchange,
                version,
                server_agent,
                in_transaction: false,
                available_after: None,
            })
        };
        tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| Error::Timeout {
                activity: "connecting",
                limit: timeout,
            })?
    }

    /// Runs a query and leaves its result open. Within a transaction, the options are those of
    /// [`Self::begin`].
    pub async fn run(
        &mut self,
        query: &Query,
        options: &TransactionOptions,
    ) -> Result<Started, Error> {
        self.settle().await?;
        self.queue_run(query, options)?;
        self.exchange.flush().await?;
        self.started().await
    }

    /// Runs a query and pulls the first records, in one round trip.
    pub async fn run_and_pull(
        &mut self,
        query: &Query,
        options: &TransactionOptions,
        records: u32,
    ) -> Result<(Started, Batch), Error> {
        self.settle().await?;
        self.queue_run(query, options)?;
        self.queue_pull(records)?;
        self.exchange.flush().await?;
        let started = self.started().await?;
        let batch = self.batch().await?;
        Ok((started, batch))
    }

    /// Takes up to `records` more records of the open result, at least one.
    pub async fn pull(&mut self, records: u32) -> Result<Batch, Error> {
        self.expect_result()?;
        self.queue_pull(records)?;
        self.exchange.flush().await?;
        self.batch().await
    }

    /// Ends the open result without its records. What a query creates, changes or deletes is done
    /// all the same; what is done only as its records are pulled, such as `TERMINATE`, is not.
    pub async fn discard(&mut self) -> Result<Summary, Error> {
        self.expect_result()?;
        let metadata = self
            .exchange
            .request(DISCARD, &[Value::Map(vec![entry("n", -1)])])
            .await?;
        self.exchange.phase = Phase::Ready;
        Ok(Summary::new(metadata, self.available_after.take()))
    }

    /// Opens a transaction, to be ended by [`Self::commit`] or [`Self::rollback`].
    pub async fn begin(&mut self, options: &TransactionOptions) -> Result<(), Error> {
        if self.in_transaction {
            return Err(Error::State("a transaction is already open"));
        }
        self.settle().await?;
        self.exchange
            .request(BEGIN, &[Value::Map(options.to_map())])
            .await?;
        self.in_transaction = true;
        self.exchange.phase = Phase::Ready;
        Ok(())
    }

    /// Makes the changes of the transaction permanent. After [`Error::Io`] or [`Error::Timeout`] it
    /// is unknown whether they are.
    pub async fn commit(&mut self) -> Result<(), Error> {
        if !self.in_transaction {
            return Err(Error::State("no transaction is open"));
        }
        self.settle().await?;
        let outcome = self.exchange.request(COMMIT, &[]).await;
        // Whatever the server says, the transaction is over.
        self.in_transaction = false;
        outcome?;
        self.exchange.phase = Phase::Ready;
        Ok(())
    }

    /// Undoes the changes of the transaction; works after a failure, too.
    pub async fn rollback(&mut self) -> Result<(), Error> {
        if !self.in_transaction {
            return Err(Error::State("no transaction is open"));
        }
        if self.exchange.phase != Phase::Ready {
            return self.reset().await;
        }
        self.exchange.request(ROLLBACK, &[]).await?;
        self.in_transaction = false;
        self.exchange.phase = Phase::Ready;
        Ok(())
    }

    /// Stops whatever runs on this connection, rolls back its transaction, and makes it ready for
    /// the next query.
    ///
    /// To cancel a query, drop the future that waits for it and call this: the server handles RESET
    /// while it works.
    pub async fn reset(&mut self) -> Result<(), Error> {
        if self.exchange.phase == Phase::Closed {
            return Err(Error::State("the connection is closed"));
        }
        self.exchange.queue(RESET, &[])?;
        self.exchange.flush().await?;
        self.exchange.skip_to_last().await?;
        self.exchange.success().await?;
        self.in_transaction = false;
        self.exchange.phase = Phase::Ready;
        Ok(())
    }

    /// Takes leave politely; the connection cannot be used afterwards.
    pub async fn close(mut self) -> Result<(), Error> {
        self.exchange.queue(GOODBYE, &[])?;
        self.exchange.framing.shutdown().await
    }

    /// Whether a result is open, so that only [`Self::pull`], [`Self::discard`], or a reset make
    /// sense.
    pub fn has_open_result(&self) -> bool {
        self.exchange.phase == Phase::Streaming
    }

    /// Whether nothing is open or running, so that somebody else may go on with it.
    pub fn is_idle(&self) -> bool {
        self.exchange.phase == Phase::Ready && !self.in_transaction
    }

    /// Whether the socket is of no use any more.
    pub fn is_closed(&self) -> bool {
        self.exchange.phase == Phase::Closed
    }

    /// The server's name and version, such as `Neo4j/5.26.30`.
    pub fn server_agent(&self) -> &str {
        &self.server_agent
    }

    /// The version of Bolt spoken, such as (5, 8).
    pub fn bolt_version(&self) -> (u8, u8) {
        (self.version.major, self.version.minor)
    }

    /// Makes the connection ready for a request, or says why it must not be.
    async fn settle(&mut self) -> Result<(), Error> {
        match self.exchange.phase {
            Phase::Ready => Ok(()),
            Phase::Closed => Err(Error::State("the connection is closed")),
            Phase::Streaming => Err(Error::State(
                "a result is open: pull it to its end or discard it",
            )),
            // A reset would end the transaction, and what follows would then be committed on its
            // own.
            Phase::Unsettled if self.in_transaction => {
                Err(Error::State("the transaction failed: roll it back"))
            }
            Phase::Unsettled => self.reset().await,
        }
    }

    fn expect_result(&self) -> Result<(), Error> {
        match self.exchange.phase {
            Phase::Streaming => Ok(()),
            _ => Err(Error::State("no result is open")),
        }
    }

    fn queue_run(&mut self, query: &Query, options: &TransactionOptions) -> Result<(), Error> {
        let extra = if self.in_transaction {
            Map::new()
        } else {
            options.to_map()
        };
        let parameters = Value::Map(query.parameters.clone());
        self.exchange.queue(
            RUN,
            &[query.text.as_str().into(), parameters, Value::Map(extra)],
        )
    }

    fn queue_pull(&mut self, records: u32) -> Result<(), Error> {
        self.exchange.queue(
            PULL,
            &[Value::Map(vec![entry("n", i64::from(records.max(1)))])],
        )
    }

    async fn started(&mut self) -> Result<Started, Error> {
        let metadata = self.exchange.success().await?;
        self.available_after = get(&metadata, "t_first")
            .and_then(Value::as_integer)
            .and_then(summary::duration);
        let fields = get(&metadata, "fields")
            .and_then(Value::as_list)
            .unwrap_or_default();
        let fields = fields
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if self.exchange.unanswered == 0 {
            self.exchange.phase = Phase::Streaming;
        }
        Ok(Started { fields })
    }

    async fn batch(&mut self) -> Result<Batch, Error> {
        let mut records = Vec::new();
        let mut budget = self.exchange.max_batch_bytes;
        loop {
            match self.exchange.answer(&mut budget).await? {
                Answer::Record(record) => records.push(record),
                Answer::Success(metadata)
                    if get(&metadata, "has_more") == Some(&Value::Boolean(true)) =>
                {
                    self.exchange.phase = Phase::Streaming;
                    return Ok(Batch {
                        records,
                        summary: None,
                    });
                }
                Answer::Success(metadata) => {
                    self.exchange.phase = Phase::Ready;
                    let summary = Some(Summary::new(metadata, self.available_after.take()));
                    return Ok(Batch { records, summary });
                }
                Answer::Failure(error) => return Err(error),
                Answer::Ignored => return Err(self.exchange.broken("a request was ignored")),
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Connection");
        debug
            .field("server_agent", &self.server_agent)
            .field("bolt_version", &self.bolt_version());
        debug
            .field("phase", &self.exchange.phase)
            .field("in_transaction", &self.in_transaction)
            .finish_non_exhaustive()
    }
}
