//! A source of Neo4j: its pool, its limits, and what its operator vouches for.

use std::time::Duration;

use super::address::Address;
use super::bolt::{Access, Map, TransactionOptions, Value};
use super::error::GraphError;
use super::pool::{Pool, Session};
use crate::source::{Limits, Mode, Settings, SourceError};

/// How much longer than the server we wait, so that it tells itself that the time is over.
const GRACE: Duration = Duration::from_millis(250);
/// Rows that a statement of ours may give.
const MOST_ROWS: u32 = 20_000;

/// A database of a Neo4j server.
pub struct Neo4j {
    id: String,
    mode: Mode,
    limits: Limits,
    allowed: Vec<String>,
    pool: Pool,
}

impl Neo4j {
    /// Makes a source without connecting: `bolt://`, `bolt+s://`, `neo4j://` or `neo4j+s://`, the database as path or
    /// `?database=`. A routing scheme is connected to directly.
    ///
    /// # Errors
    /// A URL or TLS files that cannot be used, or a password in the URL.
    pub fn open(settings: &Settings) -> Result<Self, SourceError> {
        let address = Address::of(settings)?;
        Ok(Self {
            id: settings.id.clone(),
            mode: settings.mode,
            limits: settings.limits,
            allowed: settings.special.allow_functions.clone(),
            pool: Pool::new(settings, address)?,
        })
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        self.pool.address()
    }

    /// What may be done with it.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn allowed(&self) -> &[String] {
        &self.allowed
    }

    /// How long a call may take.
    pub(super) fn limit(&self, asked: Option<Duration>) -> Duration {
        asked
            .unwrap_or(self.limits.timeout)
            .min(self.limits.longest_timeout)
    }

    pub(super) async fn session(&self) -> Result<Session, GraphError> {
        self.pool.session().await
    }

    /// Opens a transaction of our own that only reads; the server holds its time.
    pub(super) async fn reading(&self, limit: Duration) -> Result<Reading, GraphError> {
        let mut session = self.session().await?;
        let options = session.options(Access::Read, limit);
        let connection = session.connection()?;
        connection.begin(&options).await.map_err(GraphError::of)?;
        Ok(Reading { session, options })
    }

    /// Refuses what a source that only reads does not do.
    pub(super) fn check_writable(&self) -> Result<(), GraphError> {
        match self.mode {
            Mode::Write => Ok(()),
            Mode::Read => Err(GraphError::ReadOnly(self.id.clone())),
        }
    }
}

/// Several statements of ours that see one state of the graph.
pub(super) struct Reading {
    session: Session,
    options: TransactionOptions,
}

impl Reading {
    /// The rows of a statement.
    pub(super) async fn rows(
        &mut self,
        text: impl Into<String>,
        parameters: Map,
    ) -> Result<Vec<Vec<Value>>, GraphError> {
        self.session
            .rows(text, parameters, &self.options, MOST_ROWS)
            .await
    }

    /// Ends it, so that its connection is free at once; dropped, it is so a little later.
    pub(super) async fn close(mut self) -> Result<(), GraphError> {
        let connection = self.session.connection()?;
        connection.rollback().await.map_err(GraphError::of)
    }
}

/// Waits for work as long as a call may take; the server should have ended it a moment before.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, GraphError>>,
) -> Result<T, GraphError> {
    match tokio::time::timeout(limit + GRACE, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(GraphError::Timeout(limit)),
    }
}
