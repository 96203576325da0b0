//! What the database server is made of; knows no protocol.
//!
//! So far: how a statement that an agent wrote is made one that PostgreSQL can only read with, and what a result is made of.

pub mod postgres;
pub mod table;
