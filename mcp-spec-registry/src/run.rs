//! A run: one outcome specification on its way through Request, Analyze, Verify, Generate and Validate.

mod error;
mod state;
pub mod transition;

pub use error::RunError;
pub use state::{Access, RunState, Strength};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    digest::Digest,
    effect::protocol::{Lifetime, Outcome, PinnedInput, PublishedPort},
};
use time::OffsetDateTime;

/// A run as it stands. Every change of it or of what belongs to it raises `rev`, which is what concurrent changes compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// ULID.
    pub run_id: String,
    /// The specification.
    pub spec_id: String,
    /// Its version, exactly as written.
    pub spec_version: String,
    /// Digest of exactly this version.
    pub spec_digest: Digest,
    /// Where the outcome is wanted, such as `default` or `production`.
    pub environment: String,
    /// Who asked for it.
    pub requester: String,
    /// Where it stands.
    pub state: RunState,
    /// Raised by every change.
    pub rev: u64,
    /// No effect is allowed while it is paused.
    pub paused: bool,
    /// The agent that works on it.
    pub claimant: Option<String>,
    /// Raised by every claim and loss of a claim; fences late writers.
    pub epoch: u64,
    /// When the claim lapses unless renewed; only in `analyzing` and `generating`.
    #[serde(with = "time::serde::rfc3339::option")]
    pub lease_until: Option<OffsetDateTime>,
    /// Revision of the plan now under review or in force; 0 before the first.
    pub plan_revision: u32,
    /// Digest of that plan.
    pub plan_digest: Option<Digest>,
    /// How often Generate was started over under this plan: raised by failed checks and by a "no" at V2; 0 at first.
    pub cycle: u32,
    /// What the agent reported when it completed Generate.
    pub report: Option<String>,
    /// How often V1 said no.
    pub rejections: u32,
    /// How often V1 asked back.
    pub clarifications: u32,
    /// Why it ended, if it has.
    pub closed_reason: Option<String>,
    /// When it was requested.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// Everything that is on record about one run, except the bodies of its plans.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// The run.
    pub run: Run,
    /// Its plans by revision, oldest first.
    pub plans: Vec<PlanRevision>,
    /// Its checkpoints, oldest first.
    pub checkpoints: Vec<Checkpoint>,
    /// What humans decided, oldest first.
    pub decisions: Vec<Decision>,
    /// The handles that were given out.
    pub grants: Vec<Grant>,
    /// What was begun, oldest first.
    pub actions: Vec<Action>,
    /// What was measured, oldest first.
    pub evaluations: Vec<Evaluation>,
    /// Why the agent chose what it chose, oldest first.
    pub rationales: Vec<Rationale>,
}

/// A submitted plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanRevision {
    /// The run it belongs to.
    pub run_id: String,
    /// 1, 2, 3 …
    pub revision: u32,
    /// Digest of its canonical JSON.
    pub digest: Digest,
    /// Who wrote it.
    pub author: String,
    /// Registry's signature over [`PlanRevision::signed_bytes`], base64.
    pub signature: String,
    /// When it was submitted.
    #[serde(with = "time::serde::rfc3339")]
    pub submitted_at: OffsetDateTime,
}

/// A question put to a human.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Six Crockford base-32 characters.
    pub checkpoint_id: String,
    /// The run it belongs to.
    pub run_id: String,
    /// What is asked.
    pub kind: CheckpointKind,
    /// What is decided about: for V1 the plan's digest, for V2 the digest of the evidence.
    pub subject_digest: Digest,
    /// Plan revision it is about.
    pub revision: u32,
    /// Where it stands.
    pub state: CheckpointState,
    /// 128 random bits, hex; makes the code of this checkpoint.
    pub nonce: String,
    /// What the agent reported with it: a deviation at V1, its account of the work at V2.
    pub note: Option<String>,
    /// Who opened it.
    pub opened_by: String,
    /// When it was opened.
    #[serde(with = "time::serde::rfc3339")]
    pub opened_at: OffsetDateTime,
    /// When it lapses, unanswered.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// Which question a checkpoint asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckpointKind {
    /// Shall this plan be carried out?
    V1,
    /// Is the outcome reached?
    V2,
}

