//! The effect plane: how a server asks the registry before it changes anything, and tells it what was done.

pub mod action;
pub mod args;
pub mod class;
pub mod client;
pub mod protocol;
