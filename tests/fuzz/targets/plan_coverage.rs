//! Any step and any call: what is let through is what the patterns say, by rules written down a second time and more plainly.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use shared::digest::Digest;
use shared::plan::{ArgumentPattern, ArgumentValue, ArgvElement, check_patterns, cover};

/// The argument names of the made-up tool; the last one is not in its schema.
const NAMES: [&str; 5] = ["command", "count", "path", "words", "stranger"];

/// Words that path and option rules are about.
const WORDS: [&str; 14] = [
    "",
    "a",
    "-a",
    "--",
    "..",
    ".",
    "site",
    "site/",
    "site/a",
    "site/../a",
    "/site",
    "sitemap",
    "a\0b",
    "site//a",
];

#[derive(Debug)]
struct Call {
    patterns: BTreeMap<String, ArgumentPattern>,
    arguments: BTreeMap<String, ArgumentValue>,
}

impl<'a> Arbitrary<'a> for Call {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let mut call = Self {
            patterns: BTreeMap::new(),
            arguments: BTreeMap::new(),
        };
        for name in NAMES {
            if bytes.arbitrary()? {
                // Only what a plan could hold: a written pattern that is refused never gets this far.
                if let Ok(pattern) = serde_json::from_value(written_pattern(bytes, 0)?) {
                    call.patterns.insert(name.to_owned(), pattern);
                }
            }
            if bytes.arbitrary()? {
                call.arguments
                    .insert(name.to_owned(), ArgumentValue::of(value(bytes, 0)?));
            }
        }
        Ok(call)
    }
}

fn word(bytes: &mut Unstructured<'_>) -> Result<String> {
    if bytes.ratio(3, 4)? {
        Ok((*bytes.choose(&WORDS)?).to_owned())
    } else {
        bytes.arbitrary()
    }
}

fn value(bytes: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
    Ok(
        match bytes.int_in_range(0..=if depth < 2 { 7 } else { 5 })? {
            0 => Value::Null,
            1 => Value::Bool(bytes.arbitrary()?),
            2 => json!(bytes.arbitrary::<i64>()?),
            3 => json!(bytes.int_in_range(-3..=3)?),
            4 => json!(bytes.arbitrary::<f64>()?),
            5 => Value::String(word(bytes)?),
            6 => values(bytes, depth)?,
            _ => json!({ word(bytes)?: value(bytes, depth + 1)? }),
        },
    )
}

fn values(bytes: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
    let length = bytes.int_in_range(0..=3)?;
    (0..length)
        .map(|_| value(bytes, depth + 1))
        .collect::<Result<Vec<_>>>()
        .map(Value::Array)
}

fn written_pattern(bytes: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
    Ok(match bytes.int_in_range(0..=6)? {
        0 => json!({ "exact": value(bytes, 0)? }),
        1 => json!({ "one_of": values(bytes, 0)? }),
        2 => json!({ "range": { "minimum": value(bytes, 2)?, "maximum": value(bytes, 2)? } }),
        3 => json!({ "path_under": word(bytes)? }),
        4 if depth == 0 => {
            let length = bytes.int_in_range(0..=3)?;
            let elements = (0..length).map(|_| {
                Ok(if bytes.arbitrary()? {
                    Value::String(word(bytes)?)
                } else {
                    written_pattern(bytes, 1)?
                })
            });
            json!({ "argv": elements.collect::<Result<Vec<_>>>()? })
        }
        5 => json!({ "sha256": Digest::of(word(bytes)?) }),
        _ => json!({ "any": true }),
    })
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "command": { "type": "string", "default": "a" },
            "count": { "type": "integer", "default": 1 },
            "path": { "type": "string" },
            "words": { "type": "array" },
        },
        "required": ["path"],
    })
}