/// Where a checkpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointState {
    /// Waiting for a human.
    Open,
    /// V1: the plan may be carried out. V2: the outcome is accepted.
    Approved,
    /// No.
    Rejected,
    /// Questions back to the agent.
    Clarify,
    /// Nobody answered in time.
    Expired,
    /// A newer revision took its place.
    Superseded,
    /// The run ended before it was answered.
    Withdrawn,
}

/// What a human decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// ULID.
    pub decision_id: String,
    /// The checkpoint that it answers.
    pub checkpoint_id: String,
    /// The run it belongs to.
    pub run_id: String,
    /// What was said.
    pub verdict: Verdict,
    /// Why, in the human's words.
    pub reason: String,
    /// Why, as a code that can be counted.
    pub reason_code: Option<String>,
    /// A "no" that ends the run.
    pub is_final: bool,
    /// For a "no" at V2: where the run goes on.
    pub return_to: Option<ReturnTo>,
    /// Who decided.
    pub approver: String,
    /// The enrolment under which they did; after another one the decision is void.
    pub enrolment_id: String,
    /// How sure it is that a human decided.
    pub assurance: Assurance,
    /// What was decided about; equals the checkpoint's.
    pub subject_digest: Digest,
    /// Criteria whose result was unknown and that were accepted by name.
    pub accepted_unknown: Vec<String>,
    /// Uid of the deciding session on the approval socket; absent on the page.
    pub approver_uid: Option<u32>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub decided_at: OffsetDateTime,
    /// When the approver first saw the checkpoint, if the page or CLI showed it before.
    #[serde(with = "time::serde::rfc3339::option")]
    pub first_viewed_at: Option<OffsetDateTime>,
    /// Set when `execution_begin` used the approval for the first time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub begun_at: Option<OffsetDateTime>,
    /// Registry's signature over [`Decision::signed_bytes`], base64.
    pub signature: String,
}

/// What a human said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes: carry the plan out, or accept the outcome.
    Approve,
    /// No.
    Reject,
    /// Questions first; not a "no". V1 only.
    Clarify,
}

/// Where a run goes on after a "no" at V2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReturnTo {
    /// Carry the same plan out again.
    #[default]
    Generate,
    /// Make another plan.
    Analyze,
}

/// How sure it is that a human decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Assurance {
    /// A test approver; proves nothing about people.
    Test,
    /// Someone who knows the approver's secret.
    A1,
}

/// A handle that `execution_begin` gave out. The handle itself is not stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// SHA-256 of the handle.
    pub handle_sha256: Digest,
    /// First eight characters after `gr_`, for logs.
    pub short: String,
    /// The run it belongs to.
    pub run_id: String,
    /// The step it is for.
    pub step_id: String,
    /// The plan that step is in.
    pub plan_digest: Digest,
    /// The agent that may use it.
    pub principal: String,
    /// The service it may be used on.
    pub service: String,
    /// The claim it was given under.
    pub epoch: u64,
    /// How often it may still be used.
    pub uses_left: u32,
    /// When it lapses.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// Ended before its time, by a newer `execution_begin`, a deviation or `generation_complete`.
    pub revoked: bool,
}

/// A changing call that the registry allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// `ac_` and a ULID.
    pub action_id: String,
    /// The run it belongs to.
    pub run_id: String,
    /// The step it carries out.
    pub step_id: String,
    /// Plan revision that the step is in.
    pub revision: u32,
    /// The run's cycle of Generate in which it was begun.
    pub cycle: u32,
    /// The claim under which it was begun.
    pub epoch: u64,
    /// The service that asked.
    pub service: String,
    /// The process of that service.
    pub instance: String,
    /// The agent whose call it was.
    pub principal: String,
    /// The tool.
    pub tool: String,
    /// Digest of the canonical JSON of the arguments.
    pub arguments_sha256: Digest,
    /// Made by the service.
    pub idempotency_key: String,
    /// Step or run.
    pub lifetime: Lifetime,
    /// When the intent was written.
    #[serde(with = "time::serde::rfc3339")]
    pub begun_at: OffsetDateTime,
    /// When its end was reported.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// What became of it; absent while it is open.
    pub outcome: Option<Outcome>,
    /// Code of the error, if there was one.
    pub error_code: Option<String>,
    /// Digest of the result.
    pub result_sha256: Option<Digest>,
    /// What still runs.
    pub session: Option<String>,
    /// Where its ports can be reached.
    pub published: Vec<PublishedPort>,
    /// Files it left behind.
    pub artefacts: Vec<PinnedInput>,
}

