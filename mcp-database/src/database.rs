//! The databases of a server: each with its limits, whatever its engine.

mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::tool_error::{ToolError, code};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::mongodb::Mongodb;
use crate::neo4j::Neo4j;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::source::{Engine, Mode, Settings, SourceError};
use crate::table::Budget;

/// How long a call waits for others of its source to end.
const WAIT_AT_MOST: Duration = Duration::from_secs(10);

/// A client of an engine.
pub(crate) enum Client {
    Postgres(Box<Postgres>),
    Redis(Redis),
    Mongodb(Box<Mongodb>),
    Neo4j(Neo4j),
}

/// A source with its client.
pub(crate) struct Database {
    pub(crate) settings: Arc<Settings>,
    pub(crate) client: Client,
    slots: Semaphore,
}

/// What a call may ask for beside its question.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub(crate) rows: Option<usize>,
    pub(crate) bytes: Option<usize>,
    pub(crate) timeout_ms: Option<u64>,
}

/// Every source.
pub(crate) struct Databases(BTreeMap<String, Database>);

impl Databases {
    /// The sources as they are written; none is connected to.
    pub(crate) fn open(sources: Vec<Settings>) -> Result<Self, SourceError> {
        let mut databases = BTreeMap::new();
        for settings in sources {
            let settings = Arc::new(settings);
            let client = match settings.engine {
                Engine::Postgres => {
                    Client::Postgres(Box::new(Postgres::open(Arc::clone(&settings))?))
                }
                Engine::Redis => Client::Redis(Redis::open(&settings)?),
                Engine::Mongodb => Client::Mongodb(Box::new(Mongodb::open(&settings)?)),
                Engine::Neo4j => Client::Neo4j(Neo4j::open(&settings)?),
            };
            let database = Database {
                slots: Semaphore::new(settings.limits.concurrent),
                client,
                settings,
            };
            databases.insert(database.settings.id.clone(), database);
        }
        Ok(Self(databases))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Database> {
        self.0.values()
    }

    /// The engines there are sources of.
    pub(crate) fn engines(&self) -> BTreeSet<Engine> {
        self.iter()
            .map(|database| database.settings.engine)
            .collect()
    }

    /// Whether a source of the engine may be changed.
    pub(crate) fn has_writable(&self, engine: Engine) -> bool {
        self.iter().any(|database| {
            database.settings.engine == engine && database.settings.mode == Mode::Write
        })
    }

    /// Whether agents have streams to talk through.
    pub(crate) fn has_streams(&self) -> bool {
        self.iter()
            .any(|database| !database.settings.special.streams.is_empty())
    }

    /// A source by its name.
    pub(crate) fn get(&self, id: &str) -> Result<&Database, ToolError> {
        self.0.get(id).ok_or_else(|| {
            ToolError::new("UNKNOWN_SOURCE", format!("there is no source `{id}`"))
                .with_hint(format!("there are: {}", self.told(|_| true)))
        })
    }

    /// The source that a call means: the one it names, or the only one.
    pub(crate) fn only_or(&self, id: Option<&str>) -> Result<&Database, ToolError> {
        if let Some(id) = id {
            return self.get(id);
        }
        let mut all = self.iter();
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(ToolError::new(
                code::INVALID_ARGUMENTS,
                "`source` is missing, and there are several",
            )
            .with_hint(format!("give one of: {}", self.told(|_| true)))),
        }
    }

