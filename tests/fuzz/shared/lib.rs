//! The parts of the crate `shared` that fuzz targets reach, from the same files.
//!
//! The crate itself would bring an HTTP server and a TLS library, which take minutes to build with coverage counters.

#[path = "../../../shared/src"]
mod sources {
    pub mod digest;
    pub mod plan;
}

pub use sources::{digest, plan};

/// Stands in for the failure that a tool answers with, whose own file needs the protocol library.
pub mod tool_error {
    use std::borrow::Cow;

    /// Codes of failures.
    pub mod code {
        /// The arguments do not fit the tool's schema.
        pub const INVALID_ARGUMENTS: &str = "INVALID_ARGUMENTS";
    }

    /// A failure that the model reads.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ToolError {
        /// Stable, in capitals.
        pub code: Cow<'static, str>,
        /// What was wrong.
        pub message: String,
        /// What to do now.
        pub hint: Option<String>,
    }

    impl ToolError {
        /// A failure without a hint.
        pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
            Self {
                code: code.into(),
                message: message.into(),
                hint: None,
            }
        }

        /// The same failure with advice what to do.
        #[must_use]
        pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
            self.hint = Some(hint.into());
            self
        }
    }
}
