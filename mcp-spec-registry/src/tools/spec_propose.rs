//! `spec_propose`

use rmcp::{
    RoleServer, handler::server::wrapper::Parameters, service::RequestContext, tool, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    digest::Digest,
    effect::class::EffectClass,
    tool_error::ToolError,
    tool_result::{Json, structured},
    tools::ToolEffect,
};

use crate::{registry::blocking, server::SpecRegistry, store::SpecificationStatus};

pub(super) const EFFECT: ToolEffect = ToolEffect::new(
    "spec_propose",
    "Propose a specification",
    EffectClass::Write,
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpecProposeParams {
    /// The YAML, with a version that is not stored yet.
    text: String,
    /// Needed where the text has none.
    #[serde(default)]
    spec_id: Option<String>,
    /// Digest of the newest version, if there is one: what the change was made to.
    #[serde(default)]
    base_digest: Option<Digest>,
    /// Why it is proposed.
    reason: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SpecProposeResult {
    spec_id: String,
    version: String,
    digest: String,
    status: SpecificationStatus,
}

#[tool_router(router = spec_propose_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Stores a new version as proposed. Only a human makes it active, by approving a plan for it at V1.
    #[tool]
    async fn spec_propose(
        &self,
        Parameters(params): Parameters<SpecProposeParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<SpecProposeResult>, ToolError> {
        let agent = Self::caller(&context)?;
        let registry = self.registry.clone();
        let stored = blocking(move || {
            let SpecProposeParams {
                text,
                spec_id,
                base_digest,
                reason,
            } = &params;
            registry.spec_propose(
                &agent,
                text,
                spec_id.as_deref(),
                base_digest.as_ref(),
                reason,
            )
        })
        .await?;
        let row = stored.row;
        let text = format!("{} {} is proposed", row.spec_id, row.version);
        let digest = row.digest.to_string();
        Ok(structured(
            SpecProposeResult {
                spec_id: row.spec_id,
                version: row.version,
                digest,
                status: row.status,
            },
            text,
        ))
    }
}
