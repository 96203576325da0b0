//! Reads against a real PostgreSQL.

mod changes;
mod database;
mod looking;
mod reads;
mod results;
#[path = "../common/server.rs"]
mod server;
mod values;
