//! JSON values as parameters of a statement: each goes to the server as a text, which the type of the parameter reads.

use bytes::BytesMut;
use serde_json::Value;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};

/// A parameter.
#[derive(Debug)]
pub struct Parameter<'a>(pub &'a Value);

/// A value that no text of the type says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} is no value of type {wanted}; give a string as SQL would write it")]
pub struct ParameterError {
    found: &'static str,
    wanted: String,
}

impl ToSql for Parameter<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match text(self.0, kind)? {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// The text of a value for a type; a string for a JSON type is a JSON text.
fn text(value: &Value, kind: &Type) -> Result<Option<String>, ParameterError> {
    let is_json = matches!(*kind, Type::JSON | Type::JSONB);
    let wrong = |found| ParameterError {
        found,
        wanted: super::value::type_name(kind),
    };
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => value.to_string(),
        // A reader of JSON has rounded it already.
        Value::Number(value)
            if !matches!(*kind, Type::FLOAT4 | Type::FLOAT8) && is_rounded(value) =>
        {
            return Err(wrong("a number of more digits than are kept"));
        }
        Value::Number(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Array(values) => match kind.kind() {
            _ if is_json => value.to_string(),
            Kind::Array(element) => array(values, element)?,
            _ if matches!(kind.name(), "vector" | "halfvec") => value.to_string(),
            _ => return Err(wrong("a list")),
        },
        Value::Object(_) if is_json => value.to_string(),
        Value::Object(_) => return Err(wrong("an object")),
    }))
}

/// Whether a number may have had more digits than it has now: there are as many as are kept at most.
fn is_rounded(number: &serde_json::Number) -> bool {
    const KEPT_DIGITS: usize = 16;
    const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
    number.is_f64()
        && number.as_f64().is_some_and(|value| {
            let digits = value.to_string();
            let digits = digits.bytes().filter(u8::is_ascii_digit).count();
            value.abs() >= LARGEST_EXACT || digits > KEPT_DIGITS + 1
        })
}

/// `{"a",NULL,{…}}`
fn array(values: &[Value], element: &Type) -> Result<String, ParameterError> {
    let mut parts = Vec::with_capacity(values.len());
    for value in values {
        parts.push(match value {
            Value::Array(inner) if !matches!(*element, Type::JSON | Type::JSONB) => {
                array(inner, element)?
            }
            value => text(value, element)?.map_or_else(
                || "NULL".to_owned(),
                |text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            ),
        });
    }
    Ok(format!("{{{}}}", parts.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_become_what_the_type_reads() -> anyhow::Result<()> {
        for (value, kind, expected) in [
            (json!(null), Type::INT4, None),
            (
                json!(9_007_199_254_740_993_i64),
                Type::INT8,
                Some("9007199254740993"),
            ),
            (json!(true), Type::BOOL, Some("true")),
            (json!({"a": [1]}), Type::JSONB, Some(r#"{"a":[1]}"#)),
            (json!([1, null]), Type::JSONB, Some("[1,null]")),
            (json!([1, null]), Type::INT4_ARRAY, Some(r#"{"1",NULL}"#)),
            (
                json!([["a\"b\\", "NULL"], ["", "x,y"]]),
                Type::TEXT_ARRAY,
                Some(r#"{{"a\"b\\","NULL"},{"","x,y"}}"#),
            ),
        ] {
            assert_eq!(text(&value, &kind)?.as_deref(), expected, "{value}");
        }
        // JSON's readers have these rounded already; as texts they are whole.
        for rounded in ["0.1234567890123456789", "123456789012345678901", "1e300"] {
            let number: Value = serde_json::from_str(rounded)?;
            assert!(text(&number, &Type::NUMERIC).is_err(), "{rounded}");
            assert!(text(&number, &Type::FLOAT8).is_ok(), "{rounded}");
            assert_eq!(
                text(&json!(rounded), &Type::NUMERIC)?.as_deref(),
                Some(rounded)
            );
        }
        for whole in ["0.1", "12345.678", "-1.5"] {
            let number: Value = serde_json::from_str(whole)?;
            assert_eq!(text(&number, &Type::NUMERIC)?.as_deref(), Some(whole));
        }
        assert!(text(&json!([1]), &Type::INT4).is_err());
        assert!(text(&json!({}), &Type::TEXT).is_err());
        Ok(())
    }
}
