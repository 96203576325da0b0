//! What the targets ask of a kept output and of a terminal.

use std::io;
use std::num::NonZeroU16;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::screen::{Screen, Terminal};
use super::spool::{Piece, Spool, SpoolFolder};
use super::text::{Excerpt, excerpt};
use crate::jail::TerminalSize;

/// A stream's output as it is kept.
pub struct Kept(Spool);

impl Kept {
    /// Nothing yet, of which at most `limit` bytes are kept.
    pub fn new(folder: SpoolFolder, limit: u64) -> Self {
        Self(Spool::new(folder, limit))
    }

    /// What the command writes.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    /// Bytes written, bytes of them no longer kept, and the end of what can be read.
    pub fn counts(&self) -> [u64; 3] {
        [self.0.written(), self.0.lost(), self.0.end()]
    }

    /// Some bytes from a cursor on.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&self, cursor: u64, most: usize) -> io::Result<Piece> {
        self.0.read(cursor, most)
    }

    /// The newest bytes.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn tail(&self, most: usize) -> io::Result<Piece> {
        self.0.tail(most)
    }

    /// As a result shows it.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn excerpt(&self, budget: usize, ended: bool) -> io::Result<Excerpt> {
        excerpt(&self.0, budget, ended)
    }
}

/// A command's terminal.
pub struct Shown(Terminal);

impl Shown {
    /// An empty one.
    pub fn new(rows: NonZeroU16, columns: NonZeroU16) -> Self {
        Self(Terminal::new(TerminalSize { rows, columns }))
    }

    /// What the command writes.
    pub fn show(&mut self, bytes: &[u8]) {
        self.0.show(bytes);
    }

    /// Another size.
    pub fn resize(&mut self, rows: NonZeroU16, columns: NonZeroU16) {
        self.0.resize(TerminalSize { rows, columns });
    }

    /// What stands on it.
    pub fn screen(&self) -> Screen {
        self.0.screen()
    }
}

/// Stands in for a session where the terminal's file names one.
pub(super) struct Session {
    pub(super) terminal: Option<Mutex<Terminal>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
