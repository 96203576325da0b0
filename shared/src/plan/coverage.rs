//! Decides whether the arguments of a call lie inside the patterns of an approved step.

use std::{cmp::Ordering, collections::BTreeMap};

use serde_json::{Map, Number, Value};

use super::{ArgumentPattern, ArgumentValue, ArgvElement};
use crate::digest::Digest;

/// The first argument that an approved step does not cover, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("argument `{argument}` {reason}")]
pub struct NotCovered {
    /// Name of the argument.
    pub argument: String,
    /// What the step allows instead.
    pub reason: &'static str,
}

/// A pattern that does not fit the tool it is written for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternMismatch {
    /// The tool has no such argument.
    #[error("the tool has no argument `{0}`; it takes {1}")]
    UnknownArgument(String, String),
    /// The tool needs an argument that the step does not name.
    #[error("the tool requires `{0}`; name it in the step")]
    MissingArgument(String),
    /// `path_under` for something that is no path.
    #[error(
        "`path_under` is for arguments that are paths, and `{0}` is none; write `exact` or `one_of`"
    )]
    NotAPath(String),
    /// A value that the tool would refuse.
    #[error("`{argument}` would be refused by the tool: it takes {takes}")]
    WrongType {
        /// Name of the argument.
        argument: String,
        /// JSON type of the tool's schema.
        takes: String,
    },
}

/// Whether a call with these typed, defaulted arguments lies inside the patterns of a step.
///
/// An argument that the step does not name must be absent or at the default of the tool's JSON schema; one that it names and
/// the call leaves out counts as its default.
///
/// # Errors
/// [`NotCovered`] names the first argument outside, in alphabetical order.
pub fn cover(
    schema: &Value,
    patterns: &BTreeMap<String, ArgumentPattern>,
    arguments: &BTreeMap<String, ArgumentValue>,
) -> Result<(), NotCovered> {
    let properties = properties(schema);
    for (name, value) in arguments {
        let refuse = |reason| NotCovered {
            argument: name.clone(),
            reason,
        };
        let Some(property) = properties.get(name) else {
            return Err(refuse("is not known to the tool"));
        };
        if is_absent(value) || patterns.contains_key(name) {
            continue;
        }
        let at_default = property
            .get("default")
            .is_some_and(|default| is_exactly(value, default));
        if !at_default {
            return Err(refuse(
                "is not in the approved step, so it must be absent or at its default",
            ));
        }
    }
    for (name, pattern) in patterns {
        let default = properties
            .get(name)
            .and_then(|property| property.get("default"));
        let given = arguments.get(name).filter(|value| !is_absent(value));
        let value = match (given, default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => ArgumentValue::Value(default.clone()),
            (None, None) => ArgumentValue::Value(Value::Null),
        };
        matches(pattern, &value).map_err(|reason| NotCovered {
            argument: name.clone(),
            reason,
        })?;
    }
    Ok(())
}

/// Whether the patterns name arguments that the tool has, with values it could take.
///
/// # Errors
/// [`PatternMismatch`] for the first pattern that could never match a valid call.
pub fn check_patterns(
    schema: &Value,
    patterns: &BTreeMap<String, ArgumentPattern>,
) -> Result<(), PatternMismatch> {
    let properties = properties(schema);
    for (name, pattern) in patterns {
        let Some(property) = properties.get(name) else {
            let known = properties
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            return Err(PatternMismatch::UnknownArgument(name.clone(), known));
        };
        let Some(takes) = property.get("type").and_then(Value::as_str) else {
            continue;
        };
        let fits = match pattern {
            ArgumentPattern::Exact(value) => has_type(value, takes),
            ArgumentPattern::OneOf(values) => values.iter().all(|value| has_type(value, takes)),
            ArgumentPattern::Range { .. } => matches!(takes, "number" | "integer"),
            ArgumentPattern::PathUnder(_) | ArgumentPattern::Sha256 { .. } => takes == "string",
            ArgumentPattern::Argv(_) => takes == "array",
            ArgumentPattern::Any => true,
        };
        if matches!(pattern, ArgumentPattern::PathUnder(_)) && !is_path_argument(name) {
            return Err(PatternMismatch::NotAPath(name.clone()));
        }
        if !fits {
            return Err(PatternMismatch::WrongType {
                argument: name.clone(),
                takes: takes.to_owned(),
            });
        }
    }
    let required = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    match required
        .filter_map(Value::as_str)
        .find(|name| !patterns.contains_key(*name))
    {
        Some(name) => Err(PatternMismatch::MissingArgument(name.to_owned())),
        None => Ok(()),
    }
}

