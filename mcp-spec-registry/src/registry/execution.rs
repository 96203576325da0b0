//! From an approval to handles, and from the agent's report to the checks.

use serde_json::json;
use shared::{
    digest::Digest,
    effect::protocol::{Lifetime, PinnedInput, WorkOrder},
};
use time::OffsetDateTime;

use super::{
    Registry, RegistryError, checking::services_of, effects::draft, random_checkpoint_id,
    random_hex, runs::too_many_checkpoints, texts, unproven,
};
use crate::{
    plan::Plan,
    run::{
        CheckPhase, CheckVerdict, RunRecord, RunState,
        transition::{
            BegunExecution, approval_in_force, begin_execution, complete_generation,
            report_deviation,
        },
    },
};

/// What `execution_begin` gives.
#[derive(Debug, Clone)]
pub struct ExecutionBegun {
    /// The run as it stands now.
    pub state: RunState,
    /// A handle for each step that may still be carried out, in the plan's order.
    pub steps: Vec<BegunStep>,
    /// How the tests came out before anything was done.
    pub tests_before: Vec<TestBefore>,
    /// When the handles lapse.
    pub expires_at: OffsetDateTime,
}

/// What `generation_complete` started.
#[derive(Debug, Clone, Copy)]
pub struct GenerationCompleted {
    /// The run as it stands now.
    pub state: RunState,
    /// Number of tests that are run.
    pub tests: usize,
}

/// A handle for one step. This is the only time it is shown.
#[derive(Debug, Clone)]
pub struct BegunStep {
    /// The step.
    pub step_id: String,
    /// `gr_` and 32 hex digits.
    pub grant: String,
    /// The service it can be used on.
    pub server: String,
    /// The tool it is for.
    pub tool: String,
    /// How often it may be used.
    pub uses: u32,
    /// Files whose bytes are pinned.
    pub inputs: Vec<PinnedInput>,
    /// Whether what it starts may outlive it.
    pub lifetime: Lifetime,
}

/// A test as it came out before Generate.
#[derive(Debug, Clone)]
pub struct TestBefore {
    /// The criterion.
    pub criterion: String,
    /// What came out; a pass means that the test proves nothing.
    pub verdict: CheckVerdict,
}

impl Registry {
    /// Turns an approval into handles. It trusts no state column: every record it builds on must carry its proof. The tests
    /// are run once before the first handle of a plan revision is given.
    ///
    /// # Errors
    /// `RECORD_UNPROVEN`, `APPROVER_GONE`, `SPEC_CHANGED`, and the codes of [`begin_execution`].
    pub async fn execution_begin(
        &self,
        agent: &str,
        run_id: &str,
        epoch: u64,
    ) -> Result<ExecutionBegun, RegistryError> {
        let registry = self.clone();
        let (owned_agent, owned_run) = (agent.to_owned(), run_id.to_owned());
        let record = blocking(move || {
            let record = registry.record(&owned_run)?;
            let plan = registry.prove(&record)?;
            // The same checks as below, before the tests take their time.
            let nothing = BegunExecution {
                handles: Vec::new(),
            };
            begin_execution(
                &record,
                &plan,
                &owned_agent,
                epoch,
                &nothing,
                &registry.0.limits,
                registry.now(),
            )?;
            Ok(record)
        })
        .await?;
        if !has_before(&record) {
            self.run_tests_before(&record).await?;
        }
        let registry = self.clone();
        let (agent, run_id) = (agent.to_owned(), run_id.to_owned());
        blocking(move || registry.give_handles(&agent, &run_id, epoch)).await
    }

    fn give_handles(
        &self,
        agent: &str,
        run_id: &str,
        epoch: u64,
    ) -> Result<ExecutionBegun, RegistryError> {
        let plan = self.prove(&self.record(run_id)?)?;
        let mut handles = Vec::new();
        for _ in &plan.steps {
            handles.push(format!("gr_{}", random_hex()?));
        }
        let begun = BegunExecution {
            handles: handles
                .iter()
                .map(|handle| (Digest::of(handle), handle[3..11].to_owned()))
                .collect(),
        };
        let grants = self.update(run_id, |record| {
            // Proven again under the lock: what was checked above could have changed since.
            let plan = self.prove(record)?;
            let (grants, change) = begin_execution(
                record,
                &plan,
                agent,
                epoch,
                &begun,
                &self.0.limits,
                self.now(),
            )?;
            Ok((grants, Some(change)))
        })?;
        let record = self.record(run_id)?;
        let expires_at = grants
            .first()
            .map_or_else(|| self.now(), |grant| grant.expires_at);
        let steps = plan
            .steps
            .iter()
            .zip(&handles)
            .filter_map(|(step, handle)| {
                let grant = grants.iter().find(|grant| grant.step_id == step.id)?;
                Some(BegunStep {
                    step_id: step.id.clone(),
                    grant: handle.clone(),
                    server: step.server.clone(),
                    tool: step.tool.clone(),
                    uses: grant.uses_left,
                    inputs: step.inputs.clone(),
                    lifetime: step.lifetime,
                })
            })
            .collect();
        let tests_before = before_evaluations(&record)
            .map(|evaluation| TestBefore {
                criterion: evaluation.criterion.clone(),
                verdict: evaluation.verdict,
            })
            .collect();
        Ok(ExecutionBegun {
            state: record.run.state,
            steps,
            tests_before,
            expires_at,
        })
    }

