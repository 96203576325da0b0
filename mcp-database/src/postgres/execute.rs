//! Carries changes out: all of them in one transaction, or none; to try, or for good.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use serde_json::Value;
use tokio_postgres::{Statement, Transaction};

use super::change::Change;
use super::connect::{CLEAN, Connection};
use super::error::Error;
use super::functions::{self, Scope};
use super::loss::{self, Tables};
use super::read::{catalog, columns, parameters};
use super::statement::StatementError;
use super::task;
use super::value::{self, Raw};
use crate::source::Mode;
use crate::table::{Answer, Budget, Rows};

/// Changes that belong together.
#[derive(Debug, Clone)]
pub struct Changes {
    /// In order, each with its parameters.
    pub steps: Vec<(Change, Vec<Value>)>,
    /// Whether all is rolled back in the end.
    pub is_trial: bool,
    /// Whether they may leave nothing of a table that they do not drop or truncate by name.
    pub may_empty: bool,
    /// How many rows they may affect together, if they may not affect any number.
    pub expected: Option<u64>,
    /// How long each may take.
    pub timeout: Duration,
    /// What is told of the rows they return.
    pub budget: Budget,
}

/// What changes did, or would have done.
#[derive(Debug)]
pub struct Executed {
    /// Rows that each affected.
    pub affected: Vec<u64>,
    /// The rows that the last one returned.
    pub returned: Answer,
}

impl Executed {
    /// Rows that all affected together.
    pub fn total(&self) -> u64 {
        self.affected.iter().sum()
    }
}

/// Carries changes out on a connection of their own. Dropped before it has ended, everything is rolled back, but for a commit that is
/// on its way already.
pub(super) async fn execute(
    connection: Connection,
    changes: Changes,
    allowed: Vec<String>,
) -> Result<Executed, Error> {
    let steps = u32::try_from(changes.steps.len()).unwrap_or(u32::MAX);
    let longest = changes.timeout.saturating_mul(steps.max(1));
    task::run(connection, longest, move |connection| {
        Box::pin(async move { run(connection, &changes, &allowed).await })
    })
    .await
}

