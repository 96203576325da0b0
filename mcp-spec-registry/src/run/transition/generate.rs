//! Generate: an approval becomes handles, and ends in a report or a deviation.

use serde_json::json;
use shared::digest::Digest;
use time::OffsetDateTime;

use super::{
    Limits, advance, check_claimant, check_not_paused, checkpoint::move_on, close_checkpoints,
    entry, revoke_grants,
};
use crate::{
    plan::Plan,
    run::{
        Action, Checkpoint, CheckpointKind, CheckpointState, Decision, Grant, Run, RunError,
        RunRecord, RunState, Verdict,
    },
    store::{Change, Expectation, Write},
};

/// What `execution_begin` brings along: fresh handles and the name of each step's service.
#[derive(Debug, Clone)]
pub struct BegunExecution {
    /// For each step, in the plan's order: the digest and the first characters of a fresh handle.
    pub handles: Vec<(Digest, String)>,
}

/// The approval of the plan now in force.
///
/// # Errors
/// `NOT_APPROVED` when there is none.
pub fn approval_in_force(record: &RunRecord) -> Result<&Decision, RunError> {
    let checkpoint_of = |decision: &Decision| {
        record
            .checkpoints
            .iter()
            .find(|checkpoint| checkpoint.checkpoint_id == decision.checkpoint_id)
    };
    record
        .decisions
        .iter()
        .rev()
        .find(|decision| {
            checkpoint_of(decision).is_some_and(|checkpoint| {
                checkpoint.kind == CheckpointKind::V1
                    && checkpoint.revision == record.run.plan_revision
                    && checkpoint.subject_digest == decision.subject_digest
                    && record.run.plan_digest.as_ref() == Some(&decision.subject_digest)
            })
        })
        .filter(|decision| decision.verdict == Verdict::Approve)
        .ok_or_else(|| {
            RunError::new(
                "NOT_APPROVED",
                format!(
                    "no human approved plan revision {}",
                    record.run.plan_revision
                ),
                "wait for the decision with checkpoint_wait",
            )
        })
}

