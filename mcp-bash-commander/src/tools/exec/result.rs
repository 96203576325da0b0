//! What `exec` answers: how the command ended or that it runs, what it wrote, what was denied to it, and what stands around it.

use std::borrow::Cow;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use shared::effect::client::EndReport;
use shared::effect::protocol::{Outcome, PublishedPort};
use shared::tool_error::ToolError;

use super::super::view::{PortView, StateView, StreamView, ports, state_view, stream_view};
use super::super::wait::Waited;
use crate::policy::rules::{Decision, Verdict};
use crate::session::{Killed, REPLACED, Session, Stream, Violation};

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExecResult {
    /// For `read_output`, `write_input` and `stop`.
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
    pub(super) stdout: StreamView,
    pub(super) stderr: StreamView,
    /// More output may come.
    output_open: bool,
    /// It reads what nobody has written yet.
    awaiting_input: bool,
    /// Processes it left running in its session.
    background_processes: u32,
    /// What came first: see `wait`.
    waited: Waited,
    /// Denied to it, by the kernel or the proxy; exact.
    pub(super) violations: Vec<Violation>,
    pub(super) published: Vec<PortView>,
    policy: PolicyView,
    isolation: IsolationView,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct IsolationView {
    mode: String,
    layers: Vec<Cow<'static, str>>,
    missing: Vec<Cow<'static, str>>,
}

/// What the rules said of the command.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub(super) struct PolicyView {
    pub(super) decision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<usize>,
    /// `plan` or `client_elicitation`, where the rules wanted it asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) approved_by: Option<&'static str>,
}

impl PolicyView {
    /// Of a call that is not made.
    pub(super) fn refused(verdict: &Verdict) -> Self {
        Self {
            decision: verdict.decision.to_string(),
            rule: verdict.rule,
            approved_by: None,
        }
    }

    /// Who let the command run.
    pub(super) fn approver(&self) -> &'static str {
        let is_by_rule = self.rule.is_some() && self.decision == Decision::Allow.to_string();
        let otherwise = if is_by_rule { "rule" } else { "none" };
        self.approved_by.unwrap_or(otherwise)
    }
}

impl ExecResult {
    pub(super) fn judged(mut self, policy: PolicyView) -> Self {
        self.policy = policy;
        self
    }
}

pub(super) fn result(
    session: &Session,
    budget: usize,
    waited: Waited,
) -> Result<ExecResult, ToolError> {
    let state = session.state();
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
        awaiting_input: session.awaits_input(),
        background_processes: match session.kept() {
            Some(_) => exit.map_or(0, |exit| exit.left_running),
            None => 0,
        },
        waited,
        violations: session.violations(),
        published: if state.is_over {
            Vec::new()
        } else {
            ports(session)
        },
        policy: PolicyView::default(),
        isolation: IsolationView {
            mode: isolation.mode.to_string(),
            layers: isolation.layers.clone(),
            missing: isolation.missing.clone(),
        },
    })
}

/// What the registry learns of a command beyond the digest of its result.
pub(super) fn report(result: &ExecResult, report: &mut EndReport) {
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
    // What ran may not have been what was approved.
    let is_replaced = |violation: &Violation| violation.what.starts_with(REPLACED);
    if result.violations.iter().any(is_replaced) {
        fail(report, "INPUT_CHANGED");
    }
}

fn fail(report: &mut EndReport, error_code: &str) {
    report.outcome = Outcome::Error;
    report.error_code = Some(error_code.to_owned());
}
