//! `kv_write`

mod change;

use std::fmt::Write as _;
use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use shared::digest::Digest;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

pub(super) use self::change::pairs;
use self::change::{Op, When, change};
use super::error::redis::refusal;
use super::progress::told;
use super::record::{self, Recorded};
use crate::database::Database;
use crate::fence::fenced;
use crate::redis::error::Error;
use crate::redis::value::Blob;
use crate::redis::write::{Write, Written};
use crate::redis::{Call, Redis};
use crate::server::DatabaseServer;
use crate::source::Mode;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("kv_write", "Change Redis", EffectClass::Irreversible);

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KvWriteParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// What is done.
    op: Op,
    /// One; `del` takes many.
    #[schemars(with = "Vec<Value>")]
    keys: Vec<Blob>,
    /// String, number or {"base64": …}.
    #[serde(default)]
    #[schemars(with = "Value")]
    value: Option<Blob>,
    /// Elements, members, or fields of `hdel`.
    #[serde(default)]
    #[schemars(with = "Vec<Value>")]
    values: Vec<Blob>,
    /// {"field": value}; `zadd`: {"member": score}.
    #[serde(default)]
    fields: Map<String, Value>,
    /// `set` without it stays.
    #[serde(default)]
    ttl_ms: Option<u64>,
    /// `set` leaves it.
    #[serde(default)]
    keep_ttl: bool,
    /// Of `set`.
    #[serde(default)]
    when: Option<When>,
    /// `set` if it holds this.
    #[serde(default)]
    #[schemars(with = "Value")]
    if_equals: Option<Blob>,
    /// Only tells what is there.
    #[serde(default)]
    dry_run: bool,
    /// From `CONFIRM_REQUIRED`.
    #[serde(default)]
    confirm_token: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct KvWriteResult {
    /// False for a trial, and where nothing was there to change or a condition did not hold.
    applied: bool,
    /// Keys, fields or members that are new or gone; the length of a list.
    changed: i64,
    /// Of a trial: how many of the keys are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    existing: Option<usize>,
    /// Of a trial: the first 100 keys, each with type, time to live and length.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    before: Vec<Value>,
    elapsed_ms: u64,
    untrusted: bool,
}

#[tool_router(router = kv_write_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Makes one change to a key. `del` of several keys needs the `confirm_token` of its refusal.
    #[tool]
    async fn kv_write(
        &self,
        Parameters(params): Parameters<KvWriteParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<KvWriteResult>, ToolError> {
        let since = Instant::now();
        let (database, redis) = self.state().databases.redis(params.source.as_deref())?;
        let mut recorded = Recorded::of(&database.settings.id);
        recorded.with("statement", json!(params.op.name()));
        recorded.with("keys", json!(params.keys.len()));
        record::note(&context, recorded);
        if database.settings.mode != Mode::Write {
            let error = Error::ReadOnlySource(database.settings.id.clone());
            return Err(refusal(&context, error));
        }
        let call = database.usual_call();
        let write = change(&params)?;
        let action = self.begin(&context, "kv_write", &params).await?;
        let work = self.change_keys(&context, database, redis, &write, &params, call);
        let done = tokio::select! {
            biased;
            done = work => done,
            () = context.ct.cancelled() => Err(ToolError::new(
                code::CANCELLED,
                "the call was cancelled; whether the change was made has to be looked at",
            )),
        };
        let done = match action {
            Some(action) => action.end(done, |_, _| {}).await,
            None => done,
        };
        answer(done?, &params, since)
    }
}

impl DatabaseServer {
    async fn change_keys(
        &self,
        context: &RequestContext<RoleServer>,
        database: &Database,
        redis: &Redis,
        write: &Write,
        params: &KvWriteParams,
        call: Call,
    ) -> Result<Written, ToolError> {
        let _slot = database.slot().await?;
        let refused = |error| refusal(context, error);
        let is_approved = self.is_enforced() || params.dry_run;
        match write {
            Write::Delete { keys } if keys.len() > 1 && !is_approved => {
                let trial = redis.write(write, true, call).await.map_err(refused)?;
                let existing = trial.existing.unwrap_or_default() as u64;
                self.check_confirmed(context, database, params, existing)?;
            }
            _ => {}
        }
        let work = redis.write(write, params.dry_run, call);
        told(context, "the change", work).await.map_err(refused)
    }

    /// Refuses to delete what nobody has confirmed, or what is no more what was confirmed.
    fn check_confirmed(
        &self,
        context: &RequestContext<RoleServer>,
        database: &Database,
        params: &KvWriteParams,
        existing: u64,
    ) -> Result<(), ToolError> {
        let owner = &principal::of(context)?.name;
        let change = Digest::of_json(&json!([database.settings.id, params.op, params.keys]));
        let change = change.map_err(|error| ToolError::internal(&error))?;
        let Some(token) = &params.confirm_token else {
            let named = params.keys.len();
            let message = format!(
                "nothing was changed yet: {existing} of {named} keys are there and would be deleted"
            );
            return Err(self.unconfirmed(message, owner, change, existing));
        };
        let seen = self.confirmed(token, owner, &change)?;
        if seen == existing {
            return Ok(());
        }
        let message = format!(
            "{existing} of the keys are there now, and {seen} were when it was confirmed; nothing was changed"
        );
        Err(ToolError::new("UNEXPECTED_COUNT", message)
            .with_hint("look with a dry_run, and decide with what is there now"))
    }
}

fn answer(
    mut written: Written,
    params: &KvWriteParams,
    since: Instant,
) -> Result<Json<KvWriteResult>, ToolError> {
    let internal = |error: serde_json::Error| ToolError::internal(&error);
    let before = written.before.iter().map(serde_json::to_value);
    let before: Vec<Value> = before.collect::<Result<_, _>>().map_err(internal)?;
    let is_of_time = matches!(params.op, Op::Expire | Op::Persist);
    written.applied &= !(is_of_time && written.changed == 0);
    let mut text = match (written.existing, params.op) {
        (Some(existing), _) if params.dry_run => {
            format!("a trial: nothing was changed; {existing} of the keys are there")
        }
        (_, Op::Lpush | Op::Rpush) => format!("done: the list has {} elements", written.changed),
        (_, Op::Set | Op::Expire | Op::Persist) if written.applied => "done".to_owned(),
        (_, Op::Set) => "nothing was changed: the condition does not hold".to_owned(),
        (_, Op::Expire) => "nothing was changed: there is no such key".to_owned(),
        (_, Op::Persist) => "nothing was changed: there is no such key, or it stays".to_owned(),
        _ => format!("done: {} are new or gone", written.changed),
    };
    if !before.is_empty() {
        let lines: Vec<String> = before.iter().map(Value::to_string).collect();
        let lines = fenced(&lines.join("\n")).map_err(|error| ToolError::internal(&error))?;
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{lines}");
    }
    let result = KvWriteResult {
        applied: written.applied,
        changed: written.changed,
        existing: written.existing,
        before,
        elapsed_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        untrusted: true,
    };
    Ok(structured(result, text))
}
