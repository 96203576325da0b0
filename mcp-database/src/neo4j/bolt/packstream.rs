//! The `PackStream` encoding of values; whatever bytes arrive, decoding ends in a value or an
//! error.

use super::structures;
use super::value::{Map, Structure, Value};

/// Values may be nested this deep, so that neither decoding nor dropping one can exhaust the stack.
const MAX_DEPTH: usize = 100;
/// What a decoded value takes in memory besides its own text; an integer may be a single byte on
/// the wire.
const VALUE_BYTES: usize = size_of::<Value>();

/// Why bytes are not a value, or a value cannot become bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackstreamError {
    /// The bytes end inside a value, or a declared length exceeds them.
    #[error("a message ends inside a value")]
    Truncated,
    /// Bytes follow the value.
    #[error("{0} bytes follow the end of a message")]
    Trailing(usize),
    /// A byte that starts no value of the expected kind.
    #[error("byte {0:#04x} where a value was expected")]
    Marker(u8),
    /// Nested too deeply.
    #[error("values are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// The decoded value would take more memory than allowed.
    #[error("a message needs too much memory")]
    TooLarge,
    /// Text, bytes or a list too long for the wire format.
    #[error("a text, list or map has more than 4294967295 elements")]
    TooLong,
    /// A date, node or other structure with wrong fields.
    #[error("structure {tag:#04x} is malformed: {reason}")]
    Structure {
        /// Which structure.
        tag: u8,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A value this version of the protocol has no form for.
    #[error("{0} cannot be sent to this server")]
    Unsupported(&'static str),
}

/// Decodes a whole message: a structure whose fields are values.
///
/// `budget` is how many bytes of memory the decoded value may take; what it takes is subtracted.
pub(super) fn decode_message(
    bytes: &[u8],
    budget: &mut usize,
) -> Result<Structure, PackstreamError> {
    let mut decoder = Decoder {
        rest: bytes,
        budget,
    };
    let marker = decoder.byte()?;
    if marker & 0xF0 != 0xB0 {
        return Err(PackstreamError::Marker(marker));
    }
    let message = decoder.structure(usize::from(marker & 0x0F), 0)?;
    match decoder.rest.len() {
        0 => Ok(message),
        trailing => Err(PackstreamError::Trailing(trailing)),
    }
}

/// Appends a message with the fields given; `utc` is whether the server expects instants rather
/// than local times.
pub(super) fn encode_message(
    tag: u8,
    fields: &[Value],
    utc: bool,
    out: &mut Vec<u8>,
) -> Result<(), PackstreamError> {
    Encoder { out, utc }.structure(tag, fields, 0)
}

struct Decoder<'message, 'budget> {
    rest: &'message [u8],
    budget: &'budget mut usize,
}

impl<'message> Decoder<'message, '_> {
    fn value(&mut self, depth: usize) -> Result<Value, PackstreamError> {
        if depth > MAX_DEPTH {
            return Err(PackstreamError::TooDeep);
        }
        self.spend(VALUE_BYTES)?;
        let marker = self.byte()?;
        Ok(match marker {
            0x00..=0x7F | 0xF0..=0xFF => Value::Integer(i64::from(marker.cast_signed())),
            0x80..=0x8F => Value::String(self.text(usize::from(marker & 0x0F))?),
            0x90..=0x9F => Value::List(self.list(usize::from(marker & 0x0F), depth)?),
            0xA0..=0xAF => Value::Map(self.map(usize::from(marker & 0x0F), depth)?),
            0xB0..=0xBF => {
                structures::from_structure(self.structure(usize::from(marker & 0x0F), depth)?)?
            }
            0xC0 => Value::Null,
            0xC1 => Value::Float(f64::from_be_bytes(self.array()?)),
            0xC2 => Value::Boolean(false),
            0xC3 => Value::Boolean(true),
            0xC8 => Value::Integer(i64::from(i8::from_be_bytes(self.array()?))),
            0xC9 => Value::Integer(i64::from(i16::from_be_bytes(self.array()?))),
            0xCA => Value::Integer(i64::from(i32::from_be_bytes(self.array()?))),
            0xCB => Value::Integer(i64::from_be_bytes(self.array()?)),
            0xCC..=0xCE => {
                let length = self.length(marker - 0xCC)?;
                self.spend(length)?;
                Value::Bytes(self.take(length)?.to_vec())
            }
            0xD0..=0xD2 => {
                let length = self.length(marker - 0xD0)?;
                Value::String(self.text(length)?)
            }
            0xD4..=0xD6 => {
                let length = self.length(marker - 0xD4)?;
                Value::List(self.list(length, depth)?)
            }
            0xD8..=0xDA => {
                let length = self.length(marker - 0xD8)?;
                Value::Map(self.map(length, depth)?)
            }
            _ => return Err(PackstreamError::Marker(marker)),
        })
    }

    fn list(&mut self, length: usize, depth: usize) -> Result<Vec<Value>, PackstreamError> {
        // Every value takes at least one byte, so a longer list is a lie that must not be allocated
        // for.
        if length > self.rest.len() {
            return Err(PackstreamError::Truncated);
        }
        if length.saturating_mul(VALUE_BYTES) > *self.budget {
            return Err(PackstreamError::TooLarge);
        }
        let mut elements = Vec::with_capacity(length);
        for _ in 0..length {
            elements.push(self.value(depth + 1)?);
        }
        Ok(elements)
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<Map, PackstreamError> {
        if length.saturating_mul(2) > self.rest.len() {
            return Err(PackstreamError::Truncated);
        }
        self.spend(length.saturating_mul(size_of::<String>()))?;
        if length.saturating_mul(VALUE_BYTES) > *self.budget {
            return Err(PackstreamError::TooLarge);
        }
        let mut entries = Vec::with_capacity(length);
        for _ in 0..length {
            let marker = self.byte()?;
            let key_length = match marker {
                0x80..=0x8F => usize::from(marker & 0x0F),
                0xD0..=0xD2 => self.length(marker - 0xD0)?,
                _ => return Err(PackstreamError::Marker(marker)),
            };
            let key = self.text(key_length)?;
            entries.push((key, self.value(depth + 1)?));
        }
        Ok(entries)
    }

    fn structure(&mut self, length: usize, depth: usize) -> Result<Structure, PackstreamError> {
        let tag = self.byte()?;
        Ok(Structure {
            tag,
            fields: self.list(length, depth)?,
        })
    }

    fn text(&mut self, length: usize) -> Result<String, PackstreamError> {
        self.spend(length)?;
        let text = str::from_utf8(self.take(length)?).map_err(|_| PackstreamError::Utf8)?;
        Ok(text.to_owned())
    }

    /// A big-endian length of 1, 2 or 4 bytes for a width of 0, 1 or 2.
    fn length(&mut self, width: u8) -> Result<usize, PackstreamError> {
        let length = match width {
            0 => u32::from(self.byte()?),
            1 => u32::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?),
        };
        usize::try_from(length).map_err(|_| PackstreamError::TooLong)
    }

    fn byte(&mut self) -> Result<u8, PackstreamError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], PackstreamError> {
        let (array, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(PackstreamError::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'message [u8], PackstreamError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(PackstreamError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), PackstreamError> {
        *self.budget = self
            .budget
            .checked_sub(bytes)
            .ok_or(PackstreamError::TooLarge)?;
        Ok(())
    }
}

struct Encoder<'out> {
    out: &'out mut Vec<u8>,
    utc: bool,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), PackstreamError> {
        if depth > MAX_DEPTH {
            return Err(PackstreamError::TooDeep);
        }
        match value {
            Value::Null => self.out.push(0xC0),
            Value::Boolean(boolean) => self.out.push(if *boolean { 0xC3 } else { 0xC2 }),
            Value::Integer(number) => self.integer(*number),
            Value::Float(number) => {
                self.out.push(0xC1);
                self.out.extend_from_slice(&number.to_be_bytes());
            }
            Value::Bytes(bytes) => {
                self.header(None, 0xCC, bytes.len())?;
                self.out.extend_from_slice(bytes);
            }
            Value::String(text) => self.text(text)?,
            Value::List(elements) => {
                self.header(Some(0x90), 0xD4, elements.len())?;
                for element in elements {
                    self.value(element, depth + 1)?;
                }
            }
            Value::Map(entries) => {
                self.header(Some(0xA0), 0xD8, entries.len())?;
                for (key, value) in entries {
                    self.text(key)?;
                    self.value(value, depth + 1)?;
                }
            }
            structured => {
                let Structure { tag, fields } = structures::to_structure(structured, self.utc)?;
                self.structure(tag, &fields, depth)?;
            }
        }
        Ok(())
    }

    fn structure(
        &mut self,
        tag: u8,
        fields: &[Value],
        depth: usize,
    ) -> Result<(), PackstreamError> {
        let length = u8::try_from(fields.len())
            .ok()
            .filter(|length| *length < 16);
        self.out
            .push(0xB0 | length.ok_or(PackstreamError::TooLong)?);
        self.out.push(tag);
        for field in fields {
            self.value(field, depth + 1)?;
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), PackstreamError> {
        self.header(Some(0x80), 0xD0, text.len())?;
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn integer(&mut self, number: i64) {
        if let Ok(tiny) = i8::try_from(number) {
            if tiny < -16 {
                self.out.push(0xC8);
            }
            self.out.push(tiny.cast_unsigned());
        } else if let Ok(short) = i16::try_from(number) {
            self.out.push(0xC9);
            self.out.extend_from_slice(&short.to_be_bytes());
        } else if let Ok(int) = i32::try_from(number) {
            self.out.push(0xCA);
            self.out.extend_from_slice(&int.to_be_bytes());
        } else {
            self.out.push(0xCB);
            self.out.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// A marker and a length: one byte if the kind has a `tiny` form and it fits, else `wide` and
    /// its followers.
    fn header(&mut self, tiny: Option<u8>, wide: u8, length: usize) -> Result<(), PackstreamError> {
        let length = u32::try_from(length).map_err(|_| PackstreamError::TooLong)?;
        match (tiny, u8::try_from(length), u16::try_from(length)) {
            (Some(tiny), Ok(short @ 0..16), _) => self.out.push(tiny | short),
            (_, Ok(short), _) => self.out.extend_from_slice(&[wide, short]),
            (_, _, Ok(medium)) => {
                self.out.push(wide + 1);
                self.out.extend_from_slice(&medium.to_be_bytes());
            }
            _ => {
                self.out.push(wide + 2);
                self.out.extend_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
