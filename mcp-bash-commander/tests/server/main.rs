//! The server as a client meets it: the real program, JSON-RPC lines over stdio.

mod client;
mod commands;
mod enforced;
mod files;
mod refusals;
mod sessions;
