//! What an observation says about a criterion. What was not measured is never a pass.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::{
    digest::Digest,
    effect::protocol::{CommandMeasure, SessionMeasure},
};

use super::{
    http::Failure,
    job::{HttpMeasured, TEST_TIMEOUT},
    samples::Latencies,
};
use crate::{
    plan::{Check, CommandCheck, FileCheck, HttpCheck, RestartCheck, SessionMeasureKind, Target},
    run::CheckVerdict,
    specification::{Criterion, Decimal, Dimension, Limit, Measure},
};

/// The percentile that a latency criterion means if it states none.
const USUAL_PERCENTILE: u64 = 95;
/// The window of an availability criterion that states none: 30 days.
const USUAL_WINDOW: &str = "its window (30 days, as none is stated)";

/// What was found when a check was carried out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Observation {
    /// There is nothing to measure: the step did not run, published no such port, or its process is gone.
    Missing(String),
    /// It could not be measured.
    NotMeasured(String),
    Http(HttpMeasured),
    Tcp {
        took_us: Option<u64>,
        failure: Option<Failure>,
    },
    Session(SessionMeasure),
    File(Option<Digest>),
    Restart(Restarted),
    Command(CommandMeasure),
}

/// What happened after the serving process was ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Restarted {
    /// Whether it answered before, without which a restart proves nothing.
    pub(super) answered_before: bool,
    /// Processes that were ended.
    pub(super) ended: u32,
    /// From the order to end it until it answered again.
    pub(super) back_after_us: Option<u64>,
    /// Whether the session is the same one as before, where its server could tell.
    pub(super) same_session: Option<bool>,
}

/// What came out of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What came out.
    pub verdict: CheckVerdict,
    /// What was measured, in words: `p95 3.1 ms of 50 requests (< 200 ms)`.
    pub measured: String,
    /// Why, where the measurement alone does not say it.
    pub reason: Option<String>,
}

/// Judges an observation by the criterion's limit, and by the check's own expectation where the criterion has no number.
pub(super) fn judge(
    criterion: Option<&Criterion>,
    check: &Check,
    observation: &Observation,
) -> Judgement {
    let measure = criterion.and_then(|criterion| criterion.measure.as_ref());
    let judgement = match (check, observation) {
        (_, Observation::Missing(reason)) => fail("nothing there", reason),
        (_, Observation::NotMeasured(reason)) => unknown("not measured", reason),
        (Check::Http(check), Observation::Http(found)) => judge_http(measure, check, found),
        (Check::Tcp(check), Observation::Tcp { took_us, failure }) => {
            judge_tcp(measure, &check.target, *took_us, *failure)
        }
        (Check::Session(check), Observation::Session(found)) => {
            judge_session(measure, check.measure, found)
        }
        (Check::File(check), Observation::File(found)) => {
            judge_file(measure, check, found.as_ref())
        }
        (Check::Restart(check), Observation::Restart(found)) => {
            judge_restart(measure, check, found)
        }
        (Check::Command(check), Observation::Command(found)) => {
            judge_command(measure, check, found)
        }
        _ => unknown(
            "not measured",
            "what was measured is not what the test asks for",
        ),
    };
    only_so_far(measure, judgement)
}

/// The verdict after Generate, given the one before: only a test that failed before anything was done proves something when it
/// passes now.
pub fn combine(before: Option<CheckVerdict>, after: Judgement) -> Judgement {
    let holds_now = matches!(
        after.verdict,
        CheckVerdict::Pass | CheckVerdict::Provisional
    );
    let reason = match before {
        Some(CheckVerdict::Fail) => return after,
        _ if !holds_now => return after,
        Some(CheckVerdict::Pass | CheckVerdict::Provisional) => {
            "proves nothing: the test passed before anything was done"
        }
        Some(CheckVerdict::Unknown) | None => {
            "proves nothing: what held before anything was done could not be measured"
        }
    };
    Judgement {
        verdict: CheckVerdict::Unknown,
        reason: Some(reason.to_owned()),
        ..after
    }
}

