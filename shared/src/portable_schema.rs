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

/// Cleans both schemas of a tool. Of results only the names of fields are listed: clients rarely show more to models, and every word
/// costs in every list.
pub fn clean_tool(tool: &mut Tool) {
    tool.input_schema = Arc::new(cleaned(&tool.input_schema));
    tool.output_schema = tool.output_schema.as_deref().map(|schema| {
        let mut shape = Value::Object(cleaned(schema));
        reduce_to_shape(&mut shape);
        match shape {
            Value::Object(shape) => Arc::new(shape),
            _ => Arc::default(),
        }
    });
}

/// Leaves out of a tool's arguments what costs in every list and tells a model nothing: bounds, since what is beyond them is refused with
/// words of its own, and defaults that are nothing.
pub fn shorten(tool: &mut Tool) {
    let mut schema = Value::Object(JsonObject::clone(&tool.input_schema));
    drop_the_obvious(&mut schema);
    if let Value::Object(schema) = schema {
        tool.input_schema = Arc::new(schema);
    }
}

fn drop_the_obvious(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.retain(|keyword, value| match keyword.as_str() {
        "minimum" | "maximum" => !value.is_u64(),
        "default" => !is_nothing(value),
        // Unknown arguments are refused with words as well.
        "additionalProperties" => !value.is_boolean(),
        _ => true,
    });
    for keyword in ["properties", "items"] {
        match (keyword, object.get_mut(keyword)) {
            ("properties", Some(Value::Object(properties))) => {
                properties.values_mut().for_each(drop_the_obvious);
            }
            (_, Some(items)) => drop_the_obvious(items),
            (_, None) => {}
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Null => false,
    }
}

/// Leaves the names of a result's fields.
fn reduce_to_shape(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.retain(|keyword, _| matches!(keyword.as_str(), "type" | "properties"));
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|field| *field = json!({}));
    }
}

