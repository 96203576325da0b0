//! `execution_begin`

use rmcp::{
    RoleServer, handler::server::wrapper::Parameters, service::RequestContext, tool, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    call,
    effect::class::EffectClass,
    effect::protocol::Lifetime,
    tool_error::ToolError,
    tool_result::{Json, structured},
    tools::ToolEffect,
};

use super::view::time_text;
use crate::{
    run::{CheckVerdict, RunState},
    server::SpecRegistry,
};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("execution_begin", "Begin execution", EffectClass::Write);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecutionBeginParams {
    /// Id of the run.
    run_id: String,
    /// Of your `run_claim`.
    epoch: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ExecutionBeginResult {
    state: RunState,
    /// What may still be done, in the plan's order.
    steps: Vec<StepView>,
    /// How the tests came out before anything was done; a pass here means that the test proves nothing.
    tests_before: Vec<TestView>,
    /// When the handles lapse; call again for new ones.
    expires_at: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct StepView {
    step: String,
    /// Give it as the argument `grant` of the step's call. It works for you alone.
    grant: String,
    server: String,
    tool: String,
    /// How often it may be used.
    uses: u32,
    lifetime: Lifetime,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TestView {
    criterion: String,
    verdict: CheckVerdict,
}

#[tool_router(router = execution_begin_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Turns an approved plan into one handle for each step (Generate). Again in generating, for fresh handles; older ones die.
    #[tool]
    async fn execution_begin(
        &self,
        Parameters(params): Parameters<ExecutionBeginParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<ExecutionBeginResult>, ToolError> {
        let agent = Self::caller(&context)?;
        call::belongs_to(&context, Some(&params.run_id), None);
        let begun = self
            .registry
            .execution_begin(&agent, &params.run_id, params.epoch)
            .await?;
        let text = format!(
            "{} steps may be carried out; {} of {} tests fail before, as they should",
            begun.steps.len(),
            begun
                .tests_before
                .iter()
                .filter(|test| test.verdict == CheckVerdict::Fail)
                .count(),
            begun.tests_before.len()
        );
        let steps = begun
            .steps
            .into_iter()
            .map(|step| StepView {
                step: step.step_id,
                grant: step.grant,
                server: step.server,
                tool: step.tool,
                uses: step.uses,
                lifetime: step.lifetime,
            })
            .collect();
        let tests_before = begun
            .tests_before
            .into_iter()
            .map(|test| TestView {
                criterion: test.criterion,
                verdict: test.verdict,
            })
            .collect();
        let expires_at = time_text(begun.expires_at);
        Ok(structured(
            ExecutionBeginResult {
                state: begun.state,
                steps,
                tests_before,
                expires_at,
            },
            text,
        ))
    }
}
