//! The effect plane's questions: who may do what, and what was done.

use std::sync::Arc;

use serde_json::json;
use shared::{
    digest::Digest,
    effect::protocol::{
        Begin, End, Ended, Hello, Permit, RefusedCall, SignedHead, Welcome, WorkOrder,
    },
};

use super::{Registry, RegistryError, lock, new_ulid};
use crate::{
    audit::EntryDraft,
    run::{
        Action, CallRecord, Run,
        transition::{BeginInputs, EndInputs, begin, begin_again, end, lose},
    },
    store::{Change, ServiceRow, Write},
};

/// Processes whose count of records is kept; one that is forgotten begins anew.
const MOST_SEQUENCES: usize = 1024;

/// An intent that was allowed, as the registry answers it.
pub type BegunAction = Permit;

impl Registry {
    /// A process of a service says what it can do. What older processes of the service left open becomes `unknown`.
    ///
    /// # Errors
    /// A failing store.
    pub fn hello(
        &self,
        service: &str,
        uid: Option<u32>,
        hello: Hello,
    ) -> Result<Welcome, RegistryError> {
        let known = self.service(service)?;
        let changed = known.as_ref().is_none_or(|known| {
            known.instance != hello.instance || known.tools != hello.tools || known.uid != uid
        });
        if changed {
            let names: Vec<&str> = hello.tools.iter().map(|tool| tool.tool.as_str()).collect();
            let payload = json!({
                "instance": hello.instance, "version": hello.version, "uid": uid, "tools": names,
                "tools_sha256": Digest::of_json(&hello.tools).map_err(|error| RegistryError::internal(&error))?,
            });
            let row = ServiceRow {
                name: service.to_owned(),
                instance: hello.instance.clone(),
                version: hello.version,
                uid,
                tools: hello.tools,
                last_seq: 0,
                said_hello_at: self.now(),
            };
            self.commit(&Change {
                audit: vec![draft(
                    &format!("service:{service}"),
                    "service.hello",
                    service,
                    payload,
                )],
                writes: vec![Write::PutService(row.clone())],
                ..Change::default()
            })?;
            lock(&self.0.services).insert(service.to_owned(), Arc::new(row));
        }
        // Also where nothing changed: the registry may have ended between the two.
        self.lose_actions_of_others(service, &hello.instance, &hello.undelivered_ends)?;
        let last_seq = lock(&self.0.sequences)
            .get(&(service.to_owned(), hello.instance.clone()))
            .copied()
            .unwrap_or(0);
        Ok(Welcome {
            service: service.to_owned(),
            last_seq,
            audit_head: self.signed_head()?,
        })
    }

    /// A service as it last said hello.
    pub(super) fn service(&self, name: &str) -> Result<Option<Arc<ServiceRow>>, RegistryError> {
        if let Some(known) = lock(&self.0.services).get(name) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(row) = self.0.store.service(name)?.map(Arc::new) else {
            return Ok(None);
        };
        // A hello in between has the newer one.
        let mut services = lock(&self.0.services);
        Ok(Some(Arc::clone(
            services.entry(name.to_owned()).or_insert(row),
        )))
    }

    fn lose_actions_of_others(
        &self,
        service: &str,
        instance: &str,
        undelivered: &[String],
    ) -> Result<(), RegistryError> {
        for run_id in self.0.store.runs_with_lost_actions(service, instance)? {
            let is_lost = |action: &&Action| {
                action.service == service
                    && action.instance != instance
                    && !undelivered.contains(&action.action_id)
            };
            while let Some(lost) = self.record(&run_id)?.open_actions().find(is_lost).cloned() {
                self.update(&run_id, |record| {
                    let still_open = record
                        .open_actions()
                        .any(|open| open.action_id == lost.action_id);
                    Ok(((), still_open.then(|| lose(&record.run, &lost, self.now()))))
                })?;
            }
        }
        Ok(())
    }

    /// May this call be made? If so its intent is on record before the answer leaves.
    ///
    /// # Errors
    /// The codes of [`begin`], and `SERVICE_UNKNOWN`, `IDEMPOTENCY_CONFLICT`, `RECORD_UNPROVEN`.
    pub fn begin(&self, service: &str, request: &Begin) -> Result<BegunAction, RegistryError> {
        let result = self.try_begin(service, request);
        if let Err(refused) = &result {
            let run_id = self.run_of_handle(&request.grant)?;
            self.record_refusal(service, request, run_id.as_deref(), refused)?;
        }
        result
    }

