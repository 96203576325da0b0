//! MongoDB.

pub mod client;
pub mod ejson;
pub mod error;
pub mod explain;
pub mod gate;
pub mod health;
pub mod listing;
pub mod plan;
pub mod posture;
pub mod read;
pub mod schema;
pub mod search;
mod session;
mod stored;
pub mod value;
pub mod write;

pub use client::Mongodb;
pub use error::MongoError;
