//! Values of a call as parameters of Cypher.

use serde_json::{Map as Object, Value as Json};

use super::bolt::{Map, Value};

/// A value that cannot be a parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A whole number over what the server has.
    #[error("the number {0} does not fit 64 bits with a sign; give it as a string")]
    TooLarge(String),
    /// A name with the sign that only stands in the statement.
    #[error("the parameter `{0}` is named with a `$`, which only stands in the statement")]
    Sign(String),
}

/// Parameters of a statement, in the order of their names.
///
/// # Errors
/// Numbers and names that cannot be sent.
pub fn parameters(given: &Object<String, Json>) -> Result<Map, ParameterError> {
    given
        .iter()
        .map(|(name, value)| {
            if name.starts_with('$') {
                return Err(ParameterError::Sign(name.clone()));
            }
            Ok((name.clone(), parameter(value)?))
        })
        .collect()
}

/// One value; whole numbers are integers, all others floats.
///
/// # Errors
/// A whole number that does not fit.
pub fn parameter(value: &Json) -> Result<Value, ParameterError> {
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(boolean) => Value::Boolean(*boolean),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, Some(float)) if !number.is_u64() => Value::Float(float),
            _ => return Err(ParameterError::TooLarge(number.to_string())),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(elements) => Value::List(
            elements
                .iter()
                .map(parameter)
                .collect::<Result<_, ParameterError>>()?,
        ),
        Json::Object(entries) => Value::Map(map(entries)?),
    })
}

/// The entries of an object.
///
/// # Errors
/// As [`parameter`].
pub fn map(entries: &Object<String, Json>) -> Result<Map, ParameterError> {
    entries
        .iter()
        .map(|(key, value)| Ok((key.clone(), parameter(value)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_json_value_is_what_it_looks_like() -> anyhow::Result<()> {
        for (json, expected) in [
            (json!(null), Value::Null),
            (json!(1), Value::Integer(1)),
            (json!(1.0), Value::Float(1.0)),
            (json!(i64::MIN), Value::Integer(i64::MIN)),
            (json!([1, "a"]), Value::List(vec![1.into(), "a".into()])),
            (
                json!({ "$a": true }),
                Value::Map(vec![("$a".to_owned(), true.into())]),
            ),
        ] {
            assert_eq!(parameter(&json)?, expected);
        }
        assert!(parameter(&json!(u64::MAX)).is_err());
        let signed = json!({ "$a": 1 });
        assert!(
            signed
                .as_object()
                .is_some_and(|map| parameters(map).is_err())
        );
        Ok(())
    }
}
