//! PostgreSQL.

pub mod change;
mod connect;
pub mod error;
pub mod execute;
pub mod explain;
pub mod fingerprint;
pub mod functions;
pub mod health;
mod loss;
mod open;
pub mod parameter;
pub mod posture;
pub mod read;
pub mod schema;
pub mod statement;
mod task;
pub mod tokens;
pub mod value;
pub mod vector;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::cursor::Rest;
use crate::finding::Check;
use crate::source::{Mode, Settings, SourceError};
use crate::table::{Answer, Budget};
use connect::{Connection, Connector};
pub use error::Error;
use execute::{Changes, Executed};
use explain::{Explain, Explained};
use posture::Posture;
use read::Ask;
use vector::VectorSearch;

/// A PostgreSQL server, as one role of it.
#[derive(Debug)]
pub struct Postgres {
    settings: Arc<Settings>,
    connector: Connector,
    posture: OnceCell<Posture>,
}

impl Postgres {
    /// A server that nobody has connected to yet.
    ///
    /// # Errors
    /// A URL that is none of PostgreSQL, or has a password in it.
    pub fn open(settings: Arc<Settings>) -> Result<Self, SourceError> {
        Ok(Self {
            connector: Connector::open(&settings)?,
            settings,
            posture: OnceCell::new(),
        })
    }

    /// Asks a query, and gives the rows that fit, with what is left of them.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn query(
        &self,
        ask: Ask,
        budget: Budget,
    ) -> Result<(Answer, Option<Box<dyn Rest>>), Error> {
        let connection = self.connection().await?;
        let allowed = self.settings.special.allow_functions.clone();
        open::query(connection, ask, allowed, budget).await
    }

    /// Carries changes out, where the source may be changed.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn execute(&self, changes: Changes) -> Result<Executed, Error> {
        if self.settings.mode != Mode::Write {
            return Err(Error::ReadOnly(self.settings.id.clone()));
        }
        let connection = self.connection().await?;
        let allowed = self.settings.special.allow_functions.clone();
        execute::execute(connection, changes, allowed).await
    }

    /// The plan of a query.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn explain(&self, wanted: Explain) -> Result<Explained, Error> {
        let has_hypopg = self.posture().await?.has("hypopg");
        let connection = self.connection().await?;
        let allowed = self.settings.special.allow_functions.clone();
        let longest = wanted.ask.timeout.saturating_mul(2);
        task::run(connection, longest, move |connection| {
            Box::pin(
                async move { explain::explain(connection, &wanted, &allowed, has_hypopg).await },
            )
        })
        .await
    }

    /// The rows nearest to a vector, and what should be known about them.
    ///
    /// # Errors
    /// No such table or column, a vector that does not fit, or what the server says.
    pub async fn nearest(
        &self,
        search: VectorSearch,
        timeout: Duration,
        budget: Budget,
    ) -> Result<(Answer, Vec<String>), Error> {
        if !self.posture().await?.has("vector") {
            return Err(Error::Missing("the extension vector (pgvector)"));
        }
        let look = vector::look(&search.table);
        let (looked, _) = self.query(look, vector::LOOK_BUDGET).await?;
        let (mut ask, mut notices) = vector::question(&search, looked)?;
        ask.timeout = timeout;
        let (answer, _) = self.query(ask, budget).await?;
        if answer.rows.is_empty() && matches!(search.near, vector::Near::Row(_)) {
            notices.push(
                "nothing is near to `like`: its row is not there, or has no vector with a direction"
                    .to_owned(),
            );
        }
        if answer.rows.len() < search.k && !answer.rows.goes_on() {
            notices.push(format!(
                "{} of {} rows were found",
                answer.rows.len(),
                search.k
            ));
        }
        Ok((answer, notices))
    }

    /// Whether the server is well; `wanted` names some of the checks, and nothing all of them.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn health(&self, wanted: &[String]) -> Result<Vec<Check>, Error> {
        let connection = self.connection().await?;
        let (wanted, longest) = (wanted.to_vec(), self.settings.limits.timeout);
        task::run(connection, longest, move |connection| {
            Box::pin(async move { health::look(connection, longest, &wanted).await })
        })
        .await
    }

    /// What the role may do and the server has.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn posture(&self) -> Result<&Posture, Error> {
        self.posture
            .get_or_try_init(|| async {
                let mut connection = self.connector.connection(&self.settings).await?;
                let posture = posture::look(&mut connection, &self.settings).await;
                connection.give_back().await;
                posture
            })
            .await
    }

    /// Whether the role may be served.
    ///
    /// # Errors
    /// Why not, or the server cannot be asked.
    pub async fn admits(&self) -> Result<(), Error> {
        self.posture().await?.admit(&self.settings)
    }

    /// A connection, once it is known that the role may be served.
    async fn connection(&self) -> Result<Connection, Error> {
        self.admits().await?;
        self.connector.connection(&self.settings).await
    }
}
