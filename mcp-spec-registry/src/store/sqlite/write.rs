//! Writes the rows of a change.

use rusqlite::{Connection, Params, params_from_iter};
use shared::digest::Digest;

use super::{
    column::{Changing, Table},
    specifications,
};
use crate::store::{StoreError, Write};

pub(super) fn apply(connection: &Connection, write: &Write) -> Result<(), StoreError> {
    match write {
        Write::InsertSpecification(row) => specifications::insert(connection, row),
        Write::ActivateSpecification(digest) => specifications::activate(connection, digest),
        Write::InsertRun(row) => insert(connection, row),
        Write::UpdateRun(row) => update(connection, row),
        Write::InsertPlan(row, body) => {
            if Digest::of(body) != row.digest {
                return Err(StoreError::Constraint(format!(
                    "the plan's text is not that of {}",
                    row.digest
                )));
            }
            let body = (row.digest.as_str(), body);
            execute(
                connection,
                "INSERT INTO plan_bodies (digest, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                body,
            )?;
            insert(connection, row)
        }
        Write::InsertCheckpoint(row) => insert(connection, row),
        Write::UpdateCheckpoint(row) => update(connection, row),
        Write::InsertDecision(row) => insert(connection, row),
        Write::UpdateDecision(row) => update(connection, row),
        Write::InsertGrant(row) => insert(connection, row),
        Write::UpdateGrant(row) => update(connection, row),
        Write::InsertAction(row) => insert(connection, row),
        Write::UpdateAction(row) => update(connection, row),
        Write::InsertEvaluation(row) => insert(connection, row),
        Write::InsertRationale(row) => insert(connection, row),
        Write::PutAgent(row) => put(connection, row),
        Write::PutApprover(row) => put(connection, row),
        Write::DeleteApprover(name) => {
            let deleted = execute(connection, "DELETE FROM approvers WHERE name = ?1", [name])?;
            exactly_one(deleted, || format!("approver {name} is not enrolled"))
        }
        Write::PutToken(row) => put(connection, row),
        Write::PutService(row) => put(connection, row),
        Write::Remember(row) => insert(connection, row),
        Write::RedactPayload(seq) => {
            let seq = i64::try_from(*seq)
                .map_err(|_| StoreError::Constraint(format!("no audit entry {seq}")))?;
            let deleted = execute(
                connection,
                "DELETE FROM audit_payloads WHERE seq = ?1",
                [seq],
            )?;
            exactly_one(deleted, || format!("audit entry {seq} has no payload"))
        }
    }
}

pub(super) fn insert<T: Table>(connection: &Connection, row: &T) -> Result<(), StoreError> {
    execute(connection, T::INSERT, params_from_iter(row.values()?)).map(drop)
}

pub(super) fn execute(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(parameters)?)
}

fn update<T: Changing>(connection: &Connection, row: &T) -> Result<(), StoreError> {
    let values = row.update_values()?;
    let mut updated = 0;
    for sql in T::UPDATES {
        updated = execute(connection, sql, params_from_iter(&values))?;
        if updated != 0 {
            break;
        }
    }
    exactly_one(updated, || {
        format!("no row in {} that differs only in what may change", T::NAME)
    })
}

fn put<T: Table>(connection: &Connection, row: &T) -> Result<(), StoreError> {
    execute(connection, T::UPSERT, params_from_iter(row.values()?)).map(drop)
}

pub(super) fn exactly_one(
    changed: usize,
    otherwise: impl FnOnce() -> String,
) -> Result<(), StoreError> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Constraint(otherwise()))
    }
}
