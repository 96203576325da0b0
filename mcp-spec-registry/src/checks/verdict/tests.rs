use anyhow::Context;
use shared::digest::Digest;

use super::*;
use crate::{
    plan::{HttpExpectation, SessionCheck, TcpCheck},
    specification::Specification,
};

/// The criterion with this text, as a specification would have it.
fn criterion(text: &str) -> anyhow::Result<Criterion> {
    let quoted = serde_json::to_string(text)?;
    let yaml = format!(
        "spec_id: x\noutcome: Serve pages to the team\nsuccess_criteria:\n  all:\n    - {quoted}\n"
    );
    let specification = Specification::parse(&yaml, None)?;
    specification
        .criteria
        .first()
        .cloned()
        .context("no criterion")
}

fn http_check(expect: HttpExpectation) -> anyhow::Result<Check> {
    let target = "s2:80".parse()?;
    Ok(Check::Http(HttpCheck {
        target,
        path: "/".to_owned(),
        samples: 20,
        expect,
    }))
}

/// Twenty requests, each answered with this status, as expected, the slowest `slow` of them in `slow_ms`, the rest in 3 ms.
fn answers(status: u16, slow: usize, slow_ms: u64) -> HttpMeasured {
    let mut latencies_us = vec![3_000; 20 - slow];
    latencies_us.extend(vec![slow_ms * 1000; slow]);
    HttpMeasured {
        requests: 20,
        latencies_us,
        statuses: BTreeMap::from([(status, 20)]),
        successes: if (200..300).contains(&status) { 20 } else { 0 },
        status_matched: 20,
        matched: 20,
        ..HttpMeasured::default()
    }
}

fn with_failures(count: u32) -> HttpMeasured {
    let good = 20 - count;
    HttpMeasured {
        latencies_us: vec![3_000; good as usize],
        statuses: BTreeMap::from([(200, good)]),
        failures: BTreeMap::from([(Failure::TimedOut, count)]),
        successes: good,
        status_matched: good,
        matched: good,
        ..answers(200, 0, 0)
    }
}

fn http(text: &str, found: HttpMeasured) -> anyhow::Result<(CheckVerdict, String, String)> {
    let check = http_check(HttpExpectation::default())?;
    judged(text, &check, &Observation::Http(found))
}

