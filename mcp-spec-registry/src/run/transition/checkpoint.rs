//! Verify and Validate: what a human decides, and what happens when nobody does.

use serde_json::json;
use time::OffsetDateTime;

use super::{Limits, advance, close_checkpoints, entry};
use crate::{
    run::{
        CheckVerdict, Checkpoint, CheckpointKind, CheckpointState, Decision, ReturnTo, Run,
        RunError, RunRecord, RunState, Verdict,
    },
    store::{Change, Expectation, Write},
};

/// A signed decision, already checked for code and secret.
#[derive(Debug, Clone)]
pub struct DecisionInputs {
    /// The decision.
    pub decision: Decision,
    /// The newest round of measurements, for V2: criterion and verdict.
    pub results: Vec<(String, CheckVerdict)>,
    /// Approving V1 activates this specification, which an agent proposed.
    pub activates: Option<shared::digest::Digest>,
}

/// Transitions 4, 5, 12 and 13: a human decides.
///
/// # Errors
/// `CHECKPOINT_CLOSED`, `REASON_REQUIRED`, `CLARIFY_BUDGET`, `UNKNOWN_NOT_WAIVED`, `DIGEST_MISMATCH`, `CLARIFY_ONLY_V1`.
pub fn decide(
    record: &RunRecord,
    inputs: DecisionInputs,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    let run = &record.run;
    let decision = inputs.decision;
    let checkpoint = open_checkpoint(record, &decision, now)?;
    let (next, checkpoint_state) = match (checkpoint.kind, decision.verdict) {
        (CheckpointKind::V1, Verdict::Approve) => (RunState::Approved, CheckpointState::Approved),
        (CheckpointKind::V1, Verdict::Reject) => (RunState::Analyzing, CheckpointState::Rejected),
        (CheckpointKind::V1, Verdict::Clarify) => {
            if run.clarifications >= limits.clarifications {
                return Err(RunError::new(
                    "CLARIFY_BUDGET",
                    format!(
                        "this run was asked back {} times already",
                        run.clarifications
                    ),
                    "approve or reject",
                ));
            }
            (RunState::Analyzing, CheckpointState::Clarify)
        }
        (CheckpointKind::V2, Verdict::Approve) => {
            check_unknown_accepted(&inputs.results, &decision)?;
            (RunState::Validated, CheckpointState::Approved)
        }
        (CheckpointKind::V2, Verdict::Reject) => {
            let next = match decision.return_to.unwrap_or_default() {
                ReturnTo::Generate => RunState::Generating,
                ReturnTo::Analyze => RunState::Analyzing,
            };
            (next, CheckpointState::Rejected)
        }
        (CheckpointKind::V2, Verdict::Clarify) => {
            return Err(RunError::new(
                "CLARIFY_ONLY_V1",
                "the outcome can be accepted or rejected",
                "reject with your question as the reason",
            ));
        }
    };
    let rejected_v1 = checkpoint.kind == CheckpointKind::V1 && decision.verdict == Verdict::Reject;
    let (next, closed_reason) = if decision.verdict == Verdict::Reject && decision.is_final {
        (RunState::Rejected, Some(decision.reason.clone()))
    } else if rejected_v1 && run.rejections + 1 >= limits.rejections {
        (RunState::Failed, Some("V1_EXHAUSTED".to_owned()))
    } else {
        (next, None)
    };

    let activates = inputs
        .activates
        .filter(|_| checkpoint_state == CheckpointState::Approved);
    let payload = json!({
        "checkpoint": checkpoint.checkpoint_id, "kind": checkpoint.kind, "verdict": decision.verdict,
        "reason": decision.reason, "reason_code": decision.reason_code, "final": decision.is_final,
        "return_to": decision.return_to, "assurance": decision.assurance,
        "subject_digest": decision.subject_digest, "accepted_unknown": decision.accepted_unknown,
        "decision_id": decision.decision_id, "next": next, "activates": activates,
    });
    let entry = entry(
        &format!("human:{}", decision.approver),
        "checkpoint.decided",
        run,
        payload,
    );
    let mut change = advance(run, now, entry, |run| {
        move_on(run, next, limits, now);
        run.closed_reason = closed_reason;
        run.rejections += u32::from(rejected_v1);
        run.clarifications += u32::from(decision.verdict == Verdict::Clarify);
        if checkpoint.kind == CheckpointKind::V2 && next == RunState::Generating {
            run.cycle += 1;
        }
    });
    change.sign_head = true;
    change.expect.push(Expectation::Enrolled {
        approver: decision.approver.clone(),
        enrolment_id: decision.enrolment_id.clone(),
    });
    change.writes.push(Write::UpdateCheckpoint(Checkpoint {
        state: checkpoint_state,
        ..checkpoint.clone()
    }));
    if let Some(digest) = activates {
        change.writes.push(Write::ActivateSpecification(digest));
    }
    change.writes.push(Write::InsertDecision(decision));
    Ok(change)
}

