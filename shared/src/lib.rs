//! What the servers of spec-driven-ai have in common.

pub mod digest;
pub mod effect;
pub mod plan;
pub mod visible;
