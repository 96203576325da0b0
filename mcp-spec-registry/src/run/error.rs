//! Why a run cannot do what is asked, each with a stable code and the way to mend it.

use super::RunState;

/// Why a run cannot do what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RunError {
    /// Stable code, such as `STALE_EPOCH`.
    pub code: &'static str,
    /// What was wrong.
    pub message: String,
    /// How to mend it.
    pub hint: String,
}

impl RunError {
    /// An error with its code, message and hint.
    pub fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn wrong_state(run_id: &str, state: RunState, wanted: &str) -> Self {
        Self::new(
            "WRONG_STATE",
            format!("run {run_id} is {state}; this works only when it is {wanted}"),
            "call run_get to see what comes next",
        )
    }
}
