//! `mongo_explain`

use std::fmt::Write as _;
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

use super::error::mongodb::refusal;
use super::mongo_read::{Op, database_of, statement};
use super::progress::told;
use super::record::{self, Recorded};
use crate::database::Wanted;
use crate::fence::fenced;
use crate::mongodb::explain::Explanation;
use crate::mongodb::plan::Stage;
use crate::mongodb::read::Request;
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("mongo_explain", "Explain a read", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MongoExplainParams {
    /// As in `mongo_read`.
    #[serde(default)]
    source: Option<String>,
    /// Database.
    #[serde(default)]
    db: Option<String>,
    /// Collection.
    coll: String,
    #[serde(default)]
    op: Op,
    /// Conditions.
    #[serde(default)]
    filter: Option<Value>,
    /// Fields.
    #[serde(default)]
    projection: Option<Value>,
    /// Order.
    #[serde(default)]
    sort: Option<Value>,
    /// How many.
    #[serde(default)]
    limit: Option<u64>,
    /// An index.
    #[serde(default)]
    hint: Option<Value>,
    /// Stages.
    #[serde(default)]
    pipeline: Option<Value>,
    /// Of distinct.
    #[serde(default)]
    field: Option<String>,
    /// Runs it.
    #[serde(default)]
    execute: bool,
    /// Time.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MongoExplainResult {
    plan: Value,
    /// What would make it better.
    advice: Vec<String>,
    elapsed_ms: u64,
    untrusted: bool,
}

#[tool_router(router = mongo_explain_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Tells how MongoDB answers a read: stages, indexes, and which index would help; executed, what it took.
    #[tool]
    async fn mongo_explain(
        &self,
        Parameters(params): Parameters<MongoExplainParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<MongoExplainResult>, ToolError> {
        let since = Instant::now();
        let (database, mongo) = self.state().databases.mongodb(params.source.as_deref())?;
        let timeout = database.timeout(Wanted {
            timeout_ms: params.timeout_ms,
            ..Wanted::default()
        })?;
        let db = database_of(mongo, params.db)?;
        let mut recorded = Recorded::of(&database.settings.id);
        recorded.with("statement", statement(params.op, &db, &params.coll));
        record::note(&context, recorded);
        let request = Request {
            db,
            coll: params.coll,
            filter: params.filter,
            projection: params.projection,
            sort: params.sort,
            limit: params.limit,
            hint: params.hint,
            pipeline: params.pipeline,
            field: params.field,
            whole_vectors: false,
            ..Request::default()
        };
        let _slot = database.slot().await?;
        let work = mongo.explain(params.op.into(), &request, params.execute, timeout);
        let explained = Box::pin(told(&context, "the query", work)).await;
        let explained = explained.map_err(|error| refusal(&context, error))?;
        let text = fenced(&text(&explained)).map_err(|error| ToolError::internal(&error))?;
        let plan = serde_json::to_value(explained.plan);
        let result = MongoExplainResult {
            plan: plan.map_err(|error| ToolError::internal(&error))?,
            advice: explained.advice,
            elapsed_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            untrusted: true,
        };
        Ok(structured(result, text))
    }
}

/// What took what from what, then what it took, then what would help.
fn text(explained: &Explanation) -> String {
    let mut text = String::new();
    for stage in &explained.plan.stages {
        line(stage, 0, &mut text);
    }
    // Writing to a String cannot fail.
    if let Some(took) = explained.plan.executed {
        let _ = writeln!(
            text,
            "{} returned, {} keys and {} documents examined, {} ms",
            took.returned, took.keys_examined, took.docs_examined, took.millis
        );
    }
    for advice in &explained.advice {
        let _ = writeln!(text, "{advice}");
    }
    text
}

fn line(stage: &Stage, depth: usize, text: &mut String) {
    text.push_str(&"  ".repeat(depth));
    text.push_str(&stage.stage);
    for (name, part) in [("on shard", &stage.shard), ("by", &stage.index)] {
        if let Some(part) = part {
            // Writing to a String cannot fail.
            let _ = write!(text, " {name} {part}");
        }
    }
    for part in [&stage.bounds, &stage.filter].into_iter().flatten() {
        let _ = write!(text, " {part}");
    }
    text.push('\n');
    for from in &stage.from {
        line(from, depth + 1, text);
    }
}
