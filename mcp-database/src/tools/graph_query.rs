//! `graph_query`

use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::graph;
use super::progress::told;
use super::record;
use super::reply::{Format, Left, Reply, reply};
use crate::cursor;
use crate::database::Wanted;
use crate::neo4j::read::Ask;
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("graph_query", "Query Neo4j", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphQueryParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// One statement.
    cypher: String,
    /// Values of $name.
    #[serde(default)]
    params: Map<String, Value>,
    #[serde(default)]
    format: Format,
    /// Whole, not their first five numbers.
    #[serde(default)]
    include_vectors: bool,
    /// Default 100.
    #[serde(default)]
    max_rows: Option<usize>,
    /// Default 30000.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[tool_router(router = graph_query_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Runs Cypher that can only read, in read access; bind a start and bound every `*`.
    #[tool]
    async fn graph_query(
        &self,
        Parameters(params): Parameters<GraphQueryParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, neo4j) = self.state().databases.neo4j(params.source.as_deref())?;
        let wanted = Wanted {
            rows: params.max_rows,
            timeout_ms: params.timeout_ms,
            ..Wanted::default()
        };
        let budget = database.budget(wanted)?;
        let mut recorded = graph::recorded(&database.settings.id, &params.cypher);
        let ask = Ask {
            cypher: &params.cypher,
            parameters: &params.params,
            budget,
            timeout: Some(database.timeout(wanted)?),
            keep: cursor::TIME_TO_LIVE,
            whole_vectors: params.include_vectors,
        };
        let _slot = database.slot().await?;
        let found = told(&context, "the query", Box::pin(neo4j.read(ask))).await;
        recorded.rows(found.as_ref().ok().map(|found| found.answer.rows.len()));
        record::note(&context, recorded);
        let found = found.map_err(|error| graph::refusal(&context, error))?;
        let left = Left {
            rest: found.rest,
            source: database.settings.id.clone(),
            budget,
            notices: graph::notices(&found.notices),
        };
        reply(
            &context,
            &self.state().cursors,
            found.answer,
            left,
            params.format,
            since,
        )
    }
}
