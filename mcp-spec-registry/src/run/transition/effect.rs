//! One changing call: allowed and recorded as an intent, or refused; later ended.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::{
    digest::Digest,
    effect::protocol::{End, Outcome},
    plan::{ArgumentValue, cover},
};
use time::OffsetDateTime;

use super::{Limits, advance, check_not_paused, entry};
use crate::{
    plan::Plan,
    run::{Action, CallRecord, Grant, Run, RunError, RunState},
    store::{Change, Write},
};

/// Who asks for what, as the effect plane knows it.
#[derive(Debug, Clone)]
pub struct BeginInputs<'a> {
    /// Fresh id of the action.
    pub action_id: String,
    /// The service, from its token.
    pub service: &'a str,
    /// The process of the service.
    pub instance: &'a str,
    /// The agent whose call it is, as the service knows it.
    pub principal: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// JSON schema of the tool, as the service declared it.
    pub schema: &'a Value,
    /// Typed, defaulted arguments.
    pub arguments: &'a BTreeMap<String, ArgumentValue>,
    /// Digest of the arguments' canonical JSON.
    pub arguments_sha256: Digest,
    /// Made by the service.
    pub idempotency_key: &'a str,
}

/// Decides about one call. The checks and the intent stand or fall together with the run's revision.
///
/// # Errors
/// `GRANT_UNKNOWN`, `GRANT_NOT_YOURS`, `GRANT_OTHER_SERVICE`, `WRONG_STATE`, `RUN_PAUSED`, `STALE_EPOCH`, `GRANT_REVOKED`,
/// `GRANT_EXPIRED`, `GRANT_USED_UP`, `STEP_ORDER`, `GRANT_NOT_COVERED`.
pub fn begin(
    record: &CallRecord,
    plan: &Plan,
    inputs: &BeginInputs<'_>,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<(Action, Change), RunError> {
    let CallRecord { run, grant, .. } = record;
    check_grant(run, grant, inputs, now)?;
    if grant.uses_left == 0 {
        return Err(refusal(
            "GRANT_USED_UP",
            "the handle was used as often as the plan allows",
            "the step is done; go on with the next",
        ));
    }
    let step = plan.step(&grant.step_id).ok_or_else(|| {
        refusal(
            "GRANT_UNKNOWN",
            "its step is not in the plan in force",
            AGAIN,
        )
    })?;
    let outside = |what: String| {
        let hint = "call exactly what the approved step allows, or say with deviation_report why it does not fit";
        refusal(
            "GRANT_NOT_COVERED",
            format!("outside the approved step {}: {what}", step.id),
            hint,
        )
    };
    if step.tool != inputs.tool {
        return Err(outside(format!(
            "it is a call of {}, not of {}",
            step.tool, inputs.tool
        )));
    }
    cover(inputs.schema, &step.arguments, inputs.arguments)
        .map_err(|refused| outside(refused.to_string()))?;
    if let Some(before) = step
        .after
        .iter()
        .find(|before| !record.done_steps.contains(before))
    {
        let message = format!(
            "step {} comes after step {before}, which is not done",
            step.id
        );
        return Err(refusal(
            "STEP_ORDER",
            message,
            "carry out the earlier step first",
        ));
    }

    let action = Action {
        action_id: inputs.action_id.clone(),
        run_id: run.run_id.clone(),
        step_id: step.id.clone(),
        revision: run.plan_revision,
        cycle: run.cycle,
        epoch: run.epoch,
        service: inputs.service.to_owned(),
        instance: inputs.instance.to_owned(),
        principal: inputs.principal.to_owned(),
        tool: inputs.tool.to_owned(),
        arguments_sha256: inputs.arguments_sha256.clone(),
        idempotency_key: inputs.idempotency_key.to_owned(),
        lifetime: step.lifetime,
        begun_at: now,
        ended_at: None,
        outcome: None,
        error_code: None,
        result_sha256: None,
        session: None,
        published: Vec::new(),
        artefacts: Vec::new(),
    };
    let payload = json!({
        "action": action.action_id, "step": action.step_id, "grant": grant.short, "tool": action.tool,
        "principal": action.principal, "arguments_sha256": action.arguments_sha256,
    });
    let entry = entry(
        &format!("service:{}", inputs.service),
        "action.begun",
        run,
        payload,
    );
    // The claimant's call renews its lease, in the same write.
    let mut change = advance(run, now, entry, |run| {
        run.lease_until = Some(now + limits.lease);
    });
    let mut grant = grant.clone();
    grant.uses_left -= 1;
    change.writes.push(Write::UpdateGrant(grant));
    change.writes.push(Write::InsertAction(action.clone()));
    Ok((action, change))
}

/// Whether an intent that is on record may still be carried out, for a service that lost the answer to its first question: the
/// run may have been stopped meanwhile.
///
/// # Errors
/// `ACTION_ENDED`, and the codes of [`begin`] that concern the run and the handle.
pub fn begin_again(
    record: &CallRecord,
    action: &Action,
    inputs: &BeginInputs<'_>,
    now: OffsetDateTime,
) -> Result<(), RunError> {
    if action.outcome.is_some() {
        return Err(refusal(
            "ACTION_ENDED",
            format!("action {} has ended", action.action_id),
            "make the call again, with a handle that has uses left",
        ));
    }
    check_grant(&record.run, &record.grant, inputs, now)
}

