//! The units a criterion may be stated in, and what they are worth in the base unit of their dimension.

use schemars::JsonSchema;
use serde::Serialize;

use super::decimal::Decimal;

/// What kind of thing a limit measures; each has one base unit in which limits and measurements compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Milliseconds.
    Time,
    /// Bytes.
    Bytes,
    /// Per cent.
    Ratio,
    /// A plain number of things.
    Count,
    /// Times a day.
    Rate,
    /// Bytes a second.
    DataRate,
    /// An HTTP status code.
    Status,
    /// A TCP port.
    Port,
    /// A letter grade, F to A+.
    Grade,
}

impl Dimension {
    /// The unit in which limits of this dimension are compared.
    pub const fn base_unit(self) -> &'static str {
        match self {
            Self::Time => "ms",
            Self::Bytes => "bytes",
            Self::Ratio => "%",
            Self::Count => "count",
            Self::Rate => "per day",
            Self::DataRate => "bytes per second",
            Self::Status => "status",
            Self::Port => "port",
            Self::Grade => "grade",
        }
    }

    /// A limit of this dimension as one would write it, for hints.
    pub(super) const fn example(self) -> &'static str {
        match self {
            Self::Time => "200 ms, 5 seconds, 30 days",
            Self::Bytes => "512 MiB, 2 GiB",
            Self::Ratio => "99.9 %",
            Self::Count => "3",
            Self::Rate => "100 requests per second",
            Self::DataRate => "10 MB/s",
            Self::Status => "returns 200",
            Self::Port => "port 80",
            Self::Grade => "A",
        }
    }
}

/// A unit as found in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// How it is shown.
    pub(super) name: &'static str,
    pub(super) dimension: Dimension,
    /// One of it, in the base unit.
    pub(super) worth: Decimal,
    /// What it is worth in its other reading: GB is 10^9 bytes to some and 2^30 to others.
    pub(super) other_worth: Option<Decimal>,
}

const fn unit(name: &'static str, dimension: Dimension, digits: i128, scale: u32) -> Unit {
    Unit {
        name,
        dimension,
        worth: Decimal::new(digits, scale),
        other_worth: None,
    }
}

const fn ambiguous(name: &'static str, decimal: i128, binary: i128) -> Unit {
    Unit {
        name,
        dimension: Dimension::Bytes,
        worth: Decimal::new(decimal, 0),
        other_worth: Some(Decimal::new(binary, 0)),
    }
}

/// Units whose spelling is fixed: `Mb` is not `MB`.
const SYMBOLS: &[(&[&str], Unit)] = &[
    (&["%"], unit("%", Dimension::Ratio, 1, 0)),
    (&["ns"], unit("ns", Dimension::Time, 1, 6)),
    (&["µs", "μs", "us"], unit("µs", Dimension::Time, 1, 3)),
    (&["ms"], unit("ms", Dimension::Time, 1, 0)),
    (&["s"], unit("s", Dimension::Time, 1_000, 0)),
    (&["h"], unit("h", Dimension::Time, 3_600_000, 0)),
    (&["d"], unit("d", Dimension::Time, 86_400_000, 0)),
    (&["B"], unit("B", Dimension::Bytes, 1, 0)),
    (&["kB", "KB", "kb"], ambiguous("kB", 1_000, 1 << 10)),
    (&["MB", "mb"], ambiguous("MB", 1_000_000, 1 << 20)),
    (&["GB", "gb"], ambiguous("GB", 1_000_000_000, 1 << 30)),
    (&["TB", "tb"], ambiguous("TB", 1_000_000_000_000, 1 << 40)),
    (&["KiB", "Ki"], unit("KiB", Dimension::Bytes, 1 << 10, 0)),
    (&["MiB", "Mi"], unit("MiB", Dimension::Bytes, 1 << 20, 0)),
    (&["GiB", "Gi"], unit("GiB", Dimension::Bytes, 1 << 30, 0)),
    (&["TiB", "Ti"], unit("TiB", Dimension::Bytes, 1 << 40, 0)),
    (&["B/s"], unit("B/s", Dimension::DataRate, 1, 0)),
    (
        &["kB/s", "KB/s"],
        unit("kB/s", Dimension::DataRate, 1_000, 0),
    ),
    (&["MB/s"], unit("MB/s", Dimension::DataRate, 1_000_000, 0)),
    (
        &["GB/s"],
        unit("GB/s", Dimension::DataRate, 1_000_000_000, 0),
    ),
    (
        &["kbit/s", "kbps"],
        unit("kbit/s", Dimension::DataRate, 125, 0),
    ),
    (
        &["Mbit/s", "Mbps"],
        unit("Mbit/s", Dimension::DataRate, 125_000, 0),
    ),
    (
        &["Gbit/s", "Gbps"],
        unit("Gbit/s", Dimension::DataRate, 125_000_000, 0),
    ),
    (
        &["/s", "rps", "qps", "req/s", "requests/s"],
        unit("per second", Dimension::Rate, 86_400, 0),
    ),
];

