//! `agent_register`

use rmcp::{
    RoleServer, handler::server::wrapper::Parameters, service::RequestContext, tool, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    effect::class::EffectClass,
    tool_error::ToolError,
    tool_result::{Json, structured},
    tools::ToolEffect,
};

use crate::{registry::blocking, server::SpecRegistry};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("agent_register", "Register as an agent", EffectClass::Write).idempotent();

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentRegisterParams {
    /// What you are and do, for the humans who decide about your plans.
    description: String,
    /// Such as infrastructure, data-engineering, research-assistant or documentation.
    #[serde(default)]
    persona: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AgentRegisterResult {
    /// Your name here; it comes from your credential.
    agent: String,
}

#[tool_router(router = agent_register_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Says what you are. Needed once before `run_claim`; again when it changes.
    #[tool]
    async fn agent_register(
        &self,
        Parameters(params): Parameters<AgentRegisterParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<AgentRegisterResult>, ToolError> {
        let agent = Self::caller(&context)?;
        let registry = self.registry.clone();
        let row = blocking(move || {
            registry.agent_register(&agent, &params.description, params.persona.as_deref())
        })
        .await?;
        let text = format!("registered as {}", row.name);
        Ok(structured(AgentRegisterResult { agent: row.name }, text))
    }
}
