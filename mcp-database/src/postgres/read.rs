//! Runs one query of an agent so that it can only read: in a transaction that is READ ONLY and ends in a rollback, through a cursor
//! that gives no more rows than a reply holds, and is kept where a reply does not hold all.
//!
//! The cursor is one of SQL and not of the protocol: the driver sends nothing behind the latter before it was answered, and that takes
//! two round trips more.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, future};
use serde_json::Value;
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, GenericClient, Statement};

use super::connect::Connection;
use super::error::Error;
use super::functions::{self, Function, Scope};
use super::parameter::Parameter;
use super::statement::Query;
use super::task::GRACE;
use super::value::{self, Raw};
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// Bytes of a row from which on its connection is closed afterwards: what the driver took to hold it, it keeps.
const LARGE_ROW: usize = 4 << 20;
/// Rows that are taken off the line at once: what does not fit a reply any more waits in memory.
const MOST_ROWS_AT_ONCE: usize = 500;
/// Rows that are asked for together with the cursor: with fewer the result is whole.
const FIRST_ROWS: usize = 2;
/// Into how many statements a page is divided whose rows come slowly.
const SLICES: u32 = 8;
/// Characters of a caller's text that the server shows of a statement that takes rows of it.
const LONGEST_SHOWN: usize = 200;
/// What stands before a query whose cursor is made, and before a number of its rows.
const DECLARE: &str = "DECLARE q NO SCROLL CURSOR FOR ";

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

/// A query that was begun, as a cursor in the transaction that its connection is in; giving the connection back ends both.
pub(super) struct Reading<'c> {
    client: &'c Client,
    query: Query,
    /// The beginning of the caller's text, for whoever looks at what the server is doing.
    shown: String,
    columns: Vec<Column>,
    types: Vec<Type>,
    timeout: Duration,
    whole_vectors: bool,
    waiting: VecDeque<Vec<Cell>>,
    /// Rows that are asked for next.
    next: usize,
    standing: Standing,
    has_large_row: bool,
}

/// Where a cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Before rows, perhaps.
    Open,
    /// Behind its last row.
    AtEnd,
    /// Somewhere: rows of it are on their way, and nobody waits for them any more.
    Running,
}

impl<'c> Reading<'c> {
    /// Begins, in two round trips: what there is to know of the text before anything of it runs, and its cursor with the first rows.
    /// `allowed` are functions, with their schemas, that the operator vouches for.
    pub(super) async fn start(
        connection: &'c mut Connection,
        ask: &Ask,
        allowed: &[String],
    ) -> Result<Self, Error> {
        let query = Query::of(&ask.sql)?;
        let failed =
            |error: tokio_postgres::Error| Error::of(&error, |place| query.position(place));
        let mode = if ask.layers.read_only {
            "ONLY"
        } else {
            "WRITE"
        };
        let opening = connection.opening(ask.timeout, &ask.local);
        let opening = format!("START TRANSACTION READ {mode}; {opening}");
        let names = if ask.layers.functions {
            query.called().map(|called| called.name.as_str()).collect()
        } else {
            Vec::new()
        };
        let client = connection.begin()?;
        let (begun, prepared, catalog) = future::join3(
            client.batch_execute(&opening),
            client.prepare(query.text()),
            catalog(client, &names),
        )
        .await;
        begun.map_err(failed)?;
        let prepared = prepared.map_err(failed)?;
        let catalog = catalog.map_err(failed)?;
        functions::check(query.called(), &catalog, allowed, Scope::Read)?;
        let parameters = parameters(&prepared, &ask.parameters)?;
        let parameters = parameters
            .into_iter()
            .zip(prepared.params().iter().cloned());
        let declare = [DECLARE, &readable(&query, &prepared)].concat();
        let types = prepared.columns().iter();
        let mut reading = Self {
            client,
            shown: one_line(&ask.sql),
            columns: columns(&prepared),
            types: types.map(|column| column.type_().clone()).collect(),
            timeout: ask.timeout,
            whole_vectors: ask.whole_vectors,
            waiting: VecDeque::new(),
            next: FIRST_ROWS,
            standing: Standing::Open,
            has_large_row: false,
            query,
        };
        let declared = async {
            let stream = client.query_typed_raw(&declare, parameters).await?;
            stream.try_for_each(|_| future::ok(())).await
        };
        // One is sent right behind the other. Without a cursor the second fails as well, and the first says why.
        let (declared, fetched) = future::join(declared, reading.fetch()).await;
        declared.map_err(|error| {
            Error::of(&error, |place| {
                reading.query.position(place.saturating_sub(DECLARE.len()))
            })
        })?;
        fetched?;
        Ok(reading)
    }

