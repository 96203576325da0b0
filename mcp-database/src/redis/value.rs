//! Values on their way to Redis and back: bytes that are text where they can be, and numbers that stay as they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::{RedisWrite, ToRedisArgs};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::table::Cell;

/// What one value may be at most: Redis takes no longer ones.
const LONGEST: usize = 512 * 1024 * 1024;
/// Bytes of binary data that are shown of it where it is one among others.
const SHOWN_BYTES: usize = 48;

/// A value that cannot be sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ValueError {
    /// Neither a text nor bytes.
    #[error(
        "{0} is no value for Redis; give a string, a number, or {{\"base64\": …}} for bytes, and JSON as its text"
    )]
    Kind(String),
    /// No base64.
    #[error("the base64 is not valid: {0}")]
    Base64(String),
    /// Bytes that are not all there.
    #[error(
        "`$bytes` says {said}, and the base64 has {has}; what a result has cut cannot be sent back"
    )]
    Length {
        /// As written.
        said: u64,
        /// As it is.
        has: usize,
    },
    /// A window that begins nowhere.
    #[error("a window cannot begin at `{start}`; for this type it begins at {wanted}")]
    Start {
        /// As asked.
        start: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// More than Redis takes.
    #[error("the value has {0} bytes, and Redis takes 536870912 at most")]
    TooLong(usize),
}

/// A key, a field, or a value: bytes. In JSON a string, or `{"$bytes": length, "base64": …}` where it is no text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Blob(pub Vec<u8>);