/// By the names of our tools: a shell string that begins like a path may go on with anything.
fn is_path_argument(name: &str) -> bool {
    matches!(name, "path" | "cwd") || name.ends_with("_path")
}

fn properties(schema: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&NONE)
}

fn is_absent(value: &ArgumentValue) -> bool {
    matches!(value, ArgumentValue::Value(Value::Null))
}

fn matches(pattern: &ArgumentPattern, value: &ArgumentValue) -> Result<(), &'static str> {
    let (fits, reason) = match pattern {
        ArgumentPattern::Any => return Ok(()),
        ArgumentPattern::Exact(expected) => (
            is_exactly(value, expected),
            "differs from the approved value",
        ),
        ArgumentPattern::OneOf(values) => (
            values.iter().any(|expected| is_exactly(value, expected)),
            "is none of the approved values",
        ),
        ArgumentPattern::Sha256 { sha256, .. } => (
            has_digest(value, sha256),
            "is not the approved content: its SHA-256 differs",
        ),
        ArgumentPattern::Range { minimum, maximum } => (
            inline(value).and_then(as_number).is_some_and(|number| {
                minimum.as_ref().is_none_or(|low| at_most(low, number))
                    && maximum.as_ref().is_none_or(|high| at_most(number, high))
            }),
            "is outside the approved range",
        ),
        ArgumentPattern::PathUnder(base) => (
            inline(value)
                .and_then(Value::as_str)
                .is_some_and(|path| is_under(path, base)),
            "is outside the approved folder",
        ),
        ArgumentPattern::Argv(words) => (
            inline(value)
                .and_then(Value::as_array)
                .is_some_and(|given| argv_fits(words, given)),
            "is not the approved list of words",
        ),
    };
    if fits { Ok(()) } else { Err(reason) }
}

fn argv_fits(words: &[ArgvElement], given: &[Value]) -> bool {
    words.len() == given.len()
        && words
            .iter()
            .zip(given)
            .all(|(word, value)| match (word, value) {
                (ArgvElement::Exact(expected), Value::String(text)) => expected == text,
                (ArgvElement::Variable(pattern), Value::String(text)) => {
                    !text.starts_with('-')
                        && matches(pattern, &ArgumentValue::Value(value.clone())).is_ok()
                }
                _ => false,
            })
}

fn inline(value: &ArgumentValue) -> Option<&Value> {
    match value {
        ArgumentValue::Value(value) => Some(value),
        ArgumentValue::Hashed { .. } => None,
    }
}

fn is_exactly(value: &ArgumentValue, expected: &Value) -> bool {
    match (value, expected) {
        (ArgumentValue::Value(value), expected) => same_value(value, expected),
        (ArgumentValue::Hashed { sha256, length }, Value::String(text)) => {
            *length == text.len() as u64 && Digest::of(text) == *sha256
        }
        (ArgumentValue::Hashed { .. }, _) => false,
    }
}

fn has_digest(value: &ArgumentValue, expected: &Digest) -> bool {
    match value {
        ArgumentValue::Value(Value::String(text)) => Digest::of(text) == *expected,
        ArgumentValue::Hashed { sha256, .. } => sha256 == expected,
        ArgumentValue::Value(_) => false,
    }
}

/// Equality of JSON values in which 80 and 80.0 are the same number.
fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => compare(one, other) == Some(Ordering::Equal),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| same_value(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| {
                    other.get(key).is_some_and(|other| same_value(value, other))
                })
        }
        _ => one == other,
    }
}

fn as_number(value: &Value) -> Option<&Number> {
    match value {
        Value::Number(number) => Some(number),
        _ => None,
    }
}

pub(super) fn at_most(low: &Number, high: &Number) -> bool {
    matches!(compare(low, high), Some(Ordering::Less | Ordering::Equal))
}

