//! The one result that every query of every engine gives: columns, rows, and what was left out of them and why.

use serde::Serialize;
use serde_json::{Value, json};

/// Largest whole number that every JSON reader keeps exactly.
const LARGEST_EXACT: i64 = (1 << 53) - 1;
/// Characters of a cell that are shown before it is cut.
const LONGEST_TEXT: usize = 2_000;
/// Bytes that every cell of a row may have, however many there are.
const SMALLEST_SHARE: usize = 64;
/// Bytes of a binary value that are shown.
const SHOWN_BYTES: usize = 48;
/// Numbers of a vector that are shown.
const SHOWN_NUMBERS: usize = 5;

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name, as the database gives it: may be empty, and another may have the same.
    pub name: String,
    /// The engine's name of its type: `int8`, `text[]`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Why there is more than what is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// As many rows as were asked for.
    Rows,
    /// The next row would not fit the bytes that were asked for.
    Bytes,
    /// All rows are there; some cells are cut.
    Cells,
    /// The time was over before the last row came.
    Time,
}

impl Truncation {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Cells => "cells",
            Self::Time => "time",
        }
    }
}

/// What a reply may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Rows.
    pub rows: usize,
    /// Bytes of the rows' JSON.
    pub bytes: usize,
}

impl Default for Budget {
    /// 100 rows, 64 KiB.
    fn default() -> Self {
        Self {
            rows: 100,
            bytes: 64 * 1024,
        }
    }
}

/// Rows with their columns: what every query of every engine comes to.
#[derive(Debug)]
pub struct Answer {
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// The rows that fit.
    pub rows: Rows,
}

/// Rows on their way into a reply.
#[derive(Debug)]
pub struct Rows {
    budget: Budget,
    taken: Vec<Vec<Value>>,
    used: usize,
    has_cut_cells: bool,
    is_full: Option<Truncation>,
}

impl Rows {
    /// No rows yet.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            taken: Vec::new(),
            used: 0,
            has_cut_cells: false,
            is_full: None,
        }
    }

    /// Takes one more row, or gives it back if it does not fit any more. The first row is always taken, since a reply goes on by at
    /// least one: if it is too large, each of its cells is cut to an equal share.
    ///
    /// # Errors
    /// The row.
    pub fn push(&mut self, mut row: Vec<Cell>) -> Result<(), Vec<Cell>> {
        if self.taken.len() >= self.budget.rows {
            self.is_full = Some(Truncation::Rows);
            return Err(row);
        }
        let bytes_of = |row: &[Cell]| 2 + row.iter().map(Cell::bytes).sum::<usize>();
        let mut bytes = bytes_of(&row);
        if self.used + bytes > self.budget.bytes {
            if !self.taken.is_empty() {
                self.is_full = Some(Truncation::Bytes);
                return Err(row);
            }
            // What is a little too large was cut by whoever made it, at better places.
            if bytes > 2 * self.budget.bytes {
                let share = (self.budget.bytes / row.len().max(1)).max(SMALLEST_SHARE);
                row = row.into_iter().map(|cell| cell.within(share)).collect();
                bytes = bytes_of(&row);
            }
        }
        self.used += bytes;
        self.has_cut_cells |= row.iter().any(|cell| cell.is_cut);
        self.taken
            .push(row.into_iter().map(|cell| cell.value).collect());
        Ok(())
    }

    /// What was left out, if anything.
    pub fn truncated(&self) -> Option<Truncation> {
        self.is_full
            .or(self.has_cut_cells.then_some(Truncation::Cells))
    }

    /// Whether rows are left that did not fit.
    pub fn goes_on(&self) -> bool {
        self.is_full.is_some()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Ends here for the want of time.
    pub fn out_of_time(&mut self) {
        self.is_full = Some(Truncation::Time);
    }

    /// The rows.
    pub fn into_rows(self) -> Vec<Vec<Value>> {
        self.taken
    }
}

/// A value as it stands in a reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    value: Value,
    is_cut: bool,
}

impl Cell {
    /// No value.
    pub fn null() -> Self {
        Self::whole(Value::Null)
    }

    /// Any JSON; too much of it is shown as the head of its text.
    pub fn json(value: Value) -> Self {
        if json_bytes(&value) <= LONGEST_TEXT {
            return Self::whole(value);
        }
        match value {
            Value::String(text) => Self::text(text),
            value => Self::text(value.to_string()),
        }
    }