impl Blob {
    /// From JSON.
    ///
    /// # Errors
    /// JSON that is neither text nor number nor bytes.
    pub fn from_json(value: &Value) -> Result<Self, ValueError> {
        let bytes = match value {
            Value::String(text) => text.clone().into_bytes(),
            Value::Number(number) => number.to_string().into_bytes(),
            Value::Object(members)
                if members
                    .keys()
                    .all(|name| name == "base64" || name == "$bytes") =>
            {
                let Some(Value::String(text)) = members.get("base64") else {
                    return Err(ValueError::Kind("an object without `base64`".to_owned()));
                };
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|error| ValueError::Base64(error.to_string()))?;
                match members.get("$bytes").and_then(Value::as_u64) {
                    Some(said) if usize::try_from(said) != Ok(bytes.len()) => {
                        return Err(ValueError::Length {
                            said,
                            has: bytes.len(),
                        });
                    }
                    _ => bytes,
                }
            }
            Value::Object(_) => return Err(ValueError::Kind("this object".to_owned())),
            Value::Array(_) => return Err(ValueError::Kind("a list".to_owned())),
            other => return Err(ValueError::Kind(other.to_string())),
        };
        if bytes.len() > LONGEST {
            return Err(ValueError::TooLong(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        whole(&self.0)
    }

    /// As text for messages; what is no text is escaped, what is long is cut.
    pub fn for_message(&self) -> String {
        let shown = &self.0[..self.0.len().min(200)];
        match std::str::from_utf8(shown) {
            Ok(text) => text.to_owned(),
            Err(_) => shown.escape_ascii().to_string(),
        }
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.for_message())
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl ToRedisArgs for Blob {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg(&self.0);
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_json(&value).map_err(D::Error::custom)
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

/// Bytes, all of them.
pub(super) fn whole(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "$bytes": bytes.len(), "base64": STANDARD.encode(bytes) }),
    }
}

/// Bytes as one among others: cut where they are long.
pub(super) fn shown(bytes: Vec<u8>) -> Cell {
    match String::from_utf8(bytes) {
        Ok(text) => Cell::text(text),
        Err(error) => {
            let bytes = error.into_bytes();
            let head = &bytes[..bytes.len().min(SHOWN_BYTES)];
            Cell::nested(
                json!({ "$bytes": bytes.len(), "base64": STANDARD.encode(head) }),
                head.len() < bytes.len(),
            )
        }
    }
}

/// What a reply shows of a nested value, and how much of it there is room for.
pub(super) struct Room {
    left: usize,
    is_cut: bool,
    shows_whole_texts: bool,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            left: bytes,
            is_cut: false,
            shows_whole_texts: false,
        }
    }

    /// The same for messages, of which a text is cut only where there is no more room.
    pub(super) fn for_messages(bytes: usize) -> Self {
        Self {
            shows_whole_texts: true,
            ..Self::new(bytes)
        }
    }

    /// The value as far as there is room, with `{"$cut": elements}` as the last element of a list that has more.
    pub(super) fn cell(mut self, value: redis::Value) -> Cell {
        let value = self.show(value);
        Cell::nested(value, self.is_cut)
    }

    fn take(&mut self, cell: Cell) -> Value {
        self.is_cut |= cell.is_cut();
        let value = cell.into_value();
        self.left = self
            .left
            .saturating_sub(shared::budget::json_bytes(&value) + 1);
        value
    }

    fn show(&mut self, value: redis::Value) -> Value {
        use redis::Value as Reply;
        let cell = match value {
            Reply::Nil => Cell::null(),
            Reply::Int(number) => Cell::integer(number),
            Reply::BulkString(bytes) if self.shows_whole_texts && bytes.len() <= self.left => {
                Cell::nested(whole(&bytes), false)
            }
            Reply::BulkString(bytes) => shown(bytes),
            Reply::SimpleString(text) | Reply::VerbatimString { text, .. } => Cell::text(text),
            Reply::Okay => Cell::text("OK".to_owned()),
            Reply::Double(number) => Cell::float(number),
            Reply::Boolean(truth) => Cell::json(truth.into()),
            Reply::BigNumber(digits) => Cell::text(String::from_utf8_lossy(&digits).into_owned()),
            Reply::ServerError(error) => {
                let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
                Cell::nested(json!({ "$error": text }), false)
            }
            Reply::Array(values) | Reply::Set(values) | Reply::Push { data: values, .. } => {
                return self.list(values);
            }
            Reply::Map(pairs) => {
                // A field may be no text, or may be there twice: pairs lose neither.
                let pairs = pairs
                    .into_iter()
                    .map(|(field, value)| Reply::Array(vec![field, value]))
                    .collect();
                return self.list(pairs);
            }
            Reply::Attribute { data, .. } => return self.show(*data),
            other => Cell::text(format!("{other:?}")),
        };
        self.take(cell)
    }

    fn list(&mut self, values: Vec<redis::Value>) -> Value {
        let mut list = Vec::new();
        let mut rest = values.len();
        for value in values {
            if self.left == 0 {
                self.is_cut = true;
                list.push(json!({ "$cut": rest }));
                break;
            }
            list.push(self.show(value));
            rest -= 1;
        }
        Value::Array(list)
    }
}

/// The elements of a reply that is a list of whatever kind; pairs of a map one after the other.
pub(super) fn elements(value: redis::Value) -> Option<Vec<redis::Value>> {
    match value {
        redis::Value::Array(values) | redis::Value::Set(values) => Some(values),
        redis::Value::Map(pairs) => Some(
            pairs
                .into_iter()
                .flat_map(|(field, value)| [field, value])
                .collect(),
        ),
        redis::Value::Nil => Some(Vec::new()),
        redis::Value::Attribute { data, .. } => elements(*data),
        _ => None,
    }
}

