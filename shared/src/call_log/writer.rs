//! Writes lines in order: many wait in memory for one write, and a changing call waits for the disk.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{FallocateFlags, OFlags},
    io::Errno,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    CallLogError,
    entry::{self, Entry, Head, Record},
    verify::MAX_LINE,
};

/// Lines of reads wait until there are this many bytes of them …
const WRITE_AT: usize = 64 * 1024;
/// … or the oldest has waited this long.
const WRITE_AFTER: Duration = Duration::from_secs(1);
/// A disk that does not take lines makes the log refuse further ones here.
pub(super) const MAX_WAITING: usize = 1024 * 1024;
/// Room kept on the disk beyond the file's end, so that the line of a call that acts is sure to fit.
const ROOM: u64 = 256 * 1024;

/// What the caller of [`Writer::push`] has to see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Somebody already does.
    Wait,
    /// The first waiting line: write within [`WRITE_AFTER`].
    WriteSoon,
    /// Enough is waiting.
    WriteNow,
}

#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    /// The chain's end and the lines that wait; never held over I/O, so that reads do not wait for a disk.
    chain: Mutex<Chain>,
    disk: Mutex<Disk>,
    /// Whether the last write went well and there is room for the next line.
    ready: AtomicBool,
    /// The newest entry that a thread was asked to write.
    asked: AtomicU64,
}

#[derive(Debug)]
struct Chain {
    head: Head,
    waiting: Vec<u8>,
}

#[derive(Debug)]
struct Disk {
    file: File,
    /// Bytes of whole lines.
    length: u64,
    /// How far the file system has promised room.
    reserved: u64,
    /// The last entry written, and the last one synced.
    written: u64,
    synced: u64,
    /// What a failed write left to be written again.
    unwritten: Vec<u8>,
    unwritten_head: u64,
    /// Of a new file: where its name has yet to be made to last.
    folder: Option<PathBuf>,
}

