//! `bus_subscribe`

use std::fmt::Write as _;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::{Json, structured};
use shared::tools::ToolEffect;

use super::error::redis::refusal;
use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Shown, shown};
use crate::database::Database;
use crate::redis::Redis;
use crate::redis::subscribe::{Polled, Wanted};
use crate::server::DatabaseServer;

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("bus_subscribe", "Listen to channels", EffectClass::Write);

/// Messages of one poll where the call does not say.
const MESSAGES: usize = 100;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BusSubscribeParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// `open` gives a `handle`.
    action: Action,
    /// Names.
    #[serde(default)]
    channels: Vec<String>,
    /// "agents:*"
    #[serde(default)]
    patterns: Vec<String>,
    /// From `open`.
    #[serde(default)]
    handle: Option<String>,
    /// Default 100.
    #[serde(default)]
    count: Option<usize>,
    /// Of a poll, to 20000.
    #[serde(default)]
    wait_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Action {
    Open,
    Poll,
    Close,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Poll => "poll",
            Self::Close => "close",
        }
    }
}

#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct BusSubscribeResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Shown>,
    /// Lost since the last poll, because nobody fetched them.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    /// The connection was lost since the last poll, and with it whatever was sent meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected: Option<bool>,
    /// Messages that wait for the next poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<usize>,
    untrusted: bool,
}

#[tool_router(router = bus_subscribe_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Listens to channels: what comes is kept for the next poll, and what was lost is told. It ends two minutes after the last.
    #[tool]
    async fn bus_subscribe(
        &self,
        Parameters(params): Parameters<BusSubscribeParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<BusSubscribeResult>, ToolError> {
        let (database, redis) = self.state().databases.redis(params.source.as_deref())?;
        let mut recorded = Recorded::of(&database.settings.id);
        recorded.with("statement", json!(params.action.name()));
        record::note(&context, recorded);
        check_arguments(&params)?;
        let owner = &principal::of(&context)?.name;
        let (result, text) = match (params.action, params.handle) {
            (Action::Open, _) => {
                let wanted = Wanted {
                    channels: params.channels,
                    patterns: params.patterns,
                };
                open(&context, database, redis, owner, &wanted).await?
            }
            (Action::Poll, handle) => {
                let handle = handle.unwrap_or_default();
                let most = params.count.unwrap_or(MESSAGES);
                let wait = Duration::from_millis(params.wait_ms);
                let budget = database.settings.limits.reply;
                let poll = redis.poll(owner, &handle, most, wait, budget);
                let polled = told(&context, "the wait", poll).await;
                polled_of(polled.map_err(|error| refusal(&context, error))?)?
            }
            (Action::Close, handle) => {
                let closed = redis.unsubscribe(owner, &handle.unwrap_or_default());
                closed.map_err(|error| refusal(&context, error))?;
                (BusSubscribeResult::default(), "closed".to_owned())
            }
        };
        Ok(structured(result, text))
    }
}

async fn open(
    context: &RequestContext<RoleServer>,
    database: &Database,
    redis: &Redis,
    owner: &str,
    wanted: &Wanted,
) -> Result<(BusSubscribeResult, String), ToolError> {
    let _slot = database.slot().await?;
    let opened = redis.subscribe(owner, wanted, database.usual_call()).await;
    let opened = opened.map_err(|error| refusal(context, error))?;
    let text = format!("listening: poll with handle {}", opened.handle);
    let result = BusSubscribeResult {
        handle: Some(opened.handle),
        ..BusSubscribeResult::default()
    };
    Ok((result, text))
}

fn polled_of(polled: Polled) -> Result<(BusSubscribeResult, String), ToolError> {
    let mut text = format!("{} messages", polled.answer.rows.len());
    // Writing to a String cannot fail.
    if polled.waiting > 0 {
        let _ = write!(text, ", {} wait", polled.waiting);
    }
    if polled.dropped > 0 {
        let _ = write!(
            text,
            ", {} were lost before: poll more often",
            polled.dropped
        );
    }
    if polled.gap {
        text.push_str(", and the connection was lost: what was sent meanwhile is not known");
    }
    if !polled.connected {
        text.push_str(" (not connected just now)");
    }
    let shown = shown(polled.answer)?;
    let messages = shown.map(|(messages, table)| {
        let _ = write!(text, "\n{table}");
        messages
    });
    let result = BusSubscribeResult {
        handle: None,
        messages,
        dropped: Some(polled.dropped),
        gap: Some(polled.gap),
        connected: Some(polled.connected),
        waiting: Some(polled.waiting),
        untrusted: true,
    };
    Ok((result, text))
}

fn check_arguments(params: &BusSubscribeParams) -> Result<(), ToolError> {
    let action = params.action;
    let is_open = action == Action::Open;
    let given = [
        ("channels", !params.channels.is_empty() && !is_open),
        ("patterns", !params.patterns.is_empty() && !is_open),
        ("handle", params.handle.is_some() && is_open),
        ("count", params.count.is_some() && action != Action::Poll),
        ("wait_ms", params.wait_ms > 0 && action != Action::Poll),
    ];
    let wrong = |message: String| ToolError::new(code::INVALID_ARGUMENTS, message);
    if let Some((name, _)) = given.into_iter().find(|(_, is_of_no_use)| *is_of_no_use) {
        let message = format!("`{name}` is nothing for action `{}`", action.name());
        return Err(wrong(message).with_hint("leave it out, or give another action"));
    }
    if !is_open && params.handle.is_none() {
        return Err(wrong("`handle` is missing".to_owned()).with_hint("action `open` gives one"));
    }
    Ok(())
}
