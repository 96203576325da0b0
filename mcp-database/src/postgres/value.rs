//! Values of PostgreSQL as cells of a result, without loss: a few types are read as the server sends them, of all others its own text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postgres_protocol::types as wire;
use serde_json::Value;
use tokio_postgres::types::{FromSql, Kind, Type};

use crate::table::Cell;

/// A value that is not as its type says.
#[derive(Debug, thiserror::Error)]
#[error("a value of type {kind} cannot be read: {cause}")]
pub struct ValueError {
    kind: String,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

/// What has to be asked for instead of a column of this type: nothing else, its text, or the texts of its elements.
pub fn cast(kind: &Type) -> &'static str {
    if is_read(kind) {
        return "";
    }
    match kind.kind() {
        // Vectors of the catalog are arrays that do not cast as such, and rows have no text of their own.
        Kind::Array(element) if *element != Type::RECORD && kind.name().starts_with('_') => {
            "::text[]"
        }
        _ => "::text",
    }
}

/// The name of a type as people write it.
pub fn type_name(kind: &Type) -> String {
    match kind.name().strip_prefix('_') {
        Some(element) => format!("{element}[]"),
        None => kind.name().to_owned(),
    }
}

/// Whether values of a type are read as the server sends them.
fn is_read(kind: &Type) -> bool {
    matches!(
        *kind,
        Type::BOOL
            | Type::INT2
            | Type::INT4
            | Type::INT8
            | Type::OID
            | Type::FLOAT4
            | Type::FLOAT8
            | Type::TEXT
            | Type::VARCHAR
            | Type::BPCHAR
            | Type::NAME
            | Type::JSON
            | Type::JSONB
            | Type::BYTEA
    )
}

/// A value of a row, as it came.
pub struct Raw<'a>(Option<&'a [u8]>);

impl<'a> Raw<'a> {
    /// Its bytes; `None` for NULL.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        self.0
    }
}

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The cell of a value of type `kind`, which was sent after the [`cast`] of that type.
///
/// # Errors
/// What the server sent is no value of the type.
pub fn cell(kind: &Type, raw: &Raw<'_>, whole_vectors: bool) -> Result<Cell, ValueError> {
    let Some(bytes) = raw.0 else {
        return Ok(Cell::null());
    };
    sent(kind, bytes, whole_vectors).map_err(|cause| ValueError {
        kind: type_name(kind),
        cause,
    })
}

fn sent(
    kind: &Type,
    bytes: &[u8],
    whole_vectors: bool,
) -> Result<Cell, Box<dyn std::error::Error + Send + Sync>> {
    Ok(match *kind {
        Type::BOOL => Cell::json(wire::bool_from_sql(bytes)?.into()),
        Type::INT2 => Cell::integer(wire::int2_from_sql(bytes)?.into()),
        Type::INT4 => Cell::integer(wire::int4_from_sql(bytes)?.into()),
        Type::INT8 => Cell::integer(wire::int8_from_sql(bytes)?),
        Type::OID => Cell::integer(wire::oid_from_sql(bytes)?.into()),
        Type::FLOAT4 => Cell::single(wire::float4_from_sql(bytes)?),
        Type::FLOAT8 => Cell::float(wire::float8_from_sql(bytes)?),
        Type::JSON => json(bytes),
        // One byte of version stands before it.
        Type::JSONB => json(bytes.get(1..).unwrap_or_default()),
        Type::BYTEA => Cell::bytes_of(bytes, |bytes| STANDARD.encode(bytes)),
        _ => match (kind.kind(), cast(kind)) {
            (Kind::Array(element), "::text[]") => list(element, bytes)?,
            _ => of_text(kind.name(), &String::from_utf8_lossy(bytes), whole_vectors),
        },
    })
}

/// JSON with numbers that its readers would round, or with two members of one name, is only whole as a text.
fn json(bytes: &[u8]) -> Cell {
    let text = String::from_utf8_lossy(bytes);
    match serde_json::from_str::<Value>(&text) {
        Ok(value) if is_exact(&text) && members(&value) == written_members(&text) => {
            Cell::json(value)
        }
        _ => Cell::text(text.into_owned()),
    }
}

/// Whether no number in a JSON text has more digits than are kept. (Digits within strings count too: then a text is given, no less.)
fn is_exact(json: &str) -> bool {
    const KEPT_DIGITS: usize = 15;
    json.split(|c: char| !(c.is_ascii_digit() || c == '.'))
        .all(|number| {
            // `1.50` means something else than `1.5` to whoever wrote it.
            number.len() <= KEPT_DIGITS && !(number.contains('.') && number.ends_with('0'))
        })
}

/// Members of all objects in a value.
fn members(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        Value::Array(list) => list.iter().map(members).sum(),
        _ => 0,
    }
}

/// Members of all objects in a valid JSON text: each has a colon outside of strings.
fn written_members(json: &str) -> usize {
    let (mut colons, mut in_string, mut is_escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            b':' if !in_string => colons += 1,
            _ => {}
        }
    }
    colons
}

fn of_text(type_name: &str, text: &str, whole_vectors: bool) -> Cell {
    let vector = || -> Option<Vec<f32>> {
        let numbers = text.strip_prefix('[')?.strip_suffix(']')?;
        numbers
            .split(',')
            .map(|number| number.parse().ok())
            .collect()
    };
    match type_name {
        "bool" => Cell::json((text == "t" || text == "true").into()),
        "numeric" | "int2" | "int4" | "int8" | "oid" => Cell::decimal(text),
        "float4" | "float8" => text
            .parse()
            .map_or_else(|_| Cell::text(text.to_owned()), Cell::float),
        "vector" | "halfvec" => vector().map_or_else(
            || Cell::text(text.to_owned()),
            |numbers| Cell::vector(&numbers, whole_vectors),
        ),
        _ => Cell::text(text.to_owned()),
    }
}

/// An array of texts, of any number of dimensions, as lists of the elements' values.
fn list(element: &Type, bytes: &[u8]) -> Result<Cell, Box<dyn std::error::Error + Send + Sync>> {
    use fallible_iterator::FallibleIterator as _;
    let array = wire::array_from_sql(bytes)?;
    let lengths: Vec<usize> = array
        .dimensions()
        .map(|dimension| Ok(usize::try_from(dimension.len)?))
        .collect()?;
    let cells: Vec<Cell> = array
        .values()
        .map(|value| {
            Ok(value.map_or_else(Cell::null, |bytes| {
                of_text(element.name(), &String::from_utf8_lossy(bytes), false)
            }))
        })
        .collect()?;
    let has_cut = cells.iter().any(Cell::is_cut);
    let mut values: Vec<Value> = cells.into_iter().map(Cell::into_value).collect();
    // From the innermost dimension outwards.
    for length in lengths.iter().skip(1).rev() {
        values = values
            .chunks((*length).max(1))
            .map(|part| Value::Array(part.to_vec()))
            .collect();
    }
    let list = Cell::json(Value::Array(values));
    Ok(if has_cut { list.with_cut() } else { list })
}
