//! Documents of BSON as cells of a result: relaxed extended JSON without loss, and no more of it than a reply holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::spec::BinarySubtype;
use bson::{Bson, RawArray, RawBsonRef, RawDocument};
use serde_json::{Map, Value, json};

use crate::table::Cell;

/// Largest whole number that every JSON reader keeps exactly.
const LARGEST_EXACT: u64 = (1 << 53) - 1;
/// Doubles in a row from which on they are a vector.
const VECTOR: usize = 16;
/// Numbers of a vector that are looked at: more are never given.
const LONGEST_VECTOR: usize = 16_384;
/// Bytes of a binary value that are shown.
const SHOWN_BYTES: usize = 48;
/// Characters of a key that are shown.
const LONGEST_KEY: usize = 1_000;
/// How deep documents are shown; servers take none that is deeper than 180.
const DEEPEST: usize = 200;

/// How documents are shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Bytes of JSON that one document may take; what is beyond is told as `{"$cut": how many}`.
    pub bytes: usize,
    /// Vectors are given whole.
    pub whole_vectors: bool,
}

/// The cell of a document.
///
/// # Errors
/// What the server sent is no BSON.
pub fn document(document: &RawDocument, shown: Shown) -> Result<Cell, bson::error::Error> {
    let mut showing = Showing::new(shown);
    let value = showing.document(document, 1)?;
    Ok(showing.cell(value))
}

/// The cell of any value.
///
/// # Errors
/// A value that is no BSON.
pub fn cell(value: &Bson, shown: Shown) -> Result<Cell, bson::error::Error> {
    let wrapped = bson::RawDocumentBuf::try_from(&bson::doc! { "v": value.clone() })?;
    let mut showing = Showing::new(shown);
    let value = match wrapped.get("v")? {
        Some(value) => showing.value(value, 1)?,
        None => Value::Null,
    };
    Ok(showing.cell(value))
}

