//! The one change that the arguments of a call ask for; an argument that would change nothing is refused and not passed over.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::tool_error::{ToolError, code};

use super::KvWriteParams;
use crate::redis::value::Blob;
use crate::redis::write::{Condition, End, Ttl, Write};

// By the name of its command, which says to a model what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Op {
    Set,
    Del,
    Expire,
    Persist,
    Hset,
    Hdel,
    Lpush,
    Rpush,
    Sadd,
    Srem,
    Zadd,
}

// What the key of a string must be for it to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum When {
    Absent,
    Present,
}

impl Op {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Del => "del",
            Self::Expire => "expire",
            Self::Persist => "persist",
            Self::Hset => "hset",
            Self::Hdel => "hdel",
            Self::Lpush => "lpush",
            Self::Rpush => "rpush",
            Self::Sadd => "sadd",
            Self::Srem => "srem",
            Self::Zadd => "zadd",
        }
    }

    /// The arguments it has beside its keys; the first is needed, but by `del` and `persist`.
    fn takes(self) -> &'static [&'static str] {
        match self {
            Self::Set => &["value", "ttl_ms", "keep_ttl", "when", "if_equals"],
            Self::Del | Self::Persist => &[],
            Self::Expire => &["ttl_ms"],
            Self::Hset | Self::Zadd => &["fields"],
            Self::Hdel | Self::Lpush | Self::Rpush | Self::Sadd | Self::Srem => &["values"],
        }
    }
}

/// The change.
pub(super) fn change(params: &KvWriteParams) -> Result<Write, ToolError> {
    check_arguments(params)?;
    if params.op == Op::Del {
        return Ok(Write::Delete {
            keys: params.keys.clone(),
        });
    }
    let [key] = params.keys.as_slice() else {
        let message = format!("`keys` has {} keys", params.keys.len());
        return Err(wrong(message).with_hint(format!("{} is for one key", params.op.name())));
    };
    let (key, values) = (key.clone(), params.values.clone());
    let after = Duration::from_millis(params.ttl_ms.unwrap_or_default());
    Ok(match params.op {
        Op::Set => Write::Set {
            key,
            value: params.value.clone().unwrap_or_default(),
            condition: condition(params)?,
            ttl: match (params.ttl_ms, params.keep_ttl) {
                (Some(_), true) => {
                    let message = "`ttl_ms` and `keep_ttl` exclude each other".to_owned();
                    return Err(wrong(message).with_hint("give one of them"));
                }
                (Some(_), false) => Ttl::After(after),
                (None, true) => Ttl::Keep,
                (None, false) => Ttl::Forever,
            },
        },
        Op::Del => Write::Delete { keys: vec![key] },
        Op::Expire => Write::Expire { key, after },
        Op::Persist => Write::Persist { key },
        Op::Hset => Write::HashSet {
            key,
            fields: pairs(&params.fields)?,
        },
        Op::Hdel => Write::HashDelete {
            key,
            fields: values,
        },
        Op::Lpush | Op::Rpush => Write::ListPush {
            key,
            values,
            end: if params.op == Op::Lpush {
                End::First
            } else {
                End::Last
            },
        },
        Op::Sadd => Write::SetAdd {
            key,
            members: values,
        },
        Op::Srem => Write::SetRemove {
            key,
            members: values,
        },
        Op::Zadd => Write::SortedAdd {
            key,
            members: scores(&params.fields)?,
        },
    })
}

/// Names and values of an object.
pub(in crate::tools) fn pairs(fields: &Map<String, Value>) -> Result<Vec<(Blob, Blob)>, ToolError> {
    fields
        .iter()
        .map(|(name, value)| Ok((Blob::from(name.as_str()), Blob::from_json(value)?)))
        .collect()
}

fn scores(fields: &Map<String, Value>) -> Result<Vec<(f64, Blob)>, ToolError> {
    fields
        .iter()
        .map(|(member, score)| {
            let number = match score {
                // JSON has no infinite numbers.
                Value::String(text) => text.parse().ok(),
                score => score.as_f64(),
            };
            let number = number.ok_or_else(|| {
                wrong(format!("the score of `{member}` is no number"))
                    .with_hint("give {\"member\": 1.5}, or \"inf\"")
            })?;
            Ok((number, Blob::from(member.as_str())))
        })
        .collect()
}

