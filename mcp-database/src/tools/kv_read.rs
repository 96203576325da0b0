//! `kv_read`

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

use super::error::redis::refusal;
use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::cursor::Rest;
use crate::database::Wanted;
use crate::redis::error::Error;
use crate::redis::read::{Read, Window};
use crate::redis::scan::Scan;
use crate::redis::value::Blob;
use crate::redis::{Call, Redis};
use crate::server::DatabaseServer;
use crate::table::Answer;

pub(super) const EFFECT: ToolEffect = ToolEffect::new("kv_read", "Read Redis", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KvReadParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Strings or {"base64": …}.
    #[serde(default)]
    #[schemars(with = "Vec<Value>")]
    keys: Vec<Blob>,
    /// Of each value: index, byte, or its `next`.
    #[serde(default)]
    start: Option<String>,
    /// Elements or bytes.
    #[serde(default)]
    count: Option<usize>,
    /// Finds keys: * ? [ab].
    #[serde(default)]
    pattern: Option<String>,
    /// Only of this type.
    #[serde(default)]
    kind: Option<String>,
    /// Default 100.
    #[serde(default)]
    max_rows: Option<usize>,
}

#[tool_router(router = kv_read_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Reads keys with type, time to live, length and a window of the value; or finds keys by a pattern.
    #[tool]
    async fn kv_read(
        &self,
        Parameters(params): Parameters<KvReadParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, redis) = self.state().databases.redis(params.source.as_deref())?;
        let wanted = Wanted {
            rows: params.max_rows,
            ..Wanted::default()
        };
        let call = Call {
            budget: database.budget(wanted)?,
            timeout: database.timeout(wanted)?,
        };
        let asked = asked(params)?;
        let mut recorded = Recorded::of(&database.settings.id);
        recorded.with("statement", json!(asked.name()));
        let _slot = database.slot().await?;
        let answered = told(&context, "the read", Box::pin(asked.of(redis, call))).await;
        recorded.rows(answered.as_ref().ok().map(|read| read.answer.rows.len()));
        record::note(&context, recorded);
        let read = answered.map_err(|error| refusal(&context, error))?;
        let left = Left {
            rest: read.rest,
            source: database.settings.id.clone(),
            budget: call.budget,
            notices: read.notices,
        };
        let cursors = &self.state().cursors;
        reply(&context, cursors, read.answer, left, Format::Rows, since)
    }
}

/// What a call is for.
enum Asked {
    Read(Read),
    Scan(Scan),
}

/// What came of it.
struct Came {
    answer: Answer,
    rest: Option<Box<dyn Rest>>,
    notices: Vec<String>,
}

impl Asked {
    fn name(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Scan(_) => "scan",
        }
    }

    async fn of(&self, redis: &Redis, call: Call) -> Result<Came, Error> {
        match self {
            Self::Read(read) => {
                let answer = redis.read(read, call).await?;
                let left = read.keys.len() - answer.rows.len();
                let told = format!("the last {left} of the keys did not fit; ask for them again");
                Ok(Came {
                    answer,
                    rest: None,
                    notices: if left == 0 { Vec::new() } else { vec![told] },
                })
            }
            Self::Scan(scan) => {
                let scanned = redis.scan(scan, call).await?;
                let mut told = format!("{} keys found", scanned.at_least);
                if scanned.rest.is_some() {
                    told.push_str(" so far");
                }
                if let Some(all) = scanned.keys_in_database {
                    told = format!("{told}, of {all} in the database");
                }
                Ok(Came {
                    answer: scanned.answer,
                    rest: scanned.rest,
                    notices: vec![told],
                })
            }
        }
    }
}

fn asked(params: KvReadParams) -> Result<Asked, ToolError> {
    let wrong = |message: &str| ToolError::new(code::INVALID_ARGUMENTS, message.to_owned());
    let has_window = params.start.is_some() || params.count.is_some();
    match (params.keys.is_empty(), params.pattern) {
        (false, None) if params.kind.is_none() => Ok(Asked::Read(Read {
            keys: params.keys,
            window: Window {
                start: params.start,
                count: params.count,
            },
        })),
        (true, Some(pattern)) if !has_window => Ok(Asked::Scan(Scan {
            pattern: Blob::from(pattern.as_str()),
            kind: params.kind,
        })),
        (false, None) => {
            Err(wrong("`kind` is for a `pattern`").with_hint("keys say their type themselves"))
        }
        (true, Some(_)) => Err(wrong("`start` and `count` are for `keys`")
            .with_hint("`max_rows` says how many keys are given, and db_cursor goes on")),
        (true, None) | (false, Some(_)) => {
            Err(wrong("give either `keys` or a `pattern`")
                .with_hint("pattern \"*\" finds all keys"))
        }
    }
}
