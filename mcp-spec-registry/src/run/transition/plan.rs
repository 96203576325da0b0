//! Analyze ends with a plan put to a human.

use serde_json::json;
use time::OffsetDateTime;

use super::{
    Limits, advance, check_claimant, check_not_paused, close_checkpoints, entry, revoke_grants,
};
use crate::{
    run::{
        Checkpoint, CheckpointKind, CheckpointState, PlanRevision, RunError, RunRecord, RunState,
    },
    store::{Change, Expectation, Write},
};

/// A linted plan with its signature, and the checkpoint that will ask about it.
#[derive(Debug, Clone)]
pub struct SubmittedPlan {
    /// The plan revision, signed.
    pub plan: PlanRevision,
    /// Its canonical JSON.
    pub body: String,
    /// Id of the new checkpoint.
    pub checkpoint_id: String,
    /// Fresh nonce of the new checkpoint.
    pub nonce: String,
}

/// Transitions 3 and 6: a plan goes to V1; one that waits there already is superseded.
///
/// # Errors
/// `WRONG_STATE`, `STALE_EPOCH`, `NOT_CLAIMANT`, `RUN_PAUSED`.
pub fn submit_plan(
    record: &RunRecord,
    agent: &str,
    epoch: u64,
    submitted: SubmittedPlan,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    let run = &record.run;
    check_claimant(run, agent, epoch)?;
    check_not_paused(run)?;
    if !matches!(run.state, RunState::Analyzing | RunState::AwaitingV1) {
        return Err(RunError::wrong_state(
            &run.run_id,
            run.state,
            "analyzing or awaiting_v1",
        ));
    }
    let SubmittedPlan {
        plan,
        body,
        checkpoint_id,
        nonce,
    } = submitted;
    let checkpoint = Checkpoint {
        checkpoint_id,
        run_id: run.run_id.clone(),
        kind: CheckpointKind::V1,
        subject_digest: plan.digest.clone(),
        revision: plan.revision,
        state: CheckpointState::Open,
        nonce,
        note: None,
        opened_by: agent.to_owned(),
        opened_at: now,
        expires_at: now + limits.checkpoint,
    };
    let payload = json!({
        "revision": plan.revision, "plan_digest": plan.digest, "checkpoint": checkpoint.checkpoint_id,
    });
    let entry = entry(&format!("agent:{agent}"), "plan.submitted", run, payload);
    let mut change = advance(run, now, entry, |run| {
        run.state = RunState::AwaitingV1;
        run.lease_until = None;
        run.plan_revision = plan.revision;
        run.plan_digest = Some(plan.digest.clone());
        run.cycle = 0;
    });
    let superseded: Vec<Write> = close_checkpoints(record, CheckpointState::Superseded).collect();
    // A revision in place of one that waits opens no further question for the human.
    let limit = limits.open_checkpoints + u32::try_from(superseded.len()).unwrap_or(0);
    change.expect.push(Expectation::OpenCheckpoints {
        opened_by: agent.to_owned(),
        at_most: limit.saturating_sub(1),
    });
    change.writes.extend(superseded);
    change.writes.extend(revoke_grants(record));
    change.writes.push(Write::InsertPlan(plan, body));
    change.writes.push(Write::InsertCheckpoint(checkpoint));
    Ok(change)
}
