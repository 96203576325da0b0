//! What the tools of Neo4j have in common: their records, their refusals, how they end.

use std::time::Instant;

use rmcp::RoleServer;
use rmcp::service::RequestContext;
use serde::Serialize;
use serde_json::json;
use shared::call;
use shared::tool_error::{ToolError, code};
use shared::visible;

use super::record::Recorded;
use crate::neo4j::cypher::fingerprint::fingerprint;
use crate::neo4j::error::GraphError;

/// A statement for a source, without its values.
pub(super) fn recorded(source: &str, cypher: &str) -> Recorded {
    let mut recorded = Recorded::of(source);
    recorded.with("statement", json!(fingerprint(cypher)));
    recorded
}

/// The error for the model; that nothing reached the graph is noted.
pub(super) fn refusal(context: &RequestContext<RoleServer>, error: GraphError) -> ToolError {
    use GraphError::{Gate, NoRead, ReadOnly};
    if matches!(error, Gate(_) | NoRead(_) | ReadOnly(_)) {
        call::was_refused(context);
    }
    error.into()
}

/// Waits for a change unless its call is cancelled.
pub(super) async fn unless_cancelled<T>(
    context: &RequestContext<RoleServer>,
    change: impl Future<Output = Result<T, GraphError>>,
) -> Result<T, ToolError> {
    tokio::select! {
        biased;
        changed = change => changed.map_err(|error| refusal(context, error)),
        () = context.ct.cancelled() => Err(ToolError::new(
            code::CANCELLED,
            "the call was cancelled, and the change rolled back unless it was just being committed",
        )),
    }
}

/// What the server says of a statement, as it can be shown.
pub(super) fn notices(said: &[String]) -> Vec<String> {
    said.iter().map(|notice| visible::prose(notice)).collect()
}

/// Milliseconds of a call.
pub(super) fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Leaves what has room, and says whether all of it had.
pub(super) fn fit(list: &mut Vec<impl Serialize>, room: &mut usize) -> bool {
    let fitting = list.iter().take_while(|element| {
        let bytes = shared::budget::json_bytes(element);
        let left = room.checked_sub(bytes);
        *room = left.unwrap_or(0);
        left.is_some()
    });
    let fitting = fitting.count();
    let is_whole = fitting == list.len();
    list.truncate(fitting);
    is_whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_where_its_room_ends() {
        let mut room = 10;
        let mut list = vec!["ab", "cd", "efghij", "k"];
        assert!(!fit(&mut list, &mut room));
        assert_eq!((list, room), (vec!["ab", "cd"], 0));
        let mut none: Vec<&str> = Vec::new();
        assert!(fit(&mut none, &mut room));
    }
}
