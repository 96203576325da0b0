//! What a human sees of a checkpoint, computed once for the page and the terminal: plain structs, no HTML.

mod criterion;
mod evidence;
mod risk;
mod step;
mod text;
pub mod words;

pub use criterion::{CriterionView, EvidenceView, TestView};
pub use evidence::{CallView, DoneView};
pub use risk::{RiskView, Weight};
pub use step::{ArgumentView, InputView, StepView};
pub use text::{Machine, Piece, Prose, Sentence};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    registry::CheckpointFile,
    run::{
        Access, Assurance, CheckpointKind, CheckpointState, Decision, RunRecord, Strength, Verdict,
    },
    store::SpecificationStatus,
};

/// A checkpoint as a human sees it, from top to bottom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// Names it on the page and the command line.
    pub checkpoint_id: String,
    /// The run it belongs to.
    pub run_id: String,
    /// What is asked.
    pub kind: CheckpointKind,
    /// Plan revision it is about.
    pub revision: u32,
    /// Where it stands.
    pub state: CheckpointState,
    /// The agent that asks.
    pub asked_by: Machine,
    /// Where the outcome is wanted.
    pub environment: Machine,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub opened_at: OffsetDateTime,
    /// When it lapses, unanswered.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// When this was looked at.
    #[serde(with = "time::serde::rfc3339")]
    pub seen_at: OffsetDateTime,
    /// What the checkpoint is worth.
    pub strength: StrengthView,
    /// What must not be missed.
    pub risks: Vec<RiskView>,
    /// What changed since the last revision that a human decided about; absent for the first.
    pub changes: Option<Vec<ChangeView>>,
    /// What was asked for.
    pub specification: SpecificationView,
    /// What will be, or was, done.
    pub steps: Vec<StepView>,
    /// Criteria, each with its tests and evidence.
    pub criteria: Vec<CriterionView>,
    /// Constraints, the same.
    pub constraints: Vec<CriterionView>,
    /// What the plan takes for granted.
    pub assumptions: Vec<Prose>,
    /// What else was considered.
    pub alternatives: Vec<Prose>,
    /// How everything is undone.
    pub rollback: Prose,
    /// What the agent said beside the plan, or reported of the outcome.
    pub note: Option<Prose>,
    /// Why it chose what it chose.
    pub rationales: Vec<RationaleView>,
    /// For V2: what the servers recorded.
    pub done: Option<Vec<DoneView>>,
    /// What humans decided in this run before.
    pub decisions: Vec<DecisionView>,
    /// The checkpoint of this run that is open now, if it is another one.
    pub open_now: Option<String>,
    /// The plan's canonical JSON, byte for byte what its digest is made of.
    pub plan_json: Machine,
    /// Digest of the plan.
    pub plan_digest: String,
    /// What is decided about: the plan for V1, the evidence for V2.
    pub subject_digest: String,
    /// The code to type; absent once the checkpoint is closed.
    pub code: Option<String>,
}

/// What a checkpoint is worth against an agent that cheats on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrengthView {
    /// The agent cannot reach behind it.
    pub is_separated: bool,
    /// What that means.
    pub words: String,
    /// Why it is only advisory, with the way to change it.
    pub reasons: Vec<Prose>,
}

/// A line that one revision has and the other has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// The newer revision has it.
    pub is_added: bool,
    /// The part of the plan.
    pub part: Machine,
    /// The line.
    pub text: Machine,
}

/// The outcome specification, by its author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecificationView {
    /// Its id.
    pub spec_id: Machine,
    /// Its version, exactly as written.
    pub version: Machine,
    /// Digest of its text.
    pub digest: String,
    /// Who added it.
    pub added_by: Prose,
    /// An agent proposed it; approving the plan activates it.
    pub is_proposed: bool,
    /// What must be true.
    pub outcome: Prose,
    /// What the agent may choose.
    pub freedoms: Vec<Prose>,
    /// The text as it was given.
    pub verbatim: Prose,
}

