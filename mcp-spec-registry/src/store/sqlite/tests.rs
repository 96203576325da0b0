use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::Result;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{
    audit::EntryDraft,
    store::{
        AgentRow, Write,
        conformance::{self, Fixture},
    },
};

struct Directory {
    dir: TempDir,
    keys: Arc<Keys>,
}

impl Fixture for Directory {
    fn open(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(SqliteStore::open(
            self.dir.path(),
            Arc::clone(&self.keys),
        )?))
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }
}

fn fresh() -> Result<Directory> {
    let dir = tempfile::tempdir()?;
    let keys = Arc::new(Keys::open_or_create(&dir.path().join("keys"))?);
    Ok(Directory { dir, keys })
}

fn something() -> Change {
    let draft = EntryDraft {
        actor: "ana".into(),
        action: "a".into(),
        subject: "s".into(),
        payload: json!({}),
    };
    Change {
        audit: vec![draft],
        ..Change::default()
    }
}

#[test]
fn sqlite_does_what_every_store_must_do() -> Result<()> {
    conformance::suite(fresh)
}

#[test]
fn two_stores_on_one_file_write_one_chain() -> Result<()> {
    let fixture = fresh()?;
    let (one, two) = (fixture.open()?, fixture.open()?);
    let threads = [Arc::clone(&one), Arc::clone(&two)].map(|store| {
        std::thread::spawn(move || {
            (0..20)
                .map(|_| store.commit(&something()))
                .collect::<Result<Vec<_>, _>>()
        })
    });
    for thread in threads {
        let Ok(committed) = thread.join() else {
            anyhow::bail!("a writer panicked")
        };
        committed?;
    }
    assert_eq!(one.audit_head()?.map(|(seq, _)| seq), Some(40));
    assert_eq!(one.audit(1, 100)?, two.audit(1, 100)?);
    Ok(())
}

#[test]
fn a_newer_database_is_refused_and_left_alone() -> Result<()> {
    let fixture = fresh()?;
    fixture.open()?.commit(&something())?;
    let path = fixture.dir.path().join(FILE_NAME);
    Connection::open(&path)?.pragma_update(None, "user_version", 99)?;
    let refused = SqliteStore::open(fixture.dir.path(), fixture.keys());
    assert!(
        matches!(
            refused,
            Err(StoreError::NewerSchema {
                found: 99,
                known: 1
            })
        ),
        "{refused:?}"
    );
    Connection::open(&path)?.pragma_update(None, "user_version", 1)?;
    assert_eq!(fixture.open()?.audit_head()?.map(|(seq, _)| seq), Some(1));
    Ok(())
}

#[test]
fn a_migration_that_fails_half_way_leaves_the_database_as_it_was() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut database = connect(&dir.path().join("x.sqlite").tap_created()?)?;
    let first = "CREATE TABLE a (x INTEGER) STRICT;";
    migrate::take_steps(&mut database, &[first])?;
    let broken = "ALTER TABLE a ADD COLUMN y TEXT; CREATE TABLE b (x INTEGER); INSERT INTO nowhere VALUES (1);";
    assert!(migrate::take_steps(&mut database, &[first, broken]).is_err());
    let tables: i64 =
        database.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    assert_eq!(tables, 1);
    migrate::take_steps(&mut database, &[first, "ALTER TABLE a ADD COLUMN y TEXT;"])?;
    database.execute("INSERT INTO a (x, y) VALUES (1, 'mended')", [])?;
    Ok(())
}

trait TapCreated: Sized {
    fn tap_created(self) -> Result<Self>;
}

impl TapCreated for PathBuf {
    fn tap_created(self) -> Result<Self> {
        make_private(&self)?;
        Ok(self)
    }
}

#[test]
fn a_database_is_refused_with_the_keys_of_another() -> Result<()> {
    let (fixture, other) = (fresh()?, fresh()?);
    fixture.open()?.commit(&something())?;
    let refused = SqliteStore::open(fixture.dir.path(), other.keys());
    assert!(
        matches!(
            refused,
            Err(StoreError::Corrupt {
                what: "audit head",
                ..
            })
        ),
        "{refused:?}"
    );
    fixture.open()?;
    Ok(())
}

#[test]
fn the_database_is_its_owners_alone_and_synced_at_every_commit() -> Result<()> {
    let fixture = fresh()?;
    let store = SqliteStore::open(fixture.dir.path(), fixture.keys())?;
    store.commit(&something())?;
    for file in [FILE_NAME, "registry.sqlite-wal", "registry.sqlite-shm"] {
        let mode = fs::metadata(fixture.dir.path().join(file))?
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let writer = store.writer.lock().unwrap_or_else(PoisonError::into_inner);
    let pragma = |name: &str| {
        writer.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
    };
    assert_eq!(
        pragma("journal_mode")?,
        rusqlite::types::Value::Text("wal".into())
    );
    assert_eq!(pragma("synchronous")?, rusqlite::types::Value::Integer(2));
    assert_eq!(pragma("foreign_keys")?, rusqlite::types::Value::Integer(1));
    Ok(())
}

const CRASH_DIR: &str = "SPEC_REGISTRY_TEST_CRASH_DIR";

/// The test starts itself again as the process that is killed.
#[test]
fn what_was_acknowledged_survives_a_kill() -> Result<()> {
    if let Some(dir) = std::env::var_os(CRASH_DIR) {
        return write_until_killed(Path::new(&dir));
    }
    let fixture = fresh()?;
    let acknowledged = fixture.dir.path().join("acknowledged");
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "store::sqlite::tests::what_was_acknowledged_survives_a_kill",
        ])
        .env(CRASH_DIR, fixture.dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()?;
    // Killed in the middle of a commit, wherever that is.
    while fs::metadata(&acknowledged).map_or(0, |file| file.len()) < 20 {
        anyhow::ensure!(child.try_wait()?.is_none(), "the writer ended");
        std::thread::yield_now();
    }
    child.kill()?;
    child.wait()?;
    let acknowledged = fs::metadata(&acknowledged)?.len();
    let store = fixture.open()?;
    let (seq, _) = store.audit_head()?.unwrap_or((0, crate::audit::genesis()));
    assert!(
        seq == acknowledged || seq == acknowledged + 1,
        "{seq} entries, {acknowledged} acknowledged"
    );
    assert!(
        store.agent(&format!("agent{seq}"))?.is_some(),
        "entry and row stand or fall together"
    );
    assert_eq!(store.agent(&format!("agent{}", seq + 1))?, None);
    let verified = crate::audit::verify_database(
        &fixture.dir.path().join(FILE_NAME),
        fixture.keys.verifying(),
        None,
    )?;
    assert_eq!(verified.entries, seq);
    Ok(())
}

fn write_until_killed(dir: &Path) -> Result<()> {
    use std::io::Write as _;
    let store = SqliteStore::open(dir, Arc::new(Keys::open_or_create(&dir.join("keys"))?))?;
    let mut acknowledged = fs::File::create(dir.join("acknowledged"))?;
    for number in 1.. {
        let agent = AgentRow {
            name: format!("agent{number}"),
            description: "x".repeat(2000),
            persona: None,
            registered_at: time::OffsetDateTime::now_utc(),
        };
        store.commit(&Change {
            writes: vec![Write::PutAgent(agent)],
            ..something()
        })?;
        acknowledged.write_all(b".")?;
    }
    Ok(())
}
