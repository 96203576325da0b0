//! What a command wrote on one stream: every byte counted, its beginning and its end kept up to a limit, read by byte cursors.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, Mode, OFlags};
use sha2::{Digest as _, Sha256};

/// This much stays in memory; longer outputs go to a file without a name.
const IN_MEMORY: usize = 32 * 1024;

/// Where spools that outgrow memory are kept.
#[derive(Debug, Clone)]
pub struct SpoolFolder(Arc<PathBuf>);

impl SpoolFolder {
    /// A folder that already exists and is the server's alone.
    pub fn new(path: &Path) -> Self {
        Self(Arc::new(path.to_owned()))
    }

    /// A file that nobody else can name and that vanishes with its descriptor, also when the server is killed.
    fn create(&self) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(self.0.as_path(), flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => Ok(file.into()),
            // A file system without nameless files: memory then, bounded like the file.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
                Ok(rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC)?.into())
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

#[derive(Debug)]
enum Storage {
    Memory(Vec<u8>),
    File(File),
}

/// One stream's output. The first half of the limit keeps the beginning, the second half the newest bytes.
#[derive(Debug)]
pub(super) struct Spool {
    folder: SpoolFolder,
    storage: Storage,
    /// Bytes kept from the beginning.
    first: u64,
    /// Bytes kept from the end.
    last: u64,
    written: u64,
    /// Where the disk stopped taking bytes; they are still counted from there on.
    stored: Option<u64>,
    /// Of every byte, kept or not.
    sum: Sha256,
}

/// A run of consecutive bytes of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Position of the first byte in the stream; later than asked for if what was there is no longer kept.
    pub start: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Piece {
    /// Position behind the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Spool {
    /// An empty spool that keeps at most `limit` bytes.
    pub(super) fn new(folder: SpoolFolder, limit: u64) -> Self {
        let last = (limit / 2).max(1);
        Self {
            folder,
            storage: Storage::Memory(Vec::new()),
            first: limit.saturating_sub(last),
            last,
            written: 0,
            stored: None,
            sum: Sha256::new(),
        }
    }

    /// Bytes written by the command so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// SHA-256 of every byte written so far.
    pub(super) fn sha256(&self) -> [u8; 32] {
        self.sum.clone().finalize().into()
    }

    /// Bytes written that are no longer kept, or never were.
    pub(super) fn lost(&self) -> u64 {
        let stored = self.end();
        (self.written - stored)
            + (self.kept_tail().max(self.first.min(stored)) - self.first.min(stored))
    }

    /// Position behind the last byte that can be read.
    pub(super) fn end(&self) -> u64 {
        self.stored.unwrap_or(self.written)
    }

    /// Adds what the command wrote.
    ///
    /// # Errors
    /// A disk that does not take it; the bytes are counted all the same, and the stream goes on without being kept.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        if self.stored.is_some() {
            self.written += bytes.len() as u64;
            return Ok(());
        }
        let before = self.written;
        let result = self.store(bytes);
        if result.is_err() {
            self.stored = Some(self.written);
        }
        self.written = before + bytes.len() as u64;
        result
    }

    fn store(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Storage::Memory(kept) = &mut self.storage {
            let fits = IN_MEMORY.min(usize::try_from(self.first).unwrap_or(IN_MEMORY));
            if kept.len() + bytes.len() <= fits {
                kept.extend_from_slice(bytes);
                self.written += bytes.len() as u64;
                return Ok(());
            }
            let file = self.folder.create()?;
            file.write_all_at(kept, 0)?;
            self.storage = Storage::File(file);
        }
        let Storage::File(file) = &self.storage else {
            return Ok(());
        };
        while !bytes.is_empty() {
            let (place, room) = self.place(self.written);
            let now = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            file.write_all_at(&bytes[..now], place)?;
            self.written += now as u64;
            bytes = &bytes[now..];
        }
        Ok(())
    }

    /// At most `most` bytes from `cursor` on; fewer where the kept bytes have a gap.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn read(&self, cursor: u64, most: usize) -> io::Result<Piece> {
        let end = self.end();
        let tail = self.kept_tail();
        let mut start = cursor.min(end);
        if (self.first..tail).contains(&start) {
            start = tail;
        }
        let stop = if start < self.first && tail > self.first {
            self.first
        } else {
            end
        };
        let length = usize::try_from(stop - start)
            .unwrap_or(usize::MAX)
            .min(most);
        let mut bytes = vec![0; length];
        match &self.storage {
            Storage::Memory(kept) => {
                let from = usize::try_from(start).unwrap_or(usize::MAX);
                bytes.copy_from_slice(kept.get(from..from + length).unwrap_or_default());
            }
            Storage::File(file) => {
                let mut filled = 0;
                while filled < length {
                    let (place, room) = self.place(start + filled as u64);
                    let now = (length - filled).min(usize::try_from(room).unwrap_or(usize::MAX));
                    file.read_exact_at(&mut bytes[filled..filled + now], place)?;
                    filled += now;
                }
            }
        }
        Ok(Piece { start, bytes })
    }

    /// The newest bytes, at most `most`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn tail(&self, most: usize) -> io::Result<Piece> {
        let from = self.end().saturating_sub(most as u64);
        let gap_ends = self.kept_tail();
        self.read(
            if gap_ends > self.first {
                from.max(gap_ends)
            } else {
                from
            },
            most,
        )
    }

    /// Where the kept end begins; not behind `first` while everything is kept.
    fn kept_tail(&self) -> u64 {
        self.end().saturating_sub(self.last)
    }

    /// Where a byte of the stream stands in the file, and how many follow it there.
    fn place(&self, position: u64) -> (u64, u64) {
        match position.checked_sub(self.first) {
            None => (position, self.first - position),
            Some(behind) => {
                let turn = behind % self.last;
                (self.first + turn, self.last - turn)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small pseudo-random sequence, the same in every run.
    struct Sequence(u64);

    impl Sequence {
        fn next(&mut self, below: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % below
        }
    }

    fn spool(limit: u64) -> anyhow::Result<(tempfile::TempDir, Spool)> {
        let home = tempfile::tempdir()?;
        let spool = Spool::new(SpoolFolder::new(home.path()), limit);
        Ok((home, spool))
    }

    fn byte_at(position: u64) -> u8 {
        u8::try_from(position * 31 % 251).unwrap_or(0)
    }

    #[test]
    fn whatever_is_read_is_what_was_written_at_that_place() -> anyhow::Result<()> {
        let mut random = Sequence(7);
        for limit in [2, 3, 64, 1000, 70_000, 200_000] {
            let (_home, mut spool) = spool(limit)?;
            for _ in 0..60 {
                let length = random.next(limit.min(30_000) + 7);
                let bytes: Vec<u8> = (spool.written()..spool.written() + length)
                    .map(byte_at)
                    .collect();
                spool.append(&bytes)?;
                let cursor = random.next(spool.written() + 10);
                let piece = spool.read(cursor, usize::try_from(random.next(limit + 10))?)?;
                let expected: Vec<u8> = (piece.start..piece.end()).map(byte_at).collect();
                assert_eq!(
                    piece.bytes,
                    expected,
                    "limit {limit}, cursor {cursor}, {} written",
                    spool.written()
                );
                assert!(piece.start >= cursor.min(spool.written()));
            }
        }
        Ok(())
    }

    #[test]
    fn following_the_cursor_gives_every_kept_byte_once() -> anyhow::Result<()> {
        let mut random = Sequence(11);
        for (limit, total) in [
            (100_000, 99_999),
            (100_000, 100_000),
            (100_000, 350_001),
            (10, 5),
            (65_536, 65_537),
        ] {
            let (_home, mut spool) = spool(limit)?;
            let bytes: Vec<u8> = (0..total).map(byte_at).collect();
            bytes
                .chunks(4097)
                .try_for_each(|chunk| spool.append(chunk))?;
            let (mut cursor, mut seen, mut skipped) = (0, 0, 0);
            while cursor < spool.end() {
                let piece = spool.read(cursor, 1 + usize::try_from(random.next(9000))?)?;
                assert!(!piece.bytes.is_empty(), "no progress at {cursor}");
                skipped += piece.start - cursor;
                seen += piece.bytes.len() as u64;
                cursor = piece.end();
            }
            assert_eq!(
                (cursor, seen + skipped, skipped),
                (total, total, spool.lost())
            );
            assert_eq!(
                seen,
                total.min(limit),
                "as much as the limit allows is kept"
            );
        }
        Ok(())
    }

    #[test]
    fn the_newest_bytes_are_kept_beside_the_first() -> anyhow::Result<()> {
        let (_home, mut spool) = spool(100)?;
        spool.append(b"first line\n")?;
        spool.append(&vec![b'.'; 100_000])?;
        spool.append(b"the error at the end")?;
        assert_eq!(spool.read(0, 10)?.bytes, b"first line");
        assert_eq!(spool.tail(20)?.bytes, b"the error at the end");
        assert_eq!((spool.written(), spool.lost()), (100_031, 100_031 - 100));
        Ok(())
    }

    #[test]
    fn a_disk_that_takes_no_more_leaves_the_count_exact() -> anyhow::Result<()> {
        let (home, mut spool) = spool(1 << 20)?;
        spool.append(&[b'a'; 1000])?;
        drop(home);
        assert!(spool.append(&vec![b'b'; 100_000]).is_err());
        spool.append(&[b'c'; 10])?;
        assert_eq!(
            (spool.written(), spool.end(), spool.lost()),
            (101_010, 1000, 100_010)
        );
        assert_eq!(spool.read(0, 5000)?.bytes, vec![b'a'; 1000]);
        assert_eq!(spool.tail(5)?.bytes, b"aaaaa");
        Ok(())
    }
}
