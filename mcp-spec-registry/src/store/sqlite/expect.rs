//! Checks that what a change was computed from still holds.

use rusqlite::{Connection, OptionalExtension as _, Params};

use crate::store::{Change, Expectation, StoreError, Write};

pub(super) fn check(connection: &Connection, change: &Change) -> Result<(), StoreError> {
    if change.audit.is_empty() {
        return Err(StoreError::Constraint(
            "a change without an audit entry".into(),
        ));
    }
    for write in &change.writes {
        if let Write::UpdateRun(run) = write
            && !change.expect.iter().any(|expected| {
                matches!(expected, Expectation::RunRevision { run_id, rev } if *run_id == run.run_id && *rev < run.rev)
            })
        {
            return Err(StoreError::Constraint(format!(
                "run {} is updated without the lower revision that the change was computed from",
                run.run_id
            )));
        }
    }
    change
        .expect
        .iter()
        .try_for_each(|expectation| hold(connection, expectation))
}

fn hold(connection: &Connection, expectation: &Expectation) -> Result<(), StoreError> {
    match expectation {
        Expectation::RunRevision { run_id, rev } => {
            let found = number(
                connection,
                "SELECT rev FROM runs WHERE run_id = ?1",
                [run_id],
            )?;
            if found == i64::try_from(*rev).ok() {
                return Ok(());
            }
            let found = found.map_or_else(
                || "it does not exist".into(),
                |rev| format!("it has revision {rev}"),
            );
            conflict(format!(
                "run {run_id} was expected at revision {rev}, but {found}"
            ))
        }
        Expectation::NoOpenRun {
            spec_id,
            environment,
        } => {
            const OPEN: &str = "SELECT 1 FROM runs WHERE spec_id = ?1 AND environment = ?2
                AND state NOT IN ('validated', 'rejected', 'expired', 'failed', 'cancelled', 'aborted')";
            match number(connection, OPEN, [spec_id, environment])? {
                Some(_) => conflict(format!("a run of {spec_id} is open in {environment}")),
                None => Ok(()),
            }
        }
        Expectation::VersionCount { spec_id, count } => {
            const COUNT: &str = "SELECT count(*) FROM specifications WHERE spec_id = ?1";
            let found = number(connection, COUNT, [spec_id])?.unwrap_or_default();
            if found == i64::from(*count) {
                return Ok(());
            }
            conflict(format!(
                "{spec_id} was expected to have {count} versions, but has {found}"
            ))
        }
        Expectation::OpenCheckpoints { opened_by, at_most } => {
            const OPEN: &str =
                "SELECT count(*) FROM checkpoints WHERE opened_by = ?1 AND state = 'open'";
            let found = number(connection, OPEN, [opened_by])?.unwrap_or_default();
            if found <= i64::from(*at_most) {
                return Ok(());
            }
            conflict(format!(
                "{opened_by} has {found} open checkpoints, at most {at_most} were expected"
            ))
        }
        Expectation::NotRemembered { principal, key } => {
            const ANSWER: &str = "SELECT 1 FROM answers WHERE principal = ?1 AND key = ?2";
            match number(connection, ANSWER, [principal, key])? {
                Some(_) => conflict(format!(
                    "the key `{key}` of {principal} was answered before"
                )),
                None => Ok(()),
            }
        }
        Expectation::Enrolled {
            approver,
            enrolment_id,
        } => {
            match number(
                connection,
                "SELECT 1 FROM approvers WHERE name = ?1 AND enrolment_id = ?2",
                [approver, enrolment_id],
            )? {
                Some(_) => Ok(()),
                None => conflict(format!("{approver} is not enrolled")),
            }
        }
    }
}

fn number(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
) -> Result<Option<i64>, StoreError> {
    Ok(connection
        .prepare_cached(sql)?
        .query_row(parameters, |row| row.get(0))
        .optional()?)
}

fn conflict(what: String) -> Result<(), StoreError> {
    Err(StoreError::Conflict(what))
}
