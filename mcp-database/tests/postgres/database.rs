//! Databases of a server, and connections to them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mcp_database::postgres::read::{Ask, Layers};
use mcp_database::postgres::{Error, Postgres};
use mcp_database::source::{Engine, Limits, Mode, Password, Settings, Special, Tls};
use mcp_database::table::{Answer, Budget};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::server::{Lines, password, server};

/// A database of its own, with a superuser in it, and the source that is tested.
pub(crate) struct Database {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) postgres: Postgres,
}

impl Database {
    /// `None` where this machine has no server and need not have one; the test is then skipped by name.
    pub(crate) async fn new() -> anyhow::Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Some(lines) = server("postgres", "18")? else {
            return Ok(None);
        };
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let administrator = connect(&lines, "postgres").await?;
        for statement in [
            format!("CREATE DATABASE {name}"),
            format!("ALTER DATABASE {name} SET TimeZone = 'UTC'"),
        ] {
            administrator.batch_execute(&statement).await?;
        }
        let client = connect(&lines, &name).await?;
        let settings = settings(&lines, "postgres", &name)?;
        let postgres = Postgres::open(Arc::new(settings.clone()))?;
        Ok(Some(Self {
            client,
            settings,
            postgres,
        }))
    }

    /// The same database as another source.
    pub(crate) fn source(&self, change: impl FnOnce(&mut Settings)) -> anyhow::Result<Postgres> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        Ok(Postgres::open(Arc::new(settings))?)
    }

    /// Waits until a query that counts gives a number that is wanted.
    pub(crate) async fn counts(
        &self,
        query: &str,
        is_wanted: impl Fn(i64) -> bool,
    ) -> anyhow::Result<()> {
        let waiting = async {
            loop {
                let row = self.client.query_one(query, &[]).await?;
                if is_wanted(row.try_get(0)?) {
                    return anyhow::Ok(());
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .with_context(|| format!("never as wanted: {query}"))?
    }

    pub(crate) async fn ask(&mut self, sql: &str, parameters: &[Value]) -> Result<Answer, Error> {
        self.ask_within(sql, parameters, Layers::ALL).await
    }

    pub(crate) async fn ask_within(
        &mut self,
        sql: &str,
        parameters: &[Value],
        layers: Layers,
    ) -> Result<Answer, Error> {
        let ask = Ask {
            parameters: parameters.to_vec(),
            layers,
            ..Ask::new(sql)
        };
        let (answer, _rest) = self.postgres.query(ask, Budget::default()).await?;
        Ok(answer)
    }

    /// The only value of the only row.
    pub(crate) async fn value(&mut self, sql: &str, parameters: &[Value]) -> anyhow::Result<Value> {
        let answer = self.ask(sql, parameters).await;
        let mut rows = answer.with_context(|| sql.to_owned())?.rows.into_rows();
        ensure!(rows.len() == 1, "{sql} gives {} rows", rows.len());
        let mut row = rows.remove(0);
        ensure!(row.len() == 1, "{sql} gives {} columns", row.len());
        Ok(row.remove(0))
    }
}

/// A source of the test server that only reads.
pub(crate) fn settings(lines: &Lines, user: &str, database: &str) -> anyhow::Result<Settings> {
    let of = |key: &str| {
        let value = lines
            .get(key)
            .with_context(|| format!("the script says no {key}"));
        value.map(String::as_str)
    };
    Ok(Settings {
        id: "test".to_owned(),
        engine: Engine::Postgres,
        url: format!("postgres://{user}@127.0.0.1:{}/{database}", of("PORT")?),
        password: Some(Password::File(PathBuf::from(of("PASSWORD_FILE")?))),
        mode: Mode::Read,
        tls: Tls::default(),
        limits: Limits::default(),
        special: Special {
            allow_superuser: true,
            ..Special::default()
        },
    })
}

async fn connect(lines: &Lines, database: &str) -> anyhow::Result<Client> {
    let options =
        "-c standard_conforming_strings=on -c client_min_messages=warning -c TimeZone=UTC";
    connect_with(lines, database, options).await
}

/// A connection of the superuser that begins with these options.
pub(crate) async fn connect_with(
    lines: &Lines,
    database: &str,
    options: &str,
) -> anyhow::Result<Client> {
    let port = lines.get("PORT").context("the script says no port")?;
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port.parse()?)
        .user("postgres")
        .password(password())
        .dbname(database);
    if !options.is_empty() {
        config.options(options);
    }
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("a connection ended: {error}");
        }
    });
    Ok(client)
}
