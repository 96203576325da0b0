//! `run_request`

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
use crate::{
    registry::{RunRequest, blocking},
    server::SpecRegistry,
};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("run_request", "Request a run", EffectClass::Write);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunRequestParams {
    /// Id of the specification.
    spec_id: String,
    /// The active one by default.
    #[serde(default)]
    version: Option<String>,
    /// Where the outcome is wanted.
    #[serde(default = "default_environment")]
    environment: String,
    /// The same key with the same request gives the same run.
    #[serde(default)]
    idempotency_key: Option<String>,
}

fn default_environment() -> String {
    "default".to_owned()
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunRequestResult {
    /// As `run_get` tells it.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    run: RunSummary,
}

#[tool_router(router = run_request_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Asks that an outcome be reached (Request). One run of a specification is open in an environment at a time. Claim it next.
    #[tool]
    async fn run_request(
        &self,
        Parameters(params): Parameters<RunRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<RunRequestResult>, ToolError> {
        let agent = Self::caller(&context)?;
        let registry = self.registry.clone();
        let asked = RunRequest {
            spec_id: params.spec_id,
            version: params.version,
            environment: params.environment,
            idempotency_key: params.idempotency_key,
        };
        let run = blocking(move || registry.run_request(&agent, &asked)).await?;
        call::belongs_to(&context, Some(&run.run_id), None);
        let text = format!("run {} is {}", run.run_id, run.state);
        Ok(structured(
            RunRequestResult {
                run: RunSummary::from(&run),
            },
            text,
        ))
    }
}
