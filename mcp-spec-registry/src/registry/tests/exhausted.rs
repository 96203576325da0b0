//! What ends because it was tried too often, or not taken up in time.

use super::*;
use crate::run::{
    CheckPhase, CheckVerdict, Evaluation, Rationale, RunRecord,
    transition::{RequestInputs, checks_done, request},
};

#[tokio::test]
async fn ten_noes_at_v1_end_the_run() -> anyhow::Result<()> {
    let world = World::new()?;
    let most = Limits::default().rejections;
    let run = world.claimed()?;
    for times in 1..=most {
        let plan = plan(&run.spec_digest)?;
        let submitted = world
            .registry
            .plan_submit(AGENT, &run.run_id, run.epoch, &plan)?;
        let no = world.decision(&submitted.checkpoint.checkpoint_id, Verdict::Reject)?;
        world.registry.decide(no).await?;
        let record = world.registry.record(&run.run_id)?.run;
        let (state, why) = if times < most {
            (RunState::Analyzing, None)
        } else {
            (RunState::Failed, Some("V1_EXHAUSTED"))
        };
        assert_eq!(
            (record.state, record.closed_reason.as_deref()),
            (state, why)
        );
    }
    let more = world.registry.run_claim(AGENT, &run.run_id);
    assert_eq!(code(more), "RUN_CLOSED");
    Ok(())
}

#[tokio::test]
async fn an_approval_that_nobody_took_up_for_a_day_is_void() -> anyhow::Result<()> {
    let begin_after = async |time: Duration| {
        let world = World::new()?;
        let run = world.approved().await?;
        world.pass(time);
        world.registry.look_at_the_clock()?;
        let begun = world
            .registry
            .execution_begin(AGENT, &run.run_id, run.epoch)
            .await;
        anyhow::Ok((world, run, begun))
    };
    let day = Limits::default().approval;
    let (world, run, begun) = begin_after(day).await?;
    assert_eq!(code(begun), "APPROVAL_EXPIRED");
    // The way on that the refusal names.
    world
        .registry
        .deviation_report(AGENT, &run.run_id, run.epoch, "nobody took it up")?;
    assert_eq!(world.state(&run)?, RunState::AwaitingV1);

    let (_, _, begun) = begin_after(day - Duration::seconds(1)).await?;
    begun?;
    Ok(())
}

#[test]
fn a_check_that_fails_in_the_last_cycle_ends_the_run() -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    let limits = Limits::default();
    let decided =
        |cycle: u32, verdict: CheckVerdict| -> anyhow::Result<(RunState, Option<String>)> {
            let inputs = RequestInputs {
                run_id: "r1".to_owned(),
                spec_id: "hello".to_owned(),
                spec_version: "1.0".to_owned(),
                spec_digest: Digest::of("hello"),
                environment: "default".to_owned(),
                requester: AGENT.to_owned(),
            };
            let (run, _) = request(inputs, AGENT, now);
            let record = RunRecord {
                run: Run {
                    state: RunState::Verifying,
                    cycle,
                    ..run
                },
                plans: Vec::new(),
                checkpoints: Vec::new(),
                decisions: Vec::new(),
                grants: Vec::new(),
                actions: Vec::new(),
                evaluations: Vec::new(),
                rationales: Vec::new(),
            };
            let measured = Evaluation {
                evaluation_id: "e1".to_owned(),
                run_id: "r1".to_owned(),
                revision: 1,
                test_index: 0,
                criterion: "content/the-file-says-hello".to_owned(),
                phase: CheckPhase::After,
                round: 1,
                verdict,
                measured: String::new(),
                reason: None,
                evidence: json!({}),
                evidence_sha256: Digest::of("{}"),
                measured_by: "registry".to_owned(),
                measured_at: now,
            };
            let change = checks_done(
                &record,
                vec![measured],
                Digest::of("evidence"),
                "7KQ2AB".to_owned(),
                "nonce".to_owned(),
                &limits,
                now,
            )?;
            let written = change.writes.iter().find_map(|write| match write {
                Write::UpdateRun(run) => Some((run.state, run.closed_reason.clone())),
                _ => None,
            });
            written.context("the run was not written")
        };
    let last = limits.cycles - 1;
    let exhausted = Some("CHECKS_EXHAUSTED".to_owned());
    assert_eq!(
        decided(last, CheckVerdict::Fail)?,
        (RunState::Failed, exhausted)
    );
    assert_eq!(
        decided(last - 1, CheckVerdict::Fail)?,
        (RunState::Generating, None)
    );
    assert_eq!(
        decided(last, CheckVerdict::Pass)?,
        (RunState::AwaitingV2, None)
    );
    Ok(())
}

#[tokio::test]
async fn what_an_agent_writes_has_an_end_and_so_has_how_often() -> anyhow::Result<()> {
    let world = World::new()?;
    let (run, _) = world.begun().await?;
    let registry = &world.registry;
    let long = "x".repeat(64 * 1024);
    let rationale = |text: &str, options: usize| Rationale {
        rationale_id: String::new(),
        run_id: run.run_id.clone(),
        agent: AGENT.to_owned(),
        question: text.to_owned(),
        options: vec!["a".to_owned(); options],
        chosen: "a".to_owned(),
        why: "b".to_owned(),
        recorded_at: OffsetDateTime::now_utc(),
    };
    let record = |text: &str, options| registry.rationale_record(AGENT, rationale(text, options));
    let base = Digest::of(SPECIFICATION);
    let refused = [
        code(registry.agent_register(AGENT, &long, None)),
        code(
            registry
                .spec_propose(AGENT, SPECIFICATION, None, Some(&base), &long)
                .map(|_| ()),
        ),
        code(registry.deviation_report(AGENT, &run.run_id, run.epoch, &long)),
        code(
            registry
                .generation_complete(AGENT, &run.run_id, run.epoch, &long)
                .await,
        ),
        code(record(&long, 1)),
    ];
    assert_eq!(refused, ["TEXT_TOO_LONG"; 5]);
    assert_eq!(code(record("why", 17)), "TOO_MANY");
    for _ in 0..256 {
        record("why", 16)?;
    }
    assert_eq!(code(record("why", 16)), "TOO_MANY");
    assert_eq!(world.state(&run)?, RunState::Generating);
    Ok(())
}