async fn run(
    connection: &mut Connection,
    changes: &Changes,
    allowed: &[String],
) -> Result<Executed, Error> {
    // A function may leave a role or prepared statements in the session, which nothing takes out for sure.
    connection.spoil();
    let is_shared = connection.is_shared();
    let failed = |error: tokio_postgres::Error| Error::outside(&error);
    let mut transaction = connection.transaction(Mode::Write, changes.timeout).await?;
    let mut executed = Executed {
        affected: Vec::with_capacity(changes.steps.len()),
        returned: Answer {
            columns: Vec::new(),
            rows: Rows::new(changes.budget),
        },
    };
    let mut emptied = Vec::new();
    for (change, given) in &changes.steps {
        let mut before = touched(&transaction).await?;
        let tables = Tables::now(&transaction).await?;
        let trial = transaction.transaction().await.map_err(failed)?;
        let (mut told, mut returned) = step(&trial, change, given, changes.budget, allowed).await?;
        let tables_after = Tables::now(&trial).await?;
        let mut gone = 0;
        if tables.are_all_in(&tables_after) {
            trial.commit().await.map_err(failed)?;
        } else {
            // Taken back, so that the rows of what it takes with it can be counted, and made again.
            trial.rollback().await.map_err(failed)?;
            gone = tables.rows_gone(&tables_after, &mut transaction).await?;
            if gone > 0 && change.is_about_rows() {
                emptied.extend(tables.names_gone(&tables_after).map(str::to_owned));
            }
            before = touched(&transaction).await?;
            (told, returned) = step(&transaction, change, given, changes.budget, allowed).await?;
        }
        let after = touched(&transaction).await?;
        // The server's word for a statement knows nothing of WITH, cascades, triggers and functions.
        let affected = told.max(after.saturating_sub(before)) + gone;
        executed.affected.push(affected);
        executed.returned = returned;
    }
    let affected = executed.total();
    if let Some(expected) = changes.expected.filter(|expected| *expected != affected) {
        transaction.rollback().await.map_err(failed)?;
        return Err(Error::Unexpected { affected, expected });
    }
    if !changes.may_empty {
        emptied.extend(loss::emptied(&mut transaction).await?);
        if !emptied.is_empty() {
            transaction.rollback().await.map_err(failed)?;
            let tables = emptied.join(", ");
            return Err(Error::Empties { tables, affected });
        }
    }
    if changes.is_trial {
        // What is checked at the end is checked now.
        let checked = transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE");
        checked.await.map_err(failed)?;
        transaction.rollback().await.map_err(failed)?;
    } else {
        if is_shared {
            // Whoever has the session next is none of ours.
            transaction.batch_execute(CLEAN).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
    }
    Ok(executed)
}

/// Rows that the transaction has inserted, updated or deleted so far.
async fn touched(transaction: &Transaction<'_>) -> Result<u64, Error> {
    let sum = "SELECT COALESCE(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::int8 FROM pg_catalog.pg_stat_xact_user_tables";
    let failed = |error: tokio_postgres::Error| Error::outside(&error);
    let row = transaction.query_one(sum, &[]).await.map_err(failed)?;
    let rows: i64 = row.try_get(0).map_err(failed)?;
    Ok(u64::try_from(rows).unwrap_or_default())
}

async fn step(
    transaction: &Transaction<'_>,
    change: &Change,
    given: &[Value],
    budget: Budget,
    allowed: &[String],
) -> Result<(u64, Answer), Error> {
    let failed = |error: tokio_postgres::Error| Error::outside(&error);
    let names: Vec<&str> = change.called().map(|called| called.name.as_str()).collect();
    let known = catalog(transaction, &names).await.map_err(failed)?;
    functions::check(change.called(), &known, allowed, Scope::Change)?;
    let prepared = transaction.prepare(change.text()).await.map_err(failed)?;
    let statement = readable(transaction, change, &prepared).await?;
    let parameters = parameters(&statement, given)?;
    let stream = transaction
        .query_raw(&statement, parameters)
        .await
        .map_err(failed)?;
    let mut stream = std::pin::pin!(stream);
    let mut rows = Rows::new(budget);
    while let Some(row) = stream.try_next().await.map_err(failed)? {
        // All that it does is done; what does not fit any more is only taken off the line.
        if rows.goes_on() {
            continue;
        }
        let mut cells = Vec::with_capacity(prepared.columns().len());
        for (index, column) in prepared.columns().iter().enumerate() {
            let raw: Raw<'_> = row.try_get(index).map_err(failed)?;
            cells.push(value::cell(column.type_(), &raw, false)?);
        }
        // A row that does not fit is left out, and that is told.
        let _ = rows.push(cells);
    }
    let counts = !change.selects() && change.verb() != "call";
    let affected = stream.rows_affected().filter(|_| counts).unwrap_or(0);
    let columns = columns(&prepared);
    Ok((affected, Answer { columns, rows }))
}

/// The statement whose columns can all be read: the same, or one that asks for texts.
async fn readable(
    transaction: &Transaction<'_>,
    change: &Change,
    prepared: &Statement,
) -> Result<Statement, Error> {
    let columns = prepared.columns().iter();
    let casts: Vec<&str> = columns.map(|column| value::cast(column.type_())).collect();
    if casts.iter().all(|cast| cast.is_empty()) || !change.returns() {
        return Ok(prepared.clone());
    }
    if change.has_change_within() {
        let columns = prepared.columns().iter().zip(&casts);
        let columns = columns.filter(|(_, cast)| !cast.is_empty());
        let names: Vec<&str> = columns.map(|(column, _)| column.name()).collect();
        return Err(StatementError::Unreadable(names.join(", ")).into());
    }
    transaction
        .prepare_typed(&change.text_with(&casts), prepared.params())
        .await
        .map_err(|error| Error::outside(&error))
}
