//! mcp-spec-registry
pub mod approval;
