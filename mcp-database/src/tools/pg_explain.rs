//! `pg_explain`

use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::effect::class::EffectClass;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Shown, shown};
use crate::database::Wanted;
use crate::fence::fenced;
use crate::postgres::explain::Explain;
use crate::postgres::read::Ask;
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("pg_explain", "Explain a query", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PgExplainParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// One query.
    sql: String,
    /// Values of $1, $2 …
    #[serde(default)]
    params: Vec<Value>,
    /// Runs it, read-only: rows and times as they are.
    #[serde(default)]
    analyze: bool,
    /// `CREATE INDEX …` to imagine (hypopg).
    #[serde(default)]
    hypothetical_indexes: Vec<String>,
    /// Looks for indexes that would help.
    #[serde(default)]
    advise: bool,
    /// Default 30000.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PgExplainResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Shown>,
    /// What stands out, and what would help.
    notices: Vec<String>,
    elapsed_ms: u64,
    untrusted: bool,
}

#[tool_router(router = pg_explain_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Tells how a query is or would be answered, what stands out, and which indexes would make it cheaper.
    #[tool]
    async fn pg_explain(
        &self,
        Parameters(params): Parameters<PgExplainParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<PgExplainResult>, ToolError> {
        let since = Instant::now();
        let (database, postgres) = self.state().databases.postgres(params.source.as_deref())?;
        let wanted = Wanted {
            timeout_ms: params.timeout_ms,
            ..Wanted::default()
        };
        record::note(
            &context,
            Recorded::of_sql(&database.settings.id, &params.sql),
        );
        let explain = Explain {
            ask: Ask {
                parameters: params.params,
                timeout: database.timeout(wanted)?,
                ..Ask::new(params.sql)
            },
            is_run: params.analyze,
            indexes: params.hypothetical_indexes,
            is_advised: params.advise,
        };
        let _slot = database.slot().await?;
        let explained = told(&context, "the query", postgres.explain(explain)).await;
        let explained = explained.map_err(|error| record::refusal(&context, error))?;
        let mut text = explained.notices.join("\n");
        let plan = shown(explained.plan)?.map(|(plan, table)| {
            text.push('\n');
            text.push_str(&table);
            plan
        });
        let result = PgExplainResult {
            plan,
            notices: explained.notices,
            elapsed_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            untrusted: true,
        };
        let text = fenced(&text).map_err(|error| ToolError::internal(&error))?;
        Ok(structured(result, text))
    }
}