/// Sets the state with the lease that goes with it.
pub(super) fn move_on(run: &mut Run, next: RunState, limits: &Limits, now: OffsetDateTime) {
    run.state = next;
    run.lease_until = (next.has_lease() && run.claimant.is_some()).then(|| now + limits.lease);
    if next.is_closed() {
        run.claimant = None;
    }
}

fn open_checkpoint<'a>(
    record: &'a RunRecord,
    decision: &Decision,
    now: OffsetDateTime,
) -> Result<&'a Checkpoint, RunError> {
    let closed = |what: String| {
        RunError::new(
            "CHECKPOINT_CLOSED",
            what,
            "look at the queue for what is open now",
        )
    };
    let checkpoint = record
        .checkpoints
        .iter()
        .find(|checkpoint| checkpoint.checkpoint_id == decision.checkpoint_id)
        .ok_or_else(|| closed(format!("there is no checkpoint {}", decision.checkpoint_id)))?;
    if checkpoint.state != CheckpointState::Open {
        let by = record
            .decisions
            .iter()
            .find(|other| other.checkpoint_id == checkpoint.checkpoint_id)
            .map_or_else(String::new, |other| format!(" by {}", other.approver));
        let state = format!("{:?}", checkpoint.state).to_lowercase();
        return Err(closed(format!(
            "checkpoint {} was {state}{by}",
            checkpoint.checkpoint_id
        )));
    }
    if checkpoint.expires_at <= now {
        return Err(closed(format!(
            "checkpoint {} has lapsed",
            checkpoint.checkpoint_id
        )));
    }
    if checkpoint.subject_digest != decision.subject_digest {
        return Err(RunError::new(
            "DIGEST_MISMATCH",
            format!(
                "checkpoint {} is about {}",
                checkpoint.checkpoint_id, checkpoint.subject_digest
            ),
            "read the newest revision and decide about that",
        ));
    }
    let must_say_why = decision.verdict != Verdict::Approve || decision.is_final;
    if must_say_why && decision.reason.trim().is_empty() {
        return Err(RunError::new(
            "REASON_REQUIRED",
            "a decision that sends work back needs a reason",
            "say in a sentence what is wrong",
        ));
    }
    Ok(checkpoint)
}

fn check_unknown_accepted(
    results: &[(String, CheckVerdict)],
    decision: &Decision,
) -> Result<(), RunError> {
    let missing: Vec<&str> = results
        .iter()
        .filter(|(_, verdict)| *verdict == CheckVerdict::Unknown)
        .map(|(criterion, _)| criterion.as_str())
        .filter(|criterion| {
            !decision
                .accepted_unknown
                .iter()
                .any(|name| name == criterion)
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(RunError::new(
        "UNKNOWN_NOT_WAIVED",
        format!("nobody knows whether these hold: {}", missing.join(", ")),
        "accept each of them by name, or reject",
    ))
}

/// Transition 7: nobody answered in time.
pub fn expire(record: &RunRecord, limits: &Limits, now: OffsetDateTime) -> Option<Change> {
    let checkpoint = record
        .open_checkpoint()
        .filter(|checkpoint| checkpoint.expires_at <= now)?;
    let payload = json!({ "checkpoint": checkpoint.checkpoint_id });
    let entry = entry("registry", "checkpoint.expired", &record.run, payload);
    let mut change = advance(&record.run, now, entry, |run| {
        move_on(run, RunState::Expired, limits, now);
        run.closed_reason = Some("nobody answered the checkpoint in time".to_owned());
    });
    change
        .writes
        .extend(close_checkpoints(record, CheckpointState::Expired));
    Some(change)
}