fn judge_http(measure: Option<&Measure>, check: &HttpCheck, found: &HttpMeasured) -> Judgement {
    let is_status = measure.is_some_and(|measure| measure.dimension == Dimension::Status);
    let needs_success = check.expect.status.is_none() && !is_status;
    let good = if needs_success {
        found.matched.min(found.successes)
    } else {
        found.matched
    };
    let measured = match measure {
        Some(measure) => http_limit(measure, check, found, good),
        None => pass(format!(
            "{} of {} answers as expected",
            good, found.requests
        )),
    };
    if found.requests == 0 {
        return unknown("no request", "no time was left for a single request");
    }
    // An availability criterion counts the bad answers; to every other one each is a failure.
    let counts_failures = measure.is_some_and(is_availability);
    if good < found.requests && !counts_failures {
        return Judgement {
            verdict: CheckVerdict::Fail,
            reason: Some(what_was_wrong(check, found, needs_success)),
            ..measured
        };
    }
    if found.requests < check.samples && measured.verdict == CheckVerdict::Pass {
        let reason = format!(
            "only {} of {} requests could be made in {} s",
            found.requests,
            check.samples,
            TEST_TIMEOUT.as_secs()
        );
        return Judgement {
            verdict: CheckVerdict::Unknown,
            reason: Some(reason),
            ..measured
        };
    }
    measured
}

fn http_limit(measure: &Measure, check: &HttpCheck, found: &HttpMeasured, good: u32) -> Judgement {
    let limit = limit(measure);
    match measure.dimension {
        Dimension::Time => {
            let percentile = measure
                .percentile
                .unwrap_or_else(|| Decimal::from(USUAL_PERCENTILE));
            let latencies = Latencies::of(found.latencies_us.clone());
            let Some(took) = latencies.percentile(percentile) else {
                return fail("no answer", "none of the requests was answered");
            };
            let text = format!(
                "p{percentile} {} of {} requests ({limit})",
                milliseconds(took),
                found.requests
            );
            let judgement = compare(measure, Decimal::new(i128::from(took), 3), text);
            match &measure.load {
                Some(load) if judgement.verdict == CheckVerdict::Pass => Judgement {
                    verdict: CheckVerdict::Unknown,
                    reason: Some(format!(
                        "measured one request after the other, not under {}",
                        load.text
                    )),
                    ..judgement
                },
                _ => judgement,
            }
        }
        Dimension::Ratio => availability(measure, good, found.requests),
        Dimension::Status => {
            let statuses: Vec<String> = found.statuses.keys().map(ToString::to_string).collect();
            let text = format!("status {} ({limit})", statuses.join(", "));
            let all = !found.statuses.is_empty()
                && found
                    .statuses
                    .keys()
                    .all(|status| measure.holds(Limit::Number(Decimal::from(u64::from(*status)))));
            if all {
                pass(text)
            } else {
                fail(&text, "another status was answered")
            }
        }
        Dimension::Port => port(measure, &check.target, found.statuses.is_empty()),
        _ => cannot(measure, "an http check"),
    }
}

fn judge_tcp(
    measure: Option<&Measure>,
    target: &Target,
    took_us: Option<u64>,
    failure: Option<Failure>,
) -> Judgement {
    let Some(took) = took_us else {
        let reason = failure.map_or("no connection", failure_text);
        return fail("not connected", reason);
    };
    let measured = format!("connected in {}", milliseconds(took));
    match measure {
        None => pass(measured),
        Some(measure) if measure.dimension == Dimension::Port => port(measure, target, false),
        Some(measure) if measure.dimension == Dimension::Time => {
            let text = format!("{measured} ({})", limit(measure));
            compare(measure, Decimal::new(i128::from(took), 3), text)
        }
        Some(measure) if measure.dimension == Dimension::Ratio => availability(measure, 1, 1),
        Some(measure) => cannot(measure, "a tcp check"),
    }
}

fn judge_session(
    measure: Option<&Measure>,
    kind: SessionMeasureKind,
    found: &SessionMeasure,
) -> Judgement {
    if !found.alive {
        return fail("not running", "the process has ended");
    }
    match (kind, measure) {
        (SessionMeasureKind::Memory, Some(measure)) if measure.dimension == Dimension::Bytes => {
            let text = format!(
                "{} in {} ({})",
                bytes(found.memory_bytes),
                count(found.processes, "process", "processes"),
                limit(measure)
            );
            compare(measure, Decimal::from(found.memory_bytes), text)
        }
        (SessionMeasureKind::Memory, Some(measure)) => cannot(measure, "a memory check"),
        (SessionMeasureKind::Memory, None) => unknown(
            &bytes(found.memory_bytes),
            "the criterion states no limit to compare it with",
        ),
        (SessionMeasureKind::NotRoot, _) if found.uids.is_empty() => {
            unknown("no uid", "its server did not say under which uids it runs")
        }
        (SessionMeasureKind::NotRoot, _) => {
            let mut uids = found.uids.clone();
            uids.sort_unstable();
            uids.dedup();
            let listed: Vec<String> = uids.iter().take(5).map(ToString::to_string).collect();
            let text = format!("uid {}", listed.join(", "));
            if uids.first() == Some(&0) {
                fail(&text, "a process runs as root on the host")
            } else {
                pass(text)
            }
        }
        (SessionMeasureKind::Alive, None) => pass(format!(
            "running, {}",
            count(found.processes, "process", "processes")
        )),
        (SessionMeasureKind::Alive, Some(measure)) if is_availability(measure) => {
            availability(measure, 1, 1)
        }
        (SessionMeasureKind::Alive, Some(measure)) => cannot(measure, "an alive check"),
    }
}

