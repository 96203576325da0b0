//! Neo4j.

pub mod address;
pub mod bolt;
pub mod cell;
mod client;
pub mod cypher;
pub mod deps;
pub mod error;
pub mod health;
pub mod parameter;
mod pool;
pub mod posture;
pub mod read;
pub mod schema;
pub mod search;
pub mod upsert;
pub mod walk;
pub mod write;

pub use client::Neo4j;
