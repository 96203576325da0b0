//! What the end-to-end tests, the benchmarks and the demo share: the servers' programs, their processes, and a client.

pub mod binaries;
pub mod client;
pub mod expect;
pub mod fixture;
pub mod human;
pub mod process;
pub mod processes;
pub mod run;
