//! What humans do on the command line; everything of it goes over the registry's approval socket.

mod client;
mod decide;
mod show;
mod terminal;
mod tokens;

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde::Serialize;

use self::{
    client::{Client, segment},
    terminal::{Style, Terminal},
};
use super::{
    api::{Control, Controlled, Enrol, OpenRun, Queue},
    secret,
    view::{CheckpointView, Machine, Prose, words},
};
use crate::{
    registry::{AddedSpecification, EnrolledApprover, HistoryEntry},
    run::{CheckpointKind, ReturnTo, Verdict},
    store::TokenKind,
};

/// Largest specification file, in bytes.
const MOST_SPECIFICATION_BYTES: u64 = 256 * 1024 + 1;

/// What humans do.
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// Enrol somebody who may decide; asks for their secret twice.
    Enrol(EnrolArgs),
    /// End an approver; decisions of theirs that were not begun are void.
    Unenrol {
        /// Name of the approver.
        name: String,
    },
    /// List who may decide.
    Approvers {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tokens of agents and of servers.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Outcome specifications.
    #[command(subcommand)]
    Spec(SpecCommand),
    /// List what waits for a human.
    Queue {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a checkpoint whole, its code at the end.
    Show {
        /// Id of the checkpoint.
        id: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say yes: carry the plan out (V1), or accept the outcome (V2).
    Approve(DecideArgs),
    /// Say no, with the reason.
    Reject(DecideArgs),
    /// Ask the agent back before deciding (V1).
    Clarify(DecideArgs),
    /// List what was decided, newest first.
    History {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a run in good order.
    Cancel(ControlArgs),
    /// Allow no further effect of a run until it is resumed.
    Pause(ControlArgs),
    /// End a pause; takes an approver's secret.
    Resume(ResumeArgs),
    /// End a run and all of its processes at once.
    Kill(ControlArgs),
}

/// Who is enrolled.
#[derive(Debug, Args)]
pub struct EnrolArgs {
    /// Name of the approver.
    #[arg(long)]
    name: String,
    /// A test approver; such decisions prove nothing about people, and cannot be made beside real ones.
    #[arg(long)]
    test: bool,
    /// Read the secret from this file descriptor instead of asking.
    #[arg(long, value_name = "N")]
    secret_fd: Option<u32>,
}

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and write it to a new file that only you can read.
    Add {
        /// What it is for.
        #[arg(long, value_enum)]
        kind: Kind,
        /// Name of the agent or service.
        #[arg(long)]
        name: String,
        /// For a service: the server program, such as mcp-bash-commander.
        #[arg(long)]
        server: Option<String>,
        /// The file; must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write the agents' names and token hashes, for `--tokens` of a server.
    Export {
        /// The file; standard output without it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The agent plane.
    Agent,
    /// The effect plane.
    Service,
}

impl From<Kind> for TokenKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Agent => Self::Agent,
            Kind::Service => Self::Service,
        }
    }
}

/// What is done with specifications.
#[derive(Debug, Subcommand)]
pub enum SpecCommand {
    /// Add a version; it is active at once.
    Add {
        /// The YAML file, or - for standard input.
        file: PathBuf,
        /// Id for a specification that does not carry its own.
        #[arg(long)]
        spec_id: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How a checkpoint is decided.
#[derive(Debug, Clone, Args)]
pub struct DecideArgs {
    /// Id of the checkpoint.
    id: String,
    /// Who decides [default: the only approver there is].
    #[arg(long)]
    name: Option<String>,
    /// Why; asked for a "no".
    #[arg(long)]
    reason: Option<String>,
    /// Why, as a code that can be counted, such as `would_have_failed`.
    #[arg(long, value_name = "CODE")]
    reason_code: Option<String>,
    /// End the run with this "no".
    #[arg(long = "final")]
    is_final: bool,
    /// Where the run goes on after a "no" at V2.
    #[arg(long, value_enum)]
    return_to: Option<Return>,
    /// Accept that the result of this criterion is unknown (V2); may be given several times.
    #[arg(long, value_name = "CRITERION")]
    accept_unknown: Vec<String>,
    /// The code at the end of `show`, instead of being asked.
    #[arg(long)]
    code: Option<String>,
    /// Read the secret from this file descriptor instead of asking.
    #[arg(long, value_name = "N")]
    secret_fd: Option<u32>,
    /// Print the receipt as JSON.
    #[arg(long)]
    json: bool,
}

/// Where a run goes on after a "no" at V2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Return {
    /// Carry the same plan out again.
    Generate,
    /// Make another plan.
    Analyze,
}

impl From<Return> for ReturnTo {
    fn from(to: Return) -> Self {
        match to {
            Return::Generate => Self::Generate,
            Return::Analyze => Self::Analyze,
        }
    }
}

/// Which run is stopped.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// Id of the run.
    run: String,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
}

/// Which run is resumed, and by whom.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Id of the run.
    run: String,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
    /// Who resumes it [default: the only approver there is].
    #[arg(long)]
    name: Option<String>,
    /// Read the secret from this file descriptor instead of asking.
    #[arg(long, value_name = "N")]
    secret_fd: Option<u32>,
}

