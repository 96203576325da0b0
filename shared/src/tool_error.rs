//! How a failed call reads to the model: a stable code, what went wrong, and how to mend the call.

use std::{borrow::Cow, fmt};

use rmcp::{
    ErrorData,
    handler::server::tool::IntoCallToolResult,
    model::{CallToolResponse, CallToolResult, ContentBlock},
};
use serde::{Deserialize, Serialize};

/// The codes that every server may answer with; a server adds its own beside its tools.
pub mod code {
    /// The arguments do not fit the tool's schema.
    pub const INVALID_ARGUMENTS: &str = "INVALID_ARGUMENTS";
    /// As many calls as the server allows are running already.
    pub const BUSY: &str = "BUSY";
    /// The call took longer than its deadline and was ended.
    pub const TIMEOUT: &str = "TIMEOUT";
    /// The client, or the end of its connection, cancelled the call.
    pub const CANCELLED: &str = "CANCELLED";
    /// The call cannot be recorded, and the server may not act unrecorded.
    pub const AUDIT_UNAVAILABLE: &str = "AUDIT_UNAVAILABLE";
    /// The result would exceed what one answer may hold.
    pub const RESULT_TOO_LARGE: &str = "RESULT_TOO_LARGE";
    /// Nobody can say who is calling.
    pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
    /// A fault of the server itself; its log has the cause.
    pub const INTERNAL: &str = "INTERNAL";
}

/// A failure that the model reads as `{code, message, hint}` in an `isError` result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolError {
    /// Stable and documented, in capitals: `INPUT_CHANGED`.
    pub code: Cow<'static, str>,
    /// What was wrong, naming the value.
    pub message: String,
    /// What to do now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

    /// A fault of the server: the cause goes to the log, the model only reads that it happened.
    pub fn internal(cause: &dyn fmt::Display) -> Self {
        tracing::error!(%cause, "a call failed inside the server");
        Self::new(
            code::INTERNAL,
            "the server failed inside; its log has the cause",
        )
        .with_hint("try again once; if it fails again, tell the operator")
    }

    /// The result as it goes over the wire: `isError`, the JSON as text, no structured content (clients check that against
    /// the output schema, which describes successes only).
    pub fn to_result(&self) -> CallToolResult {
        let text = serde_json::to_string(self).unwrap_or_else(|_| self.to_string());
        CallToolResult::error(vec![ContentBlock::text(text)])
    }

    /// The error inside a result, if it is one of ours.
    pub fn of_result(result: &CallToolResult) -> Option<Self> {
        if result.is_error != Some(true) {
            return None;
        }
        let [ContentBlock::Text(content)] = result.content.as_slice() else {
            return None;
        };
        serde_json::from_str(&content.text).ok()
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ToolError {}

impl From<ToolError> for CallToolResult {
    fn from(error: ToolError) -> Self {
        error.to_result()
    }
}

impl IntoCallToolResult for ToolError {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        Ok(self.to_result().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reaches_the_model_as_json_text_without_structured_content() -> anyhow::Result<()> {
        let error =
            ToolError::new("NOT_FOUND", "no file `a.txt`").with_hint("list the folder first");
        let wire = serde_json::to_value(error.to_result())?;
        assert_eq!(wire["isError"], true);
        assert!(wire.get("structuredContent").is_none());
        let text = wire["content"][0]["text"].as_str().unwrap_or_default();
        assert_eq!(
            text,
            r#"{"code":"NOT_FOUND","message":"no file `a.txt`","hint":"list the folder first"}"#
        );
        assert_eq!(ToolError::of_result(&error.to_result()), Some(error));
        Ok(())
    }

    #[test]
    fn the_cause_of_an_internal_error_stays_in_the_log() {
        let error = ToolError::internal(&"password=hunter2");
        assert!(!error.to_string().contains("hunter2"));
    }
}
