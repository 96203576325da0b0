//! What the approval plane and the registry hand each other.

use serde::{Deserialize, Serialize};
use shared::{digest::Digest, effect::protocol::SignedHead};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    plan::{ChangedLine, Plan, PlanRisks},
    run::{
        Action, Checkpoint, CheckpointKind, Decision, Evaluation, ReturnTo, RunRecord, RunState,
        Strength, Verdict,
    },
    specification::Specification,
    store::{SpecificationRow, TokenKind},
};

/// A checkpoint that waits for a human.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Six Crockford base-32 characters.
    pub checkpoint_id: String,
    /// The run it belongs to.
    pub run_id: String,
    /// The specification.
    pub spec_id: String,
    /// Its version, exactly as written.
    pub spec_version: String,
    /// First line of the outcome.
    pub title: String,
    /// Where the outcome is wanted.
    pub environment: String,
    /// What is asked.
    pub kind: CheckpointKind,
    /// Plan revision it is about.
    pub revision: u32,
    /// The agent that asks.
    pub opened_by: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub opened_at: OffsetDateTime,
    /// When it lapses, unanswered.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// Everything that a human must see to decide one checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointFile {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The run and all that is on record about it.
    pub record: RunRecord,
    /// The plan that is decided about, or whose outcome is.
    pub plan: Plan,
    /// Its canonical JSON, of which the digest is made.
    pub plan_json: String,
    /// The last revision that a human decided about.
    pub previous_plan: Option<Plan>,
    /// The specification as it was read.
    pub specification: Specification,
    /// The specification as it is stored.
    pub specification_row: SpecificationRow,
    /// What the plan could do that a reader must not miss.
    pub risks: PlanRisks,
    /// What changed since `previous_plan`.
    pub changes: Vec<ChangedLine>,
    /// What the checkpoint is worth against an agent that cheats on purpose.
    pub strength: Strength,
    /// The code to type, shown only after everything else.
    pub code: String,
    /// For V2: the newest round of measurements.
    pub evaluations: Vec<Evaluation>,
    /// For V2: what the servers recorded.
    pub actions: Vec<Action>,
}

/// What a human decides, with the proof of it.
#[derive(Debug, Clone)]
pub struct DecisionInput {
    /// The checkpoint.
    pub checkpoint_id: String,
    /// What is said.
    pub verdict: Verdict,
    /// Why, in the human's words.
    pub reason: String,
    /// Why, as a code that can be counted.
    pub reason_code: Option<String>,
    /// A "no" that ends the run.
    pub is_final: bool,
    /// For a "no" at V2: where the run goes on.
    pub return_to: Option<ReturnTo>,
    /// The code as it was typed.
    pub code: String,
    /// Who decides.
    pub approver: String,
    /// The secret as it was typed.
    pub secret: Zeroizing<String>,
    /// Criteria whose result is unknown and that are accepted by name.
    pub accepted_unknown: Vec<String>,
    /// Uid of the deciding session on the approval socket; absent on the page.
    pub approver_uid: Option<u32>,
    /// Digest of what was shown; a checkpoint about something else refuses it.
    pub shown_digest: Option<Digest>,
}

/// What was recorded, for the human to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The decision as it was recorded.
    pub decision: Decision,
    /// Where the run stands now.
    pub run_state: RunState,
    /// What happens next, in words.
    pub next: String,
    /// Head of the audit that covers the decision.
    pub audit_head: Option<SignedHead>,
}

/// A decision of the past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The decision.
    pub decision: Decision,
    /// What was asked.
    pub kind: CheckpointKind,
    /// Plan revision it was about.
    pub revision: u32,
    /// The specification.
    pub spec_id: String,
    /// Its version, exactly as written.
    pub spec_version: String,
    /// Where the outcome was wanted.
    pub environment: String,
    /// Where the run stands now.
    pub run_state: RunState,
}

/// An enrolled approver, without the secret's hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolledApprover {
    /// Name.
    pub name: String,
    /// A test approver.
    pub is_test: bool,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub enrolled_at: OffsetDateTime,
}

/// A specification version that a human added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedSpecification {
    /// Its id.
    pub spec_id: String,
    /// Exactly as written.
    pub version: String,
    /// Digest of the verbatim text.
    pub digest: Digest,
    /// Number of criteria, and how many of them a machine can measure.
    pub criteria: u32,
    /// Number of criteria that a machine can measure.
    pub measurable: u32,
    /// Number of constraints.
    pub constraints: u32,
}

/// A new credential. The token is nowhere else and is not stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Whose it is.
    pub principal: String,
    /// What it is for.
    pub kind: TokenKind,
    /// For a service: the server program.
    pub server: Option<String>,
    /// The token.
    pub token: Zeroizing<String>,
    /// Public key of the registry, `ed25519:<base64>`; effect servers check audit heads with it.
    pub registry_key: String,
}
