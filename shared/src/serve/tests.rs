//! Serving, tested from the wire.

mod fixture;
mod http;
mod stdio;
