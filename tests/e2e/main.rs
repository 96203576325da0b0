//! The end-to-end tests: real servers, real transports, one file for each subject.

mod architecture;
mod attacks;
mod bad_input;
mod contracts;
mod crash;
mod database;
mod demo;
mod engines;
mod every_server;
#[path = "../../mcp-database/tests/common/server.rs"]
mod server;
