//! The approval plane: where humans, and only humans, see what is asked and decide it.

pub mod api;
mod attempt;
pub mod cli;
pub mod code;
#[cfg(test)]
mod fixture;
pub mod page;
pub mod secret;
mod session;
mod throttle;
pub mod view;
