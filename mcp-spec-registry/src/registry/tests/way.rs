//! A run on its way.

use super::*;
use crate::{
    run::{ReturnTo, transition::claim},
    store::RunFilter,
};

#[tokio::test]
async fn a_run_goes_from_request_to_validated_and_the_audit_holds() -> anyhow::Result<()> {
    let world = World::new()?;
    let (run, begun) = world.begun().await?;
    assert_eq!(begun.steps.len(), 2);

    let permit = world.registry.begin("shell", &write_hello(&begun, 1)?)?;
    assert_eq!(
        (permit.run_id.as_str(), permit.step_id.as_str()),
        (run.run_id.as_str(), "s1")
    );
    world.registry.end("shell", &ended(&permit.action_id, 2))?;
    let look = call(
        &begun.steps[1].grant,
        "exec",
        json!({ "command": "cat hello.txt" }),
        3,
    );
    let permit = world.registry.begin("shell", &look)?;
    world.registry.end("shell", &ended(&permit.action_id, 4))?;

    let mut changes = world.registry.changes();
    world
        .registry
        .generation_complete(AGENT, &run.run_id, run.epoch, "wrote it")
        .await?;
    let v2 = loop {
        let record = world.registry.record(&run.run_id)?;
        if record.run.state == RunState::AwaitingV2 {
            break record
                .open_checkpoint()
                .context("no checkpoint")?
                .checkpoint_id
                .clone();
        }
        changes.changed().await?;
    };
    let receipt = world
        .registry
        .decide(world.decision(&v2, Verdict::Approve)?)
        .await?;
    assert_eq!(receipt.run_state, RunState::Validated);
    assert!(
        receipt.audit_head.is_some(),
        "a decision is signed into the audit"
    );

    let keys = Keys::open_or_create(&world.dir.path().join("keys"))?;
    let summary = crate::audit::verify_database(
        &world.dir.path().join("registry.sqlite"),
        keys.verifying(),
        None,
    )?;
    assert!(summary.entries > 8, "{} entries", summary.entries);
    Ok(())
}

#[tokio::test]
async fn a_no_at_v1_returns_to_analyze_and_the_next_revision_shows_what_changed()
-> anyhow::Result<()> {
    let world = World::new()?;
    let (run, first) = world.submitted()?;
    world
        .registry
        .decide(world.decision(&first, Verdict::Reject)?)
        .await?;
    assert_eq!(world.state(&run)?, RunState::Analyzing);

    let mut changed = plan_json(&run.spec_digest);
    changed["steps"][0]["rollback"] = json!("rm hello.txt");
    let changed: Plan = serde_json::from_value(changed)?;
    let accepted = world
        .registry
        .plan_submit(AGENT, &run.run_id, run.epoch, &changed)?;
    let file = world
        .registry
        .checkpoint_file(&accepted.checkpoint.checkpoint_id)?;
    assert_eq!(
        (accepted.revision, file.changes.len()),
        (2, 2),
        "one line out, one in: {:?}",
        file.changes
    );
    Ok(())
}

#[tokio::test]
async fn a_no_without_a_reason_is_refused_and_a_final_one_ends_the_run() -> anyhow::Result<()> {
    let world = World::new()?;
    let (run, checkpoint) = world.submitted()?;
    let silent = DecisionInput {
        reason: " ".to_owned(),
        ..world.decision(&checkpoint, Verdict::Reject)?
    };
    assert_eq!(code(world.registry.decide(silent).await), "REASON_REQUIRED");
    let last = DecisionInput {
        is_final: true,
        ..world.decision(&checkpoint, Verdict::Reject)?
    };
    world.registry.decide(last).await?;
    assert_eq!(world.state(&run)?, RunState::Rejected);
    assert_eq!(
        code(world.registry.run_claim(AGENT, &run.run_id)),
        "RUN_CLOSED"
    );
    Ok(())
}