const AGAIN: &str = "call execution_begin for handles of the plan in force";

fn refusal(code: &'static str, message: impl Into<String>, hint: &str) -> RunError {
    RunError::new(code, message, hint)
}

fn check_grant(
    run: &Run,
    grant: &Grant,
    inputs: &BeginInputs<'_>,
    now: OffsetDateTime,
) -> Result<(), RunError> {
    if grant.principal != inputs.principal {
        let message = format!(
            "the handle was given to another agent than {}",
            inputs.principal
        );
        return Err(refusal(
            "GRANT_NOT_YOURS",
            message,
            "each agent uses the handles of its own claim; a server started over stdio takes its agent's name from --agent, which must be the one that claimed the run",
        ));
    }
    if grant.service != inputs.service {
        let message = format!(
            "the handle is for {}, not for {}",
            grant.service, inputs.service
        );
        return Err(refusal(
            "GRANT_OTHER_SERVICE",
            message,
            "use it on the server that the step names",
        ));
    }
    check_not_paused(run)?;
    if run.state != RunState::Generating {
        return Err(RunError::wrong_state(&run.run_id, run.state, "generating"));
    }
    let claimed = run.claimant.as_deref() == Some(&*grant.principal) && run.epoch == grant.epoch;
    let lease_holds = run.lease_until.is_some_and(|until| until > now);
    if !claimed || !lease_holds {
        return Err(refusal(
            "STALE_EPOCH",
            "the claim that the handle belongs to is over",
            "claim the run again, then call execution_begin",
        ));
    }
    if grant.revoked {
        return Err(refusal("GRANT_REVOKED", "the handle was ended", AGAIN));
    }
    if grant.expires_at <= now {
        return Err(refusal(
            "GRANT_EXPIRED",
            format!("the handle lapsed at {}", grant.expires_at),
            AGAIN,
        ));
    }
    if run.plan_digest.as_ref() != Some(&grant.plan_digest) {
        return Err(refusal(
            "GRANT_REVOKED",
            "the handle belongs to an older plan",
            AGAIN,
        ));
    }
    Ok(())
}

/// What a service reports at the end of an action.
#[derive(Debug, Clone)]
pub struct EndInputs<'a> {
    /// The service, from its token.
    pub service: &'a str,
    /// Its report.
    pub report: &'a End,
}

/// Records the end of an action; `None` if the same end is on record already.
///
/// # Errors
/// `ACTION_UNKNOWN`, `ACTION_ENDED` when another end is on record.
pub fn end(
    run: &Run,
    action: &Action,
    inputs: &EndInputs<'_>,
    now: OffsetDateTime,
) -> Result<Option<Change>, RunError> {
    let report = inputs.report;
    if action.service != inputs.service {
        let message = format!(
            "service {} has begun no action {}",
            inputs.service, report.action_id
        );
        return Err(refusal(
            "ACTION_UNKNOWN",
            message,
            "only what was begun can end",
        ));
    }
    // An end that arrives after its server was given up replaces the "unknown": the server knows better.
    if let Some(outcome) = action
        .outcome
        .filter(|outcome| *outcome != Outcome::Unknown)
    {
        if outcome == report.outcome && action.result_sha256.as_ref() == Some(&report.result_sha256)
        {
            return Ok(None);
        }
        let message = format!("action {} has ended with another outcome", report.action_id);
        return Err(refusal("ACTION_ENDED", message, "an action ends once"));
    }
    let ended = Action {
        ended_at: Some(now),
        outcome: Some(report.outcome),
        error_code: report.error_code.clone(),
        result_sha256: Some(report.result_sha256.clone()),
        session: report.session.clone(),
        published: report.published.clone(),
        artefacts: report.artefacts.clone(),
        ..action.clone()
    };
    Ok(Some(record_end(
        run,
        ended,
        &format!("service:{}", inputs.service),
        now,
    )))
}

/// Ends an open action as `unknown`: the process that began it is gone.
pub fn lose(run: &Run, action: &Action, now: OffsetDateTime) -> Change {
    let lost = Action {
        ended_at: Some(now),
        outcome: Some(Outcome::Unknown),
        error_code: Some("SERVER_ENDED".to_owned()),
        ..action.clone()
    };
    record_end(run, lost, "registry", now)
}

fn record_end(run: &Run, action: Action, actor: &str, now: OffsetDateTime) -> Change {
    let payload = json!({
        "action": action.action_id, "step": action.step_id, "outcome": action.outcome,
        "error_code": action.error_code, "result_sha256": action.result_sha256,
        "session": action.session, "artefacts": action.artefacts,
    });
    let entry = entry(actor, "action.ended", run, payload);
    let mut change = advance(run, now, entry, |_| {});
    change.writes.push(Write::UpdateAction(action));
    change
}