    /// Checks the signatures made when plan, decision and enrolment were written, and that the specification still holds.
    pub(super) fn prove(&self, record: &RunRecord) -> Result<std::sync::Arc<Plan>, RegistryError> {
        let run = &record.run;
        let decision = approval_in_force(record)?;
        let signed = decision
            .signed_bytes()
            .map_err(|error| RegistryError::internal(&error))?;
        if !self.0.keys.verify(&signed, &decision.signature) {
            return Err(unproven("decision", &decision.decision_id));
        }
        let revision = record
            .current_plan()
            .filter(|plan| plan.digest == decision.subject_digest)
            .filter(|plan| self.0.keys.verify(&plan.signed_bytes(), &plan.signature))
            .ok_or_else(|| unproven("plan", &decision.subject_digest.to_string()))?;
        let approver = self
            .0
            .store
            .approvers()?
            .into_iter()
            .find(|approver| {
                approver.name == decision.approver && approver.enrolment_id == decision.enrolment_id
            })
            .ok_or_else(|| {
                RegistryError::new(
                    "APPROVER_GONE",
                    format!(
                        "{} is no longer enrolled, so the approval is void",
                        decision.approver
                    ),
                    "report a deviation to have the plan decided again",
                )
            })?;
        if !self
            .0
            .keys
            .verify(&approver.signed_bytes(), &approver.signature)
        {
            return Err(unproven("approver", &approver.name));
        }
        self.check_specification_in_force(run)?;
        self.plan(&revision.digest)
    }

    /// Says that the plan does not hold. All handles die and a human is asked.
    ///
    /// # Errors
    /// The codes of [`report_deviation`], `TOO_MANY_CHECKPOINTS`.
    pub fn deviation_report(
        &self,
        agent: &str,
        run_id: &str,
        epoch: u64,
        what: &str,
    ) -> Result<crate::run::Checkpoint, RegistryError> {
        texts::check("what", what, texts::LONG)?;
        let checkpoint_id = random_checkpoint_id()?;
        let nonce = random_hex()?;
        self.update(run_id, |record| {
            let change = report_deviation(
                record,
                agent,
                epoch,
                what,
                checkpoint_id.clone(),
                nonce.clone(),
                &self.0.limits,
                self.now(),
            )?;
            Ok(((), Some(change)))
        })
        .map_err(|error| too_many_checkpoints(error, &self.0.limits))?;
        self.checkpoint_of(run_id, &checkpoint_id)
    }

    /// Says that Generate is done. All handles die, what was started for single steps is ended, and the checks begin.
    ///
    /// # Errors
    /// The codes of [`complete_generation`].
    pub async fn generation_complete(
        &self,
        agent: &str,
        run_id: &str,
        epoch: u64,
        report: &str,
    ) -> Result<GenerationCompleted, RegistryError> {
        texts::check("report", report, texts::REPORT)?;
        let registry = self.clone();
        let (agent, owned_run, report) = (agent.to_owned(), run_id.to_owned(), report.to_owned());
        let (record, tests) = blocking(move || {
            registry.update(&owned_run, |record| {
                let limits = &registry.0.limits;
                let now = registry.now();
                Ok((
                    (),
                    Some(complete_generation(
                        record, &agent, epoch, &report, limits, now,
                    )?),
                ))
            })?;
            let record = registry.record(&owned_run)?;
            let digest = record.run.plan_digest.clone();
            let plan = registry.plan(&digest.unwrap_or_else(|| Digest::of("")))?;
            Ok((record, plan.tests.len()))
        })
        .await?;
        self.start_checks(run_id.to_owned());
        Ok(GenerationCompleted {
            state: record.run.state,
            tests,
        })
    }

    /// Leaves an order for every service that did something in a run.
    pub(super) fn order_all(&self, record: &RunRecord, order: impl Fn() -> WorkOrder) {
        for service in services_of(record) {
            self.0.work.post(service, order());
        }
    }

    /// Ends the processes of a run that was stopped, and records that they were ordered to end.
    pub(super) fn end_processes(&self, record: &RunRecord) -> Result<(), RegistryError> {
        let run_id = &record.run.run_id;
        if record.actions.is_empty() {
            return Ok(());
        }
        self.order_all(record, || WorkOrder::EndRun {
            run_id: run_id.clone(),
        });
        self.note(draft(
            "registry",
            "processes.ordered_to_end",
            run_id,
            json!({}),
        ))
    }
}

fn before_evaluations(record: &RunRecord) -> impl Iterator<Item = &crate::run::Evaluation> {
    record.evaluations.iter().filter(|evaluation| {
        evaluation.phase == CheckPhase::Before && evaluation.revision == record.run.plan_revision
    })
}

pub(super) fn has_before(record: &RunRecord) -> bool {
    before_evaluations(record).next().is_some()
}

/// Runs what blocks on the store where it does not hold up the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(RegistryError::internal(&error)),
    }
}
