//! What specifications must survive: the mission's own examples, and everything people get wrong.

use super::*;

const MONITORING: &str = include_str!("../../../specs/monitoring-observability.yaml");
const WEB_SERVICE: &str = include_str!("../../../specs/test-web-service.yaml");
const SHORT: &str = include_str!("../../../specs/web-service-short.yaml");
const SECURITY: &str = include_str!("../../../specs/minimal-privilege.yaml");

/// A small specification that further lines can follow.
fn with(lines: &str) -> String {
    format!("spec_id: a\noutcome: Pages are served\n{lines}")
}

fn codes(text: impl AsRef<[u8]>) -> Vec<(Severity, ProblemCode)> {
    examine(text, None)
        .problems
        .iter()
        .map(|problem| (problem.severity, problem.code))
        .collect()
}

fn criteria_ids(specification: &Specification) -> Vec<&str> {
    let all = specification
        .criteria
        .iter()
        .chain(&specification.constraints);
    all.map(|criterion| criterion.criterion_id.as_str())
        .collect()
}

#[test]
fn the_full_form_is_read_as_it_stands() -> anyhow::Result<()> {
    let specification = Specification::parse(MONITORING, None)?;
    assert_eq!(specification.spec_id.as_str(), "monitoring-observability");
    assert_eq!(specification.version.as_str(), "2.1");
    assert_eq!(specification.author.as_deref(), Some("platform-team"));
    assert_eq!(
        specification.session.as_deref(),
        Some("session-02-discovery")
    );
    assert_eq!(specification.criteria.len(), 9);
    assert_eq!(specification.constraints.len(), 4);
    assert_eq!(specification.implementation_freedom.len(), 4);
    assert_eq!(
        specification.checkpoints[1].text,
        "Human validates deployed outcome"
    );
    assert_eq!(
        specification.criteria[0].text,
        "Metric collection interval: ≤ 5 seconds"
    );
    assert_eq!(specification.criteria[3].text, "99.9% service uptime");
    let measured = |criterion: &&Criterion| criterion.measure.is_some();
    assert_eq!(specification.criteria.iter().filter(measured).count(), 5);
    assert_eq!(specification.digest, Digest::of(MONITORING));
    Ok(())
}

#[test]
fn the_demonstrations_specification_is_read_as_it_stands() -> anyhow::Result<()> {
    let specification = Specification::parse(WEB_SERVICE, None)?;
    assert_eq!(specification.version.as_str(), "1.0");
    let expected = [
        "performance/page-load-time",
        "performance/uptime",
        "performance/automatic-restart-on-failure",
        "functionality/serves-static-html-content",
        "functionality/responsive-to-health-checks",
        "functionality/accessible-on-port-80",
        "constraints/container-based-deployment",
        "constraints/resource-usage",
        "constraints/non-root-execution-required",
    ];
    assert_eq!(criteria_ids(&specification), expected);
    let names: Vec<&str> = specification
        .checkpoints
        .iter()
        .map(|checkpoint| checkpoint.name.as_str())
        .collect();
    assert_eq!(names, ["V1", "V2"]);
    assert_eq!(
        specification.title(),
        "Deploy a responsive web service that serves static content"
    );
    Ok(())
}

#[test]
fn the_short_and_the_security_form_need_an_id_beside_them() -> anyhow::Result<()> {
    for text in [SHORT, SECURITY] {
        let error = Specification::parse(text, None)
            .err()
            .map(|error| error.code());
        assert_eq!(error, Some(ProblemCode::SpecIdMissing));
    }
    let short = Specification::parse(SHORT, Some("web-service"))?;
    assert_eq!(
        (short.dialect, short.version.as_str()),
        (Dialect::Short, "1")
    );
    assert_eq!(
        criteria_ids(&short)[1],
        "validation/performance-metrics-meet-sla-requirements"
    );
    let security = Specification::parse(SECURITY, Some("minimal-privilege"))?;
    assert_eq!(security.dialect, Dialect::Security);
    assert_eq!(
        criteria_ids(&security)[0],
        "security/no-services-run-as-root"
    );
    Ok(())
}

