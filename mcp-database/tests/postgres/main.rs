//! Reads against a real PostgreSQL.

mod changes;
mod database;
mod looking;
mod older;
mod reads;
mod results;
#[path = "../common/server.rs"]
mod server;
mod values;
mod vectors;
