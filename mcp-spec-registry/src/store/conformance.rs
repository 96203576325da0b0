//! What every store must do, whichever database is behind it.

use std::sync::{Arc, Barrier};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use shared::{
    digest::Digest,
    effect::protocol::{Lifetime, Outcome, PublishedPort, SignedHead},
};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::{
    audit::{REDACTED, SIGNED_EVERY, Verifier},
    keys::{Keys, VerifyingKeys},
    run::{Assurance, CheckPhase, CheckVerdict, CheckpointKind, CheckpointState, Verdict},
};

/// A way to open one store again and again: each call opens what the calls before it left.
pub(super) trait Fixture {
    fn open(&self) -> Result<Arc<dyn Store>>;
    fn keys(&self) -> Arc<Keys>;
}

/// Runs every case, each on a fresh store.
pub(super) fn suite<F: Fixture>(fresh: impl Fn() -> Result<F>) -> Result<()> {
    let cases: &[(&str, fn(&F) -> Result<()>)] = &[
        (
            "everything written is read back as it was, also after reopening",
            everything_is_read_back,
        ),
        (
            "a failed expectation of any kind writes nothing",
            failed_expectations_write_nothing,
        ),
        (
            "expectations that hold let the change through",
            expectations_that_hold,
        ),
        ("what is immutable cannot be written over", immutable_rows),
        (
            "a change without an audit entry is refused",
            no_change_without_audit,
        ),
        (
            "a row that fails in the middle leaves nothing",
            half_a_change,
        ),
        (
            "versions come oldest first and only one is active",
            versions,
        ),
        (
            "search finds newest versions by any word, best first",
            search,
        ),
        ("no word of a query is an operator", hostile_words),
        ("runs come newest first, filtered, page by page", runs),
        ("the chain has no gaps and its heads are signed", chain),
        ("a payload can be taken out if an entry says so", redaction),
        ("of 64 that change one revision exactly one wins", race),
        (
            "test approvers and real ones cannot stand beside each other",
            approvers_of_two_kinds,
        ),
    ];
    for (name, case) in cases {
        case(&fresh()?).with_context(|| (*name).to_owned())?;
    }
    Ok(())
}

/// 2026-11-24 10:00 UTC and some nanoseconds.
const NOW: OffsetDateTime =
    OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::new(1_795_514_400, 123_456_789));

fn entry(action: &str) -> Vec<EntryDraft> {
    vec![EntryDraft {
        actor: "ana".into(),
        action: action.into(),
        subject: "s".into(),
        payload: json!({"n": 1}),
    }]
}

fn change(writes: Vec<Write>) -> Change {
    Change {
        writes,
        audit: entry("test.written"),
        ..Change::default()
    }
}

fn expecting(expect: Expectation, writes: Vec<Write>) -> Change {
    Change {
        expect: vec![expect],
        ..change(writes)
    }
}

fn specification(spec_id: &str, version: &str, words: &str) -> SpecificationRow {
    let verbatim = format!("spec_id: {spec_id}\nversion: {version}\noutcome: {words}\n");
    SpecificationRow {
        spec_id: spec_id.into(),
        version: version.into(),
        digest: Digest::of(&verbatim),
        verbatim,
        search_text: words.into(),
        title: words.chars().take(20).collect(),
        status: SpecificationStatus::Proposed,
        added_by: "ana".into(),
        reason: Some("first ✓".into()),
        added_at: NOW,
    }
}

