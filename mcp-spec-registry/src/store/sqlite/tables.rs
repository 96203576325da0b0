//! Which row stands in which table.

use rusqlite::{Row, types::Value};

use super::column::{Columns, Table, table, to_column};
use crate::{
    run::{Action, Checkpoint, Decision, Evaluation, Grant, PlanRevision, Rationale, Run},
    store::{AgentRow, ApproverRow, RememberedAnswer, ServiceRow, SpecificationRow, StoreError, TokenRow},
};

table!(
    SpecificationRow,
    "specifications",
    [digest, spec_id, version, verbatim, search_text, title, status, added_by, reason, added_at]
);
table!(
    Run,
    "runs",
    [
        run_id, spec_id, spec_version, spec_digest, environment, requester, state, rev, paused, claimant, epoch,
        lease_until, plan_revision, plan_digest, cycle, report, rejections, clarifications, closed_reason, created_at, updated_at
    ]
);
table!(PlanRevision, "plans", [run_id, revision, digest, author, signature, submitted_at]);
table!(
    Checkpoint,
    "checkpoints",
    [
        checkpoint_id, run_id, kind, subject_digest, revision, state, nonce, note, opened_by, opened_at, expires_at
    ]
);
table!(
    Decision,
    "decisions",
    [
        decision_id, checkpoint_id, run_id, verdict, reason, reason_code, is_final, return_to, approver, assurance,
        subject_digest, accepted_unknown, approver_uid, decided_at, first_viewed_at, begun_at, signature
    ]
);
table!(
    Grant,
    "grants",
    [
        handle_sha256, short, run_id, step_id, plan_digest, principal, service, epoch, uses_left, expires_at, revoked
    ]
);
table!(
    Action,
    "actions",
    [
        action_id, run_id, step_id, revision, cycle, epoch, service, instance, principal, tool, arguments_sha256, idempotency_key,
        lifetime, begun_at, ended_at, outcome, error_code, result_sha256, session, published, artefacts
    ]
);
table!(
    Evaluation,
    "evaluations",
    [
        evaluation_id, run_id, revision, test_index, criterion, phase, round, verdict, measured, reason, evidence,
        evidence_sha256, measured_by, measured_at
    ]
);
table!(
    Rationale,
    "rationales",
    [rationale_id, run_id, agent, question, options, chosen, why, recorded_at]
);
table!(AgentRow, "agents", [name, description, persona, registered_at]);
table!(
    ApproverRow,
    "approvers",
    [name, secret_hash, is_test, enrolment_id, enrolled_at, signature]
);
table!(
    TokenRow,
    "tokens",
    [token_sha256, principal, kind, server, created_at, revoked]
);
table!(
    ServiceRow,
    "services",
    [name, instance, version, uid, tools, last_seq, said_hello_at]
);
table!(RememberedAnswer, "answers", [principal, key, request_sha256, answer]);
