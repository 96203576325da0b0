//! The approval plane's questions: what waits for a human, and what a human decided.

use serde_json::json;
use time::OffsetDateTime;

use super::{
    CheckpointFile, DecisionInput, HistoryEntry, QueueEntry, Receipt, Registry, RegistryError,
    execution::blocking, lock, new_ulid, runs::checkpoint_not_found, specifications::criteria_of,
    unproven,
};
use crate::{
    approval::code,
    plan::{Plan, changes, risks},
    run::{
        Assurance, CheckPhase, Checkpoint, CheckpointKind, Decision, Evaluation, RunRecord,
        RunState, Verdict,
        transition::{DecisionInputs, cancel, decide, kill, pause, resume},
    },
    store::{ApproverRow, SpecificationStatus},
};
use shared::effect::protocol::WorkOrder;

impl Registry {
    /// Checkpoints that wait for a human, oldest first.
    ///
    /// # Errors
    /// A failing store.
    pub fn queue(&self) -> Result<Vec<QueueEntry>, RegistryError> {
        let mut queue = Vec::new();
        for checkpoint in self.0.store.open_checkpoints()? {
            let run = self.record(&checkpoint.run_id)?.run;
            let row = self.stored_specification(&run.spec_digest)?;
            queue.push(QueueEntry {
                checkpoint_id: checkpoint.checkpoint_id,
                run_id: run.run_id,
                spec_id: run.spec_id,
                spec_version: run.spec_version,
                title: row.title,
                environment: run.environment,
                kind: checkpoint.kind,
                revision: checkpoint.revision,
                opened_by: checkpoint.opened_by,
                opened_at: checkpoint.opened_at,
                expires_at: checkpoint.expires_at,
            });
        }
        Ok(queue)
    }

    /// Everything that a human must see to decide a checkpoint.
    ///
    /// # Errors
    /// `CHECKPOINT_NOT_FOUND`, `RECORD_UNPROVEN`.
    pub fn checkpoint_file(&self, checkpoint_id: &str) -> Result<CheckpointFile, RegistryError> {
        let record = self.record_of_checkpoint(checkpoint_id)?;
        let checkpoint = find(&record, checkpoint_id)?.clone();
        let revision = record
            .plans
            .iter()
            .find(|plan| plan.revision == checkpoint.revision)
            .ok_or_else(|| unproven("plan of checkpoint", checkpoint_id))?;
        let plan_json = self.plan_json(&revision.digest)?;
        let plan = Plan::clone(&*self.plan(&revision.digest)?);
        let previous_plan = match last_decided_before(&record, &checkpoint) {
            Some(digest) => Some(Plan::clone(&*self.plan(&digest)?)),
            None => None,
        };
        let specification_row = self.stored_specification(&record.run.spec_digest)?;
        let specification = self.specification(&record.run.spec_digest)?;
        let criteria = criteria_of(&specification);
        let key = self.0.keys.hmac_key();
        Ok(CheckpointFile {
            risks: risks(&plan, &criteria),
            changes: previous_plan
                .as_ref()
                .map(|before| changes(before, &plan))
                .unwrap_or_default(),
            strength: self.strength_of(&record)?,
            code: code::code(
                key,
                &checkpoint.nonce,
                checkpoint.revision,
                &checkpoint.subject_digest,
            ),
            evaluations: newest_round(&record, checkpoint.revision),
            actions: record.actions.clone(),
            checkpoint,
            record,
            plan,
            plan_json,
            previous_plan,
            specification,
            specification_row,
        })
    }

    /// Remembers when a human first saw a checkpoint.
    pub fn mark_viewed(&self, checkpoint_id: &str, _approver: &str) {
        let now = self.now();
        let mut viewed = lock(&self.0.viewed);
        if viewed.len() > 1000 {
            viewed.clear();
        }
        viewed.entry(checkpoint_id.to_owned()).or_insert(now);
    }

    /// Decides a checkpoint. Code and secret are checked first; at V2 what was measured must still be what runs.
    ///
    /// # Errors
    /// `SECRET_WRONG`, `CODE_WRONG`, `DIGEST_MISMATCH`, `EVIDENCE_STALE`, and the codes of [`decide`].
    pub async fn decide(&self, input: DecisionInput) -> Result<Receipt, RegistryError> {
        let registry = self.clone();
        let checked = input.clone();
        let (record, checkpoint, approver) =
            blocking(move || registry.check_decision(&checked)).await?;
        if checkpoint.kind == CheckpointKind::V2 && input.verdict == Verdict::Approve {
            self.check_evidence_fresh(&record).await?;
        }
        let registry = self.clone();
        let receipt =
            blocking(move || registry.write_decision(&input, &checkpoint, approver)).await?;
        if receipt.run_state.is_closed() && receipt.run_state != RunState::Validated {
            self.end_processes(&self.record(&receipt.decision.run_id)?)?;
        }
        Ok(receipt)
    }