fn judge_file(measure: Option<&Measure>, check: &FileCheck, found: Option<&Digest>) -> Judgement {
    match (found, measure) {
        (None, _) => fail("no file", &format!("there is no `{}`", check.path)),
        (Some(digest), _) if *digest != check.sha256 => fail(
            &format!("sha256 {}", digest.short()),
            &format!("it should be {}", check.sha256.short()),
        ),
        (Some(_), Some(measure)) => cannot(measure, "a file check"),
        (Some(digest), None) => pass(format!("sha256 {}", digest.short())),
    }
}

fn judge_command(
    measure: Option<&Measure>,
    check: &CommandCheck,
    found: &CommandMeasure,
) -> Judgement {
    let took = format!("after {} ms", found.wall_ms);
    if found.timed_out {
        let reason = format!("it did not end within {} ms", check.timeout_ms);
        return fail("did not end", &reason);
    }
    let Some(code) = found.exit_code else {
        let signal = found.signal.unwrap_or(0);
        return fail(
            &format!("ended by signal {signal} {took}"),
            "it did not end by itself",
        );
    };
    let ended = format!("exited with {code} {took}");
    if code != check.exit_code {
        return fail(&ended, &format!("it should exit with {}", check.exit_code));
    }
    if check.text.is_some() && found.text_found != Some(true) {
        return fail(&ended, "it did not write the text that was expected");
    }
    match measure {
        Some(measure) => cannot(measure, "a command"),
        None => pass(ended),
    }
}

fn judge_restart(measure: Option<&Measure>, check: &RestartCheck, found: &Restarted) -> Judgement {
    if !found.answered_before {
        return fail(
            "no answer",
            "it did not answer even before its process was ended",
        );
    }
    if found.ended == 0 {
        return unknown(
            "nothing ended",
            "no serving process was ended, so nothing was tried",
        );
    }
    let within = milliseconds(u64::from(check.within_ms) * 1000);
    let Some(back) = found.back_after_us else {
        return fail(
            "ended, not back",
            &format!("it did not answer again within {within}"),
        );
    };
    let text = format!("ended, back after {}", milliseconds(back));
    if back > u64::from(check.within_ms) * 1000 {
        return fail(&text, &format!("later than {within}"));
    }
    if found.same_session == Some(false) {
        return unknown(
            &text,
            "another session answered than the one that was measured",
        );
    }
    match measure {
        None => pass(format!("{text} (within {within})")),
        Some(measure) if measure.dimension == Dimension::Time => {
            let text = format!("{text} ({})", limit(measure));
            compare(measure, Decimal::new(i128::from(back), 3), text)
        }
        Some(measure) if is_availability(measure) => availability(measure, 1, 1),
        Some(measure) => cannot(measure, "a restart check"),
    }
}

/// A share of good answers is final only when the window it speaks of has passed; a bad share is final at once.
fn availability(measure: &Measure, good: u32, all: u32) -> Judgement {
    if !is_availability(measure) {
        return cannot(measure, "the check");
    }
    // Rounded down at the third decimal, so that no limit is met by rounding.
    let thousandths = u64::from(good) * 100_000 / u64::from(all.max(1));
    let share = Decimal::new(i128::from(thousandths), 3);
    let text = format!(
        "{share} % of {} ({})",
        count(all, "request", "requests"),
        limit(measure)
    );
    match compare(measure, share, text) {
        held if held.verdict == CheckVerdict::Pass => Judgement {
            verdict: CheckVerdict::Provisional,
            reason: Some(format!("good so far; {} has not passed", window(measure))),
            ..held
        },
        missed => missed,
    }
}

/// A limit that has to hold over a window is not proven in a moment.
fn only_so_far(measure: Option<&Measure>, judgement: Judgement) -> Judgement {
    match measure {
        Some(measure) if measure.window_ms.is_some() && judgement.verdict == CheckVerdict::Pass => {
            Judgement {
                verdict: CheckVerdict::Provisional,
                reason: Some(format!("good so far; {} has not passed", window(measure))),
                ..judgement
            }
        }
        _ => judgement,
    }
}

