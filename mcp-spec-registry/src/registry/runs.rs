//! Runs as agents see and move them, up to the plan.

use serde_json::json;
use shared::digest::Digest;

use super::{
    Registry, RegistryError, effects::draft, new_ulid, random_checkpoint_id, random_hex,
    specifications::criteria_of, texts,
};
use crate::{
    plan::{Declarations, Plan, PlanError, lint},
    run::{
        Checkpoint, PlanRevision, Rationale, Run, RunRecord,
        transition::{RequestInputs, SubmittedPlan, claim, renew, request, submit_plan},
    },
    store::{AgentRow, Change, Expectation, RememberedAnswer, RunFilter, StoreError, Write},
};

/// What an agent or a human asks for.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The specification.
    pub spec_id: String,
    /// Its version; the active one when it is not given.
    pub version: Option<String>,
    /// Where the outcome is wanted.
    pub environment: String,
    /// The same key with the same request is answered with the same run.
    pub idempotency_key: Option<String>,
}

/// A run with what its agent needs to go on.
#[derive(Debug, Clone)]
pub struct RunView {
    /// Everything on record.
    pub record: RunRecord,
    /// What the claimant can do next.
    pub next: &'static str,
}

/// A plan that a human is now asked about.
#[derive(Debug, Clone)]
pub struct PlanAccepted {
    /// Its revision.
    pub revision: u32,
    /// Its digest.
    pub plan_digest: Digest,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Number of steps.
    pub steps: usize,
    /// Number of tests.
    pub tests: usize,
}

