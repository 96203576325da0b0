//! `spec_validate`

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
use crate::{
    server::SpecRegistry,
    specification::{Problem, Severity, examine},
};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("spec_validate", "Check a specification", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpecValidateParams {
    /// The YAML.
    text: String,
    /// Needed where the text has none.
    #[serde(default)]
    spec_id: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SpecValidateResult {
    valid: bool,
    /// As it was read, if it could be, in the form of `spec_get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    specification: Option<SpecificationView>,
    /// The same in the full form, as YAML.
    #[serde(skip_serializing_if = "Option::is_none")]
    normalized: Option<String>,
    /// Worst first; errors of the YAML have line, column and the corrected line.
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    problems: Vec<Problem>,
}

#[tool_router(router = spec_validate_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Reads the YAML of an outcome specification without storing it, and says what is wrong and how to mend it.
    #[tool]
    async fn spec_validate(
        &self,
        Parameters(params): Parameters<SpecValidateParams>,
    ) -> Result<Json<SpecValidateResult>, ToolError> {
        let examination = examine(&params.text, params.spec_id.as_deref());
        let errors = examination
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count();
        let valid = errors == 0 && examination.specification.is_some();
        let text = match examination.problems.first() {
            Some(worst) if !valid => format!("not valid, {errors} errors; first: {worst}"),
            Some(_) => format!("valid, with {} remarks", examination.problems.len()),
            None => "valid".to_owned(),
        };
        let read = examination.specification.as_ref().filter(|_| valid);
        Ok(structured(
            SpecValidateResult {
                valid,
                specification: read.map(SpecificationView::from),
                normalized: read.map(crate::specification::Specification::normalized),
                problems: examination.problems,
            },
            text,
        ))
    }
}
