//! The closed set of argument patterns a plan may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::digest::Digest;

/// What an approved step allows for one argument.
///
/// There is deliberately no prefix, glob or regular expression: a shell string is exact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenPattern", into = "WrittenPattern")]
pub enum ArgumentPattern {
    /// This value and no other.
    Exact(Value),
    /// One of these values.
    OneOf(Vec<Value>),
    /// A number between two bounds, both included; a missing bound is open.
    Range {
        /// Smallest number allowed.
        minimum: Option<Number>,
        /// Largest number allowed.
        maximum: Option<Number>,
    },
    /// A path at or below this one, without `..`; the effect server follows no links.
    PathUnder(String),
    /// A list of words, each fixed or with a pattern of its own.
    Argv(Vec<ArgvElement>),
    /// A string with this digest; `shown` is the text itself, for the human.
    Sha256 {
        /// Digest of the string's UTF-8 bytes.
        sha256: Digest,
        /// The string, if the human shall see it.
        shown: Option<String>,
    },
    /// Anything, marked as such where the human looks.
    Any,
}

/// One word of an argument list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)] // a plain string is by far the most common element, and a map cannot be mistaken for it
pub enum ArgvElement {
    /// Exactly this word.
    Exact(String),
    /// A word that varies; it may never begin with `-`, so it cannot become an option.
    Variable(ArgumentPattern),
}

/// A pattern that is not well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// None, or more than one, of the kinds is given.
    #[error(
        "an argument pattern has exactly one of exact, one_of, range, path_under, argv, sha256, any; this one has {0}"
    )]
    Kinds(String),
    /// `shown` stands beside something else than `sha256`.
    #[error("`shown` belongs to a `sha256` pattern")]
    ShownAlone,
    /// `shown` is not the text whose digest is given.
    #[error(
        "`shown` has the digest {actual}, but `sha256` says {stated}; send the text that the step will write"
    )]
    ShownDiffers {
        /// Digest in the pattern.
        stated: Digest,
        /// Digest of `shown`.
        actual: Digest,
    },
    /// `any: false`.
    #[error("`any` can only be true")]
    AnyFalse,
    /// An empty `one_of`, which nothing can match.
    #[error("`one_of` is empty, so nothing could match it")]
    Empty,
    /// A range without bounds, or with the lower above the upper.
    #[error("`range` needs minimum, maximum or both, with minimum ≤ maximum")]
    Range,
    /// A path that could lead out of its folder.
    #[error("`path_under: {0}` must be a path without `..`, empty parts or control characters")]
    Path(String),
    /// A variable word with a pattern that has no meaning for a word.
    #[error("a variable element of `argv` takes exact, one_of, path_under or any")]
    ArgvElement,
}

/// A pattern as it is written in a plan.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ArgumentPattern")]
struct WrittenPattern {
    /// This value and no other.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schemars(with = "Value")]
    exact: Option<Value>,
    /// One of these values.
    #[serde(skip_serializing_if = "Option::is_none")]
    one_of: Option<Vec<Value>>,
    /// A number between these bounds, both included.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<WrittenRange>,
    /// A path at or below this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_under: Option<String>,
    /// A list of words: each a string, or a pattern for a word that varies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Value>")]
    argv: Option<Vec<ArgvElement>>,
    /// Digest of the string.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    /// The string whose digest `sha256` is, for the human to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    shown: Option<String>,
    /// True: anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    any: Option<bool>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenRange {
    /// Smallest number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    minimum: Option<Number>,
    /// Largest number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    maximum: Option<Number>,
}

/// Reads `exact: null` as a value rather than as an absent key.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl TryFrom<WrittenPattern> for ArgumentPattern {
    type Error = PatternError;

    fn try_from(written: WrittenPattern) -> Result<Self, PatternError> {
        let kinds: Vec<&str> = [
            ("exact", written.exact.is_some()),
            ("one_of", written.one_of.is_some()),
            ("range", written.range.is_some()),
            ("path_under", written.path_under.is_some()),
            ("argv", written.argv.is_some()),
            ("sha256", written.sha256.is_some()),
            ("any", written.any.is_some()),
        ]
        .into_iter()
        .filter_map(|(kind, given)| given.then_some(kind))
        .collect();
        if kinds.len() != 1 {
            let found = if kinds.is_empty() {
                "none".to_owned()
            } else {
                kinds.join(" and ")
            };
            return Err(PatternError::Kinds(found));
        }
        if written.shown.is_some() && written.sha256.is_none() {
            return Err(PatternError::ShownAlone);
        }
        let pattern = if let Some(value) = written.exact {
            Self::Exact(value)
        } else if let Some(values) = written.one_of {
            Self::OneOf(values)
        } else if let Some(WrittenRange { minimum, maximum }) = written.range {
            Self::Range { minimum, maximum }
        } else if let Some(path) = written.path_under {
            Self::PathUnder(path)
        } else if let Some(words) = written.argv {
            Self::Argv(words)
        } else if let Some(sha256) = written.sha256 {
            Self::Sha256 {
                sha256,
                shown: written.shown,
            }
        } else if written.any == Some(true) {
            Self::Any
        } else {
            return Err(PatternError::AnyFalse);
        };
        pattern.check()?;
        Ok(pattern)
    }
}