    /// The next rows, in so much time.
    pub(super) async fn page(&mut self, budget: Budget) -> Result<Answer, Error> {
        // The server ends a statement that takes too long; this is for many that take long together.
        let until = Instant::now() + self.timeout + GRACE / 2;
        let mut rows = Rows::new(budget);
        loop {
            while let Some(row) = self.waiting.pop_front() {
                if let Err(row) = rows.push(row) {
                    self.waiting.push_front(row);
                    return Ok(self.answer(rows));
                }
            }
            if self.standing == Standing::AtEnd {
                return Ok(self.answer(rows));
            }
            // One more than are wanted tells whether there are more.
            let wanted = budget.rows.saturating_sub(rows.len()).saturating_add(1);
            self.next = self.next.min(wanted);
            let fetched = tokio::time::timeout_at(until, self.fetch()).await;
            let fetched = fetched.unwrap_or_else(|_| {
                self.standing = Standing::Running;
                Err(Error::TimedOut(self.timeout))
            });
            match fetched.map_err(|error| error.in_time(self.timeout)) {
                // What came before the time was over is told.
                Err(Error::TimedOut(_)) if !rows.is_empty() => {
                    rows.out_of_time();
                    return Ok(self.answer(rows));
                }
                fetched => fetched?,
            }
        }
    }

    /// Whether something may still run for it at the server.
    pub(super) fn is_running(&self) -> bool {
        self.standing == Standing::Running
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

    /// Takes the next rows off the line. The server gives those of one statement together, so the fewer are asked for the slower they
    /// come: then there are some to tell when the time is over.
    async fn fetch(&mut self) -> Result<(), Error> {
        let failed =
            |error: tokio_postgres::Error| Error::of(&error, |place| self.query.position(place));
        let since = Instant::now();
        let fetch = format!("FETCH {} FROM q -- {}", self.next, self.shown);
        let none: [(Parameter<'_>, Type); 0] = [];
        let stream = self.client.query_typed_raw(&fetch, none);
        let stream = stream.await.map_err(failed)?;
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
        if taken < self.next {
            self.standing = Standing::AtEnd;
        }
        self.next = rows_within(self.timeout / SLICES, taken, since.elapsed());
        Ok(())
    }
}

/// The beginning of a text, in one line.
fn one_line(text: &str) -> String {
    let shown = text.trim_start().chars().take(LONGEST_SHOWN);
    shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// As many rows as come in a time, if so many came in the last one: from 1 to [`MOST_ROWS_AT_ONCE`].
fn rows_within(time: Duration, came: usize, within: Duration) -> usize {
    let rows = time.as_micros().saturating_mul(came as u128) / within.as_micros().max(1);
    usize::try_from(rows).map_or(MOST_ROWS_AT_ONCE, |rows| rows.clamp(1, MOST_ROWS_AT_ONCE))
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
    client: &impl GenericClient,
    names: &[&str],
) -> Result<Vec<Function>, tokio_postgres::Error> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names: (&(dyn ToSql + Sync), Type) = (&names, Type::TEXT_ARRAY);
    let rows = client.query_typed(functions::LOOK_UP, &[names]).await?;
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
fn readable<'q>(query: &'q Query, prepared: &Statement) -> Cow<'q, str> {
    let columns = prepared.columns().iter();
    let casts: Vec<&str> = columns.map(|column| value::cast(column.type_())).collect();
    if casts.iter().all(|cast| cast.is_empty()) {
        Cow::Borrowed(query.text())
    } else {
        Cow::Owned(query.text_with(&casts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_rows_come_the_fewer_are_asked_for() {
        let second = Duration::from_secs(1);
        assert_eq!(rows_within(second, 2, Duration::ZERO), MOST_ROWS_AT_ONCE);
        assert_eq!(rows_within(second, 2, second / 10), 20);
        assert_eq!(rows_within(second, 2, second * 10), 1);
        assert_eq!(rows_within(second, 0, second), 1);
    }
}
