//! Tools that need something of the client: asked for over the connection in the older era, in the answer since 2026-07-28.

use rmcp::{
    ErrorData,
    handler::server::tool::ToolCallContext,
    model::{
        CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, ElicitRequestParams,
        GetPromptResponse, GetPromptResult, InputRequests, InputRequiredResult, InputResponses,
        SealOptions,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    Fixture, from_json, internal, result_from_json,
    tools::{argument, said},
};

/// The prompt that asks for something first.
pub(crate) const PROMPT: &str = "test_input_required_result_prompt";

/// A call of a tool that asks.
pub(crate) async fn call(
    name: &str,
    call: &ToolCallContext<'_, Fixture>,
) -> Result<CallToolResponse, ErrorData> {
    match name {
        "test_sampling" => sample(call).await,
        "test_elicitation" => {
            elicit(
                call,
                "User response",
                argument(call, "message"),
                user_schema(),
            )
            .await
        }
        "test_elicitation_sep1034_defaults" => {
            elicit(
                call,
                "Elicitation completed",
                "Check the defaults".to_owned(),
                defaults_schema(),
            )
            .await
        }
        "test_elicitation_sep1330_enums" => {
            elicit(
                call,
                "Elicitation completed",
                "Choose".to_owned(),
                enums_schema(),
            )
            .await
        }
        "test_missing_capability" => missing_capability(call),
        "test_input_required_result_capabilities" => ask(&possible(call), None),
        _ => in_the_answer(name, call),
    }
}

/// The prompt that asks for its context.
pub(crate) fn prompt(responses: Option<&InputResponses>) -> Result<GetPromptResponse, ErrorData> {
    let Some(context) = form_value(responses, "user_context", "context") else {
        let request = form("What context should the prompt use?", "context", "string");
        return input_required(&json!({ "user_context": request }), None).map(Into::into);
    };
    let message = json!({ "role": "user", "content": { "type": "text", "text": format!("In the context of {context}") } });
    result_from_json::<GetPromptResult>(json!({ "messages": [message] })).map(Into::into)
}

#[expect(deprecated, reason = "the suite for the older era tests it")]
async fn sample(call: &ToolCallContext<'_, Fixture>) -> Result<CallToolResponse, ErrorData> {
    let parameters = from_json(sampling_parameters(&argument(call, "prompt"), 100))?;
    match call.request_context.peer.create_message(parameters).await {
        Ok(answer) => {
            let answer = serde_json::to_value(answer).map_err(internal)?;
            Ok(said(format!("LLM response: {}", sampled_text(&answer))))
        }
        Err(error) => Ok(CallToolResult::error(vec![ContentBlock::text(error.to_string())]).into()),
    }
}

async fn elicit(
    call: &ToolCallContext<'_, Fixture>,
    label: &str,
    message: String,
    schema: Value,
) -> Result<CallToolResponse, ErrorData> {
    let parameters = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message,
        requested_schema: from_json(schema)?,
    };
    match call
        .request_context
        .peer
        .create_elicitation(parameters)
        .await
    {
        Ok(answer) => {
            let answer = serde_json::to_value(answer).map_err(internal)?;
            let action = answer["action"].as_str().unwrap_or_default();
            Ok(said(format!(
                "{label}: action={action}, content={}",
                answer["content"]
            )))
        }
        Err(error) => Ok(CallToolResult::error(vec![ContentBlock::text(error.to_string())]).into()),
    }
}

fn missing_capability(call: &ToolCallContext<'_, Fixture>) -> Result<CallToolResponse, ErrorData> {
    let declared = call.request_context.client_capabilities();
    if declared.is_some_and(|capabilities| capabilities.sampling.is_some()) {
        return Ok(said("the client has a model"));
    }
    let required: ClientCapabilities = from_json(json!({ "sampling": {} }))?;
    Err(ErrorData::missing_required_client_capability(required))
}

/// Questions for whatever the client said it can answer.
fn possible(call: &ToolCallContext<'_, Fixture>) -> Value {
    let capabilities = call.request_context.client_capabilities();
    let capabilities = serde_json::to_value(capabilities).unwrap_or_default();
    let questions = [
        (
            "elicitation",
            "user_name",
            form("What is your name?", "name", "string"),
        ),
        ("sampling", "greeting", sampling("Generate a greeting", 50)),
        ("roots", "client_roots", roots()),
    ];
    let asked = questions
        .into_iter()
        .filter(|(capability, ..)| capabilities[*capability].is_object());
    Value::Object(
        asked
            .map(|(_, key, question)| (key.to_owned(), question))
            .collect::<Map<_, _>>(),
    )
}

