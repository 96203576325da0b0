//! What the database server is made of; knows no protocol.
//!
//! So far: how a statement that an agent wrote is made one that PostgreSQL can only read with.

pub mod postgres;