    fn try_begin(&self, service: &str, request: &Begin) -> Result<BegunAction, RegistryError> {
        self.check_sequence(service, &request.instance, request.seq)?;
        let declared = self
            .service(service)?
            .filter(|row| row.instance == request.instance);
        let declaration = declared
            .as_ref()
            .and_then(|row| row.tools.iter().find(|tool| tool.tool == request.tool))
            .ok_or_else(|| {
                RegistryError::new(
                    "SERVICE_UNKNOWN",
                    format!(
                        "this process of {service} has not declared a tool `{}`",
                        request.tool
                    ),
                    "the effect server says hello first, with all its tools",
                )
            })?;
        let arguments_sha256 =
            Digest::of_json(&request.arguments).map_err(|error| RegistryError::internal(&error))?;
        let handle_sha256 = Digest::of(&request.grant);
        let action_id = format!("ac_{}", new_ulid());
        let key = &request.idempotency_key;
        let read = || {
            let record = self.0.store.call(&handle_sha256, service, key)?;
            record.ok_or_else(|| {
                RegistryError::new(
                    "GRANT_UNKNOWN",
                    "no such handle",
                    "call execution_begin for handles of the plan in force",
                )
            })
        };
        let (decided, head) = self.update_read(read, |record| {
            let digest = record
                .run
                .plan_digest
                .clone()
                .unwrap_or_else(|| Digest::of(""));
            let plan = self.plan(&digest)?;
            let inputs = BeginInputs {
                action_id: action_id.clone(),
                service,
                instance: &request.instance,
                principal: &request.principal,
                tool: &request.tool,
                schema: &declaration.schema,
                arguments: &request.arguments,
                arguments_sha256: arguments_sha256.clone(),
                idempotency_key: key,
            };
            if let Some(known) = known_action(record, request, &arguments_sha256)? {
                return Ok(match begin_again(record, &known, &inputs, self.now()) {
                    Ok(()) => (Ok((known, plan)), None),
                    // The service will not carry it out now, so it must not stay open.
                    Err(refused) => {
                        let lost = known.outcome.is_none();
                        let change = lost.then(|| lose(&record.run, &known, self.now()));
                        (Err(RegistryError::from(refused)), change)
                    }
                });
            }
            let (action, change) = begin(record, &plan, &inputs, &self.0.limits, self.now())?;
            self.check_proven(&record.run, &digest)?;
            Ok((Ok((action, plan)), Some(change)))
        })?;
        let (action, plan) = decided?;
        let inputs = plan
            .step(&action.step_id)
            .map(|step| step.inputs.clone())
            .unwrap_or_default();
        Ok(Permit {
            action_id: action.action_id,
            run_id: action.run_id,
            step_id: action.step_id,
            inputs,
            lifetime: action.lifetime,
            audit_head: self.or_signed_head(head)?,
        })
    }

    /// That this plan was approved is proven once for each process: state and handles are rows that somebody could write by hand.
    fn check_proven(&self, run: &Run, plan: &Digest) -> Result<(), RegistryError> {
        const MOST: usize = 1024;
        let key = (run.run_id.clone(), plan.clone());
        if lock(&self.0.proven).contains(&key) {
            return Ok(());
        }
        self.prove(&self.record(&run.run_id)?).map_err(|error| {
            if error.code == "NOT_APPROVED" {
                super::unproven("state of run", &run.run_id)
            } else {
                error
            }
        })?;
        let mut proven = lock(&self.0.proven);
        if proven.len() >= MOST {
            proven.clear();
        }
        proven.insert(key);
        Ok(())
    }

    /// Records what became of an action.
    ///
    /// # Errors
    /// The codes of [`end`].
    pub fn end(&self, service: &str, report: &End) -> Result<Ended, RegistryError> {
        self.check_sequence(service, &report.instance, report.seq)?;
        let read = || {
            let found = self.0.store.action(&report.action_id)?;
            found.ok_or_else(|| {
                RegistryError::new(
                    "ACTION_UNKNOWN",
                    format!(
                        "no action {} was begun",
                        shared::visible::machine(&report.action_id, false)
                    ),
                    "only what was begun can end",
                )
            })
        };
        let (run_id, head) = self.update_read(read, |(run, action)| {
            let change = end(run, action, &EndInputs { service, report }, self.now())?;
            Ok((run.run_id.clone(), change))
        })?;
        self.end_latecomer(service, report, &run_id)?;
        Ok(Ended {
            audit_head: self.or_signed_head(head)?,
        })
    }

