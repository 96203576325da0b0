//! The rows that go with whole tables or lose a column, by DROP, TRUNCATE, ALTER, functions and triggers: the server counts them for no
//! statement.

use std::collections::HashMap;

use tokio_postgres::Transaction;

use super::error::Error;

/// Rows of one table up to which they are counted.
const MOST_COUNTED: u64 = 1_000_000;

/// Tables with rows of their own, each with the file that holds them and its number of columns.
const TABLES: &str = "SELECT c.oid, c.relfilenode, pg_catalog.format('%I.%I', n.nspname, c.relname), greatest(c.reltuples, 0)::int8, \
(SELECT count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

/// Tables of which the transaction has deleted several rows.
const DELETED: &str = "SELECT pg_catalog.format('%I.%I', schemaname, relname) FROM pg_catalog.pg_stat_xact_user_tables WHERE n_tup_del > 1";

/// Tables of which the transaction has deleted several rows, and which have none now.
pub(super) async fn emptied(transaction: &mut Transaction<'_>) -> Result<Vec<String>, Error> {
    let failed = |error: tokio_postgres::Error| Error::outside(&error);
    let mut emptied = Vec::new();
    for row in transaction.query(DELETED, &[]).await.map_err(failed)? {
        let name: String = row.try_get(0).map_err(failed)?;
        let savepoint = transaction.transaction().await.map_err(failed)?;
        let is_there = format!("SELECT EXISTS (SELECT FROM ONLY {name})");
        let has_rows = match savepoint.query_one(&is_there, &[]).await {
            Ok(row) => row.try_get(0).map_err(failed)?,
            // A role that may delete and not read.
            Err(error) => match failed(error) {
                Error::Server(_) => true,
                lost => return Err(lost),
            },
        };
        savepoint.rollback().await.map_err(failed)?;
        if !has_rows {
            emptied.push(name);
        }
    }
    Ok(emptied)
}

/// The tables of a moment.
#[derive(Debug)]
pub(super) struct Tables(HashMap<u32, Table>);

#[derive(Debug)]
struct Table {
    file: u32,
    name: String,
    estimate: i64,
    columns: i64,
}

impl Tables {
    /// Those that there are now.
    pub(super) async fn now(transaction: &Transaction<'_>) -> Result<Self, Error> {
        let failed = |error: tokio_postgres::Error| Error::outside(&error);
        let rows = transaction.query(TABLES, &[]).await.map_err(failed)?;
        let mut tables = HashMap::with_capacity(rows.len());
        for row in &rows {
            let table = Table {
                file: row.try_get(1).map_err(failed)?,
                name: row.try_get(2).map_err(failed)?,
                estimate: row.try_get(3).map_err(failed)?,
                columns: row.try_get(4).map_err(failed)?,
            };
            tables.insert(row.try_get(0).map_err(failed)?, table);
        }
        Ok(Self(tables))
    }

    /// Whether each is in `after` as well, with the same file and no column less.
    pub(super) fn are_all_in(&self, after: &Self) -> bool {
        self.gone(after).next().is_none()
    }

    fn gone(&self, after: &Self) -> impl Iterator<Item = &Table> {
        self.0.iter().filter_map(|(oid, table)| {
            let is_kept = after
                .0
                .get(oid)
                .is_some_and(|kept| kept.file == table.file && kept.columns >= table.columns);
            (!is_kept).then_some(table)
        })
    }

    /// The names of these tables.
    pub(super) fn names_gone(&self, after: &Self) -> impl Iterator<Item = &str> {
        self.gone(after).map(|table| table.name.as_str())
    }

    /// How many rows the tables have that `after` has no more, with another file, or with less columns. Called where they are there
    /// again; a table that the role may empty and not read is counted by the server's estimate.
    pub(super) async fn rows_gone(
        &self,
        after: &Self,
        transaction: &mut Transaction<'_>,
    ) -> Result<u64, Error> {
        let failed = |error: tokio_postgres::Error| Error::outside(&error);
        let mut rows = 0;
        for table in self.gone(after) {
            let savepoint = transaction.transaction().await.map_err(failed)?;
            let name = &table.name;
            let count =
                format!("SELECT count(*) FROM (SELECT FROM ONLY {name} LIMIT {MOST_COUNTED}) s");
            let counted = match savepoint.query_one(&count, &[]).await {
                Ok(row) => row.try_get(0).map_err(failed)?,
                Err(error) => match failed(error) {
                    Error::Server(_) => table.estimate,
                    lost => return Err(lost),
                },
            };
            savepoint.rollback().await.map_err(failed)?;
            rows += u64::try_from(counted).unwrap_or_default();
        }
        Ok(rows)
    }
}
