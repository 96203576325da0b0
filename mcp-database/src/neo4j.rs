//! Neo4j.

pub mod address;
pub mod bolt;
pub mod cell;
mod client;
pub mod cypher;
pub mod error;
pub mod parameter;
mod pool;
pub mod read;
mod tls;

pub use client::Neo4j;
