//! The call log: one JSON line for each call, each line chained to the one before by SHA-256, so that an edit, a deleted
//! or a moved line shows; a cut tail shows against a head that was kept elsewhere.

mod audit;
mod entry;
mod verify;
mod writer;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use audit::{AuditCommand, audit};
pub use entry::{Details, Entry, Head, HeadError, Outcome, Record};
pub use verify::{FirstBad, Summary, VerifyError, verify};
use writer::Writer;

/// Largest number of logs that servers sharing one state directory may write at once.
const MAX_LOGS: u32 = 64;

/// How many turns of all that is ready to run another line is waited for.
const TURNS: usize = 3;

/// A call log that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CallLogError {
    /// All names are taken by running servers.
    #[error(
        "{MAX_LOGS} running servers write logs in `{0}` already; give each its own --state-dir"
    )]
    AllTaken(PathBuf),
    /// Another process writes this log.
    #[error("`{0}` is being written by another process")]
    Locked(PathBuf),
    /// The log's end is not what this server writes.
    #[error(
        "the end of `{0}` was changed or is no call log; look at it with `audit verify`, then move it away"
    )]
    NoLog(PathBuf),
    /// The file cannot be read or written.
    #[error("failed to write the call log `{path}`: {source}")]
    Io {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The writer stopped because an earlier write failed and what waits for the disk has become too much.
    #[error(
        "the call log `{0}` has not taken lines for a while; free its disk or restart the server"
    )]
    Stuck(PathBuf),
}

/// An open call log; clones write to the same file.
#[derive(Debug, Clone)]
pub struct CallLog {
    writer: Arc<Writer>,
    required: bool,
}

impl CallLog {
    /// Opens `calls.jsonl` in a state directory, or where another server is writing that, `calls-2.jsonl` and so on. With
    /// `required`, calls that cannot be recorded are refused.
    ///
    /// # Errors
    /// No free name, a file that is no log, or a disk that does not take it.
    pub fn open_in(state_dir: &Path, required: bool) -> Result<Self, CallLogError> {
        for number in 1..=MAX_LOGS {
            match Self::open(&state_dir.join(name(number)), required) {
                Err(CallLogError::Locked(_)) => {}
                opened => return opened,
            }
        }
        Err(CallLogError::AllTaken(state_dir.to_owned()))
    }

    /// Opens (or makes, 0600) one file for writing, exclusively. A line that a crash tore is completed by a `recovered`
    /// entry.
    ///
    /// # Errors
    /// A file that another process writes, that is no log, or that the disk does not take.
    pub fn open(path: &Path, required: bool) -> Result<Self, CallLogError> {
        Ok(Self {
            writer: Arc::new(Writer::open(path)?),
            required,
        })
    }

    /// Whether a call that cannot be recorded is refused.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.writer.path()
    }

    /// The newest entry's number and hash, written or about to be; keep it elsewhere to find a cut tail.
    pub fn head(&self) -> Head {
        self.writer.head()
    }

    /// Makes sure, before a changing call acts, that its line will find room on the disk.
    ///
    /// # Errors
    /// A disk that does not take what is waiting, or is full.
    pub async fn ready(&self) -> Result<(), CallLogError> {
        if self.writer.is_ready() {
            return Ok(());
        }
        self.writer.clone().blocking(Writer::prepare).await
    }

    /// Adds a line that may wait in memory for others: at most 64 KiB or one second of them.
    ///
    /// # Errors
    /// A disk that has not taken lines for a while.
    pub async fn add(&self, record: &Record) -> Result<Head, CallLogError> {
        let (head, action) = self.writer.push(record)?;
        match action {
            writer::Next::Wait => {}
            writer::Next::WriteSoon => writer::write_soon(&self.writer),
            writer::Next::WriteNow => self.writer.clone().blocking(Writer::write).await?,
        }
        Ok(head)
    }

    /// Adds a line and returns once the file has it: it outlasts this server, and the machine once a later line is on the disk for
    /// good.
    ///
    /// # Errors
    /// A disk that does not take it; the line stays waiting.
    pub async fn add_written(&self, record: &Record) -> Result<Head, CallLogError> {
        let (head, _) = self.writer.push(record)?;
        self.writer.clone().blocking(Writer::write).await?;
        Ok(head)
    }

    /// The same for a line that another is likely to follow at once: one write serves both. If that fails, whoever waits for the other
    /// line hears of it.
    ///
    /// # Errors
    /// A disk that does not take it; the line stays waiting.
    pub async fn add_written_with_next(&self, record: &Record) -> Result<Head, CallLogError> {
        let (head, _) = self.writer.push(record)?;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            if self.writer.is_asked_for(head.seq) {
                return Ok(head);
            }
        }
        self.writer.clone().blocking(Writer::write).await?;
        Ok(head)
    }

    /// Adds a line without waiting for anything, for where nobody can wait; it is written with the next, at most a second later.
    ///
    /// # Errors
    /// A disk that has not taken lines for a while.
    pub fn note(&self, record: &Record) -> Result<Head, CallLogError> {
        let (head, action) = self.writer.push(record)?;
        // Without a runtime the server is at its end, and the log writes what waits when it goes.
        let can_wait = tokio::runtime::Handle::try_current().is_ok();
        if action != writer::Next::Wait && can_wait {
            writer::write_soon(&self.writer);
        }
        Ok(head)
    }

    /// Adds a line and returns once the disk has it for good.
    ///
    /// # Errors
    /// A disk that does not take it; the line stays waiting.
    pub async fn add_durably(&self, record: &Record) -> Result<Head, CallLogError> {
        let (head, _) = self.writer.push(record)?;
        self.writer
            .clone()
            .blocking(move |writer| writer.sync(head.seq))
            .await?;
        Ok(head)
    }

    /// Makes every write fail from now on, as a broken disk would.
    #[cfg(test)]
    pub(crate) fn break_disk(&self) -> std::io::Result<()> {
        self.writer.break_disk().map(|_| ())
    }

    /// Writes and syncs everything that waits; for the end of the server.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub fn close(&self) -> Result<(), CallLogError> {
        self.writer.sync(self.writer.head().seq)
    }
}

/// The call logs in a state directory, oldest name first.
///
/// # Errors
/// A directory that cannot be read.
pub fn files(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for number in 1..=MAX_LOGS {
        let path = state_dir.join(name(number));
        match fs::symlink_metadata(&path) {
            Ok(_) => found.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn name(number: u32) -> String {
    if number == 1 {
        "calls.jsonl".to_owned()
    } else {
        format!("calls-{number}.jsonl")
    }
}

#[cfg(test)]
mod tests;
