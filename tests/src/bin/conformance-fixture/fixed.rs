//! What the suite expects word for word.

use serde_json::{Value, json};

/// A PNG of one red pixel.
const IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg==";
/// A WAV without a sample.
const SOUND: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn image() -> Value {
    json!({ "type": "image", "data": IMAGE, "mimeType": "image/png" })
}

fn embedded(uri: &str, mime_type: &str, text: &str) -> Value {
    json!({ "type": "resource", "resource": { "uri": uri, "mimeType": mime_type, "text": text } })
}

/// The content of a tool that always answers the same.
pub(crate) fn tool(name: &str) -> Option<Value> {
    Some(match name {
        "test_simple_text" => json!([text("This is a simple text response for testing.")]),
        "test_image_content" => json!([image()]),
        "test_audio_content" => {
            json!([{ "type": "audio", "data": SOUND, "mimeType": "audio/wav" }])
        }
        "test_embedded_resource" => {
            json!([embedded(
                "test://embedded-resource",
                "text/plain",
                "This is an embedded resource content."
            )])
        }
        "test_multiple_content_types" => json!([
            text("Multiple content types test:"),
            image(),
            embedded(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#
            ),
        ]),
        _ => return None,
    })
}

/// The answer to `prompts/list`.
pub(crate) fn prompts() -> Value {
    let argument = |name: &str| json!({ "name": name, "description": "Goes into the text.", "required": true });
    json!({ "prompts": [
        { "name": "test_simple_prompt", "description": "One message." },
        { "name": "test_prompt_with_arguments", "description": "One message with two arguments.",
            "arguments": [argument("arg1"), argument("arg2")] },
        { "name": "test_prompt_with_embedded_resource", "description": "A message with a resource in it.",
            "arguments": [argument("resourceUri")] },
        { "name": "test_prompt_with_image", "description": "A message with an image in it." },
        { "name": super::asking::PROMPT, "description": "Asks for something first." },
    ] })
}

/// The messages of a prompt.
pub(crate) fn prompt(name: &str, arguments: &Value) -> Option<Value> {
    let user = |content: Value| json!({ "role": "user", "content": content });
    let argument = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
    Some(match name {
        "test_simple_prompt" => json!([user(text("This is a simple prompt for testing."))]),
        "test_prompt_with_arguments" => {
            let both = format!(
                "Prompt with arguments: arg1='{}', arg2='{}'",
                argument("arg1"),
                argument("arg2")
            );
            json!([user(text(&both))])
        }
        "test_prompt_with_embedded_resource" => json!([
            user(embedded(
                &argument("resourceUri"),
                "text/plain",
                "Embedded resource content for testing."
            )),
            user(text("Please process the embedded resource above.")),
        ]),
        "test_prompt_with_image" => {
            json!([user(image()), user(text("Please analyze the image above."))])
        }
        _ => return None,
    })
}

/// The answer to `resources/list`.
pub(crate) fn resources() -> Value {
    json!({ "resources": [
        { "uri": "test://static-text", "name": "text", "description": "A text.", "mimeType": "text/plain" },
        { "uri": "test://static-binary", "name": "image", "description": "An image.", "mimeType": "image/png" },
        { "uri": "test://watched-resource", "name": "watched", "description": "A text to watch.", "mimeType": "text/plain" },
    ] })
}

/// The answer to `resources/templates/list`.
pub(crate) fn resource_templates() -> Value {
    json!({ "resourceTemplates": [
        { "uriTemplate": "test://template/{id}/data", "name": "data", "description": "Data by id.", "mimeType": "application/json" },
    ] })
}

/// The contents of a resource.
pub(crate) fn resource(uri: &str) -> Option<Value> {
    Some(match uri {
        "test://static-text" => {
            json!({ "uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource." })
        }
        "test://static-binary" => json!({ "uri": uri, "mimeType": "image/png", "blob": IMAGE }),
        "test://watched-resource" => {
            json!({ "uri": uri, "mimeType": "text/plain", "text": "Nothing happens here." })
        }
        _ => {
            let id = uri
                .strip_prefix("test://template/")?
                .strip_suffix("/data")?;
            let data =
                json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            json!({ "uri": uri, "mimeType": "application/json", "text": data.to_string() })
        }
    })
}
