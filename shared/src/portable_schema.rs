//! Schemas that Gemini- and OpenAI-backed clients accept: no null unions, no null defaults, no formats of Rust's own,
//! no references where the definition can stand in place.

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool};
use serde_json::{Value, json};

/// Formats that JSON Schema itself defines; everything else (`uint32`, `double` …) confuses clients.
const STANDARD_FORMATS: [&str; 11] = [
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uuid",
    "regex",
];

/// How deep references are followed; what is still a reference then is recursive and becomes a plain object.
const MAX_DEPTH: usize = 16;

/// Cleans both schemas of a tool.
pub fn clean_tool(tool: &mut Tool) {
    tool.input_schema = Arc::new(cleaned(&tool.input_schema));
    tool.output_schema = tool
        .output_schema
        .as_deref()
        .map(|schema| Arc::new(cleaned(schema)));
}

/// A portable schema that accepts what the given one accepts, save for `null` where a field may be left out.
pub fn cleaned(schema: &JsonObject) -> JsonObject {
    let definitions = definitions(schema);
    let mut root = match clean(&Value::Object(schema.clone()), &definitions, 0) {
        Value::Object(root) => root,
        _ => JsonObject::new(),
    };
    for keyword in ["$schema", "$defs", "definitions", "title"] {
        root.remove(keyword);
    }
    root.entry("type").or_insert_with(|| json!("object"));
    root
}

fn definitions(schema: &JsonObject) -> JsonObject {
    ["$defs", "definitions"]
        .iter()
        .filter_map(|keyword| schema.get(*keyword)?.as_object())
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn clean(schema: &Value, definitions: &JsonObject, depth: usize) -> Value {
    let Value::Object(object) = schema else {
        // `true` (anything) is not understood everywhere; an empty schema means the same.
        return if schema == &Value::Bool(true) {
            json!({})
        } else {
            schema.clone()
        };
    };
    if let Some(inlined) = inline(object, definitions, depth) {
        return inlined;
    }
    let mut cleaned = JsonObject::new();
    for (keyword, value) in object {
        match keyword.as_str() {
            "$schema" | "$defs" | "definitions" => {}
            "default" if value.is_null() => {}
            "format"
                if !value
                    .as_str()
                    .is_some_and(|format| STANDARD_FORMATS.contains(&format)) => {}
            "type" => {
                cleaned.insert(keyword.clone(), without_null(value));
            }
            "properties" | "patternProperties" => {
                cleaned.insert(keyword.clone(), clean_each(value, definitions, depth));
            }
            "items" | "additionalProperties" | "not" | "contains" | "propertyNames"
                if value.is_object() =>
            {
                cleaned.insert(keyword.clone(), clean(value, definitions, depth + 1));
            }
            "items" if value == &Value::Bool(true) => {
                cleaned.insert(keyword.clone(), json!({}));
            }
            "enum" => {
                let values = value.as_array().map(|values| {
                    values
                        .iter()
                        .filter(|value| !value.is_null())
                        .cloned()
                        .collect()
                });
                cleaned.insert(keyword.clone(), Value::Array(values.unwrap_or_default()));
            }
            "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                cleaned.insert(keyword.clone(), clean_list(value, definitions, depth));
            }
            _ => {
                cleaned.insert(keyword.clone(), value.clone());
            }
        }
    }
    unwrap_single_choice(&mut cleaned);
    merge_constant_choices(&mut cleaned);
    Value::Object(cleaned)
}

/// The definition a reference names, with the reference's own description winning over the definition's.
fn inline(object: &JsonObject, definitions: &JsonObject, depth: usize) -> Option<Value> {
    let reference = object.get("$ref")?.as_str()?;
    let name = reference
        .strip_prefix("#/$defs/")
        .or_else(|| reference.strip_prefix("#/definitions/"))?;
    let mut target = match definitions.get(name) {
        Some(Value::Object(target)) if depth < MAX_DEPTH => target.clone(),
        _ => JsonObject::from_iter([("type".to_owned(), json!("object"))]),
    };
    target.remove("title");
    for (keyword, value) in object.iter().filter(|(keyword, _)| *keyword != "$ref") {
        target.insert(keyword.clone(), value.clone());
    }
    Some(clean(&Value::Object(target), definitions, depth + 1))
}

fn clean_each(properties: &Value, definitions: &JsonObject, depth: usize) -> Value {
    let Value::Object(properties) = properties else {
        return json!({});
    };
    Value::Object(
        properties
            .iter()
            .map(|(name, schema)| (name.clone(), clean(schema, definitions, depth + 1)))
            .collect(),
    )
}

/// The choices but for `{"type": "null"}`.
fn clean_list(choices: &Value, definitions: &JsonObject, depth: usize) -> Value {
    let choices = choices.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_null = |choice: &Value| {
        choice.get("type") == Some(&json!("null")) || choice.get("const") == Some(&Value::Null)
    };
    Value::Array(
        choices
            .iter()
            .filter(|choice| !is_null(choice))
            .map(|choice| clean(choice, definitions, depth + 1))
            .collect(),
    )
}

fn without_null(types: &Value) -> Value {
    let Value::Array(types) = types else {
        return types.clone();
    };
    let mut kept: Vec<Value> = types
        .iter()
        .filter(|kind| *kind != "null")
        .cloned()
        .collect();
    if kept.len() == 1 {
        kept.remove(0)
    } else {
        Value::Array(kept)
    }
}

/// `anyOf: [X]`, left over from `Option<X>`, becomes X itself.
fn unwrap_single_choice(object: &mut JsonObject) {
    for keyword in ["anyOf", "oneOf", "allOf"] {
        let Some(Value::Array(choices)) = object.get(keyword) else {
            continue;
        };
        let [Value::Object(only)] = choices.as_slice() else {
            continue;
        };
        let only = only.clone();
        object.remove(keyword);
        for (name, value) in only {
            object.entry(name).or_insert(value);
        }
    }
}

/// Documented variants of a plain enum arrive as `oneOf: [{const: "a", description: …}, …]`; an `enum` says the same
/// everywhere, and the descriptions move into the text.
fn merge_constant_choices(object: &mut JsonObject) {
    let Some(Value::Array(choices)) = object.get("oneOf") else {
        return;
    };
    let mut values = Vec::new();
    let mut lines = Vec::new();
    for choice in choices {
        let (constants, described) = (
            constants_of(choice),
            choice.get("description").and_then(Value::as_str),
        );
        let Some(constants) = constants else { return };
        for constant in constants {
            if let (Some(text), Some(name)) = (described, constant.as_str()) {
                lines.push(format!("`{name}`: {text}"));
            }
            values.push(constant);
        }
    }
    if values.is_empty() || !values.iter().all(Value::is_string) {
        return;
    }
    object.remove("oneOf");
    object.insert("type".to_owned(), json!("string"));
    object.insert("enum".to_owned(), Value::Array(values));
    if !lines.is_empty() {
        let before = object
            .get("description")
            .and_then(Value::as_str)
            .map(|text| format!("{text} "))
            .unwrap_or_default();
        object.insert(
            "description".to_owned(),
            json!(format!("{before}{}", lines.join(" "))),
        );
    }
}

fn constants_of(choice: &Value) -> Option<Vec<Value>> {
    match (choice.get("const"), choice.get("enum")) {
        (Some(constant), _) => Some(vec![constant.clone()]),
        (None, Some(Value::Array(values))) => Some(values.clone()),
        _ => None,
    }
}
