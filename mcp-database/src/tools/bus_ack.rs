//! `bus_ack`

use std::time::{Duration, Instant};

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::{ToolError, code};
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::error::redis::refusal;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::redis::bus::claim::{Claim, Claimed, DEAD, MAX_DELIVERIES};
use crate::redis::bus::groups::Overview;
use crate::server::DatabaseServer;
use crate::table::{Answer, Budget, Cell, Column, Rows};

pub(super) const EFFECT: ToolEffect =
    ToolEffect::new("bus_ack", "Settle messages", EffectClass::Write);

/// For how long nobody has touched a message that is taken over, in milliseconds.
const MIN_IDLE: u64 = 60_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BusAckParams {
    /// If there are several.
    #[serde(default)]
    source: Option<String>,
    /// Its name.
    stream: String,
    /// `groups` tells who is how far.
    action: Action,
    /// Whose.
    #[serde(default)]
    group: Option<String>,
    /// Of messages.
    #[serde(default)]
    ids: Vec<String>,
    /// Who claims; default you.
    #[serde(default)]
    consumer: Option<String>,
    /// Left so long; default 60000.
    #[serde(default)]
    min_idle_ms: Option<u64>,
    /// Default 10.
    #[serde(default)]
    count: Option<usize>,
    /// Claim on from here.
    #[serde(default)]
    start: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Action {
    Ack,
    Claim,
    Groups,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Claim => "claim",
            Self::Groups => "groups",
        }
    }
}

