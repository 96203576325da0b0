//! What a machine can compare of a criterion: subject, operator, limit, percentile, window, load.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::decimal::Decimal;
use super::unit::Dimension;

/// How a measurement has to compare with the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub enum Operator {
    /// Below the limit.
    #[serde(rename = "<")]
    Less,
    /// At or below the limit.
    #[serde(rename = "<=")]
    AtMost,
    /// Exactly the limit.
    #[serde(rename = "=")]
    Equal,
    /// At or above the limit.
    #[serde(rename = ">=")]
    AtLeast,
    /// Above the limit.
    #[serde(rename = ">")]
    Greater,
}

impl Operator {
    /// As one writes it: `<`, `<=`, `=`, `>=`, `>`.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::AtLeast => ">=",
            Self::Greater => ">",
        }
    }

    pub(super) const fn is_upper(self) -> bool {
        matches!(self, Self::Less | Self::AtMost)
    }

    pub(super) const fn is_lower(self) -> bool {
        matches!(self, Self::Greater | Self::AtLeast)
    }

    pub(super) fn of_sign(sign: &str) -> Option<Self> {
        Some(match sign {
            "<" => Self::Less,
            "<=" | "≤" | "⩽" | "≦" => Self::AtMost,
            "=" | "==" => Self::Equal,
            ">=" | "≥" | "⩾" | "≧" => Self::AtLeast,
            ">" => Self::Greater,
            _ => return None,
        })
    }
}

/// A letter grade as SSL Labs gives it, from F to A+.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grade(u8);

/// The grades, worst first.
const GRADES: [&str; 8] = ["F", "E", "D", "C", "B", "A-", "A", "A+"];

impl Grade {
    /// Reads `A+`, `A`, `A-`, `B` … `F`.
    pub fn parse(text: &str) -> Option<Self> {
        let rank = GRADES.iter().position(|grade| *grade == text)?;
        u8::try_from(rank).ok().map(Self)
    }

    /// The grade as it is written.
    pub fn as_str(self) -> &'static str {
        GRADES.get(usize::from(self.0)).copied().unwrap_or("F")
    }
}

/// What a measurement is compared with, or a measurement itself: a number in its dimension's base unit, or a grade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// A number in the base unit of its dimension.
    Number(Decimal),
    /// A letter grade.
    Grade(Grade),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(formatter),
            Self::Grade(grade) => formatter.write_str(grade.as_str()),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The load under which a limit has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Load {
    /// As written: `100 concurrent connections`.
    pub text: String,
    /// How many at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<Decimal>,
    /// How many each second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<Decimal>,
}

/// What a machine can compare: `subject operator limit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Measure {
    /// What is measured, in the author's words; may be empty where the text is only a limit.
    pub subject: String,
    /// How a measurement compares with the limit.
    pub operator: Operator,
    /// The number or grade as written.
    pub value: String,
    /// The unit of `value`; empty for a plain count.
    pub unit: String,
    /// What kind of thing is measured.
    pub dimension: Dimension,
    /// The limit in the base unit of the dimension (ms, bytes, %, count, per day, bytes per second), as a decimal.
    #[schemars(with = "String")]
    pub limit: Limit,
    /// Which percentile of the measurements has to hold, where stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile: Option<Decimal>,
    /// Over how long the limit has to hold, in milliseconds, where stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<Decimal>,
    /// Under which load, where stated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

impl Measure {
    /// Whether a measurement, in the base unit of the dimension, satisfies the limit; a grade never compares with a number.
    pub fn holds(&self, measured: Limit) -> bool {
        let order = match (measured, self.limit) {
            (Limit::Number(measured), Limit::Number(limit)) => measured.cmp(&limit),
            (Limit::Grade(measured), Limit::Grade(limit)) => measured.cmp(&limit),
            _ => return false,
        };
        match self.operator {
            Operator::Less => order.is_lt(),
            Operator::AtMost => order.is_le(),
            Operator::Equal => order.is_eq(),
            Operator::AtLeast => order.is_ge(),
            Operator::Greater => order.is_gt(),
        }
    }

    /// Whether no measurement can satisfy both; only for measures of one thing.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let pair = |lower: &Self, upper: &Self| {
            (lower.operator.is_lower() || lower.operator == Operator::Equal)
                && (upper.operator.is_upper() || upper.operator == Operator::Equal)
                && match (lower.limit, upper.limit) {
                    (Limit::Number(low), Limit::Number(high)) => {
                        let strict =
                            lower.operator == Operator::Greater || upper.operator == Operator::Less;
                        low > high || (low == high && strict)
                    }
                    (Limit::Grade(low), Limit::Grade(high)) => low > high,
                    _ => false,
                }
        };
        pair(self, other) || pair(other, self)
    }
}