/// Transition 8, and again in Generate: handles for the steps that may still be carried out. Older handles die.
///
/// The caller has proven the record (signatures, enrolment, specification) before.
///
/// # Errors
/// `WRONG_STATE`, `STALE_EPOCH`, `NOT_CLAIMANT`, `RUN_PAUSED`, `NOT_APPROVED`, `APPROVAL_EXPIRED`.
pub fn begin_execution(
    record: &RunRecord,
    plan: &Plan,
    agent: &str,
    epoch: u64,
    begun: &BegunExecution,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<(Vec<Grant>, Change), RunError> {
    let run = &record.run;
    check_claimant(run, agent, epoch)?;
    check_not_paused(run)?;
    if !matches!(run.state, RunState::Approved | RunState::Generating) {
        return Err(RunError::wrong_state(
            &run.run_id,
            run.state,
            "approved or generating",
        ));
    }
    let approval = approval_in_force(record)?;
    if approval.begun_at.is_none() && approval.decided_at + limits.approval <= now {
        return Err(RunError::new(
            "APPROVAL_EXPIRED",
            format!(
                "the approval was given at {} and never begun",
                approval.decided_at
            ),
            "report a deviation to have it decided again",
        ));
    }
    let mut grants = Vec::new();
    for (step, (handle_sha256, short)) in plan.steps.iter().zip(&begun.handles) {
        let done = uses_in_cycle(run, &record.actions, &step.id);
        let uses_left = step.uses.saturating_sub(done);
        if uses_left > 0 {
            grants.push(Grant {
                handle_sha256: handle_sha256.clone(),
                short: short.clone(),
                run_id: run.run_id.clone(),
                step_id: step.id.clone(),
                plan_digest: approval.subject_digest.clone(),
                principal: agent.to_owned(),
                service: step.server.clone(),
                epoch,
                uses_left,
                expires_at: now + limits.grant,
                revoked: false,
            });
        }
    }
    let names: Vec<&str> = grants.iter().map(|grant| grant.short.as_str()).collect();
    let payload =
        json!({ "plan_digest": approval.subject_digest, "cycle": run.cycle, "grants": names });
    let entry = entry(&format!("agent:{agent}"), "execution.begun", run, payload);
    let mut change = advance(run, now, entry, |run| {
        move_on(run, RunState::Generating, limits, now);
    });
    change.expect.push(Expectation::Enrolled {
        approver: approval.approver.clone(),
        enrolment_id: approval.enrolment_id.clone(),
    });
    if approval.begun_at.is_none() {
        let used = Decision {
            begun_at: Some(now),
            ..approval.clone()
        };
        change.writes.push(Write::UpdateDecision(used));
    }
    change.writes.extend(revoke_grants(record));
    change
        .writes
        .extend(grants.iter().cloned().map(Write::InsertGrant));
    Ok((grants, change))
}

/// How often a step was begun in this cycle of this plan revision.
fn uses_in_cycle(run: &Run, actions: &[Action], step_id: &str) -> u32 {
    let begun = actions.iter().filter(|action| {
        action.step_id == step_id
            && action.revision == run.plan_revision
            && action.cycle == run.cycle
    });
    u32::try_from(begun.count()).unwrap_or(u32::MAX)
}

/// Transition 9: the agent says that the plan does not hold. All handles die, and a human is asked.
///
/// # Errors
/// `WRONG_STATE`, `STALE_EPOCH`, `NOT_CLAIMANT`.
#[expect(
    clippy::too_many_arguments,
    reason = "a pure function is given the clock and the random names it needs"
)]
pub fn report_deviation(
    record: &RunRecord,
    agent: &str,
    epoch: u64,
    what: &str,
    checkpoint_id: String,
    nonce: String,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    let run = &record.run;
    check_claimant(run, agent, epoch)?;
    if !matches!(run.state, RunState::Approved | RunState::Generating) {
        return Err(RunError::wrong_state(
            &run.run_id,
            run.state,
            "approved or generating",
        ));
    }
    let subject_digest = run.plan_digest.clone().ok_or_else(|| {
        RunError::new(
            "NOT_APPROVED",
            "there is no plan to deviate from",
            "submit one with plan_submit",
        )
    })?;
    let payload = json!({ "what": what, "checkpoint": checkpoint_id });
    let entry = entry(
        &format!("agent:{agent}"),
        "deviation.reported",
        run,
        payload,
    );
    let mut change = advance(run, now, entry, |run| {
        move_on(run, RunState::AwaitingV1, limits, now);
    });
    change.expect.push(Expectation::OpenCheckpoints {
        opened_by: agent.to_owned(),
        at_most: limits.open_checkpoints.saturating_sub(1),
    });
    change
        .writes
        .extend(close_checkpoints(record, CheckpointState::Superseded));
    change.writes.extend(revoke_grants(record));
    change.writes.push(Write::InsertCheckpoint(Checkpoint {
        checkpoint_id,
        run_id: run.run_id.clone(),
        kind: CheckpointKind::V1,
        subject_digest,
        revision: run.plan_revision,
        state: CheckpointState::Open,
        nonce,
        note: Some(what.to_owned()),
        opened_by: agent.to_owned(),
        opened_at: now,
        expires_at: now + limits.checkpoint,
    }));
    Ok(change)
}

/// Transition 10: the agent says it is done. All handles die, and the checks begin.
///
/// # Errors
/// `WRONG_STATE`, `STALE_EPOCH`, `NOT_CLAIMANT`, `RUN_PAUSED`, `OPEN_ACTIONS`.
pub fn complete_generation(
    record: &RunRecord,
    agent: &str,
    epoch: u64,
    report: &str,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    let run = &record.run;
    check_claimant(run, agent, epoch)?;
    check_not_paused(run)?;
    if run.state != RunState::Generating {
        return Err(RunError::wrong_state(&run.run_id, run.state, "generating"));
    }
    let open: Vec<&str> = record
        .open_actions()
        .map(|action| action.action_id.as_str())
        .collect();
    if !open.is_empty() {
        return Err(RunError::new(
            "OPEN_ACTIONS",
            format!("these actions have not ended: {}", open.join(", ")),
            "wait for them or stop them, then call generation_complete again",
        ));
    }
    let entry = entry(
        &format!("agent:{agent}"),
        "generation.completed",
        run,
        json!({ "report": report, "cycle": run.cycle }),
    );
    let mut change = advance(run, now, entry, |run| {
        move_on(run, RunState::Verifying, limits, now);
        run.report = Some(report.to_owned());
    });
    change.writes.extend(revoke_grants(record));
    Ok(change)
}
