//! Request, and the claim of one agent.

use serde_json::json;
use shared::digest::Digest;
use time::OffsetDateTime;

use super::{Limits, advance, entry};
use crate::{
    run::{Run, RunError, RunState},
    store::{Change, Expectation, Write},
};

/// What a new run is made of.
#[derive(Debug, Clone)]
pub struct RequestInputs {
    /// Fresh ULID.
    pub run_id: String,
    /// The specification.
    pub spec_id: String,
    /// Its version.
    pub spec_version: String,
    /// Digest of exactly this version.
    pub spec_digest: Digest,
    /// Where the outcome is wanted.
    pub environment: String,
    /// Who asks.
    pub requester: String,
}

/// Transition 1: nothing → requested.
pub fn request(inputs: RequestInputs, actor: &str, now: OffsetDateTime) -> (Run, Change) {
    let run = Run {
        run_id: inputs.run_id,
        spec_id: inputs.spec_id,
        spec_version: inputs.spec_version,
        spec_digest: inputs.spec_digest,
        environment: inputs.environment,
        requester: inputs.requester,
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
        created_at: now,
        updated_at: now,
    };
    let payload = json!({
        "spec_id": run.spec_id, "version": run.spec_version, "spec_digest": run.spec_digest,
        "environment": run.environment,
    });
    let change = Change {
        expect: vec![Expectation::NoOpenRun {
            spec_id: run.spec_id.clone(),
            environment: run.environment.clone(),
        }],
        audit: vec![entry(actor, "run.requested", &run, payload)],
        writes: vec![Write::InsertRun(run.clone())],
        sign_head: false,
    };
    (run, change)
}

/// Transition 2: an agent claims a run that nobody holds; a requested one goes to Analyze.
///
/// # Errors
/// `CLAIM_LOST` when somebody holds it, `RUN_CLOSED` when it has ended.
pub fn claim(
    run: &Run,
    agent: &str,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<Change, RunError> {
    if run.state.is_closed() {
        return Err(RunError::new(
            "RUN_CLOSED",
            format!("run {} has ended: {}", run.run_id, run.state),
            "request a new run with run_request",
        ));
    }
    // As for the clock: a paused run keeps its claim.
    let lapsed =
        run.state.has_lease() && !run.paused && run.lease_until.is_some_and(|until| until <= now);
    if let Some(claimant) = run.claimant.as_ref().filter(|_| !lapsed) {
        let who = if claimant == agent {
            format!("you already, under epoch {}", run.epoch)
        } else {
            claimant.clone()
        };
        return Err(RunError::new(
            "CLAIM_LOST",
            format!("run {} is claimed by {who}", run.run_id),
            "work on another run, or wait until the claim lapses; run_get shows lease_until",
        ));
    }
    let epoch = run.epoch + 1;
    let entry = entry(
        &format!("agent:{agent}"),
        "run.claimed",
        run,
        json!({ "epoch": epoch }),
    );
    Ok(advance(run, now, entry, |run| {
        run.claimant = Some(agent.to_owned());
        run.epoch = epoch;
        if run.state == RunState::Requested {
            run.state = RunState::Analyzing;
        }
        run.lease_until = run.state.has_lease().then(|| now + limits.lease);
    }))
}