/// Why an agent chose what it chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RationaleView {
    /// The agent.
    pub agent: Machine,
    /// What was to be chosen.
    pub question: Prose,
    /// What was chosen.
    pub chosen: Prose,
    /// Out of what.
    pub options: Vec<Prose>,
    /// Why.
    pub why: Prose,
}

/// A decision of a human.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// The checkpoint that it answered.
    pub checkpoint_id: String,
    /// What was said.
    pub verdict: Verdict,
    /// It ended the run.
    pub is_final: bool,
    /// Why.
    pub reason: Prose,
    /// Why, as a code.
    pub reason_code: Option<Machine>,
    /// Who.
    pub approver: Prose,
    /// By a test approver, so it proves nothing about people.
    pub is_test: bool,
    /// Unknown results that were accepted by name.
    pub accepted_unknown: Vec<Machine>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub decided_at: OffsetDateTime,
}

impl CheckpointView {
    /// What a human sees of this checkpoint at this moment.
    pub fn of(file: &CheckpointFile, now: OffsetDateTime) -> Self {
        let CheckpointFile {
            checkpoint,
            record,
            plan,
            ..
        } = file;
        let is_open = checkpoint.state == CheckpointState::Open && checkpoint.expires_at > now;
        let criteria =
            |criteria| criterion::criteria(criteria, plan, &file.evaluations, &record.evaluations);
        Self {
            checkpoint_id: checkpoint.checkpoint_id.clone(),
            run_id: checkpoint.run_id.clone(),
            kind: checkpoint.kind,
            revision: checkpoint.revision,
            state: match checkpoint.state {
                CheckpointState::Open if !is_open => CheckpointState::Expired,
                state => state,
            },
            asked_by: Machine::of(&checkpoint.opened_by),
            environment: Machine::of(&record.run.environment),
            opened_at: checkpoint.opened_at,
            expires_at: checkpoint.expires_at,
            seen_at: now,
            strength: strength(&file.strength),
            risks: risk::risks(&file.risks),
            // At V2 the plan is the one that was approved.
            changes: (checkpoint.kind == CheckpointKind::V1 && file.previous_plan.is_some())
                .then(|| changes(file)),
            specification: specification(file),
            steps: step::steps(&plan.steps, &file.risks),
            criteria: criteria(&file.specification.criteria),
            constraints: criteria(&file.specification.constraints),
            assumptions: plan
                .assumptions
                .iter()
                .map(|text| Prose::of(text))
                .collect(),
            alternatives: plan
                .alternatives
                .iter()
                .map(|text| Prose::of(text))
                .collect(),
            rollback: Prose::of(&plan.rollback),
            note: checkpoint
                .note
                .as_deref()
                .map(Prose::of)
                .filter(|note| !note.is_blank()),
            rationales: rationales(record),
            done: (checkpoint.kind == CheckpointKind::V2)
                .then(|| evidence::done(plan, &file.actions)),
            decisions: record.decisions.iter().map(DecisionView::of).collect(),
            open_now: record
                .open_checkpoint()
                .map(|open| open.checkpoint_id.clone())
                .filter(|open| *open != checkpoint.checkpoint_id),
            plan_json: Machine::of(&file.plan_json),
            plan_digest: shared::digest::Digest::of(&file.plan_json).to_string(),
            subject_digest: checkpoint.subject_digest.to_string(),
            code: is_open.then(|| file.code.clone()),
        }
    }