    /// The source of an engine that a call means: the one it names, or the only one.
    fn of_engine(&self, engine: Engine, id: Option<&str>) -> Result<&Database, ToolError> {
        let is_of_it = |database: &Database| database.settings.engine == engine;
        if let Some(id) = id {
            let database = self.get(id)?;
            if !is_of_it(database) {
                let other = database.settings.engine;
                return Err(ToolError::new(
                    "WRONG_ENGINE",
                    format!("source `{id}` is {other}, and this tool is for {engine}"),
                )
                .with_hint(format!("of {engine} there are: {}", self.told(is_of_it))));
            }
            return Ok(database);
        }
        let mut fitting = self.iter().filter(|database| is_of_it(database));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(ToolError::new(
                code::INVALID_ARGUMENTS,
                format!("`source` is missing, and there are several of {engine}"),
            )
            .with_hint(format!("give one of: {}", self.told(is_of_it)))),
        }
    }

    /// The source of an engine that a call means, and its client.
    fn client<T>(
        &self,
        engine: Engine,
        id: Option<&str>,
        pick: fn(&Client) -> Option<&T>,
    ) -> Result<(&Database, &T), ToolError> {
        let database = self.of_engine(engine, id)?;
        let client = pick(&database.client);
        client
            .map(|client| (database, client))
            .ok_or_else(|| ToolError::internal(&"a source has the client of another engine"))
    }

    /// The PostgreSQL that a call means.
    pub(crate) fn postgres(&self, id: Option<&str>) -> Result<(&Database, &Postgres), ToolError> {
        self.client(Engine::Postgres, id, |client| match client {
            Client::Postgres(postgres) => Some(&**postgres),
            _ => None,
        })
    }

    /// The Neo4j that a call means.
    pub(crate) fn neo4j(&self, id: Option<&str>) -> Result<(&Database, &Neo4j), ToolError> {
        self.client(Engine::Neo4j, id, |client| match client {
            Client::Neo4j(neo4j) => Some(neo4j),
            _ => None,
        })
    }

    /// The Redis that a call means.
    pub(crate) fn redis(&self, id: Option<&str>) -> Result<(&Database, &Redis), ToolError> {
        self.client(Engine::Redis, id, |client| match client {
            Client::Redis(redis) => Some(redis),
            _ => None,
        })
    }

    /// The MongoDB that a call means.
    pub(crate) fn mongodb(&self, id: Option<&str>) -> Result<(&Database, &Mongodb), ToolError> {
        self.client(Engine::Mongodb, id, |client| match client {
            Client::Mongodb(mongo) => Some(&**mongo),
            _ => None,
        })
    }

    fn told(&self, is_meant: impl Fn(&Database) -> bool) -> String {
        let meant = self.iter().filter(|database| is_meant(database));
        let ids: Vec<&str> = meant
            .map(|database| database.settings.id.as_str())
            .collect();
        ids.join(", ")
    }
}

impl Database {
    /// A place among the calls that the source carries out at once.
    pub(crate) async fn slot(&self) -> Result<SemaphorePermit<'_>, ToolError> {
        let busy = || {
            let (id, most) = (&self.settings.id, self.settings.limits.concurrent);
            ToolError::new(
                code::BUSY,
                format!("source `{id}` carries out {most} calls already"),
            )
            .with_hint("wait for one of them to end, then call again")
        };
        match tokio::time::timeout(WAIT_AT_MOST, self.slots.acquire()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    /// What a reply to a call may hold.
    pub(crate) fn budget(&self, wanted: Wanted) -> Result<Budget, ToolError> {
        let reply = self.settings.limits.reply;
        Ok(Budget {
            rows: within(
                "max_rows",
                wanted.rows,
                reply.rows,
                crate::sources::MOST_ROWS,
            )?,
            bytes: within(
                "max_bytes",
                wanted.bytes,
                reply.bytes,
                crate::sources::MOST_BYTES,
            )?,
        })
    }

    /// How long a call may take.
    pub(crate) fn timeout(&self, wanted: Wanted) -> Result<Duration, ToolError> {
        let limits = self.settings.limits;
        let Some(asked) = wanted.timeout_ms.map(Duration::from_millis) else {
            return Ok(limits.timeout);
        };
        if asked.is_zero() || asked > limits.longest_timeout {
            let most = limits.longest_timeout.as_millis();
            return Err(out_of_range("timeout_ms", asked.as_millis(), most));
        }
        Ok(asked)
    }
}

fn within(
    name: &str,
    asked: Option<usize>,
    default: usize,
    most: usize,
) -> Result<usize, ToolError> {
    let value = asked.unwrap_or(default);
    if (1..=most).contains(&value) {
        Ok(value)
    } else {
        Err(out_of_range(name, value as u128, most as u128))
    }
}

fn out_of_range(name: &str, given: u128, most: u128) -> ToolError {
    ToolError::new(code::INVALID_ARGUMENTS, format!("`{name}` is {given}"))
        .with_hint(format!("give 1 to {most}"))
}
