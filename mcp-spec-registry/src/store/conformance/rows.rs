//! Rows for the cases, each whole and different from the others.

use serde_json::json;
use shared::{digest::Digest, effect::protocol::Lifetime};
use time::{Duration, OffsetDateTime};

use crate::{audit::EntryDraft, run::*, store::*};

/// 2026-11-24 10:00 UTC and some nanoseconds.
pub(super) const NOW: OffsetDateTime =
    OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::new(1_795_514_400, 123_456_789));

pub(super) fn entry(action: &str) -> Vec<EntryDraft> {
    vec![EntryDraft {
        actor: "ana".into(),
        action: action.into(),
        subject: "s".into(),
        payload: json!({"n": 1}),
    }]
}

pub(super) fn change(writes: Vec<Write>) -> Change {
    Change {
        writes,
        audit: entry("test.written"),
        ..Change::default()
    }
}

pub(super) fn expecting(expect: Expectation, writes: Vec<Write>) -> Change {
    Change {
        expect: vec![expect],
        ..change(writes)
    }
}

pub(super) fn specification(spec_id: &str, version: &str, words: &str) -> SpecificationRow {
    let verbatim = format!("spec_id: {spec_id}\nversion: {version}\noutcome: {words}\n");
    SpecificationRow {
        spec_id: spec_id.into(),
        version: version.into(),
        digest: Digest::of(&verbatim),
        verbatim,
        search_text: words.into(),
        title: words.chars().take(20).collect(),
        status: SpecificationStatus::Proposed,
        added_by: "ana".into(),
        reason: Some("first ✓".into()),
        added_at: NOW,
    }
}

pub(super) fn run(run_id: &str, specification: &SpecificationRow) -> Run {
    Run {
        run_id: run_id.into(),
        spec_id: specification.spec_id.clone(),
        spec_version: specification.version.clone(),
        spec_digest: specification.digest.clone(),
        environment: "default".into(),
        requester: "agent".into(),
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
        created_at: NOW,
        updated_at: NOW,
    }
}

pub(super) fn checkpoint(id: &str, run_id: &str) -> Checkpoint {
    Checkpoint {
        checkpoint_id: id.into(),
        run_id: run_id.into(),
        kind: CheckpointKind::V1,
        subject_digest: Digest::of("plan"),
        revision: 1,
        state: CheckpointState::Open,
        nonce: "00ff".into(),
        note: Some("changed course".into()),
        opened_by: "agent".into(),
        opened_at: NOW,
        expires_at: NOW + Duration::DAY,
    }
}

pub(super) fn decision(id: &str, checkpoint_id: &str, run_id: &str) -> Decision {
    Decision {
        decision_id: id.into(),
        checkpoint_id: checkpoint_id.into(),
        run_id: run_id.into(),
        verdict: Verdict::Approve,
        reason: "looks right".into(),
        reason_code: None,
        is_final: false,
        return_to: None,
        approver: "ana".into(),
        enrolment_id: "e1".into(),
        assurance: Assurance::A1,
        subject_digest: Digest::of("plan"),
        accepted_unknown: vec!["c1".into()],
        approver_uid: Some(1000),
        decided_at: NOW,
        first_viewed_at: Some(NOW),
        begun_at: None,
        signature: "c2ln".into(),
    }
}

pub(super) fn approver(name: &str, is_test: bool) -> ApproverRow {
    ApproverRow {
        name: name.into(),
        secret_hash: "$argon2id$".into(),
        is_test,
        enrolment_id: "e1".into(),
        enrolled_at: NOW,
        signature: "c2ln".into(),
    }
}

pub(super) fn grant(run_id: &str) -> Grant {
    Grant {
        handle_sha256: Digest::of("gr_1"),
        short: "0123abcd".into(),
        run_id: run_id.into(),
        step_id: "s1".into(),
        plan_digest: Digest::of("plan"),
        principal: "agent".into(),
        service: "shell".into(),
        epoch: 1,
        uses_left: 2,
        expires_at: NOW + Duration::minutes(10),
        revoked: false,
    }
}

pub(super) fn action(run_id: &str) -> Action {
    Action {
        action_id: "ac_1".into(),
        run_id: run_id.into(),
        step_id: "s1".into(),
        revision: 1,
        cycle: 2,
        epoch: 1,
        service: "shell".into(),
        instance: "i1".into(),
        principal: "agent".into(),
        tool: "exec".into(),
        arguments_sha256: Digest::of("arguments"),
        idempotency_key: "k1".into(),
        lifetime: Lifetime::Run,
        begun_at: NOW,
        ended_at: None,
        outcome: None,
        error_code: None,
        result_sha256: None,
        session: None,
        published: Vec::new(),
        artefacts: Vec::new(),
    }
}
