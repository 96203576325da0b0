//! `spec_search`

use rmcp::{handler::server::wrapper::Parameters, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    effect::class::EffectClass,
    tool_error::ToolError,
    tool_result::{Json, structured},
    tools::ToolEffect,
};

use crate::{server::SpecRegistry, store::SpecificationStatus};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("spec_search", "Search specifications", EffectClass::Read);

const MOST_RESULTS: u32 = 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpecSearchParams {
    /// Words to look for; empty lists all.
    #[serde(default)]
    query: String,
    /// Most results, 1 to 20.
    #[serde(default = "most_results")]
    limit: u32,
    /// `next_cursor` of the page before.
    #[serde(default)]
    cursor: u32,
}

fn most_results() -> u32 {
    MOST_RESULTS
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SpecSearchResult {
    /// Best first.
    results: Vec<Hit>,
    /// How results are ranked: `lexical`, by words.
    ranker: &'static str,
    /// True: nothing has any of the words.
    no_good_match: bool,
    /// Give it as cursor for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Hit {
    spec_id: String,
    version: String,
    status: SpecificationStatus,
    title: String,
    /// Larger is better; 0 without a query.
    score: f64,
    /// Words of the query it has.
    why: Vec<String>,
}

#[tool_router(router = spec_search_router, vis = "pub(super)")]
impl SpecRegistry {
    /// Finds outcome specifications by words of their id, title and outcome. Returns ids and versions for `spec_get`.
    #[tool]
    async fn spec_search(
        &self,
        Parameters(params): Parameters<SpecSearchParams>,
    ) -> Result<Json<SpecSearchResult>, ToolError> {
        let limit = params.limit.clamp(1, MOST_RESULTS);
        let asked = !params.query.trim().is_empty();
        // Read where it is asked: handing it to another thread takes longer than the bounded query.
        let found = self
            .registry
            .spec_search(&params.query, limit, params.cursor)?;
        let next_cursor = found.more.then_some(params.cursor + limit);
        let results: Vec<Hit> = found
            .results
            .into_iter()
            .map(|found| Hit {
                spec_id: found.row.spec_id,
                version: found.row.version,
                status: found.row.status,
                title: found.row.title,
                score: found.score,
                why: found.matched,
            })
            .collect();
        let names: Vec<String> = results
            .iter()
            .map(|hit| format!("{} {}", hit.spec_id, hit.version))
            .collect();
        let text = if names.is_empty() {
            "no specification fits".to_owned()
        } else {
            format!("{} found: {}", names.len(), names.join(", "))
        };
        let no_good_match = asked && results.is_empty();
        Ok(structured(
            SpecSearchResult {
                results,
                ranker: "lexical",
                no_good_match,
                next_cursor,
            },
            text,
        ))
    }
}
