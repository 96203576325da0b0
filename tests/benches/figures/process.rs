//! Whole processes: how fast they answer for the first time, and how much memory they keep.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tests::{
    binaries::Server,
    client::Era,
    fixture::{Fixture, Transport, places},
    process::{ServerProcess, environment},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
};

use super::{Figures, Samples, ms};

const RUNS: usize = 20;
const LARGEST_LIST: usize = 24_000;
const MOST_MEMORY_KB: u64 = 15 * 1024;

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let limit = Duration::from_millis(10);
    let shell = repeated(async |_| {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("workspace"))?;
        first_answer(Server::BashCommander, folder.path(), &[]).await
    })
    .await?;
    figures.at_most("start to first answer, mcp-bash-commander", &shell, limit);

    let database = repeated(async |_| {
        let folder = tempfile::tempdir()?;
        first_answer(Server::Database, folder.path(), &[]).await
    })
    .await?;
    figures.at_most("start to first answer, mcp-database", &database, limit);

    let running = Fixture::start(Server::SpecRegistry, Transport::Stdio, Era::Modern).await?;
    let pipe = repeated(async |_| {
        first_answer(Server::SpecRegistry, running.folder.path(), &["stdio"]).await
    })
    .await?;
    figures.at_most(
        "start to first answer, mcp-spec-registry, registry runs",
        &pipe,
        limit,
    );
    drop(running);

    let starting = repeated(async |_| {
        let folder = tempfile::tempdir()?;
        first_with_registry(folder.path()).await?;
        first_with_registry(folder.path()).await
    })
    .await?;
    let limit = Duration::from_millis(20);
    figures.at_most(
        "start to first answer, mcp-spec-registry, started first",
        &starting,
        limit,
    );

    for server in Server::ALL {
        let fixture = Fixture::start(server, Transport::Stdio, Era::Modern).await?;
        let tools = fixture.client.list_tools().await?;
        let bytes = serde_json::to_vec(&json!({ "tools": tools }))?.len();
        let what = match server {
            Server::SpecRegistry => "tools/list, mcp-spec-registry",
            Server::BashCommander => "tools/list, mcp-bash-commander",
            Server::Database => "tools/list, mcp-database",
        };
        figures.add(
            what,
            &format!("{bytes} bytes, {} tools", tools.len()),
            &format!("{LARGEST_LIST} bytes"),
            bytes <= LARGEST_LIST,
        );
        memory(figures, server, &fixture)?;
    }
    Ok(())
}

async fn repeated(
    measure: impl AsyncFn(usize) -> anyhow::Result<Duration>,
) -> anyhow::Result<Samples> {
    let mut durations = Vec::new();
    for run in 0..RUNS {
        durations.push(measure(run).await?);
    }
    Ok(Samples::new(durations))
}

/// From the start of the process to its answer to `server/discover`, on stdio.
async fn first_answer(server: Server, folder: &Path, words: &[&str]) -> anyhow::Result<Duration> {
    let program = server.program().await?;
    let mut command = Command::new(program);
    command
        .args(words)
        .args(places(server, folder))
        .env_clear()
        .envs(environment(folder));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let discover = json!({
        "jsonrpc": "2.0", "id": 1, "method": "server/discover",
        "params": { "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        } },
    });
    let started = Instant::now();
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(format!("{discover}\n").as_bytes()).await?;
    let stdout = child.stdout.take().context("no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    let took = started.elapsed();
    let answer: Value = serde_json::from_str(&line)?;
    anyhow::ensure!(answer["result"].is_object(), "the first answer is {answer}");
    drop(stdin);
    child.wait().await?;
    Ok(took)
}

/// The same where the pipe must start the registry; afterwards that registry is ended.
async fn first_with_registry(folder: &Path) -> anyhow::Result<Duration> {
    let took = first_answer(Server::SpecRegistry, folder, &["stdio"]).await?;
    let lock = folder.join("state/registry.lock");
    let holder: i32 = std::fs::read_to_string(&lock)?.trim().parse()?;
    let pid = rustix::process::Pid::from_raw(holder).context("no process holds the lock")?;
    let gone = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let mut end = [rustix::event::PollFd::new(
        &gone,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut end, None)?;
    Ok(took)
}

/// Resident memory of a server and of everything it started.
fn memory(figures: &mut Figures, server: Server, fixture: &Fixture) -> anyhow::Result<()> {
    let roots: Vec<u32> = [Some(&fixture.process), fixture.daemon.as_ref()]
        .into_iter()
        .flatten()
        .filter_map(ServerProcess::id)
        .collect();
    let mut total = 0;
    let mut parts = Vec::new();
    for root in roots {
        for pid in family(root)? {
            let kilobytes = resident_kb(pid)?;
            total += kilobytes;
            parts.push(format!("{:.1}", megabytes(kilobytes)));
        }
    }
    let what = match server {
        Server::SpecRegistry => "idle memory, pipe and registry",
        Server::BashCommander => "idle memory, mcp-bash-commander and launcher",
        Server::Database => "idle memory, mcp-database",
    };
    let measured = format!(
        "{:.1} MB resident ({})",
        megabytes(total),
        parts.join(" + ")
    );
    figures.add(what, &measured, "15.0 MB", total <= MOST_MEMORY_KB);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1024.0
}

/// A process and all its descendants.
pub(super) fn family(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&pid) = family.get(next) {
        next += 1;
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let children =
                std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            family.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    Ok(family)
}

/// Resident memory, with pages that several processes share (the program's code, above all) divided among them, so that the sum
/// over a server and its helpers counts each page once: `Pss` of proc(5).
fn resident_kb(pid: u32) -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// Shown beside figures that are ratios.
pub(super) fn beside(name: &str, duration: Duration) -> String {
    format!("{name} {}", ms(duration))
}
