//! Runs one query of an agent so that it can only read: in a transaction that is READ ONLY and ends in a rollback, through a portal
//! that gives no more rows than a reply holds, and is kept where a reply does not hold all.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{StreamExt as _, future};
use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Portal, Statement, Transaction};

use super::error::Error;
use super::functions::{self, Function, Scope};
use super::parameter::Parameter;
use super::statement::Query;
use super::value::{self, Raw};
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// Bytes of a row from which on its connection is closed afterwards: what the driver took to hold it, it keeps.
const LARGE_ROW: usize = 4 << 20;
/// Rows that are taken off the line at once: what does not fit a reply any more waits in memory.
const MOST_ROWS_AT_ONCE: usize = 500;

/// Which of the layers that keep a read from changing anything are in place; all, but where a test shows what one of them is good for.
#[derive(Debug, Clone, Copy)]
pub struct Layers {
    /// The transaction is READ ONLY.
    pub read_only: bool,
    /// Functions are looked up.
    pub functions: bool,
}

impl Layers {
    /// Every layer.
    pub const ALL: Self = Self {
        read_only: true,
        functions: true,
    };
}

/// A question.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The text.
    pub sql: String,
    /// `$1` to `$n`.
    pub parameters: Vec<Value>,
    /// Whether vectors are shown whole.
    pub whole_vectors: bool,
    /// How long each page may take.
    pub timeout: Duration,
    /// What guards it.
    pub layers: Layers,
    /// A statement of ours that sets something for its transaction.
    pub local: String,
}

impl Ask {
    /// Without parameters, 30 s, every layer.
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            parameters: Vec::new(),
            whole_vectors: false,
            timeout: Duration::from_secs(30),
            layers: Layers::ALL,
            local: String::new(),
        }
    }
}

/// A query that was begun. Dropped, it is rolled back before whatever its connection is asked next.
pub(super) struct Reading<'c> {
    transaction: Transaction<'c>,
    portal: Portal,
    query: Query,
    columns: Vec<Column>,
    types: Vec<Type>,
    whole_vectors: bool,
    waiting: VecDeque<Vec<Cell>>,
    is_at_end: bool,
    has_large_row: bool,
}

impl<'c> Reading<'c> {
    /// Begins. `allowed` are functions, with their schemas, that the operator vouches for.
    pub(super) async fn start(
        client: &'c mut Client,
        ask: &Ask,
        allowed: &[String],
    ) -> Result<Self, Error> {
        let query = Query::of(&ask.sql)?;
        let failed =
            |error: tokio_postgres::Error| Error::of(&error, |place| query.position(place));
        let transaction = client
            .build_transaction()
            .read_only(ask.layers.read_only)
            .start()
            .await
            .map_err(failed)?;
        // Once a transaction has taken its snapshot, nobody makes it READ WRITE again.
        let opening = format!("{}; {}; SELECT 1", opening(ask.timeout), ask.local);
        let names = if ask.layers.functions {
            query.called().map(|called| called.name.as_str()).collect()
        } else {
            Vec::new()
        };
        let (begun, prepared, catalog) = future::join3(
            transaction.batch_execute(&opening),
            transaction.prepare(query.text()),
            catalog(&transaction, &names),
        )
        .await;
        begun.map_err(failed)?;
        let prepared = prepared.map_err(failed)?;
        let catalog = catalog.map_err(failed)?;
        functions::check(query.called(), &catalog, allowed, Scope::Read)?;
        let columns = columns(&prepared);
        let types = prepared.columns().iter();
        let types = types.map(|column| column.type_().clone()).collect();
        let statement = readable(&transaction, &query, &prepared)
            .await
            .map_err(failed)?;
        let parameters = parameters(&statement, &ask.parameters)?;
        let portal = transaction
            .bind_raw(&statement, parameters)
            .await
            .map_err(failed)?;
        Ok(Self {
            transaction,
            portal,
            query,
            columns,
            types,
            whole_vectors: ask.whole_vectors,
            waiting: VecDeque::new(),
            is_at_end: false,
            has_large_row: false,
        })
    }

