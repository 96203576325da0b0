//! Times, numbers and states in words.

use time::{Duration, OffsetDateTime};

use crate::{
    run::{CheckVerdict, CheckpointState, RunState, Verdict},
    specification::{Measure, Operator},
};

/// A length of time as people say it: `2 days`, `3 h 20 min`, `40 s`, `3 ms`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.whole_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600, seconds / 60);
    match () {
        () if days >= 2 => format!("{days} days"),
        () if hours >= 1 && minutes % 60 > 0 => format!("{hours} h {} min", minutes % 60),
        () if hours >= 1 => format!("{hours} h"),
        () if minutes >= 1 => format!("{minutes} min"),
        () if seconds >= 1 => format!("{seconds} s"),
        () => format!("{} ms", duration.whole_milliseconds().max(0)),
    }
}

/// A moment to the second, in UTC: `2026-11-24 04:30:05 UTC`.
pub fn moment(moment: OffsetDateTime) -> String {
    let utc = moment.to_offset(time::UtcOffset::UTC);
    format!(
        "{}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        utc.year(),
        u8::from(utc.month()),
        utc.day(),
        utc.hour(),
        utc.minute(),
        utc.second()
    )
}

/// `1 step`, `2 steps`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The limit of a criterion: `< 200 ms, 95th percentile`.
pub fn limit(measure: &Measure) -> String {
    let operator = match measure.operator {
        Operator::Less => "<",
        Operator::AtMost => "≤",
        Operator::Equal => "=",
        Operator::AtLeast => "≥",
        Operator::Greater => ">",
    };
    let mut words = format!("{operator} {}", shared::visible::prose(&measure.value));
    if !measure.unit.is_empty() {
        words.push(' ');
        words.push_str(&shared::visible::prose(&measure.unit));
    }
    if let Some(percentile) = &measure.percentile {
        words += ", ";
        words += &percentile.to_string();
        words += "th percentile";
    }
    if let Some(load) = &measure.load {
        words += ", under ";
        words += &shared::visible::prose(&load.text);
    }
    words
}

/// Where a checkpoint stands.
pub fn checkpoint_state(state: CheckpointState) -> &'static str {
    match state {
        CheckpointState::Open => "open",
        CheckpointState::Approved => "approved",
        CheckpointState::Rejected => "rejected",
        CheckpointState::Clarify => "asked back",
        CheckpointState::Expired => "expired: nobody answered in time",
        CheckpointState::Superseded => "superseded by a newer revision",
        CheckpointState::Withdrawn => "withdrawn: the run ended before it was answered",
    }
}

/// What a human said.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Approve => "approved",
        Verdict::Reject => "rejected",
        Verdict::Clarify => "asked back",
    }
}

/// What a check found.
pub fn check_verdict(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::Pass => "pass",
        CheckVerdict::Fail => "fail",
        CheckVerdict::Unknown => "unknown",
        CheckVerdict::Provisional => "provisional",
    }
}

/// Where a run stands.
pub fn run_state(state: RunState) -> &'static str {
    match state {
        RunState::Requested => "requested: no agent works on it yet",
        RunState::Analyzing => "analyzing: an agent makes a plan",
        RunState::AwaitingV1 => "waiting for a human to review the plan (V1)",
        RunState::Approved => "approved: not begun yet",
        RunState::Generating => "generating: an agent carries the plan out",
        RunState::Verifying => "verifying: the registry measures the outcome",
        RunState::AwaitingV2 => "waiting for a human to judge the outcome (V2)",
        RunState::Validated => "validated: reached and accepted",
        RunState::Rejected => "rejected: a human ended it",
        RunState::Expired => "expired: a checkpoint was not answered in time",
        RunState::Failed => "failed: given up after too many tries",
        RunState::Cancelled => "cancelled",
        RunState::Aborted => "aborted by the kill switch",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_the_way_people_say_them() {
        for (seconds, words) in [
            (0, "0 ms"),
            (40, "40 s"),
            (61, "1 min"),
            (3_600, "1 h"),
            (12_000, "3 h 20 min"),
            (604_800, "7 days"),
        ] {
            assert_eq!(duration(Duration::seconds(seconds)), words);
        }
        assert_eq!(
            moment(OffsetDateTime::UNIX_EPOCH),
            "1970-01-01 00:00:00 UTC"
        );
    }
}