    /// Code and secret belong to this checkpoint and this approver.
    fn check_decision(
        &self,
        input: &DecisionInput,
    ) -> Result<(RunRecord, Checkpoint, ApproverRow), RegistryError> {
        // The secret comes first: without it nothing is learned about codes or checkpoints.
        let approver = self.verified_approver(&input.approver, &input.secret)?;
        let record = self.record_of_checkpoint(&input.checkpoint_id)?;
        let checkpoint = find(&record, &input.checkpoint_id)?.clone();
        if input
            .shown_digest
            .as_ref()
            .is_some_and(|shown| *shown != checkpoint.subject_digest)
        {
            return Err(RegistryError::new(
                "DIGEST_MISMATCH",
                "what you were shown is not what this checkpoint is about",
                "read the newest revision and decide about that",
            ));
        }
        let expected = code::code(
            self.0.keys.hmac_key(),
            &checkpoint.nonce,
            checkpoint.revision,
            &checkpoint.subject_digest,
        );
        if !code::matches(&expected, &input.code) {
            return Err(RegistryError::new(
                "CODE_WRONG",
                "the code is not the one at the end of this plan",
                "read to the end; the code of an older revision does not count",
            ));
        }
        Ok((record, checkpoint, approver))
    }

    fn write_decision(
        &self,
        input: &DecisionInput,
        checkpoint: &Checkpoint,
        approver: ApproverRow,
    ) -> Result<Receipt, RegistryError> {
        let viewed = lock(&self.0.viewed).get(&checkpoint.checkpoint_id).copied();
        let now = self.now();
        let mut decision = Decision {
            decision_id: new_ulid(),
            checkpoint_id: checkpoint.checkpoint_id.clone(),
            run_id: checkpoint.run_id.clone(),
            verdict: input.verdict,
            reason: input.reason.clone(),
            reason_code: input.reason_code.clone(),
            is_final: input.is_final,
            return_to: input.return_to,
            approver: approver.name,
            enrolment_id: approver.enrolment_id,
            assurance: if approver.is_test {
                Assurance::Test
            } else {
                Assurance::A1
            },
            subject_digest: checkpoint.subject_digest.clone(),
            accepted_unknown: input.accepted_unknown.clone(),
            approver_uid: input.approver_uid,
            decided_at: now,
            first_viewed_at: viewed.filter(|viewed| *viewed <= now),
            begun_at: None,
            signature: String::new(),
        };
        let signed = decision
            .signed_bytes()
            .map_err(|error| RegistryError::internal(&error))?;
        decision.signature = self.0.keys.sign(&signed);
        self.update(&checkpoint.run_id, |record| {
            let specification = self.stored_specification(&record.run.spec_digest)?;
            let results = newest_round(record, checkpoint.revision)
                .into_iter()
                .map(|evaluation| (evaluation.criterion, evaluation.verdict))
                .collect();
            let is_proposed = specification.status == SpecificationStatus::Proposed;
            if is_proposed
                && checkpoint.kind == CheckpointKind::V1
                && decision.verdict == Verdict::Approve
                && self.is_overtaken(&specification)?
            {
                return Err(RegistryError::new(
                    "SPEC_CHANGED",
                    "a newer version of the specification is in force than the one proposed for this run",
                    "reject the plan; the agent can propose a change of the newer version",
                ));
            }
            let inputs = DecisionInputs {
                decision: decision.clone(),
                results,
                activates: (is_proposed && checkpoint.kind == CheckpointKind::V1)
                    .then_some(specification.digest),
            };
            Ok((
                (),
                Some(decide(record, inputs, &self.0.limits, self.now())?),
            ))
        })?;
        let run_state = self.record(&checkpoint.run_id)?.run.state;
        Ok(Receipt {
            decision,
            run_state,
            next: next_in_words(run_state).to_owned(),
            audit_head: self.signed_head()?,
        })
    }

    /// The newest decisions, newest first.
    ///
    /// # Errors
    /// A failing store.
    pub fn history(&self, limit: u32) -> Result<Vec<HistoryEntry>, RegistryError> {
        let mut history = Vec::new();
        for decision in self.0.store.decisions(limit)? {
            let record = self.record(&decision.run_id)?;
            let checkpoint = find(&record, &decision.checkpoint_id)?;
            history.push(HistoryEntry {
                kind: checkpoint.kind,
                revision: checkpoint.revision,
                spec_id: record.run.spec_id.clone(),
                spec_version: record.run.spec_version.clone(),
                environment: record.run.environment.clone(),
                run_state: record.run.state,
                decision,
            });
        }
        Ok(history)
    }

