//! What the registry keeps, behind one trait: rows, and changes that happen whole or not at all.
//!
//! A change names the revisions it was computed from. The store applies it in one transaction together with its audit
//! entries, or answers [`StoreError::Conflict`] if anything moved in between, and the caller decides again on fresh rows.

pub mod sqlite;

#[cfg(test)]
mod conformance;

use serde::{Deserialize, Serialize};
use shared::digest::Digest;
use time::OffsetDateTime;

use crate::{
    audit::{AuditEntry, EntryDraft},
    run::{
        Action, CallRecord, Checkpoint, Decision, Evaluation, Grant, PlanRevision, Rationale, Run,
        RunRecord, RunState,
    },
};
use shared::effect::protocol::{SignedHead, ToolDeclaration};

/// What keeps specifications, runs and the audit.
pub trait Store: Send + Sync {
    /// Applies a change whole, with its audit entries chained to the newest, or not at all. Gives the audit's new head.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when an expectation does not hold; then nothing was written.
    fn commit(&self, change: &Change) -> Result<SignedHead, StoreError>;

    /// A specification version by its digest.
    fn specification(&self, digest: &Digest) -> Result<Option<SpecificationRow>, StoreError>;
    /// All versions of a specification, oldest first.
    fn specification_versions(&self, spec_id: &str) -> Result<Vec<SpecificationRow>, StoreError>;
    /// Newest versions whose text has any of the words, best first; all of them for no words.
    fn search_specifications(
        &self,
        words: &[String],
        limit: u32,
        offset: u32,
    ) -> Result<Vec<SpecificationHit>, StoreError>;

    /// Everything on record about a run.
    fn run(&self, run_id: &str) -> Result<Option<RunRecord>, StoreError>;
    /// What decides about a service's call with this handle and idempotency key, whatever else is on record about the run.
    fn call(
        &self,
        handle_sha256: &Digest,
        service: &str,
        idempotency_key: &str,
    ) -> Result<Option<CallRecord>, StoreError>;
    /// An action and the run it belongs to.
    fn action(&self, action_id: &str) -> Result<Option<(Run, Action)>, StoreError>;
    /// Runs, newest first.
    fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>, StoreError>;
    /// The run that a checkpoint belongs to.
    fn run_of_checkpoint(&self, checkpoint_id: &str) -> Result<Option<String>, StoreError>;
    /// The run that a handle belongs to.
    fn run_of_grant(&self, handle_sha256: &Digest) -> Result<Option<String>, StoreError>;
    /// The runs in which a service has actions that have not ended and that another process of it than `instance` began.
    fn runs_with_lost_actions(
        &self,
        service: &str,
        instance: &str,
    ) -> Result<Vec<String>, StoreError>;
    /// The run that an action belongs to.
    fn run_of_action(&self, action_id: &str) -> Result<Option<String>, StoreError>;
    /// Open checkpoints, oldest first.
    fn open_checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError>;
    /// The newest decisions, newest first.
    fn decisions(&self, limit: u32) -> Result<Vec<Decision>, StoreError>;
    /// Canonical JSON of a plan.
    fn plan_body(&self, digest: &Digest) -> Result<Option<String>, StoreError>;

    /// A registered agent.
    fn agent(&self, name: &str) -> Result<Option<AgentRow>, StoreError>;
    /// Enrolled approvers, by name.
    fn approvers(&self) -> Result<Vec<ApproverRow>, StoreError>;
    /// The credential with this token hash.
    fn token(&self, token_sha256: &Digest) -> Result<Option<TokenRow>, StoreError>;
    /// All credentials, by principal.
    fn tokens(&self) -> Result<Vec<TokenRow>, StoreError>;
    /// A service as it last said hello.
    fn service(&self, name: &str) -> Result<Option<ServiceRow>, StoreError>;
    /// The answer given to this key before.
    fn remembered(
        &self,
        principal: &str,
        key: &str,
    ) -> Result<Option<RememberedAnswer>, StoreError>;

