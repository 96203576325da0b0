//! The engine for Redis against real servers of Redis and Valkey, without TLS and with it.

mod commands;
mod connecting;
mod fake;
mod faults;
mod looking;
mod messages;
#[path = "../common/proxy.rs"]
mod proxy;
mod reads;
mod searching;
#[path = "../common/server.rs"]
mod server;
mod subscribing;
mod support;
mod writes;
