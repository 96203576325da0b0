//! The one answer that every query gives, and its text: the same as a table between marks.

use std::fmt::Write as _;
use std::time::Instant;

use rmcp::RoleServer;
use rmcp::service::RequestContext;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shared::principal;
use shared::tool_error::ToolError;
use shared::tool_result::{Json, structured};
use shared::visible;

use crate::cursor::{Cursors, Open, Rest};
use crate::fence::fenced;
use crate::table::{Answer, Budget, Column, Truncation};

/// `objects`: by column name, at twice the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Format {
    #[default]
    Rows,
    // Of columns with one name, the last.
    Objects,
}

/// Columns, rows, and what was left out.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Reply {
    columns: Vec<ColumnView>,
    rows: Vec<Value>,
    row_count: usize,
    /// Why: `rows`, `bytes`, `cells`, `time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<&'static str>,
    /// For `db_cursor`, once, within two minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notices: Vec<String>,
    /// True: it is what a database says.
    untrusted: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
struct ColumnView {
    name: String,
    r#type: String,
}

/// Columns and rows of an answer that is not read on.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub(super) struct Shown {
    columns: Vec<ColumnView>,
    rows: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<&'static str>,
}

/// An answer that is not read on, and its table; `None` where it has no columns.
pub(super) fn shown(answer: Answer) -> Result<Option<(Shown, String)>, ToolError> {
    if answer.columns.is_empty() {
        return Ok(None);
    }
    let truncated = answer.rows.truncated().map(Truncation::name);
    let rows = answer.rows.into_rows();
    let table = fenced(&table(&answer.columns, &rows));
    let table = table.map_err(|error| ToolError::internal(&error))?;
    let shown = Shown {
        columns: views(answer.columns),
        rows: rows.into_iter().map(Value::Array).collect(),
        truncated,
    };
    Ok(Some((shown, table)))
}

fn views(columns: Vec<Column>) -> Vec<ColumnView> {
    let columns = columns.into_iter();
    columns
        .map(|Column { name, kind }| ColumnView { name, r#type: kind })
        .collect()
}

/// What is left of an answer, and how it is to be kept.
pub(super) struct Left {
    pub(super) rest: Option<Box<dyn Rest>>,
    pub(super) source: String,
    pub(super) budget: Budget,
    pub(super) notices: Vec<String>,
}

/// The reply of an answer, what is left of it kept for the caller.
pub(super) fn reply(
    context: &RequestContext<RoleServer>,
    cursors: &Cursors,
    answer: Answer,
    left: Left,
    format: Format,
    since: Instant,
) -> Result<Json<Reply>, ToolError> {
    let mut notices = left.notices;
    let next_cursor = match left.rest {
        Some(rest) => {
            let owner = &principal::of(context)?.name;
            let open = Open {
                source: left.source,
                rest,
                budget: left.budget,
            };
            let kept = cursors.keep(owner, open);
            let kept = kept.map_err(|error| ToolError::internal(&error))?;
            if kept.is_none() {
                notices.push("too many results are open already, so this one cannot be read on; ask for less, or for another part".to_owned());
            }
            kept
        }
        None => None,
    };
    let truncated = answer.rows.truncated().map(Truncation::name);
    let rows = answer.rows.into_rows();
    let table = table(&answer.columns, &rows);
    let mut text = told(rows.len(), truncated, next_cursor.as_deref());
    for notice in &notices {
        // It may name what a database names.
        let notice = visible::prose(notice).replace('\n', " ");
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{notice}");
    }
    let table = fenced(&table).map_err(|error| ToolError::internal(&error))?;
    let text = format!("{text}\n{table}");
    let row_count = rows.len();
    let rows = match format {
        Format::Rows => rows.into_iter().map(Value::Array).collect(),
        Format::Objects => rows
            .into_iter()
            .map(|row| object(&answer.columns, row))
            .collect(),
    };
    let reply = Reply {
        columns: views(answer.columns),
        rows,
        row_count,
        truncated,
        next_cursor,
        elapsed_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        notices,
        untrusted: true,
    };
    Ok(structured(reply, text))
}

fn told(rows: usize, truncated: Option<&str>, cursor: Option<&str>) -> String {
    let mut text = match rows {
        0 => "no rows".to_owned(),
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    };
    if let Some(reason) = truncated {
        let what = match reason {
            "cells" => "; some values are cut",
            "time" => "; more did not come in time",
            _ => "; there are more",
        };
        text.push_str(what);
    }
    if let Some(cursor) = cursor {
        // Writing to a String cannot fail.
        let _ = write!(text, ": db_cursor {cursor}");
    }
    text
}

fn object(columns: &[Column], row: Vec<Value>) -> Value {
    let pairs = columns.iter().map(|column| column.name.clone()).zip(row);
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// Names, then a line for each row, as comma-separated values (RFC 4180).
fn table(columns: &[Column], rows: &[Vec<Value>]) -> String {
    let names = columns.iter().map(|column| quoted(&column.name));
    let mut table = names.collect::<Vec<_>>().join(",");
    for row in rows {
        table.push('\n');
        for (index, value) in row.iter().enumerate() {
            if index > 0 {
                table.push(',');
            }
            match value {
                Value::Null => {}
                Value::String(text) if text.is_empty() => table.push_str("\"\""),
                Value::String(text) => table.push_str(&quoted(text)),
                value => table.push_str(&quoted(&value.to_string())),
            }
        }
    }
    table
}

fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_tells_null_from_nothing_and_text_from_marks() {
        let column = |name: &str| Column {
            name: name.to_owned(),
            kind: "text".to_owned(),
        };
        let columns = [column("a"), column("b,c")];
        let rows = [
            vec![json!(null), json!("")],
            vec![json!("say \"hi\"\n"), json!([1, 2])],
        ];
        assert_eq!(
            table(&columns, &rows),
            "a,\"b,c\"\n,\"\"\n\"say \"\"hi\"\"\n\",\"[1,2]\""
        );
    }
}
