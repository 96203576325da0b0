//! Verifies the audit in a database file directly, whether or not a registry runs on it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use shared::effect::protocol::SignedHead;

use super::{Against, AuditEntry, FirstBad, Payload, Summary, Verifier, VerifyError};
use crate::keys::VerifyingKeys;

const ENTRIES: &str = "SELECT a.seq, a.at, a.actor, a.action, a.subject, a.payload_sha256, a.prev, a.hash, p.salt, p.json,
    h.hash, h.signature
    FROM audit a LEFT JOIN audit_payloads p ON p.seq = a.seq LEFT JOIN audit_heads h ON h.seq = a.seq ORDER BY a.seq";
const TIP: &str = "SELECT seq, hash, signature FROM audit_tip";
const LAST_HEAD: &str = "SELECT seq, hash, signature FROM audit_heads ORDER BY seq DESC LIMIT 1";
const ANYTHING: &str = "SELECT EXISTS (SELECT 1 FROM specifications UNION ALL SELECT 1 FROM runs
    UNION ALL SELECT 1 FROM approvers UNION ALL SELECT 1 FROM tokens)";

/// Checks the whole audit in a database, and if `against` is given, that it still contains that head.
///
/// # Errors
/// The first entry that was edited, deleted, added, moved or cut off, or a database that cannot be read.
pub fn verify_database(
    path: &Path,
    keys: &VerifyingKeys,
    against: Option<&Against>,
) -> Result<Summary, VerifyError> {
    let unreadable = |cause: String| VerifyError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    let mut verifier = Verifier::new(keys, against)?;
    let mut database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| unreadable(error.to_string()))?;
    match verify(&mut database, &mut verifier) {
        Ok((tip, is_anything_stored)) => {
            let summary = verifier.finish(tip.as_ref())?;
            if summary.entries == 0 && is_anything_stored {
                let reason = "the audit is empty, but things are stored: it was deleted".to_owned();
                return Err(FirstBad { seq: 1, reason }.into());
            }
            Ok(summary)
        }
        Err(Failure::Bad(bad)) => Err(bad.into()),
        Err(Failure::Database(error)) => Err(unreadable(error.to_string())),
    }
}

enum Failure {
    Bad(FirstBad),
    Database(rusqlite::Error),
}

impl From<FirstBad> for Failure {
    fn from(bad: FirstBad) -> Self {
        Self::Bad(bad)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Gives all entries to the verifier, from one snapshot; answers the newest signature kept.
fn verify(
    database: &mut Connection,
    verifier: &mut Verifier<'_>,
) -> Result<(Option<SignedHead>, bool), Failure> {
    let snapshot = database.transaction()?;
    let mut statement = snapshot.prepare(ENTRIES)?;
    let mut rows = statement.query([])?;
    let mut expected = 1;
    while let Some(row) = rows.next()? {
        let entry = entry(row).map_err(|column| not_an_entry(expected, &column))?;
        let signed = head(row, entry.seq, 10).map_err(|column| not_an_entry(expected, &column))?;
        verifier.entry(&entry, signed.as_ref())?;
        expected += 1;
    }
    let newest = |sql: &str| {
        let read = snapshot.query_row(sql, [], |row| {
            Ok(number(row, 0).and_then(|seq| head(row, seq, 1)))
        });
        match read.optional() {
            Ok(None) => Ok(None),
            Ok(Some(read)) => read.map_err(|column| Failure::Bad(not_an_entry(expected, &column))),
            Err(error) => Err(error.into()),
        }
    };
    let (tip, last_head) = (newest(TIP)?, newest(LAST_HEAD)?);
    // A head of an entry that is not there any more says as much as a tip that is too high.
    let cut = last_head.filter(|head| head.seq >= expected);
    let is_anything_stored = snapshot.query_row(ANYTHING, [], |row| row.get(0))?;
    Ok((cut.or(tip), is_anything_stored))
}

fn not_an_entry(seq: u64, column: &str) -> FirstBad {
    FirstBad {
        seq,
        reason: format!("its {column} is not what the registry writes: it was edited"),
    }
}

pub(crate) fn entry(row: &rusqlite::Row<'_>) -> Result<AuditEntry, String> {
    let payload = match (optional_text(row, 8)?, optional_text(row, 9)?) {
        (Some(salt), Some(json)) => Some(Payload { salt, json }),
        _ => None,
    };
    Ok(AuditEntry {
        seq: number(row, 0)?,
        at: text(row, 1)?,
        actor: text(row, 2)?,
        action: text(row, 3)?,
        subject: text(row, 4)?,
        payload_sha256: text(row, 5)?.parse().map_err(|_| "payload digest")?,
        prev: text(row, 6)?.parse().map_err(|_| "previous hash")?,
        hash: text(row, 7)?.parse().map_err(|_| "hash")?,
        payload,
    })
}

fn head(row: &rusqlite::Row<'_>, seq: u64, from: usize) -> Result<Option<SignedHead>, String> {
    let (Some(hash), Some(signature)) = (optional_text(row, from)?, optional_text(row, from + 1)?)
    else {
        return Ok(None);
    };
    let hash = hash.parse().map_err(|_| "signed hash")?;
    Ok(Some(SignedHead {
        seq,
        hash,
        signature,
    }))
}

fn number(row: &rusqlite::Row<'_>, column: usize) -> Result<u64, String> {
    row.get::<_, i64>(column)
        .ok()
        .and_then(|number| number.try_into().ok())
        .ok_or_else(|| "number".into())
}

fn text(row: &rusqlite::Row<'_>, column: usize) -> Result<String, String> {
    optional_text(row, column)?.ok_or_else(|| "text".into())
}

fn optional_text(row: &rusqlite::Row<'_>, column: usize) -> Result<Option<String>, String> {
    row.get(column).map_err(|_| "text".into())
}
