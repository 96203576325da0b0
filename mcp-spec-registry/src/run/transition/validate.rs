//! The registry's own measurements, before Generate and after it.

use serde_json::json;
use shared::digest::Digest;
use time::OffsetDateTime;

use super::{Limits, advance, checkpoint::move_on, entry};
use crate::{
    run::{
        CheckVerdict, Checkpoint, CheckpointKind, CheckpointState, Evaluation, RunError, RunRecord,
        RunState,
    },
    store::{Change, Write},
};

/// Records the tests that were run before Generate.
pub fn record_before(
    record: &RunRecord,
    evaluations: Vec<Evaluation>,
    now: OffsetDateTime,
) -> Change {
    let entry = entry(
        "registry",
        "checks.before",
        &record.run,
        summary(&evaluations),
    );
    let mut change = advance(&record.run, now, entry, |_| {});
    change
        .writes
        .extend(evaluations.into_iter().map(Write::InsertEvaluation));
    change
}

/// Transition 11: a failed check goes back to Generate; otherwise a human is asked.
///
/// # Errors
/// `WRONG_STATE` when the run is no longer verifying.
pub fn checks_done(
    record: &RunRecord,
    evaluations: Vec<Evaluation>,
    evidence: Digest,
    checkpoint_id: String,
    nonce: String,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    let run = &record.run;
    if run.state != RunState::Verifying {
        return Err(RunError::wrong_state(&run.run_id, run.state, "verifying"));
    }
    let failed = evaluations
        .iter()
        .any(|evaluation| evaluation.verdict == CheckVerdict::Fail);
    let next = match (failed, run.cycle + 1 >= limits.cycles) {
        (false, _) => RunState::AwaitingV2,
        (true, false) => RunState::Generating,
        (true, true) => RunState::Failed,
    };
    let mut payload = summary(&evaluations);
    payload["evidence_digest"] = json!(evidence);
    payload["next"] = json!(next);
    let entry = entry("registry", "checks.done", run, payload);
    let mut change = advance(run, now, entry, |run| {
        move_on(run, next, limits, now);
        if failed {
            run.cycle += 1;
        }
        if next == RunState::Failed {
            run.closed_reason = Some("CHECKS_EXHAUSTED".to_owned());
        }
    });
    change.sign_head = true;
    change
        .writes
        .extend(evaluations.into_iter().map(Write::InsertEvaluation));
    if next == RunState::AwaitingV2 {
        change.writes.push(Write::InsertCheckpoint(Checkpoint {
            checkpoint_id,
            run_id: run.run_id.clone(),
            kind: CheckpointKind::V2,
            subject_digest: evidence,
            revision: run.plan_revision,
            state: CheckpointState::Open,
            nonce,
            note: run.report.clone(),
            opened_by: run
                .claimant
                .clone()
                .unwrap_or_else(|| "registry".to_owned()),
            opened_at: now,
            expires_at: now + limits.checkpoint,
        }));
    }
    Ok(change)
}

fn summary(evaluations: &[Evaluation]) -> serde_json::Value {
    let results: Vec<_> = evaluations
        .iter()
        .map(|evaluation| {
            json!({
                "criterion": evaluation.criterion, "verdict": evaluation.verdict,
                "evidence_sha256": evaluation.evidence_sha256,
            })
        })
        .collect();
    json!({ "results": results })
}