/// Compares integers exactly; with a fraction on either side, as floating point numbers.
fn compare(one: &Number, other: &Number) -> Option<Ordering> {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        (Some(integer), None) => compare_mixed(integer, other.as_f64()?),
        (None, Some(integer)) => Some(compare_mixed(integer, one.as_f64()?)?.reverse()),
        (None, None) => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

/// Compares an integer with a fraction without rounding the integer: 2^53 + 1 is more than 2^53.0.
fn compare_mixed(integer: i128, fraction: f64) -> Option<Ordering> {
    if fraction.is_nan() {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "JSON numbers beyond i128 saturate, which keeps the order"
    )]
    let whole = fraction.floor() as i128;
    Some(match integer.cmp(&whole) {
        Ordering::Equal if fraction.fract() != 0.0 => Ordering::Less,
        order => order,
    })
}

/// The parts of a path without `..`, empty parts (but for a leading or trailing slash), NUL or control characters.
pub(super) fn path_parts(path: &str) -> Option<Vec<&str>> {
    if path.is_empty() || path.chars().any(char::is_control) {
        return None;
    }
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let mut parts = Vec::new();
    for part in inner.split('/') {
        match part {
            ".." => return None,
            "" if !inner.is_empty() => return None,
            "." | "" => {}
            part => parts.push(part),
        }
    }
    Some(parts)
}

fn is_under(path: &str, base: &str) -> bool {
    if path.starts_with('/') != base.starts_with('/') {
        return false;
    }
    match (path_parts(path), path_parts(base)) {
        (Some(path), Some(base)) => path.starts_with(&base),
        _ => false,
    }
}

