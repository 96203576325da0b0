//! Measures what a plan promised: carries out its tests, before and after Generate, and judges them by the specification.
//!
//! The registry itself dials nothing: a process without keys, store or files does, and answers with numbers. What only an
//! effect server can see is asked of it over its work channel.

mod confine;
mod dial;
mod engine;
mod http;
mod job;
mod samples;
mod snapshot;
mod verdict;
/// The hidden command `check-worker`.
pub mod worker;
mod worker_process;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, future::Future};

use serde_json::Value;
use shared::effect::protocol::{PinnedInput, PublishedPort, WorkOrder, WorkResult};

pub use dial::{AllowedAddress, AllowedAddressError};
pub use engine::Engine;
pub use snapshot::{Snapshot, snapshot};
pub use verdict::{Judgement, combine};

use crate::{
    plan::PlannedTest,
    run::{CheckPhase, CheckVerdict},
    specification::Criterion,
};

/// The tests of one plan, to be carried out once.
#[derive(Debug, Clone)]
pub struct CheckRound {
    /// Before Generate, or after.
    pub phase: CheckPhase,
    /// What is tested, in the order of the plan.
    pub tests: Vec<RoundTest>,
    /// What there is to be measured, by step; steps that did nothing are absent.
    pub subjects: BTreeMap<String, Subject>,
    /// What came out before Generate, by position of the test.
    pub before: BTreeMap<u32, CheckVerdict>,
}

/// A test with what it is judged by.
#[derive(Debug, Clone)]
pub struct RoundTest {
    /// The test as the human approved it.
    pub test: PlannedTest,
    /// The criterion or constraint that it names.
    pub criterion: Option<Criterion>,
}

/// What a step left behind that can be measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The service that carried the step out.
    pub service: String,
    /// Its session that still runs.
    pub session: Option<String>,
    /// Its published ports.
    pub published: Vec<PublishedPort>,
    /// The files it left behind.
    pub artefacts: Vec<PinnedInput>,
}

/// What came out of one test.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationDraft {
    /// Position of the test in the plan.
    pub test_index: u32,
    /// The criterion or constraint.
    pub criterion: String,
    /// What came out.
    pub verdict: CheckVerdict,
    /// What was measured, in words.
    pub measured: String,
    /// Why, where the verdict alone does not say it.
    pub reason: Option<String>,
    /// The measurement itself: numbers, digests, whether texts were there; never a body.
    pub evidence: Value,
    /// Who measured: `registry` or a service.
    pub measured_by: String,
}

/// The way to the effect servers.
pub trait WorkChannel: Sync {
    /// Asks a service to do something and waits for its answer, within a bound of the channel's own; the error says why there
    /// is no answer, fit for "not measured: …".
    fn ask(
        &self,
        service: &str,
        order: WorkOrder,
    ) -> impl Future<Output = Result<WorkResult, String>> + Send;
}
