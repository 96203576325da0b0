//! What a command costs in a fresh jail and in a kept one: CPU time of everybody involved, beside a bare spawn of the same program.
//!
//! The limits are 3 ms and 1.2 ms where a bare spawn takes 0.5 ms. The program's own part grows with the machine's slowness and so does
//! all else, so where a bare spawn takes longer, a command may too; where it takes less, the limits stay.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tests::{
    binaries::Server,
    client::{Client, Era},
    fixture::{Fixture, Transport},
};

use super::{Figures, Samples, ms, process::family};

const WARM_UP: u32 = 20;
/// What else runs on a machine only ever adds to a figure, so that the least of some rounds is nearest to what a command costs. The
/// middle one says how far that is from what is seen.
const ROUNDS: usize = 9;
const FRESH: u32 = 200;
const KEPT: u32 = 1000;
const BARE: u32 = 1000;
/// What a bare spawn takes on the machine that the limits are for.
const BARE_SPAWN: Duration = Duration::from_micros(500);

pub(super) async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let fixture = Fixture::start(Server::BashCommander, Transport::Stdio, Era::Modern).await?;
    let root = fixture.process.id().context("the server has ended")?;
    let cases = [
        (
            "exec true in a fresh jail",
            json!({ "argv": ["/bin/true"] }),
            FRESH,
            Duration::from_millis(3),
        ),
        (
            "exec true in a kept session",
            json!({ "argv": ["/bin/true"], "session": "bench" }),
            KEPT,
            Duration::from_micros(1200),
        ),
    ];
    for (_, call, ..) in &cases {
        execs(&fixture.client, call, WARM_UP).await?;
    }
    let (mut bare, mut costs, mut walls) = (Vec::new(), [vec![], vec![]], [vec![], vec![]]);
    for _ in 0..ROUNDS {
        bare.push(bare_spawns(BARE)?);
        for (at, (_, call, count, _)) in cases.iter().enumerate() {
            let before = cpu(root)?;
            walls[at].extend(execs(&fixture.client, call, *count).await?);
            costs[at].push(cpu(root)?.saturating_sub(before) / *count);
        }
    }
    let bare = Samples::new(bare);
    let slowness = (bare.min().as_secs_f64() / BARE_SPAWN.as_secs_f64()).max(1.0);
    for ((what, _, _, limit), (costs, walls)) in cases.into_iter().zip(costs.into_iter().zip(walls))
    {
        let (costs, walls) = (Samples::new(costs), Samples::new(walls));
        let measured = format!(
            "least {}, middle {} CPU; p50 {} wall (bare spawn least {}, middle {} CPU)",
            ms(costs.min()),
            ms(costs.p50()),
            ms(walls.p50()),
            ms(bare.min()),
            ms(bare.p50())
        );
        let limit_told = format!("{} CPU × {slowness:.2}", ms(limit));
        let limit = limit.mul_f64(slowness);
        figures.add(what, &measured, &limit_told, costs.min() <= limit);
    }
    Ok(())
}

async fn execs(client: &Client, call: &Value, count: u32) -> anyhow::Result<Vec<Duration>> {
    let mut walls = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        client.call("exec", call.clone()).await?.success()?;
        walls.push(started.elapsed());
    }
    Ok(walls)
}

/// CPU time of a spawn of the same program by this one.
fn bare_spawns(count: u32) -> anyhow::Result<Duration> {
    let own = std::process::id();
    let before = cpu(own)?;
    for _ in 0..count {
        anyhow::ensure!(
            Command::new("/bin/true").status()?.success(),
            "/bin/true failed"
        );
    }
    Ok(cpu(own)?.saturating_sub(before) / count)
}

/// CPU time of a process, its descendants, and their children that have ended.
pub(super) fn cpu(root: u32) -> anyhow::Result<Duration> {
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