    /// The next rows.
    pub(super) async fn page(&mut self, budget: Budget) -> Result<Answer, Error> {
        let mut rows = Rows::new(budget);
        loop {
            while let Some(row) = self.waiting.pop_front() {
                if let Err(row) = rows.push(row) {
                    self.waiting.push_front(row);
                    return Ok(self.answer(rows));
                }
            }
            if self.is_at_end {
                return Ok(self.answer(rows));
            }
            match self.fetch(budget.rows.saturating_sub(rows.len())).await {
                // What came before the time was over is told.
                Err(error) if is_out_of_time(&error) => {
                    let came = std::mem::take(&mut self.waiting);
                    if came.into_iter().any(|row| rows.push(row).is_err()) || !rows.is_empty() {
                        rows.out_of_time();
                        return Ok(self.answer(rows));
                    }
                    return Err(error);
                }
                fetched => fetched?,
            }
        }
    }

    /// Whether a row was so large that its connection is not worth keeping.
    pub(super) fn has_large_row(&self) -> bool {
        self.has_large_row
    }

    fn answer(&self, rows: Rows) -> Answer {
        Answer {
            columns: self.columns.clone(),
            rows,
        }
    }

    /// Takes rows off the line: one more than are wanted, which tells whether there are more.
    async fn fetch(&mut self, wanted: usize) -> Result<(), Error> {
        let most = wanted.saturating_add(1).min(MOST_ROWS_AT_ONCE);
        let failed =
            |error: tokio_postgres::Error| Error::of(&error, |place| self.query.position(place));
        let stream = self
            .transaction
            .query_portal_raw(&self.portal, i32::try_from(most).unwrap_or(i32::MAX))
            .await
            .map_err(failed)?;
        let mut stream = std::pin::pin!(stream);
        let mut taken = 0;
        while let Some(row) = stream.next().await {
            let row = row.map_err(failed)?;
            self.has_large_row |= row.raw_size_bytes() > LARGE_ROW;
            let mut cells = Vec::with_capacity(self.types.len());
            for (index, kind) in self.types.iter().enumerate() {
                let raw: Raw<'_> = row.try_get(index).map_err(failed)?;
                cells.push(value::cell(kind, &raw, self.whole_vectors)?);
            }
            self.waiting.push_back(cells);
            taken += 1;
        }
        self.is_at_end = taken < most;
        Ok(())
    }
}

/// What every transaction begins with.
pub(super) fn opening(timeout: Duration) -> String {
    let milliseconds = timeout.as_millis();
    format!(
        "SET LOCAL standard_conforming_strings = on; SET LOCAL statement_timeout = {milliseconds}"
    )
}

/// The columns that a statement gives.
pub(super) fn columns(prepared: &Statement) -> Vec<Column> {
    let columns = prepared.columns().iter();
    columns
        .map(|column| Column {
            name: column.name().to_owned(),
            kind: value::type_name(column.type_()),
        })
        .collect()
}

fn is_out_of_time(error: &Error) -> bool {
    error.state() == Some(&SqlState::QUERY_CANCELED)
}

/// A statement's parameters, if they are as many as it has.
pub(super) fn parameters<'v>(
    statement: &Statement,
    given: &'v [Value],
) -> Result<Vec<Parameter<'v>>, Error> {
    let wanted = statement.params().len();
    if wanted != given.len() {
        return Err(Error::Parameters {
            wanted,
            given: given.len(),
        });
    }
    Ok(given.iter().map(Parameter).collect())
}

/// What the catalog has under the names that a statement calls; nothing is asked if it calls none.
pub(super) async fn catalog(
    transaction: &Transaction<'_>,
    names: &[&str],
) -> Result<Vec<Function>, tokio_postgres::Error> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let rows = transaction.query(functions::LOOK_UP, &[&names]).await?;
    rows.iter()
        .map(|row| {
            Ok(Function {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
                is_visible: row.try_get(2)?,
                is_volatile: row.try_get::<_, &str>(3)? == "v",
                least_arguments: row.try_get(4)?,
                is_column: row.try_get(5)?,
            })
        })
        .collect()
}

/// The statement whose columns can all be read: the same, or one that asks for texts.
async fn readable(
    transaction: &Transaction<'_>,
    query: &Query,
    prepared: &Statement,
) -> Result<Statement, tokio_postgres::Error> {
    let casts: Vec<&str> = prepared
        .columns()
        .iter()
        .map(|column| value::cast(column.type_()))
        .collect();
    if casts.iter().all(|cast| cast.is_empty()) {
        return Ok(prepared.clone());
    }
    // The same types of parameters, whatever the casts would suggest.
    transaction
        .prepare_typed(&query.text_with(&casts), prepared.params())
        .await
}