fn run(run_id: &str, specification: &SpecificationRow) -> Run {
    Run {
        run_id: run_id.into(),
        spec_id: specification.spec_id.clone(),
        spec_version: specification.version.clone(),
        spec_digest: specification.digest.clone(),
        environment: "default".into(),
        requester: "agent".into(),
        state: RunState::Requested,
        rev: 1,
        paused: false,
        claimant: None,
        epoch: 0,
        lease_until: None,
        plan_revision: 0,
        plan_digest: None,
        cycle: 0,
        report: None,
        rejections: 0,
        clarifications: 0,
        closed_reason: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn checkpoint(id: &str, run_id: &str) -> Checkpoint {
    Checkpoint {
        checkpoint_id: id.into(),
        run_id: run_id.into(),
        kind: CheckpointKind::V1,
        subject_digest: Digest::of("plan"),
        revision: 1,
        state: CheckpointState::Open,
        nonce: "00ff".into(),
        note: Some("changed course".into()),
        opened_by: "agent".into(),
        opened_at: NOW,
        expires_at: NOW + Duration::DAY,
    }
}

fn decision(id: &str, checkpoint_id: &str, run_id: &str) -> Decision {
    Decision {
        decision_id: id.into(),
        checkpoint_id: checkpoint_id.into(),
        run_id: run_id.into(),
        verdict: Verdict::Approve,
        reason: "looks right".into(),
        reason_code: None,
        is_final: false,
        return_to: None,
        approver: "ana".into(),
        assurance: Assurance::A1,
        subject_digest: Digest::of("plan"),
        accepted_unknown: vec!["c1".into()],
        approver_uid: Some(1000),
        decided_at: NOW,
        first_viewed_at: Some(NOW),
        begun_at: None,
        signature: "c2ln".into(),
    }
}

fn approver(name: &str, is_test: bool) -> ApproverRow {
    ApproverRow {
        name: name.into(),
        secret_hash: "$argon2id$".into(),
        is_test,
        enrolment_id: "e1".into(),
        enrolled_at: NOW,
        signature: "c2ln".into(),
    }
}

fn grant(run_id: &str) -> Grant {
    Grant {
        handle_sha256: Digest::of("gr_1"),
        short: "0123abcd".into(),
        run_id: run_id.into(),
        step_id: "s1".into(),
        plan_digest: Digest::of("plan"),
        principal: "agent".into(),
        service: "shell".into(),
        epoch: 1,
        uses_left: 2,
        expires_at: NOW + Duration::minutes(10),
        revoked: false,
    }
}

fn action(run_id: &str) -> Action {
    Action {
        action_id: "ac_1".into(),
        run_id: run_id.into(),
        step_id: "s1".into(),
        revision: 1,
        cycle: 2,
        epoch: 1,
        service: "shell".into(),
        instance: "i1".into(),
        principal: "agent".into(),
        tool: "exec".into(),
        arguments_sha256: Digest::of("arguments"),
        idempotency_key: "k1".into(),
        lifetime: Lifetime::Run,
        begun_at: NOW,
        ended_at: None,
        outcome: None,
        error_code: None,
        result_sha256: None,
        session: None,
        published: Vec::new(),
        artefacts: Vec::new(),
    }
}

fn conflicts(result: Result<Committed, StoreError>) -> Result<()> {
    match result {
        Err(StoreError::Conflict(_)) => Ok(()),
        other => bail!("{other:?} instead of a conflict"),
    }
}

fn is_refused(result: Result<Committed, StoreError>) -> Result<()> {
    match result {
        Err(StoreError::Constraint(_)) => Ok(()),
        other => bail!("{other:?} instead of a refusal"),
    }
}

/// A store with one specification and one run of it, `r1` at revision 1.
fn with_a_run(fixture: &impl Fixture) -> Result<(Arc<dyn Store>, Run)> {
    let store = fixture.open()?;
    let web = specification("web", "1.0", "static pages");
    let run = run("r1", &web);
    store.commit(&change(vec![
        Write::InsertSpecification(web),
        Write::InsertRun(run.clone()),
    ]))?;
    Ok((store, run))
}

fn everything_is_read_back(fixture: &impl Fixture) -> Result<()> {
    let (store, mut run) = with_a_run(fixture)?;
    let body = r#"{"steps":[]}"#.to_owned();
    let digest = Digest::of(&body);
    let plan = PlanRevision {
        run_id: "r1".into(),
        revision: 1,
        digest: digest.clone(),
        author: "agent".into(),
        signature: "c2ln".into(),
        submitted_at: NOW,
    };
    let again = PlanRevision {
        revision: 2,
        ..plan.clone()
    };
    let (mut open, mut decided) = (checkpoint("7KQ2AB", "r1"), decision("d1", "7KQ2AB", "r1"));
    let (mut handle, mut begun) = (grant("r1"), action("r1"));
    let measured = Evaluation {
        evaluation_id: "e1".into(),
        run_id: "r1".into(),
        revision: 1,
        test_index: 0,
        criterion: "performance/load".into(),
        phase: CheckPhase::After,
        round: 1,
        verdict: CheckVerdict::Provisional,
        measured: "p95 3.1 ms".into(),
        reason: None,
        evidence: json!({"samples": [1, 2.5], "note": "ü"}),
        evidence_sha256: Digest::of("evidence"),
        measured_by: "registry".into(),
        measured_at: NOW,
    };
    let why = Rationale {
        rationale_id: "w1".into(),
        run_id: "r1".into(),
        agent: "agent".into(),
        question: "which server?".into(),
        options: vec!["a".into(), "b \"quoted\"".into()],
        chosen: "a".into(),
        why: "small".into(),
        recorded_at: NOW,
    };
    let agent = AgentRow {
        name: "agent".into(),
        description: "x".into(),
        persona: None,
        registered_at: NOW,
    };
    let token = TokenRow {
        principal: "shell".into(),
        kind: TokenKind::Service,
        token_sha256: Digest::of("token"),
        server: Some("mcp-bash-commander".into()),
        created_at: NOW,
        revoked: false,
    };
    let service = ServiceRow {
        name: "shell".into(),
        instance: "i1".into(),
        version: "0.1.0".into(),
        uid: Some(0),
        tools: Vec::new(),
        last_seq: 7,
        said_hello_at: NOW,
    };
    let answer = RememberedAnswer {
        principal: "agent".into(),
        key: "k".into(),
        request_sha256: Digest::of("request"),
        answer: "{}".into(),
    };
    store.commit(&change(vec![
        Write::InsertPlan(plan.clone(), body.clone()),
        Write::InsertPlan(again.clone(), body.clone()),
        Write::InsertCheckpoint(open.clone()),
        Write::InsertDecision(decided.clone()),
        Write::InsertGrant(handle.clone()),
        Write::InsertAction(begun.clone()),
        Write::InsertEvaluation(measured.clone()),
        Write::InsertRationale(why.clone()),
        Write::PutAgent(agent.clone()),
        Write::PutApprover(approver("ana", false)),
        Write::PutToken(token.clone()),
        Write::PutService(service.clone()),
        Write::Remember(answer.clone()),
    ]))?;
    assert_eq!(store.open_checkpoints()?, [open.clone()]);

    run = Run {
        state: RunState::Generating,
        rev: 2,
        cycle: 3,
        report: Some("done".into()),
        lease_until: Some(NOW),
        claimant: Some("agent".into()),
        ..run
    };
    open.state = CheckpointState::Approved;
    decided.begun_at = Some(NOW);
    handle = Grant {
        uses_left: 1,
        revoked: true,
        ..handle
    };
    begun = Action {
        ended_at: Some(NOW),
        outcome: Some(Outcome::Ok),
        result_sha256: Some(Digest::of("result")),
        session: Some("x1".into()),
        published: vec![PublishedPort {
            port: 80,
            address: "127.0.0.1:39211".into(),
        }],
        ..begun
    };
    store.commit(&expecting(
        Expectation::RunRevision {
            run_id: "r1".into(),
            rev: 1,
        },
        vec![
            Write::UpdateRun(run.clone()),
            Write::UpdateCheckpoint(open.clone()),
            Write::UpdateDecision(decided.clone()),
            Write::UpdateGrant(handle.clone()),
            Write::UpdateAction(begun.clone()),
        ],
    ))?;
    drop(store);

    let store = fixture.open()?;
    let expected = RunRecord {
        run,
        plans: vec![plan, again],
        checkpoints: vec![open],
        decisions: vec![decided.clone()],
        grants: vec![handle.clone()],
        actions: vec![begun],
        evaluations: vec![measured],
        rationales: vec![why],
    };
    assert_eq!(store.run("r1")?, Some(expected));
    assert_eq!(store.run("r2")?, None);
    assert_eq!(store.run_of_checkpoint("7KQ2AB")?.as_deref(), Some("r1"));
    assert_eq!(
        store.run_of_grant(&handle.handle_sha256)?.as_deref(),
        Some("r1")
    );
    assert_eq!(store.run_of_action("ac_1")?.as_deref(), Some("r1"));
    assert_eq!(store.run_of_action("ac_2")?, None);
    assert_eq!(store.open_checkpoints()?, []);
    assert_eq!(store.decisions(10)?, [decided]);
    assert_eq!(store.plan_body(&digest)?, Some(body));
    assert_eq!(store.agent("agent")?, Some(agent));
    assert_eq!(store.approvers()?, [approver("ana", false)]);
    assert_eq!(store.token(&token.token_sha256)?, Some(token.clone()));
    assert_eq!(store.tokens()?, [token]);
    assert_eq!(store.service("shell")?, Some(service));
    assert_eq!(store.remembered("agent", "k")?, Some(answer));
    assert_eq!(store.remembered("agent", "other")?, None);
    Ok(())
}

fn failing() -> Vec<Expectation> {
    vec![
        Expectation::RunRevision {
            run_id: "r1".into(),
            rev: 2,
        },
        Expectation::RunRevision {
            run_id: "none".into(),
            rev: 1,
        },
        Expectation::NoOpenRun {
            spec_id: "web".into(),
            environment: "default".into(),
        },
        Expectation::VersionCount {
            spec_id: "web".into(),
            count: 0,
        },
        Expectation::OpenCheckpoints {
            opened_by: "agent".into(),
            at_most: 0,
        },
        Expectation::NotRemembered {
            principal: "agent".into(),
            key: "k".into(),
        },
        Expectation::Enrolled {
            approver: "mallory".into(),
        },
    ]
}

fn with_answers(fixture: &impl Fixture) -> Result<Arc<dyn Store>> {
    let (store, _) = with_a_run(fixture)?;
    let answer = RememberedAnswer {
        principal: "agent".into(),
        key: "k".into(),
        request_sha256: Digest::of("request"),
        answer: "{}".into(),
    };
    store.commit(&change(vec![
        Write::InsertCheckpoint(checkpoint("A", "r1")),
        Write::Remember(answer),
        Write::PutApprover(approver("ana", false)),
    ]))?;
    Ok(store)
}

fn failed_expectations_write_nothing(fixture: &impl Fixture) -> Result<()> {
    let store = with_answers(fixture)?;
    let before = store.audit_head()?;
    for expectation in failing() {
        let new = AgentRow {
            name: "new".into(),
            description: String::new(),
            persona: None,
            registered_at: NOW,
        };
        conflicts(store.commit(&expecting(expectation.clone(), vec![Write::PutAgent(new)])))
            .with_context(|| format!("{expectation:?}"))?;
        assert_eq!(store.agent("new")?, None);
        assert_eq!(store.audit_head()?, before);
    }
    Ok(())
}

fn expectations_that_hold(fixture: &impl Fixture) -> Result<()> {
    let store = with_answers(fixture)?;
    let holding = [
        Expectation::RunRevision {
            run_id: "r1".into(),
            rev: 1,
        },
        Expectation::NoOpenRun {
            spec_id: "web".into(),
            environment: "production".into(),
        },
        Expectation::VersionCount {
            spec_id: "web".into(),
            count: 1,
        },
        Expectation::OpenCheckpoints {
            opened_by: "agent".into(),
            at_most: 1,
        },
        Expectation::NotRemembered {
            principal: "agent".into(),
            key: "k2".into(),
        },
        Expectation::Enrolled {
            approver: "ana".into(),
        },
    ];
    for expectation in holding {
        store
            .commit(&expecting(expectation.clone(), Vec::new()))
            .with_context(|| format!("{expectation:?}"))?;
    }
    Ok(())
}

fn immutable_rows(fixture: &impl Fixture) -> Result<()> {
    let (store, run) = with_a_run(fixture)?;
    let expected = Expectation::RunRevision {
        run_id: "r1".into(),
        rev: 1,
    };
    store.commit(&change(vec![
        Write::InsertCheckpoint(checkpoint("A", "r1")),
        Write::InsertDecision(decision("d1", "A", "r1")),
        Write::InsertGrant(grant("r1")),
        Write::InsertAction(action("r1")),
    ]))?;
    let before = store.run("r1")?;
    let wrong = [
        (
            "the same version with other content",
            Write::InsertSpecification(specification("web", "1.0", "other")),
        ),
        (
            "a second decision of one checkpoint",
            Write::InsertDecision(decision("d2", "A", "r1")),
        ),
        (
            "a changed decision",
            Write::UpdateDecision(Decision {
                reason: "no".into(),
                ..decision("d1", "A", "r1")
            }),
        ),
        (
            "a checkpoint of another question",
            Write::UpdateCheckpoint(Checkpoint {
                revision: 2,
                ..checkpoint("A", "r1")
            }),
        ),
        (
            "a handle with more uses",
            Write::UpdateGrant(Grant {
                uses_left: 3,
                ..grant("r1")
            }),
        ),
        (
            "a handle for another service",
            Write::UpdateGrant(Grant {
                service: "db".into(),
                ..grant("r1")
            }),
        ),
        (
            "another intent",
            Write::UpdateAction(Action {
                tool: "rm".into(),
                ..action("r1")
            }),
        ),
        (
            "the same effect twice",
            Write::InsertAction(Action {
                action_id: "ac_2".into(),
                ..action("r1")
            }),
        ),
        (
            "a run of another specification",
            Write::UpdateRun(Run {
                spec_id: "db".into(),
                rev: 2,
                ..run.clone()
            }),
        ),
        (
            "a second open run",
            Write::InsertRun(Run {
                run_id: "r2".into(),
                ..run.clone()
            }),
        ),
        (
            "a run that does not exist",
            Write::UpdateRun(Run {
                run_id: "r9".into(),
                ..run.clone()
            }),
        ),
        (
            "a checkpoint that does not exist",
            Write::UpdateCheckpoint(checkpoint("B", "r1")),
        ),
        (
            "a checkpoint of no run",
            Write::InsertCheckpoint(checkpoint("B", "r9")),
        ),
        (
            "an approver who is not there",
            Write::DeleteApprover("mallory".into()),
        ),
    ];
    for (what, write) in wrong {
        is_refused(store.commit(&expecting(expected.clone(), vec![write]))).context(what)?;
    }
    is_refused(store.commit(&change(vec![Write::UpdateRun(Run { rev: 2, ..run })])))
        .context("a run without the revision it was computed from")?;
    assert_eq!(store.run("r1")?, before);
    Ok(())
}

fn no_change_without_audit(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    is_refused(store.commit(&Change::default()))?;
    assert_eq!(store.audit_head()?, None);
    Ok(())
}

fn half_a_change(fixture: &impl Fixture) -> Result<()> {
    let (store, _) = with_a_run(fixture)?;
    let head = store.audit_head()?;
    let new = AgentRow {
        name: "new".into(),
        description: String::new(),
        persona: None,
        registered_at: NOW,
    };
    let writes = vec![
        Write::PutAgent(new),
        Write::InsertCheckpoint(checkpoint("A", "no such run")),
    ];
    is_refused(store.commit(&change(writes)))?;
    assert_eq!((store.agent("new")?, store.audit_head()?), (None, head));
    Ok(())
}

fn versions(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    let rows = ["1.9", "1.10", "1.1"].map(|version| specification("web", version, "pages"));
    for row in &rows {
        store.commit(&change(vec![
            Write::InsertSpecification(row.clone()),
            Write::ActivateSpecification(row.digest.clone()),
        ]))?;
    }
    let found = store.specification_versions("web")?;
    let found: Vec<_> = found
        .iter()
        .map(|row| (row.version.as_str(), row.status))
        .collect();
    let (superseded, active) = (SpecificationStatus::Superseded, SpecificationStatus::Active);
    assert_eq!(
        found,
        [("1.9", superseded), ("1.10", superseded), ("1.1", active)]
    );
    let nothing = Write::ActivateSpecification(Digest::of("nothing"));
    is_refused(store.commit(&change(vec![nothing])))?;
    let expected = SpecificationRow {
        status: superseded,
        ..rows[0].clone()
    };
    assert_eq!(store.specification(&rows[0].digest)?, Some(expected));
    Ok(())
}

fn ids(hits: &[SpecificationHit]) -> Vec<&str> {
    hits.iter()
        .map(|hit| hit.specification.spec_id.as_str())
        .collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn search(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    let rows = [
        specification("web", "1", "old words about zebras"),
        specification("web", "2", "static pages served quickly"),
        specification("database", "1", "rows are stored and backed up every night"),
        specification(
            "night-watch",
            "1",
            "alerts reach people at night, night after night",
        ),
    ];
    store.commit(&change(rows.map(Write::InsertSpecification).into()))?;
    let find = |text: &str| store.search_specifications(&words(text), 10, 0);
    assert_eq!(ids(&find("night")?), ["night-watch", "database"]);
    assert_eq!(
        ids(&find("serving page")?),
        ["web"],
        "words are found by their stem"
    );
    assert_eq!(find("zebras")?, [], "only newest versions are found");
    assert!(find("night")?.iter().all(|hit| hit.score > 0.0));
    let all = store.search_specifications(&[], 2, 0)?;
    let rest = store.search_specifications(&[], 2, 2)?;
    assert_eq!(
        (ids(&all), ids(&rest)),
        (vec!["database", "night-watch"], vec!["web"])
    );
    assert_eq!(
        ids(&store.search_specifications(&words("night"), 1, 1)?),
        ["database"]
    );
    Ok(())
}

fn hostile_words(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    store.commit(&change(vec![Write::InsertSpecification(specification(
        "web",
        "1",
        "static pages",
    ))]))?;
    let hostile = [
        "\"",
        "' OR 1=1 --",
        "NEAR(",
        "spec_id:",
        "*",
        "^",
        "AND",
        "a\0b",
        "{title}",
        "(((",
        "-",
        "🦓",
        "\u{202e}",
        ";",
    ];
    for word in hostile {
        assert_eq!(
            store
                .search_specifications(&[word.into()], 10, 0)
                .context(word)?
                .len(),
            usize::from(finds_all(word))
        );
    }
    let with_a_good_one = [hostile.map(str::to_owned).to_vec(), vec!["pages".into()]].concat();
    assert_eq!(
        ids(&store.search_specifications(&with_a_good_one, 10, 0)?),
        ["web"]
    );
    let many: Vec<String> = (0..10_000).map(|number| format!("w{number}")).collect();
    store.search_specifications(&many, 10, 0)?;
    store.search_specifications(&["x".repeat(100_000)], 10, 0)?;
    Ok(())
}

/// Without a letter or digit there is no word, and all are listed.
fn finds_all(word: &str) -> bool {
    !word.chars().any(char::is_alphanumeric)
}

fn runs(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    let (web, database) = (
        specification("web", "1", "pages"),
        specification("db", "1", "rows"),
    );
    let mut writes = vec![
        Write::InsertSpecification(web.clone()),
        Write::InsertSpecification(database.clone()),
    ];
    for (number, specification) in [&web, &database, &web, &database].into_iter().enumerate() {
        let environment = format!("env{number}");
        let state = if number == 2 {
            RunState::Validated
        } else {
            RunState::Requested
        };
        let run = Run {
            environment,
            state,
            ..run(&format!("r{number}"), specification)
        };
        writes.push(Write::InsertRun(run));
    }
    store.commit(&change(writes))?;
    let find = |filter: RunFilter| -> Result<Vec<String>> {
        Ok(store
            .runs(&filter)?
            .into_iter()
            .map(|run| run.run_id)
            .collect())
    };
    let all = RunFilter {
        limit: 10,
        ..RunFilter::default()
    };
    assert_eq!(find(all.clone())?, ["r3", "r2", "r1", "r0"]);
    assert_eq!(
        find(RunFilter {
            limit: 2,
            ..all.clone()
        })?,
        ["r3", "r2"]
    );
    assert_eq!(
        find(RunFilter {
            before: Some("r2".into()),
            ..all.clone()
        })?,
        ["r1", "r0"]
    );
    assert_eq!(
        find(RunFilter {
            spec_id: Some("web".into()),
            ..all.clone()
        })?,
        ["r2", "r0"]
    );
    assert_eq!(
        find(RunFilter {
            spec_id: Some("web".into()),
            open_only: true,
            ..all.clone()
        })?,
        ["r0"]
    );
    assert_eq!(
        find(RunFilter {
            state: Some(RunState::Validated),
            ..all
        })?,
        ["r2"]
    );
    Ok(())
}

fn verify(store: &dyn Store, keys: &VerifyingKeys) -> Result<u64> {
    let mut verifier = Verifier::new(keys, None)?;
    for entry in store.audit(1, u32::MAX)? {
        // Heads are not read through the trait; what is checked here is the chain and the tip.
        if !entry.seq.is_multiple_of(SIGNED_EVERY) {
            verifier.entry(&entry, None)?;
        }
    }
    Ok(verifier.finish(store.signed_head()?.as_ref())?.entries)
}

fn chain(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    assert_eq!((store.audit_head()?, store.signed_head()?), (None, None));
    for number in 1..=30_u64 {
        let audit = [entry("one"), entry("two")].concat();
        let committed = store.commit(&Change {
            audit,
            sign_head: number == 7,
            ..Change::default()
        })?;
        assert_eq!(committed.seq, number * 2);
        assert_eq!(store.audit_head()?, Some((committed.seq, committed.hash)));
    }
    let entries = store.audit(59, 10)?;
    assert_eq!(
        entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [59, 60]
    );
    assert_eq!(verify(&*store, fixture.keys().verifying())?, 60);
    let SignedHead {
        seq,
        hash,
        signature,
    } = store.signed_head()?.context("a signed head")?;
    assert_eq!(seq, 60);
    assert!(
        fixture
            .keys()
            .verify(&SignedHead::signed_bytes(seq, &hash), &signature)
    );
    drop(store);
    assert_eq!(
        fixture.open()?.commit(&change(Vec::new()))?.seq,
        61,
        "the chain goes on after reopening"
    );
    Ok(())
}

fn redaction(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    store.commit(&change(Vec::new()))?;
    is_refused(store.commit(&change(vec![Write::RedactPayload(1)])))
        .context("without an entry that says so")?;
    let says_so = EntryDraft {
        actor: "ana".into(),
        action: REDACTED.into(),
        subject: "audit:1".into(),
        payload: json!(null),
    };
    let redact = Change {
        writes: vec![Write::RedactPayload(1)],
        audit: vec![says_so],
        ..Change::default()
    };
    store.commit(&redact)?;
    assert_eq!(store.audit(1, 1)?[0].payload, None);
    assert_eq!(verify(&*store, fixture.keys().verifying())?, 2);
    is_refused(store.commit(&redact)).context("a second time")?;
    Ok(())
}

fn race(fixture: &impl Fixture) -> Result<()> {
    const RACERS: usize = 64;
    let (store, run) = with_a_run(fixture)?;
    let start = Arc::new(Barrier::new(RACERS));
    let racers: Vec<_> = (0..RACERS)
        .map(|number| {
            let (store, run, start) = (Arc::clone(&store), run.clone(), Arc::clone(&start));
            std::thread::spawn(move || {
                let claimed = Run {
                    rev: 2,
                    claimant: Some(format!("agent{number}")),
                    ..run
                };
                let expected = Expectation::RunRevision {
                    run_id: "r1".into(),
                    rev: 1,
                };
                start.wait();
                (
                    number,
                    store.commit(&expecting(expected, vec![Write::UpdateRun(claimed)])),
                )
            })
        })
        .collect();
    let mut winners = Vec::new();
    for racer in racers {
        let Ok((number, result)) = racer.join() else {
            bail!("a racer panicked")
        };
        match result {
            Ok(_) => winners.push(format!("agent{number}")),
            lost => conflicts(lost)?,
        }
    }
    let claimant = store.run("r1")?.and_then(|record| record.run.claimant);
    assert_eq!(
        winners,
        Vec::from_iter(claimant),
        "exactly one winner, and it is the one on record"
    );
    assert_eq!(
        store.audit_head()?.map(|(seq, _)| seq),
        Some(2),
        "losers leave no entries"
    );
    Ok(())
}

fn approvers_of_two_kinds(fixture: &impl Fixture) -> Result<()> {
    let store = fixture.open()?;
    store.commit(&change(vec![Write::PutApprover(approver("ana", false))]))?;
    is_refused(store.commit(&change(vec![Write::PutApprover(approver("test", true))])))?;
    store.commit(&change(vec![
        Write::DeleteApprover("ana".into()),
        Write::PutApprover(approver("test", true)),
    ]))?;
    is_refused(store.commit(&change(vec![Write::PutApprover(approver("ana", false))])))?;
    Ok(())
}
