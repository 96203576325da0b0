//! Reads against real servers of both versions, each started once for all tests by `tests/servers/postgres`.

mod reads;
mod server;
mod values;
