//! What moves a run from state to state: pure functions from what is on record to the change that must be written.
//!
//! None of them reads a clock, a file or the store; each names in its change the revision it was computed from.

mod checkpoint;
mod control;
mod effect;
mod generate;
mod plan;
mod request;
mod validate;

pub use checkpoint::{DecisionInputs, decide, expire};
pub use control::{cancel, kill, lapse, pause, renew, resume};
pub use effect::{BeginInputs, EndInputs, begin, begin_again, end, lose};
pub use generate::{
    BegunExecution, approval_in_force, begin_execution, complete_generation, report_deviation,
};
pub use plan::{SubmittedPlan, submit_plan};
pub use request::{RequestInputs, claim, request};
pub use validate::{checks_done, record_before};

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::{Checkpoint, CheckpointState, Run, RunError, RunRecord};
use crate::{
    audit::EntryDraft,
    store::{Change, Expectation, Write},
};

/// How long things last and how often they may happen.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A claim lapses after this long without a call of the claimant.
    pub lease: Duration,
    /// A checkpoint lapses after this long without an answer.
    pub checkpoint: Duration,
    /// An approval that was not begun lapses after this long.
    pub approval: Duration,
    /// Life of a handle.
    pub grant: Duration,
    /// Most open checkpoints of one agent.
    pub open_checkpoints: u32,
    /// Most times V1 may ask back in one run.
    pub clarifications: u32,
    /// Most times V1 may say no before the run has failed.
    pub rejections: u32,
    /// Most times Generate may be started over under one plan.
    pub cycles: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease: Duration::minutes(15),
            checkpoint: Duration::days(7),
            approval: Duration::days(1),
            grant: Duration::minutes(10),
            open_checkpoints: 10,
            clarifications: 5,
            rejections: 10,
            cycles: 20,
        }
    }
}

/// A change of a run: its next revision with `edit` applied, and the audit entry for it.
fn advance(
    run: &Run,
    now: OffsetDateTime,
    entry: EntryDraft,
    edit: impl FnOnce(&mut Run),
) -> Change {
    let mut next = run.clone();
    edit(&mut next);
    next.rev = run.rev + 1;
    next.updated_at = now;
    Change {
        expect: vec![Expectation::RunRevision {
            run_id: run.run_id.clone(),
            rev: run.rev,
        }],
        writes: vec![Write::UpdateRun(next)],
        audit: vec![entry],
        sign_head: false,
    }
}

fn entry(actor: &str, action: &str, run: &Run, payload: Value) -> EntryDraft {
    EntryDraft {
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject: run.run_id.clone(),
        payload,
    }
}

/// The caller must hold the claim, under the epoch it says.
fn check_claimant(run: &Run, agent: &str, epoch: u64) -> Result<(), RunError> {
    match &run.claimant {
        Some(claimant) if claimant == agent && run.epoch == epoch => Ok(()),
        Some(claimant) if claimant == agent => Err(RunError::new(
            "STALE_EPOCH",
            format!(
                "epoch {epoch} is over; run {} is at epoch {}",
                run.run_id, run.epoch
            ),
            "the claim was lost in between; use the epoch of your newest run_claim, or claim again",
        )),
        Some(claimant) => Err(RunError::new(
            "NOT_CLAIMANT",
            format!("run {} is claimed by {claimant}", run.run_id),
            "only its claimant may do this",
        )),
        None => Err(RunError::new(
            "STALE_EPOCH",
            format!(
                "run {} is claimed by nobody; your claim has lapsed",
                run.run_id
            ),
            "call run_claim again and use the epoch it gives",
        )),
    }
}

fn check_not_paused(run: &Run) -> Result<(), RunError> {
    if run.paused {
        return Err(RunError::new(
            "RUN_PAUSED",
            format!("run {} is paused by a human", run.run_id),
            "wait until it is resumed; run_get shows it",
        ));
    }
    Ok(())
}

/// Writes that end whatever checkpoint is open.
fn close_checkpoints(record: &RunRecord, state: CheckpointState) -> impl Iterator<Item = Write> {
    record
        .checkpoints
        .iter()
        .filter(|checkpoint| checkpoint.state == CheckpointState::Open)
        .map(move |checkpoint| {
            Write::UpdateCheckpoint(Checkpoint {
                state,
                ..checkpoint.clone()
            })
        })
}

/// Writes that end every handle that is still alive.
fn revoke_grants(record: &RunRecord) -> impl Iterator<Item = Write> {
    record
        .grants
        .iter()
        .filter(|grant| !grant.revoked)
        .map(|grant| {
            let mut grant = grant.clone();
            grant.revoked = true;
            Write::UpdateGrant(grant)
        })
}