/// One measurement of one criterion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// ULID.
    pub evaluation_id: String,
    /// The run it belongs to.
    pub run_id: String,
    /// Plan revision whose test it is.
    pub revision: u32,
    /// Position of the test in the plan.
    pub test_index: u32,
    /// The criterion or constraint.
    pub criterion: String,
    /// Before Generate, or after.
    pub phase: CheckPhase,
    /// Counts the rounds of checks of a run.
    pub round: u32,
    /// What came out.
    pub verdict: CheckVerdict,
    /// What was measured, in words: `p95 3.1 ms (< 200 ms)`.
    pub measured: String,
    /// Why, where the verdict alone does not say it.
    pub reason: Option<String>,
    /// The measurement itself.
    pub evidence: serde_json::Value,
    /// Digest of the canonical JSON of the evidence.
    pub evidence_sha256: Digest,
    /// Who measured: `registry` or a service.
    pub measured_by: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub measured_at: OffsetDateTime,
}

/// When a test was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckPhase {
    /// Before Generate: a test that passes already proves nothing.
    Before,
    /// After Generate.
    After,
}

/// What a check found. `unknown` never becomes `pass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// Measured, and within the limit.
    Pass,
    /// Measured, and not within the limit.
    Fail,
    /// Not measured, or the measurement proves nothing.
    Unknown,
    /// Good so far, but the window that the criterion speaks of has not passed.
    Provisional,
}

/// Why an agent chose what it chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rationale {
    /// ULID.
    pub rationale_id: String,
    /// The run it belongs to.
    pub run_id: String,
    /// The agent.
    pub agent: String,
    /// What was to be chosen.
    pub question: String,
    /// What could have been chosen.
    pub options: Vec<String>,
    /// What was chosen.
    pub chosen: String,
    /// Why.
    pub why: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub recorded_at: OffsetDateTime,
}

/// What decides about one call of a tool that changes something.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRecord {
    /// The run that the handle belongs to.
    pub run: Run,
    /// The handle that was presented.
    pub grant: Grant,
    /// The action that the service began with the same key before.
    pub known: Option<Action>,
    /// Steps of the plan and cycle in force of which an action succeeded.
    pub done_steps: Vec<String>,
}

impl PlanRevision {
    /// What the registry signs when the plan is submitted.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let Self {
            run_id,
            revision,
            digest,
            author,
            ..
        } = self;
        format!("spec-driven-ai plan\n{run_id}\n{revision}\n{digest}\n{author}\n").into_bytes()
    }
}

impl Decision {
    /// What the registry signs when the decision is made: canonical JSON of everything but the signature and `begun_at`.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = b"spec-driven-ai decision\n".to_vec();
        let unsigned = Self {
            signature: String::new(),
            begun_at: None,
            ..self.clone()
        };
        bytes.extend(serde_json_canonicalizer::to_vec(&unsigned)?);
        Ok(bytes)
    }
}

impl RunRecord {
    /// The checkpoint that waits for a human, if there is one.
    pub fn open_checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoints
            .iter()
            .rev()
            .find(|checkpoint| checkpoint.state == CheckpointState::Open)
    }

    /// The plan now under review or in force.
    pub fn current_plan(&self) -> Option<&PlanRevision> {
        self.plans
            .iter()
            .find(|plan| plan.revision == self.run.plan_revision)
    }

    /// Actions whose end has not been reported.
    pub fn open_actions(&self) -> impl Iterator<Item = &Action> {
        self.actions
            .iter()
            .filter(|action| action.outcome.is_none())
    }
}
