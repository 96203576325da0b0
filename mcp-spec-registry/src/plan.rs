//! The plan an agent submits for V1: its document, what is wrong with it, and what changed since the last revision.

mod change;
mod document;
mod lint;
mod risk;

pub use change::{ChangedLine, changes};
pub use document::{
    Check, CommandCheck, FileCheck, HttpCheck, HttpExpectation, HumanJudged, Plan, PlanError,
    PlannedTest, RestartCheck, Reversibility, SessionCheck, SessionMeasureKind, Step, Target,
    TcpCheck,
};
pub use lint::{Declarations, lint};
pub use risk::{PlanRisks, risks};
