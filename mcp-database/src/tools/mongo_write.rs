//! `mongo_write`

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::digest::Digest;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::error::mongodb::refusal;
use super::mongo_read::{database_of, statement};
use super::progress::told;
use super::record::{self, Recorded};
use crate::database::{Database, Wanted};
use crate::fence::fenced;
use crate::mongodb::write::{Change, Outcome, Request, Write};
use crate::mongodb::{MongoError, Mongodb};
use crate::server::DatabaseServer;
use crate::source::Mode;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("mongo_write", "Change MongoDB", EffectClass::Irreversible);

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MongoWriteParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Default: of the url.
    #[serde(default)]
    db: Option<String>,
    /// Collection.
    coll: String,
    /// What is done.
    op: Op,
    /// To insert.
    #[serde(default)]
    docs: Option<Value>,
    /// Which; {} is all.
    #[serde(default)]
    filter: Option<Value>,
    /// Operators, or the new document.
    #[serde(default)]
    update: Option<Value>,
    /// What $[name] means.
    #[serde(default)]
    array_filters: Option<Value>,
    /// All that match, not one.
    #[serde(default)]
    many: bool,
    /// Inserts if none matches.
    #[serde(default)]
    upsert: bool,
    /// Only counts.
    #[serde(default)]
    dry_run: bool,
    /// Of changed documents.
    #[serde(default)]
    expect_max: Option<u64>,
    /// From `CONFIRM_REQUIRED`.
    #[serde(default)]
    confirm_token: Option<String>,
    /// Default 30000.
    #[serde(default)]
    timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Op {
    Insert,
    Update,
    Replace,
    Delete,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MongoWriteResult {
    /// Nothing was changed: this was only counted.
    dry_run: bool,
    inserted: u64,
    matched: u64,
    modified: u64,
    deleted: u64,
    /// Of new documents, the first 100.
    ids: Vec<Value>,
    /// Where it ended before all was done, and why; what is counted was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<FailedView>,
    elapsed_ms: u64,
    untrusted: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct FailedView {
    /// From 0.
    index: i64,
    reason: String,
}

/// A change that was looked at, and on whose behalf.
struct Asked<'a> {
    database: &'a Database,
    mongo: &'a Mongodb,
    request: Request,
    write: Write,
    timeout: Duration,
}

#[tool_router(router = mongo_write_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Inserts, updates, replaces or deletes documents. Many, or an open filter, are counted first and need the
    /// `confirm_token` of its refusal.
    #[tool]
    async fn mongo_write(
        &self,
        Parameters(params): Parameters<MongoWriteParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<MongoWriteResult>, ToolError> {
        let since = Instant::now();
        let (database, mongo) = self.state().databases.mongodb(params.source.as_deref())?;
        let db = database_of(mongo, params.db.clone())?;
        let mut recorded = Recorded::of(&database.settings.id);
        recorded.with("statement", statement(params.op, &db, &params.coll));
        record::note(&context, recorded);
        if database.settings.mode != Mode::Write {
            let error = MongoError::ReadOnly(database.settings.id.clone());
            return Err(refusal(&context, error));
        }
        let timeout = database.timeout(Wanted {
            timeout_ms: params.timeout_ms,
            ..Wanted::default()
        })?;
        let request = request(db, &params);
        let asked = Asked {
            write: Write::of(&request).map_err(|error| refusal(&context, error))?,
            database,
            mongo,
            request,
            timeout,
        };
        let action = self.begin(&context, "mongo_write", &params).await?;
        let written = self.write(&context, asked, &params).await;
        let result = written.map(|outcome| result(outcome, since));
        let result = match action {
            Some(action) => action.end(result, |_, _| {}).await?,
            None => result?,
        };
        let text = text(&result)?;
        Ok(structured(result, text))
    }
}

impl DatabaseServer {
    async fn write(
        &self,
        context: &RequestContext<RoleServer>,
        mut asked: Asked<'_>,
        params: &MongoWriteParams,
    ) -> Result<Outcome, ToolError> {
        let owner = &principal::of(context)?.name;
        let is_approved = self.is_enforced() || params.dry_run;
        let mut unconfirmed = None;
        if asked.write.is_destructive() && !is_approved {
            let digest = digest(asked.database, &asked.request, params)?;
            let token = params.confirm_token.as_deref();
            match token {
                Some(token) => {
                    let seen = self.confirmed(token, owner, &digest)?;
                    let most = params.expect_max.map_or(seen, |most| most.min(seen));
                    asked.request.expect_max = Some(most);
                    asked.write =
                        Write::of(&asked.request).map_err(|error| refusal(context, error))?;
                }
                None => unconfirmed = Some(digest),
            }
        }
        let is_counted = params.dry_run || unconfirmed.is_some();
        let _slot = asked.database.slot().await?;
        let work = asked.mongo.write(&asked.write, is_counted, asked.timeout);
        let work = Box::pin(told(context, "the change", work));
        let outcome = tokio::select! {
            biased;
            outcome = work => outcome.map_err(|error| refusal(context, error))?,
            () = context.ct.cancelled() => {
                return Err(ToolError::new(code::CANCELLED, "the call was cancelled; documents may have been changed before")
                    .with_hint("look before you repeat it"));
            }
        };
        match unconfirmed {
            Some(digest) => {
                let why = match params.op {
                    Op::Delete if params.many => "it deletes all that match",
                    _ if params.many => "it changes all that match",
                    _ => "its filter leaves open which documents it means",
                };
                let affected = outcome.matched;
                let message =
                    format!("nothing was changed yet: {why}. It would affect {affected} documents");
                Err(self.unconfirmed(message, owner, digest, affected))
            }
            None => Ok(outcome),
        }
    }
}

fn request(db: String, params: &MongoWriteParams) -> Request {
    Request {
        db,
        coll: params.coll.clone(),
        change: match params.op {
            Op::Insert => Change::Insert,
            Op::Update => Change::Update,
            Op::Replace => Change::Replace,
            Op::Delete => Change::Delete,
        },
        many: params.many,
        docs: params.docs.clone(),
        filter: params.filter.clone(),
        update: params.update.clone(),
        array_filters: params.array_filters.clone(),
        upsert: params.upsert,
        expect_max: params.expect_max,
    }
}

/// What a token is bound to.
fn digest(
    database: &Database,
    request: &Request,
    params: &MongoWriteParams,
) -> Result<Digest, ToolError> {
    let change = json!([
        database.settings.id,
        request.db,
        request.coll,
        params.op,
        params.many,
        // As text: the order of keys counts, and canonical JSON does not keep it.
        params.filter.as_ref().map(Value::to_string),
        params.update.as_ref().map(Value::to_string),
        params.array_filters.as_ref().map(Value::to_string),
        params.upsert,
        params.expect_max
    ]);
    Digest::of_json(&change).map_err(|error| ToolError::internal(&error))
}

fn result(outcome: Outcome, since: Instant) -> MongoWriteResult {
    MongoWriteResult {
        dry_run: outcome.dry_run,
        inserted: outcome.inserted,
        matched: outcome.matched,
        modified: outcome.modified,
        deleted: outcome.deleted,
        ids: outcome.ids,
        failed: outcome.failed.map(|failed| FailedView {
            index: failed.index,
            reason: failed.reason,
        }),
        elapsed_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        untrusted: true,
    }
}

fn text(result: &MongoWriteResult) -> Result<String, ToolError> {
    let text = if result.dry_run {
        "a trial, nothing was changed; it would be:"
    } else {
        "done:"
    };
    let mut counts = Vec::new();
    for (count, what) in [
        (result.inserted, "inserted"),
        (result.matched, "matched"),
        (result.modified, "modified"),
        (result.deleted, "deleted"),
    ] {
        if count > 0 {
            counts.push(format!("{count} {what}"));
        }
    }
    if counts.is_empty() {
        counts.push("no documents".to_owned());
    }
    let mut text = format!("{text} {}", counts.join(", "));
    let mut said = String::new();
    if let Some(failed) = &result.failed {
        // Writing to a String cannot fail.
        let _ = write!(text, "; then document {} (from 0) failed", failed.index);
        let _ = writeln!(said, "{}", failed.reason);
    }
    if !result.ids.is_empty() {
        let _ = writeln!(said, "ids {}", Value::from(result.ids.clone()));
    }
    if !said.is_empty() {
        let said = fenced(said.trim_end()).map_err(|error| ToolError::internal(&error))?;
        let _ = write!(text, "\n{said}");
    }
    Ok(text)
}
