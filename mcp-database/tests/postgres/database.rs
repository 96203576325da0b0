//! Databases of a server, and connections to them.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use mcp_database::postgres::read::{Layers, ReadError, read};
use mcp_database::table::{Answer, Budget};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::server::{Lines, password, server};

/// A database of its own, with a superuser in it.
pub(crate) struct Database {
    pub(crate) client: Client,
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
        administrator
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await?;
        let client = connect(&lines, &name).await?;
        Ok(Some(Self { client }))
    }

    pub(crate) async fn ask(
        &mut self,
        sql: &str,
        parameters: &[Value],
    ) -> Result<Answer, ReadError> {
        self.ask_within(sql, parameters, Layers::ALL).await
    }

    pub(crate) async fn ask_within(
        &mut self,
        sql: &str,
        parameters: &[Value],
        layers: Layers,
    ) -> Result<Answer, ReadError> {
        let budget = Budget::default();
        read(&mut self.client, sql, parameters, budget, &[], layers).await
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

async fn connect(lines: &Lines, database: &str) -> anyhow::Result<Client> {
    let port = lines.get("PORT").context("the script says no port")?;
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port.parse()?)
        .user("postgres")
        .password(password())
        .dbname(database)
        .options(
            "-c standard_conforming_strings=on -c client_min_messages=warning -c TimeZone=UTC",
        );
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("a connection ended: {error}");
        }
    });
    Ok(client)
}
