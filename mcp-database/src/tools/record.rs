//! What the call log says of a call: its source, what kind of statement it was, how many rows; no value.

use rmcp::RoleServer;
use rmcp::service::RequestContext;
use serde_json::{Value, json};
use shared::call;
use shared::call_log::Details;
use shared::tool_error::ToolError;

use crate::postgres;
use crate::postgres::fingerprint::fingerprint;

/// What is recorded.
pub(super) struct Recorded(Details);

impl Recorded {
    /// A call of a source.
    pub(super) fn of(source: &str) -> Self {
        let mut details = Details::new();
        details.insert("source".to_owned(), json!(source));
        Self(details)
    }

    /// A statement for a source: the same fingerprint for statements that differ in values alone.
    pub(super) fn of_sql(source: &str, sql: &str) -> Self {
        let mut recorded = Self::of(source);
        recorded
            .0
            .insert("statement".to_owned(), json!(fingerprint(sql)));
        recorded
    }

    /// How many rows came or were affected.
    pub(super) fn rows(&mut self, rows: Option<usize>) {
        if let Some(rows) = rows {
            self.with("rows", json!(rows));
        }
    }

    /// Something else about it.
    pub(super) fn with(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }
}

/// Has it in the call's line.
pub(super) fn note(context: &RequestContext<RoleServer>, recorded: Recorded) {
    call::has_details(context, recorded.0);
}

/// The error for the model; that nothing reached the database is noted.
pub(super) fn refusal(context: &RequestContext<RoleServer>, error: postgres::Error) -> ToolError {
    use postgres::Error::{Function, ReadOnly, Statement, TooPowerful};
    if matches!(
        error,
        Statement(_) | Function(_) | ReadOnly(_) | TooPowerful(_)
    ) {
        call::was_refused(context);
    }
    error.into()
}