impl Registry {
    /// Asks for an outcome.
    ///
    /// # Errors
    /// `SPEC_NOT_FOUND`, `SPEC_NOT_ACTIVE`, `OPEN_RUN_EXISTS`, `IDEMPOTENCY_CONFLICT`, `INVALID_ENVIRONMENT`.
    pub fn run_request(&self, requester: &str, asked: &RunRequest) -> Result<Run, RegistryError> {
        check_name("environment", &asked.environment)?;
        let row = self.specification_row(&asked.spec_id, asked.version.as_deref())?;
        let request_sha256 =
            Digest::of_json(&json!([asked.spec_id, asked.version, asked.environment]))
                .map_err(|error| RegistryError::internal(&error))?;
        if let Some(run) = self.remembered_run(requester, asked, &request_sha256)? {
            return Ok(run);
        }
        let inputs = RequestInputs {
            run_id: new_ulid(),
            spec_id: row.spec_id,
            spec_version: row.version,
            spec_digest: row.digest,
            environment: asked.environment.clone(),
            requester: requester.to_owned(),
        };
        let (run, mut change) = request(inputs, &format!("agent:{requester}"), self.now());
        if let Some(key) = &asked.idempotency_key {
            change.expect.push(Expectation::NotRemembered {
                principal: requester.to_owned(),
                key: key.clone(),
            });
            change.writes.push(Write::Remember(RememberedAnswer {
                principal: requester.to_owned(),
                key: key.clone(),
                request_sha256: request_sha256.clone(),
                answer: run.run_id.clone(),
            }));
        }
        match self.commit(&change) {
            Ok(_) => Ok(run),
            Err(StoreError::Conflict(_)) => {
                // Either the same request came twice at once, or somebody else works on this outcome.
                if let Some(run) = self.remembered_run(requester, asked, &request_sha256)? {
                    return Ok(run);
                }
                Err(RegistryError::new(
                    "OPEN_RUN_EXISTS",
                    format!(
                        "{} already has an open run in environment {}",
                        asked.spec_id, asked.environment
                    ),
                    "call run_list with this spec_id, and claim that run or wait for its end",
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn remembered_run(
        &self,
        requester: &str,
        asked: &RunRequest,
        request_sha256: &Digest,
    ) -> Result<Option<Run>, RegistryError> {
        let Some(key) = &asked.idempotency_key else {
            return Ok(None);
        };
        let Some(known) = self.0.store.remembered(requester, key)? else {
            return Ok(None);
        };
        if known.request_sha256 != *request_sha256 {
            return Err(RegistryError::new(
                "IDEMPOTENCY_CONFLICT",
                format!(
                    "the key `{}` was used for another request",
                    shared::visible::machine(key, false)
                ),
                "use a fresh key for each request",
            ));
        }
        Ok(Some(self.record(&known.answer)?.run))
    }

    /// Claims a run for an agent: exactly one wins.
    ///
    /// # Errors
    /// `CLAIM_LOST`, `RUN_CLOSED`, `RUN_NOT_FOUND`, `NOT_REGISTERED`.
    pub fn run_claim(&self, agent: &str, run_id: &str) -> Result<Run, RegistryError> {
        if self.0.store.agent(agent)?.is_none() {
            return Err(RegistryError::new(
                "NOT_REGISTERED",
                format!("agent {agent} has not said what it is"),
                "call agent_register once, then claim",
            ));
        }
        self.update(run_id, |record| {
            Ok((
                (),
                Some(claim(&record.run, agent, &self.0.limits, self.now())?),
            ))
        })?;
        Ok(self.record(run_id)?.run)
    }

    /// A run as its agent sees it. The claimant's look renews its lease.
    ///
    /// # Errors
    /// `RUN_NOT_FOUND`.
    pub fn run_view(&self, agent: &str, run_id: &str) -> Result<RunView, RegistryError> {
        self.show_life(agent, run_id)?;
        let record = self.record(run_id)?;
        let next = next_of(&record);
        Ok(RunView { record, next })
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// A failing store.
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>, RegistryError> {
        Ok(self.0.store.runs(filter)?)
    }

    /// Renews the lease of a claimant that shows itself, when half of it is gone.
    pub(super) fn show_life(&self, agent: &str, run_id: &str) -> Result<(), RegistryError> {
        let record = self.record(run_id)?;
        let is_claimant = record.run.claimant.as_deref() == Some(agent);
        if !is_claimant || renew(&record.run, &self.0.limits, self.now()).is_none() {
            return Ok(());
        }
        self.update(run_id, |record| {
            Ok(((), renew(&record.run, &self.0.limits, self.now())))
        })
    }

    /// Puts a plan to a human.
    ///
    /// # Errors
    /// `NOT_ENROLLED`, `PLAN_TOO_LARGE`, `PLAN_INCOMPLETE`, `SPEC_CHANGED`, `TOO_MANY_CHECKPOINTS`, and the codes of
    /// [`submit_plan`].
    pub fn plan_submit(
        &self,
        agent: &str,
        run_id: &str,
        epoch: u64,
        plan: &Plan,
    ) -> Result<PlanAccepted, RegistryError> {
        self.check_enrolled()?;
        let record = self.record(run_id)?;
        if plan.spec_digest != record.run.spec_digest {
            return Err(RegistryError::new(
                "SPEC_CHANGED",
                format!(
                    "the plan serves {}, the run is about {}",
                    plan.spec_digest, record.run.spec_digest
                ),
                "read the specification of the run again and plan for it",
            ));
        }
        let body = plan.canonical_json().map_err(|error| plan_error(&error))?;
        let specification = self.specification(&record.run.spec_digest)?;
        let criteria = criteria_of(&specification);
        let faults = lint(plan, &criteria, &self.declarations()?);
        if !faults.is_empty() {
            return Err(RegistryError::new(
                "PLAN_INCOMPLETE",
                faults.join("; "),
                "mend each of these and submit the plan again",
            ));
        }
        let digest = Digest::of(&body);
        let nonce = random_hex()?;
        let checkpoint_id = random_checkpoint_id()?;
        let result = self.update(run_id, |record| {
            let mut revision = PlanRevision {
                run_id: run_id.to_owned(),
                revision: record.run.plan_revision + 1,
                digest: digest.clone(),
                author: agent.to_owned(),
                signature: String::new(),
                submitted_at: self.now(),
            };
            revision.signature = self.0.keys.sign(&revision.signed_bytes());
            let submitted = SubmittedPlan {
                plan: revision.clone(),
                body: body.clone(),
                checkpoint_id: checkpoint_id.clone(),
                nonce: nonce.clone(),
            };
            let change = submit_plan(record, agent, epoch, submitted, &self.0.limits, self.now())?;
            Ok((revision, Some(change)))
        });
        let revision = result.map_err(|error| too_many_checkpoints(error, &self.0.limits))?;
        let checkpoint = self.checkpoint_of(run_id, &checkpoint_id)?;
        Ok(PlanAccepted {
            revision: revision.revision,
            plan_digest: digest,
            checkpoint,
            steps: plan.steps.len(),
            tests: plan.tests.len(),
        })
    }

    pub(super) fn checkpoint_of(
        &self,
        run_id: &str,
        checkpoint_id: &str,
    ) -> Result<Checkpoint, RegistryError> {
        let record = self.record(run_id)?;
        let found = record
            .checkpoints
            .into_iter()
            .find(|open| open.checkpoint_id == checkpoint_id);
        found.ok_or_else(|| checkpoint_not_found(checkpoint_id))
    }

    /// The run of a checkpoint, as it stands.
    ///
    /// # Errors
    /// `CHECKPOINT_NOT_FOUND`.
    pub fn record_of_checkpoint(&self, checkpoint_id: &str) -> Result<RunRecord, RegistryError> {
        let run_id = self.0.store.run_of_checkpoint(checkpoint_id)?;
        self.record(&run_id.ok_or_else(|| checkpoint_not_found(checkpoint_id))?)
    }

    /// Says what an agent is.
    ///
    /// # Errors
    /// A failing store.
    pub fn agent_register(
        &self,
        agent: &str,
        description: &str,
        persona: Option<&str>,
    ) -> Result<AgentRow, RegistryError> {
        texts::check("description", description, texts::SHORT)?;
        texts::check("persona", persona.unwrap_or_default(), texts::SHORT)?;
        let known = self.0.store.agent(agent)?;
        let row = AgentRow {
            name: agent.to_owned(),
            description: description.to_owned(),
            persona: persona.map(str::to_owned),
            registered_at: known
                .as_ref()
                .map_or_else(|| self.now(), |known| known.registered_at),
        };
        if known.as_ref() != Some(&row) {
            let payload = json!({ "description": description, "persona": persona });
            self.commit(&Change {
                audit: vec![draft(
                    &format!("agent:{agent}"),
                    "agent.registered",
                    agent,
                    payload,
                )],
                writes: vec![Write::PutAgent(row.clone())],
                ..Change::default()
            })?;
        }
        Ok(row)
    }

    /// Records why an agent chose what it chose.
    ///
    /// # Errors
    /// `NOT_CLAIMANT`, `RUN_NOT_FOUND`.
    pub fn rationale_record(
        &self,
        agent: &str,
        rationale: Rationale,
    ) -> Result<Rationale, RegistryError> {
        let run_id = rationale.run_id.clone();
        self.show_life(agent, &run_id)?;
        let record = self.record(&run_id)?;
        if record.run.claimant.as_deref() != Some(agent) {
            return Err(RegistryError::new(
                "NOT_CLAIMANT",
                format!("run {run_id} is not claimed by {agent}"),
                "only its claimant explains what is done in a run",
            ));
        }
        texts::check_rationale(&rationale, record.rationales.len())?;
        let rationale = Rationale {
            rationale_id: new_ulid(),
            agent: agent.to_owned(),
            recorded_at: self.now(),
            ..rationale
        };
        let payload = json!(rationale);
        self.commit(&Change {
            audit: vec![draft(
                &format!("agent:{agent}"),
                "rationale.recorded",
                &run_id,
                payload,
            )],
            writes: vec![Write::InsertRationale(rationale.clone())],
            ..Change::default()
        })?;
        Ok(rationale)
    }

    pub(super) fn declarations(&self) -> Result<Declarations, RegistryError> {
        let mut declarations = Declarations::new();
        for token in self.0.store.tokens()? {
            if token.revoked || token.kind != crate::store::TokenKind::Service {
                continue;
            }
            if let Some(service) = self.service(&token.principal)? {
                declarations.insert(service.name.clone(), service.tools.clone());
            }
        }
        Ok(declarations)
    }

    fn check_enrolled(&self) -> Result<(), RegistryError> {
        if self.0.store.approvers()?.is_empty() {
            return Err(RegistryError::new(
                "NOT_ENROLLED",
                "nobody is enrolled who could decide about a plan",
                "ask the human to run `mcp-spec-registry enrol --name NAME` on the registry's machine",
            ));
        }
        Ok(())
    }
}

pub(super) fn checkpoint_not_found(checkpoint_id: &str) -> RegistryError {
    RegistryError::new(
        "CHECKPOINT_NOT_FOUND",
        format!(
            "there is no checkpoint `{}`",
            shared::visible::machine(checkpoint_id, false)
        ),
        "look at the queue, or call run_get, for the checkpoints there are",
    )
}

/// The store's conflict about open checkpoints, in the agent's words.
pub(super) fn too_many_checkpoints(
    error: RegistryError,
    limits: &crate::run::transition::Limits,
) -> RegistryError {
    if error.code != "CONFLICT" || !error.message.contains("checkpoints") {
        return error;
    }
    RegistryError::new(
        "TOO_MANY_CHECKPOINTS",
        format!(
            "you have {} questions open already",
            limits.open_checkpoints
        ),
        "wait until a human has answered some of them",
    )
}

fn plan_error(error: &PlanError) -> RegistryError {
    let code = if matches!(error, PlanError::TooLarge { .. }) {
        "PLAN_TOO_LARGE"
    } else {
        "PLAN_INCOMPLETE"
    };
    RegistryError::new(
        code,
        error.to_string(),
        "split the work into smaller runs, or pin long contents by sha256",
    )
}

/// Names that people choose: short and printable.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), RegistryError> {
    let is_plain = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | ':' | '@')
    };
    if !name.is_empty() && name.len() <= 64 && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(RegistryError::new(
        &format!("INVALID_{}", what.to_uppercase()),
        format!(
            "`{}` cannot be a name",
            shared::visible::machine(name, false)
        ),
        "a name has 1 to 64 ASCII letters, digits and . _ : @ -",
    ))
}

/// What comes next, for the agent that works on the run.
fn next_of(record: &RunRecord) -> &'static str {
    use crate::run::RunState as S;
    match (record.run.state, record.run.claimant.is_some()) {
        (_, false) if !record.run.state.is_closed() => "claim it with run_claim",
        (S::Requested, _) => "claim it with run_claim",
        (S::Analyzing, _) => "make a plan and submit it with plan_submit",
        (S::AwaitingV1 | S::AwaitingV2, _) => "a human decides; wait with checkpoint_wait",
        (S::Approved, _) => "call execution_begin for the handles of the approved steps",
        (S::Generating, _) => {
            "carry out the steps with their handles, then call generation_complete"
        }
        (S::Verifying, _) => "the registry measures; wait with checkpoint_wait or run_get",
        _ => "nothing; it has ended",
    }
}
