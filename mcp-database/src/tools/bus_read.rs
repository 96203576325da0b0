//! `bus_read`

use std::time::{Duration, Instant};

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::error::redis::refusal;
use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::database::Wanted;
use crate::redis::Call;
use crate::redis::bus::{Beginning, Membership, Take};
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("bus_read", "Read messages", EffectClass::Write);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BusReadParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Its name.
    stream: String,
    /// A message goes to one consumer of it; without, everybody reads all.
    #[serde(default)]
    group: Option<String>,
    /// Default you.
    #[serde(default)]
    consumer: Option<String>,
    /// If missing, beginning there.
    #[serde(default)]
    create_group: Option<Begin>,
    /// An id; "$": from now on. With a group "0": yours again.
    #[serde(default)]
    after: Option<String>,
    /// Default 10.
    #[serde(default)]
    count: Option<usize>,
    /// Waits for the first, to 20000.
    #[serde(default)]
    block_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Begin {
    First,
    Next,
}

#[tool_router(router = bus_read_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Reads messages of a stream, alone or as a consumer of a group, which acknowledges with `bus_ack`.
    #[tool]
    async fn bus_read(
        &self,
        Parameters(params): Parameters<BusReadParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, redis) = self.state().databases.redis(params.source.as_deref())?;
        let wanted = Wanted {
            rows: Some(params.count.unwrap_or(10)),
            ..Wanted::default()
        };
        let call = Call {
            budget: database.budget(wanted)?,
            timeout: database.timeout(wanted)?,
        };
        let take = take(params, &principal::of(&context)?.name)?;
        let mut recorded = Recorded::of(&database.settings.id);
        // Who waits keeps nobody else from asking.
        let _slot = if take.block.is_zero() {
            Some(database.slot().await?)
        } else {
            None
        };
        let answered = told(&context, "the wait", redis.take(&take, call)).await;
        recorded.rows(answered.as_ref().ok().map(|answer| answer.rows.len()));
        record::note(&context, recorded);
        let answer = answered.map_err(|error| refusal(&context, error))?;
        let mut notices = Vec::new();
        if take.member.is_some() && answer.rows.goes_on() {
            notices.push(
                "more were delivered than fit; they are yours: read again with after \"0\", once these are acknowledged".to_owned(),
            );
        }
        let left = Left {
            rest: None,
            source: database.settings.id.clone(),
            budget: call.budget,
            notices,
        };
        let cursors = &self.state().cursors;
        reply(&context, cursors, answer, left, Format::Rows, since)
    }
}

fn take(params: BusReadParams, caller: &str) -> Result<Take, ToolError> {
    let is_alone = params.group.is_none();
    if is_alone && (params.consumer.is_some() || params.create_group.is_some()) {
        let message = "`consumer` and `create_group` are for a `group`";
        return Err(ToolError::new(code::INVALID_ARGUMENTS, message)
            .with_hint("give `group`, or leave them out"));
    }
    Ok(Take {
        stream: params.stream,
        member: params.group.map(|group| Membership {
            group,
            consumer: params.consumer.unwrap_or_else(|| caller.to_owned()),
            create: params.create_group.map(|begin| match begin {
                Begin::First => Beginning::First,
                Begin::Next => Beginning::Next,
            }),
        }),
        after: params.after,
        count: params.count.unwrap_or(10),
        block: Duration::from_millis(params.block_ms),
    })
}
