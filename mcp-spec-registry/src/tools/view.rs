//! What several tools show of a specification or a run.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    run::{Run, RunState},
    specification::{Criterion, Specification},
};

/// A criterion or constraint.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CriterionView {
    /// Id, for tests and `human_judges` of a plan.
    criterion: String,
    /// Its words.
    text: String,
    /// Operator, value and unit a machine compares with; absent where a human judges or the plan states what it expects.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
}

/// A specification as it was read.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SpecificationView {
    spec_id: String,
    /// Exactly as written.
    version: String,
    /// Goes into the plan as `spec_digest`.
    digest: String,
    outcome: String,
    criteria: Vec<CriterionView>,
    constraints: Vec<CriterionView>,
    /// What the agent may choose.
    implementation_freedom: Vec<String>,
    /// Where a human decides.
    checkpoints: Vec<String>,
}

impl From<&Specification> for SpecificationView {
    fn from(specification: &Specification) -> Self {
        Self {
            spec_id: specification.spec_id.as_str().to_owned(),
            version: specification.version.as_str().to_owned(),
            digest: specification.digest.to_string(),
            outcome: specification.outcome.clone(),
            criteria: specification
                .criteria
                .iter()
                .map(CriterionView::from)
                .collect(),
            constraints: specification
                .constraints
                .iter()
                .map(CriterionView::from)
                .collect(),
            implementation_freedom: specification.implementation_freedom.clone(),
            checkpoints: specification
                .checkpoints
                .iter()
                .map(|checkpoint| format!("{}: {}", checkpoint.name, checkpoint.text))
                .collect(),
        }
    }
}

impl From<&Criterion> for CriterionView {
    fn from(criterion: &Criterion) -> Self {
        Self {
            criterion: criterion.criterion_id.clone(),
            text: criterion.text.clone(),
            limit: criterion.measure.as_ref().map(|measure| {
                format!(
                    "{} {} {}",
                    measure.operator.symbol(),
                    measure.value,
                    measure.unit
                )
                .trim_end()
                .to_owned()
            }),
        }
    }
}

/// A run in short.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RunSummary {
    run_id: String,
    spec_id: String,
    version: String,
    spec_digest: String,
    environment: String,
    state: RunState,
    /// No effect is allowed while it is paused.
    paused: bool,
    requester: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimant: Option<String>,
    /// Belongs to the newest claim; calls with an older one are refused.
    epoch: u64,
    /// When the claim lapses unless its holder calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_until: Option<String>,
    plan_revision: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_reason: Option<String>,
    created_at: String,
}

impl From<&Run> for RunSummary {
    fn from(run: &Run) -> Self {
        Self {
            run_id: run.run_id.clone(),
            spec_id: run.spec_id.clone(),
            version: run.spec_version.clone(),
            spec_digest: run.spec_digest.to_string(),
            environment: run.environment.clone(),
            state: run.state,
            paused: run.paused,
            requester: run.requester.clone(),
            claimant: run.claimant.clone(),
            epoch: run.epoch,
            lease_until: run.lease_until.map(time_text),
            plan_revision: run.plan_revision,
            closed_reason: run.closed_reason.clone(),
            created_at: time_text(run.created_at),
        }
    }
}

/// RFC 3339.
pub(super) fn time_text(time: time::OffsetDateTime) -> String {
    time.format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}