fn window(measure: &Measure) -> String {
    let Some(window) = measure.window_ms.and_then(Decimal::whole) else {
        return USUAL_WINDOW.to_owned();
    };
    let (size, unit) = [
        (86_400_000, "days"),
        (3_600_000, "hours"),
        (60_000, "minutes"),
    ]
    .into_iter()
    .find(|(size, _)| window >= 2 * size)
    .unwrap_or((1000, "seconds"));
    format!("its window ({} {unit})", window / size)
}

fn is_availability(measure: &Measure) -> bool {
    let subject = measure.subject.to_lowercase();
    let words = ["uptime", "availab", "success", "service level"];
    measure.dimension == Dimension::Ratio && words.iter().any(|word| subject.contains(word))
}

fn port(measure: &Measure, target: &Target, is_silent: bool) -> Judgement {
    let text = format!("port {} ({})", target.port, limit(measure));
    if is_silent {
        return fail(&text, "nothing answers there");
    }
    compare(measure, Decimal::from(u64::from(target.port)), text)
}

fn compare(measure: &Measure, value: Decimal, text: String) -> Judgement {
    if measure.holds(Limit::Number(value)) {
        pass(text)
    } else {
        fail(&text, "outside the limit")
    }
}

fn cannot(measure: &Measure, check: &str) -> Judgement {
    unknown(
        "not measured",
        &format!(
            "{check} does not measure what the criterion limits ({})",
            limit(measure)
        ),
    )
}

fn what_was_wrong(check: &HttpCheck, found: &HttpMeasured, needs_success: bool) -> String {
    let mut wrong: Vec<String> = found
        .failures
        .iter()
        .map(|(failure, count)| format!("{count} {}", failure_text(*failure)))
        .collect();
    let answers: u32 = found.statuses.values().sum();
    let statuses = |wanted: &dyn Fn(u16) -> bool| -> Vec<String> {
        let unwanted = found
            .statuses
            .iter()
            .filter(|(status, _)| !wanted(**status));
        unwanted
            .map(|(status, count)| format!("{count} answered {status}"))
            .collect()
    };
    if let Some(expected) = check.expect.status {
        wrong.extend(statuses(&|status| status == expected));
    } else if needs_success {
        wrong.extend(statuses(&|status| (200..300).contains(&status)));
    }
    let headers: &BTreeMap<String, u32> = &found.headers_matched;
    for (name, matched) in headers.iter().filter(|(_, matched)| **matched < answers) {
        wrong.push(format!(
            "{} without the expected header {name}",
            answers - matched
        ));
    }
    if let Some(matched) = found.text_matched.filter(|matched| *matched < answers) {
        wrong.push(format!("{} without the expected text", answers - matched));
    }
    format!(
        "of {}: {}",
        count(found.requests, "request", "requests"),
        wrong.join(", ")
    )
}

fn failure_text(failure: Failure) -> &'static str {
    match failure {
        Failure::Refused => "refused the connection",
        Failure::TimedOut => "not answered in time",
        Failure::Closed => "broken off",
        Failure::NotHttp => "not answered in HTTP",
        Failure::HeadersTooLarge => "with too large a head",
        Failure::BodyTooLarge => "with too large a body",
        Failure::Network => "failed in the network",
    }
}

/// The limit as its author wrote it: `< 200 ms`.
fn limit(measure: &Measure) -> String {
    let Measure {
        operator,
        value,
        unit,
        ..
    } = measure;
    let text = format!("{} {value} {unit}", operator.symbol());
    text.trim_end().to_owned()
}

fn milliseconds(microseconds: u64) -> String {
    // Rounded up, as a limit is never met by rounding.
    match microseconds {
        0..10_000_000 => format!(
            "{} ms",
            Decimal::new(i128::from(microseconds.div_ceil(100)), 1)
        ),
        _ => format!(
            "{} s",
            Decimal::new(i128::from(microseconds.div_ceil(100_000)), 1)
        ),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", Decimal::new(i128::from(bytes.div_ceil(100)), 1)),
        1_000_000.. => format!(
            "{} MB",
            Decimal::new(i128::from(bytes.div_ceil(100_000)), 1)
        ),
    }
}

fn count(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn pass(measured: String) -> Judgement {
    Judgement {
        verdict: CheckVerdict::Pass,
        measured,
        reason: None,
    }
}

fn fail(measured: &str, reason: &str) -> Judgement {
    Judgement {
        verdict: CheckVerdict::Fail,
        measured: measured.to_owned(),
        reason: Some(reason.to_owned()),
    }
}

fn unknown(measured: &str, reason: &str) -> Judgement {
    Judgement {
        verdict: CheckVerdict::Unknown,
        ..fail(measured, reason)
    }
}

#[cfg(test)]
mod tests;