    /// The question, in one line.
    pub fn question(&self) -> &'static str {
        match self.kind {
            CheckpointKind::V1 => "May this plan be carried out?",
            CheckpointKind::V2 => "Is the outcome reached?",
        }
    }

    /// Criteria and constraints that no machine measures.
    pub fn for_human(&self) -> impl Iterator<Item = &CriterionView> {
        self.criteria
            .iter()
            .chain(&self.constraints)
            .filter(|criterion| criterion.is_for_human())
    }

    /// Criteria and constraints whose result nobody knows; accepting names each of them.
    pub fn unknown(&self) -> impl Iterator<Item = &CriterionView> {
        self.criteria
            .iter()
            .chain(&self.constraints)
            .filter(|criterion| criterion.is_unknown())
    }

    /// The decision that answered this checkpoint.
    pub fn decision(&self) -> Option<&DecisionView> {
        self.decisions
            .iter()
            .find(|decision| decision.checkpoint_id == self.checkpoint_id)
    }

    /// What each verdict does, as it stands on its button: `Approve revision 2`.
    pub fn says(&self, verdict: Verdict) -> String {
        match (self.kind, verdict) {
            (CheckpointKind::V1, Verdict::Approve) => format!("Approve revision {}", self.revision),
            (CheckpointKind::V1, Verdict::Reject) => format!("Reject revision {}", self.revision),
            (CheckpointKind::V2, Verdict::Approve) => "Accept the outcome".to_owned(),
            (CheckpointKind::V2, Verdict::Reject) => "Reject the outcome".to_owned(),
            (_, Verdict::Clarify) => "Ask the agent back".to_owned(),
        }
    }
}

impl DecisionView {
    /// A decision as it is shown.
    pub fn of(decision: &Decision) -> Self {
        Self {
            checkpoint_id: decision.checkpoint_id.clone(),
            verdict: decision.verdict,
            is_final: decision.is_final,
            reason: Prose::of(&decision.reason),
            reason_code: decision.reason_code.as_deref().map(Machine::of),
            approver: Prose::of(&decision.approver),
            is_test: decision.assurance == Assurance::Test,
            accepted_unknown: decision
                .accepted_unknown
                .iter()
                .map(|id| Machine::of(id))
                .collect(),
            decided_at: decision.decided_at,
        }
    }
}

fn strength(strength: &Strength) -> StrengthView {
    let is_separated = strength.level == Access::Separated;
    let words = if is_separated {
        "Separated: registry, servers and approvers run under users that the agent does not have. \
         Even an agent that cheats on purpose cannot pass this checkpoint."
    } else {
        "Advisory: this stops an agent that plays by the rules. One that cheats on purpose could get around it."
    };
    StrengthView {
        is_separated,
        words: words.to_owned(),
        reasons: strength
            .reasons
            .iter()
            .map(|reason| Prose::of(reason))
            .collect(),
    }
}

fn changes(file: &CheckpointFile) -> Vec<ChangeView> {
    let view = |line: &crate::plan::ChangedLine| ChangeView {
        is_added: line.added,
        part: Machine::of(&line.part),
        text: Machine::of(&line.text),
    };
    file.changes.iter().map(view).collect()
}

fn specification(file: &CheckpointFile) -> SpecificationView {
    let (specification, row) = (&file.specification, &file.specification_row);
    SpecificationView {
        spec_id: Machine::of(&row.spec_id),
        version: Machine::of(&row.version),
        digest: row.digest.to_string(),
        added_by: Prose::of(&row.added_by),
        is_proposed: row.status == SpecificationStatus::Proposed,
        outcome: Prose::of(specification.outcome.trim()),
        freedoms: specification
            .implementation_freedom
            .iter()
            .map(|text| Prose::of(text))
            .collect(),
        verbatim: Prose::of(&row.verbatim),
    }
}

fn rationales(record: &RunRecord) -> Vec<RationaleView> {
    record
        .rationales
        .iter()
        .map(|rationale| RationaleView {
            agent: Machine::of(&rationale.agent),
            question: Prose::of(&rationale.question),
            chosen: Prose::of(&rationale.chosen),
            options: rationale
                .options
                .iter()
                .map(|option| Prose::of(option))
                .collect(),
            why: Prose::of(&rationale.why),
        })
        .collect()
}
