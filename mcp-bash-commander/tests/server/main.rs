//! The server as a client meets it: the real program, JSON-RPC lines over stdio.

mod approvals;
mod client;
mod commands;
mod enforced;
mod faults;
mod files;
mod guards;
mod kept;
mod memory;
mod modes;
mod network;
mod overlays;
#[path = "../common/processes.rs"]
mod processes;
#[path = "../common/program.rs"]
mod program;
mod records;
mod refusals;
mod secrets;
mod sessions;
#[path = "../common/skips.rs"]
mod skips;
mod tasks;
mod terminals;
mod work;
