//! What the database server adds to its driver: a query beside the same through tokio-postgres, a capped result, memory, cancelling.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::binaries::Server;
use tests::client::{Client, Era};
use tests::process::ServerProcess;
use tokio_postgres::NoTls;

use super::jail::cpu;
use super::{Figures, Samples, ms};
use crate::server::{Lines, password, server};

const WARM_UP: u32 = 200;
const CALLS: u32 = 1000;
/// What may be added to the driver's time, where that is [`BARE`].
const OVERHEAD: Duration = Duration::from_micros(150);
/// What a capped result may take then.
const CAPPED: Duration = Duration::from_millis(1);
/// `SELECT 1` through the bare driver, prepared and asked, on a quiet machine.
const BARE: Duration = Duration::from_micros(120);
const MOST_MEMORY_KB: u64 = 40 * 1024;

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let Some(lines) = server("postgres", "18")? else {
        println!("skipped: no PostgreSQL");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let (process, client) = serve(&lines, folder.path()).await?;
    let driver = driver(&lines).await?;
    let setup = "DROP TABLE IF EXISTS figures; CREATE TABLE figures AS SELECT g AS id, repeat('x', 80) AS text FROM generate_series(1, 10000) g";
    driver.batch_execute(setup).await?;

    let (bare, bare_cost) = repeated(std::process::id(), async || {
        let statement = driver.prepare("SELECT 1 AS x").await?;
        driver.query(&statement, &[]).await?;
        Ok(())
    })
    .await?;
    let server = process.id().context("it has ended")?;
    let ours = async || query(&client, "SELECT 1 AS x").await.map(drop);
    let (ours, cost) = repeated(server, ours).await?;
    let over = ours.p50().saturating_sub(bare.p50());
    let measured = format!("p50 {} over the driver's {}", ms(over), ms(bare.p50()));
    // On a machine where the bare driver is slower, everything is.
    let slower = (bare.p50().as_secs_f64() / BARE.as_secs_f64()).max(1.0);
    let limit = OVERHEAD.mul_f64(slower);
    figures.add(
        "SELECT 1 through pg_query, stdio",
        &measured,
        &ms(limit),
        over <= limit,
    );

    let measured = format!("{} CPU, the driver alone {}", ms(cost), ms(bare_cost));
    figures.add(
        "the same, our processor time over the driver's",
        &measured,
        &ms(OVERHEAD),
        cost.saturating_sub(bare_cost) <= OVERHEAD,
    );

    let mut capped = Vec::new();
    for _ in 0..CALLS {
        let started = Instant::now();
        let answer = query(&client, "SELECT * FROM figures").await?;
        capped.push(started.elapsed());
        ensure!(answer["row_count"] == 100, "{answer}");
        let close = json!({ "cursor": answer["next_cursor"], "action": "close" });
        client.call("db_cursor", close).await?.success()?;
    }
    figures.at_most(
        "100 of 10,000 rows through a cursor",
        &Samples::new(capped),
        CAPPED.mul_f64(slower),
    );

    let before = resident_kb(&process)?;
    let large = "SELECT g, repeat('x', 80) FROM generate_series(1, 10000000) g";
    let answer = query(&client, large).await?;
    ensure!(answer["truncated"] == "rows", "{answer}");
    let after = resident_kb(&process)?;
    let measured = format!("{after} KB resident, {before} KB before");
    figures.add(
        "a query of ten million rows",
        &measured,
        "40 MB",
        after <= MOST_MEMORY_KB,
    );

    let mut freed = Vec::new();
    for round in 0..10 {
        let id = format!("long {round}");
        freed.push(cancelled(&client, &driver, &id).await?);
    }
    figures.at_most(
        "a cancelled query is gone at the server",
        &Samples::new(freed),
        Duration::from_secs(1),
    );
    Ok(())
}

async fn serve(lines: &Lines, folder: &std::path::Path) -> anyhow::Result<(ServerProcess, Client)> {
    let of = |key: &str| lines.get(key).with_context(|| format!("no {key}"));
    let sources = folder.join("sources.toml");
    let text = format!(
        "[[source]]\nid = \"main\"\nurl = \"postgres://postgres@127.0.0.1:{}/postgres\"\npassword_file = \"{}\"\nallow_superuser = true\n",
        of("PORT")?,
        of("PASSWORD_FILE")?
    );
    std::fs::write(&sources, text)?;
    let state = folder.join("state");
    let flags = ["--sources".into(), sources, "--state-dir".into(), state];
    let mut process = ServerProcess::start(Server::Database, folder, flags).await?;
    let client = process.client(Era::Legacy).await?;
    Ok((process, client))
}

async fn driver(lines: &Lines) -> anyhow::Result<tokio_postgres::Client> {
    let port = lines.get("PORT").context("no PORT")?;
    let (client, connection) = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(port.parse()?)
        .user("postgres")
        .password(password())
        .dbname("postgres")
        .connect(NoTls)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn query(client: &Client, sql: &str) -> anyhow::Result<Value> {
    client
        .call("pg_query", json!({ "sql": sql }))
        .await?
        .success()
}

/// How long each time took, and what one took of a process's processor time.
async fn repeated(
    process: u32,
    work: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<(Samples, Duration)> {
    let mut durations = Vec::new();
    let before = cpu(process)?;
    for call in 0..WARM_UP + CALLS {
        let started = Instant::now();
        work().await?;
        if call >= WARM_UP {
            durations.push(started.elapsed());
        }
    }
    let cost = cpu(process)?.saturating_sub(before) / (WARM_UP + CALLS);
    Ok((Samples::new(durations), cost))
}

/// From the cancelling of a query to its end at the server.
async fn cancelled(
    client: &Client,
    driver: &tokio_postgres::Client,
    id: &str,
) -> anyhow::Result<Duration> {
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%a_long_one%' AND pid <> pg_backend_pid()";
    let count = async |wanted: i64| {
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(30) {
            let row = driver.query_one(running, &[]).await?;
            if row.try_get::<_, i64>(0)? == wanted {
                return anyhow::Ok(());
            }
        }
        anyhow::bail!("there are never {wanted} of the long query at the server")
    };
    let long = json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": "pg_query", "arguments": {
            "sql": "SELECT count(*) AS a_long_one FROM generate_series(1, 100000000) a, generate_series(1, 100) b",
        } },
    });
    client.send_line(&long.to_string()).await?;
    count(1).await?;
    let started = Instant::now();
    let cancelled = json!({ "requestId": id });
    client.notify("notifications/cancelled", cancelled).await?;
    count(0).await?;
    Ok(started.elapsed())
}

fn resident_kb(process: &ServerProcess) -> anyhow::Result<u64> {
    let pid = process.id().context("it has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kilobytes.context("no VmRSS")?.parse()?)
}