fn has_type(value: &Value, takes: &str) -> bool {
    match takes {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["command"],
            "properties": {
                "command": { "type": "string" },
                "argv": { "type": "array" },
                "cwd": { "type": "string", "default": "." },
                "env": { "type": "object" },
                "publish": { "type": "array" },
                "timeout_ms": { "type": "integer", "default": 120_000 },
            },
        })
    }

    fn covered(patterns: Value, arguments: Value) -> Result<(), String> {
        let patterns = serde_json::from_value(patterns).map_err(|error| error.to_string())?;
        let arguments: BTreeMap<String, Value> =
            serde_json::from_value(arguments).map_err(|error| error.to_string())?;
        let arguments = arguments
            .into_iter()
            .map(|(name, value)| (name, ArgumentValue::of(value)))
            .collect();
        cover(&schema(), &patterns, &arguments).map_err(|refused| refused.to_string())
    }

    #[test]
    fn what_the_plan_names_is_covered_and_defaults_are_free() {
        let patterns = json!({ "command": { "exact": "ls" }, "publish": { "exact": [80] } });
        let arguments = json!({
            "command": "ls", "publish": [80], "cwd": ".", "timeout_ms": 120_000, "env": null
        });
        assert_eq!(covered(patterns, arguments), Ok(()));
    }

    #[test]
    fn an_argument_the_plan_does_not_name_is_refused() {
        let patterns = json!({ "command": { "exact": "ls" } });
        for added in [
            json!({ "command": "ls", "cwd": "/etc" }),
            json!({ "command": "ls", "env": {} }),
            json!({ "command": "ls", "env": { "LD_PRELOAD": "x.so" } }),
            json!({ "command": "ls", "timeout_ms": 1 }),
            json!({ "command": "ls", "sudo": true }),
        ] {
            assert!(covered(patterns.clone(), added.clone()).is_err(), "{added}");
        }
    }

    #[test]
    fn a_named_argument_cannot_be_left_out() {
        let patterns = json!({ "command": { "exact": "serve" }, "publish": { "exact": [80] } });
        assert!(covered(patterns, json!({ "command": "serve" })).is_err());
        let at_default = json!({ "command": { "exact": "serve" }, "cwd": { "exact": "." } });
        assert_eq!(covered(at_default, json!({ "command": "serve" })), Ok(()));
    }

    #[test]
    fn one_changed_byte_is_another_command_or_content() {
        let patterns = json!({ "command": { "exact": "ls -l" } });
        for other in ["ls -l ", "ls  -l", "ls -l\n", "ls -L", "ls -\u{200b}l"] {
            assert!(
                covered(patterns.clone(), json!({ "command": other })).is_err(),
                "{other:?}"
            );
        }
        let text = "x".repeat(5000);
        let pinned = json!({ "command": { "sha256": Digest::of(&text) } });
        assert_eq!(covered(pinned.clone(), json!({ "command": text })), Ok(()));
        assert!(covered(pinned, json!({ "command": format!("{text}y") })).is_err());
        let exact = json!({ "command": { "exact": text } });
        assert_eq!(covered(exact, json!({ "command": text })), Ok(()));
    }

    #[test]
    fn a_digest_given_as_an_argument_is_not_taken_for_the_content() {
        let digest = Digest::of("approved");
        let patterns = json!({ "command": { "sha256": digest } });
        for forged in [
            json!(digest),
            json!({ "sha256": digest, "length": 8 }),
            json!({ "hashed": { "sha256": digest, "length": 8 } }),
        ] {
            assert!(
                covered(patterns.clone(), json!({ "command": forged })).is_err(),
                "{forged}"
            );
        }
    }

    #[test]
    fn a_path_stays_below_its_folder() {
        let patterns = json!({ "command": { "path_under": "site/html" } });
        for inside in [
            "site/html",
            "site/html/a.txt",
            "./site/html/b/",
            "site/html/..a",
        ] {
            assert_eq!(
                covered(patterns.clone(), json!({ "command": inside })),
                Ok(()),
                "{inside}"
            );
        }
        for outside in [
            "site",
            "site/html2",
            "site/html/../../x",
            "/site/html/a",
            "site//html/a",
            "",
            "site/html/\0",
            "site/htmlx/a",
            "SITE/html/a",
        ] {
            assert!(
                covered(patterns.clone(), json!({ "command": outside })).is_err(),
                "{outside}"
            );
        }
    }

    #[test]
    fn a_varying_word_cannot_become_an_option() {
        let patterns = json!({
            "command": { "any": true },
            "argv": { "argv": ["tar", "-cf", { "any": true }, { "one_of": ["site", "--checkpoint"] }] },
        });
        let call = |out: &str, what: &str| {
            covered(
                patterns.clone(),
                json!({ "command": "", "argv": ["tar", "-cf", out, what] }),
            )
        };
        assert_eq!(call("a.tar", "site"), Ok(()));
        assert!(call("--to-command=sh", "site").is_err());
        assert!(call("a.tar", "--checkpoint").is_err());
        let longer = json!({ "command": "", "argv": ["tar", "-cf", "a.tar", "site", "x"] });
        assert!(covered(patterns.clone(), longer).is_err());
    }

    #[test]
    fn a_range_holds_integers_exactly_and_refuses_other_types() {
        let patterns = json!({
            "command": { "any": true },
            "timeout_ms": { "range": { "minimum": 1, "maximum": 9_007_199_254_740_992_u64 } },
        });
        let call = |timeout: Value| {
            covered(
                patterns.clone(),
                json!({ "command": "", "timeout_ms": timeout }),
            )
        };
        for inside in [json!(1), json!(9_007_199_254_740_992_u64), json!(1.5)] {
            assert_eq!(call(inside.clone()), Ok(()), "{inside}");
        }
        for outside in [
            json!(0),
            json!(9_007_199_254_740_993_u64),
            json!(0.99),
            json!("5"),
            json!([5]),
            json!(true),
        ] {
            assert!(call(outside.clone()).is_err(), "{outside}");
        }
    }

    #[test]
    fn the_linter_names_a_pattern_that_could_never_match() -> anyhow::Result<()> {
        for (patterns, reason) in [
            (
                json!({ "comand": { "exact": "x" } }),
                "no argument `comand`; it takes command, argv",
            ),
            (json!({ "cwd": { "exact": "." } }), "requires `command`"),
            (json!({ "command": { "exact": 5 } }), "it takes string"),
            (
                json!({ "command": { "range": { "minimum": 1 } } }),
                "it takes string",
            ),
            (
                json!({ "command": { "path_under": "site" } }),
                "`path_under` is for arguments that are paths, and `command` is none",
            ),
        ] {
            let patterns = serde_json::from_value(patterns)?;
            let error = check_patterns(&schema(), &patterns).map_err(|error| error.to_string());
            assert!(
                error.clone().is_err_and(|text| text.contains(reason)),
                "{error:?}"
            );
        }
        Ok(())
    }
}
