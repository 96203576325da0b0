//! Brings a database's schema up to date: each step in the same transaction as the number that says it was taken.

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// Step n brings the schema from n to n + 1. Steps are never edited once released.
const STEPS: &[&str] = &[include_str!("../migrations/0001_first.sql")];

pub(super) fn to_newest(connection: &mut Connection) -> Result<(), StoreError> {
    take_steps(connection, STEPS)
}

pub(super) fn take_steps(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if schema(connection, known)? == known {
        return Ok(());
    }
    // Another process may have taken them while this one waited for the lock.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = schema(&transaction, known)?;
    for step in steps
        .iter()
        .skip(usize::try_from(found).unwrap_or(usize::MAX))
    {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

fn schema(connection: &Connection, known: u32) -> Result<u32, StoreError> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        Err(StoreError::NewerSchema { found, known })
    } else {
        Ok(found)
    }
}
