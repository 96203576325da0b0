//! What a fresh jail costs: CPU time of everybody involved, beside a bare spawn of the same program.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::json;
use tests::{
    binaries::Server,
    client::Era,
    fixture::{Fixture, Transport},
};

use super::{
    Figures, Samples, ms,
    process::{beside, family},
};

const EXECS: u32 = 300;

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let fixture = Fixture::start(Server::BashCommander, Transport::Stdio, Era::Modern).await?;
    let root = fixture.process.id().context("the server has ended")?;
    let call = json!({ "argv": ["/bin/true"] });
    for _ in 0..20 {
        fixture.client.call("exec", call.clone()).await?.success()?;
    }
    let before = cpu(root)?;
    let mut walls = Vec::new();
    for _ in 0..EXECS {
        let started = Instant::now();
        fixture.client.call("exec", call.clone()).await?.success()?;
        walls.push(started.elapsed());
    }
    let jailed = cpu(root)?.saturating_sub(before) / EXECS;

    let own = std::process::id();
    let before = cpu(own)?;
    for _ in 0..EXECS {
        anyhow::ensure!(
            Command::new("/bin/true").status()?.success(),
            "/bin/true failed"
        );
    }
    let bare = cpu(own)?.saturating_sub(before) / EXECS;
    let wall = Samples::new(walls);
    let measured = format!(
        "{} CPU, {} wall ({})",
        ms(jailed),
        ms(wall.p50()),
        beside("bare spawn", bare)
    );
    figures.add(
        "exec true in a fresh jail",
        &measured,
        "3 ms CPU",
        jailed <= Duration::from_millis(3),
    );
    Ok(())
}

/// CPU time of a process, its descendants, and their children that have ended.
fn cpu(root: u32) -> anyhow::Result<Duration> {
    let mut ticks = 0;
    for pid in family(root)? {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        // utime, stime, cutime and cstime are fields 14 to 17; the first one after the name is field 3.
        let fields: Vec<u64> = fields
            .split_whitespace()
            .skip(11)
            .take(4)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        ticks += fields.iter().sum::<u64>();
    }
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_micros(ticks * 1_000_000 / per_second))
}
