//! `exec`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::effect::class::EffectClass;
use shared::effect::client::EndReport;
use shared::effect::protocol::{Outcome, PublishedPort};
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::error::invalid;
use super::view::{
    PortView, StateView, StreamView, headline, ports, quote, state_view, stream_view,
};
use crate::enforce::Action;
use crate::jail::{JailSpec, Stdin};
use crate::server::{BashCommander, LONGEST_COMMAND};
use crate::session::{Killed, Order, Session, State, Stream};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("exec", "Run a command", EffectClass::Irreversible);

/// How long a command may run that a call waits for, unless the call says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(2);
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// The kernel takes no longer single argument.
const LONGEST_ARGUMENT: usize = 128 * 1024 - 1;
const MOST_ARGUMENTS: usize = 4096;
const LONGEST_ARGV: usize = 1 << 20;
const LONGEST_STDIN: usize = 1 << 20;
const MOST_PORTS: usize = 16;
const MOST_OUTPUT: u32 = 65_536;

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecParams {
    /// For `bash -c` (`sh -c` where there is no bash). This or `argv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// Program and arguments, without a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argv: Option<Vec<String>>,
    /// Relative to the workspace, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
    /// Added to the environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Text on standard input; nothing by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdin: Option<String>,
    /// Kills the command and all its processes after so long. Default 120000 if waited for to the end, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    /// When to answer.
    #[serde(default)]
    wait: Wait,
    /// TCP ports the command listens on; the answer has an address of the host for each.
    #[serde(default)]
    publish: Vec<u16>,
    /// Of each stream in the answer, 1 to 65536; `read_output` has the rest.
    #[serde(default = "default_output")]
    max_output_bytes: u32,
}