#[tokio::test]
async fn at_v2_no_returns_to_generate_with_fresh_uses_or_to_analyze() -> anyhow::Result<()> {
    for (return_to, state) in [
        (ReturnTo::Generate, RunState::Generating),
        (ReturnTo::Analyze, RunState::Analyzing),
    ] {
        let world = World::new()?;
        let (run, begun) = world.begun().await?;
        let permit = world.registry.begin("shell", &write_hello(&begun, 1)?)?;
        world.registry.end("shell", &ended(&permit.action_id, 2))?;
        let mut changes = world.registry.changes();
        world
            .registry
            .generation_complete(AGENT, &run.run_id, run.epoch, "done")
            .await?;
        let v2 = loop {
            let record = world.registry.record(&run.run_id)?;
            if let Some(open) = record.open_checkpoint() {
                break open.checkpoint_id.clone();
            }
            changes.changed().await?;
        };
        let no = DecisionInput {
            return_to: Some(return_to),
            ..world.decision(&v2, Verdict::Reject)?
        };
        world.registry.decide(no).await?;
        assert_eq!(world.state(&run)?, state);
        if state == RunState::Generating {
            let again = world
                .registry
                .execution_begin(AGENT, &run.run_id, run.epoch)
                .await?;
            world.registry.begin("shell", &write_hello(&again, 3)?)?;
        }
    }
    Ok(())
}

#[test]
fn a_plan_with_faults_is_refused_with_all_of_them() -> anyhow::Result<()> {
    let world = World::new()?;
    let run = world.claimed()?;
    let mut broken = plan_json(&run.spec_digest);
    broken["steps"][0]["server"] = json!("nobody");
    broken["steps"][1]["arguments"] =
        json!({ "command": { "exact": "cat" }, "shell": { "exact": "zsh" } });
    broken["human_judges"] = json!([]);
    let error = world.registry.plan_submit(
        AGENT,
        &run.run_id,
        run.epoch,
        &serde_json::from_value(broken)?,
    );
    let error = error.err().context("accepted")?;
    assert_eq!(error.code, "PLAN_INCOMPLETE");
    for fault in [
        "no service named `nobody`",
        "no argument `shell`",
        "neither a test nor an entry",
    ] {
        assert!(error.message.contains(fault), "{}", error.message);
    }
    Ok(())
}

#[test]
fn over_64_kib_or_50_steps_a_plan_is_too_large() -> anyhow::Result<()> {
    let world = World::new()?;
    let run = world.claimed()?;
    let mut long = plan_json(&run.spec_digest);
    long["rollback"] = json!("x".repeat(64 * 1024));
    let mut many = plan_json(&run.spec_digest);
    many["steps"] = (0..51).map(|_| many["steps"][0].clone()).collect();
    for plan in [long, many] {
        let refused = world.registry.plan_submit(
            AGENT,
            &run.run_id,
            run.epoch,
            &serde_json::from_value(plan)?,
        );
        assert_eq!(code(refused), "PLAN_TOO_LARGE");
    }
    Ok(())
}

#[test]
fn before_anybody_is_enrolled_a_plan_cannot_be_submitted() -> anyhow::Result<()> {
    let world = World::new()?;
    let run = world.claimed()?;
    world.registry.unenrol("ana")?;
    let refused =
        world
            .registry
            .plan_submit(AGENT, &run.run_id, run.epoch, &plan(&run.spec_digest)?);
    assert_eq!(code(refused), "NOT_ENROLLED");
    Ok(())
}

#[test]
fn of_64_agents_that_claim_at_once_exactly_one_wins_a_hundred_times() -> anyhow::Result<()> {
    let world = World::new()?;
    for number in 0..64 {
        world
            .registry
            .agent_register(&format!("a{number}"), "races", None)?;
    }
    for round in 0..100 {
        let run = world.requested_in(&format!("e{round}"))?;
        let barrier = std::sync::Barrier::new(64);
        let won: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..64)
                .map(|number| {
                    let (barrier, registry, run_id) = (&barrier, &world.registry, &run.run_id);
                    scope.spawn(move || {
                        barrier.wait();
                        usize::from(registry.run_claim(&format!("a{number}"), run_id).is_ok())
                    })
                })
                .collect();
            racers
                .into_iter()
                .filter_map(|racer| racer.join().ok())
                .sum()
        });
        assert_eq!(won, 1, "round {round}");
    }
    Ok(())
}

#[test]
fn two_processes_that_decide_on_the_same_revision_cannot_both_write() -> anyhow::Result<()> {
    let world = World::new()?;
    let run = world.requested()?;
    let now = OffsetDateTime::now_utc();
    let limits = Limits::default();
    // Each computed its change before it saw the other's.
    let one = claim(&run, "one", &limits, now)?;
    let other = claim(&run, "other", &limits, now)?;
    world.registry.0.store.commit(&one)?;
    assert!(matches!(
        world.registry.0.store.commit(&other),
        Err(crate::store::StoreError::Conflict(_))
    ));
    assert_eq!(
        world.registry.record(&run.run_id)?.run.claimant.as_deref(),
        Some("one")
    );
    Ok(())
}

