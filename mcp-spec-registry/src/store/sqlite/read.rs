//! Reads rows.

use rusqlite::{Connection, OptionalExtension as _, Params, params_from_iter, types::Value};

use super::column::Table;
use crate::{
    run::{Run, RunRecord},
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

const AROUND_ACTION: &str = "WHERE run_id = ?1 AND (
    outcome IS NULL OR action_id = ?2 OR idempotency_key = ?2 OR ordinal IN (
        SELECT min(a.ordinal) FROM actions a JOIN runs r ON r.run_id = a.run_id
        WHERE a.run_id = ?1 AND a.outcome = 'ok' AND a.revision = r.plan_revision AND a.cycle = r.cycle GROUP BY a.step_id
    )) ORDER BY ordinal";

/// All rows of a run, from one snapshot; of its actions, where one is named, only those that decide about that one.
pub(super) fn run_record(
    connection: &mut Connection,
    run_id: &str,
    action: Option<&str>,
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
        actions: match action {
            Some(action) => all(&snapshot, AROUND_ACTION, [run_id, action])?,
            None => all(&snapshot, IN_ORDER, [run_id])?,
        },
        evaluations: all(&snapshot, IN_ORDER, [run_id])?,
        rationales: all(&snapshot, IN_ORDER, [run_id])?,
    }))
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
