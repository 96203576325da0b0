//! The Bolt client against real servers of Neo4j, without TLS and with it.

mod cancelling;
mod connecting;
mod damage;
mod querying;
#[path = "../common/server.rs"]
mod server;
mod support;
mod values;
