//! A Bolt client for Neo4j: versions 4.2 to 5.8, one connection at a time, reads that the server
//! itself keeps read-only.

mod connection;
mod error;
mod exchange;
mod framing;
mod login;
mod packstream;
mod query;
mod structures;
mod summary;
mod temporal;
mod terminate;
mod transport;
mod value;

pub use connection::{Batch, Connection, Limits, Started};
pub use error::Error;
pub use packstream::PackstreamError;
pub use query::{Access, Query, TransactionOptions};
pub use summary::{Notification, QueryType, Summary};
pub use temporal::{Date, DateTime, Duration, LocalDateTime, LocalTime, Time, Zone};
pub use terminate::terminate_tagged;
pub use transport::{Auth, Endpoint, Tls};
pub use value::{
    Map, Node, Path, Point, Relationship, Structure, UnboundRelationship, Value, entry, get,
};