fn condition(params: &KvWriteParams) -> Result<Condition, ToolError> {
    match (params.when, &params.if_equals) {
        (None, None) => Ok(Condition::Always),
        (None, Some(expected)) => Ok(Condition::IfEquals(Some(expected.clone()))),
        (Some(When::Absent), None) => Ok(Condition::IfAbsent),
        (Some(When::Present), None) => Ok(Condition::IfPresent),
        (Some(_), Some(_)) => {
            let message = "`when` and `if_equals` exclude each other".to_owned();
            Err(wrong(message).with_hint("give one of them"))
        }
    }
}

fn check_arguments(params: &KvWriteParams) -> Result<(), ToolError> {
    let given = [
        ("value", params.value.is_some()),
        ("values", !params.values.is_empty()),
        ("fields", !params.fields.is_empty()),
        ("ttl_ms", params.ttl_ms.is_some()),
        ("keep_ttl", params.keep_ttl),
        ("when", params.when.is_some()),
        ("if_equals", params.if_equals.is_some()),
    ];
    let takes = params.op.takes();
    let of_no_use = given
        .iter()
        .find(|(name, is_given)| *is_given && !takes.contains(name));
    let missing = takes.first().filter(|first| {
        !given
            .iter()
            .any(|(name, is_given)| name == *first && *is_given)
    });
    let op = params.op.name();
    let message = match (of_no_use, missing) {
        (None, None) => return Ok(()),
        (Some((name, _)), _) => format!("`{name}` is nothing for {op}"),
        (None, Some(name)) => format!("{op} needs `{name}`"),
    };
    let hint = match takes {
        [] => format!("{op} takes `keys` alone"),
        takes => format!("{op} takes `keys` and {}", takes.join(", ")),
    };
    Err(wrong(message).with_hint(hint))
}

fn wrong(message: String) -> ToolError {
    ToolError::new(code::INVALID_ARGUMENTS, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(arguments: Value) -> anyhow::Result<Result<Write, ToolError>> {
        Ok(change(&serde_json::from_value(arguments)?))
    }

    #[test]
    fn a_change_is_what_its_arguments_say() -> anyhow::Result<()> {
        let key = || Blob::from("k");
        let set = |condition, ttl| Write::Set {
            key: key(),
            value: "v".into(),
            condition,
            ttl,
        };
        let minute = Ttl::After(Duration::from_mins(1));
        for (arguments, expected) in [
            (
                json!({ "op": "set", "keys": ["k"], "value": "v", "when": "absent", "ttl_ms": 60000 }),
                set(Condition::IfAbsent, minute),
            ),
            (
                json!({ "op": "set", "keys": ["k"], "value": "v", "if_equals": 1, "keep_ttl": true }),
                set(Condition::IfEquals(Some("1".into())), Ttl::Keep),
            ),
            (
                json!({ "op": "zadd", "keys": ["k"], "fields": { "m": "-inf" } }),
                Write::SortedAdd {
                    key: key(),
                    members: vec![(f64::NEG_INFINITY, "m".into())],
                },
            ),
            (
                json!({ "op": "rpush", "keys": ["k"], "values": ["a", { "base64": "/w==" }] }),
                Write::ListPush {
                    key: key(),
                    values: vec!["a".into(), Blob(vec![255])],
                    end: End::Last,
                },
            ),
        ] {
            let change = of(arguments)?;
            anyhow::ensure!(change.as_ref().ok() == Some(&expected), "{change:?}");
        }
        Ok(())
    }

    #[test]
    fn an_argument_that_would_be_passed_over_is_refused_by_name() -> anyhow::Result<()> {
        for (arguments, named) in [
            (
                json!({ "op": "hset", "keys": ["k"], "fields": { "a": 1 }, "ttl_ms": 1 }),
                "`ttl_ms`",
            ),
            (
                json!({ "op": "set", "keys": ["k"], "values": ["a"] }),
                "`values`",
            ),
            (json!({ "op": "set", "keys": ["k"] }), "`value`"),
            (json!({ "op": "persist", "keys": ["a", "b"] }), "2 keys"),
            (json!({ "op": "expire", "keys": ["a"] }), "`ttl_ms`"),
            (
                json!({ "op": "zadd", "keys": ["a"], "fields": { "m": "many" } }),
                "`m`",
            ),
            (
                json!({ "op": "set", "keys": ["k"], "value": 1, "ttl_ms": 1, "keep_ttl": true }),
                "`keep_ttl`",
            ),
            (
                json!({ "op": "set", "keys": ["k"], "value": 1, "when": "absent", "if_equals": 1 }),
                "`if_equals`",
            ),
        ] {
            let error = of(arguments)?.err().map(|error| error.message);
            anyhow::ensure!(
                error.as_ref().is_some_and(|error| error.contains(named)),
                "{error:?}"
            );
        }
        Ok(())
    }
}