    /// Audit entries from this number on, oldest first.
    fn audit(&self, from_seq: u64, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;
    /// Number and chain hash of the newest audit entry.
    fn audit_head(&self) -> Result<Option<(u64, Digest)>, StoreError>;
    /// The newest signed head.
    fn signed_head(&self) -> Result<Option<SignedHead>, StoreError>;
}

/// Rows to write and audit entries to append, all or nothing.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// What must still hold.
    pub expect: Vec<Expectation>,
    /// What is written.
    pub writes: Vec<Write>,
    /// What is recorded; at least one.
    pub audit: Vec<EntryDraft>,
    /// Sign the audit's head after this change, as is done after each decision.
    pub sign_head: bool,
}

/// Something that must still hold when a change is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// The run has this revision.
    RunRevision {
        /// The run.
        run_id: String,
        /// Its revision.
        rev: u64,
    },
    /// No open run of this specification in this environment.
    NoOpenRun {
        /// The specification.
        spec_id: String,
        /// The environment.
        environment: String,
    },
    /// The specification has this many versions.
    VersionCount {
        /// The specification.
        spec_id: String,
        /// Number of versions.
        count: u32,
    },
    /// An agent has at most this many open checkpoints.
    OpenCheckpoints {
        /// The agent.
        opened_by: String,
        /// The limit before this change.
        at_most: u32,
    },
    /// This key was not answered before.
    NotRemembered {
        /// Who asked.
        principal: String,
        /// The key.
        key: String,
    },
    /// The approver is still enrolled, and by the same enrolment.
    Enrolled {
        /// The approver.
        approver: String,
        /// The enrolment.
        enrolment_id: String,
    },
}

/// One row written. Rows without an `Update` variant are immutable.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// A new specification version.
    InsertSpecification(SpecificationRow),
    /// A version becomes the active one; the one before becomes superseded.
    ActivateSpecification(Digest),
    /// A new run.
    InsertRun(Run),
    /// A run; its stored revision becomes the one in the row.
    UpdateRun(Run),
    /// A new plan revision with its canonical JSON.
    InsertPlan(PlanRevision, String),
    /// A new checkpoint.
    InsertCheckpoint(Checkpoint),
    /// A checkpoint's state.
    UpdateCheckpoint(Checkpoint),
    /// A decision.
    InsertDecision(Decision),
    /// A decision's `begun_at`.
    UpdateDecision(Decision),
    /// A handle.
    InsertGrant(Grant),
    /// A handle's uses or revocation.
    UpdateGrant(Grant),
    /// An intent.
    InsertAction(Action),
    /// An action's end.
    UpdateAction(Action),
    /// A measurement.
    InsertEvaluation(Evaluation),
    /// A rationale.
    InsertRationale(Rationale),
    /// An agent, new or changed.
    PutAgent(AgentRow),
    /// An approver, new or re-enrolled.
    PutApprover(ApproverRow),
    /// An approver leaves.
    DeleteApprover(String),
    /// A credential.
    PutToken(TokenRow),
    /// A service said hello.
    PutService(ServiceRow),
    /// An answer that must be given again for the same key.
    Remember(RememberedAnswer),
    /// Takes the payload out of an audit entry; the same change must record it with an entry `audit.redacted` whose
    /// subject is `audit:<seq>`.
    RedactPayload(u64),
}

/// A stored specification version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpecificationRow {
    /// Its id.
    pub spec_id: String,
    /// Exactly as written.
    pub version: String,
    /// Digest of the verbatim text.
    pub digest: Digest,
    /// The text as it was given.
    pub verbatim: String,
    /// Text for the full-text index.
    pub search_text: String,
    /// First line of the outcome.
    pub title: String,
    /// Where it stands.
    pub status: SpecificationStatus,
    /// Who added it.
    pub added_by: String,
    /// Why.
    pub reason: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub added_at: OffsetDateTime,
}

