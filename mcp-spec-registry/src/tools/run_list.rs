//! `run_list`

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    effect::class::EffectClass,
    tool_error::ToolError,
    tool_result::{Json, structured},
    tools::ToolEffect,
};

use super::view::RunSummary;
use crate::{registry::blocking, run::RunState, server::SpecRegistry, store::RunFilter};

pub(super) const EFFECT: ToolEffect = ToolEffect::new("run_list", "List runs", EffectClass::Read);

const MOST_RUNS: u32 = 50;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunListParams {
    /// Only runs of this specification.
    #[serde(default)]
    spec_id: Option<String>,
    /// Only runs in this state.
    #[serde(default)]
    state: Option<RunState>,
    /// Only runs that have not ended.
    #[serde(default)]
    open_only: bool,
    /// Most runs, 1 to 50.
    #[serde(default = "default_limit")]
    limit: u32,
    /// `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
}

fn default_limit() -> u32 {
    20
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunListResult {
    /// Newest first.
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    runs: Vec<RunSummary>,
    /// Give it as cursor for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[tool_router(router = run_list_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Lists runs, newest first, as `run_get` shows them in its field run.
    #[tool]
    async fn run_list(
        &self,
        Parameters(params): Parameters<RunListParams>,
    ) -> Result<Json<RunListResult>, ToolError> {
        let limit = params.limit.clamp(1, MOST_RUNS);
        let filter = RunFilter {
            spec_id: params.spec_id,
            state: params.state,
            open_only: params.open_only,
            limit: limit + 1,
            before: params.cursor,
        };
        let registry = self.registry.clone();
        let mut runs = blocking(move || registry.runs(&filter)).await?;
        let more = runs.len() > limit as usize;
        runs.truncate(limit as usize);
        let next_cursor = runs.last().filter(|_| more).map(|run| run.run_id.clone());
        let text = format!(
            "{} runs{}",
            runs.len(),
            if more { ", and more" } else { "" }
        );
        let runs = runs.iter().map(RunSummary::from).collect();
        Ok(structured(RunListResult { runs, next_cursor }, text))
    }
}