    /// A process whose start was under way while its run was stopped missed the order to end; it is given again.
    fn end_latecomer(
        &self,
        service: &str,
        report: &End,
        run_id: &str,
    ) -> Result<(), RegistryError> {
        if report.session.is_none() {
            return Ok(());
        }
        let record = self.record(run_id)?;
        if record.run.state.is_closed() || record.run.claimant.is_none() {
            let run_id = run_id.to_owned();
            self.0.work.post(service, WorkOrder::EndRun { run_id });
        } else if record.run.paused {
            let run_id = run_id.to_owned();
            self.0.work.post(service, WorkOrder::EndSteps { run_id });
        }
        Ok(())
    }

    /// Records a call that an effect server refused by itself.
    ///
    /// # Errors
    /// A failing store.
    pub fn refused(&self, service: &str, refused: &RefusedCall) -> Result<(), RegistryError> {
        let subject = match &refused.action_id {
            Some(action_id) => self.0.store.run_of_action(action_id)?,
            None => None,
        };
        let payload = json!({
            "tool": refused.tool, "principal": refused.principal, "code": refused.code,
            "action": refused.action_id,
        });
        let subject = subject.unwrap_or_else(|| service.to_owned());
        self.note(draft(
            &format!("service:{service}"),
            "call.refused",
            &subject,
            payload,
        ))
    }

    /// The newest signed head of the audit.
    ///
    /// # Errors
    /// A failing store.
    pub fn signed_head(&self) -> Result<Option<SignedHead>, RegistryError> {
        Ok(self.0.store.signed_head()?)
    }

    fn or_signed_head(
        &self,
        head: Option<SignedHead>,
    ) -> Result<Option<SignedHead>, RegistryError> {
        match head {
            Some(head) => Ok(Some(head)),
            None => self.signed_head(),
        }
    }

    /// Appends to the audit without changing anything else.
    pub(super) fn note(&self, entry: EntryDraft) -> Result<(), RegistryError> {
        self.commit(&Change {
            audit: vec![entry],
            ..Change::default()
        })?;
        Ok(())
    }

    fn run_of_handle(&self, handle: &str) -> Result<Option<String>, RegistryError> {
        Ok(self.0.store.run_of_grant(&Digest::of(handle))?)
    }

    fn record_refusal(
        &self,
        service: &str,
        request: &Begin,
        run_id: Option<&str>,
        refused: &RegistryError,
    ) -> Result<(), RegistryError> {
        let short: String = request.grant.chars().take(11).collect();
        let payload = json!({
            "code": refused.code, "tool": request.tool, "principal": request.principal, "grant": short,
            "message": refused.message,
        });
        let action = if refused.code == "IDEMPOTENCY_CONFLICT" {
            "alarm.key_reused"
        } else {
            "effect.refused"
        };
        self.note(draft(
            &format!("service:{service}"),
            action,
            run_id.unwrap_or(service),
            payload,
        ))
    }

    /// Records of one process are numbered; a gap means that something was withheld.
    fn check_sequence(&self, service: &str, instance: &str, seq: u64) -> Result<(), RegistryError> {
        let last = {
            let mut sequences = lock(&self.0.sequences);
            // Names of processes are theirs to choose, so one service must not speak for another's.
            if sequences.len() >= MOST_SEQUENCES {
                sequences.clear();
            }
            // Of a process that was known before this registry started, the first number heard counts.
            let last = sequences
                .entry((service.to_owned(), instance.to_owned()))
                .or_insert(seq.saturating_sub(1));
            let before = *last;
            *last = before.max(seq);
            before
        };
        if seq > last.saturating_add(1) {
            let payload = json!({ "instance": instance, "last": last, "seq": seq });
            self.note(draft(
                &format!("service:{service}"),
                "alarm.sequence_gap",
                service,
                payload,
            ))?;
        }
        Ok(())
    }
}

/// The action that this key began before.
fn known_action(
    record: &CallRecord,
    request: &Begin,
    arguments_sha256: &Digest,
) -> Result<Option<Action>, RegistryError> {
    let Some(known) = &record.known else {
        return Ok(None);
    };
    let same = known.run_id == record.run.run_id
        && known.step_id == record.grant.step_id
        && known.epoch == record.grant.epoch
        && known.tool == request.tool
        && known.principal == request.principal
        && known.arguments_sha256 == *arguments_sha256;
    if same {
        return Ok(Some(known.clone()));
    }
    Err(RegistryError::new(
        "IDEMPOTENCY_CONFLICT",
        "this key was used for another call",
        "make a fresh key for each call",
    ))
}

pub(super) fn draft(
    actor: &str,
    action: &str,
    subject: &str,
    payload: serde_json::Value,
) -> EntryDraft {
    EntryDraft {
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        payload,
    }
}
