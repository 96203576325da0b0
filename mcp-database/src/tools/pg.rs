//! What the reading tools of PostgreSQL have in common.

use std::time::Instant;

use rmcp::RoleServer;
use rmcp::service::RequestContext;
use shared::tool_error::ToolError;
use shared::tool_result::Json;

use super::progress::told;
use super::record::{self, Recorded};
use super::reply::{Format, Left, Reply, reply};
use crate::database::Database;
use crate::postgres::Postgres;
use crate::postgres::read::Ask;
use crate::server::DatabaseServer;
use crate::table::Budget;

/// A question, and how its answer is to look.
pub(super) struct Question<'a> {
    pub(super) database: &'a Database,
    pub(super) postgres: &'a Postgres,
    pub(super) ask: Ask,
    pub(super) budget: Budget,
    pub(super) format: Format,
    pub(super) recorded: Recorded,
    pub(super) since: Instant,
}

impl DatabaseServer {
    /// Asks, records it, and replies; what is left is kept for the caller.
    pub(super) async fn answer(
        &self,
        context: &RequestContext<RoleServer>,
        question: Question<'_>,
    ) -> Result<Json<Reply>, ToolError> {
        let Question {
            database,
            postgres,
            ask,
            budget,
            format,
            mut recorded,
            since,
        } = question;
        let _slot = database.slot().await?;
        let answered = told(context, "the query", postgres.query(ask, budget)).await;
        recorded.rows(answered.as_ref().ok().map(|(answer, _)| answer.rows.len()));
        record::note(context, recorded);
        let (answer, rest) = answered.map_err(|error| record::refusal(context, error))?;
        let left = Left {
            rest,
            source: database.settings.id.clone(),
            budget,
            notices: Vec::new(),
        };
        reply(context, &self.state().cursors, answer, left, format, since)
    }
}
