//! Runs one query of an agent so that it can only read: in a transaction that is READ ONLY and ends in a rollback, through a portal
//! that gives no more rows than a reply holds.

use futures_util::{StreamExt as _, future};
use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement, Transaction};

use super::functions::{self, Function, FunctionError};
use super::parameter::Parameter;
use super::statement::{Query, StatementError};
use super::value::{self, Raw, ValueError};
use crate::table::{Answer, Budget, Column, Rows};

/// A query that could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The text is no query.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It calls what a read may not call.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// Another number of parameters than the statement has.
    #[error("the statement has {wanted} parameters, and {given} are given")]
    Parameters {
        /// `$1` to `$n`.
        wanted: usize,
        /// Values.
        given: usize,
    },
    /// The server refused it, or the statement failed.
    #[error("{message}")]
    Server {
        /// SQLSTATE.
        state: SqlState,
        /// What the server says.
        message: String,
        /// What it advises.
        hint: Option<String>,
        /// The character of the caller's text, from 1, that it is about.
        position: Option<usize>,
    },
    /// A value that is not as its type says.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The connection, or a parameter that cannot be sent.
    #[error("the database cannot be asked: {0}")]
    Connection(#[source] tokio_postgres::Error),
}

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

/// Asks a query with its parameters. `allowed` are functions, with their schemas, that the operator vouches for.
///
/// # Errors
/// Why there is no answer; the connection can be used again unless it is [`ReadError::Connection`].
pub async fn read(
    client: &mut Client,
    sql: &str,
    parameters: &[Value],
    budget: Budget,
    allowed: &[String],
    layers: Layers,
) -> Result<Answer, ReadError> {
    let query = Query::of(sql)?;
    let failed = |error| failure(error, &query);
    let transaction = client
        .build_transaction()
        .read_only(layers.read_only)
        .start()
        .await
        .map_err(failed)?;
    // Once a transaction has taken its snapshot, nobody makes it READ WRITE again.
    let (begun, prepared, catalog) = future::join3(
        transaction.batch_execute("SELECT 1"),
        transaction.prepare(query.text()),
        catalog(&transaction, &query, layers),
    )
    .await;
    begun.map_err(failed)?;
    let prepared = prepared.map_err(failed)?;
    functions::check(query.called(), &catalog.map_err(failed)?, allowed)?;
    let columns: Vec<Column> = prepared
        .columns()
        .iter()
        .map(|column| Column {
            name: column.name().to_owned(),
            kind: value::type_name(column.type_()),
        })
        .collect();
    let statement = readable(&transaction, &query, &prepared)
        .await
        .map_err(failed)?;
    if statement.params().len() != parameters.len() {
        return Err(ReadError::Parameters {
            wanted: statement.params().len(),
            given: parameters.len(),
        });
    }
    let parameters: Vec<Parameter<'_>> = parameters.iter().map(Parameter).collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = parameters
        .iter()
        .map(|parameter| parameter as &(dyn ToSql + Sync))
        .collect();
    let portal = transaction
        .bind(&statement, &parameters)
        .await
        .map_err(failed)?;
    // One more than fits tells whether there are more.
    let most = i32::try_from(budget.rows.saturating_add(1)).unwrap_or(i32::MAX);
    let stream = transaction
        .query_portal_raw(&portal, most)
        .await
        .map_err(failed)?;
    let mut stream = std::pin::pin!(stream);
    let mut rows = Rows::new(budget);
    let mut is_full = false;
    while let Some(row) = stream.next().await {
        let row = row.map_err(failed)?;
        // What follows a full reply is only taken off the line.
        if is_full {
            continue;
        }
        let mut cells = Vec::with_capacity(columns.len());
        for (index, column) in prepared.columns().iter().enumerate() {
            let raw: Raw<'_> = row.try_get(index).map_err(failed)?;
            cells.push(value::cell(column.type_(), &raw, false)?);
        }
        is_full = rows.push(cells).is_err();
    }
    // The rollback is on its way to the server when the transaction is dropped, before whatever this connection is asked next.
    Ok(Answer { columns, rows })
}

/// What the catalog has under the names that a query calls; nothing is asked if it calls none.
async fn catalog(
    transaction: &Transaction<'_>,
    query: &Query,
    layers: Layers,
) -> Result<Vec<Function>, tokio_postgres::Error> {
    let names: Vec<&str> = query.called().map(|called| called.name.as_str()).collect();
    if names.is_empty() || !layers.functions {
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

fn failure(error: tokio_postgres::Error, query: &Query) -> ReadError {
    use tokio_postgres::error::ErrorPosition;
    let Some(server) = error.as_db_error() else {
        return ReadError::Connection(error);
    };
    let position = match server.position() {
        Some(ErrorPosition::Original(sent)) => {
            Some(query.position(usize::try_from(*sent).unwrap_or(usize::MAX)))
        }
        _ => None,
    };
    ReadError::Server {
        state: server.code().clone(),
        message: server.message().to_owned(),
        hint: server.hint().map(str::to_owned),
        position,
    }
}
