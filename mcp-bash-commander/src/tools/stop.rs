//! `stop`

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::error::invalid;
use super::view::{StateView, counted, headline, quote_violations, state_view};
use crate::server::BashCommander;
use crate::session::{KeptJail, Killed, Scope, Session, Violation};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("stop", "Stop a command", EffectClass::Irreversible).idempotent();

const LONGEST_GRACE_MS: u64 = 30_000;
/// How long the kernel may take to end what was killed.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StopParams {
    /// Of a command, or name of a session.
    id: String,
    /// Sent first.
    #[serde(default)]
    signal: SignalName,
    /// Until the rest is killed, at most 30000.
    #[serde(default = "default_grace")]
    grace_ms: u64,
    /// `leader`: the signal alone, to the command alone.
    #[serde(default)]
    scope: ScopeName,
}

fn default_grace() -> u64 {
    2000
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
enum SignalName {
    #[default]
    Term,
    Int,
    Hup,
    Quit,
    Kill,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum ScopeName {
    #[default]
    Tree,
    Leader,
}

impl SignalName {
    fn number(self) -> i32 {
        match self {
            Self::Term => libc::SIGTERM,
            Self::Int => libc::SIGINT,
            Self::Hup => libc::SIGHUP,
            Self::Quit => libc::SIGQUIT,
            Self::Kill => libc::SIGKILL,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StopResult {
    id: String,
    state: StateView,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    /// It had to be killed.
    killed: bool,
    /// Processes that are still there.
    survivors: u32,
    violations: Vec<Violation>,
}

#[tool_router(router = stop_router, vis = "pub(super)")]
impl BashCommander {
    /// Stops a command and all it started: signal, grace, kill. A session is killed at once. Harmless on what has ended.
    #[tool]
    async fn stop(
        &self,
        Parameters(params): Parameters<StopParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<StopResult>, ToolError> {
        if params.grace_ms > LONGEST_GRACE_MS {
            return Err(invalid(
                format!("`grace_ms` is {}", params.grace_ms),
                "give at most 30000",
            ));
        }
        let owner = &principal::of(&context)?.name;
        if let Some(kept) = self.state().sessions.find_kept(&params.id, owner) {
            return end_session(&kept).await;
        }
        let session = self.state().sessions.find(&params.id, owner)?;
        if params.scope == ScopeName::Leader {
            session.signal(params.signal.number(), Scope::Leader)?;
            let _ =
                tokio::time::timeout(Duration::from_millis(params.grace_ms), session.over()).await;
            return answer(&session, false);
        }
        // A task of its own goes on to the end also when the call is cancelled: stopping is what was asked for.
        let stopping = tokio::spawn(stop(
            Arc::clone(&session),
            params.signal,
            Duration::from_millis(params.grace_ms),
        ));
        let killed = stopping
            .await
            .map_err(|error| ToolError::internal(&error))??;
        answer(&session, killed)
    }
}

fn answer(session: &Session, killed: bool) -> Result<Json<StopResult>, ToolError> {
    let state = session.state();
    let survivors = if state.is_over {
        0
    } else {
        session.usage()?.map_or(0, |usage| usage.processes)
    };
    let exit = state.ended.map(|ended| ended.exit);
    let mut text = headline(session, &state);
    if survivors > 0 {
        // Writing to a String cannot fail.
        let processes = counted(survivors, "process is", "processes are");
        let _ = write!(text, "; {processes} left");
    }
    let result = StopResult {
        id: session.id().to_string(),
        state: state_view(&state),
        exit_code: exit.and_then(|exit| exit.code),
        signal: exit.and_then(|exit| exit.signal),
        killed,
        survivors,
        violations: session.violations(),
    };
    quote_violations(&mut text, &result.violations);
    Ok(structured(result, text))
}

/// Ends a kept session: a jail is not asked, it is killed.
async fn end_session(kept: &KeptJail) -> Result<Json<StopResult>, ToolError> {
    kept.end();
    let is_over = tokio::time::timeout(KILLED_WITHIN, kept.over())
        .await
        .is_ok();
    let survivors = if is_over { 0 } else { kept.processes()? };
    let result = StopResult {
        id: kept.name().to_owned(),
        state: StateView::Killed,
        exit_code: None,
        signal: None,
        killed: true,
        survivors,
        violations: Vec::new(),
    };
    let text = format!(
        "session {} is ended, {} left",
        kept.name(),
        counted(survivors, "process is", "processes are")
    );
    Ok(structured(result, text))
}

/// Whether it had to be killed.
async fn stop(
    session: Arc<Session>,
    signal: SignalName,
    grace: Duration,
) -> Result<bool, ToolError> {
    if session.state().is_over {
        return Ok(false);
    }
    if signal != SignalName::Kill {
        session.signal(signal.number(), Scope::Tree)?;
        if tokio::time::timeout(grace, session.over()).await.is_ok() {
            return Ok(false);
        }
    }
    session.kill(Killed::Stopped);
    let _ = tokio::time::timeout(KILLED_WITHIN, session.over()).await;
    Ok(true)
}