/// Carries out a command against the registry of this state directory, which is started when none runs.
///
/// # Errors
/// What the registry refuses, in its words; input that cannot be had.
pub fn run(
    command: ApprovalCommand,
    state_dir: &Path,
    socket_dir: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let client = Client::connect(state_dir, socket_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    match runtime.block_on(carry_out(command, client)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if is_interruption(&error) => Ok(ExitCode::from(INTERRUPTED)),
        Err(error) => Err(error),
    }
}

/// As shells say it: 128 and the number of the signal.
const INTERRUPTED: u8 = 130;

/// Somebody pressed Ctrl-C where a secret was asked.
fn is_interruption(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::Interrupted)
}

async fn carry_out(command: ApprovalCommand, client: Client) -> anyhow::Result<()> {
    let terminal = Terminal::from_environment();
    match command {
        ApprovalCommand::Enrol(args) => enrol(&client, terminal, args).await,
        ApprovalCommand::Unenrol { name } => {
            let path = format!("/v1/approvers/{}", segment(&name));
            client
                .send(
                    Method::DELETE,
                    &path,
                    hyper::body::Bytes::new(),
                    "application/json",
                )
                .await?;
            terminal.say(
                Style::Good,
                &format!("{} may no longer decide", Prose::of(&name).as_str()),
            )?;
            Ok(())
        }
        ApprovalCommand::Approvers { json } => approvers(&client, terminal, json).await,
        ApprovalCommand::Token(command) => tokens::run(&client, terminal, command).await,
        ApprovalCommand::Spec(SpecCommand::Add {
            file,
            spec_id,
            json,
        }) => add_specification(&client, terminal, &file, spec_id.as_deref(), json).await,
        ApprovalCommand::Queue { json } => queue(&client, terminal, json).await,
        ApprovalCommand::Show { id, json } => {
            let view: CheckpointView = client.get(&checkpoint_path(&id)).await?;
            if json {
                print_json(&view)
            } else {
                print(&show::checkpoint(&view, terminal))
            }
        }
        ApprovalCommand::Approve(args) => {
            decide::run(&client, terminal, Verdict::Approve, args).await
        }
        ApprovalCommand::Reject(args) => {
            decide::run(&client, terminal, Verdict::Reject, args).await
        }
        ApprovalCommand::Clarify(args) => {
            decide::run(&client, terminal, Verdict::Clarify, args).await
        }
        ApprovalCommand::History { json } => history(&client, terminal, json).await,
        ApprovalCommand::Cancel(args) => control(&client, terminal, "cancel", args).await,
        ApprovalCommand::Pause(args) => control(&client, terminal, "pause", args).await,
        ApprovalCommand::Kill(args) => control(&client, terminal, "kill", args).await,
        ApprovalCommand::Resume(args) => resume(&client, terminal, args).await,
    }
}

