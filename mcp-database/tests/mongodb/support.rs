//! Sources that are a stand-in, each with a database of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcp_database::mongodb::read::{Layers, Operation, Reading, Request};
use mcp_database::mongodb::write::{Change, Outcome, Request as WriteRequest, Write};
use mcp_database::mongodb::{MongoError, Mongodb};
use mcp_database::source::{Engine, Limits, Mode, Password, Settings, Special, Tls};
use mcp_database::table::Budget;
use serde_json::Value;

use crate::server::{password, server};

/// How long a call may take; what is waited for takes moments on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A source with a database of its own; the rest of a test is skipped where this machine cannot have the server.
macro_rules! source {
    ($flavor:expr) => {
        match $crate::support::Source::new($flavor)? {
            Some(source) => source,
            None => return Ok(()),
        }
    };
}
pub(crate) use source;

/// A source for writing, and a database nobody else uses.
pub(crate) struct Source {
    pub(crate) mongo: Mongodb,
    pub(crate) settings: Settings,
    pub(crate) db: String,
}

/// What a source at this URL is, for writing.
pub(crate) fn settings(url: &str) -> Settings {
    Settings {
        id: "test".to_owned(),
        engine: Engine::Mongodb,
        url: url.to_owned(),
        password: None,
        mode: Mode::Write,
        tls: Tls::OffLoopback,
        limits: Limits::default(),
        special: Special::default(),
    }
}

impl Source {
    pub(crate) fn new(flavor: &str) -> Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Some(lines) = server("mongo", flavor)? else {
            return Ok(None);
        };
        let port = lines.get("PORT").context("the script says no port")?;
        let mut settings = settings(&format!("mongodb://127.0.0.1:{port}/"));
        if flavor == "python" {
            settings.url = format!("mongodb://admin@127.0.0.1:{port}/");
            settings.password = Some(password_file(password())?);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Some(Self {
            mongo: Mongodb::open(&settings)?,
            settings,
            db: format!("test_{}_{number}", std::process::id()),
        }))
    }

    /// The same database, asked by another source.
    pub(crate) fn as_other(&self, change: impl FnOnce(&mut Settings)) -> Result<Self> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Ok(Self {
            mongo: Mongodb::open(&settings)?,
            settings,
            db: self.db.clone(),
        })
    }

    pub(crate) fn request(&self, coll: &str) -> Request {
        Request {
            db: self.db.clone(),
            coll: coll.to_owned(),
            ..Request::default()
        }
    }

    pub(crate) async fn read(
        &self,
        operation: Operation,
        request: &Request,
    ) -> Result<Reading, MongoError> {
        self.read_within(operation, request, Layers::ALL).await
    }

    pub(crate) async fn read_within(
        &self,
        operation: Operation,
        request: &Request,
        layers: Layers,
    ) -> Result<Reading, MongoError> {
        self.mongo
            .read(operation, request, Budget::default(), PATIENCE, layers)
            .await
    }

    /// The first column of what a read finds.
    pub(crate) async fn found(
        &self,
        operation: Operation,
        request: &Request,
    ) -> Result<Vec<Value>> {
        Ok(values(self.read(operation, request).await?))
    }

    /// All documents of a collection that match, without their ids.
    pub(crate) async fn find(&self, coll: &str, filter: Value) -> Result<Vec<Value>> {
        let request = Request {
            filter: Some(filter),
            projection: Some(serde_json::json!({ "_id": 0 })),
            ..self.request(coll)
        };
        self.found(Operation::Find, &request).await
    }

    pub(crate) async fn aggregate(&self, coll: &str, pipeline: Value) -> Result<Vec<Value>> {
        let request = Request {
            pipeline: Some(pipeline),
            ..self.request(coll)
        };
        self.found(Operation::Aggregate, &request).await
    }

    pub(crate) fn change(&self, coll: &str, change: Change) -> WriteRequest {
        WriteRequest {
            db: self.db.clone(),
            coll: coll.to_owned(),
            change,
            many: false,
            docs: None,
            filter: None,
            update: None,
            array_filters: None,
            upsert: false,
            expect_max: None,
        }
    }

    pub(crate) async fn write(&self, request: &WriteRequest) -> Result<Outcome, MongoError> {
        let write = Write::of(request)?;
        self.mongo.write(&write, false, PATIENCE).await
    }

    pub(crate) async fn insert(&self, coll: &str, docs: Value) -> Result<Outcome, MongoError> {
        let request = WriteRequest {
            docs: Some(docs),
            ..self.change(coll, Change::Insert)
        };
        self.write(&request).await
    }
}

/// The first column of a result.
pub(crate) fn values(reading: Reading) -> Vec<Value> {
    let rows = reading.answer.rows.into_rows();
    rows.into_iter()
        .filter_map(|row| row.into_iter().next())
        .collect()
}

/// A file with a password that is there as long as the tests run.
pub(crate) fn password_file(password: &str) -> Result<Password> {
    let folder = tempfile::tempdir()?.keep();
    let path = folder.join("password");
    std::fs::write(&path, password)?;
    Ok(Password::File(path))
}

/// Why a read has no answer.
pub(crate) fn refusal(outcome: Result<Reading, MongoError>) -> Result<MongoError> {
    match outcome {
        Err(error) => Ok(error),
        Ok(reading) => anyhow::bail!("it was answered: {:?}", reading.answer),
    }
}
