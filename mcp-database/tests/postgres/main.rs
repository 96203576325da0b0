//! The engine for PostgreSQL against real servers.

mod between;
mod cases;
mod changes;
mod damage;
mod database;
mod edges;
mod looking;
mod older;
#[path = "../common/proxy.rs"]
mod proxy;
mod reads;
mod results;
#[path = "../common/server.rs"]
mod server;
mod values;
mod vectors;
