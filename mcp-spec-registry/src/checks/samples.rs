//! Latencies of many requests, and the percentiles of them.

use serde::Serialize;

use crate::specification::Decimal;

/// Latencies in microseconds, shortest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Latencies(Vec<u64>);

/// What is kept of many latencies, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    count: usize,
    min: u64,
    p50: u64,
    p90: u64,
    p95: u64,
    p99: u64,
    max: u64,
    mean: u64,
}

impl Latencies {
    pub(super) fn of(mut microseconds: Vec<u64>) -> Self {
        microseconds.sort_unstable();
        Self(microseconds)
    }

    /// The smallest latency that at least this share (in per cent) of all do not exceed: the nearest rank, never a value
    /// between two measured ones.
    pub(super) fn percentile(&self, percentile: Decimal) -> Option<u64> {
        let rank = rank(percentile, self.0.len())?;
        self.0.get(rank - 1).copied()
    }

    pub(super) fn summary(&self) -> Option<Summary> {
        let whole = |per_cent: u64| self.percentile(Decimal::from(per_cent));
        let sum: u128 = self.0.iter().copied().map(u128::from).sum();
        let mean = sum.checked_div(self.0.len() as u128)?;
        Some(Summary {
            count: self.0.len(),
            min: *self.0.first()?,
            p50: whole(50)?,
            p90: whole(90)?,
            p95: whole(95)?,
            p99: whole(99)?,
            max: *self.0.last()?,
            mean: u64::try_from(mean).ok()?,
        })
    }
}

/// `⌈percentile / 100 × count⌉`, at least 1, computed without floats: 99.9 % of 1000 is 999.
fn rank(percentile: Decimal, count: usize) -> Option<usize> {
    let text = percentile.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let hundred = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()? + 2)?;
    let rank = digits.checked_mul(count as u128)?.div_ceil(hundred).max(1);
    usize::try_from(rank).ok().filter(|rank| *rank <= count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let of = |count: u64, percentile: &str| {
            let latencies = Latencies::of((1..=count).rev().collect());
            Decimal::parse(percentile).and_then(|percentile| latencies.percentile(percentile))
        };
        for (count, percentile, expected) in [
            (0, "95", None),
            (1, "95", Some(1)),
            (1, "50", Some(1)),
            (19, "95", Some(19)),
            (20, "95", Some(19)),
            (21, "95", Some(20)),
            (100, "95", Some(95)),
            (100, "99", Some(99)),
            (100, "99.5", Some(100)),
            (1000, "99.9", Some(999)),
            (100, "100", Some(100)),
            (100, "0", Some(1)),
            (100, "101", None),
        ] {
            assert_eq!(of(count, percentile), expected, "p{percentile} of {count}");
        }
    }

    #[test]
    fn a_summary_keeps_the_spread_of_all_latencies() {
        let summary = Latencies::of(vec![30, 10, 20]).summary();
        let expected = Summary {
            count: 3,
            min: 10,
            p50: 20,
            p90: 30,
            p95: 30,
            p99: 30,
            max: 30,
            mean: 20,
        };
        assert_eq!(summary, Some(expected));
        assert_eq!(Latencies::of(Vec::new()).summary(), None);
    }
}
