//! The end-to-end tests: real servers, real transports, one file for each subject.

mod architecture;
mod contracts;
mod every_server;
