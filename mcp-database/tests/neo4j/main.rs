//! The Bolt client, and what is built on it, against real servers of Neo4j, without TLS and with it.

mod cancelling;
mod connecting;
mod damage;
mod dependencies;
mod graph;
mod layers;
mod opening;
mod querying;
mod reads;
mod schema;
mod searching;
#[path = "../common/server.rs"]
mod server;
mod support;
mod surveying;
mod upserts;
mod values;
mod writes;
