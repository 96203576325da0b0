//! `deviation_report`

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

use crate::{registry::blocking, server::SpecRegistry};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("deviation_report", "Report a deviation", EffectClass::Write);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviationReportParams {
    /// Id of the run.
    run_id: String,
    /// Of your `run_claim`.
    epoch: u64,
    /// What does not go as the plan says, and what you would do instead.
    what: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeviationReportResult {
    checkpoint_id: String,
    /// Where the human decides; you cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

#[tool_router(router = deviation_report_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Says that the approved plan does not hold. All handles end and a human is asked again; submit a changed plan with `plan_submit`.
    #[tool]
    async fn deviation_report(
        &self,
        Parameters(params): Parameters<DeviationReportParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<DeviationReportResult>, ToolError> {
        let agent = Self::caller(&context)?;
        call::belongs_to(&context, Some(&params.run_id), None);
        let registry = self.registry.clone();
        let checkpoint = blocking(move || {
            registry.deviation_report(&agent, &params.run_id, params.epoch, &params.what)
        })
        .await?;
        let url = self
            .registry
            .page()
            .map(|page| format!("{page}/c/{}", checkpoint.checkpoint_id));
        let text = format!("checkpoint {} waits for a human", checkpoint.checkpoint_id);
        Ok(structured(
            DeviationReportResult {
                checkpoint_id: checkpoint.checkpoint_id,
                url,
            },
            text,
        ))
    }
}