    /// Ends a run in good order.
    ///
    /// # Errors
    /// The codes of [`cancel`].
    pub fn cancel(&self, run_id: &str, by: &str, reason: &str) -> Result<RunState, RegistryError> {
        self.control(run_id, |record, now| {
            cancel(record, by, reason, &self.0.limits, now)
        })?;
        self.end_processes(&self.record(run_id)?)?;
        Ok(RunState::Cancelled)
    }

    /// Ends a run and its processes at once.
    ///
    /// # Errors
    /// The codes of [`kill`].
    pub fn kill(&self, run_id: &str, by: &str, reason: &str) -> Result<RunState, RegistryError> {
        self.control(run_id, |record, now| {
            kill(record, by, reason, &self.0.limits, now)
        })?;
        self.end_processes(&self.record(run_id)?)?;
        Ok(RunState::Aborted)
    }

    /// Until it is resumed, no effect of the run is allowed. What single steps are running is ended.
    ///
    /// # Errors
    /// The codes of [`pause`].
    pub fn pause(&self, run_id: &str, by: &str, reason: &str) -> Result<RunState, RegistryError> {
        self.control(run_id, |record, now| pause(&record.run, by, reason, now))?;
        let record = self.record(run_id)?;
        self.order_all(&record, || WorkOrder::EndSteps {
            run_id: run_id.to_owned(),
        });
        Ok(record.run.state)
    }

    /// Ends a pause; this takes an approver's secret.
    ///
    /// # Errors
    /// `SECRET_WRONG`, and the codes of [`resume`].
    pub fn resume(
        &self,
        run_id: &str,
        approver: &str,
        secret: &str,
        reason: &str,
    ) -> Result<RunState, RegistryError> {
        self.verify_secret(approver, secret)?;
        let actor = format!("human:{approver}");
        self.control(run_id, |record, now| {
            resume(&record.run, &actor, reason, &self.0.limits, now)
        })?;
        Ok(self.record(run_id)?.run.state)
    }

    fn control(
        &self,
        run_id: &str,
        transition: impl Fn(
            &RunRecord,
            OffsetDateTime,
        ) -> Result<crate::store::Change, crate::run::RunError>,
    ) -> Result<(), RegistryError> {
        self.update(run_id, |record| {
            Ok(((), Some(transition(record, self.now())?)))
        })
    }

    /// A failed attempt on the approval plane goes on record, without what was typed.
    ///
    /// # Errors
    /// A failing store.
    pub fn note_failed_attempt(
        &self,
        approver: &str,
        checkpoint_id: Option<&str>,
        source: &str,
        code: &str,
    ) -> Result<(), RegistryError> {
        let name: String = shared::visible::machine(approver, false)
            .chars()
            .take(64)
            .collect();
        let payload = json!({ "name": name, "source": source, "code": code });
        let subject = checkpoint_id.unwrap_or("approval");
        self.note(super::effects::draft(
            "approval",
            "attempt.failed",
            subject,
            payload,
        ))
    }
}

fn find<'a>(record: &'a RunRecord, checkpoint_id: &str) -> Result<&'a Checkpoint, RegistryError> {
    let found = record
        .checkpoints
        .iter()
        .find(|open| open.checkpoint_id == checkpoint_id);
    found.ok_or_else(|| checkpoint_not_found(checkpoint_id))
}

/// Digest of the last plan of the run that a human decided about before this checkpoint.
fn last_decided_before(
    record: &RunRecord,
    checkpoint: &Checkpoint,
) -> Option<shared::digest::Digest> {
    let before = record.decisions.iter().rev().find(|decision| {
        record.checkpoints.iter().any(|other| {
            other.checkpoint_id == decision.checkpoint_id
                && other.kind == CheckpointKind::V1
                && other.revision < checkpoint.revision
        })
    })?;
    Some(before.subject_digest.clone())
}

/// The newest measurements after Generate of a plan revision.
pub(super) fn newest_round(record: &RunRecord, revision: u32) -> Vec<Evaluation> {
    let after = |evaluation: &&Evaluation| {
        evaluation.phase == CheckPhase::After && evaluation.revision == revision
    };
    let newest = record
        .evaluations
        .iter()
        .filter(after)
        .map(|evaluation| evaluation.round)
        .max();
    record
        .evaluations
        .iter()
        .filter(after)
        .filter(|evaluation| Some(evaluation.round) == newest)
        .cloned()
        .collect()
}

fn next_in_words(state: RunState) -> &'static str {
    match state {
        RunState::Approved => {
            "the agent can begin; each of its changing calls is checked against this plan"
        }
        RunState::Analyzing => "the agent makes another plan and asks again",
        RunState::Generating => "the agent carries the plan out again",
        RunState::Validated => "the outcome is accepted; the run is done",
        RunState::Rejected => "the run is over",
        RunState::Failed => "the run has failed: it was sent back too often",
        _ => "nothing for now",
    }
}
