//! The tools: those that answer the same always, those that tell something on the way, those that ask.

use std::time::Duration;

use anyhow::Context as _;
use rmcp::{
    ErrorData, RoleServer,
    handler::server::tool::{ToolCallContext, ToolRoute, ToolRouter},
    model::{
        CallToolResponse, CallToolResult, ContentBlock, JsonObject, ProgressNotificationParam, Tool,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use shared::{
    effect::class::EffectClass,
    tools::{ToolEffect, finish},
};

use crate::{Fixture, asking, fixed, result_from_json};

/// Names, and what they are good for.
const TOOLS: [(&str, &str); 25] = [
    ("test_simple_text", "Answers a text."),
    ("test_image_content", "Answers an image."),
    ("test_audio_content", "Answers a sound."),
    ("test_embedded_resource", "Answers a resource."),
    (
        "test_multiple_content_types",
        "Answers a text, an image and a resource.",
    ),
    ("test_error_handling", "Fails."),
    ("test_tool_with_logging", "Logs on the way."),
    ("test_tool_with_progress", "Tells how far it is."),
    (
        "test_logging_tool",
        "Logs nothing, since nobody asked for a level.",
    ),
    ("test_sampling", "Asks the client's model."),
    ("test_elicitation", "Asks the user."),
    (
        "test_elicitation_sep1034_defaults",
        "Asks the user, with defaults.",
    ),
    ("test_elicitation_sep1330_enums", "Asks the user to choose."),
    (
        "test_missing_capability",
        "Needs a client that has a model.",
    ),
    ("test_streaming_elicitation", "Asks the user in the answer."),
    (
        "test_input_required_result_elicitation",
        "Asks the user in the answer.",
    ),
    (
        "test_input_required_result_sampling",
        "Asks the client's model in the answer.",
    ),
    (
        "test_input_required_result_list_roots",
        "Asks for the client's roots in the answer.",
    ),
    (
        "test_input_required_result_request_state",
        "Asks, and remembers by a signed state.",
    ),
    (
        "test_input_required_result_multiple_inputs",
        "Asks for three things at once.",
    ),
    ("test_input_required_result_multi_round", "Asks twice."),
    (
        "test_input_required_result_tampered_state",
        "Refuses a state it did not sign.",
    ),
    (
        "test_input_required_result_capabilities",
        "Asks only for what the client can answer.",
    ),
    ("test_reconnection", "Answers after a while."),
    ("test_echo", "Answers its argument; for measurements."),
];

/// All tools, all of them harmless.
pub(crate) fn router() -> anyhow::Result<ToolRouter<Fixture>> {
    let mut router = ToolRouter::new();
    let mut effects = Vec::new();
    for (name, description) in TOOLS {
        let tool = Tool::new(name, description, schema(name)?);
        router.add_route(ToolRoute::new_dyn(tool, |context| Box::pin(call(context))));
        effects.push(ToolEffect::new(name, description, EffectClass::Read));
    }
    Ok(finish(router, &effects)?)
}

fn schema(name: &str) -> anyhow::Result<JsonObject> {
    let schema = match name {
        "test_sampling" => one_string("prompt"),
        "test_elicitation" => one_string("message"),
        "test_echo" => one_string("text"),
        _ => json!({ "type": "object", "properties": {} }),
    };
    schema.as_object().cloned().context("a schema is an object")
}

fn one_string(name: &str) -> Value {
    json!({ "type": "object", "properties": { name: { "type": "string", "description": "Passed on." } }, "required": [name] })
}

async fn call(call: ToolCallContext<'_, Fixture>) -> Result<CallToolResponse, ErrorData> {
    let name = call.name.clone();
    if let Some(content) = fixed::tool(&name) {
        return result_from_json::<CallToolResult>(json!({ "content": content })).map(Into::into);
    }
    let context = &call.request_context;
    match name.as_ref() {
        "test_error_handling" => {
            let text = "This tool intentionally returns an error for testing";
            Ok(CallToolResult::error(vec![ContentBlock::text(text)]).into())
        }
        "test_tool_with_logging" => {
            log_on_the_way(context).await;
            Ok(said("logged"))
        }
        "test_tool_with_progress" => {
            tell_progress(context).await;
            Ok(said("done"))
        }
        "test_reconnection" => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(said("still here"))
        }
        "test_logging_tool" => Ok(said("nothing was logged")),
        "test_echo" => Ok(said(argument(&call, "text"))),
        _ => asking::call(&name, &call).await,
    }
}

/// A complete answer of one text.
pub(crate) fn said(text: impl Into<String>) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(text)]).into()
}

/// A string argument; empty if it is none.
pub(crate) fn argument(call: &ToolCallContext<'_, Fixture>, name: &str) -> String {
    let argument = call
        .arguments
        .as_ref()
        .and_then(|arguments| arguments.get(name));
    argument
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

const STEP: Duration = Duration::from_millis(50);

#[expect(deprecated, reason = "the suite for the older era tests it")]
async fn log_on_the_way(context: &RequestContext<RoleServer>) {
    use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
    for text in [
        "Tool execution started",
        "Tool processing data",
        "Tool execution completed",
    ] {
        let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(text));
        let _ = context.peer.notify_logging_message(message).await;
        tokio::time::sleep(STEP).await;
    }
}

async fn tell_progress(context: &RequestContext<RoleServer>) {
    for progress in [0.0, 50.0, 100.0] {
        if let Some(token) = context.meta.get_progress_token() {
            let progress = ProgressNotificationParam::new(token, progress).with_total(100.0);
            let _ = context.peer.notify_progress(progress).await;
        }
        tokio::time::sleep(STEP).await;
    }
}
