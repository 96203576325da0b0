//! Exact decimal numbers: a limit of 99.9 stays 99.9.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// The most digits a number in a specification may have; anything longer is no measurement.
const MAX_DIGITS: usize = 24;

/// An exact decimal number, `digits / 10^scale`, without trailing zeros after the point.
///
/// It is written as a string in JSON, because JSON readers turn numbers into floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    digits: i128,
    scale: u32,
}

impl Decimal {
    /// Nothing.
    pub const ZERO: Self = Self {
        digits: 0,
        scale: 0,
    };
    /// One hundred, as in per cent.
    pub const HUNDRED: Self = Self {
        digits: 100,
        scale: 0,
    };

    /// `digits / 10^scale`: `Decimal::new(999, 1)` is 99.9.
    pub const fn new(digits: i128, scale: u32) -> Self {
        let (mut digits, mut scale) = (digits, scale);
        while scale > 0 && digits % 10 == 0 {
            digits /= 10;
            scale -= 1;
        }
        Self { digits, scale }
    }

    /// Reads `99.9`, `-5`, `10,000` (groups of three) and `.5`; nothing else, no exponents.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix(['-', '\u{2212}']) {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let whole = without_grouping(whole)?;
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let count = whole.len() + fraction.len();
        if count == 0 || count > MAX_DIGITS || !all_digits(&whole) || !all_digits(fraction) {
            return None;
        }
        if unsigned.ends_with('.') {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = u32::try_from(fraction.len()).ok()?;
        Some(Self::new(if negative { -digits } else { digits }, scale))
    }

    /// The product, or nothing if it does not fit.
    pub fn times(self, other: Self) -> Option<Self> {
        Some(Self::new(
            self.digits.checked_mul(other.digits)?,
            self.scale.checked_add(other.scale)?,
        ))
    }

    /// Whether it is less than zero.
    pub const fn is_negative(self) -> bool {
        self.digits < 0
    }

    /// The number as a whole one, if it is.
    pub fn whole(self) -> Option<u64> {
        if self.scale == 0 {
            u64::try_from(self.digits).ok()
        } else {
            None
        }
    }
}

/// Takes the commas out of `10,000`; a comma anywhere else is not a number (99,9 means different things to different people).
fn without_grouping(whole: &str) -> Option<String> {
    let mut groups = whole.split(',');
    let first = groups.next()?;
    if !whole.contains(',') {
        return Some(first.to_owned());
    }
    let well_grouped = (1..=3).contains(&first.len()) && groups.all(|group| group.len() == 3);
    well_grouped.then(|| whole.replace(',', ""))
}

impl From<u64> for Decimal {
    fn from(value: u64) -> Self {
        Self::new(i128::from(value), 0)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let whole = |value: &Self| value.digits.div_euclid(power_of_ten(value.scale));
        let rest = |value: &Self| value.digits.rem_euclid(power_of_ten(value.scale));
        whole(self).cmp(&whole(other)).then_with(|| {
            // Fractions compare as text once they are padded to one length.
            let fraction = |value: &Self| {
                let digits = format!("{:0>1$}", rest(value), value.scale as usize);
                digits.trim_end_matches('0').to_owned()
            };
            match (rest(self), rest(other)) {
                (0, 0) => Ordering::Equal,
                (0, _) => Ordering::Less,
                (_, 0) => Ordering::Greater,
                _ => fraction(self).cmp(&fraction(other)),
            }
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Ten to the power of `scale`; past the range of the type no digits are left above the point anyway.
fn power_of_ten(scale: u32) -> i128 {
    10_i128.checked_pow(scale).unwrap_or(i128::MAX)
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scale == 0 {
            return write!(formatter, "{}", self.digits);
        }
        let width = self.scale as usize + 1;
        let digits = format!("{:0>width$}", self.digits.unsigned_abs());
        let (whole, fraction) = digits.split_at(digits.len() - self.scale as usize);
        let sign = if self.is_negative() { "-" } else { "" };
        write!(formatter, "{sign}{whole}.{fraction}")
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Decimal {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_and_shown_as_written() {
        for text in ["0", "99.9", "-0.001", "200", "0.1", "12345678901234567890"] {
            assert_eq!(
                Decimal::parse(text)
                    .map(|value| value.to_string())
                    .as_deref(),
                Some(text)
            );
        }
        assert_eq!(Decimal::parse("10,000"), Some(Decimal::from(10_000)));
        assert_eq!(Decimal::parse(".5"), Some(Decimal::new(5, 1)));
        assert_eq!(Decimal::parse("2.50"), Some(Decimal::new(25, 1)));
    }

    #[test]
    fn what_is_no_plain_number_is_refused() {
        for text in [
            "",
            ".",
            "5.",
            "1e3",
            "99,9",
            "1,00,000",
            "NaN",
            "0x10",
            "1.2.3",
            "--5",
            "1234567890123456789012345",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn numbers_compare_by_value() {
        let sorted = [
            "-2", "-1.5", "-1.05", "0", "0.009", "0.01", "0.1", "1", "99.9", "99.95", "100",
        ];
        for pair in sorted.windows(2) {
            assert!(
                Decimal::parse(pair[0]) < Decimal::parse(pair[1]),
                "{pair:?}"
            );
        }
        assert_eq!(Decimal::new(10, 1).cmp(&Decimal::from(1)), Ordering::Equal);
    }
}
