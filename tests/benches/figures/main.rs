//! The figures the project holds itself to, each beside its limit, measured in one run: `cargo bench -p tests --bench figures`.
//!
//! Limits that depend on the disk or the machine are ratios to something measured in the same run. Names of groups as arguments
//! (`process`, `calls`, `databases`, `transitions`, `begin`, `jail`, `denials`) measure only those. Ends with 1 if a figure misses its limit.

#![expect(
    clippy::print_stdout,
    reason = "the figures are what this program is for"
)]

mod calls;
mod databases;
mod denials;
mod disk;
mod jail;
mod process;
#[path = "../../../mcp-database/tests/common/server.rs"]
mod server;
mod world;

use std::{process::ExitCode, time::Duration};

/// One figure.
struct Figure {
    what: &'static str,
    holds: bool,
}

/// Collects figures and prints them as they come.
#[derive(Default)]
struct Figures(Vec<Figure>);

impl Figures {
    fn add(&mut self, what: &'static str, measured: &str, limit: &str, holds: bool) {
        let mark = if holds { "ok    " } else { "MISSED" };
        println!("{mark}  {what:<58} {measured:<44} limit {limit}");
        self.0.push(Figure { what, holds });
    }

    /// A duration that must not be over a limit.
    fn at_most(&mut self, what: &'static str, samples: &Samples, limit: Duration) {
        let measured = format!(
            "p50 {} (min {}, max {})",
            ms(samples.p50()),
            ms(samples.min()),
            ms(samples.max())
        );
        self.add(what, &measured, &ms(limit), samples.p50() <= limit);
    }
}

/// Durations of repeated measurements, sorted.
struct Samples(Vec<Duration>);

impl Samples {
    fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    fn p50(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    fn min(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1000.0)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only wants to know that it builds and starts.
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(ExitCode::SUCCESS);
    }
    let groups: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |group: &str| groups.is_empty() || groups.contains(&group);
    let mut figures = Figures::default();
    if wanted("process") {
        process::measure(&mut figures).await?;
    }
    if wanted("calls") {
        calls::measure(&mut figures).await?;
    }
    if wanted("databases") {
        databases::measure(&mut figures).await?;
    }
    if wanted("transitions") {
        disk::transitions(&mut figures)?;
    }
    if wanted("begin") {
        world::begin(&mut figures).await?;
    }
    if wanted("jail") {
        jail::measure(&mut figures).await?;
    }
    if wanted("denials") {
        denials::measure(&mut figures).await?;
    }
    let missed: Vec<&str> = figures
        .0
        .iter()
        .filter(|figure| !figure.holds)
        .map(|figure| figure.what)
        .collect();
    println!("\n{} figures, {} missed", figures.0.len(), missed.len());
    for what in &missed {
        println!("missed: {what}");
    }
    Ok(ExitCode::from(u8::from(!missed.is_empty())))
}
