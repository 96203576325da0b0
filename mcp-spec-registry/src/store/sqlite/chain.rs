//! Appends to the audit and reads it.

use rusqlite::Connection;
use shared::{digest::Digest, effect::protocol::SignedHead};
use time::OffsetDateTime;

use super::{column::Columns, write::execute};
use crate::{
    audit::{self, AuditEntry, Payload, REDACTED, SIGNED_EVERY},
    keys::Keys,
    store::{Change, StoreError, Write},
};

const KEEP: &str = "INSERT INTO audit_heads (seq, hash, signature) VALUES (?1, ?2, ?3)";
const TIP: &str = "INSERT INTO audit_tip (only, seq, hash, signature) VALUES (1, ?1, ?2, ?3)
    ON CONFLICT (only) DO UPDATE SET seq = ?1, hash = ?2, signature = ?3";

/// Appends the entries of a change and signs the head.
pub(super) fn append(
    connection: &Connection,
    change: &Change,
    keys: &Keys,
) -> Result<SignedHead, StoreError> {
    redactions_are_recorded(change)?;
    let mut head = head(connection)?;
    let now = OffsetDateTime::now_utc();
    let last = change.audit.len().saturating_sub(1);
    for (index, draft) in change.audit.iter().enumerate() {
        let entry = AuditEntry::following(head.as_ref(), draft, now)
            .map_err(|error| StoreError::Constraint(error.to_string()))?;
        insert(connection, &entry)?;
        if entry.seq.is_multiple_of(SIGNED_EVERY) || (change.sign_head && index == last) {
            let signed = audit::sign_head(keys, entry.seq, &entry.hash);
            execute(
                connection,
                KEEP,
                (number(signed.seq)?, signed.hash.as_str(), &signed.signature),
            )?;
        }
        head = Some((entry.seq, entry.hash));
    }
    let Some((seq, hash)) = head else {
        return Err(StoreError::Constraint(
            "a change without an audit entry".into(),
        ));
    };
    let tip = audit::sign_head(keys, seq, &hash);
    execute(
        connection,
        TIP,
        (number(seq)?, hash.as_str(), &tip.signature),
    )?;
    Ok(tip)
}

fn insert(connection: &Connection, entry: &AuditEntry) -> Result<(), StoreError> {
    const ENTRY: &str =
        "INSERT INTO audit (seq, at, actor, action, subject, payload_sha256, prev, hash)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let AuditEntry {
        seq,
        at,
        actor,
        action,
        subject,
        payload_sha256,
        prev,
        hash,
        payload,
    } = entry;
    let seq = number(*seq)?;
    execute(
        connection,
        ENTRY,
        (
            seq,
            at,
            actor,
            action,
            subject,
            payload_sha256.as_str(),
            prev.as_str(),
            hash.as_str(),
        ),
    )?;
    if let Some(Payload { salt, json }) = payload {
        execute(
            connection,
            "INSERT INTO audit_payloads (seq, salt, json) VALUES (?1, ?2, ?3)",
            (seq, salt, json),
        )?;
    }
    Ok(())
}

/// A payload that goes without an entry that says so would look like tampering ever after.
fn redactions_are_recorded(change: &Change) -> Result<(), StoreError> {
    for write in &change.writes {
        let Write::RedactPayload(seq) = write else {
            continue;
        };
        let subject = format!("audit:{seq}");
        if !change
            .audit
            .iter()
            .any(|draft| draft.action == REDACTED && draft.subject == subject)
        {
            return Err(StoreError::Constraint(format!(
                "the payload of entry {seq} is taken out, but no entry `{REDACTED}` with subject `{subject}` says so"
            )));
        }
    }
    Ok(())
}

pub(super) fn entries(
    connection: &Connection,
    from_seq: u64,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    const ENTRIES: &str = "SELECT a.seq, a.at, a.actor, a.action, a.subject, a.payload_sha256, a.prev, a.hash, p.salt,
        p.json FROM audit a LEFT JOIN audit_payloads p ON p.seq = a.seq WHERE a.seq >= ?1 ORDER BY a.seq LIMIT ?2";
    let mut statement = connection.prepare_cached(ENTRIES)?;
    let mut rows = statement.query((number(from_seq)?, limit))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let mut columns = Columns {
            row,
            table: "audit",
            next: 0,
        };
        found.push(AuditEntry {
            seq: columns.take("seq")?,
            at: columns.take("at")?,
            actor: columns.take("actor")?,
            action: columns.take("action")?,
            subject: columns.take("subject")?,
            payload_sha256: columns.take("payload_sha256")?,
            prev: columns.take("prev")?,
            hash: columns.take("hash")?,
            payload: match (columns.take("salt")?, columns.take("json")?) {
                (Some(salt), Some(json)) => Some(Payload { salt, json }),
                _ => None,
            },
        });
    }
    Ok(found)
}

pub(super) fn head(connection: &Connection) -> Result<Option<(u64, Digest)>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut columns = Columns {
        row,
        table: "audit",
        next: 0,
    };
    Ok(Some((columns.take("seq")?, columns.take("hash")?)))
}

pub(super) fn signed_head(connection: &Connection) -> Result<Option<SignedHead>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT seq, hash, signature FROM audit_tip")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut columns = Columns {
        row,
        table: "audit_tip",
        next: 0,
    };
    Ok(Some(SignedHead {
        seq: columns.take("seq")?,
        hash: columns.take("hash")?,
        signature: columns.take("signature")?,
    }))
}

/// Refuses a database that was written with other keys, or whose newest entry is not the one that was signed.
pub(super) fn check_tip(connection: &Connection, keys: &Keys) -> Result<(), StoreError> {
    let corrupt = |cause: &str| {
        Err(StoreError::Corrupt {
            what: "audit head",
            cause: cause.into(),
        })
    };
    match (head(connection)?, signed_head(connection)?) {
        (None, None) => Ok(()),
        (Some((seq, hash)), Some(tip)) if tip.seq == seq && tip.hash == hash => {
            if keys.verify(&SignedHead::signed_bytes(seq, &hash), &tip.signature) {
                return Ok(());
            }
            corrupt(
                "it was signed with another key; restore keys/ from the backup that this database is from",
            )
        }
        _ => corrupt(
            "the newest entry is not the one that was signed; run: mcp-spec-registry audit verify",
        ),
    }
}

fn number(seq: u64) -> Result<i64, StoreError> {
    i64::try_from(seq).map_err(|_| StoreError::Constraint(format!("{seq} is no entry number")))
}
