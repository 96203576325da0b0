//! `rationale_record`

use rmcp::{
    RoleServer, handler::server::wrapper::Parameters, service::RequestContext, tool, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    call,
    effect::class::EffectClass,
    tool_error::{ToolError, code},
    tool_result::{Json, structured},
    tools::ToolEffect,
};
use time::OffsetDateTime;

use crate::{registry::blocking, run::Rationale, server::SpecRegistry};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("rationale_record", "Record a rationale", EffectClass::Write);

const MOST_BYTES: usize = 16 * 1024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RationaleRecordParams {
    /// Id of the run.
    run_id: String,
    /// What was to be chosen.
    question: String,
    /// What could have been chosen.
    #[serde(default)]
    options: Vec<String>,
    /// What was chosen.
    chosen: String,
    /// Reasons for it.
    why: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RationaleRecordResult {
    rationale_id: String,
}

#[tool_router(router = rationale_record_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Records why you chose what you chose, for the people who read the run later. At most 16 KiB.
    #[tool]
    async fn rationale_record(
        &self,
        Parameters(params): Parameters<RationaleRecordParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<RationaleRecordResult>, ToolError> {
        let agent = Self::caller(&context)?;
        call::belongs_to(&context, Some(&params.run_id), None);
        let texts = [&params.question, &params.chosen, &params.why]
            .into_iter()
            .chain(&params.options);
        if texts.map(String::len).sum::<usize>() > MOST_BYTES {
            return Err(
                ToolError::new(code::INVALID_ARGUMENTS, "a rationale has at most 16 KiB")
                    .with_hint("say the reason in a few sentences"),
            );
        }
        let rationale = Rationale {
            rationale_id: String::new(),
            run_id: params.run_id,
            agent: agent.clone(),
            question: params.question,
            options: params.options,
            chosen: params.chosen,
            why: params.why,
            recorded_at: OffsetDateTime::UNIX_EPOCH,
        };
        let registry = self.registry.clone();
        let recorded = blocking(move || registry.rationale_record(&agent, rationale)).await?;
        Ok(structured(
            RationaleRecordResult {
                rationale_id: recorded.rationale_id,
            },
            "recorded",
        ))
    }
}
