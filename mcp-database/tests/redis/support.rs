//! Sources of real servers for tests, and a bare connection to look at what they did.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcp_database::redis::value::Blob;
use mcp_database::redis::{Call, Redis};
use mcp_database::source::{Engine, Limits, Mode, Password, Settings, Special, Tls};
use mcp_database::table::{Answer, Budget};
use redis::aio::MultiplexedConnection;
use serde_json::Value;

use crate::server::{Lines, password, server as started};

/// How long a test waits for what takes moments on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A server that runs.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) flavor: &'static str,
    pub(crate) port: u16,
    pub(crate) lines: Lines,
}

/// The server of a flavor; `None` where this machine cannot have it.
pub(crate) fn server(flavor: &'static str) -> Result<Option<Server>> {
    let Some(lines) = started("redis", flavor)? else {
        return Ok(None);
    };
    let port = lines.get("PORT").context("the script says no port")?;
    Ok(Some(Server {
        flavor,
        port: port.parse()?,
        lines,
    }))
}

/// Redis and Valkey, as far as this machine can have them.
pub(crate) fn servers() -> Result<Vec<Server>> {
    ["redis", "valkey"]
        .into_iter()
        .filter_map(|flavor| server(flavor).transpose())
        .collect()
}

impl Server {
    pub(crate) fn settings(&self, user: &str, mode: Mode) -> Result<Settings> {
        settings(&format!("redis://{user}@127.0.0.1:{}", self.port), mode)
    }

    pub(crate) fn source(&self, user: &str, mode: Mode) -> Result<Redis> {
        Ok(Redis::open(&self.settings(user, mode)?)?)
    }

    /// A source with streams of its own.
    pub(crate) fn bus(&self, user: &str, mode: Mode, streams: &[&str]) -> Result<Redis> {
        let mut settings = self.settings(user, mode)?;
        settings.special.streams = streams.iter().map(|name| (*name).to_owned()).collect();
        Ok(Redis::open(&settings)?)
    }

    /// A connection as `admin` that nothing of this project stands before.
    pub(crate) async fn bare(&self) -> Result<MultiplexedConnection> {
        let url = format!("redis://admin:{}@127.0.0.1:{}", password(), self.port);
        let client = redis::Client::open(url)?;
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        Ok(client
            .get_multiplexed_async_connection_with_config(&config)
            .await?)
    }

    /// A new user with these rules, who logs in as the others do.
    pub(crate) async fn user(
        &self,
        bare: &mut MultiplexedConnection,
        rules: &str,
    ) -> Result<String> {
        let user = unique("user").replace(':', "_");
        let line = format!("ACL SETUSER {user} reset on >{} {rules}", password());
        send(bare, &line).await?;
        Ok(user)
    }
}

pub(crate) fn settings(url: &str, mode: Mode) -> Result<Settings> {
    Ok(Settings {
        id: "cache".to_owned(),
        engine: Engine::Redis,
        url: url.to_owned(),
        password: Some(Password::File(password_file()?)),
        mode,
        tls: Tls::default(),
        limits: Limits::default(),
        special: Special::default(),
    })
}

/// A file without a name, so that nothing of it is left when the tests end.
fn password_file() -> Result<PathBuf> {
    static FILE: OnceLock<File> = OnceLock::new();
    if FILE.get().is_none() {
        let mut file = tempfile::tempfile()?;
        file.write_all(password().as_bytes())?;
        // Of several tests that come first, one has its file taken.
        drop(FILE.set(file));
    }
    let file = FILE.get().context("no file")?;
    Ok(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
}

/// Sends one command as it is.
pub(crate) async fn send(
    connection: &mut MultiplexedConnection,
    line: &str,
) -> Result<redis::Value> {
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().unwrap_or_default());
    for word in words {
        command.arg(word);
    }
    Ok(command.query_async(connection).await?)
}

pub(crate) fn call() -> Call {
    Call {
        budget: Budget::default(),
        timeout: PATIENCE,
    }
}

/// The words of a line as arguments.
pub(crate) fn argv(line: &str) -> Vec<Blob> {
    line.split(' ').map(Blob::from).collect()
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}:{}:{number}", std::process::id())
}

/// Asks until the answer has what is waited for.
pub(crate) async fn wait_for<T>(
    mut ask: impl AsyncFnMut() -> Result<T>,
    is_there: impl Fn(&T) -> bool,
) -> Result<T> {
    let start = std::time::Instant::now();
    loop {
        let answer = ask().await?;
        if is_there(&answer) {
            return Ok(answer);
        }
        ensure!(start.elapsed() < PATIENCE, "it does not come");
    }
}

/// The only row.
pub(crate) fn one(answer: Answer) -> Result<Vec<Value>> {
    let mut rows = answer.rows.into_rows();
    ensure!(rows.len() == 1, "{} rows", rows.len());
    Ok(rows.remove(0))
}
