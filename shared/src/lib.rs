//! What the servers of spec-driven-ai have in common.

pub mod budget;
pub mod call;
pub mod call_log;
mod canonical;
pub mod config;
pub mod digest;
pub mod effect;
pub mod metrics;
pub mod plan;
pub mod portable_schema;
pub mod principal;
pub mod serve;
pub mod state_dir;
pub mod telemetry;
pub mod tool_error;
pub mod tool_result;
pub mod tools;
pub mod visible;
