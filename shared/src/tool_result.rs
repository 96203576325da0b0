//! What a successful call answers: structured content for machines and a short text of the same facts for models.

use std::borrow::Cow;

use rmcp::{
    ErrorData,
    handler::server::tool::IntoCallToolResult,
    model::{CallToolResponse, CallToolResult, ContentBlock},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

/// A result with its short text. The `#[tool]` macro recognises the name `Json` in a return type and derives the
/// tool's output schema from `T`, which must serialise to an object.
#[derive(Debug, Clone)]
pub struct Json<T> {
    result: T,
    text: String,
}

/// A result as structured content, and `text` as what a model reads: a sentence or a short table, never the data again.
pub fn structured<T>(result: T, text: impl Into<String>) -> Json<T> {
    Json {
        result,
        text: text.into(),
    }
}

impl<T: JsonSchema> JsonSchema for Json<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: Serialize> IntoCallToolResult for Json<T> {
    fn into_call_tool_result(self) -> Result<CallToolResponse, ErrorData> {
        let structured = serde_json::to_value(&self.result).map_err(|error| {
            ErrorData::internal_error(format!("the result is no JSON: {error}"), None)
        })?;
        if !structured.is_object() {
            return Err(ErrorData::internal_error(
                "the result is not an object",
                None,
            ));
        }
        let mut result = CallToolResult::success(vec![ContentBlock::text(self.text)]);
        result.structured_content = Some(structured);
        Ok(result.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_carries_the_data_once_and_the_text_beside_it() -> anyhow::Result<()> {
        let response =
            structured(json!({"files": ["a", "b"]}), "2 files").into_call_tool_result()?;
        let CallToolResponse::Complete(result) = response else {
            anyhow::bail!("not complete")
        };
        let wire = serde_json::to_value(result)?;
        assert_eq!(wire["structuredContent"], json!({"files": ["a", "b"]}));
        assert_eq!(
            wire["content"],
            json!([{"type": "text", "text": "2 files"}])
        );
        Ok(())
    }

    #[test]
    fn a_result_that_is_no_object_is_refused() {
        assert!(structured([1, 2], "two").into_call_tool_result().is_err());
    }
}