#[test]
fn the_metadata_and_the_test_gate_forms_are_read() -> anyhow::Result<()> {
    let metadata = "id: spec-database-postgresql-v1\nmetadata:\n  author: ana\n  created: 2025-11-01\n  status: draft\n\
        goal: A database that answers\nconstraints:\n  - Encrypted at rest\ndependencies:\n  - spec-network-security-v2\n  - spec-backup: nightly dumps\n\
        validation:\n  pre_deployment:\n    - Disk is there\n  post_deployment:\n    - Query time: < 10ms\n";
    let specification = Specification::parse(metadata, None)?;
    assert_eq!(specification.dialect, Dialect::Metadata);
    assert_eq!(specification.author.as_deref(), Some("ana"));
    assert_eq!(
        criteria_ids(&specification),
        [
            "pre-deployment/disk-is-there",
            "post-deployment/query-time",
            "constraints/encrypted-at-rest"
        ]
    );
    let needed = |spec_id: &str, reason: Option<&str>| Dependency {
        spec_id: spec_id.to_owned(),
        reason: reason.map(ToOwned::to_owned),
    };
    assert_eq!(
        specification.dependencies,
        [
            needed("spec-network-security-v2", None),
            needed("spec-backup", Some("nightly dumps"))
        ]
    );
    let gates = "spec_id: gates\noutcome: It works\ntest_gates:\n  - gate: Build\n    verification: exits 0\n  - Smoke test: returns 200\n\
        scope:\n  pre-existing: [network]\n  create: [service]\n  out of scope: [billing]\n";
    let specification = Specification::parse(gates, None)?;
    assert_eq!(specification.dialect, Dialect::TestGates);
    assert_eq!(specification.criteria[0].text, "Build: exits 0");
    assert_eq!(specification.scope.out_of_scope, ["billing"]);
    Ok(())
}

#[test]
fn two_lines_are_a_specification() -> anyhow::Result<()> {
    let specification = Specification::parse("spec_id: a\noutcome: Pages are served", None)?;
    let codes: Vec<ProblemCode> = specification
        .problems
        .iter()
        .map(|problem| problem.code)
        .collect();
    assert_eq!(codes, [ProblemCode::CriteriaMissing]);
    Ok(())
}

#[test]
fn case_45_a_version_stays_as_it_is_written() -> anyhow::Result<()> {
    for version in [
        "1.10",
        "1.1",
        "v2",
        "2.1.0-rc1",
        "2026-11-24",
        "1e3",
        "0x10",
        "1_000",
        "1",
    ] {
        let specification = Specification::parse(with(&format!("version: {version}\n")), None)?;
        assert_eq!(specification.version.as_str(), version);
    }
    let version = |text: &str| text.parse::<Version>();
    assert!(version("1.10")?.compare(&version("1.1")?).is_gt());
    assert!(version("2.1.0-rc1")?.compare(&version("2.1.0")?).is_lt());
    assert!(version("v2")?.compare(&version("2")?).is_eq() && version("v2")? != version("2")?);
    for wrong in ["../1", "1/2", "one two", "-1", "1..2", "\"\""] {
        assert_eq!(
            codes(with(&format!("version: {wrong}\n")))[0].1,
            ProblemCode::VersionInvalid,
            "{wrong}"
        );
    }
    Ok(())
}

#[test]
fn case_45_one_byte_makes_another_digest() -> anyhow::Result<()> {
    let one = Specification::parse(with("constraints: [a]\n"), None)?;
    let other = Specification::parse(with("constraints: [a] \n"), None)?;
    assert_eq!(one.constraints, other.constraints);
    assert_ne!(one.digest, other.digest);
    Ok(())
}

#[test]
fn case_46_an_id_is_plain_or_refused() {
    let long = "a".repeat(500);
    let refused = [
        ("a/b", "`/`"),
        ("..", "`.`"),
        ("Test-Web", "upper-case letter `T`"),
        ("tеst", "U+0435, a letter that is not one of a to z"),
        ("a b", "a space"),
        ("a\u{200b}b", "U+200B"),
        ("-a", "begins or ends with a hyphen"),
        ("", "empty"),
        (long.as_str(), "500 characters; the most is 100"),
    ];
    for (id, says) in refused {
        let text = format!("spec_id: \"{id}\"\noutcome: b\n");
        for error in [
            Specification::parse(text, None),
            Specification::parse("outcome: b", Some(id)),
        ] {
            let message = error.map_or_else(
                |error| (error.code(), error.to_string()),
                |_| (ProblemCode::Yaml, String::new()),
            );
            assert_eq!(message.0, ProblemCode::SpecIdInvalid, "{id}");
            assert!(message.1.contains(says), "{id}: {}", message.1);
        }
    }
    let longest = "a".repeat(100);
    assert!(Specification::parse("outcome: b", Some(&longest)).is_ok());
    let differs = Specification::parse("spec_id: a\noutcome: b", Some("c"))
        .err()
        .map(|error| error.code());
    assert_eq!(differs, Some(ProblemCode::SpecIdMismatch));
}

