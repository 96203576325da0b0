//! `cargo demo`: one outcome specification on its whole way, with a scripted agent, a real jail and a human who decides.

mod agent;
mod approver;
mod stage;
mod story;

use std::{process::ExitCode, task::Poll};

use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{approver::Approver, stage::Stage, story::Story};

/// Plays the specification `test-web-service` through: plan, your decision, a jailed web server, measurements, your decision.
///
/// Nothing is installed or left behind; state lives in a temporary directory.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
struct Arguments {
    /// Enrol a test approver and let it decide, through the approval plane. Proves the machinery, nothing about people.
    #[arg(long)]
    yes_i_am_testing: bool,
    /// Say no to the first plan, with a reason; the agent plans again. With --yes-i-am-testing.
    #[arg(long, requires = "yes_i_am_testing")]
    reject_first: bool,
    /// Print the story as one JSON document at the end.
    #[arg(long)]
    json: bool,
    /// Keep the temporary directory.
    #[arg(long)]
    keep: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut story = Story::new(arguments.json);
    let outcome = tokio::select! {
        outcome = play(&arguments, &mut story) => outcome,
        () = told_to_end() => Err(anyhow::anyhow!("interrupted; everything that was started is ended")),
    };
    let succeeded = outcome.is_ok();
    story.end(outcome);
    if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Waits for any of the signals that end a program.
async fn told_to_end() {
    let signals = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let mut ends: Vec<Signal> = signals
        .into_iter()
        .filter_map(|kind| signal(kind).ok())
        .collect();
    std::future::poll_fn(|context| {
        let told = ends.iter_mut().any(|end| end.poll_recv(context).is_ready());
        if told { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn play(arguments: &Arguments, story: &mut Story) -> anyhow::Result<()> {
    story::say("building the servers (the first time takes some minutes)");
    let mut stage = Stage::set(arguments.keep, story).await?;
    let approver = if arguments.yes_i_am_testing {
        Approver::Test {
            reject_first: arguments.reject_first,
        }
    } else {
        Approver::Human
    };
    approver.enrol(&stage, story).await?;
    let told = agent::play(&mut stage, &approver, story).await;
    if told.is_err() {
        story.logs(&stage.folder());
        stage.keep();
    }
    told
}
