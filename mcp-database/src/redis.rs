//! Redis, and what speaks its protocol: Valkey, Dragonfly.

mod address;
pub mod bus;
pub mod command;
mod connection;
pub mod error;
pub mod health;
pub mod info;
pub mod posture;
pub mod read;
pub mod run;
pub mod scan;
pub mod search;
pub mod subscribe;
pub mod value;
pub mod write;

use std::sync::Arc;
use std::time::Duration;

use crate::source::{Mode, Settings, SourceError};
use crate::table::Budget;
use address::Address;
use connection::Lines;
use error::Error;
use subscribe::Subscriptions;
use value::Blob;

/// How much a call may bring and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Rows, and bytes of them.
    pub budget: Budget,
    /// From the first word to the last.
    pub timeout: Duration,
}

/// A source that is Redis; copies share their connections.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    mode: Mode,
    prefix: Option<Blob>,
    streams: Vec<String>,
    lines: Arc<Lines>,
    subscriptions: Subscriptions,
}

impl Redis {
    /// Takes the settings of a source, without connecting.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, SourceError> {
        let prefix = settings.special.key_prefix.as_deref();
        Ok(Self {
            inner: Arc::new(Inner {
                id: settings.id.clone(),
                mode: settings.mode,
                prefix: prefix.filter(|prefix| !prefix.is_empty()).map(Blob::from),
                streams: settings.special.streams.clone(),
                lines: Arc::new(Lines::new(Address::of(settings)?)),
                subscriptions: Subscriptions::default(),
            }),
        })
    }

    /// What may be done with it.
    pub fn mode(&self) -> Mode {
        self.inner.mode
    }

    /// The number of its database.
    pub fn database(&self) -> i64 {
        self.lines().address().database
    }

    fn id(&self) -> &str {
        &self.inner.id
    }

    fn prefix(&self) -> Option<&Blob> {
        self.inner.prefix.as_ref()
    }

    fn lines(&self) -> &Arc<Lines> {
        &self.inner.lines
    }

    /// Refuses a key without the source's prefix.
    fn check_key(&self, key: &Blob) -> Result<(), Error> {
        match self.prefix() {
            Some(prefix) if !key.0.starts_with(&prefix.0) => Err(Error::OutsidePrefix {
                key: key.for_message(),
                prefix: prefix.for_message(),
            }),
            _ => Ok(()),
        }
    }

    fn check_writable(&self) -> Result<(), Error> {
        match self.mode() {
            Mode::Write => Ok(()),
            Mode::Read => Err(Error::ReadOnlySource(self.id().to_owned())),
        }
    }
}