impl Writer {
    pub(super) fn open(path: &Path) -> Result<Self, CallLogError> {
        let failed = |source| CallLogError::Io {
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        options.custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0));
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CallLogError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut tail = Tail::read(&mut file, path)?;
        let mut disk = Disk {
            length: tail.good_length,
            reserved: 0,
            written: tail.head.seq,
            synced: tail.head.seq,
            unwritten: Vec::new(),
            unwritten_head: 0,
            file,
            folder: if tail.good_length == 0 {
                path.parent().map(Path::to_owned)
            } else {
                None
            },
        };
        let mut head = tail.head;
        if let Some(whole) = Entry::intact(&tail.torn).filter(|entry| entry.prev == head.hash) {
            // Only its newline is missing.
            head = whole.head();
            disk.length += u64::try_from(tail.torn.len()).unwrap_or(0);
            disk.write(b"\n", head.seq).map_err(failed)?;
            tail.torn.clear();
        }
        if !is_torn(&tail.torn) {
            return Err(CallLogError::NoLog(path.to_owned()));
        }
        if !tail.torn.is_empty() {
            let torn = tail.torn.strip_suffix(b"\n").unwrap_or(&tail.torn);
            let (recovery, new_head) = entry::recovery(&head, &now(), torn);
            let mut lines = tail.torn.clone();
            if !lines.ends_with(b"\n") {
                lines.push(b'\n');
            }
            lines.extend(recovery);
            head = new_head;
            disk.write(&lines, head.seq).map_err(failed)?;
            disk.sync().map_err(failed)?;
        }
        let chain = Mutex::new(Chain {
            head,
            waiting: Vec::new(),
        });
        Ok(Self {
            path: path.to_owned(),
            chain,
            disk: Mutex::new(disk),
            ready: AtomicBool::new(false),
            asked: AtomicU64::new(0),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn head(&self) -> Head {
        self.chain().head.clone()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether a thread writes this entry, or will without being asked again.
    pub(super) fn is_asked_for(&self, seq: u64) -> bool {
        self.asked.load(Ordering::Acquire) >= seq
    }

    /// Chains a record to the log, in memory.
    pub(super) fn push(&self, record: &Record) -> Result<(Head, Next), CallLogError> {
        let mut chain = self.chain();
        if chain.waiting.len() > MAX_WAITING {
            return Err(CallLogError::Stuck(self.path.clone()));
        }
        let (line, head) = entry::line(&chain.head, &now(), record);
        let next = match chain.waiting.len() {
            0 => Next::WriteSoon,
            waiting if waiting > WRITE_AT => Next::WriteNow,
            _ => Next::Wait,
        };
        chain.waiting.extend(line);
        chain.head = head.clone();
        Ok((head, next))
    }

    /// Writes what waits, then makes room for what comes.
    pub(super) fn prepare(&self) -> Result<(), CallLogError> {
        self.write()
    }

    /// Writes what waits.
    pub(super) fn write(&self) -> Result<(), CallLogError> {
        self.with_disk(|_| Ok(()))
    }

    /// Writes what waits and returns once the disk has the entry `seq` for good; one sync serves all who wait.
    pub(super) fn sync(&self, seq: u64) -> Result<(), CallLogError> {
        self.with_disk(|disk| {
            if disk.synced >= seq {
                Ok(())
            } else {
                disk.sync()
            }
        })
    }

    fn with_disk(
        &self,
        then: impl FnOnce(&mut Disk) -> io::Result<()>,
    ) -> Result<(), CallLogError> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self
            .write_waiting(&mut disk)
            .and_then(|()| then(&mut disk))
            .and_then(|()| disk.make_room());
        self.ready.store(result.is_ok(), Ordering::Release);
        result.map_err(|source| CallLogError::Io {
            path: self.path.clone(),
            source,
        })
    }

    fn write_waiting(&self, disk: &mut Disk) -> io::Result<()> {
        let unwritten = std::mem::take(&mut disk.unwritten);
        if !unwritten.is_empty() {
            disk.write(&unwritten, disk.unwritten_head)?;
        }
        let (waiting, head) = {
            let mut chain = self.chain();
            (std::mem::take(&mut chain.waiting), chain.head.seq)
        };
        if waiting.is_empty() {
            Ok(())
        } else {
            disk.write(&waiting, head)
        }
    }

    /// Runs something that waits for the disk on a thread that may.
    pub(super) async fn blocking(
        self: Arc<Self>,
        work: impl FnOnce(&Self) -> Result<(), CallLogError> + Send + 'static,
    ) -> Result<(), CallLogError> {
        let path = self.path.clone();
        // Whatever waits now is written by it.
        self.asked
            .fetch_max(self.chain().head.seq, Ordering::Release);
        match tokio::task::spawn_blocking(move || work(&self)).await {
            Ok(result) => result,
            Err(_) => Err(CallLogError::Io {
                path,
                source: io::Error::other("the writing thread failed"),
            }),
        }
    }

    /// Puts a file in place that cannot be written, and gives the good one.
    #[cfg(test)]
    pub(super) fn break_disk(&self) -> io::Result<File> {
        let read_only = File::open(&self.path)?;
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready.store(false, Ordering::Release);
        disk.reserved = 0;
        Ok(std::mem::replace(&mut disk.file, read_only))
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.write() {
            tracing::error!(%error, "the last lines of the call log are lost");
        }
    }
}

/// Writes the waiting lines a little later, so that many share one write.
pub(super) fn write_soon(writer: &Arc<Writer>) {
    let writer = Arc::downgrade(writer);
    tokio::spawn(async move {
        tokio::time::sleep(WRITE_AFTER).await;
        // A log that is gone wrote its lines when it went.
        if let Some(writer) = writer.upgrade()
            && let Err(error) = writer.blocking(Writer::write).await
        {
            tracing::error!(%error, "the call log does not take lines");
        }
    });
}

impl Disk {
    /// Writes whole lines, all or none: a write that failed midway is undone and kept to be repeated.
    fn write(&mut self, lines: &[u8], head: u64) -> io::Result<()> {
        if let Err(error) = self.file.write_all_at(lines, self.length) {
            self.unwritten.extend_from_slice(lines);
            self.unwritten_head = head;
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += u64::try_from(lines.len()).unwrap_or(0);
        self.written = head;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        if let Some(folder) = self.folder.take() {
            File::open(folder)?.sync_all()?;
        }
        self.synced = self.written;
        Ok(())
    }

    /// Keeps room beyond the end, where the file system can promise that.
    fn make_room(&mut self) -> io::Result<()> {
        if self.reserved >= self.length + ROOM / 2 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, ROOM) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.reserved = self.length + ROOM;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The end of a log that is opened again.
struct Tail {
    head: Head,
    /// Bytes up to the end of the last good line.
    good_length: u64,
    /// What a crash left behind them.
    torn: Vec<u8>,
}

impl Tail {
    fn read(file: &mut File, path: &Path) -> Result<Self, CallLogError> {
        let failed = |source| CallLogError::Io {
            path: path.to_owned(),
            source,
        };
        let length = file.metadata().map_err(failed)?.size();
        let window = u64::try_from(MAX_WAITING + 2 * MAX_LINE).unwrap_or(u64::MAX);
        // Most logs end well, so a small look usually does.
        for look in [u64::try_from(MAX_LINE).unwrap_or(u64::MAX), window] {
            let from = length.saturating_sub(look);
            file.seek(SeekFrom::Start(from)).map_err(failed)?;
            let mut end = Vec::new();
            Read::by_ref(file)
                .take(look)
                .read_to_end(&mut end)
                .map_err(failed)?;
            if let Some(tail) = Self::find(&end, from) {
                return Ok(tail);
            }
        }
        Err(CallLogError::NoLog(path.to_owned()))
    }

    /// The last intact line in the end of a file.
    fn find(end: &[u8], from: u64) -> Option<Self> {
        let mut stop = end.len();
        loop {
            let Some(newline) = end[..stop].iter().rposition(|byte| *byte == b'\n') else {
                // Only a file seen whole may be without a good line: its very first write was torn.
                let torn = Self {
                    head: Head::empty(),
                    good_length: 0,
                    torn: end.to_vec(),
                };
                return (from == 0).then_some(torn);
            };
            let start = end[..newline]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |before| before + 1);
            if let Some(entry) = Entry::intact(&end[start..newline]) {
                let good = u64::try_from(newline + 1).unwrap_or(0);
                return Some(Self {
                    head: entry.head(),
                    good_length: from + good,
                    torn: end[newline + 1..].to_vec(),
                });
            }
            stop = newline;
        }
    }
}

/// Whether a crash can have left these bytes: no whole line, unless the file system filled up with zeros. Whole lines that
/// do not fit were changed by someone.
pub(super) fn is_torn(bytes: &[u8]) -> bool {
    !bytes.contains(&b'\n') || bytes.contains(&0)
}

fn now() -> String {
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_log::{Outcome, verify};

    fn record(tool: &str) -> Record {
        Record {
            principal: "uid:1000".to_owned(),
            tool: tool.to_owned(),
            arguments_sha256: "ab".repeat(32),
            run: None,
            action: None,
            outcome: Outcome::Ok,
            code: None,
            ms: 3,
            details: None,
        }
    }

    #[test]
    fn a_disk_that_fails_for_a_while_refuses_and_then_loses_nothing() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("calls.jsonl");
        let writer = Writer::open(&path)?;
        writer.prepare()?;
        assert!(writer.is_ready());

        let good = writer.break_disk()?;
        for n in 0..3 {
            let (head, _) = writer.push(&record(&format!("t{n}")))?;
            assert!(writer.sync(head.seq).is_err());
            assert!(!writer.is_ready() && writer.prepare().is_err());
        }
        let mut refused = false;
        for _ in 0..20_000 {
            refused =
                refused || matches!(writer.push(&record("much")), Err(CallLogError::Stuck(_)));
        }
        assert!(refused, "what waits is bounded");

        writer
            .disk
            .lock()
            .map_err(|_| anyhow::anyhow!("poisoned"))?
            .file = good;
        writer.prepare()?;
        assert!(writer.is_ready());
        assert_eq!(
            verify(&path, Some(&writer.head()))?.entries,
            writer.head().seq
        );
        Ok(())
    }
}
