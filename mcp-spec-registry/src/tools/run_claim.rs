//! `run_claim`

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

use super::view::RunSummary;
use crate::{registry::blocking, server::SpecRegistry};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("run_claim", "Claim a run", EffectClass::Write);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunClaimParams {
    /// Id of the run.
    run_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunClaimResult {
    /// As `run_get` tells it.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    run: RunSummary,
}

#[tool_router(router = run_claim_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Takes a run that nobody works on. Exactly one agent wins; give its epoch with every later call. Each of your calls about
    /// the run renews the claim.
    #[tool]
    async fn run_claim(
        &self,
        Parameters(params): Parameters<RunClaimParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<RunClaimResult>, ToolError> {
        let agent = Self::caller(&context)?;
        call::belongs_to(&context, Some(&params.run_id), None);
        let registry = self.registry.clone();
        let run = blocking(move || registry.run_claim(&agent, &params.run_id)).await?;
        let text = format!(
            "claimed run {} under epoch {}; it is {}",
            run.run_id, run.epoch, run.state
        );
        Ok(structured(
            RunClaimResult {
                run: RunSummary::from(&run),
            },
            text,
        ))
    }
}
