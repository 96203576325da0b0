//! For V2: what the agent reported and what the servers recorded, step by step.

use serde::{Deserialize, Serialize};
use shared::effect::protocol::Outcome;
use time::OffsetDateTime;

use super::{text::Machine, words};
use crate::{plan::Plan, run::Action};

/// What the servers recorded of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoneView {
    /// The step of the plan.
    pub step: Machine,
    /// Its calls, oldest first; none means that it was never called.
    pub calls: Vec<CallView>,
}

/// A call that a server made, by that server's own record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallView {
    /// Names it in the audit.
    pub action_id: Machine,
    /// The server that recorded it.
    pub service: Machine,
    /// The tool.
    pub tool: Machine,
    /// What became of it, in words.
    pub outcome: String,
    /// It was done, and well.
    pub is_ok: bool,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub begun_at: OffsetDateTime,
    /// What it left: sessions, ports, files with their digests.
    pub left: Vec<Machine>,
}

/// Every step of the plan with its calls.
pub(super) fn done(plan: &Plan, actions: &[Action]) -> Vec<DoneView> {
    let calls = |step: &str| {
        actions
            .iter()
            .filter(|action| action.step_id == step)
            .map(call)
            .collect()
    };
    plan.steps
        .iter()
        .map(|step| DoneView {
            step: Machine::of(&step.id),
            calls: calls(&step.id),
        })
        .collect()
}

fn call(action: &Action) -> CallView {
    let took = action
        .ended_at
        .map(|ended| words::duration(ended - action.begun_at));
    let outcome = match (action.outcome, &action.error_code) {
        (Some(Outcome::Ok), _) => "done".to_owned(),
        (Some(Outcome::Error), Some(code)) => format!("failed: {}", Machine::of(code).as_str()),
        (Some(Outcome::Error), None) => "failed".to_owned(),
        (Some(Outcome::Unknown), _) => "nobody knows: the server ended in between".to_owned(),
        (None, _) => "not ended yet".to_owned(),
    };
    let session = action
        .session
        .iter()
        .map(|session| format!("session {session}"));
    let ports = action
        .published
        .iter()
        .map(|port| format!("port {} at {}", port.port, port.address));
    let files = action
        .artefacts
        .iter()
        .map(|file| format!("{} {}", file.path, file.sha256));
    CallView {
        action_id: Machine::of(&action.action_id),
        service: Machine::of(&action.service),
        tool: Machine::of(&action.tool),
        outcome: took.map_or(outcome.clone(), |took| format!("{outcome} after {took}")),
        is_ok: action.outcome == Some(Outcome::Ok),
        begun_at: action.begun_at,
        left: session
            .chain(ports)
            .chain(files)
            .map(|text| Machine::of(&text))
            .collect(),
    }
}
