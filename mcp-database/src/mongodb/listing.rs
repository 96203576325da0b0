//! What is in a server as a table: rows that are all there, given page by page.

use serde_json::{Value, json};

use super::schema::{CollectionSchema, Collections, DatabaseEntry};
use crate::cursor::{NextPart, Rest};
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// A table that is all there.
pub struct Listing {
    columns: Vec<Column>,
    left: std::vec::IntoIter<Vec<Cell>>,
    held: Option<Vec<Cell>>,
    /// What could not be found out, and what is left out.
    pub notices: Vec<String>,
}

impl Listing {
    fn new(columns: &[(&str, &str)], rows: Vec<Vec<Cell>>) -> Self {
        let columns = columns.iter().map(|(name, kind)| Column {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
        });
        Self {
            columns: columns.collect(),
            left: rows.into_iter(),
            held: None,
            notices: Vec::new(),
        }
    }

    /// How many rows are left.
    pub fn len(&self) -> usize {
        self.left.len() + usize::from(self.held.is_some())
    }

    /// Whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What fits, and the rest.
    pub fn answer(mut self, budget: Budget) -> (Answer, Option<Box<dyn Rest>>) {
        let answer = self.page(budget);
        let is_left = self.held.is_some();
        (answer, is_left.then(|| Box::new(self) as Box<dyn Rest>))
    }

    fn page(&mut self, budget: Budget) -> Answer {
        let mut rows = Rows::new(budget);
        while let Some(row) = self.held.take().or_else(|| self.left.next()) {
            if let Err(row) = rows.push(row) {
                self.held = Some(row);
                break;
            }
        }
        Answer {
            columns: self.columns.clone(),
            rows,
        }
    }
}

impl Rest for Listing {
    fn next(&mut self, budget: Budget) -> NextPart<'_> {
        Box::pin(async move { Ok(self.page(budget)) })
    }
}

fn text(text: impl Into<String>) -> Cell {
    Cell::text(text.into())
}

fn number(number: Option<i64>) -> Cell {
    number.map_or_else(Cell::null, Cell::integer)
}

impl From<Vec<DatabaseEntry>> for Listing {
    fn from(databases: Vec<DatabaseEntry>) -> Self {
        let rows = databases
            .into_iter()
            .map(|one| vec![text(one.name), number(one.bytes)]);
        Self::new(&[("db", "string"), ("bytes", "long")], rows.collect())
    }
}

impl From<Collections> for Listing {
    fn from(found: Collections) -> Self {
        let rows = found.collections.into_iter().map(|one| {
            vec![
                text(one.name),
                text(one.kind.name()),
                number(one.documents),
                number(one.bytes),
                number(one.index_bytes),
            ]
        });
        let columns = [
            ("coll", "string"),
            ("kind", "string"),
            ("documents", "long"),
            ("bytes", "long"),
            ("index_bytes", "long"),
        ];
        let mut listing = Self::new(&columns, rows.collect());
        if found.left_out > 0 {
            listing
                .notices
                .push(format!("{} more collections are left out", found.left_out));
        }
        listing
    }
}

impl From<CollectionSchema> for Listing {
    fn from(schema: CollectionSchema) -> Self {
        let mut rows = Vec::new();
        for field in schema.fields {
            let types = match field.types.len() {
                1 => field
                    .types
                    .into_keys()
                    .next()
                    .map_or(Value::Null, Value::from),
                _ => json!(field.types),
            };
            rows.push(vec![
                text("field"),
                text(field.path),
                Cell::json(types),
                Cell::float(field.share),
                Cell::null(),
                Cell::null(),
            ]);
        }
        for index in schema.indexes {
            let mut options = index.options;
            if let (Some(options), Some(since)) = (options.as_object_mut(), index.since) {
                options.insert("used_since".to_owned(), since.into());
            }
            rows.push(vec![
                text("index"),
                text(index.name),
                text(index.keys),
                Cell::null(),
                number(index.used),
                Cell::bounded(options),
            ]);
        }
        let columns = [
            ("what", "string"),
            ("name", "string"),
            ("types or keys", "any"),
            ("share", "double"),
            ("used", "long"),
            ("options", "object"),
        ];
        let mut listing = Self::new(&columns, rows);
        let notices = &mut listing.notices;
        if schema.missing {
            notices.push("there is no collection of this name".to_owned());
        }
        if let Some(entry) = schema.entry {
            let documents = entry.documents.map_or_else(String::new, |documents| {
                format!(", about {documents} documents")
            });
            notices.push(format!(
                "a {}{documents}; {} looked at, of {} bytes on average, the largest {}",
                entry.kind.name(),
                schema.sampled,
                schema.average_bytes,
                schema.largest_bytes
            ));
        }
        if schema.fields_left_out > 0 {
            notices.push(format!(
                "{} more fields are left out",
                schema.fields_left_out
            ));
        }
        notices.extend(schema.notices);
        listing
    }
}