/// A portable schema that accepts what the given one accepts, save for `null` where a field may be left out.
pub fn cleaned(schema: &JsonObject) -> JsonObject {
    let definitions = definitions(schema);
    let mut root = match clean(
        &Value::Object(schema.clone()),
        &definitions,
        &mut Vec::new(),
    ) {
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

fn clean(schema: &Value, definitions: &JsonObject, within: &mut Vec<String>) -> Value {
    let Value::Object(object) = schema else {
        // `true` (anything) is not understood everywhere; an empty schema means the same.
        return if schema == &Value::Bool(true) {
            json!({})
        } else {
            schema.clone()
        };
    };
    if let Some(inlined) = inline(object, definitions, within) {
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
                cleaned.insert(keyword.clone(), clean_each(value, definitions, within));
            }
            "items" | "additionalProperties" | "not" | "contains" | "propertyNames"
                if value.is_object() =>
            {
                let mut inner = clean(value, definitions, within);
                // What the list is for says what its entries are.
                if let (Some(inner), true) =
                    (inner.as_object_mut(), object.contains_key("description"))
                {
                    inner.remove("description");
                }
                cleaned.insert(keyword.clone(), inner);
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
            // Clients know `anyOf`; the variants of our types exclude each other anyway.
            "oneOf" => {
                cleaned.insert("anyOf".to_owned(), clean_list(value, definitions, within));
            }
            "const" if value.is_string() => {
                cleaned.insert("type".to_owned(), json!("string"));
                cleaned.insert("enum".to_owned(), json!([value]));
            }
            "anyOf" | "allOf" | "prefixItems" => {
                cleaned.insert(keyword.clone(), clean_list(value, definitions, within));
            }
            _ => {
                cleaned.insert(keyword.clone(), value.clone());
            }
        }
    }
    drop_repeated_description(&mut cleaned);
    unwrap_single_choice(&mut cleaned);
    merge_constant_choices(&mut cleaned);
    Value::Object(cleaned)
}

/// The definition a reference names, with the reference's own description winning over the definition's. A definition
/// within itself becomes a plain object.
fn inline(
    object: &JsonObject,
    definitions: &JsonObject,
    within: &mut Vec<String>,
) -> Option<Value> {
    let reference = object.get("$ref")?.as_str()?;
    let name = reference
        .trim_start_matches("#/$defs/")
        .trim_start_matches("#/definitions/");
    let mut target = match definitions.get(name) {
        Some(Value::Object(target)) if !within.iter().any(|outer| outer == name) => target.clone(),
        _ => JsonObject::from_iter([("type".to_owned(), json!("object"))]),
    };
    target.remove("title");
    for (keyword, value) in object.iter().filter(|(keyword, _)| *keyword != "$ref") {
        target.insert(keyword.clone(), value.clone());
    }
    within.push(name.to_owned());
    let inlined = clean(&Value::Object(target), definitions, within);
    within.pop();
    Some(inlined)
}

fn clean_each(properties: &Value, definitions: &JsonObject, within: &mut Vec<String>) -> Value {
    let Value::Object(properties) = properties else {
        return json!({});
    };
    Value::Object(
        properties
            .iter()
            .map(|(name, schema)| (name.clone(), clean(schema, definitions, within)))
            .collect(),
    )
}

/// The choices but for `{"type": "null"}`.
fn clean_list(choices: &Value, definitions: &JsonObject, within: &mut Vec<String>) -> Value {
    let choices = choices.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_null = |choice: &Value| {
        choice.get("type") == Some(&json!("null")) || choice.get("const") == Some(&Value::Null)
    };
    Value::Array(
        choices
            .iter()
            .filter(|choice| !is_null(choice))
            .map(|choice| clean(choice, definitions, within))
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

/// A choice by name, `{"name": {…}}`, is described twice: as the choice and as what it holds.
fn drop_repeated_description(object: &mut JsonObject) {
    if !object.contains_key("description") {
        return;
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties")
        && properties.len() == 1
    {
        for held in properties.values_mut().filter_map(Value::as_object_mut) {
            if held.get("type") == Some(&json!("object")) {
                held.remove("description");
            }
        }
    }
}

/// `anyOf: [X]`, left over from `Option<X>`, becomes X itself.
fn unwrap_single_choice(object: &mut JsonObject) {
    for keyword in ["anyOf", "allOf"] {
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

/// Documented variants of a plain enum arrive as choices `[{const: "a", description: …}, …]`; an `enum` says the same
/// everywhere, and the descriptions move into the text.
fn merge_constant_choices(object: &mut JsonObject) {
    let Some(Value::Array(choices)) = object.get("anyOf") else {
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
    object.remove("anyOf");
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
    choice.get("enum")?.as_array().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::handler::server::tool::{schema_for_input, schema_for_output};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;

    /// How a call ends.
    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Wait {
        /// Wait for the end.
        Exit,
        /// Do not wait.
        None,
    }

    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Limits {
        seconds: Option<f64>,
    }

    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        /// The command.
        command: String,
        /// Largest number of lines.
        #[serde(default)]
        max_lines: Option<u32>,
        ports: Option<Vec<u16>>,
        environment: BTreeMap<String, Option<String>>,
        wait: Option<Wait>,
        /// What it may take.
        limits: Option<Limits>,
        anything: serde_json::Value,
        choice: Choice,
    }

    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Exact(u64),
        OneOf(Vec<String>),
    }

    #[derive(Debug, Serialize, JsonSchema)]
    struct Tree {
        children: Vec<Tree>,
    }

    fn cleaned_input<T: JsonSchema + 'static>() -> anyhow::Result<Value> {
        Ok(Value::Object(cleaned(
            schema_for_input::<T>()
                .map_err(anyhow::Error::msg)?
                .as_ref(),
        )))
    }

    #[test]
    fn optional_arguments_are_simply_not_required() -> anyhow::Result<()> {
        let schema = cleaned_input::<Arguments>()?;
        let property = |name: &str| schema["properties"][name].clone();
        assert_eq!(
            property("max_lines"),
            json!({"type": "integer", "minimum": 0, "description": "Largest number of lines."})
        );
        assert_eq!(
            property("ports"),
            json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 65535}})
        );
        assert_eq!(
            property("environment"),
            json!({"type": "object", "additionalProperties": {"type": "string"}})
        );
        assert_eq!(
            schema["required"],
            json!(["command", "environment", "anything", "choice"])
        );
        assert_eq!(schema["additionalProperties"], false);
        Ok(())
    }

    #[test]
    fn definitions_stand_in_place_and_keep_the_description_of_the_argument() -> anyhow::Result<()> {
        let schema = cleaned_input::<Arguments>()?;
        let limits = &schema["properties"]["limits"];
        assert_eq!(limits["description"], "What it may take.");
        assert_eq!(limits["properties"]["seconds"], json!({"type": "number"}));
        assert_eq!(limits["additionalProperties"], false);
        Ok(())
    }

    #[test]
    fn documented_variants_become_an_enum_whose_description_tells_them_apart() -> anyhow::Result<()>
    {
        let schema = cleaned_input::<Arguments>()?;
        let wait = &schema["properties"]["wait"];
        assert_eq!(wait["type"], "string");
        assert_eq!(wait["enum"], json!(["exit", "none"]));
        let description = wait["description"].as_str().unwrap_or_default();
        assert!(
            description.contains("`exit`: Wait for the end.")
                && description.contains("`none`: Do not wait."),
            "{description}"
        );
        Ok(())
    }

    #[test]
    fn nothing_that_trips_a_client_is_left_anywhere() -> anyhow::Result<()> {
        let output = Value::Object(cleaned(&schema_for_output::<Tree>()));
        for schema in [cleaned_input::<Arguments>()?, output] {
            let text = schema.to_string();
            for trap in [
                "null", "$ref", "$defs", "$schema", "oneOf", "const", "uint", "int64", "double",
                "float",
            ] {
                assert!(!text.contains(trap), "{trap} in {text}");
            }
            assert_eq!(schema["type"], "object");
        }
        Ok(())
    }

    #[test]
    fn a_recursive_type_ends_in_a_plain_object() {
        let tree = Value::Object(cleaned(&schema_for_output::<Tree>()));
        assert_eq!(
            tree["properties"]["children"],
            json!({
                "type": "array",
                "items": {"type": "object"},
            })
        );
    }

    #[test]
    fn a_property_may_be_called_like_a_keyword() {
        let schema = json!({"type": "object", "properties": {
            "format": {"type": ["string", "null"], "format": "uint8", "default": null},
            "default": {"type": "string", "format": "date-time", "default": "now"},
            "$ref": {"type": "boolean"},
        }});
        let Value::Object(schema) = schema else {
            return;
        };
        assert_eq!(
            Value::Object(cleaned(&schema))["properties"],
            json!({
                "format": {"type": "string"},
                "default": {"type": "string", "format": "date-time", "default": "now"},
                "$ref": {"type": "boolean"},
            })
        );
    }

    #[test]
    fn cleaning_twice_changes_nothing() -> anyhow::Result<()> {
        let once = schema_for_input::<Arguments>()
            .map(|schema| cleaned(&schema))
            .map_err(anyhow::Error::msg)?;
        assert_eq!(cleaned(&once), once);
        Ok(())
    }
}
