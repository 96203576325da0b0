//! Canonical JSON (RFC 8785), with a short way for what is canonical as it stands.

use serde::Serialize;
use serde_json::{Map, Value};

/// Canonical JSON of a value. One whose members are in order and whose parts are plain is simply written, which takes a tenth of the
/// time.
///
/// # Errors
/// What cannot be written as JSON.
pub(crate) fn to_vec(value: &impl Serialize, is_plain: bool) -> Result<Vec<u8>, serde_json::Error> {
    if is_plain {
        serde_json::to_vec(value)
    } else {
        serde_json_canonicalizer::to_vec(value)
    }
}

/// Whether a map is in canonical JSON as it is in any: its members stand in the order of their names' bytes, which is the canonical one
/// for ASCII, and only numbers can be written in several ways.
pub(crate) fn is_plain_object(members: &Map<String, Value>) -> bool {
    members
        .iter()
        .all(|(name, value)| name.is_ascii() && is_plain(value))
        && members.keys().is_sorted()
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.as_u64().is_some_and(is_exact),
        Value::Array(values) => values.iter().all(is_plain),
        Value::Object(members) => is_plain_object(members),
    }
}

/// Whether a number is the same as a double.
pub(crate) fn is_exact(number: u64) -> bool {
    number < 1 << 53
}
