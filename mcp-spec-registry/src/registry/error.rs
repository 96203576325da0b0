//! Why the registry cannot do what is asked, in words for whoever asked.

use serde::{Deserialize, Serialize};

use crate::{run::RunError, store::StoreError};

/// Why the registry cannot do what is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RegistryError {
    /// Stable code.
    pub code: String,
    /// What was wrong.
    pub message: String,
    /// How to mend it.
    pub hint: String,
}

impl RegistryError {
    /// An error with its code, message and hint.
    pub fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A fault of the registry itself: the cause goes to the log, not to the caller.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "the registry failed");
        Self::new(
            "INTERNAL",
            "the registry failed",
            "the cause is in the registry's log",
        )
    }
}

impl From<RunError> for RegistryError {
    fn from(error: RunError) -> Self {
        Self::new(error.code, error.message, error.hint)
    }
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(what) => Self::new(
                "CONFLICT",
                format!("it changed in between: {what}"),
                "look at it again and decide anew",
            ),
            StoreError::NewerSchema { .. } => {
                Self::new("NEWER_SCHEMA", error.to_string(), "use the newer program")
            }
            error => Self::internal(&error),
        }
    }
}