/// The name of a value's type, as `$type` has it.
pub fn type_name(value: &RawBsonRef<'_>) -> &'static str {
    match value {
        RawBsonRef::Double(_) => "double",
        RawBsonRef::String(_) => "string",
        RawBsonRef::Array(_) => "array",
        RawBsonRef::Document(_) => "object",
        RawBsonRef::Boolean(_) => "bool",
        RawBsonRef::Null => "null",
        RawBsonRef::RegularExpression(_) => "regex",
        RawBsonRef::JavaScriptCode(_) => "javascript",
        RawBsonRef::JavaScriptCodeWithScope(_) => "javascriptWithScope",
        RawBsonRef::Int32(_) => "int",
        RawBsonRef::Int64(_) => "long",
        RawBsonRef::Timestamp(_) => "timestamp",
        RawBsonRef::Binary(_) => "binData",
        RawBsonRef::ObjectId(_) => "objectId",
        RawBsonRef::DateTime(_) => "date",
        RawBsonRef::Symbol(_) => "symbol",
        RawBsonRef::Decimal128(_) => "decimal",
        RawBsonRef::Undefined => "undefined",
        RawBsonRef::MaxKey => "maxKey",
        RawBsonRef::MinKey => "minKey",
        RawBsonRef::DbPointer(_) => "dbPointer",
    }
}

/// One document on its way into a reply.
struct Showing {
    left: usize,
    whole_vectors: bool,
    is_cut: bool,
}

impl Showing {
    fn new(shown: Shown) -> Self {
        Self {
            left: shown.bytes,
            whole_vectors: shown.whole_vectors,
            is_cut: false,
        }
    }

    fn cell(self, value: Value) -> Cell {
        let cell = Cell::bounded(value);
        if self.is_cut { cell.with_cut() } else { cell }
    }

    fn take(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    fn take_cell(&mut self, cell: Cell) -> Value {
        self.is_cut |= cell.is_cut();
        let value = cell.into_value();
        self.take(shared::budget::json_bytes(&value) + 1);
        value
    }

    fn document(
        &mut self,
        document: &RawDocument,
        depth: usize,
    ) -> Result<Value, bson::error::Error> {
        let mut members = Map::new();
        let mut left_out = 0_u64;
        for member in document {
            let (key, value) = member?;
            if self.left == 0 || depth > DEEPEST {
                left_out += 1;
                continue;
            }
            let key = key.as_str();
            let shown = match key.char_indices().nth(LONGEST_KEY) {
                Some((end, _)) => {
                    self.is_cut = true;
                    &key[..end]
                }
                None => key,
            };
            self.take(shown.len() + 4);
            members.insert(shown.to_owned(), self.value(value, depth + 1)?);
        }
        if left_out > 0 {
            self.is_cut = true;
            members.insert("$cut".to_owned(), left_out.into());
        }
        Ok(Value::Object(members))
    }

    fn list(&mut self, list: &RawArray, depth: usize) -> Result<Value, bson::error::Error> {
        if !self.whole_vectors
            && let Some(numbers) = vector(list)
        {
            return Ok(self.take_cell(Cell::vector(&numbers, false)));
        }
        self.take(2);
        let mut elements = Vec::new();
        let mut left_out = 0_u64;
        for element in list {
            let element = element?;
            if self.left == 0 || depth > DEEPEST {
                left_out += 1;
                continue;
            }
            elements.push(self.value(element, depth + 1)?);
        }
        if left_out > 0 {
            self.is_cut = true;
            elements.push(json!({ "$cut": left_out }));
        }
        Ok(Value::Array(elements))
    }

    fn value(&mut self, value: RawBsonRef<'_>, depth: usize) -> Result<Value, bson::error::Error> {
        let value = match value {
            RawBsonRef::Document(value) => return self.document(value, depth),
            RawBsonRef::Array(value) => return self.list(value, depth),
            RawBsonRef::String(text) => return Ok(self.text(text)),
            RawBsonRef::Binary(binary) => return Ok(self.binary(binary.subtype, binary.bytes)),
            RawBsonRef::JavaScriptCode(code) => json!({ "$code": self.text(code) }),
            RawBsonRef::JavaScriptCodeWithScope(code) => {
                json!({ "$code": self.text(code.code), "$scope": self.document(code.scope, depth + 1)? })
            }
            RawBsonRef::Symbol(text) => json!({ "$symbol": self.text(text) }),
            RawBsonRef::RegularExpression(regex) => json!({ "$regularExpression": {
                "pattern": self.text(regex.pattern.as_str()), "options": self.text(regex.options.as_str())
            } }),
            RawBsonRef::Int64(whole) if whole.unsigned_abs() > LARGEST_EXACT => {
                json!({ "$numberLong": whole.to_string() })
            }
            RawBsonRef::Int64(whole) => whole.into(),
            RawBsonRef::Double(float) if !float.is_finite() => {
                json!({ "$numberDouble": Cell::float(float).into_value() })
            }
            RawBsonRef::Decimal128(decimal) => json!({ "$numberDecimal": decimal.to_string() }),
            other => Bson::try_from(other)?.into_relaxed_extjson(),
        };
        self.take(shared::budget::json_bytes(&value) + 1);
        Ok(value)
    }

    fn text(&mut self, text: &str) -> Value {
        self.take_cell(Cell::text(text.to_owned()))
    }

    fn binary(&mut self, subtype: BinarySubtype, bytes: &[u8]) -> Value {
        if u8::from(subtype) == 9
            && let Some(numbers) = float_vector(bytes)
        {
            return self.take_cell(Cell::vector(&numbers, self.whole_vectors));
        }
        let subtype = format!("{:02x}", u8::from(subtype));
        if bytes.len() <= SHOWN_BYTES {
            let value =
                json!({ "$binary": { "base64": STANDARD.encode(bytes), "subType": subtype } });
            self.take(shared::budget::json_bytes(&value) + 1);
            return value;
        }
        let mut value = self.take_cell(Cell::bytes_of(bytes, |bytes| STANDARD.encode(bytes)));
        if let Value::Object(members) = &mut value {
            members.insert("subType".to_owned(), subtype.into());
        }
        value
    }
}

/// The numbers of a list that is nothing but doubles, and enough of them.
fn vector(list: &RawArray) -> Option<Vec<f32>> {
    let mut numbers = Vec::new();
    for element in list {
        match element {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "only the head of a vector is shown, to tell it from another"
            )]
            Ok(RawBsonRef::Double(number)) if numbers.len() < LONGEST_VECTOR => {
                numbers.push(number as f32);
            }
            _ => return None,
        }
    }
    (numbers.len() >= VECTOR).then_some(numbers)
}

/// The numbers of a binary vector of single precision.
fn float_vector(bytes: &[u8]) -> Option<Vec<f32>> {
    const FLOAT32: u8 = 0x27;
    let (&[FLOAT32, 0], numbers) = bytes.split_first_chunk::<2>()? else {
        return None;
    };
    let (numbers, []) = numbers.as_chunks::<4>() else {
        return None;
    };
    Some(
        numbers
            .iter()
            .map(|number| f32::from_le_bytes(*number))
            .collect(),
    )
}