#[test]
fn the_same_request_twice_is_one_run_and_another_with_the_key_is_refused() -> anyhow::Result<()> {
    let world = World::new()?;
    let asked = |environment: &str| RunRequest {
        spec_id: "hello".to_owned(),
        version: None,
        environment: environment.to_owned(),
        idempotency_key: Some("k".to_owned()),
    };
    let first = world.registry.run_request(AGENT, &asked("e"))?;
    let again = world.registry.run_request(AGENT, &asked("e"))?;
    assert_eq!(first.run_id, again.run_id);
    assert_eq!(
        code(world.registry.run_request(AGENT, &asked("other"))),
        "IDEMPOTENCY_CONFLICT"
    );
    assert_eq!(code(world.requested_in("e")), "OPEN_RUN_EXISTS");
    let all = world.registry.runs(&RunFilter {
        limit: 10,
        ..RunFilter::default()
    })?;
    assert_eq!(all.len(), 1);
    Ok(())
}

#[test]
fn a_proposal_needs_the_newest_base_and_becomes_active_only_by_a_human() -> anyhow::Result<()> {
    let world = World::new()?;
    let newer = SPECIFICATION
        .replace("1.0", "1.1")
        .replace("says hello\ns", "greets\ns");
    let propose = |base: Option<&Digest>| {
        world
            .registry
            .spec_propose(AGENT, &newer, None, base, "shorter")
    };
    assert_eq!(code(propose(None).map(|_| ())), "BASE_MISMATCH");
    let base = Digest::of(SPECIFICATION);
    propose(Some(&base))?;
    assert_eq!(
        world.registry.spec_get("hello", None)?.row.version,
        "1.0",
        "still the active one"
    );
    let changed_text = newer.replace("greets", "shouts");
    let same_version =
        world
            .registry
            .spec_propose(AGENT, &changed_text, None, Some(&Digest::of(&newer)), "x");
    assert_eq!(code(same_version.map(|_| ())), "VERSION_EXISTS");
    Ok(())
}

#[tokio::test]
async fn approving_the_plan_for_a_proposal_puts_it_in_force_unless_a_human_did_so_with_a_later_one()
-> anyhow::Result<()> {
    for is_overtaken in [false, true] {
        let world = World::new()?;
        let version = |number: &str, verb: &str| {
            SPECIFICATION
                .replace("1.0", number)
                .replace("says hello\ns", &format!("{verb}\ns"))
        };
        let proposed = version("1.1", "greets");
        let base = Digest::of(SPECIFICATION);
        world
            .registry
            .spec_propose(AGENT, &proposed, None, Some(&base), "shorter")?;
        let asked = RunRequest {
            spec_id: "hello".to_owned(),
            version: Some("1.1".to_owned()),
            environment: "test".to_owned(),
            idempotency_key: None,
        };
        let run = world.registry.run_request(AGENT, &asked)?;
        let run = world.registry.run_claim(AGENT, &run.run_id)?;
        let submitted = world.registry.plan_submit(
            AGENT,
            &run.run_id,
            run.epoch,
            &plan(&Digest::of(&proposed))?,
        )?;
        if is_overtaken {
            let later = version("1.2", "waves");
            world
                .registry
                .add_specification(later.as_bytes(), None, "human:ana")?;
        }
        let decision = world.decision(&submitted.checkpoint.checkpoint_id, Verdict::Approve)?;
        let decided = world.registry.decide(decision).await;
        let in_force = world.registry.spec_get("hello", None)?.row.version;
        if is_overtaken {
            assert_eq!(code(decided), "SPEC_CHANGED");
            assert_eq!(in_force, "1.2");
        } else {
            decided?;
            assert_eq!(in_force, "1.1");
        }
    }
    Ok(())
}

#[test]
fn a_human_may_put_in_force_what_an_agent_proposed_word_for_word() -> anyhow::Result<()> {
    let world = World::new()?;
    let newer = SPECIFICATION
        .replace("1.0", "1.1")
        .replace("says hello\ns", "greets\ns");
    let base = Digest::of(SPECIFICATION);
    world
        .registry
        .spec_propose(AGENT, &newer, None, Some(&base), "shorter")?;
    assert_eq!(world.registry.spec_get("hello", None)?.row.version, "1.0");
    world
        .registry
        .add_specification(newer.as_bytes(), None, "human:ana")?;
    assert_eq!(world.registry.spec_get("hello", None)?.row.version, "1.1");
    assert_eq!(world.audited("specification.activated")?, 1);
    Ok(())
}
