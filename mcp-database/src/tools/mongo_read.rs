//! `mongo_read`

use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::effect::class::EffectClass;
use shared::tool_error::{ToolError, code};
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::error::mongodb::refusal;
use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::database::Wanted;
use crate::mongodb::Mongodb;
use crate::mongodb::read::{Layers, Operation, Request};
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("mongo_read", "Query MongoDB", EffectClass::Read);

/// Characters of a collection's name that are recorded.
const LONGEST_NAME: usize = 120;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MongoReadParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Default: of the url.
    #[serde(default)]
    db: Option<String>,
    /// Collection.
    coll: String,
    #[serde(default)]
    op: Op,
    /// Not of aggregate.
    #[serde(default)]
    filter: Option<Value>,
    /// Of find.
    #[serde(default)]
    projection: Option<Value>,
    /// Of find.
    #[serde(default)]
    sort: Option<Value>,
    /// Of find, count.
    #[serde(default)]
    limit: Option<u64>,
    /// Of find, count.
    #[serde(default)]
    skip: Option<u64>,
    /// An index: name or keys.
    #[serde(default)]
    hint: Option<Value>,
    /// Of aggregate.
    #[serde(default)]
    pipeline: Option<Value>,
    /// Of distinct.
    #[serde(default)]
    field: Option<String>,
    /// Whole.
    #[serde(default)]
    include_vectors: bool,
    /// Default 100.
    #[serde(default)]
    max_rows: Option<usize>,
    /// Default 30000.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

/// Default find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Op {
    #[default]
    Find,
    Aggregate,
    Count,
    Distinct,
}

impl From<Op> for Operation {
    fn from(op: Op) -> Self {
        match op {
            Op::Find => Self::Find,
            Op::Aggregate => Self::Aggregate,
            Op::Count => Self::Count,
            Op::Distinct => Self::Distinct,
        }
    }
}

#[tool_router(router = mongo_read_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Reads documents. Arguments are JSON or its text; values as {"$oid": "…"}, {"$date": "…"}. Text search: $text, $search.
    #[tool]
    async fn mongo_read(
        &self,
        Parameters(params): Parameters<MongoReadParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, mongo) = self.state().databases.mongodb(params.source.as_deref())?;
        let wanted = Wanted {
            rows: params.max_rows,
            timeout_ms: params.timeout_ms,
            ..Wanted::default()
        };
        let budget = database.budget(wanted)?;
        let timeout = database.timeout(wanted)?;
        let db = database_of(mongo, params.db)?;
        let mut recorded = Recorded::of(&database.settings.id);
        let operation = Operation::from(params.op);
        recorded.with("statement", statement(params.op, &db, &params.coll));
        let request = Request {
            db,
            coll: params.coll,
            filter: params.filter,
            projection: params.projection,
            sort: params.sort,
            limit: params.limit,
            skip: params.skip,
            hint: params.hint,
            pipeline: params.pipeline,
            field: params.field,
            whole_vectors: params.include_vectors,
        };
        let _slot = database.slot().await?;
        let reading = mongo.read(operation, &request, budget, timeout, Layers::ALL);
        let read = Box::pin(told(&context, "the query", reading)).await;
        recorded.rows(read.as_ref().ok().map(|read| read.answer.rows.len()));
        record::note(&context, recorded);
        let read = read.map_err(|error| refusal(&context, error))?;
        let left = Left {
            rest: read.rest,
            source: database.settings.id.clone(),
            budget,
            notices: read.notices,
        };
        let cursors = &self.state().cursors;
        reply(&context, cursors, read.answer, left, Format::Rows, since)
    }
}

/// The database that a call names, or that of the source's URL.
pub(super) fn database_of(mongo: &Mongodb, named: Option<String>) -> Result<String, ToolError> {
    named
        .or_else(|| mongo.database_of_url().map(str::to_owned))
        .ok_or_else(|| {
            let id = &mongo.settings().id;
            ToolError::new(
                code::INVALID_ARGUMENTS,
                format!("`db` is missing, and the url of source `{id}` names none"),
            )
            .with_hint("mongo_schema without `db` lists them")
        })
}

/// What the record says of a call: what it does, and where.
pub(super) fn statement(op: impl std::fmt::Debug, db: &str, coll: &str) -> Value {
    let place: String = format!("{db}.{coll}").chars().take(LONGEST_NAME).collect();
    json!(format!(
        "{} {place}",
        format!("{op:?}").to_ascii_lowercase()
    ))
}
