//! PostgreSQL.

pub mod functions;
pub mod parameter;
pub mod read;
pub mod statement;
pub mod tokens;
pub mod value;
