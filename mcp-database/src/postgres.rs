//! PostgreSQL.

pub mod statement;
pub mod tokens;
