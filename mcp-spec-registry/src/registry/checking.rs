//! The registry's own measurements: each test once before anything was done, and again when the agent says it is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use shared::{
    digest::Digest,
    effect::protocol::{WorkOrder, WorkResult},
};

use super::{
    Registry, RegistryError, WorkBoard,
    approvals::newest_round,
    execution::{blocking, has_before},
    new_ulid, random_checkpoint_id, random_hex,
    specifications::criteria_of,
};
use crate::{
    checks::{CheckRound, EvaluationDraft, RoundTest, Snapshot, Subject, WorkChannel, snapshot},
    run::{
        Action, CheckPhase, CheckVerdict, Evaluation, RunRecord, RunState,
        transition::{checks_done, record_before},
    },
    store::RunFilter,
};

/// A server that was asked to measure something has this long.
const MEASURING: Duration = Duration::from_secs(30);
/// Servers come back by themselves after a restart of the registry; theirs is the longest pause between two tries.
const COMING_BACK: Duration = Duration::from_secs(6);

impl WorkChannel for WorkBoard {
    async fn ask(&self, service: &str, order: WorkOrder) -> Result<WorkResult, String> {
        let limit = match &order {
            WorkOrder::RunCommand { timeout_ms, .. } => {
                MEASURING.max(Duration::from_millis(u64::from(*timeout_ms) + 10_000))
            }
            _ => MEASURING,
        };
        WorkBoard::ask(self, service, order, limit)
            .await
            .map_err(|error| error.to_string())
    }
}

impl Registry {
    /// Runs each test of the plan once while nothing of the run is alive; what passes now proves nothing later.
    pub(super) async fn run_tests_before(&self, record: &RunRecord) -> Result<(), RegistryError> {
        // Processes of an earlier revision would make tests pass; they have ended before anything is measured or begun.
        let run_id = record.run.run_id.clone();
        self.end_before_measuring(record, || WorkOrder::EndRun {
            run_id: run_id.clone(),
        })
        .await;
        let drafts = self.run_round(record, CheckPhase::Before).await?;
        let registry = self.clone();
        let revision = record.run.plan_revision;
        blocking(move || {
            registry.update(&run_id, |record| {
                // What was measured belongs to the plan it was measured for, and the first round counts.
                if record.run.plan_revision != revision
                    || !matches!(record.run.state, RunState::Approved | RunState::Generating)
                    || has_before(record)
                {
                    return Ok(((), None));
                }
                let evaluations = registry.evaluations(record, CheckPhase::Before, &drafts)?;
                Ok(((), Some(record_before(record, evaluations, registry.now()))))
            })
        })
        .await
    }

    /// Starts the checks of a run that is verifying.
    pub(super) fn start_checks(&self, run_id: String) {
        let registry = self.clone();
        tokio::spawn(async move {
            if let Err(error) = registry.check(&run_id).await {
                tracing::error!(run_id, %error, "the checks of a run could not be finished");
            }
        });
    }

    /// After a restart of the registry: checks that were under way run again.
    pub(super) async fn take_up_checks(&self) {
        let registry = self.clone();
        let filter = RunFilter {
            state: Some(RunState::Verifying),
            limit: 1000,
            ..RunFilter::default()
        };
        match blocking(move || registry.runs(&filter)).await {
            Ok(runs) => {
                for run in runs {
                    let registry = self.clone();
                    // Its servers have lost their connections too; what is asked before they are back comes out unknown.
                    tokio::spawn(async move {
                        if let Err(error) = registry.until_servers_are_back(&run.run_id).await {
                            tracing::error!(%error, "failed to look for the servers of a run");
                        }
                        registry.start_checks(run.run_id);
                    });
                }
            }
            Err(error) => tracing::error!(%error, "failed to look for checks to take up"),
        }
    }

    async fn until_servers_are_back(&self, run_id: &str) -> Result<(), RegistryError> {
        let (registry, run_id) = (self.clone(), run_id.to_owned());
        let record = blocking(move || registry.record(&run_id)).await?;
        for service in services_of(&record) {
            self.0.work.until_listening(service, COMING_BACK).await;
        }
        Ok(())
    }

    /// Ends processes and waits until they have ended; a server that is away does it when it is back.
    async fn end_before_measuring(&self, record: &RunRecord, order: impl Fn() -> WorkOrder) {
        let run_id = &record.run.run_id;
        for service in services_of(record) {
            let asked = WorkBoard::ask(&self.0.work, service, order(), MEASURING);
            if let Err(error) = asked.await {
                tracing::warn!(run_id, %error, "processes that should have ended may run on for now");
                self.0.work.post(service, order());
            }
        }
    }

    async fn check(&self, run_id: &str) -> Result<(), RegistryError> {
        let registry = self.clone();
        let owned = run_id.to_owned();
        let record = blocking(move || registry.record(&owned)).await?;
        if record.run.state != RunState::Verifying {
            return Ok(());
        }
        // What was to live no longer than its step.
        self.end_before_measuring(&record, || WorkOrder::EndSteps {
            run_id: record.run.run_id.clone(),
        })
        .await;
        let drafts = self.run_round(&record, CheckPhase::After).await?;
        // What runs now is what V2 accepts; it is looked at after the restart checks, which change nothing that counts.
        let snapshot = snapshot(&everything_left(&record), &self.0.work).await;
        let registry = self.clone();
        let run_id = run_id.to_owned();
        let checkpoint_id = random_checkpoint_id()?;
        let nonce = random_hex()?;
        blocking(move || {
            registry.update(&run_id, |record| {
                let evaluations = registry.evaluations(record, CheckPhase::After, &drafts)?;
                let evidence = evidence_digest(&evaluations, &snapshot)?;
                let change = checks_done(
                    record,
                    evaluations,
                    evidence,
                    checkpoint_id.clone(),
                    nonce.clone(),
                    &registry.0.limits,
                    registry.now(),
                )?;
                Ok(((), Some(change)))
            })?;
            let record = registry.record(&run_id)?;
            if record.run.state.is_closed() {
                registry.end_processes(&record)?;
            }
            Ok(())
        })
        .await
    }

