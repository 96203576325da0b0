//! A server, its databases, and connections to them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use mcp_database::postgres::read::{Answer, Layers, ReadError, read};
use mcp_database::table::Budget;
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

/// What `tests/servers/postgres` ends with where this machine lacks something.
const LACKS: i32 = 3;

/// The folder of the one server of this run; it is stopped when the run ends, by a process that waits for that.
static SERVER: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

/// A database of its own, with a superuser in it.
pub(crate) struct Database {
    pub(crate) client: Client,
}

impl Database {
    /// `None` where this machine has no server and need not have one; the test is then skipped by name.
    pub(crate) async fn new(test: &str) -> anyhow::Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Some(lines) = server(test)? else {
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

/// What the script says of the server, which it starts for the first test that asks.
fn server(test: &str) -> anyhow::Result<Option<HashMap<String, String>>> {
    let mut started = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lines) = &*started {
        return Ok(Some(lines.clone()));
    }
    let script = script();
    let folder = tempfile::tempdir()?.keep();
    let output = Command::new(&script).arg("start").arg(&folder).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(LACKS) && std::env::var_os("CI").is_none_or(|ci| ci != "1") {
        eprintln!("skipped: {test} needs PostgreSQL: {said}");
        return Ok(None);
    }
    ensure!(
        output.status.success(),
        "no PostgreSQL, and with CI=1 nothing is skipped: {said}"
    );
    stop_at_the_end(&script, &folder)?;
    let lines: HashMap<String, String> = String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    *started = Some(lines.clone());
    Ok(Some(lines))
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/servers/postgres")
}

/// Statics are not dropped, so another process looks after the server: it holds a pipe of ours, and that ends when we do.
fn stop_at_the_end(script: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut waiting = Command::new("setsid");
    waiting
        .args([
            "sh",
            "-c",
            "cat >/dev/null; \"$0\" stop \"$1\" && rm -rf \"$1\"",
        ])
        .arg(script)
        .arg(folder)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut waiting = waiting.spawn()?;
    let pipe = waiting.stdin.take().context("no pipe")?;
    // It stays open until this process is gone.
    std::mem::forget(pipe);
    Ok(())
}

async fn connect(lines: &HashMap<String, String>, database: &str) -> anyhow::Result<Client> {
    let (Some(port), Some(password)) = (lines.get("PORT"), lines.get("PASSWORD")) else {
        bail!("the script does not say where the server is: {lines:?}");
    };
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port.parse()?)
        .user("postgres")
        .password(password)
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
