use std::{fs, path::PathBuf, sync::Arc};

use anyhow::Result;
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    keys::VerifyingKeys,
    store::{
        Change, Store, Write,
        sqlite::{FILE_NAME, SqliteStore},
    },
};

const ENTRIES: u64 = 120;

/// An audit of [`ENTRIES`] entries, with a head signed at 50 and, as always, at 100 and at the end.
struct Audit {
    dir: TempDir,
    keys: Arc<Keys>,
}

impl Audit {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let keys = Arc::new(Keys::open_or_create(&dir.path().join("keys"))?);
        let audit = Self { dir, keys };
        let store = audit.open()?;
        for number in 1..=ENTRIES {
            store.commit(&Change {
                sign_head: number == 50,
                ..Self::change("run.claimed", number)
            })?;
        }
        Ok(audit)
    }

    /// The same, without writing it anew.
    fn copy(&self) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::copy(self.path(), dir.path().join(FILE_NAME))?;
        Ok(Self {
            dir,
            keys: Arc::clone(&self.keys),
        })
    }

    fn change(action: &str, number: u64) -> Change {
        let draft = EntryDraft {
            actor: "agent".into(),
            action: action.into(),
            subject: format!("run {number}"),
            payload: json!({"number": number, "note": "ü \u{202e}"}),
        };
        Change {
            audit: vec![draft],
            ..Change::default()
        }
    }

    fn open(&self) -> Result<SqliteStore> {
        Ok(SqliteStore::open(self.dir.path(), Arc::clone(&self.keys))?)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(FILE_NAME)
    }

    /// Changes the file as somebody who may write it: without triggers and foreign keys.
    fn tamper(&self, sql: &str) -> Result<()> {
        let database = Connection::open(self.path())?;
        let mut triggers = String::new();
        let mut names =
            database.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")?;
        for name in names.query_map([], |row| row.get::<_, String>(0))? {
            triggers.extend(["DROP TRIGGER ", &name?, ";"]);
        }
        database.execute_batch(&format!("PRAGMA foreign_keys = OFF; {triggers} {sql}"))?;
        Ok(())
    }

    fn verify(&self, against: Option<&Against>) -> Result<Summary, VerifyError> {
        verify_database(&self.path(), self.keys.verifying(), against)
    }

    fn first_bad(&self, against: Option<&Against>) -> Result<FirstBad> {
        match self.verify(against) {
            Err(VerifyError::Bad(bad)) => Ok(bad),
            other => anyhow::bail!("{other:?}"),
        }
    }

    /// Chains everything from an entry on anew, as somebody who knows the format but has no key.
    fn rechain_from(&self, seq: u64) -> Result<()> {
        let store = self.open_unchecked()?;
        let mut entries = store.audit(seq.saturating_sub(1).max(1), u32::MAX)?;
        for index in usize::from(seq > 1)..entries.len() {
            entries[index].prev = if index == 0 {
                genesis()
            } else {
                entries[index - 1].hash.clone()
            };
            entries[index].hash = entries[index].computed_hash();
            let AuditEntry {
                seq, prev, hash, ..
            } = &entries[index];
            self.tamper(&format!(
                "UPDATE audit SET prev = '{prev}', hash = '{hash}' WHERE seq = {seq}"
            ))?;
        }
        Ok(())
    }

    /// The store opens only with a signed tip, so what was tampered with is read by one that was open before.
    fn open_unchecked(&self) -> Result<SqliteStore> {
        SqliteStore::open_unchecked(self.dir.path(), Arc::clone(&self.keys)).map_err(Into::into)
    }
}

#[test]
fn an_untouched_audit_verifies_while_a_registry_runs_and_after_it() -> Result<()> {
    let audit = Audit::new()?;
    let store = audit.open()?;
    let summary = audit.verify(None)?;
    assert_eq!(
        (summary.entries, summary.redacted, summary.signed_heads),
        (ENTRIES, 0, 2)
    );
    assert_eq!(summary.head, store.signed_head()?);
    store.commit(&Audit::change("more", 1))?;
    assert_eq!(audit.verify(None)?.entries, ENTRIES + 1);
    drop(store);
    assert_eq!(audit.verify(None)?.entries, ENTRIES + 1);
    for wal in ["registry.sqlite-wal", "registry.sqlite-shm"] {
        let _ = fs::remove_file(audit.dir.path().join(wal));
    }
    assert_eq!(audit.verify(None)?.entries, ENTRIES + 1);
    Ok(())
}