fuzz_target!(|call: Call| {
    let schema = schema();
    for pattern in call.patterns.values() {
        let written = serde_json::to_value(pattern).expect("a pattern can be written");
        let read: ArgumentPattern =
            serde_json::from_value(written).expect("a written pattern can be read");
        assert_eq!(&read, pattern);
    }
    let _ = check_patterns(&schema, &call.patterns);
    if cover(&schema, &call.patterns, &call.arguments).is_err() {
        return;
    }
    for (name, argument) in &call.arguments {
        let property = schema["properties"].get(name);
        let absent = *argument == ArgumentValue::Value(Value::Null);
        match call.patterns.get(name) {
            Some(_) if absent => {}
            Some(pattern) => may_pass(pattern, argument),
            None => {
                let property =
                    property.expect("an argument that the tool does not know is refused");
                assert!(
                    absent || same(argument, &property["default"]),
                    "{name} is neither named nor at its default"
                );
            }
        }
    }
});

/// What must be true of everything that a pattern lets through.
fn may_pass(pattern: &ArgumentPattern, argument: &ArgumentValue) {
    let text = match argument {
        ArgumentValue::Value(Value::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match pattern {
        ArgumentPattern::Any => {}
        ArgumentPattern::Exact(expected) => assert!(same(argument, expected)),
        ArgumentPattern::OneOf(expected) => {
            assert!(expected.iter().any(|expected| same(argument, expected)))
        }
        ArgumentPattern::Range { minimum, maximum } => {
            let ArgumentValue::Value(Value::Number(number)) = argument else {
                panic!("{argument:?} is no number");
            };
            // Floats round, so equal ones say nothing; a clear difference does.
            let number = number.as_f64().unwrap_or(f64::NAN);
            let bound = |bound: &Option<serde_json::Number>| {
                bound.as_ref().and_then(serde_json::Number::as_f64)
            };
            assert!(
                bound(minimum).is_none_or(|low| low <= number),
                "{number} is too small"
            );
            assert!(
                bound(maximum).is_none_or(|high| number <= high),
                "{number} is too large"
            );
        }
        ArgumentPattern::PathUnder(base) => path_is_under(text.expect("a path is a text"), base),
        ArgumentPattern::Argv(words) => {
            let ArgumentValue::Value(Value::Array(given)) = argument else {
                panic!("{argument:?} is no list of words");
            };
            assert_eq!(words.len(), given.len());
            for (word, given) in words.iter().zip(given) {
                let given_text = given.as_str().expect("a word is a text");
                match word {
                    ArgvElement::Exact(expected) => assert_eq!(expected, given_text),
                    ArgvElement::Variable(pattern) => {
                        assert!(
                            !given_text.starts_with('-'),
                            "{given_text} would be an option"
                        );
                        may_pass(pattern, &ArgumentValue::Value(given.clone()));
                    }
                }
            }
        }
        ArgumentPattern::Sha256 { sha256, .. } => match argument {
            ArgumentValue::Hashed { sha256: given, .. } => assert_eq!(given, sha256),
            ArgumentValue::Value(_) => {
                assert_eq!(Digest::of(text.expect("content is a text")), *sha256)
            }
        },
    }
}

fn path_is_under(path: &str, base: &str) {
    assert!(path.split('/').all(|part| part != ".."), "{path} leads out");
    assert_eq!(path.starts_with('/'), base.starts_with('/'));
    let parts = |path: &str| -> Vec<String> {
        path.split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .map(ToOwned::to_owned)
            .collect()
    };
    assert!(
        parts(path).starts_with(&parts(base)),
        "{path} is not under {base}"
    );
}

/// Equal as JSON, where a long text may travel as its digest.
fn same(argument: &ArgumentValue, expected: &Value) -> bool {
    match argument {
        ArgumentValue::Value(value) => same_value(value, expected),
        ArgumentValue::Hashed { sha256, .. } => expected
            .as_str()
            .is_some_and(|text| Digest::of(text) == *sha256),
    }
}

/// Equal as JSON, where 1 and 1.0 are one number.
fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| same_value(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.keys().eq(other.keys())
                && one
                    .values()
                    .zip(other.values())
                    .all(|(one, other)| same_value(one, other))
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() || other.is_f64() => {
            one.as_f64().is_some_and(|one| other.as_f64() == Some(one))
        }
        _ => one == other,
    }
}
