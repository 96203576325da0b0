//! Asks one query of an agent so that it can only read, and keeps what does not fit a reply open at the server.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Map as Object, Value as Json};
use shared::tool_error::ToolError;

use super::bolt::{Access, Notification, Query, QueryType, Value};
use super::cell;
use super::client::{Neo4j, within};
use super::cypher::gate::{Purpose, Statement, explained};
use super::error::{GraphError, Refusal, doing};
use super::parameter::parameters;
use super::pool::Session;
use crate::cursor::{NextPart, Rest};
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// Most rows of one pull: what arrives has to be held until it is looked at.
const MOST_PULLED: usize = 500;
/// Hints of the server that are told.
const MOST_NOTICES: usize = 5;

/// Which of the layers that keep a read from changing anything are in place; all, but where a test shows what one of them is good for.
#[derive(Debug, Clone, Copy)]
pub struct Layers {
    /// The transaction is in access mode `r`.
    pub access_mode: bool,
    /// The plan has to be of type `r`.
    pub plan: bool,
    /// The words of the statement are looked at.
    pub gate: bool,
}

impl Layers {
    /// Every layer.
    pub const ALL: Self = Self {
        access_mode: true,
        plan: true,
        gate: true,
    };
    /// None of them.
    pub const NONE: Self = Self {
        access_mode: false,
        plan: false,
        gate: false,
    };
}

/// A query and what its answer may take.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// One statement of Cypher.
    pub cypher: &'a str,
    /// Its parameters, without the `$`.
    pub parameters: &'a Object<String, Json>,
    /// What the reply may hold.
    pub budget: Budget,
    /// How long it may take; the source's own limits apply.
    pub timeout: Option<Duration>,
    /// How long the rest of the rows may be kept at the server; nothing is kept if zero.
    pub keep: Duration,
    /// Whether lists of floats are given whole.
    pub whole_vectors: bool,
}

/// An answer, and what is left of it.
pub struct Found {
    /// The first rows.
    pub answer: Answer,
    /// The rows behind them, if they are kept.
    pub rest: Option<Box<dyn Rest>>,
    /// What the server says about the query, such as that a label in it is unknown.
    pub notices: Vec<String>,
}

impl Neo4j {
    /// Asks a query.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn read(&self, ask: Ask<'_>) -> Result<Found, GraphError> {
        self.read_within(ask, Layers::ALL).await
    }

    /// Asks a query with some of the layers.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn read_within(&self, ask: Ask<'_>, layers: Layers) -> Result<Found, GraphError> {
        let statement = if layers.gate {
            Statement::of(ask.cypher, Purpose::Read, self.allowed())?
        } else {
            Statement::unchecked(ask.cypher)?
        };
        let query = Query {
            text: statement.text().to_owned(),
            parameters: parameters(ask.parameters)?,
        };
        let limit = self.limit(ask.timeout);
        within(limit, self.ask(ask, query, limit, layers)).await
    }

    async fn ask(
        &self,
        ask: Ask<'_>,
        query: Query,
        limit: Duration,
        layers: Layers,
    ) -> Result<Found, GraphError> {
        let mut session = self.session().await?;
        let access = if layers.access_mode {
            Access::Read
        } else {
            Access::Write
        };
        let mut notices = Vec::new();
        if layers.plan {
            let explain = explained(&query.text);
            let options = session.options(Access::Read, limit);
            let planned = Query {
                text: explain,
                parameters: query.parameters.clone(),
            };
            let connection = session.connection()?;
            let (_, planned) = connection
                .run_and_pull(&planned, &options, 1)
                .await
                .map_err(GraphError::of_explained)?;
            let summary = planned.summary.unwrap_or_default();
            // `s` and `rw` are none, and neither is what the server does not say.
            if summary.query_type != Some(QueryType::Read) {
                return Err(GraphError::NoRead(doing(summary.query_type)));
            }
            notices = told(&summary.notifications);
        }
        // What is kept open stays one transaction, of which the server holds the time as a whole.
        let options = session.options(access, limit.saturating_add(ask.keep));
        let first = pulled(ask.budget.rows.saturating_add(1).min(101));
        let connection = session.connection()?;
        let (started, batch) = connection
            .run_and_pull(&query, &options, first)
            .await
            .map_err(GraphError::of)?;
        let columns = columns(started.fields, &batch.records);
        let mut open = OpenResult {
            session: Some(session),
            is_done: batch.summary.is_some(),
            pending: batch.records.into(),
            columns,
            whole_vectors: ask.whole_vectors,
            limit,
        };
        let answer = open.page(ask.budget).await?;
        let goes_on = answer.rows.goes_on() && !open.is_over();
        let rest = (goes_on && !ask.keep.is_zero()).then(|| {
            if let Some(session) = &mut open.session {
                session.leave_slot();
            }
            Box::new(open) as Box<dyn Rest>
        });
        Ok(Found {
            answer,
            rest,
            notices,
        })
    }
}

