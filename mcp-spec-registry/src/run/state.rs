//! The states of a run, and what is said about the strength of its checkpoints.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a run stands in the RAVGV cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Request: wanted, and nobody works on it.
    Requested,
    /// Analyze: an agent makes a plan.
    Analyzing,
    /// Verify: a human reads the plan.
    AwaitingV1,
    /// The plan was approved and not begun.
    Approved,
    /// Generate: the agent carries the plan out.
    Generating,
    /// The registry measures the outcome.
    Verifying,
    /// Validate: a human judges the outcome.
    AwaitingV2,
    /// Reached, and accepted.
    Validated,
    /// A human ended it with a "no".
    Rejected,
    /// A checkpoint was not answered in time.
    Expired,
    /// Given up after too many tries.
    Failed,
    /// Ended by its requester or a human.
    Cancelled,
    /// Ended by the kill switch.
    Aborted,
}

impl RunState {
    /// Whether nothing can happen to it any more.
    pub fn is_closed(self) -> bool {
        matches!(
            self,
            Self::Validated
                | Self::Rejected
                | Self::Expired
                | Self::Failed
                | Self::Cancelled
                | Self::Aborted
        )
    }

    /// Whether a claimant holds it by a lease that must be renewed.
    pub fn has_lease(self) -> bool {
        matches!(self, Self::Analyzing | Self::Generating)
    }

    /// The name as it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Analyzing => "analyzing",
            Self::AwaitingV1 => "awaiting_v1",
            Self::Approved => "approved",
            Self::Generating => "generating",
            Self::Verifying => "verifying",
            Self::AwaitingV2 => "awaiting_v2",
            Self::Validated => "validated",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Aborted => "aborted",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much a checkpoint of a run is worth against an agent that cheats on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Strength {
    /// `separated` or `advisory`.
    pub level: Access,
    /// Why it is only advisory, each with the way to change it; empty when separated.
    pub reasons: Vec<String>,
}

/// Whether the agent could reach behind the registry's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Registry, effect servers and approver run under uids that the agent's client does not have.
    Separated,
    /// Some share a uid, or it is not known.
    Advisory,
}