fn default_output() -> u32 {
    30_000
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct Wait {
    /// `exit`: at the command's end. `none`: at once; it runs on.
    #[serde(default)]
    until: Until,
    /// With `exit`: longest wait; then the command runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Until {
    #[default]
    Exit,
    None,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExecResult {
    /// For `read_output` and `stop`.
    id: String,
    state: StateView,
    /// Only of a command that ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    timed_out: bool,
    /// Memory ran out; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    oom: Option<bool>,
    wall_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rss_bytes: Option<u64>,
    stdout: StreamView,
    stderr: StreamView,
    /// More output may come.
    output_open: bool,
    published: Vec<PortView>,
    isolation: IsolationView,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct IsolationView {
    mode: String,
    layers: Vec<String>,
    missing: Vec<String>,
}

#[tool_router(router = exec_router, vis = "pub(super)")]
impl BashCommander {
    /// Runs a command in a fresh jail: the workspace, the system's programs, a private /tmp, no network. Answers when it has
    /// ended (see `wait`). A non-zero exit code is a normal answer. Processes it leaves behind are ended: run servers in the
    /// foreground, with wait {"until": "none"}.
    #[tool]
    async fn exec(
        &self,
        Parameters(params): Parameters<ExecParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<ExecResult>, ToolError> {
        let jail = self
            .jail_for(&params)
            .inspect_err(|_| shared::call::was_refused(&context))?;
        let action = self.begin(&context, EFFECT.tool(), &params).await?;
        let done = self.run_in(jail, &params, action.as_ref(), &context).await;
        let (result, session) = match (action, done) {
            (None, done) => done?,
            (Some(action), Ok((result, session))) => {
                (action.end(Ok(result), report).await?, session)
            }
            (Some(action), Err(error)) => {
                action
                    .end(Err::<ExecResult, _>(error.clone()), report)
                    .await?;
                return Err(error);
            }
        };
        let mut text = headline(&session, &session.state());
        for port in &result.published {
            // Writing to a String cannot fail.
            let _ = write!(text, "; port {} is at {}", port.port, port.address);
        }
        quote(&mut text, "stdout", &result.stdout);
        quote(&mut text, "stderr", &result.stderr);
        Ok(structured(result, text))
    }
}

impl BashCommander {
    /// The jail for a call, everything checked that can be checked before anyone is asked.
    fn jail_for(&self, params: &ExecParams) -> Result<JailSpec, ToolError> {
        let state = self.state();
        check_numbers(params)?;
        let mut jail = JailSpec::new(argv(params)?);
        jail.command.env = state.policy.environment.of_call(&params.env)?;
        jail.command.cwd = match params.cwd.as_deref() {
            None => state.workspace.root().to_owned(),
            Some(cwd) if cwd.is_empty() || cwd.len() > 4096 || cwd.contains('\0') => {
                return Err(invalid(
                    "`cwd` is empty, too long or holds a NUL",
                    "give a path relative to the workspace",
                ));
            }
            Some(cwd) => state.workspace.root().join(cwd),
        };
        jail.workspace = Some(state.workspace.for_jail());
        jail.read_only.clone_from(&state.policy.toolchain);
        jail.published.clone_from(&params.publish);
        jail.limits = state.policy.limits.of_jail();
        if let Some(text) = &params.stdin {
            jail.command.stdin = Stdin::Bytes(text.clone().into_bytes());
        }
        Ok(jail)
    }

    async fn run_in(
        &self,
        mut jail: JailSpec,
        params: &ExecParams,
        action: Option<&Action>,
        context: &RequestContext<RoleServer>,
    ) -> Result<(ExecResult, Arc<Session>), ToolError> {
        let state = self.state();
        if let Some(action) = action {
            jail.inputs = action.pinned_inputs(&state.workspace).await?;
        }
        let order = Order {
            owner: Arc::clone(&principal::of(context)?.name),
            command: params
                .command
                .clone()
                .unwrap_or_else(|| params.argv.clone().unwrap_or_default().join(" ")),
            jail,
            kept: None,
            timeout: self.timeout(params, action),
            output_bytes: state.policy.limits.output_bytes,
            spools: self.spools().await?,
            origin: action.map(Action::origin),
        };
        let session = tokio::select! {
            biased;
            () = context.ct.cancelled() => return Err(cancelled()),
            started = state.sessions.start(order) => started?,
        };
        if params.wait.until == Until::Exit {
            wait_for_end(&session, params.wait.ms.map(Duration::from_millis), context).await?;
        }
        let budget = usize::try_from(params.max_output_bytes).unwrap_or(usize::MAX);
        Ok((result(&session, budget)?, session))
    }

    /// When the command is killed: as the call says, by default only what a call waits for and a plan does not let live.
    fn timeout(&self, params: &ExecParams, action: Option<&Action>) -> Option<Duration> {
        let is_lasting =
            params.wait.until == Until::None || action.is_some_and(Action::outlives_step);
        let asked = match params.timeout_ms {
            Some(ms) => Some(Duration::from_millis(ms)),
            None if is_lasting => None,
            None => Some(DEFAULT_TIMEOUT),
        };
        asked
            .into_iter()
            .chain(self.state().policy.limits.wall())
            .min()
    }
}

fn check_numbers(params: &ExecParams) -> Result<(), ToolError> {
    let longest = u64::try_from(LONGEST_COMMAND.as_millis()).unwrap_or(u64::MAX);
    for (name, value) in [
        ("timeout_ms", params.timeout_ms),
        ("wait.ms", params.wait.ms),
    ] {
        if let Some(value) = value.filter(|value| !(1..=longest).contains(value)) {
            return Err(invalid(
                format!("`{name}` is {value}"),
                "give 1 to 86400000 milliseconds",
            ));
        }
    }
    if !(1..=MOST_OUTPUT).contains(&params.max_output_bytes) {
        return Err(invalid(
            format!("`max_output_bytes` is {}", params.max_output_bytes),
            "give 1 to 65536",
        ));
    }
    let ports = &params.publish;
    let is_repeated = |(index, port): (usize, &u16)| ports[..index].contains(port);
    if ports.len() > MOST_PORTS || ports.contains(&0) || ports.iter().enumerate().any(is_repeated) {
        return Err(invalid(
            "`publish` is no list of different ports",
            "give at most 16 ports from 1 to 65535, each once",
        ));
    }
    if params
        .stdin
        .as_ref()
        .is_some_and(|text| text.len() > LONGEST_STDIN)
    {
        return Err(invalid(
            "`stdin` is longer than 1 MiB",
            "write a file and redirect it",
        ));
    }
    Ok(())
}

fn argv(params: &ExecParams) -> Result<Vec<String>, ToolError> {
    let argv = match (&params.command, &params.argv) {
        (Some(command), None) if command.trim().is_empty() => {
            return Err(invalid("`command` is empty", "give a shell command"));
        }
        (Some(command), None) => vec![shell().to_owned(), "-c".to_owned(), command.clone()],
        (None, Some(argv)) if argv.first().is_none_or(String::is_empty) => {
            return Err(invalid(
                "`argv` names no program",
                "give the program as its first element",
            ));
        }
        (None, Some(argv)) => argv.clone(),
        _ => {
            return Err(invalid(
                "neither or both of `command` and `argv` are given",
                "give one of them",
            ));
        }
    };
    if argv.len() > MOST_ARGUMENTS || argv.iter().map(String::len).sum::<usize>() > LONGEST_ARGV {
        return Err(invalid(
            "`argv` has more than 4096 elements or 1 MiB",
            "write the list to a file and use xargs",
        ));
    }
    if argv
        .iter()
        .any(|argument| argument.len() > LONGEST_ARGUMENT)
    {
        return Err(invalid(
            "an argument or `command` is longer than 131071 bytes",
            "write it to a file and run that",
        ));
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(invalid(
            "an argument or `command` holds a NUL",
            "NUL cannot be passed to a program",
        ));
    }
    Ok(argv)
}

fn shell() -> &'static str {
    let bash = ["/bin/bash", "/usr/bin/bash"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    bash.unwrap_or("/bin/sh")
}

/// Waits until the command has ended or the wait is over; a cancelled call kills what it waits for.
async fn wait_for_end(
    session: &Session,
    limit: Option<Duration>,
    context: &RequestContext<RoleServer>,
) -> Result<(), ToolError> {
    let ended = session.ended();
    tokio::pin!(ended);
    let limit = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(limit);
    let mut progress = tokio::time::interval(PROGRESS_EVERY);
    progress.tick().await;
    loop {
        tokio::select! {
            biased;
            _ = &mut ended => return Ok(()),
            () = &mut limit => return Ok(()),
            () = context.ct.cancelled() => {
                session.kill(Killed::Cancelled);
                session.over().await;
                return Err(cancelled());
            }
            _ = progress.tick() => report_progress(session, context).await,
        }
    }
}

async fn report_progress(session: &Session, context: &RequestContext<RoleServer>) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    let (stdout, stderr) = (
        session.written(Stream::Stdout),
        session.written(Stream::Stderr),
    );
    let message = format!(
        "{} runs; stdout {stdout} bytes, stderr {stderr} bytes",
        session.id()
    );
    let progress =
        ProgressNotificationParam::new(token, session.wall().as_secs_f64()).with_message(message);
    // A client that is gone ends the call by its own way.
    let _ = context.peer.notify_progress(progress).await;
}

fn cancelled() -> ToolError {
    ToolError::new(
        code::CANCELLED,
        "the call was cancelled; its command and all of its processes were killed",
    )
}

fn result(session: &Session, budget: usize) -> Result<ExecResult, ToolError> {
    let state: State = session.state();
    let exit = state.ended.map(|ended| ended.exit);
    let killed = state.ended.and_then(|ended| ended.killed);
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let isolation = session.isolation();
    Ok(ExecResult {
        id: session.id().to_string(),
        state: state_view(&state),
        exit_code: exit.and_then(|exit| exit.code),
        signal: exit.and_then(|exit| exit.signal),
        timed_out: killed == Some(Killed::TimedOut),
        oom: state.ended.and_then(|ended| ended.out_of_memory),
        wall_ms: milliseconds(session.wall()),
        cpu_ms: exit.map(|exit| milliseconds(exit.cpu)),
        max_rss_bytes: exit.map(|exit| exit.max_rss_bytes),
        stdout: stream_view(session, Stream::Stdout, budget)?,
        stderr: stream_view(session, Stream::Stderr, budget)?,
        output_open: state.output_open(),
        published: if state.is_over {
            Vec::new()
        } else {
            ports(session)
        },
        isolation: IsolationView {
            mode: isolation.mode.to_owned(),
            layers: isolation.layers.clone(),
            missing: isolation.missing.clone(),
        },
    })
}

/// What the registry learns of a command beyond the digest of its result.
fn report(result: &ExecResult, report: &mut EndReport) {
    match result.state {
        StateView::Running => report.session = Some(result.id.clone()),
        StateView::Exited if result.exit_code == Some(0) => {}
        StateView::Exited => fail(report, "EXITED_WITH_FAILURE"),
        StateView::Killed if result.timed_out => fail(report, "TIMED_OUT"),
        StateView::Killed => fail(report, "KILLED"),
    }
    let port = |port: &PortView| PublishedPort {
        port: port.port,
        address: port.address.clone(),
    };
    report.published = result.published.iter().map(port).collect();
}

fn fail(report: &mut EndReport, error_code: &str) {
    report.outcome = Outcome::Error;
    report.error_code = Some(error_code.to_owned());
}
