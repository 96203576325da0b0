//! What it costs that a denied system call is told: CPU time of everybody involved, against a call of the same program that is allowed.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tests::{
    binaries::Server,
    client::{Client, Era},
    fixture::{Fixture, Transport},
};

use super::{Figures, jail::cpu, process::beside};

const LIMIT: Duration = Duration::from_micros(100);
/// Denials of one kind in one command; the server hears of the first at once, then ever more seldom.
const OF_ONE_KIND: u32 = 20_000;
/// Denials of a kind of their own in one command, of each of which the server hears at once; fewer than a jail tells apart.
const OF_ALL_KINDS: u32 = 250;

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let fixture = Fixture::start(Server::BashCommander, Transport::Stdio, Era::Modern).await?;
    let root = fixture.process.id().context("the server has ended")?;
    let client = &fixture.client;
    // Numbers of system calls of x86-64: getpid is allowed, mount is not, and no personality but the ordinary one.
    for (what, denied, times, rounds) in [
        (
            "a denied system call, of a kind told before",
            "165,0,0,0,0,0",
            OF_ONE_KIND,
            5,
        ),
        (
            "a denied system call, told to the server at once",
            "135,number",
            OF_ALL_KINDS,
            40,
        ),
    ] {
        let (mut with, mut without) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            without += calls(client, root, "39,number", times, 0).await?;
            with += calls(client, root, denied, times, times).await?;
        }
        let (with, without) = (with / rounds / times, without / rounds / times);
        let cost = with.saturating_sub(without);
        figures.add(
            what,
            &format!(
                "{} CPU ({})",
                super::ms(cost),
                beside("an allowed call", without)
            ),
            "0.1 ms CPU",
            cost <= LIMIT,
        );
    }
    Ok(())
}

/// CPU time of a command that makes a system call so many times, all of which must fail or none.
async fn calls(
    client: &Client,
    root: u32,
    call: &str,
    times: u32,
    failing: u32,
) -> anyhow::Result<Duration> {
    let program = format!(
        "import ctypes\ncall = ctypes.CDLL(None).syscall\n\
         print(sum(call({call}) < 0 for number in range(1, {times} + 1)))"
    );
    let before = cpu(root)?;
    let exec = json!({ "argv": ["python3", "-c", program], "session": "bench" });
    let done = client.call("exec", exec).await?.success()?;
    let used = cpu(root)?.saturating_sub(before);
    let failed = &done["stdout"]["text"];
    anyhow::ensure!(
        *failed == json!(format!("{failing}\n")),
        "{failed} calls failed instead of {failing}: {}",
        done["stderr"]["text"]
    );
    Ok(used)
}
