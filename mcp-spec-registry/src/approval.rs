//! The approval plane: where humans, and only humans, see what is asked and decide it.

pub mod code;
pub mod secret;
pub mod view;
