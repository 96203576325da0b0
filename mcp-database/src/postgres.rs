//! PostgreSQL.

pub mod functions;
pub mod statement;
pub mod tokens;
