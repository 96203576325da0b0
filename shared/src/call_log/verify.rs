//! Reads a whole log and names the first line that is not as it was written.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    entry::{Entry, Head, Outcome},
    writer::{MAX_WAITING, is_torn},
};
use crate::digest::hex;

/// Longer lines are never written.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// What a log that verifies holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many lines.
    pub entries: u64,
    /// How many of them account for a line that a crash tore.
    pub recovered: u64,
    /// Bytes after the last line that a crash left and no server has accounted for yet.
    pub torn_tail_bytes: usize,
    /// The last line.
    pub head: Head,
}

/// The first line that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct FirstBad {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// A log that does not verify, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Someone changed it.
    #[error("`{path}`, {bad}")]
    Bad {
        /// The log.
        path: PathBuf,
        /// Where it begins to be wrong.
        bad: FirstBad,
    },
    /// The file cannot be read.
    #[error("failed to read `{path}`: {source}")]
    Io {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Checks every line of a log, and if `against` is given, that the log still holds that line.
///
/// # Errors
/// The first line that was edited, deleted, moved or cut off, or a file that cannot be read.
pub fn verify(path: &Path, against: Option<&Head>) -> Result<Summary, VerifyError> {
    let unreadable = |source| VerifyError::Io {
        path: path.to_owned(),
        source,
    };
    let mut lines = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut check = Check::new(against);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let read = lines
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut line)
            .map_err(unreadable)?;
        if read == 0 {
            break;
        }
        check.line(&line).map_err(|bad| VerifyError::Bad {
            path: path.to_owned(),
            bad,
        })?;
    }
    check.end().map_err(|bad| VerifyError::Bad {
        path: path.to_owned(),
        bad,
    })
}

struct Check<'a> {
    against: Option<&'a Head>,
    head: Head,
    recovered: u64,
    line: u64,
    /// Bytes since the last good line that are no line: a crash's, if a `recovered` entry follows, or nothing does.
    torn: Vec<u8>,
    torn_at: u64,
}

impl<'a> Check<'a> {
    fn new(against: Option<&'a Head>) -> Self {
        Self {
            against,
            head: Head::empty(),
            recovered: 0,
            line: 0,
            torn: Vec::new(),
            torn_at: 0,
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), FirstBad> {
        self.line += 1;
        let intact = line.strip_suffix(b"\n").and_then(Entry::intact);
        match intact {
            Some(entry) if self.torn.is_empty() => self.chain(&entry),
            Some(entry) if entry.outcome == Outcome::Recovered => self.recover(&entry),
            Some(_) => Err(self.torn_is_bad()),
            None => self.tear(line),
        }
    }

    fn chain(&mut self, entry: &Entry) -> Result<(), FirstBad> {
        if entry.seq != self.head.seq + 1 {
            let expected = self.head.seq + 1;
            return Err(self.bad(format!(
                "entry {} where {expected} belongs: a line was deleted, added or moved",
                entry.seq
            )));
        }
        if entry.prev != self.head.hash {
            return Err(self.bad(format!(
                "entry {} does not follow the one before it: a line was replaced",
                entry.seq
            )));
        }
        if let Some(against) = self
            .against
            .filter(|against| against.seq == entry.seq && against.hash != entry.hash)
        {
            return Err(self.bad(format!(
                "entry {} is not the one in the head {against}: the log was rewritten",
                entry.seq
            )));
        }
        self.recovered += u64::from(entry.outcome == Outcome::Recovered);
        self.head = entry.head();
        Ok(())
    }

    fn tear(&mut self, line: &[u8]) -> Result<(), FirstBad> {
        if self.torn.is_empty() {
            self.torn_at = self.line;
        }
        self.torn.extend_from_slice(line);
        // What is left of a crash is at most what was waiting in memory.
        if self.torn.len() > MAX_WAITING + MAX_LINE {
            Err(self.torn_is_bad())
        } else {
            Ok(())
        }
    }

    /// The server ended the torn bytes with a newline when it found them, and hashed them without it.
    fn recover(&mut self, entry: &Entry) -> Result<(), FirstBad> {
        let torn = self.torn.strip_suffix(b"\n").unwrap_or(&self.torn);
        if !is_torn(torn) || hex(&Sha256::digest(torn)) != entry.arguments_sha256 {
            return Err(self.torn_is_bad());
        }
        self.torn.clear();
        self.chain(entry)
    }

    fn end(self) -> Result<Summary, FirstBad> {
        if !is_torn(&self.torn) {
            return Err(self.torn_is_bad());
        }
        if let Some(against) = self.against.filter(|against| against.seq > self.head.seq) {
            let reason = format!(
                "the log ends at entry {}, but {against} was in it: its tail was cut off",
                self.head.seq
            );
            return Err(FirstBad {
                line: self.line + 1,
                reason,
            });
        }
        Ok(Summary {
            entries: self.head.seq,
            recovered: self.recovered,
            torn_tail_bytes: self.torn.len(),
            head: self.head,
        })
    }

    fn torn_is_bad(&self) -> FirstBad {
        FirstBad {
            line: self.torn_at,
            reason: format!("entry {} was edited", self.head.seq + 1),
        }
    }

    fn bad(&self, reason: String) -> FirstBad {
        FirstBad {
            line: self.line,
            reason,
        }
    }
}
