//! What every store must do, whichever database is behind it.

mod calls;
mod chain;
mod rows;
mod search;

use std::sync::{Arc, Barrier};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use shared::{
    digest::Digest,
    effect::protocol::{Outcome, PublishedPort},
};

use super::*;
use crate::{
    keys::Keys,
    run::{CheckPhase, CheckVerdict, CheckpointState},
};
use rows::*;

/// A way to open one store again and again: each call opens what the calls before it left.
pub(super) trait Fixture {
    fn open(&self) -> Result<Arc<dyn Store>>;
    fn keys(&self) -> Arc<Keys>;
}

/// What must hold, and the code that shows it.
type Case<F> = (&'static str, fn(&F) -> Result<()>);

/// Runs every case, each on a fresh store.
pub(super) fn suite<F: Fixture>(fresh: impl Fn() -> Result<F>) -> Result<()> {
    let cases: &[Case<F>] = &[
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
            search::versions,
        ),
        (
            "search finds newest versions by any word, best first",
            search::search,
        ),
        ("no word of a query is an operator", search::hostile_words),
        ("runs come newest first, filtered, page by page", runs),
        (
            "what decides about a call is read by its handle and key",
            calls::what_decides_about_a_call,
        ),
        (
            "the chain has no gaps and its heads are signed",
            chain::chain,
        ),
        (
            "a payload can be taken out if an entry says so",
            chain::redaction,
        ),
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

fn conflicts(result: Result<SignedHead, StoreError>) -> Result<()> {
    match result {
        Err(StoreError::Conflict(_)) => Ok(()),
        other => bail!("{other:?} instead of a conflict"),
    }
}

fn is_refused(result: Result<SignedHead, StoreError>) -> Result<()> {
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

#[expect(clippy::too_many_lines, reason = "one row of every kind")]
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
    let lost = |instance: &str| store.runs_with_lost_actions(&begun.service, instance);
    assert_eq!(lost("a later process")?, ["r1"]);
    assert_eq!(lost(&begun.instance)?, [""; 0]);

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
    assert_eq!(
        store.runs_with_lost_actions("shell", "a later process")?,
        [""; 0]
    );
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
            enrolment_id: "e1".into(),
        },
        Expectation::Enrolled {
            approver: "ana".into(),
            enrolment_id: "an earlier one".into(),
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
            enrolment_id: "e1".into(),
        },
    ];
    for expectation in holding {
        store
            .commit(&expecting(expectation.clone(), Vec::new()))
            .with_context(|| format!("{expectation:?}"))?;
    }
    Ok(())
}

#[expect(clippy::too_many_lines, reason = "a table")]
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