/// A result of which there may be more.
struct OpenResult {
    session: Option<Session>,
    /// Came, but did not fit.
    pending: VecDeque<Vec<Value>>,
    is_done: bool,
    columns: Vec<Column>,
    whole_vectors: bool,
    limit: Duration,
}

impl OpenResult {
    async fn page(&mut self, budget: Budget) -> Result<Answer, GraphError> {
        let mut rows = Rows::new(budget);
        loop {
            while let Some(record) = self.pending.pop_front() {
                let cells: Vec<Cell> = record
                    .iter()
                    .map(|value| cell::cell(value, self.whole_vectors))
                    .collect();
                if rows.push(cells).is_err() {
                    self.pending.push_front(record);
                    return Ok(self.answer(rows));
                }
            }
            if self.is_done {
                // Its connection is of use to others, now that all of it is here.
                self.session = None;
                return Ok(self.answer(rows));
            }
            let wanted = budget.rows.saturating_sub(rows.len()).saturating_add(1);
            match self.pull(wanted).await {
                Ok(()) => {}
                Err(error) if is_over(&error) && !rows.is_empty() => {
                    rows.out_of_time();
                    self.session = None;
                    self.is_done = true;
                    return Ok(self.answer(rows));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn pull(&mut self, wanted: usize) -> Result<(), GraphError> {
        let Some(session) = &mut self.session else {
            return Err(GraphError::Connection(
                "the rest of the rows is gone".to_owned(),
            ));
        };
        let connection = session.connection()?;
        let batch = connection
            .pull(pulled(wanted.min(MOST_PULLED)))
            .await
            .map_err(GraphError::of)?;
        self.is_done = batch.summary.is_some();
        self.pending.extend(batch.records);
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.is_done && self.pending.is_empty()
    }

    fn answer(&self, rows: Rows) -> Answer {
        Answer {
            columns: self.columns.clone(),
            rows,
        }
    }
}

impl Rest for OpenResult {
    fn next(&mut self, budget: Budget) -> NextPart<'_> {
        Box::pin(async move {
            let limit = self.limit;
            let page = within(limit, self.page(budget)).await;
            page.map_err(ToolError::from)
        })
    }
}

fn is_over(error: &GraphError) -> bool {
    matches!(
        error,
        GraphError::Timeout(_)
            | GraphError::Server {
                refusal: Refusal::TimedOut,
                ..
            }
    )
}

fn pulled(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

/// Columns with the type that all of their first values have; `any` where they differ or are missing.
pub(super) fn columns(fields: Vec<String>, records: &[Vec<Value>]) -> Vec<Column> {
    let kind = |index: usize| {
        let mut kinds = records
            .iter()
            .filter_map(|record| record.get(index))
            .filter(|value| **value != Value::Null)
            .map(cell::kind);
        let first = kinds.next().unwrap_or("any");
        if kinds.all(|kind| kind == first) {
            first
        } else {
            "any"
        }
    };
    fields
        .into_iter()
        .enumerate()
        .map(|(index, name)| Column {
            name,
            kind: kind(index).to_owned(),
        })
        .collect()
}

/// What the server says, without what only speaks of speed to come.
pub(super) fn told(notifications: &[Notification]) -> Vec<String> {
    notifications
        .iter()
        .take(MOST_NOTICES)
        .map(|notification| {
            let text = [&*notification.title, &*notification.description]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(" ");
            shared::budget::head(&text, 400).text.to_owned()
        })
        .collect()
}