fn judged(
    text: &str,
    check: &Check,
    observation: &Observation,
) -> anyhow::Result<(CheckVerdict, String, String)> {
    let criterion = criterion(text)?;
    let Judgement {
        verdict,
        measured,
        reason,
    } = judge(Some(&criterion), check, observation);
    Ok((verdict, measured, reason.unwrap_or_default()))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn http_answers_are_judged_by_the_limit_of_the_criterion() -> anyhow::Result<()> {
    use CheckVerdict::{Fail, Pass, Provisional, Unknown};
    for (text, found, verdict, measured, reason) in [
        (
            "Page load time: < 200ms",
            answers(200, 1, 900),
            Pass,
            "p95 3 ms of 20 requests (< 200 ms)",
            "",
        ),
        (
            "Page load time: < 200ms",
            answers(200, 2, 900),
            Fail,
            "p95 900 ms of 20 requests (< 200 ms)",
            "outside",
        ),
        (
            "Page load time: < 200ms",
            answers(200, 20, 200),
            Fail,
            "p95 200 ms",
            "outside",
        ),
        (
            "Page load time: <= 200ms",
            answers(200, 20, 200),
            Pass,
            "p95 200 ms",
            "",
        ),
        (
            "p50 page load time < 200ms",
            answers(200, 9, 900),
            Pass,
            "p50 3 ms",
            "",
        ),
        (
            "p99 page load time < 200ms",
            answers(200, 1, 900),
            Fail,
            "p99 900 ms",
            "outside",
        ),
        (
            "Page load time: < 200ms",
            with_failures(1),
            Fail,
            "p95 3 ms",
            "1 not answered in time",
        ),
        (
            "Page load time: < 200ms",
            with_failures(20),
            Fail,
            "no answer",
            "20 not answered in time",
        ),
        (
            "Page load time: < 200ms",
            answers(500, 0, 0),
            Fail,
            "p95 3 ms",
            "20 answered 500",
        ),
        (
            "p95 page load time < 20ms under 100 concurrent connections",
            answers(200, 0, 0),
            Unknown,
            "p95 3 ms",
            "not under 100 concurrent connections",
        ),
        (
            "99.9% uptime target",
            answers(200, 0, 0),
            Provisional,
            "100 % of 20 requests (>= 99.9 %)",
            "30 days",
        ),
        (
            "99.9% uptime target",
            with_failures(1),
            Fail,
            "95 % of 20 requests",
            "outside",
        ),
        (
            "99.9% uptime over 7 days",
            answers(200, 0, 0),
            Provisional,
            "100 %",
            "(7 days) has not passed",
        ),
        (
            "Health endpoint returns 200",
            answers(200, 0, 0),
            Pass,
            "status 200",
            "",
        ),
        (
            "Health endpoint returns 200",
            answers(503, 0, 0),
            Fail,
            "status 503",
            "another status",
        ),
        (
            "Old address returns 301",
            answers(301, 0, 0),
            Pass,
            "status 301",
            "",
        ),
        (
            "Accessible on port 80",
            answers(200, 0, 0),
            Pass,
            "port 80 (= 80 port)",
            "",
        ),
        (
            "Accessible on port 443",
            answers(200, 0, 0),
            Fail,
            "port 80",
            "outside",
        ),
        (
            "Serves static HTML content",
            answers(200, 0, 0),
            Pass,
            "20 of 20 answers as expected",
            "",
        ),
        (
            "Serves static HTML content",
            answers(404, 0, 0),
            Fail,
            "0 of 20",
            "20 answered 404",
        ),
        (
            "Resource usage < 512MB RAM",
            answers(200, 0, 0),
            Unknown,
            "not measured",
            "does not measure",
        ),
        (
            "Error rate < 1%",
            answers(200, 0, 0),
            Unknown,
            "not measured",
            "does not measure",
        ),
    ] {
        let found = http(text, found)?;
        assert_eq!(found.0, verdict, "{text}: {found:?}");
        assert!(
            found.1.starts_with(measured) && found.2.contains(reason),
            "{text}: {found:?}"
        );
    }
    Ok(())
}

#[test]
fn fewer_requests_than_asked_for_are_no_pass() -> anyhow::Result<()> {
    let cut = HttpMeasured {
        requests: 7,
        latencies_us: vec![3_000; 7],
        statuses: BTreeMap::from([(200, 7)]),
        successes: 7,
        matched: 7,
        ..HttpMeasured::default()
    };
    let found = http("Page load time: < 200ms", cut)?;
    assert_eq!(found.0, CheckVerdict::Unknown);
    assert_eq!(found.2, "only 7 of 20 requests could be made in 60 s");
    let none = http("Page load time: < 200ms", HttpMeasured::default())?;
    assert_eq!(none.0, CheckVerdict::Unknown);
    Ok(())
}

#[test]
fn what_the_plan_expects_must_be_in_every_answer() -> anyhow::Result<()> {
    let check = http_check(HttpExpectation {
        status: Some(200),
        headers: BTreeMap::from([("content-type".to_owned(), "text/html".to_owned())]),
        text: Some("<h1>".to_owned()),
    })?;
    let found = HttpMeasured {
        matched: 18,
        headers_matched: BTreeMap::from([("content-type".to_owned(), 19)]),
        text_matched: Some(18),
        ..answers(200, 0, 0)
    };
    let found = judged(
        "Serves static HTML content",
        &check,
        &Observation::Http(found),
    )?;
    assert_eq!(found.0, CheckVerdict::Fail);
    assert_eq!(
        found.2,
        "of 20 requests: 1 without the expected header content-type, 2 without the expected text"
    );
    let all = HttpMeasured {
        headers_matched: BTreeMap::from([("content-type".to_owned(), 20)]),
        text_matched: Some(20),
        ..answers(200, 0, 0)
    };
    let found = judged(
        "Serves static HTML content",
        &check,
        &Observation::Http(all),
    )?;
    assert_eq!(found.0, CheckVerdict::Pass);
    Ok(())
}

fn session(alive: bool, memory_bytes: u64, uids: &[u32]) -> Observation {
    Observation::Session(SessionMeasure {
        alive,
        identity: "12@34".to_owned(),
        memory_bytes,
        uids: uids.to_vec(),
        processes: 2,
    })
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_session_is_judged_as_its_server_sees_it() -> anyhow::Result<()> {
    use CheckVerdict::{Fail, Pass, Provisional, Unknown};
    use SessionMeasureKind::{Alive, Memory, NotRoot};
    for (text, measure, found, verdict, measured) in [
        (
            "Resource usage < 512MB RAM",
            Memory,
            session(true, 19_000_000, &[9]),
            Pass,
            "19 MB in 2 processes (< 512 MB)",
        ),
        (
            "Resource usage < 512MB RAM",
            Memory,
            session(true, 512_000_000, &[9]),
            Fail,
            "512 MB",
        ),
        // GB is 10^9 bytes to some and 2^30 to others: an upper limit means the smaller.
        (
            "Resource usage ≤ 2GB RAM",
            Memory,
            session(true, 2_000_000_001, &[9]),
            Fail,
            "2000.1 MB",
        ),
        (
            "Resource usage ≤ 2GiB RAM",
            Memory,
            session(true, 2_000_000_001, &[9]),
            Pass,
            "2000.1 MB",
        ),
        (
            "Resource usage < 512MB RAM",
            Memory,
            session(false, 0, &[]),
            Fail,
            "not running",
        ),
        (
            "Uses little memory",
            Memory,
            session(true, 19_000_000, &[9]),
            Unknown,
            "19 MB",
        ),
        (
            "Non-root execution required",
            NotRoot,
            session(true, 1, &[65534, 65534, 1000]),
            Pass,
            "uid 1000, 65534",
        ),
        (
            "Non-root execution required",
            NotRoot,
            session(true, 1, &[65534, 0]),
            Fail,
            "uid 0, 65534",
        ),
        (
            "Non-root execution required",
            NotRoot,
            session(true, 1, &[]),
            Unknown,
            "no uid",
        ),
        (
            "Non-root execution required",
            NotRoot,
            session(false, 0, &[]),
            Fail,
            "not running",
        ),
        (
            "Keeps running",
            Alive,
            session(true, 1, &[9]),
            Pass,
            "running, 2 processes",
        ),
        (
            "99.9% uptime",
            Alive,
            session(true, 1, &[9]),
            Provisional,
            "100 %",
        ),
        (
            "99.9% uptime",
            Alive,
            session(false, 0, &[]),
            Fail,
            "not running",
        ),
        (
            "Page load time: < 200ms",
            Alive,
            session(true, 1, &[9]),
            Unknown,
            "not measured",
        ),
    ] {
        let check = Check::Session(SessionCheck {
            step: "s2".to_owned(),
            measure,
        });
        let found = judged(text, &check, &found)?;
        assert_eq!(found.0, verdict, "{text}: {found:?}");
        assert!(found.1.starts_with(measured), "{text}: {found:?}");
    }
    Ok(())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn connections_files_and_restarts_are_judged_by_what_happened() -> anyhow::Result<()> {
    use CheckVerdict::{Fail, Pass, Unknown};
    let tcp = Check::Tcp(TcpCheck {
        target: "s2:80".parse()?,
    });
    let connected = Observation::Tcp {
        took_us: Some(250),
        failure: None,
    };
    let refused = Observation::Tcp {
        took_us: None,
        failure: Some(Failure::Refused),
    };
    let file = Check::File(FileCheck {
        server: "shell".to_owned(),
        path: "a.txt".to_owned(),
        sha256: Digest::of("a"),
    });
    let digest = |text: &str| Observation::File(Some(Digest::of(text)));
    let restart = Check::Restart(RestartCheck {
        target: "s2:80".parse()?,
        path: "/".to_owned(),
        within_ms: 2000,
    });
    let usual = Restarted {
        answered_before: true,
        ended: 1,
        back_after_us: Some(400_000),
        same_session: Some(true),
    };
    let restarted = |changed: Restarted| Observation::Restart(changed);
    for (text, check, observation, verdict) in [
        ("Accessible on port 80", &tcp, connected.clone(), Pass),
        ("Accessible on port 81", &tcp, connected.clone(), Fail),
        ("Accepts connections", &tcp, connected.clone(), Pass),
        ("Connects in < 1 ms", &tcp, connected.clone(), Pass),
        ("Resource usage < 1 GB", &tcp, connected, Unknown),
        ("Accepts connections", &tcp, refused, Fail),
        ("Page is complete", &file, digest("a"), Pass),
        ("Page is complete", &file, digest("b"), Fail),
        ("Page is complete", &file, Observation::File(None), Fail),
        ("Page load time: < 200ms", &file, digest("a"), Unknown),
        (
            "Automatic restart on failure",
            &restart,
            restarted(usual.clone()),
            Pass,
        ),
        (
            "Recovery time: < 300 ms",
            &restart,
            restarted(usual.clone()),
            Fail,
        ),
        (
            "Recovery time: < 500 ms",
            &restart,
            restarted(usual.clone()),
            Pass,
        ),
        (
            "Automatic restart on failure",
            &restart,
            restarted(Restarted {
                answered_before: false,
                ..usual.clone()
            }),
            Fail,
        ),
        (
            "Automatic restart on failure",
            &restart,
            restarted(Restarted {
                ended: 0,
                ..usual.clone()
            }),
            Unknown,
        ),
        (
            "Automatic restart on failure",
            &restart,
            restarted(Restarted {
                back_after_us: None,
                ..usual.clone()
            }),
            Fail,
        ),
        (
            "Automatic restart on failure",
            &restart,
            restarted(Restarted {
                back_after_us: Some(2_000_001),
                ..usual.clone()
            }),
            Fail,
        ),
        (
            "Automatic restart on failure",
            &restart,
            restarted(Restarted {
                same_session: Some(false),
                ..usual.clone()
            }),
            Unknown,
        ),
        (
            "Automatic restart on failure",
            &restart,
            restarted(Restarted {
                same_session: None,
                ..usual
            }),
            Pass,
        ),
    ] {
        let found = judged(text, check, &observation)?;
        assert_eq!(found.0, verdict, "{text}: {found:?}");
    }
    Ok(())
}

#[test]
fn a_missing_subject_fails_and_what_was_not_measured_is_unknown() -> anyhow::Result<()> {
    let check = http_check(HttpExpectation::default())?;
    let reason = || "step s2 has not run".to_owned();
    for text in ["Page load time: < 200ms", "99.9% uptime", "Serves pages"] {
        let missing = judged(text, &check, &Observation::Missing(reason()))?;
        assert_eq!(
            (missing.0, missing.2.as_str()),
            (CheckVerdict::Fail, "step s2 has not run")
        );
        let unmeasured = judged(text, &check, &Observation::NotMeasured(reason()))?;
        assert_eq!(unmeasured.0, CheckVerdict::Unknown);
    }
    // An observation that belongs to another check says nothing about this one.
    assert_eq!(
        judged("Serves pages", &check, &Observation::File(None))?.0,
        CheckVerdict::Unknown
    );
    Ok(())
}

#[test]
fn only_a_test_that_failed_before_anything_was_done_proves_something() {
    use CheckVerdict::{Fail, Pass, Provisional, Unknown};
    for (before, now, combined) in [
        (None, Pass, Unknown),
        (Some(Fail), Pass, Pass),
        (Some(Unknown), Pass, Unknown),
        (Some(Pass), Pass, Unknown),
        (Some(Pass), Provisional, Unknown),
        (Some(Provisional), Provisional, Unknown),
        (Some(Provisional), Pass, Unknown),
        (Some(Pass), Fail, Fail),
        (Some(Pass), Unknown, Unknown),
        (Some(Fail), Unknown, Unknown),
        (Some(Fail), Provisional, Provisional),
    ] {
        let judgement = Judgement {
            verdict: now,
            measured: "m".to_owned(),
            reason: None,
        };
        let judgement = combine(before, judgement);
        assert_eq!(judgement.verdict, combined, "{before:?} then {now:?}");
        if now != combined {
            assert!(
                judgement
                    .reason
                    .is_some_and(|reason| reason.starts_with("proves nothing"))
            );
        }
    }
}

#[test]
fn a_command_passes_only_by_the_end_that_was_expected() -> anyhow::Result<()> {
    use CheckVerdict::{Fail, Pass, Unknown};
    let check = |exit_code, text: Option<&str>| {
        Check::Command(CommandCheck {
            server: "shell".to_owned(),
            argv: vec!["make".to_owned(), "test".to_owned()],
            exit_code,
            text: text.map(str::to_owned),
            timeout_ms: 5000,
        })
    };
    let ended = CommandMeasure {
        exit_code: Some(0),
        signal: None,
        timed_out: false,
        text_found: Some(true),
        stdout_sha256: Digest::of(""),
        wall_ms: 20,
    };
    let killed = CommandMeasure {
        exit_code: None,
        signal: Some(9),
        ..ended.clone()
    };
    let late = CommandMeasure {
        exit_code: None,
        timed_out: true,
        ..ended.clone()
    };
    let silent = CommandMeasure {
        text_found: Some(false),
        ..ended.clone()
    };
    let words = "All tests of the program pass";
    for (text, check, measure, verdict) in [
        (words, check(0, None), &ended, Pass),
        (words, check(2, None), &ended, Fail),
        (words, check(0, Some("ok")), &ended, Pass),
        (words, check(0, Some("ok")), &silent, Fail),
        (words, check(0, None), &killed, Fail),
        (words, check(0, None), &late, Fail),
        // A number is not measured by an exit code.
        ("Page load time: < 200ms", check(0, None), &ended, Unknown),
    ] {
        let found = judged(text, &check, &Observation::Command(measure.clone()))?;
        assert_eq!(found.0, verdict, "{text} {check:?}: {found:?}");
    }
    Ok(())
}
