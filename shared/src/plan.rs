//! What an approved plan allows: closed argument patterns, and whether a call is covered by them.
//!
//! The plan linter and the registry's decision on every changing call use the same code, so what a human approved is what is
//! let through.

mod argument;
mod coverage;
mod pattern;

pub use argument::ArgumentValue;
pub use coverage::{NotCovered, PatternMismatch, check_patterns, cover};
pub use pattern::{ArgumentPattern, ArgvElement, PatternError};
