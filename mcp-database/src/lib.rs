//! What the database server is made of; knows no protocol.
//!
//! So far: how a statement that an agent wrote is made one that PostgreSQL can only read with, what a result is made of, and how
//! Neo4j is spoken to.

pub mod cursor;
pub mod neo4j;
pub mod postgres;
pub mod redis;
pub mod source;
pub mod table;
