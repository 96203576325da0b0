//! `spec_get`

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    effect::class::EffectClass,
    tool_error::ToolError,
    tool_result::{Json, structured},
    tools::ToolEffect,
};

use super::view::SpecificationView;
use crate::{registry::blocking, server::SpecRegistry, store::SpecificationStatus};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("spec_get", "Read a specification", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpecGetParams {
    /// Id of the specification.
    spec_id: String,
    /// Exactly as written; the active one by default.
    #[serde(default)]
    version: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SpecGetResult {
    status: SpecificationStatus,
    specification: SpecificationView,
    /// All versions, oldest first.
    versions: Vec<String>,
    /// The verbatim text as a resource.
    resource: String,
}

#[tool_router(router = spec_get_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Reads one version of an outcome specification: outcome, criteria and constraints with the ids that a plan refers to.
    #[tool]
    async fn spec_get(
        &self,
        Parameters(params): Parameters<SpecGetParams>,
    ) -> Result<Json<SpecGetResult>, ToolError> {
        let registry = self.registry.clone();
        let stored =
            blocking(move || registry.spec_get(&params.spec_id, params.version.as_deref())).await?;
        let specification = SpecificationView::from(&stored.specification);
        let text = format!(
            "{} {}: {} criteria, {} constraints",
            stored.row.spec_id,
            stored.row.version,
            stored.specification.criteria.len(),
            stored.specification.constraints.len()
        );
        let resource = format!("spec://{}@{}", stored.row.spec_id, stored.row.version);
        let versions = stored
            .versions
            .into_iter()
            .map(|(version, _)| version)
            .collect();
        Ok(structured(
            SpecGetResult {
                status: stored.row.status,
                specification,
                versions,
                resource,
            },
            text,
        ))
    }
}