/// Where a specification version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecificationStatus {
    /// An agent wrote it and no human has approved a plan for it.
    Proposed,
    /// The version in force.
    Active,
    /// A newer version is in force.
    Superseded,
}

/// A specification found by its words.
#[derive(Debug, Clone, PartialEq)]
pub struct SpecificationHit {
    /// The version.
    pub specification: SpecificationRow,
    /// Relevance, larger is better; 0 when no words were asked for.
    pub score: f64,
}

/// Which runs are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this specification.
    pub spec_id: Option<String>,
    /// In this state.
    pub state: Option<RunState>,
    /// Only those that are not closed.
    pub open_only: bool,
    /// At most this many.
    pub limit: u32,
    /// Only those with a smaller run id, for the next page.
    pub before: Option<String>,
}

/// A registered agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// Its principal.
    pub name: String,
    /// What it does, in its own words.
    pub description: String,
    /// Its persona, such as `infrastructure`.
    pub persona: Option<String>,
    /// When it first registered.
    #[serde(with = "time::serde::rfc3339")]
    pub registered_at: OffsetDateTime,
}

/// A human who may decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproverRow {
    /// Name.
    pub name: String,
    /// Argon2id hash of the secret, in PHC string form.
    pub secret_hash: String,
    /// A test approver; cannot exist beside real ones.
    pub is_test: bool,
    /// Fresh at each enrolment, so that decisions of an earlier one are void.
    pub enrolment_id: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub enrolled_at: OffsetDateTime,
    /// Registry's signature over [`ApproverRow::signed_bytes`], base64.
    pub signature: String,
}

impl ApproverRow {
    /// What the registry signs at enrolment.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let Self {
            name,
            secret_hash,
            is_test,
            enrolment_id,
            ..
        } = self;
        format!("spec-driven-ai approver\n{name}\n{secret_hash}\n{is_test}\n{enrolment_id}\n")
            .into_bytes()
    }
}

/// A credential. The token itself is not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Whose it is.
    pub principal: String,
    /// `agent` or `service`.
    pub kind: TokenKind,
    /// SHA-256 of the token.
    pub token_sha256: Digest,
    /// For a service: the server program.
    pub server: Option<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// No longer valid.
    pub revoked: bool,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// The agent plane.
    Agent,
    /// The effect plane, as one service.
    Service,
}

/// A service as it last said hello.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Name, from its token.
    pub name: String,
    /// The process that said it.
    pub instance: String,
    /// Version of the program.
    pub version: String,
    /// Uid of the process, from the socket.
    pub uid: Option<u32>,
    /// Its tools.
    pub tools: Vec<ToolDeclaration>,
    /// Number of the last record received from this instance.
    pub last_seq: u64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub said_hello_at: OffsetDateTime,
}

/// An answer that must be given again for the same key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedAnswer {
    /// Who asked.
    pub principal: String,
    /// The key.
    pub key: String,
    /// Digest of the request that it answered.
    pub request_sha256: Digest,
    /// The answer, as JSON.
    pub answer: String,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An expectation did not hold; nothing was written.
    #[error("the record changed in between: {0}")]
    Conflict(String),
    /// A row that must not exist does, or the other way round.
    #[error("the change does not fit what is stored: {0}")]
    Constraint(String),
    /// The database is newer than this program.
    #[error(
        "the database has schema {found}, this program knows up to {known}; use the newer program"
    )]
    NewerSchema {
        /// In the database.
        found: u32,
        /// Known.
        known: u32,
    },
    /// What is stored cannot be read.
    #[error("a stored {what} cannot be read: {cause}")]
    Corrupt {
        /// Which row.
        what: &'static str,
        /// Why.
        cause: String,
    },
    /// The database itself failed.
    #[error("the database failed: {0}")]
    Database(String),
}
