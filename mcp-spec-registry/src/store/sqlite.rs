//! The store in one SQLite file: write-ahead log, synced at every commit, one connection that writes and one that reads.

mod chain;
mod column;
mod expect;
mod migrate;
mod read;
mod specifications;
mod tables;
mod write;

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use shared::{digest::Digest, effect::protocol::SignedHead};

use super::{
    AgentRow, ApproverRow, Change, RememberedAnswer, RunFilter, ServiceRow, SpecificationHit,
    SpecificationRow, Store, StoreError, TokenRow, Write,
};
use crate::{
    audit::AuditEntry,
    keys::Keys,
    run::{Action, CallRecord, Checkpoint, Decision, Run, RunRecord},
};

/// Name of the database in the state directory.
pub const FILE_NAME: &str = "registry.sqlite";

/// How long a statement waits for another process that writes, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const CACHED_STATEMENTS: usize = 128;

/// The store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    keys: Arc<Keys>,
}

impl SqliteStore {
    /// Opens the database in this directory, makes it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// A database that is newer than this program, that the keys do not belong to, or that cannot be opened.
    pub fn open(dir: &Path, keys: Arc<Keys>) -> Result<Self, StoreError> {
        let store = Self::open_unchecked(dir, keys)?;
        chain::check_tip(&store.reader(), &store.keys)?;
        Ok(store)
    }

    /// Opens a database whose newest entry may not be the one that was signed.
    pub(crate) fn open_unchecked(dir: &Path, keys: Arc<Keys>) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        make_private(&path)?;
        let mut writer = connect(&path)?;
        migrate::to_newest(&mut writer)?;
        let reader = connect(&path)?;
        reader.pragma_update(None, "query_only", true)?;
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            keys,
        })
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SqliteStore {
    fn commit(&self, change: &Change) -> Result<SignedHead, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        expect::check(&transaction, change)?;
        for write in &change.writes {
            write::apply(&transaction, write)?;
        }
        let committed = chain::append(&transaction, change, &self.keys)?;
        transaction.commit()?;
        if change
            .writes
            .iter()
            .any(|write| matches!(write, Write::RedactPayload(_)))
        {
            // Until then the log still holds what was taken out.
            writer.query_row("PRAGMA wal_checkpoint (TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(committed)
    }

    fn specification(&self, digest: &Digest) -> Result<Option<SpecificationRow>, StoreError> {
        read::one(&self.reader(), "WHERE digest = ?1", [digest.as_str()])
    }

    fn specification_versions(&self, spec_id: &str) -> Result<Vec<SpecificationRow>, StoreError> {
        read::all(
            &self.reader(),
            "WHERE spec_id = ?1 ORDER BY ordinal",
            [spec_id],
        )
    }

    fn search_specifications(
        &self,
        words: &[String],
        limit: u32,
        offset: u32,
    ) -> Result<Vec<SpecificationHit>, StoreError> {
        specifications::search(&self.reader(), words, limit, offset)
    }

    fn run(&self, run_id: &str) -> Result<Option<RunRecord>, StoreError> {
        read::run_record(&mut self.reader(), run_id)
    }

    fn call(
        &self,
        handle_sha256: &Digest,
        service: &str,
        idempotency_key: &str,
    ) -> Result<Option<CallRecord>, StoreError> {
        read::call(&mut self.reader(), handle_sha256, service, idempotency_key)
    }

    fn action(&self, action_id: &str) -> Result<Option<(Run, Action)>, StoreError> {
        read::action(&mut self.reader(), action_id)
    }

    fn runs(&self, filter: &RunFilter) -> Result<Vec<Run>, StoreError> {
        read::runs(&self.reader(), filter)
    }

    fn run_of_checkpoint(&self, checkpoint_id: &str) -> Result<Option<String>, StoreError> {
        read::run_id(
            &self.reader(),
            "SELECT run_id FROM checkpoints WHERE checkpoint_id = ?1",
            checkpoint_id,
        )
    }

    fn run_of_grant(&self, handle_sha256: &Digest) -> Result<Option<String>, StoreError> {
        read::run_id(
            &self.reader(),
            "SELECT run_id FROM grants WHERE handle_sha256 = ?1",
            handle_sha256.as_str(),
        )
    }

    fn runs_with_lost_actions(
        &self,
        service: &str,
        instance: &str,
    ) -> Result<Vec<String>, StoreError> {
        let reader = self.reader();
        let mut query = reader.prepare_cached(
            "SELECT DISTINCT run_id FROM actions WHERE outcome IS NULL AND service = ?1 AND instance <> ?2",
        )?;
        let runs = query.query_map([service, instance], |row| row.get(0))?;
        Ok(runs.collect::<Result<_, _>>()?)
    }

    fn run_of_action(&self, action_id: &str) -> Result<Option<String>, StoreError> {
        read::run_id(
            &self.reader(),
            "SELECT run_id FROM actions WHERE action_id = ?1",
            action_id,
        )
    }

    fn open_checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        read::all(&self.reader(), "WHERE state = 'open' ORDER BY ordinal", [])
    }

    fn decisions(&self, limit: u32) -> Result<Vec<Decision>, StoreError> {
        read::all(&self.reader(), "ORDER BY ordinal DESC LIMIT ?1", [limit])
    }

    fn plan_body(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        read::text(
            &self.reader(),
            "SELECT body FROM plan_bodies WHERE digest = ?1",
            digest.as_str(),
        )
    }

    fn agent(&self, name: &str) -> Result<Option<AgentRow>, StoreError> {
        read::one(&self.reader(), "WHERE name = ?1", [name])
    }

    fn approvers(&self) -> Result<Vec<ApproverRow>, StoreError> {
        read::all(&self.reader(), "ORDER BY name", [])
    }

    fn token(&self, token_sha256: &Digest) -> Result<Option<TokenRow>, StoreError> {
        read::one(
            &self.reader(),
            "WHERE token_sha256 = ?1",
            [token_sha256.as_str()],
        )
    }

    fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        read::all(
            &self.reader(),
            "ORDER BY principal, created_at, token_sha256",
            [],
        )
    }

    fn service(&self, name: &str) -> Result<Option<ServiceRow>, StoreError> {
        read::one(&self.reader(), "WHERE name = ?1", [name])
    }

    fn remembered(
        &self,
        principal: &str,
        key: &str,
    ) -> Result<Option<RememberedAnswer>, StoreError> {
        read::one(
            &self.reader(),
            "WHERE principal = ?1 AND key = ?2",
            [principal, key],
        )
    }

    fn audit(&self, from_seq: u64, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        chain::entries(&self.reader(), from_seq, limit)
    }

    fn audit_head(&self) -> Result<Option<(u64, Digest)>, StoreError> {
        chain::head(&self.reader())
    }

    fn signed_head(&self) -> Result<Option<SignedHead>, StoreError> {
        chain::signed_head(&self.reader())
    }
}

/// SQLite gives its other files the mode of the database.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let open = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path);
    open.map(drop)
        .map_err(|error| StoreError::Database(format!("`{}`: {error}", path.display())))
}

fn connect(path: &PathBuf) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    // Plans that do not depend on bound values: tables with partial indexes would else be planned anew for every statement.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;
         PRAGMA secure_delete = ON;",
    )?;
    Ok(connection)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(failure, _)
                if failure.code == rusqlite::ErrorCode::ConstraintViolation =>
            {
                Self::Constraint(error.to_string())
            }
            _ => Self::Database(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