    async fn run_round(
        &self,
        record: &RunRecord,
        phase: CheckPhase,
    ) -> Result<Vec<EvaluationDraft>, RegistryError> {
        let registry = self.clone();
        let run = record.run.clone();
        let tests = blocking(move || {
            let plan = registry.plan(&run.plan_digest.clone().unwrap_or_else(|| Digest::of("")))?;
            let specification = registry.specification(&run.spec_digest)?;
            let criteria = criteria_of(&specification);
            let tests: Vec<RoundTest> = plan
                .tests
                .iter()
                .map(|test| RoundTest {
                    test: test.clone(),
                    criterion: criteria
                        .iter()
                        .find(|criterion| criterion.criterion_id == test.criterion)
                        .map(|criterion| (*criterion).clone()),
                })
                .collect();
            Ok(tests)
        })
        .await?;
        let subjects = match phase {
            CheckPhase::Before => BTreeMap::new(),
            CheckPhase::After => subjects(record),
        };
        let before = record
            .evaluations
            .iter()
            .filter(|evaluation| {
                evaluation.phase == CheckPhase::Before
                    && evaluation.revision == record.run.plan_revision
            })
            .map(|evaluation| (evaluation.test_index, evaluation.verdict))
            .collect();
        let round = CheckRound {
            phase,
            tests,
            subjects,
            before,
        };
        Ok(self.0.engine.run(round, &self.0.work).await)
    }

    fn evaluations(
        &self,
        record: &RunRecord,
        phase: CheckPhase,
        drafts: &[EvaluationDraft],
    ) -> Result<Vec<Evaluation>, RegistryError> {
        let round = record
            .evaluations
            .iter()
            .map(|evaluation| evaluation.round)
            .max()
            .unwrap_or(0)
            + 1;
        drafts
            .iter()
            .map(|draft| {
                let evidence_sha256 = Digest::of_json(&draft.evidence)
                    .map_err(|error| RegistryError::internal(&error))?;
                Ok(Evaluation {
                    evaluation_id: new_ulid(),
                    run_id: record.run.run_id.clone(),
                    revision: record.run.plan_revision,
                    test_index: draft.test_index,
                    criterion: draft.criterion.clone(),
                    phase,
                    round,
                    verdict: draft.verdict,
                    measured: draft.measured.clone(),
                    reason: draft.reason.clone(),
                    evidence: draft.evidence.clone(),
                    evidence_sha256,
                    measured_by: draft.measured_by.clone(),
                    measured_at: self.now(),
                })
            })
            .collect()
    }

    /// What runs and what lies there is still what was measured.
    pub(super) async fn check_evidence_fresh(
        &self,
        record: &RunRecord,
    ) -> Result<(), RegistryError> {
        let Some(checkpoint) = record.open_checkpoint() else {
            return Ok(());
        };
        let snapshot = snapshot(&everything_left(record), &self.0.work).await;
        let measured = newest_round(record, checkpoint.revision);
        if evidence_digest(&measured, &snapshot)? == checkpoint.subject_digest {
            return Ok(());
        }
        Err(RegistryError::new(
            "EVIDENCE_STALE",
            "what runs now, or the files that were made, are not what was measured",
            "reject with return to generate, so that it is measured again",
        ))
    }
}

/// The services that did something in a run, each once.
pub(super) fn services_of(record: &RunRecord) -> BTreeSet<&str> {
    let services = record.actions.iter();
    services.map(|action| action.service.as_str()).collect()
}

/// What each step left running or behind, in this cycle of the plan in force; of a step that was done more than once, the newest.
fn subjects(record: &RunRecord) -> BTreeMap<String, Subject> {
    left_by(record, |action| action.step_id.clone())
}

/// What each action left running or behind: whatever of it changes after it was measured makes the evidence stale.
fn everything_left(record: &RunRecord) -> BTreeMap<String, Subject> {
    left_by(record, |action| {
        format!("{} {}", action.step_id, action.action_id)
    })
}

fn left_by(record: &RunRecord, name: impl Fn(&Action) -> String) -> BTreeMap<String, Subject> {
    let mut subjects = BTreeMap::new();
    for action in &record.actions {
        let current =
            action.revision == record.run.plan_revision && action.cycle == record.run.cycle;
        let is_done = action.outcome == Some(shared::effect::protocol::Outcome::Ok);
        if current && is_done {
            subjects.insert(
                name(action),
                Subject {
                    service: action.service.clone(),
                    session: action.session.clone(),
                    published: action.published.clone(),
                    artefacts: action.artefacts.clone(),
                },
            );
        }
    }
    subjects
}

/// One digest over every measurement and over what was running when it was made.
fn evidence_digest(
    evaluations: &[Evaluation],
    snapshot: &Snapshot,
) -> Result<Digest, RegistryError> {
    let measured: Vec<(&str, CheckVerdict, &Digest)> = evaluations
        .iter()
        .map(|evaluation| {
            (
                evaluation.criterion.as_str(),
                evaluation.verdict,
                &evaluation.evidence_sha256,
            )
        })
        .collect();
    Digest::of_json(&(measured, snapshot)).map_err(|error| RegistryError::internal(&error))
}
