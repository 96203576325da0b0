//! Reads rows.

use rusqlite::{Connection, OptionalExtension as _, Params, params_from_iter, types::Value};
use shared::digest::Digest;

use super::column::Table;
use crate::{
    run::{Action, CallRecord, Grant, Run, RunRecord},
    store::{RunFilter, StoreError},
};

pub(super) fn one<T: Table>(
    connection: &Connection,
    rest: &str,
    parameters: impl Params,
) -> Result<Option<T>, StoreError> {
    let mut statement = connection.prepare_cached(&[T::SELECT, rest].concat())?;
    let mut rows = statement.query(parameters)?;
    rows.next()?.map(T::read).transpose()
}

pub(super) fn all<T: Table>(
    connection: &Connection,
    rest: &str,
    parameters: impl Params,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(&[T::SELECT, rest].concat())?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(T::read(row)?);
    }
    Ok(found)
}

pub(super) fn text(
    connection: &Connection,
    sql: &str,
    key: &str,
) -> Result<Option<String>, StoreError> {
    Ok(connection
        .prepare_cached(sql)?
        .query_row([key], |row| row.get(0))
        .optional()?)
}

pub(super) fn run_id(
    connection: &Connection,
    sql: &str,
    key: &str,
) -> Result<Option<String>, StoreError> {
    text(connection, sql, key)
}

const IN_ORDER: &str = "WHERE run_id = ?1 ORDER BY ordinal";

/// All rows of a run, from one snapshot.
pub(super) fn run_record(
    connection: &mut Connection,
    run_id: &str,
) -> Result<Option<RunRecord>, StoreError> {
    let snapshot = connection.transaction()?;
    let Some(run) = one(&snapshot, "WHERE run_id = ?1", [run_id])? else {
        return Ok(None);
    };
    Ok(Some(RunRecord {
        run,
        plans: all(&snapshot, "WHERE run_id = ?1 ORDER BY revision", [run_id])?,
        checkpoints: all(&snapshot, IN_ORDER, [run_id])?,
        decisions: all(&snapshot, IN_ORDER, [run_id])?,
        grants: all(&snapshot, IN_ORDER, [run_id])?,
        actions: all(&snapshot, IN_ORDER, [run_id])?,
        evaluations: all(&snapshot, IN_ORDER, [run_id])?,
        rationales: all(&snapshot, IN_ORDER, [run_id])?,
    }))
}

/// The rows that decide about one call, from one snapshot.
pub(super) fn call(
    connection: &mut Connection,
    handle_sha256: &Digest,
    service: &str,
    idempotency_key: &str,
) -> Result<Option<CallRecord>, StoreError> {
    const DONE_STEPS: &str = "SELECT DISTINCT step_id FROM actions
        WHERE run_id = ?1 AND revision = ?2 AND cycle = ?3 AND outcome = 'ok'";
    let snapshot = connection.transaction()?;
    let by_handle = "WHERE handle_sha256 = ?1";
    let Some(grant) = one::<Grant>(&snapshot, by_handle, [handle_sha256.as_str()])? else {
        return Ok(None);
    };
    let Some(run) = one::<Run>(&snapshot, "WHERE run_id = ?1", [&grant.run_id])? else {
        return Ok(None);
    };
    let by_key = "WHERE service = ?1 AND idempotency_key = ?2";
    let known = one(&snapshot, by_key, [service, idempotency_key])?;
    let done_steps = snapshot
        .prepare_cached(DONE_STEPS)?
        .query_map((&run.run_id, run.plan_revision, run.cycle), |row| {
            row.get(0)
        })?
        .collect::<Result<_, _>>()?;
    Ok(Some(CallRecord {
        run,
        grant,
        known,
        done_steps,
    }))
}

/// An action and its run, from one snapshot.
pub(super) fn action(
    connection: &mut Connection,
    action_id: &str,
) -> Result<Option<(Run, Action)>, StoreError> {
    let snapshot = connection.transaction()?;
    let Some(action) = one::<Action>(&snapshot, "WHERE action_id = ?1", [action_id])? else {
        return Ok(None);
    };
    let run = one(&snapshot, "WHERE run_id = ?1", [&action.run_id])?;
    Ok(run.map(|run| (run, action)))
}

pub(super) fn runs(connection: &Connection, filter: &RunFilter) -> Result<Vec<Run>, StoreError> {
    let RunFilter {
        spec_id,
        state,
        open_only,
        limit,
        before,
    } = filter;
    let mut conditions = Vec::new();
    let mut parameters = Vec::new();
    let equals = [
        ("spec_id = ?", spec_id.clone()),
        ("state = ?", state.map(|state| state.as_str().to_owned())),
        ("run_id < ?", before.clone()),
    ];
    for (condition, value) in equals {
        if let Some(value) = value {
            conditions.push(condition);
            parameters.push(Value::Text(value));
        }
    }
    if *open_only {
        conditions.push(
            "state NOT IN ('validated', 'rejected', 'expired', 'failed', 'cancelled', 'aborted')",
        );
    }
    parameters.push(Value::Integer(i64::from(*limit)));
    let filtered = if conditions.is_empty() {
        String::new()
    } else {
        format!("WHERE {} ", conditions.join(" AND "))
    };
    all(
        connection,
        &format!("{filtered}ORDER BY run_id DESC LIMIT ?"),
        params_from_iter(parameters),
    )
}
