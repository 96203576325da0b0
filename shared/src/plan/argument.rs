//! An argument of a call as it travels to the registry: its value, or the digest of a long one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;

/// Strings longer than this travel as digest and length.
const LONGEST_INLINE_BYTES: usize = 1024;

/// An argument of a call: inline, or, for a long string, its digest and length.
///
/// The two forms are tagged, so that no argument a caller chooses can be mistaken for a digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ArgumentValue {
    /// The value itself.
    Value(Value),
    /// The digest and length of a long string's UTF-8 bytes.
    Hashed {
        /// SHA-256 of the bytes.
        sha256: Digest,
        /// Number of bytes.
        length: u64,
    },
}

impl ArgumentValue {
    /// Wraps a value, replacing a long string by its digest.
    pub fn of(value: Value) -> Self {
        match value {
            Value::String(text) if text.len() > LONGEST_INLINE_BYTES => Self::Hashed {
                sha256: Digest::of(&text),
                length: text.len() as u64,
            },
            value => Self::Value(value),
        }
    }
}