#[test]
fn case_47_dependencies_that_cannot_hold_are_named() -> anyhow::Result<()> {
    let specification = Specification::parse(with("dependencies: [a, missing, gone, b]\n"), None)?;
    let standing = |spec_id: &str| match spec_id {
        "a" => Standing::Active(vec!["b".to_owned()]),
        "b" => Standing::Active(vec!["c".to_owned()]),
        "c" => Standing::Active(vec!["a".to_owned()]),
        "gone" => Standing::Withdrawn,
        _ => Standing::Missing,
    };
    let messages: Vec<String> = unmet_dependencies(&specification, standing)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        messages,
        [
            "a depends on itself",
            "missing is not there",
            "gone is withdrawn",
            "a depends on itself by way of b, c"
        ]
    );
    Ok(())
}

#[test]
fn case_48_criteria_that_cannot_hold_are_errors() {
    let error = |lines: &str| {
        codes(with(&format!("constraints:\n{lines}")))
            .first()
            .copied()
    };
    let contradiction = Some((Severity::Error, ProblemCode::Contradiction));
    assert_eq!(
        error("  - Latency: < 5 ms\n  - Latency > 10 ms\n"),
        contradiction
    );
    assert_eq!(
        error("  - Latency < 5 ms\n  - 'The latency: >= 5 ms'\n"),
        contradiction
    );
    assert_eq!(
        error("  - SSL Labs score >= A\n  - 'SSL Labs score: <= B'\n"),
        contradiction
    );
    let across = with(
        "success_criteria:\n  speed:\n    - Memory: ≤ 1 GiB\nconstraints:\n  - Memory ≥ 2048 MiB\n",
    );
    assert_eq!(codes(across).first().copied(), contradiction);
    assert_eq!(
        error("  - Latency < 5 ms\n  - Latency < 10 ms\n  - Latency > 1 ms\n"),
        Some((Severity::Warning, ProblemCode::CriteriaMissing))
    );
    assert_eq!(error("  - p50 latency < 5 ms\n  - p99 latency > 10 ms\n  - Open on port 80\n  - Open on port 443\n").map(|(severity, _)| severity), Some(Severity::Warning));
    assert_eq!(
        error("  - Latency < -5 ms\n"),
        Some((Severity::Error, ProblemCode::ValueNegative))
    );
    assert_eq!(
        error("  - Latency < NaN ms\n"),
        Some((Severity::Error, ProblemCode::ValueNotANumber))
    );
    let both = examine(
        with("constraints:\n  - Latency < 5 parsecs\n  - Memory ≤ 2GB\n"),
        None,
    )
    .problems;
    let found: Vec<_> = both.iter().map(|problem| problem.code).collect();
    assert_eq!(
        found,
        [
            ProblemCode::UnitUnknown,
            ProblemCode::CriteriaMissing,
            ProblemCode::UnitAmbiguous
        ]
    );
    assert!(both.iter().all(|problem| !problem.hint.is_empty()));
}

#[test]
fn case_48_the_stricter_reading_of_a_gigabyte_counts() -> anyhow::Result<()> {
    let specification = Specification::parse(
        with("constraints:\n  - Memory ≤ 2GB\n  - Disk ≥ 2GB\n"),
        None,
    )?;
    let limits: Vec<String> = specification
        .constraints
        .iter()
        .filter_map(|constraint| Some(constraint.measure.as_ref()?.limit.to_string()))
        .collect();
    assert_eq!(limits, ["2000000000", "2147483648"]);
    Ok(())
}

#[test]
fn case_49_two_proposals_on_one_base_can_be_told_apart() -> anyhow::Result<()> {
    let base = Specification::parse(WEB_SERVICE, None)?;
    let mine = Specification::parse(WEB_SERVICE.replace("< 200ms", "< 100ms"), None)?;
    let theirs = Specification::parse(
        WEB_SERVICE
            .replace("< 200ms", "< 300ms")
            .replace("    - Responsive to health checks\n", ""),
        None,
    )?;
    let tightened = Difference::between(&base, &mine);
    assert_eq!(tightened.tightened, ["performance/page-load-time"]);
    assert_eq!(tightened.changes(), 1);
    let loosened = Difference::between(&base, &theirs);
    assert_eq!(loosened.loosened, ["performance/page-load-time"]);
    assert_eq!(
        loosened.removed,
        ["functionality/responsive-to-health-checks"]
    );
    assert_eq!(
        tightened.conflicts_with(&loosened),
        ["performance/page-load-time"]
    );
    Ok(())
}