#[test]
fn an_empty_audit_verifies_only_when_nothing_is_stored() -> Result<()> {
    let audit = Audit::new()?;
    let other = tempfile::tempdir()?;
    SqliteStore::open(other.path(), Arc::clone(&audit.keys))?;
    let empty = verify_database(&other.path().join(FILE_NAME), audit.keys.verifying(), None)?;
    assert_eq!((empty.entries, empty.head), (0, None));

    let token =
        "INSERT INTO tokens VALUES ('sha256:0', 'p', 'agent', NULL, '2026-11-24T10:00:00Z', 0);";
    let wipe = "DELETE FROM audit_tip; DELETE FROM audit_heads; DELETE FROM audit_payloads; DELETE FROM audit;";
    audit.tamper(&format!("{token} {wipe}"))?;
    assert_eq!(audit.first_bad(None)?.seq, 1);
    Ok(())
}

#[test]
fn every_way_of_changing_an_entry_names_the_first_bad_one() -> Result<()> {
    let zeros = genesis();
    let set =
        |column: &str, value: &str| format!("UPDATE audit SET {column} = '{value}' WHERE seq = 7;");
    let shift = "UPDATE audit_payloads SET seq = -seq WHERE seq > 6; UPDATE audit SET seq = -seq WHERE seq > 6;";
    let copied = "actor, action, subject, payload_sha256, prev, hash FROM audit";
    let cases = [
        ("edited actor", set("actor", "ana"), 7),
        ("edited action", set("action", "run.approved"), 7),
        ("edited subject", set("subject", "run 8"), 7),
        ("edited time", set("at", "2020-01-01T00:00:00Z"), 7),
        ("edited payload digest", set("payload_sha256", zeros.as_str()), 7),
        ("edited previous hash", set("prev", zeros.as_str()), 7),
        ("edited hash", set("hash", zeros.as_str()), 7),
        ("a hash that is none", set("hash", "x"), 7),
        ("edited payload", "UPDATE audit_payloads SET json = '{}' WHERE seq = 7;".into(), 7),
        ("edited salt", "UPDATE audit_payloads SET salt = '' WHERE seq = 7;".into(), 7),
        ("payload taken out in secret", "DELETE FROM audit_payloads WHERE seq = 7;".into(), 7),
        ("payload of another", "UPDATE audit_payloads SET (salt, json) = (SELECT salt, json FROM audit_payloads
            WHERE seq = 8) WHERE seq = 7;".into(), 7),
        ("deleted", "DELETE FROM audit WHERE seq = 7;".into(), 7),
        ("deleted and closed up", format!(
            "DELETE FROM audit WHERE seq = 7; DELETE FROM audit_payloads WHERE seq = 7; {shift}
             UPDATE audit SET seq = -seq - 1 WHERE seq < 0; UPDATE audit_payloads SET seq = -seq - 1 WHERE seq < 0;"), 7),
        ("two swapped", "UPDATE audit SET seq = -7 WHERE seq = 7; UPDATE audit SET seq = 7 WHERE seq = 8;
            UPDATE audit SET seq = 8 WHERE seq = -7;".into(), 7),
        ("inserted", format!(
            "{shift} UPDATE audit SET seq = -seq + 1 WHERE seq < 0; UPDATE audit_payloads SET seq = -seq + 1 WHERE seq < 0;
             INSERT INTO audit SELECT 7, at, {copied} WHERE seq = 6;"), 7),
        ("the first deleted", "DELETE FROM audit WHERE seq = 1;".into(), 1),
        ("appended", format!("INSERT INTO audit SELECT {ENTRIES} + 1, at, {copied} WHERE seq = {ENTRIES};"), ENTRIES + 1),
        ("a signed head dropped at 100", "DELETE FROM audit_heads WHERE seq = 100;".into(), 100),
        ("a signature replaced", "UPDATE audit_heads SET signature = 'AAAA' WHERE seq = 50;".into(), 50),
        ("the newest signature dropped", "DELETE FROM audit_tip;".into(), ENTRIES),
        ("the newest signature replaced", "UPDATE audit_tip SET signature = 'AAAA';".into(), ENTRIES),
        ("the tail cut", "DELETE FROM audit WHERE seq > 110;".into(), 111),
        ("the tail cut below a signed head", "DELETE FROM audit WHERE seq > 90; DELETE FROM audit_tip;".into(), 91),
    ];
    let untouched = Audit::new()?;
    for (what, sql, seq) in cases {
        let audit = untouched.copy()?;
        audit.verify(None)?;
        audit.tamper(&sql)?;
        let bad = audit.first_bad(None).map_err(|error| error.context(what))?;
        assert_eq!(bad.seq, seq, "{what}: {bad}");
    }
    Ok(())
}

#[test]
fn a_chain_rewritten_without_the_key_does_not_verify() -> Result<()> {
    let untouched = Audit::new()?;
    for (from, first_bad) in [(1, 50), (60, 100), (110, ENTRIES)] {
        let audit = untouched.copy()?;
        audit.tamper(&format!(
            "UPDATE audit SET actor = 'ana' WHERE seq = {from};"
        ))?;
        audit.rechain_from(from)?;
        let bad = audit.first_bad(None)?;
        assert_eq!(bad.seq, first_bad, "{bad}");
    }
    Ok(())
}

#[test]
fn another_registrys_signatures_are_not_accepted() -> Result<()> {
    let audit = Audit::new()?;
    let stranger = Audit::new()?;
    let refused = verify_database(&audit.path(), stranger.keys.verifying(), None);
    assert!(
        matches!(refused, Err(VerifyError::Bad(FirstBad { seq: 50, .. }))),
        "{refused:?}"
    );
    let both = format!(
        "{}\n{}\n",
        stranger.keys.public_key(),
        audit.keys.public_key()
    );
    verify_database(&audit.path(), &VerifyingKeys::parse(&both)?, None)?;
    Ok(())
}

#[test]
fn a_restored_backup_is_found_out_by_a_head_that_was_kept() -> Result<()> {
    let audit = Audit::new()?;
    let backup = audit.dir.path().join("backup");
    Connection::open(audit.path())?.execute("VACUUM INTO ?1", [backup.display().to_string()])?;
    let store = audit.open()?;
    store.commit(&Audit::change("decision.made", 1))?;
    let kept = store.signed_head()?.map(Against::from);
    drop(store);
    audit.verify(kept.as_ref())?;

    for name in [FILE_NAME, "registry.sqlite-wal", "registry.sqlite-shm"] {
        let _ = fs::remove_file(audit.dir.path().join(name));
    }
    fs::copy(&backup, audit.path())?;
    audit.verify(None)?;
    assert_eq!(audit.first_bad(kept.as_ref())?.seq, ENTRIES + 1);

    // The same number again, with another entry: a fork.
    audit.open()?.commit(&Audit::change("decision.unmade", 1))?;
    audit.verify(None)?;
    assert_eq!(audit.first_bad(kept.as_ref())?.seq, ENTRIES + 1);
    Ok(())
}

#[test]
fn a_head_to_compare_with_comes_as_text_as_a_file_or_in_a_receipt() -> Result<()> {
    let audit = Audit::new()?;
    let head = audit
        .open()?
        .signed_head()?
        .ok_or_else(|| anyhow::anyhow!("no head"))?;
    let file = audit.dir.path().join("head");
    let name = file.display().to_string();
    let text = format!("{}:{}", head.seq, head.hash);
    audit.verify(Some(&Against::read(&text)?))?;
    for content in [
        format!("{text}\n"),
        serde_json::to_string(&head)?,
        json!({"run_state": "x", "audit_head": head}).to_string(),
    ] {
        fs::write(&file, content)?;
        audit.verify(Some(&Against::read(&name)?))?;
    }
    let forged = SignedHead {
        hash: genesis(),
        ..head.clone()
    };
    let bad = audit.first_bad(Some(&forged.into()))?;
    assert_eq!(
        (bad.seq, bad.reason.contains("not signed")),
        (head.seq, true)
    );
    let other = Against {
        seq: 3,
        hash: genesis(),
        signature: None,
    };
    assert_eq!(audit.first_bad(Some(&other))?.seq, 3);
    fs::write(&file, "something else")?;
    assert!(matches!(Against::read(&name), Err(VerifyError::NoHead(_))));
    assert!(matches!(
        Against::read("/no/such/file"),
        Err(VerifyError::HeadFile { .. })
    ));
    Ok(())
}

#[test]
fn after_a_recorded_redaction_the_audit_verifies_and_the_text_is_gone_from_the_disk() -> Result<()>
{
    const SECRET: &str = "hunter2-unmistakable";
    let audit = Audit::new()?;
    let store = audit.open()?;
    let is_on_disk = || -> Result<bool> {
        let mut found = false;
        for file in fs::read_dir(audit.dir.path())?
            .filter_map(Result::ok)
            .filter(|file| file.path().is_file())
        {
            found |= fs::read(file.path())?
                .windows(SECRET.len())
                .any(|bytes| bytes == SECRET.as_bytes());
        }
        Ok(found)
    };
    let secret = EntryDraft {
        payload: json!({"password": SECRET}),
        ..draft("a", "s")
    };
    let seq = store
        .commit(&Change {
            audit: vec![secret],
            ..Change::default()
        })?
        .seq;
    assert!(is_on_disk()?);
    let record = draft(REDACTED, &format!("audit:{seq}"));
    store.commit(&Change {
        writes: vec![Write::RedactPayload(seq)],
        audit: vec![record],
        ..Change::default()
    })?;
    assert!(!is_on_disk()?);
    let summary = audit.verify(None)?;
    assert_eq!((summary.entries, summary.redacted), (ENTRIES + 2, 1));
    Ok(())
}

fn draft(action: &str, subject: &str) -> EntryDraft {
    EntryDraft {
        actor: "ana".into(),
        action: action.into(),
        subject: subject.into(),
        payload: json!(null),
    }
}

#[test]
fn a_file_that_is_no_database_is_unreadable_not_bad() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join(FILE_NAME);
    let keys = VerifyingKeys::default();
    assert!(matches!(
        verify_database(&path, &keys, None),
        Err(VerifyError::Unreadable { .. })
    ));
    fs::write(&path, "x".repeat(10_000))?;
    assert!(matches!(
        verify_database(&path, &keys, None),
        Err(VerifyError::Unreadable { .. })
    ));
    Ok(())
}

const AT: OffsetDateTime =
    OffsetDateTime::UNIX_EPOCH.saturating_add(time::Duration::new(1_795_514_400, 0));

fn claimed(payload: Value) -> EntryDraft {
    EntryDraft {
        actor: "ana".into(),
        action: "run.claimed".into(),
        subject: "01J".into(),
        payload,
    }
}

#[test]
fn entries_are_numbered_and_chained() -> anyhow::Result<()> {
    let first = AuditEntry::following(None, &claimed(json!({"epoch": 1})), AT)?;
    let second = AuditEntry::following(
        Some(&(first.seq, first.hash.clone())),
        &claimed(json!({})),
        AT,
    )?;
    assert_eq!((first.seq, &first.prev), (1, &genesis()));
    assert_eq!((second.seq, &second.prev), (2, &first.hash));
    assert_eq!(first.at, "2026-11-24T10:00:00Z");
    Ok(())
}

#[test]
fn the_hash_is_over_a_zero_byte_and_canonical_json() -> anyhow::Result<()> {
    let entry = AuditEntry::following(None, &claimed(json!(1)), AT)?;
    let written_out = format!(
        "\0{{\"action\":\"run.claimed\",\"actor\":\"ana\",\"at\":\"2026-11-24T10:00:00Z\",\"payload_sha256\":\"{}\",\
         \"prev\":\"{}\",\"seq\":1,\"subject\":\"01J\"}}",
        entry.payload_sha256, entry.prev
    );
    assert_eq!(entry.hash, Digest::of(written_out));
    Ok(())
}

#[test]
fn equal_payloads_have_unequal_digests() -> anyhow::Result<()> {
    let one = AuditEntry::following(None, &claimed(json!({"pin": 1234})), AT)?;
    let two = AuditEntry::following(None, &claimed(json!({"pin": 1234})), AT)?;
    assert_ne!(one.payload_sha256, two.payload_sha256);
    assert_eq!(
        one.payload.map(|payload| payload.value()),
        two.payload.map(|payload| payload.value())
    );
    Ok(())
}
