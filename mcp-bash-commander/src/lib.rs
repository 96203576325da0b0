//! A jailed shell as an MCP server: sessions, policy and tools around a strict jail.

pub mod jail;
pub mod policy;
pub mod publish;
pub mod session;
pub mod workspace;