/// The bytes of a reply that is a text of whatever kind, or a number.
pub(super) fn bytes(value: redis::Value) -> Option<Vec<u8>> {
    match value {
        redis::Value::BulkString(bytes) => Some(bytes),
        redis::Value::SimpleString(text) | redis::Value::VerbatimString { text, .. } => {
            Some(text.into_bytes())
        }
        redis::Value::Okay => Some(b"OK".to_vec()),
        redis::Value::Int(number) => Some(number.to_string().into_bytes()),
        redis::Value::Double(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

/// The same as text; what is no text in it is replaced.
pub(super) fn text(value: redis::Value) -> Option<String> {
    bytes(value).map(|bytes| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// A whole number, also as text.
pub(super) fn integer(value: &redis::Value) -> Option<i64> {
    match value {
        redis::Value::Int(number) => Some(*number),
        redis::Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        redis::Value::SimpleString(text) => text.parse().ok(),
        redis::Value::Boolean(truth) => Some(i64::from(*truth)),
        redis::Value::Okay => Some(1),
        _ => None,
    }
}

/// An approximate number, also as text: RESP2 has no other, and writes `inf` and `nan`.
pub(super) fn number(value: &redis::Value) -> Option<f64> {
    match value {
        redis::Value::Double(number) => Some(*number),
        #[expect(clippy::cast_precision_loss, reason = "scores are approximate")]
        redis::Value::Int(number) => Some(*number as f64),
        redis::Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        redis::Value::SimpleString(text) => text.parse().ok(),
        _ => None,
    }
}

/// What stands under a name in a reply of names and values, in either shape of the protocol.
pub(super) fn member(value: &redis::Value, name: &str) -> Option<redis::Value> {
    let is_name = |field: &redis::Value| match field {
        redis::Value::BulkString(bytes) => bytes.eq_ignore_ascii_case(name.as_bytes()),
        redis::Value::SimpleString(text) => text.eq_ignore_ascii_case(name),
        _ => false,
    };
    match value {
        redis::Value::Map(pairs) => pairs
            .iter()
            .find(|(field, _)| is_name(field))
            .map(|(_, value)| value.clone()),
        redis::Value::Array(values) => values
            .chunks_exact(2)
            .find(|pair| is_name(&pair[0]))
            .map(|pair| pair[1].clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_went() -> anyhow::Result<()> {
        for (blob, expected) in [
            (Blob::from("text \n ü"), json!("text \n ü")),
            (Blob::from(""), json!("")),
            (
                Blob::from(vec![0xff, 0]),
                json!({ "$bytes": 2, "base64": "/wA=" }),
            ),
        ] {
            assert_eq!(blob.to_json(), expected);
            assert_eq!(Blob::from_json(&expected)?, blob);
        }
        assert_eq!(Blob::from_json(&json!(12))?, Blob::from("12"));
        Ok(())
    }

    #[test]
    fn what_is_no_value_is_refused_with_what_would_be_right() {
        for wrong in [
            json!(null),
            json!(true),
            json!(["a"]),
            json!({ "a": 1 }),
            json!({ "$bytes": 1 }),
            json!({ "base64": "*" }),
            json!({ "$bytes": 100, "base64": "/wA=" }),
        ] {
            assert!(Blob::from_json(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn both_shapes_of_the_protocol_read_the_same() {
        let name = || redis::Value::BulkString(b"name".to_vec());
        let array = redis::Value::Array(vec![name(), redis::Value::Int(1)]);
        let map = redis::Value::Map(vec![(name(), redis::Value::Int(1))]);
        assert_eq!(member(&array, "NAME"), Some(redis::Value::Int(1)));
        assert_eq!(member(&map, "name"), Some(redis::Value::Int(1)));
        assert_eq!(elements(array), elements(map));
        for score in [
            redis::Value::BulkString(b"1.5".to_vec()),
            redis::Value::Double(1.5),
        ] {
            assert_eq!(number(&score), Some(1.5));
        }
        let infinite = number(&redis::Value::BulkString(b"-inf".to_vec()));
        assert_eq!(infinite, Some(f64::NEG_INFINITY));
    }

    #[test]
    fn a_nested_reply_stays_within_its_room_and_says_what_is_missing() {
        let reply = redis::Value::Array(vec![redis::Value::Int(i64::MAX); 1_000]);
        let cell = Room::new(50).cell(reply);
        assert!(cell.is_cut());
        assert_eq!(
            *cell.value(),
            json!(["9223372036854775807", "9223372036854775807", "9223372036854775807", { "$cut": 997 }])
        );
    }
}
