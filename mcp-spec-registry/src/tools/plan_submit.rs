//! `plan_submit`

use rmcp::{
    RoleServer, handler::server::wrapper::Parameters, service::RequestContext, tool, tool_router,
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

use super::view::time_text;
use crate::{plan::Plan, registry::blocking, server::SpecRegistry};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("plan_submit", "Submit a plan", EffectClass::Write);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanSubmitParams {
    /// Id of the run.
    run_id: String,
    /// Of your `run_claim`.
    epoch: u64,
    /// At most 64 KiB and 50 steps.
    plan: Plan,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PlanSubmitResult {
    revision: u32,
    plan_digest: String,
    /// Wait for it with `checkpoint_wait`.
    checkpoint_id: String,
    /// Where the human decides; you cannot. Show it to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// When the question lapses, unanswered.
    expires_at: String,
}

#[tool_router(router = plan_submit_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Puts a plan to a human (V1): steps with closed argument patterns, a test or `human_judges` entry for each criterion and
    /// constraint. Everything that is wrong with it is named at once. A new plan replaces one that still waits.
    #[tool]
    async fn plan_submit(
        &self,
        Parameters(params): Parameters<PlanSubmitParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<PlanSubmitResult>, ToolError> {
        let agent = Self::caller(&context)?;
        call::belongs_to(&context, Some(&params.run_id), None);
        let registry = self.registry.clone();
        let accepted = blocking(move || {
            registry.plan_submit(&agent, &params.run_id, params.epoch, &params.plan)
        })
        .await?;
        let checkpoint = accepted.checkpoint;
        let url = self
            .registry
            .page()
            .map(|page| format!("{page}/c/{}", checkpoint.checkpoint_id));
        let text = format!(
            "plan revision {} waits for a human at checkpoint {}",
            accepted.revision, checkpoint.checkpoint_id
        );
        Ok(structured(
            PlanSubmitResult {
                revision: accepted.revision,
                plan_digest: accepted.plan_digest.to_string(),
                checkpoint_id: checkpoint.checkpoint_id,
                url,
                expires_at: time_text(checkpoint.expires_at),
            },
            text,
        ))
    }
}
