//! What a human or the clock does to a run from outside its cycle.

use serde_json::json;
use time::OffsetDateTime;

use super::{Limits, advance, checkpoint::move_on, close_checkpoints, entry, revoke_grants};
use crate::{
    run::{CheckpointState, Run, RunError, RunRecord, RunState},
    store::Change,
};

/// A human ends the run in good order.
///
/// # Errors
/// `RUN_CLOSED` when it has ended.
pub fn cancel(
    record: &RunRecord,
    actor: &str,
    reason: &str,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    end_run(
        record,
        RunState::Cancelled,
        "run.cancelled",
        actor,
        reason,
        limits,
        now,
    )
}

/// The kill switch.
///
/// # Errors
/// `RUN_CLOSED` when it has ended.
pub fn kill(
    record: &RunRecord,
    actor: &str,
    reason: &str,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    end_run(
        record,
        RunState::Aborted,
        "run.killed",
        actor,
        reason,
        limits,
        now,
    )
}

fn end_run(
    record: &RunRecord,
    state: RunState,
    action: &str,
    actor: &str,
    reason: &str,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    check_open(&record.run)?;
    let entry = entry(actor, action, &record.run, json!({ "reason": reason }));
    let mut change = advance(&record.run, now, entry, |run| {
        move_on(run, state, limits, now);
        run.closed_reason = Some(reason.to_owned());
    });
    change.sign_head = true;
    change
        .writes
        .extend(close_checkpoints(record, CheckpointState::Withdrawn));
    change.writes.extend(revoke_grants(record));
    Ok(change)
}

/// Until it is resumed, no effect is allowed.
///
/// # Errors
/// `RUN_CLOSED`, `ALREADY_PAUSED`.
pub fn pause(
    run: &Run,
    actor: &str,
    reason: &str,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    check_open(run)?;
    if run.paused {
        return Err(RunError::new(
            "ALREADY_PAUSED",
            format!("run {} is paused already", run.run_id),
            "resume it, or leave it",
        ));
    }
    let entry = entry(actor, "run.paused", run, json!({ "reason": reason }));
    Ok(advance(run, now, entry, |run| run.paused = true))
}

/// Ends a pause; a lease that ran out meanwhile starts anew.
///
/// # Errors
/// `RUN_CLOSED`, `NOT_PAUSED`.
pub fn resume(
    run: &Run,
    actor: &str,
    reason: &str,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    check_open(run)?;
    if !run.paused {
        return Err(RunError::new(
            "NOT_PAUSED",
            format!("run {} is not paused", run.run_id),
            "there is nothing to resume",
        ));
    }
    let entry = entry(actor, "run.resumed", run, json!({ "reason": reason }));
    Ok(advance(run, now, entry, |run| {
        run.paused = false;
        let state = run.state;
        move_on(run, state, limits, now);
    }))
}

/// The claimant showed a sign of life; written only when half of the lease is gone.
pub fn renew(run: &Run, limits: &Limits, now: OffsetDateTime) -> Option<Change> {
    let until = run.lease_until.filter(|until| *until > now)?;
    if until - now > limits.lease / 2 {
        return None;
    }
    let claimant = run.claimant.as_deref()?;
    let entry = entry(
        &format!("agent:{claimant}"),
        "lease.renewed",
        run,
        json!({ "epoch": run.epoch }),
    );
    Some(advance(run, now, entry, |run| {
        run.lease_until = Some(now + limits.lease);
    }))
}

/// Transition 17: the claimant was silent for too long. The state stays, the claim and its handles do not.
pub fn lapse(record: &RunRecord, now: OffsetDateTime) -> Option<Change> {
    let run = &record.run;
    let lapsed = !run.paused && run.lease_until.is_some_and(|until| until <= now);
    if !lapsed || run.claimant.is_none() {
        return None;
    }
    let payload = json!({ "claimant": run.claimant, "epoch": run.epoch });
    let entry = entry("registry", "lease.lapsed", run, payload);
    let mut change = advance(run, now, entry, |run| {
        run.claimant = None;
        run.lease_until = None;
        run.epoch += 1;
    });
    change.writes.extend(revoke_grants(record));
    Some(change)
}

fn check_open(run: &Run) -> Result<(), RunError> {
    if run.state.is_closed() {
        return Err(RunError::new(
            "RUN_CLOSED",
            format!("run {} has ended: {}", run.run_id, run.state),
            "there is nothing left to stop",
        ));
    }
    Ok(())
}
