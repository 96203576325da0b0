//! `pg_query`

use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::pg::Question;
use super::record::Recorded;
use super::reply::{Format, Reply};
use crate::database::Wanted;
use crate::postgres::read::Ask;
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("pg_query", "Query PostgreSQL", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PgQueryParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// One SELECT, VALUES, TABLE or WITH.
    sql: String,
    /// Values of $1, $2 …
    #[serde(default)]
    params: Vec<Value>,
    #[serde(default)]
    format: Format,
    /// Whole, not their first five numbers.
    #[serde(default)]
    include_vectors: bool,
    /// Default 100.
    #[serde(default)]
    max_rows: Option<usize>,
    /// Default 65536.
    #[serde(default)]
    max_bytes: Option<usize>,
    /// Default 30000.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[tool_router(router = pg_query_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Runs a query that can only read, in a READ ONLY transaction.
    #[tool]
    async fn pg_query(
        &self,
        Parameters(params): Parameters<PgQueryParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, postgres) = self.state().databases.postgres(params.source.as_deref())?;
        let wanted = Wanted {
            rows: params.max_rows,
            bytes: params.max_bytes,
            timeout_ms: params.timeout_ms,
        };
        let budget = database.budget(wanted)?;
        let recorded = Recorded::of_sql(&database.settings.id, &params.sql);
        let ask = Ask {
            sql: params.sql,
            parameters: params.params,
            whole_vectors: params.include_vectors,
            timeout: database.timeout(wanted)?,
            ..Ask::new("")
        };
        let question = Question {
            database,
            postgres,
            ask,
            budget,
            format: params.format,
            recorded,
            since,
        };
        self.answer(&context, question).await
    }
}