#[test]
fn case_50_an_outcome_says_what_and_not_how() {
    let first = |text: &str| codes(text).first().copied();
    let empty = Some((Severity::Error, ProblemCode::OutcomeEmpty));
    for text in [
        "spec_id: a\n",
        "spec_id: a\noutcome:\n",
        "spec_id: a\noutcome: \"  \"\n",
        "spec_id: a\ngoal: |\n\nversion: 1\n",
    ] {
        assert_eq!(first(text), empty, "{text}");
    }
    let prescribes = Some((Severity::Warning, ProblemCode::OutcomePrescribes));
    for how in [
        "Install nginx and open port 80",
        "Serve pages with a Docker image",
        "Run `apt-get install caddy`",
        "Pages are served using Kubernetes",
    ] {
        assert_eq!(
            first(&format!(
                "spec_id: a\noutcome: {how}\nconstraints: [b]\ntests: [c]\n"
            )),
            prescribes,
            "{how}"
        );
    }
    for text in [MONITORING, WEB_SERVICE] {
        assert!(!codes(text).contains(&(Severity::Warning, ProblemCode::OutcomePrescribes)));
    }
}

#[test]
fn what_an_outcome_promises_and_nobody_measures_is_noted() {
    let promised: Vec<String> = examine(SHORT, Some("a"))
        .problems
        .into_iter()
        .map(|problem| problem.hint)
        .collect();
    assert_eq!(
        promised,
        [
            "add `- 99.9% uptime` under `success_criteria`",
            "add `- sub-100ms response times` under `success_criteria`"
        ]
    );
}

#[test]
fn unknown_keys_are_kept_and_a_slip_of_the_finger_is_pointed_out() -> anyhow::Result<()> {
    let specification = Specification::parse(
        with("sucess_criteria:\n  - Fast\nweather: {sky: blue}\n"),
        None,
    )?;
    let found: Vec<_> = specification
        .problems
        .iter()
        .map(|problem| (problem.severity, problem.hint.as_str()))
        .collect();
    assert!(
        found.contains(&(
            Severity::Warning,
            "write `success_criteria` if that is what is meant"
        )),
        "{found:?}"
    );
    assert_eq!(
        specification.other["weather"],
        serde_json::json!({"sky": "blue"})
    );
    Ok(())
}

#[test]
fn the_normalized_form_says_the_same() -> anyhow::Result<()> {
    let odd = with(
        "title: \"a: b\"\nconstraints:\n  - \"- x\"\n  - 'null'\n  - \"two\\nlines\"\n  - '#5'\n  - \"\\u200b\"\n  - '>= 5 \"s\"'\nother thing: {a: [b, ~]}\ntags: [x, 'y: z']\n",
    );
    for text in [MONITORING, WEB_SERVICE, SHORT, SECURITY, &odd] {
        let given = (!text.contains("spec_id")).then_some("given");
        let once = Specification::parse(text, given)?;
        let again = Specification::parse(once.normalized(), None)?;
        assert_eq!(again.normalized(), once.normalized());
        assert_eq!(
            (&again.outcome, &again.criteria, &again.constraints),
            (&once.outcome, &once.criteria, &once.constraints)
        );
        assert_eq!(
            (&again.checkpoints, &again.other, &again.tags),
            (&once.checkpoints, &once.other, &once.tags)
        );
    }
    Ok(())
}

#[test]
fn a_search_index_gets_words_and_no_numbers_of_criteria() -> anyhow::Result<()> {
    let specification = Specification::parse(
        WEB_SERVICE.replace("author", "tags: [http, static]\nauthor"),
        None,
    )?;
    let expected = "test web service\nDeploy a responsive web service that serves static content with automatic failover and performance monitoring\nhttp\nstatic";
    assert_eq!(search_text(&specification), expected);
    Ok(())
}

#[test]
fn no_bytes_make_the_parser_panic() {
    // A fixed generator: a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap_or_default()
    };
    let pieces: [&[u8]; 24] = [
        b"\n",
        b": ",
        b"- ",
        b"  ",
        b"\t",
        b">",
        b"|",
        b"\"",
        b"'",
        b"{",
        b"[",
        b"]",
        b"&a",
        b"*a",
        b"%",
        b"#",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b"---\n",
        b"99.9%",
        b"-5",
        b"\xe2\x89\xa4",
        b"p95",
    ];
    let corpus = [MONITORING, WEB_SERVICE, SHORT, SECURITY];
    for round in 0..3_000 {
        let mut bytes = corpus[round % corpus.len()].as_bytes().to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len() + 1);
            let until = (at + random(6)).min(bytes.len());
            bytes.splice(at..until, pieces[random(pieces.len())].iter().copied());
        }
        let examination = examine(&bytes, Some("given"));
        if let Some(specification) = examination.specification {
            let normalized = specification.normalized();
            let again = examine(&normalized, None)
                .specification
                .map(|again| again.normalized());
            assert_eq!(
                again.as_ref(),
                Some(&normalized),
                "{}",
                String::from_utf8_lossy(&bytes)
            );
        }
        for problem in examination.problems {
            assert!(!problem.hint.is_empty() && !problem.to_string().is_empty());
        }
    }
}
