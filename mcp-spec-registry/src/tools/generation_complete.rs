//! `generation_complete`

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

use crate::{run::RunState, server::SpecRegistry};

pub(super) const EFFECT: ToolEffect = ToolEffect::new(
    "generation_complete",
    "Complete Generate",
    EffectClass::Write,
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerationCompleteParams {
    /// Id of the run.
    run_id: String,
    /// Of your `run_claim`.
    epoch: u64,
    /// What you did, for the human at V2.
    report: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct GenerationCompleteResult {
    state: RunState,
    /// Number of tests the registry now runs.
    tests: usize,
}

#[tool_router(router = generation_complete_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Says that all steps are done. All handles end; the registry runs the approved tests itself. Wait with `checkpoint_wait`.
    #[tool]
    async fn generation_complete(
        &self,
        Parameters(params): Parameters<GenerationCompleteParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<GenerationCompleteResult>, ToolError> {
        let agent = Self::caller(&context)?;
        call::belongs_to(&context, Some(&params.run_id), None);
        let completed = self
            .registry
            .generation_complete(&agent, &params.run_id, params.epoch, &params.report)
            .await?;
        let text = format!("the registry runs {} tests", completed.tests);
        Ok(structured(
            GenerationCompleteResult {
                state: completed.state,
                tests: completed.tests,
            },
            text,
        ))
    }
}
