//! `db_cursor`

use std::time::Instant;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use shared::effect::class::EffectClass;
use shared::principal;
use shared::tool_error::ToolError;
use shared::tool_result::Json;
use shared::tools::ToolEffect;

use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::cursor::CursorError;
use crate::database::Wanted;
use crate::server::DatabaseServer;
use crate::table::{Answer, Rows, Truncation};

pub(super) const EFFECT: ToolEffect = ToolEffect::new("db_cursor", "Read on", EffectClass::Read);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DbCursorParams {
    /// `next_cursor` of the result before.
    cursor: String,
    /// `close` frees what it holds.
    #[serde(default)]
    action: Action,
    #[serde(default)]
    format: Format,
    /// Default as before.
    #[serde(default)]
    max_rows: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Action {
    #[default]
    Next,
    Close,
}

#[tool_router(router = db_cursor_router, vis = "pub(super)")]
impl DatabaseServer {
    /// Gives the next rows of a result that was cut, or closes it.
    #[tool]
    async fn db_cursor(
        &self,
        Parameters(params): Parameters<DbCursorParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Reply>, ToolError> {
        let since = Instant::now();
        let state = self.state();
        let owner = &principal::of(&context)?.name;
        let unknown = |error: CursorError| {
            ToolError::new("UNKNOWN_CURSOR", error.to_string()).with_hint("ask the query again")
        };
        // Whatever can be refused is refused before the cursor is used up.
        let source = state.cursors.source(owner, &params.cursor);
        let database = state.databases.get(&source.map_err(unknown)?)?;
        let rows = match params.max_rows {
            Some(_) => {
                let wanted = Wanted {
                    rows: params.max_rows,
                    ..Wanted::default()
                };
                Some(database.budget(wanted)?.rows)
            }
            None => None,
        };
        let slot = match params.action {
            Action::Next => Some(database.slot().await?),
            Action::Close => None,
        };
        let mut open = state.cursors.take(owner, &params.cursor).map_err(unknown)?;
        let mut recorded = Recorded::of(&open.source);
        if params.action == Action::Close {
            record::note(&context, recorded);
            let nothing = Answer {
                columns: Vec::new(),
                rows: Rows::new(open.budget),
            };
            let left = Left {
                rest: None,
                source: open.source,
                budget: open.budget,
                notices: Vec::new(),
            };
            return reply(
                &context,
                &state.cursors,
                nothing,
                left,
                params.format,
                since,
            );
        }
        open.budget.rows = rows.unwrap_or(open.budget.rows);
        let answer = told(&context, "the query", open.rest.next(open.budget)).await?;
        drop(slot);
        recorded.rows(Some(answer.rows.len()));
        record::note(&context, recorded);
        let goes_on = match answer.rows.truncated() {
            Some(Truncation::Rows | Truncation::Bytes) => true,
            Some(Truncation::Time) => open.rest.outlives_time(),
            Some(Truncation::Cells) | None => false,
        };
        let left = Left {
            rest: goes_on.then_some(open.rest),
            source: open.source,
            budget: open.budget,
            notices: Vec::new(),
        };
        reply(&context, &state.cursors, answer, left, params.format, since)
    }
}