    /// JSON that whoever made it keeps short.
    pub fn bounded(value: Value) -> Self {
        Self::whole(value)
    }

    /// A whole number; as a string where JSON readers would round it.
    pub fn integer(value: i64) -> Self {
        if value.unsigned_abs() <= LARGEST_EXACT.unsigned_abs() {
            Self::whole(value.into())
        } else {
            Self::whole(value.to_string().into())
        }
    }

    /// An approximate number; `NaN`, `Infinity` and `-Infinity` as strings, since JSON has none of them.
    pub fn float(value: f64) -> Self {
        let name = match value {
            value if value.is_nan() => "NaN",
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => return Self::whole(value.into()),
        };
        Self::whole(name.into())
    }

    /// An approximate number of single precision, by the fewest digits that mean it: `0.1`, not `0.10000000149011612`.
    pub fn single(value: f32) -> Self {
        Self::float(
            value
                .to_string()
                .parse()
                .unwrap_or_else(|_| f64::from(value)),
        )
    }

    /// An exact number in decimal digits: a number if it is whole and JSON readers keep it, else a string, so that `1.50` stays it.
    pub fn decimal(digits: &str) -> Self {
        if digits.len() > LONGEST_TEXT {
            return Self::text(digits.to_owned());
        }
        digits.parse().map_or_else(
            |_| Self::whole(digits.into()),
            |whole: i64| {
                if whole.to_string() == digits {
                    Self::integer(whole)
                } else {
                    Self::whole(digits.into())
                }
            },
        )
    }

    /// A text; over 2,000 characters as `{"$cut": characters, "head": …}`.
    pub fn text(text: String) -> Self {
        let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT) else {
            return Self::whole(text.into());
        };
        let length = text.chars().count();
        Self::cut(json!({ "$cut": length, "head": text[..end] }))
    }

    /// Bytes, as `{"$bytes": length, "base64": of the first 48}`.
    pub fn bytes_of(bytes: &[u8], base64: impl Fn(&[u8]) -> String) -> Self {
        let shown = bytes.len().min(SHOWN_BYTES);
        let value = json!({ "$bytes": bytes.len(), "base64": base64(&bytes[..shown]) });
        Self {
            value,
            is_cut: shown < bytes.len(),
        }
    }

    /// A vector, as `{"$vector": dimensions, "head": its first five numbers}`, or all of it where `whole`.
    pub fn vector(numbers: &[f32], whole: bool) -> Self {
        let shown = |numbers: &[f32]| -> Value {
            numbers
                .iter()
                .map(|number| Self::single(*number).value)
                .collect()
        };
        if whole || numbers.len() <= SHOWN_NUMBERS {
            return Self::whole(shown(numbers));
        }
        let head = shown(&numbers[..numbers.len().min(SHOWN_NUMBERS)]);
        Self::cut(json!({ "$vector": numbers.len(), "head": head }))
    }

    /// JSON whose parts are bounded already; `is_cut` where less of them stands here than there is.
    pub fn nested(value: Value, is_cut: bool) -> Self {
        Self { value, is_cut }
    }

    fn whole(value: Value) -> Self {
        Self {
            value,
            is_cut: false,
        }
    }

    fn cut(value: Value) -> Self {
        Self {
            value,
            is_cut: true,
        }
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The same, of which something within is cut.
    #[must_use]
    pub fn with_cut(self) -> Self {
        Self::cut(self.value)
    }

    /// Whether less stands here than the value has.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The value alone.
    pub fn into_value(self) -> Value {
        self.value
    }

    /// The same in about so many bytes, where it is larger: the head of its text.
    fn within(self, bytes: usize) -> Self {
        if self.bytes() <= bytes {
            return self;
        }
        let (length, text) = match &self.value {
            Value::String(text) => (json!(text.chars().count()), text.clone()),
            Value::Object(cut) if let Some(Value::String(head)) = cut.get("head") => {
                (cut["$cut"].clone(), head.clone())
            }
            value => {
                let text = value.to_string();
                (json!(text.chars().count()), text)
            }
        };
        // Behind the names of its parts.
        let mut end = text.floor_char_boundary(bytes.saturating_sub(32));
        let head = loop {
            let head = Value::from(&text[..end]);
            if end == 0 || json_bytes(&head) + 32 <= bytes {
                break head;
            }
            end = text.floor_char_boundary(end / 2);
        };
        Self::cut(json!({ "$cut": length, "head": head }))
    }

    /// What it takes in a row, with its comma.
    fn bytes(&self) -> usize {
        json_bytes(&self.value) + 1
    }
}