fn checkpoint_path(id: &str) -> String {
    // Ids are upper case; people type them as they like.
    format!(
        "/v1/checkpoints/{}",
        segment(&id.trim().to_ascii_uppercase())
    )
}

async fn enrol(client: &Client, terminal: Terminal, args: EnrolArgs) -> anyhow::Result<()> {
    let name = Prose::of(&args.name);
    let secret = terminal::ask_secret(&format!("secret of {}", name.as_str()), args.secret_fd)?;
    secret::check(&secret)?;
    if args.secret_fd.is_none() {
        let again = terminal::ask_secret("the same again", None)?;
        anyhow::ensure!(
            *secret == *again,
            "the two secrets differ; nobody was enrolled"
        );
    }
    let asked = Enrol {
        name: args.name.clone(),
        secret: secret.to_string(),
        is_test: args.test,
    };
    client.post::<()>("/v1/approvers", &asked).await?;
    let kind = if args.test { " as a test approver" } else { "" };
    terminal.say(
        Style::Good,
        &format!("{} is enrolled{kind} and may decide", name.as_str()),
    )?;
    Ok(())
}

async fn approvers(client: &Client, terminal: Terminal, json: bool) -> anyhow::Result<()> {
    let approvers: Vec<EnrolledApprover> = client.get("/v1/approvers").await?;
    if json {
        return print_json(&approvers);
    }
    if approvers.is_empty() {
        terminal.say(
            Style::Plain,
            "nobody is enrolled; `mcp-spec-registry enrol --name NAME` enrols you",
        )?;
    }
    for approver in approvers {
        let test = if approver.is_test { "  test" } else { "" };
        let enrolled = words::moment(approver.enrolled_at);
        terminal.say(
            Style::Plain,
            &format!(
                "{}  since {enrolled}{test}",
                Prose::of(&approver.name).as_str()
            ),
        )?;
    }
    Ok(())
}

/// The approver named, or the only one there is.
async fn approver_name(client: &Client, given: Option<String>) -> anyhow::Result<String> {
    if let Some(name) = given {
        return Ok(name);
    }
    let approvers: Vec<EnrolledApprover> = client.get("/v1/approvers").await?;
    match approvers.as_slice() {
        [] => anyhow::bail!("nobody is enrolled; `mcp-spec-registry enrol --name NAME` enrols you"),
        [only] => Ok(only.name.clone()),
        _ => terminal::ask("your name", "--name"),
    }
}

async fn add_specification(
    client: &Client,
    terminal: Terminal,
    file: &Path,
    spec_id: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let opened = std::fs::File::open(file);
        Box::new(
            opened
                .map_err(|error| anyhow::anyhow!("failed to read `{}`: {error}", file.display()))?,
        )
    };
    let mut text = Vec::new();
    source
        .take(MOST_SPECIFICATION_BYTES)
        .read_to_end(&mut text)?;
    let query = spec_id.map_or_else(String::new, |id| format!("?spec_id={}", segment(id)));
    let path = format!("/v1/specifications{query}");
    let answer = client
        .send(Method::POST, &path, text.into(), "application/yaml")
        .await?;
    let added: AddedSpecification = serde_json::from_slice(&answer)?;
    if json {
        return print_json(&added);
    }
    terminal.say(
        Style::Good,
        &format!(
            "{} {} is active: {}, {} of them measurable, {} · {}",
            added.spec_id,
            added.version,
            words::count(added.criteria as usize, "criterion", "criteria"),
            added.measurable,
            words::count(added.constraints as usize, "constraint", "constraints"),
            added.digest
        ),
    )?;
    Ok(())
}

