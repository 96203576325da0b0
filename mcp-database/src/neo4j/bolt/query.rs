//! What is asked of the server, and the frame it runs in.

use std::time::Duration;

use super::value::{Map, Value, entry};

/// What a transaction may do. [`Access::Read`] is enforced by the server, except for `LOAD CSV` and
/// DBMS procedures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// A write is refused with `Neo.ClientError.Statement.AccessMode`.
    #[default]
    Read,
    /// Everything the user may do.
    Write,
}

/// The frame a query runs in.
#[derive(Clone, Debug, Default)]
pub struct TransactionOptions {
    /// Reading only, by default.
    pub access: Access,
    /// The database; the user's home database by default.
    pub database: Option<String>,
    /// After this long, in whole milliseconds, the server ends the transaction; its own limit by
    /// default.
    pub timeout: Option<Duration>,
    /// Shown by `SHOW TRANSACTIONS`, so that a transaction can be found again.
    pub metadata: Map,
}

/// A statement with its parameters.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// One statement of Cypher.
    pub text: String,
    /// Parameters, without the `$`.
    pub parameters: Map,
}

impl TransactionOptions {
    /// The settings as RUN and BEGIN carry them.
    pub(super) fn to_map(&self) -> Map {
        let mode = match self.access {
            Access::Read => "r",
            Access::Write => "w",
        };
        let mut extra = vec![entry("mode", mode)];
        if let Some(database) = &self.database {
            extra.push(entry("db", database.as_str()));
        }
        if let Some(timeout) = self.timeout {
            // Zero would mean no limit at all.
            let milliseconds = i64::try_from(timeout.as_millis())
                .unwrap_or(i64::MAX)
                .max(1);
            extra.push(entry("tx_timeout", milliseconds));
        }
        if !self.metadata.is_empty() {
            extra.push(entry("tx_metadata", Value::Map(self.metadata.clone())));
        }
        extra
    }
}
