//! The list of all tools.

mod error;