async fn queue(client: &Client, terminal: Terminal, json: bool) -> anyhow::Result<()> {
    let queue: Queue = client.get("/v1/queue").await?;
    if json {
        return print_json(&queue);
    }
    if queue.checkpoints.is_empty() {
        terminal.say(Style::Plain, "nothing waits for you")?;
    }
    let now = time::OffsetDateTime::now_utc();
    for open in &queue.checkpoints {
        let asks = match open.kind {
            CheckpointKind::V1 => format!("V1  plan revision {}", open.revision),
            CheckpointKind::V2 => format!("V2  outcome of revision {}", open.revision),
        };
        terminal.say(
            Style::Strong,
            &format!(
                "{}  {asks} of {} {}",
                open.checkpoint_id,
                open.spec_id,
                Machine::of(&open.spec_version).as_str()
            ),
        )?;
        terminal.say(
            Style::Faint,
            &format!(
                "        asked by {}, environment {}, waiting for {}, open for {} more",
                Machine::of(&open.opened_by).as_str(),
                Machine::of(&open.environment).as_str(),
                words::duration(now - open.opened_at),
                words::duration(open.expires_at - now)
            ),
        )?;
    }
    for (number, run) in queue.runs.iter().enumerate() {
        if number == 0 {
            let title = "open runs, for `pause`, `resume`, `cancel` and `kill`";
            terminal.say(Style::Faint, title)?;
        }
        terminal.say(Style::Plain, &open_run(run))?;
    }
    if let Some(page) = &queue.page {
        terminal.say(Style::Faint, &format!("page: {page}"))?;
    }
    Ok(())
}

fn open_run(run: &OpenRun) -> String {
    let paused = if run.paused { ", paused" } else { "" };
    let worked_on = run.claimant.as_ref().map_or_else(String::new, |agent| {
        format!(", claimed by {}", Machine::of(agent).as_str())
    });
    format!(
        "{}  {} {}, environment {}: {}{paused}{worked_on}",
        run.run_id,
        run.spec_id,
        Machine::of(&run.spec_version).as_str(),
        Machine::of(&run.environment).as_str(),
        run.state
    )
}

async fn history(client: &Client, terminal: Terminal, json: bool) -> anyhow::Result<()> {
    let history: Vec<HistoryEntry> = client.get("/v1/history").await?;
    if json {
        return print_json(&history);
    }
    if history.is_empty() {
        terminal.say(Style::Plain, "nothing was decided yet")?;
    }
    for entry in &history {
        let decision = &entry.decision;
        let kind = match entry.kind {
            CheckpointKind::V1 => "V1",
            CheckpointKind::V2 => "V2",
        };
        terminal.say(
            Style::Strong,
            &format!(
                "{}  {} {kind} revision {} of {} {} by {}",
                words::moment(decision.decided_at),
                words::verdict(decision.verdict),
                entry.revision,
                entry.spec_id,
                Machine::of(&entry.spec_version).as_str(),
                Prose::of(&decision.approver).as_str()
            ),
        )?;
        for line in Prose::of(&decision.reason).as_str().lines() {
            terminal.say(Style::Plain, &format!("    {line}"))?;
        }
    }
    Ok(())
}

async fn control(
    client: &Client,
    terminal: Terminal,
    order: &str,
    args: ControlArgs,
) -> anyhow::Result<()> {
    let asked = Control {
        reason: args.reason,
        approver: None,
        secret: None,
    };
    controlled(client, terminal, order, &args.run, &asked).await
}

async fn resume(client: &Client, terminal: Terminal, args: ResumeArgs) -> anyhow::Result<()> {
    let approver = approver_name(client, args.name).await?;
    let secret = terminal::ask_secret(
        &format!("secret of {}", Prose::of(&approver).as_str()),
        args.secret_fd,
    )?;
    let asked = Control {
        reason: args.reason,
        approver: Some(approver),
        secret: Some(secret.to_string()),
    };
    controlled(client, terminal, "resume", &args.run, &asked).await
}

async fn controlled(
    client: &Client,
    terminal: Terminal,
    order: &str,
    run: &str,
    asked: &Control,
) -> anyhow::Result<()> {
    let path = format!(
        "/v1/runs/{}/{order}",
        segment(&run.trim().to_ascii_uppercase())
    );
    let done: Controlled = client.post(&path, asked).await?;
    let paused = if done.paused {
        " and paused: nothing may change until `resume`"
    } else {
        ""
    };
    terminal.say(
        Style::Good,
        &format!("run {} is {}{paused}", done.run_id, done.state),
    )?;
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}