#[tool_router(router = bus_ack_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Acknowledges `ids` of a group; claims what its consumers left, where a sixth delivery makes a dead letter; or shows the groups.
    #[tool]
    async fn bus_ack(
        &self,
        Parameters(params): Parameters<BusAckParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let (database, redis) = self.state().databases.redis(params.source.as_deref())?;
        let mut recorded = Recorded::of(&database.settings.id);
        recorded.with("statement", json!(params.action.name()));
        record::note(&context, recorded);
        check_arguments(&params)?;
        let call = database.usual_call();
        let refused = |error| refusal(&context, error);
        let group = params.group.as_deref().unwrap_or_default();
        let _slot = database.slot().await?;
        let (answer, notices) = match params.action {
            Action::Ack => {
                let settled = redis.acknowledge(&params.stream, group, &params.ids, call);
                acknowledged(settled.await.map_err(refused)?, params.ids.len())
            }
            Action::Claim => {
                let caller = &principal::of(&context)?.name;
                let claim = claim(&params, caller);
                claimed(redis.claim(&claim, call).await.map_err(refused)?, &claim)
            }
            Action::Groups => {
                let overview = redis.groups(&params.stream, call).await.map_err(refused)?;
                groups(overview, call.budget)
            }
        };
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

fn check_arguments(params: &BusAckParams) -> Result<(), ToolError> {
    let of_claim = [
        ("consumer", params.consumer.is_some()),
        ("min_idle_ms", params.min_idle_ms.is_some()),
        ("count", params.count.is_some()),
        ("start", params.start.is_some()),
    ];
    let action = params.action;
    let of_no_use = of_claim
        .into_iter()
        .find(|(_, is_given)| *is_given && action != Action::Claim)
        .or_else(|| {
            let others = [
                ("ids", !params.ids.is_empty() && action != Action::Ack),
                ("group", params.group.is_some() && action == Action::Groups),
            ];
            others.into_iter().find(|(_, is_given)| *is_given)
        });
    let wrong = |message: String| ToolError::new(code::INVALID_ARGUMENTS, message);
    if let Some((name, _)) = of_no_use {
        let message = format!("`{name}` is nothing for action `{}`", action.name());
        return Err(wrong(message).with_hint("leave it out, or give another action"));
    }
    if params.group.is_none() && action != Action::Groups {
        return Err(wrong("`group` is missing".to_owned())
            .with_hint("action `groups` shows those of the stream"));
    }
    Ok(())
}

fn acknowledged(settled: i64, given: usize) -> (Answer, Vec<String>) {
    let answer = Answer {
        columns: columns(&[("acknowledged", "integer")]),
        rows: rows(Budget::default(), [vec![Cell::integer(settled)]]),
    };
    let is_short = usize::try_from(settled).is_ok_and(|settled| settled < given);
    let told = "the others were not pending: acknowledged before, or never delivered to the group";
    let notices = is_short.then(|| told.to_owned());
    (answer, notices.into_iter().collect())
}

fn claim(params: &BusAckParams, caller: &str) -> Claim {
    Claim {
        stream: params.stream.clone(),
        group: params.group.clone().unwrap_or_default(),
        consumer: params.consumer.clone().unwrap_or_else(|| caller.to_owned()),
        min_idle: Duration::from_millis(params.min_idle_ms.unwrap_or(MIN_IDLE)),
        count: params.count.unwrap_or(10),
        start: params.start.clone(),
        max_deliveries: MAX_DELIVERIES,
    }
}

fn claimed(claimed: Claimed, claim: &Claim) -> (Answer, Vec<String>) {
    let mut notices = Vec::new();
    if !claimed.dead.is_empty() {
        let dead = claimed.dead.iter();
        let dead: Vec<String> = dead
            .map(|dead| format!("{} is {} there", dead.id, dead.dead_id))
            .collect();
        notices.push(format!(
            "delivered over {MAX_DELIVERIES} times, and now in {}{DEAD}: {}",
            claim.stream,
            dead.join(", ")
        ));
    }
    if !claimed.deleted.is_empty() {
        let deleted = claimed.deleted.join(", ");
        notices.push(format!("deleted before anybody worked them off: {deleted}"));
    }
    if claimed.answer.rows.goes_on() {
        notices.push(
            "more are yours now than fit: bus_read with the group, the consumer and after \"0\""
                .to_owned(),
        );
    }
    if let Some(next) = claimed.next {
        notices.push(format!("there may be more: go on with start \"{next}\""));
    }
    (claimed.answer, notices)
}

fn groups(overview: Overview, budget: Budget) -> (Answer, Vec<String>) {
    let mut notices = vec![format!(
        "{} messages, {} dead letters, last id {}, {} groups",
        overview.length,
        overview.dead,
        overview.last_id.as_deref().unwrap_or("none"),
        overview.groups_in_all
    )];
    if overview.groups.len() < overview.groups_in_all {
        notices.push(format!(
            "the first {} groups are shown",
            overview.groups.len()
        ));
    }
    let number = |number: Option<i64>| number.map_or_else(Cell::null, Cell::integer);
    let shown = overview.groups.into_iter().map(|group| {
        vec![
            Cell::text(group.name),
            number(group.lag),
            Cell::integer(group.pending),
            group.last_delivered.map_or_else(Cell::null, Cell::text),
            Cell::json(json!(group.oldest_pending)),
            Cell::json(json!(group.deleted_pending)),
            Cell::json(json!(group.consumers)),
        ]
    });
    let answer = Answer {
        rows: rows(budget, shown),
        columns: columns(&[
            ("group", "text"),
            ("lag", "integer"),
            ("pending", "integer"),
            ("last_delivered", "text"),
            ("oldest_pending", "any"),
            ("deleted_pending", "any"),
            ("consumers", "any"),
        ]),
    };
    (answer, notices)
}

fn columns(columns: &[(&str, &str)]) -> Vec<Column> {
    columns
        .iter()
        .map(|(name, kind)| Column {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
        })
        .collect()
}

fn rows(budget: Budget, all: impl IntoIterator<Item = Vec<Cell>>) -> Rows {
    let mut rows = Rows::new(budget);
    for row in all {
        if rows.push(row).is_err() {
            break;
        }
    }
    rows
}