impl From<ArgumentPattern> for WrittenPattern {
    fn from(pattern: ArgumentPattern) -> Self {
        let mut written = Self::default();
        match pattern {
            ArgumentPattern::Exact(value) => written.exact = Some(value),
            ArgumentPattern::OneOf(values) => written.one_of = Some(values),
            ArgumentPattern::Range { minimum, maximum } => {
                written.range = Some(WrittenRange { minimum, maximum });
            }
            ArgumentPattern::PathUnder(path) => written.path_under = Some(path),
            ArgumentPattern::Argv(words) => written.argv = Some(words),
            ArgumentPattern::Sha256 { sha256, shown } => {
                written.sha256 = Some(sha256);
                written.shown = shown;
            }
            ArgumentPattern::Any => written.any = Some(true),
        }
        written
    }
}

impl JsonSchema for ArgumentPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        WrittenPattern::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        WrittenPattern::json_schema(generator)
    }
}

impl ArgumentPattern {
    fn check(&self) -> Result<(), PatternError> {
        match self {
            Self::OneOf(values) if values.is_empty() => Err(PatternError::Empty),
            Self::Range { minimum, maximum } => {
                let ordered = match (minimum, maximum) {
                    (None, None) => false,
                    (Some(low), Some(high)) => super::coverage::at_most(low, high),
                    _ => true,
                };
                if ordered {
                    Ok(())
                } else {
                    Err(PatternError::Range)
                }
            }
            Self::PathUnder(path) => match super::coverage::path_parts(path) {
                Some(_) => Ok(()),
                None => Err(PatternError::Path(path.clone())),
            },
            Self::Argv(words) => words.iter().try_for_each(|word| match word {
                ArgvElement::Exact(_)
                | ArgvElement::Variable(
                    Self::Exact(_) | Self::OneOf(_) | Self::PathUnder(_) | Self::Any,
                ) => Ok(()),
                ArgvElement::Variable(_) => Err(PatternError::ArgvElement),
            }),
            Self::Sha256 {
                sha256,
                shown: Some(shown),
            } => {
                let actual = Digest::of(shown);
                if actual == *sha256 {
                    Ok(())
                } else {
                    Err(PatternError::ShownDiffers {
                        stated: sha256.clone(),
                        actual,
                    })
                }
            }
            Self::Exact(_) | Self::OneOf(_) | Self::Sha256 { .. } | Self::Any => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_survives_writing_and_reading() -> anyhow::Result<()> {
        let digest = Digest::of("hello");
        for written in [
            json!({ "exact": null }),
            json!({ "exact": "ls -l" }),
            json!({ "one_of": [1, 2] }),
            json!({ "range": { "minimum": 1, "maximum": 5 } }),
            json!({ "path_under": "site/assets" }),
            json!({ "argv": ["cp", { "path_under": "site" }] }),
            json!({ "sha256": digest, "shown": "hello" }),
            json!({ "any": true }),
        ] {
            let pattern: ArgumentPattern = serde_json::from_value(written.clone())?;
            assert_eq!(serde_json::to_value(&pattern)?, written);
        }
        Ok(())
    }

    #[test]
    fn a_pattern_that_is_not_well_formed_is_refused_with_the_reason() {
        for (written, reason) in [
            (json!({}), "has none"),
            (json!({ "exact": 1, "any": true }), "exact and any"),
            (json!({ "prefix": "rm" }), "unknown field `prefix`"),
            (json!({ "any": false }), "can only be true"),
            (json!({ "one_of": [] }), "nothing could match"),
            (
                json!({ "range": { "minimum": 2, "maximum": 1 } }),
                "minimum ≤ maximum",
            ),
            (json!({ "range": {} }), "minimum ≤ maximum"),
            (json!({ "path_under": "a/../b" }), "without `..`"),
            (
                json!({ "shown": "x", "any": true }),
                "belongs to a `sha256`",
            ),
            (
                json!({ "sha256": Digest::of("a"), "shown": "b" }),
                "has the digest",
            ),
            (
                json!({ "argv": ["x", { "range": { "minimum": 1 } }] }),
                "argv",
            ),
        ] {
            let error = serde_json::from_value::<ArgumentPattern>(written.clone());
            let text =
                error.map_or_else(|error| error.to_string(), |pattern| format!("{pattern:?}"));
            assert!(text.contains(reason), "{written}: {text}");
        }
    }
}