fn json_bytes(value: &Value) -> usize {
    shared::budget::json_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_row_that_is_too_large_is_cut_cell_by_cell() {
        let mut rows = Rows::new(Budget::default());
        let wide = |text: &str| (0..1600).map(|_| Cell::text(text.repeat(1900))).collect();
        assert_eq!(rows.push(wide("\u{1}")), Ok(()));
        assert_eq!(rows.truncated(), Some(Truncation::Cells));
        assert!(rows.push(wide("b")).is_err());
        let rows = rows.into_rows();
        assert_eq!(rows[0][0]["$cut"], 1900);
        let bytes = json_bytes(&json!(rows[0]));
        assert!(bytes <= 1600 * SMALLEST_SHARE, "{bytes}");
        let digits = Cell::decimal(&"9".repeat(100_000));
        assert_eq!(digits.value()["$cut"], 100_000);
    }

    #[test]
    fn numbers_arrive_as_they_left() {
        for (cell, expected) in [
            (
                Cell::integer(LARGEST_EXACT),
                json!(9_007_199_254_740_991_i64),
            ),
            (
                Cell::integer(-LARGEST_EXACT - 1),
                json!("-9007199254740992"),
            ),
            (Cell::integer(i64::MIN), json!("-9223372036854775808")),
            (Cell::float(0.5), json!(0.5)),
            (Cell::float(f64::NAN), json!("NaN")),
            (Cell::float(f64::NEG_INFINITY), json!("-Infinity")),
            (Cell::decimal("12"), json!(12)),
            (Cell::decimal("1.50"), json!("1.50")),
            (Cell::decimal("-0"), json!("-0")),
            (Cell::decimal("NaN"), json!("NaN")),
            (
                Cell::decimal("12345678901234567890"),
                json!("12345678901234567890"),
            ),
            (Cell::vector(&[0.1, f32::NAN], true), json!([0.1, "NaN"])),
        ] {
            assert_eq!(*cell.value(), expected);
            assert!(!cell.is_cut, "{expected}");
        }
    }

    #[test]
    fn what_is_long_is_cut_and_says_how_long_it_is() {
        let text = "ü".repeat(2_001);
        assert_eq!(
            *Cell::text(text).value(),
            json!({ "$cut": 2_001, "head": "ü".repeat(2_000) })
        );
        assert_eq!(
            *Cell::vector(&[1.0; 1_536], false).value(),
            json!({ "$vector": 1_536, "head": [1.0, 1.0, 1.0, 1.0, 1.0] })
        );
        let hex = |bytes: &[u8]| bytes.len().to_string();
        let cell = Cell::bytes_of(&[0; 100], hex);
        assert_eq!(*cell.value(), json!({ "$bytes": 100, "base64": "48" }));
        assert!(cell.is_cut && !Cell::bytes_of(&[0; 48], hex).is_cut);
        let list: Value = (0..3_000).collect();
        assert_eq!(Cell::json(list).value()["$cut"], json!(13_891));
        assert!(!Cell::text("ü".repeat(2_000)).is_cut);
    }

    #[test]
    fn a_reply_holds_what_it_may_and_says_why_not_more() {
        let row = |text: &str| vec![Cell::text(text.to_owned())];
        let mut rows = Rows::new(Budget { rows: 2, bytes: 40 });
        assert_eq!(rows.push(row("a")), Ok(()));
        assert_eq!(rows.truncated(), None);
        assert_eq!(rows.push(row(&"b".repeat(40))), Err(row(&"b".repeat(40))));
        assert_eq!(rows.truncated(), Some(Truncation::Bytes));
        let mut rows = Rows::new(Budget { rows: 1, bytes: 4 });
        assert_eq!(rows.push(row("longer than it may")), Ok(()));
        assert_eq!(rows.push(row("b")), Err(row("b")));
        assert_eq!(rows.truncated(), Some(Truncation::Rows));
        assert_eq!(rows.into_rows(), [[json!("longer than it may")]]);
    }

    #[test]
    fn a_cut_cell_is_told_when_nothing_else_is_missing() {
        let mut rows = Rows::new(Budget::default());
        assert_eq!(rows.push(vec![Cell::vector(&[1.0; 6], false)]), Ok(()));
        assert_eq!(rows.truncated(), Some(Truncation::Cells));
    }
}
