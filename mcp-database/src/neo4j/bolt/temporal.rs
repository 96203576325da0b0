//! Dates, times and durations, and their ISO 8601 text as the server itself would print it.

use std::fmt;

const SECONDS_PER_DAY: i64 = 86_400;
const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;

/// A calendar date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Days since 1970-01-01, within the server's years -999,999,999 to 999,999,999.
    pub days: i64,
}

/// A time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Nanoseconds since midnight, less than a day.
    pub nanoseconds: i64,
}

/// A time of day with an offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Nanoseconds since midnight on the local clock, less than a day.
    pub nanoseconds: i64,
    /// Seconds east of UTC, at most 18 hours.
    pub offset_seconds: i32,
}

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalDateTime {
    /// Seconds since 1970-01-01T00:00:00 on the local clock.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanoseconds: u32,
}

/// An instant, and the offset or zone it is to be shown in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Seconds since the epoch: UTC, except with [`Zone::LocalName`].
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanoseconds: u32,
    /// Where.
    pub zone: Zone,
}

/// The place of a [`DateTime`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Seconds east of UTC, at most 18 hours.
    Offset(i32),
    /// A zone such as `Europe/Berlin`. Its rules are not known here, so the text is in UTC:
    /// `…Z[Europe/Berlin]`.
    Name(String),
    /// A zone, with the seconds counted on its local clock: what servers before Neo4j 4.4 send.
    LocalName(String),
}

/// An amount of time; months, days and seconds do not convert into each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration {
    /// Months.
    pub months: i64,
    /// Days.
    pub days: i64,
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds to add to the seconds, 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl fmt::Display for Date {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Howard Hinnant's civil_from_days: years start in March, so that the leap day is the last
        // day of a year.
        let shifted = self.days.saturating_add(719_468);
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let sign = match year {
            10_000.. => "+",
            0.. => "",
            _ => "-",
        };
        write!(
            formatter,
            "{sign}{:04}-{month:02}-{day:02}",
            year.unsigned_abs()
        )
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.nanoseconds.div_euclid(NANOSECONDS_PER_SECOND);
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(formatter, "{hours:02}:{minutes:02}:{:02}", seconds % 60)?;
        write_fraction(
            formatter,
            self.nanoseconds
                .rem_euclid(NANOSECONDS_PER_SECOND)
                .unsigned_abs(),
        )
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        LocalTime {
            nanoseconds: self.nanoseconds,
        }
        .fmt(formatter)?;
        write_offset(formatter, self.offset_seconds)
    }
}

impl fmt::Display for LocalDateTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = Date {
            days: self.seconds.div_euclid(SECONDS_PER_DAY),
        };
        let second_of_day = self.seconds.rem_euclid(SECONDS_PER_DAY);
        let time = LocalTime {
            nanoseconds: second_of_day * NANOSECONDS_PER_SECOND + i64::from(self.nanoseconds),
        };
        write!(formatter, "{date}T{time}")
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seconds,
            nanoseconds,
            zone,
        } = self;
        let east = if let Zone::Offset(offset) = zone {
            i64::from(*offset)
        } else {
            0
        };
        LocalDateTime {
            seconds: seconds.saturating_add(east),
            nanoseconds: *nanoseconds,
        }
        .fmt(formatter)?;
        match zone {
            Zone::Offset(offset) => write_offset(formatter, *offset),
            Zone::Name(name) => write!(formatter, "Z[{name}]"),
            Zone::LocalName(name) => write!(formatter, "[{name}]"),
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            months,
            days,
            seconds,
            nanoseconds,
        } = *self;
        if (months, days, seconds, nanoseconds) == (0, 0, 0, 0) {
            return formatter.write_str("PT0S");
        }
        formatter.write_str("P")?;
        for (amount, unit) in [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')] {
            if amount != 0 {
                write!(formatter, "{amount}{unit}")?;
            }
        }
        if (seconds, nanoseconds) == (0, 0) {
            return Ok(());
        }
        // -1 s + 0.75 s is printed as -0.25 s.
        let negative = seconds < 0;
        let (whole, fraction) = if negative && nanoseconds > 0 {
            (seconds + 1, 1_000_000_000 - nanoseconds)
        } else {
            (seconds, nanoseconds)
        };
        formatter.write_str("T")?;
        for (amount, unit) in [(whole / 3600, 'H'), (whole / 60 % 60, 'M')] {
            if amount != 0 {
                write!(formatter, "{amount}{unit}")?;
            }
        }
        if (whole % 60, fraction) != (0, 0) {
            let sign = if negative { "-" } else { "" };
            write!(formatter, "{sign}{}", (whole % 60).unsigned_abs())?;
            write_fraction(formatter, u64::from(fraction))?;
            formatter.write_str("S")?;
        }
        Ok(())
    }
}

/// Nothing, or a point and as many digits as are needed.
fn write_fraction(formatter: &mut fmt::Formatter<'_>, nanoseconds: u64) -> fmt::Result {
    if nanoseconds == 0 {
        return Ok(());
    }
    let digits = format!("{nanoseconds:09}");
    write!(formatter, ".{}", digits.trim_end_matches('0'))
}

fn write_offset(formatter: &mut fmt::Formatter<'_>, offset_seconds: i32) -> fmt::Result {
    if offset_seconds == 0 {
        return formatter.write_str("Z");
    }
    let sign = if offset_seconds < 0 { '-' } else { '+' };
    let seconds = offset_seconds.unsigned_abs();
    write!(
        formatter,
        "{sign}{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60
    )?;
    if seconds.is_multiple_of(60) {
        Ok(())
    } else {
        write!(formatter, ":{:02}", seconds % 60)
    }
}
