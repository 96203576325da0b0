//! Reads against a real PostgreSQL.

mod database;
mod reads;
#[path = "../common/server.rs"]
mod server;
mod values;