/// The tools of 2026-07-28: they ask until they have what they need.
fn in_the_answer(
    name: &str,
    call: &ToolCallContext<'_, Fixture>,
) -> Result<CallToolResponse, ErrorData> {
    let responses = call.input_responses.as_ref();
    let codec = &call.service.states;
    let seal = |round: &str| {
        codec.seal_with(
            round.as_bytes(),
            &SealOptions::new().associated_data(name.as_bytes()),
        )
    };
    let round = match &call.request_state {
        None => String::new(),
        Some(state) => {
            let opened = codec.open_with(state, name.as_bytes());
            let opened = opened.map_err(|_| {
                ErrorData::invalid_params("requestState was not made by this server", None)
            })?;
            String::from_utf8(opened).map_err(internal)?
        }
    };
    match (name, round.as_str()) {
        ("test_input_required_result_elicitation" | "test_streaming_elicitation", _) => {
            match form_value(responses, "user_name", "name") {
                Some(name) => Ok(said(format!("Hello, {name}!"))),
                None => ask(
                    &json!({ "user_name": form("What is your name?", "name", "string") }),
                    None,
                ),
            }
        }
        ("test_input_required_result_sampling", _) => match response(responses, "capital_question")
        {
            Some(answer) => Ok(said(sampled_text(answer))),
            None => ask(
                &json!({ "capital_question": sampling("What is the capital of France?", 100) }),
                None,
            ),
        },
        ("test_input_required_result_list_roots", _) => {
            match response(responses, "client_roots").filter(|answer| answer["roots"].is_array()) {
                Some(answer) => Ok(said(format!("Roots: {}", answer["roots"]))),
                None => ask(&json!({ "client_roots": roots() }), None),
            }
        }
        (
            "test_input_required_result_request_state"
            | "test_input_required_result_tampered_state",
            "confirm",
        ) if response(responses, "confirm").is_some() => Ok(said("state-ok")),
        (
            "test_input_required_result_request_state"
            | "test_input_required_result_tampered_state",
            _,
        ) => ask(
            &json!({ "confirm": form("Please confirm", "ok", "boolean") }),
            Some(seal("confirm")),
        ),
        ("test_input_required_result_multiple_inputs", "three")
            if ["user_name", "greeting", "client_roots"]
                .iter()
                .all(|key| response(responses, key).is_some()) =>
        {
            Ok(said("all three arrived"))
        }
        ("test_input_required_result_multiple_inputs", _) => ask(
            &json!({
                "user_name": form("What is your name?", "name", "string"),
                "greeting": sampling("Generate a greeting", 50),
                "client_roots": roots(),
            }),
            Some(seal("three")),
        ),
        ("test_input_required_result_multi_round", "two")
            if response(responses, "step2").is_some() =>
        {
            Ok(said("both steps are done"))
        }
        ("test_input_required_result_multi_round", "one" | "two") if !round.is_empty() => {
            let question = form("Step 2: What is your favorite color?", "color", "string");
            ask(&json!({ "step2": question }), Some(seal("two")))
        }
        ("test_input_required_result_multi_round", _) => ask(
            &json!({ "step1": form("Step 1: What is your name?", "name", "string") }),
            Some(seal("one")),
        ),
        _ => Err(ErrorData::invalid_params(format!("no tool `{name}`"), None)),
    }
}

fn response<'a>(responses: Option<&'a InputResponses>, key: &str) -> Option<&'a Value> {
    responses?.get(key).filter(|response| response.is_object())
}

/// A string that the user put into a form and accepted.
fn form_value(responses: Option<&InputResponses>, key: &str, field: &str) -> Option<String> {
    let response = response(responses, key).filter(|response| response["action"] == "accept")?;
    response["content"][field].as_str().map(str::to_owned)
}

fn sampled_text(answer: &Value) -> String {
    let content = &answer["content"];
    let text = content["text"]
        .as_str()
        .or_else(|| content[0]["text"].as_str());
    text.unwrap_or("(no text)").to_owned()
}

fn ask(requests: &Value, state: Option<String>) -> Result<CallToolResponse, ErrorData> {
    input_required(requests, state).map(Into::into)
}

fn input_required(
    requests: &Value,
    state: Option<String>,
) -> Result<InputRequiredResult, ErrorData> {
    let requests: InputRequests = from_json(requests.clone())?;
    Ok(InputRequiredResult::new(Some(requests), state))
}

fn form(message: &str, field: &str, kind: &str) -> Value {
    let schema =
        json!({ "type": "object", "properties": { field: { "type": kind } }, "required": [field] });
    json!({ "method": "elicitation/create", "params": { "message": message, "requestedSchema": schema } })
}

fn sampling_parameters(text: &str, tokens: u32) -> Value {
    json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": text } }], "maxTokens": tokens })
}

fn sampling(text: &str, tokens: u32) -> Value {
    json!({ "method": "sampling/createMessage", "params": sampling_parameters(text, tokens) })
}

fn roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}

fn user_schema() -> Value {
    json!({ "type": "object", "required": ["username", "email"], "properties": {
        "username": { "type": "string", "description": "User's response" },
        "email": { "type": "string", "description": "User's email address" },
    } })
}

fn defaults_schema() -> Value {
    json!({ "type": "object", "properties": {
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
        "verified": { "type": "boolean", "default": true },
    } })
}

fn enums_schema() -> Value {
    let plain = json!(["option1", "option2", "option3"]);
    let titled: Vec<Value> = [
        ("value1", "First"),
        ("value2", "Second"),
        ("value3", "Third"),
    ]
    .map(|(value, title)| json!({ "const": value, "title": format!("{title} Option") }))
    .to_vec();
    json!({ "type": "object", "properties": {
        "untitledSingle": { "type": "string", "enum": plain },
        "titledSingle": { "type": "string", "oneOf": titled },
        "legacyEnum": { "type": "string", "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"] },
        "untitledMulti": { "type": "array", "items": { "type": "string", "enum": plain } },
        "titledMulti": { "type": "array", "items": { "anyOf": titled } },
    } })
}
