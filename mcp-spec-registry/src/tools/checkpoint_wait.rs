//! `checkpoint_wait`

use std::time::Duration;

use rmcp::{
    RoleServer, handler::server::wrapper::Parameters, model::ProgressNotificationParam,
    service::RequestContext, tool, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    call,
    effect::class::EffectClass,
    tool_error::ToolError,
    tool_result::{Json, structured},
    tools::ToolEffect,
};

use super::run_get::{CheckView, DecisionView, last_decision, newest_checks};
use crate::{
    registry::{RegistryError, blocking},
    run::{RunRecord, RunState},
    server::SpecRegistry,
};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("checkpoint_wait", "Wait for a human", EffectClass::Read);

/// Clients give a call up after 60 seconds.
const LONGEST_WAIT_S: u32 = 50;
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointWaitParams {
    /// Id of the run.
    run_id: String,
    /// Longest wait in seconds, 0 to 50.
    #[serde(default = "longest_wait")]
    timeout_s: u32,
}

fn longest_wait() -> u32 {
    LONGEST_WAIT_S
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CheckpointWaitResult {
    state: RunState,
    /// True: still open; call again.
    waiting: bool,
    /// The checkpoint that is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_id: Option<String>,
    /// Where the human decides; you cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The newest decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_decision: Option<DecisionView>,
    /// The newest measurements.
    checks: Vec<CheckView>,
}

#[tool_router(router = checkpoint_wait_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Waits until a human has decided, or the registry has measured. Returns at once when nothing is awaited.
    #[tool]
    async fn checkpoint_wait(
        &self,
        Parameters(params): Parameters<CheckpointWaitParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<CheckpointWaitResult>, ToolError> {
        let agent = Self::caller(&context)?;
        call::belongs_to(&context, Some(&params.run_id), None);
        let limit = Duration::from_secs(u64::from(params.timeout_s.min(LONGEST_WAIT_S)));
        let started = tokio::time::Instant::now();
        let mut changes = self.registry.changes();
        let mut next_progress = started + PROGRESS_EVERY;
        let mut first = None;
        let record = loop {
            changes.mark_unchanged();
            let (registry, agent, run_id) =
                (self.registry.clone(), agent.clone(), params.run_id.clone());
            let record = blocking(move || {
                Ok::<_, RegistryError>(registry.run_view(&agent, &run_id)?.record)
            })
            .await?;
            let deadline = started + limit;
            // From "measuring" it goes on to "asked": that is news, though something is awaited again.
            let now = awaited(&record);
            let is_news = first.get_or_insert_with(|| now.clone()) != &now;
            if is_news || !is_awaited(&record) || tokio::time::Instant::now() >= deadline {
                break record;
            }
            loop {
                tokio::select! {
                    changed = changes.changed() => { if changed.is_ok() { break } }
                    () = tokio::time::sleep_until(deadline) => break,
                    () = context.ct.cancelled() => break,
                    () = tokio::time::sleep_until(next_progress) => {
                        next_progress += PROGRESS_EVERY;
                        report_progress(&context, &record, started.elapsed(), limit).await;
                    }
                }
            }
            if context.ct.is_cancelled() {
                break record;
            }
        };
        let waiting = is_awaited(&record);
        let text = if waiting {
            format!(
                "run {} is {}; nobody has decided yet",
                record.run.run_id, record.run.state
            )
        } else {
            format!("run {} is {}", record.run.run_id, record.run.state)
        };
        let checkpoint_id = record
            .open_checkpoint()
            .map(|open| open.checkpoint_id.clone());
        let page = self.registry.page();
        let url = checkpoint_id
            .as_ref()
            .and_then(|id| page.map(|page| format!("{page}/c/{id}")));
        Ok(structured(
            CheckpointWaitResult {
                state: record.run.state,
                waiting,
                checkpoint_id,
                url,
                last_decision: last_decision(&record),
                checks: newest_checks(&record),
            },
            text,
        ))
    }
}

/// What is awaited: the state, and the question where there is one.
fn awaited(record: &RunRecord) -> (RunState, Option<String>) {
    let question = record
        .open_checkpoint()
        .map(|open| open.checkpoint_id.clone());
    (record.run.state, question)
}

fn is_awaited(record: &RunRecord) -> bool {
    matches!(
        record.run.state,
        RunState::AwaitingV1 | RunState::Verifying | RunState::AwaitingV2
    )
}

async fn report_progress(
    context: &RequestContext<RoleServer>,
    record: &RunRecord,
    waited: Duration,
    limit: Duration,
) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    let what = match record.run.state {
        RunState::Verifying => "the registry measures the outcome",
        _ => "a human decides",
    };
    let progress = ProgressNotificationParam::new(token, waited.as_secs_f64())
        .with_total(limit.as_secs_f64())
        .with_message(format!("waiting: {what}"));
    // A client that is gone ends the call by its own way.
    let _ = context.peer.notify_progress(progress).await;
}
