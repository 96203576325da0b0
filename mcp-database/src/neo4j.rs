//! Neo4j.

pub mod bolt;
