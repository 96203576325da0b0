//! How the databases' errors read to the model.

pub(super) mod mongodb;
mod neo4j;
mod postgres;
pub(super) mod redis;

use shared::tool_error::ToolError;

use crate::source::SourceError;

/// A source that cannot be used as the operator wrote it.
impl From<SourceError> for ToolError {
    fn from(error: SourceError) -> Self {
        tracing::error!(%error, "a source cannot be used");
        Self::new("SOURCE_UNUSABLE", error.to_string())
            .with_hint("tell the operator; `mcp-database doctor` shows the same")
    }
}