/// Units written out, in any case.
const WORDS: &[(&[&str], Unit)] = &[
    (&["percent", "pct"], unit("%", Dimension::Ratio, 1, 0)),
    (
        &["nanosecond", "nanoseconds"],
        unit("ns", Dimension::Time, 1, 6),
    ),
    (
        &["microsecond", "microseconds"],
        unit("µs", Dimension::Time, 1, 3),
    ),
    (
        &[
            "ms",
            "msec",
            "msecs",
            "millisecond",
            "milliseconds",
            "millis",
        ],
        unit("ms", Dimension::Time, 1, 0),
    ),
    (
        &["s", "sec", "secs", "second", "seconds"],
        unit("s", Dimension::Time, 1_000, 0),
    ),
    (
        &["min", "mins", "minute", "minutes"],
        unit("min", Dimension::Time, 60_000, 0),
    ),
    (
        &["hr", "hrs", "hour", "hours"],
        unit("h", Dimension::Time, 3_600_000, 0),
    ),
    (&["day", "days"], unit("d", Dimension::Time, 86_400_000, 0)),
    (
        &["week", "weeks"],
        unit("weeks", Dimension::Time, 604_800_000, 0),
    ),
    (&["byte", "bytes"], unit("B", Dimension::Bytes, 1, 0)),
    (&["kilobyte", "kilobytes"], ambiguous("kB", 1_000, 1 << 10)),
    (
        &["megabyte", "megabytes"],
        ambiguous("MB", 1_000_000, 1 << 20),
    ),
    (
        &["gigabyte", "gigabytes"],
        ambiguous("GB", 1_000_000_000, 1 << 30),
    ),
    (
        &["terabyte", "terabytes"],
        ambiguous("TB", 1_000_000_000_000, 1 << 40),
    ),
];

/// Finds the unit with this spelling.
pub(super) fn find(spelling: &str) -> Option<Unit> {
    let exact = SYMBOLS
        .iter()
        .find(|(spellings, _)| spellings.contains(&spelling));
    let lower = spelling.to_lowercase();
    let word = || {
        WORDS
            .iter()
            .find(|(spellings, _)| spellings.contains(&lower.as_str()))
    };
    exact.or_else(word).map(|(_, unit)| *unit)
}

/// How often something happens: the words after a number that make it a rate (`per second`, `a day`).
pub(super) fn rate(period: &str) -> Option<Unit> {
    Some(match period.to_lowercase().as_str() {
        "second" | "sec" | "s" => unit("per second", Dimension::Rate, 86_400, 0),
        "minute" | "min" => unit("per minute", Dimension::Rate, 1_440, 0),
        "hour" | "h" => unit("per hour", Dimension::Rate, 24, 0),
        "day" | "d" => unit("per day", Dimension::Rate, 1, 0),
        _ => return None,
    })
}

/// Words of a subject that say in which dimension a limit of it is stated.
pub(super) fn expected(subject: &str) -> Option<Dimension> {
    let lower = subject.to_lowercase();
    let mut words = lower.split(|character: char| !character.is_alphanumeric());
    words.find_map(|word| match word {
        "time" | "latency" | "interval" | "duration" | "delay" | "timeout" | "retention"
        | "age" => Some(Dimension::Time),
        "memory" | "ram" | "disk" | "storage" | "size" => Some(Dimension::Bytes),
        "uptime" | "availability" => Some(Dimension::Ratio),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_megabit_is_not_taken_for_a_megabyte() {
        assert_eq!(find("Mb"), None);
        assert_eq!(
            find("MB").map(|unit| unit.dimension),
            Some(Dimension::Bytes)
        );
        assert_eq!(
            find("Mbit/s").map(|unit| unit.dimension),
            Some(Dimension::DataRate)
        );
    }

    #[test]
    fn units_written_out_are_known_in_any_case() {
        assert_eq!(find("Seconds"), find("s"));
        assert_eq!(find("MS"), find("ms"));
        assert_eq!(find("GIGABYTES"), find("GB"));
    }
}
