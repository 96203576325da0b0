//! Specification versions and their words.

use rusqlite::{Connection, Row};
use shared::digest::Digest;

use super::{
    column::{Columns, Table as _},
    write::{exactly_one, execute, insert as insert_row},
};
use crate::store::{SpecificationHit, SpecificationRow, StoreError};

/// More words of one query are not looked for.
const MAX_WORDS: usize = 32;
const MAX_WORD_CHARACTERS: usize = 64;

const COLUMNS: &str =
    "s.digest, s.spec_id, s.version, s.verbatim, s.search_text, s.title, s.status, s.added_by,
    s.reason, s.added_at";

const FORGET: &str = "DELETE FROM specification_words WHERE rowid =
        (SELECT ordinal FROM newest_specifications WHERE spec_id = ?1)";
const NEWEST: &str = "INSERT INTO newest_specifications (spec_id, ordinal) VALUES (?1, ?2)
        ON CONFLICT (spec_id) DO UPDATE SET ordinal = ?2";
const WORDS: &str =
    "INSERT INTO specification_words (rowid, spec_id, title, search_text) VALUES (?1, ?2, ?3, ?4)";

pub(super) fn insert(connection: &Connection, row: &SpecificationRow) -> Result<(), StoreError> {
    insert_row(connection, row)?;
    let ordinal = connection.last_insert_rowid();
    execute(connection, FORGET, [&row.spec_id])?;
    execute(connection, NEWEST, (&row.spec_id, ordinal))?;
    execute(
        connection,
        WORDS,
        (ordinal, &row.spec_id, &row.title, &row.search_text),
    )
    .map(drop)
}

pub(super) fn activate(connection: &Connection, digest: &Digest) -> Result<(), StoreError> {
    const SUPERSEDE: &str =
        "UPDATE specifications SET status = 'superseded' WHERE status = 'active' AND digest <> ?1
        AND spec_id = (SELECT spec_id FROM specifications WHERE digest = ?1)";
    execute(connection, SUPERSEDE, [digest.as_str()])?;
    let activated = execute(
        connection,
        "UPDATE specifications SET status = 'active' WHERE digest = ?1",
        [digest.as_str()],
    )?;
    exactly_one(activated, || format!("no specification {digest}"))
}

pub(super) fn search(
    connection: &Connection,
    words: &[String],
    limit: u32,
    offset: u32,
) -> Result<Vec<SpecificationHit>, StoreError> {
    let query = any_of(words);
    let mut hits = Vec::new();
    if query.is_empty() {
        let all = format!(
            "SELECT 0.0, {COLUMNS} FROM newest_specifications n JOIN specifications s ON s.ordinal = n.ordinal
             ORDER BY n.spec_id LIMIT ?1 OFFSET ?2"
        );
        let mut statement = connection.prepare_cached(&all)?;
        let mut rows = statement.query((limit, offset))?;
        while let Some(row) = rows.next()? {
            hits.push(hit(row)?);
        }
        return Ok(hits);
    }
    // Ranks first, texts only of what is returned. The weights are those of id, title and text.
    let ranked = format!(
        "SELECT -found.rank, {COLUMNS} FROM (
             SELECT rowid AS ordinal, bm25(specification_words, 4.0, 2.0, 1.0) AS rank FROM specification_words
             WHERE specification_words MATCH ?1 ORDER BY rank, rowid LIMIT ?2 OFFSET ?3
         ) found JOIN specifications s ON s.ordinal = found.ordinal ORDER BY found.rank, found.ordinal"
    );
    let mut statement = connection.prepare_cached(&ranked)?;
    let mut rows = statement.query((query, limit, offset))?;
    while let Some(row) = rows.next()? {
        hits.push(hit(row)?);
    }
    Ok(hits)
}

fn hit(row: &Row<'_>) -> Result<SpecificationHit, StoreError> {
    let score: f64 = row.get(0)?;
    let mut columns = Columns {
        row,
        table: SpecificationRow::NAME,
        next: 1,
    };
    let specification = SpecificationRow {
        digest: columns.take("digest")?,
        spec_id: columns.take("spec_id")?,
        version: columns.take("version")?,
        verbatim: columns.take("verbatim")?,
        search_text: columns.take("search_text")?,
        title: columns.take("title")?,
        status: columns.take("status")?,
        added_by: columns.take("added_by")?,
        reason: columns.take("reason")?,
        added_at: columns.take("added_at")?,
    };
    Ok(SpecificationHit {
        specification,
        score,
    })
}

/// A query for any of the words, each quoted, so that nothing in them is an operator.
fn any_of(words: &[String]) -> String {
    let quoted = words
        .iter()
        .take(MAX_WORDS)
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .map(|word| {
            let word: String = word
                .chars()
                .filter(|c| *c != '\0')
                .take(MAX_WORD_CHARACTERS)
                .collect();
            format!("\"{}\"", word.replace('"', "\"\""))
        });
    quoted.collect::<Vec<_>>().join(" OR ")
}
