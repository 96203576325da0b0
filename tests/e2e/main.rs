//! The end-to-end tests: real servers, real transports, one file for each subject.

mod architecture;
mod attacks;
mod bad_input;
mod contracts;
mod crash;
mod demo;
mod every_server;
