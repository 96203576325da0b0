//! The walk through the folders: one name at a time below a directory that is held open, sorted, bounded.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use ignore::overrides::Override;
use regex::bytes::Regex;
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::ignored::IgnoreRules;
use super::lines::{self, Reporter};
use super::{Bound, Breadth, Found, Query, SAME_MOUNT, open_folder};
use crate::workspace::WorkspaceError;
use crate::workspace::read::open_regular;

/// Deepest folder, counted from where the search begins.
const MAX_DEPTH: usize = 64;
/// Most files and folders looked at.
const MAX_ENTRIES: usize = 200_000;
/// Longest file searched, in bytes.
const MAX_FILE_BYTES: u64 = 10 << 20;

/// A search under way.
pub(super) struct Walk<'a> {
    query: &'a Query,
    regex: Regex,
    glob: Override,
    denied: &'a dyn Fn(&Path) -> bool,
    cancelled: &'a dyn Fn() -> bool,
    /// Rules of the folders from the workspace down to the one being walked.
    rules: Vec<IgnoreRules>,
    depth: usize,
    entries_left: usize,
    /// The content of the file being searched; kept for its memory.
    content: Vec<u8>,
    reporter: Reporter,
    found: Found,
}

struct Entry {
    name: OsString,
    kind: FileType,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        query: &'a Query,
        regex: Regex,
        glob: Override,
        denied: &'a dyn Fn(&Path) -> bool,
        cancelled: &'a dyn Fn() -> bool,
    ) -> Self {
        Self {
            query,
            regex,
            glob,
            denied,
            cancelled,
            rules: Vec::new(),
            depth: 0,
            entries_left: MAX_ENTRIES,
            content: Vec::new(),
            reporter: Reporter::new(query.report, query.most),
            found: Found::default(),
        }
    }

    pub(super) fn into_found(self) -> Found {
        self.found
    }

    /// Lets the rules of a folder apply to everything below it.
    pub(super) fn enter(&mut self, rules: Option<IgnoreRules>) {
        self.rules.extend(rules);
    }

    /// Searches a folder and all below it.
    pub(super) fn folder(&mut self, folder: OwnedFd, path: &Path) {
        if self.depth == MAX_DEPTH {
            self.found.truncated.insert(Bound::Depth);
            return;
        }
        let Some((folder, entries)) = self.entries(folder) else {
            self.found.skipped.unreadable += 1;
            return;
        };
        let rules_before = self.rules.len();
        let has_rules = entries
            .iter()
            .any(|entry| IgnoreRules::is_rules_file(&entry.name));
        if has_rules && self.query.breadth != Breadth::All {
            self.enter(IgnoreRules::read(folder.as_fd(), path, self.denied));
        }
        self.depth += 1;
        for entry in entries {
            if self.is_over() {
                break;
            }
            self.entry(folder.as_fd(), &entry, path);
        }
        self.depth -= 1;
        self.rules.truncate(rules_before);
    }

    /// What the folder holds, sorted by name. The folder is given back to open what it holds.
    fn entries(&mut self, folder: OwnedFd) -> Option<(OwnedFd, Vec<Entry>)> {
        let mut entries = Vec::new();
        let mut listing = Dir::read_from(&folder).ok()?;
        while let Some(entry) = listing.read() {
            let entry = entry.ok()?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if self.entries_left == 0 {
                self.found.truncated.insert(Bound::Entries);
                break;
            }
            if self.entries_left.is_multiple_of(1024) && self.is_over() {
                break;
            }
            self.entries_left -= 1;
            entries.push(Entry {
                name: OsString::from_vec(name.to_vec()),
                kind: entry.file_type(),
            });
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Some((folder, entries))
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, entry: &Entry, above: &Path) {
        let path = above.join(&entry.name);
        if (self.denied)(&path) {
            return;
        }
        let kind = match entry.kind {
            // Some file systems leave the kind to be asked for.
            FileType::Unknown => kind_of(folder, &entry.name),
            kind => kind,
        };
        let is_folder = kind == FileType::Directory;
        if !is_folder && kind != FileType::RegularFile && kind != FileType::Symlink {
            return;
        }
        if self.leaves_out(&path, &entry.name, is_folder) {
            return;
        }
        if kind == FileType::Symlink {
            self.found.left_out.links += 1;
        } else if path.to_str().is_none() {
            self.found.skipped.not_utf8_name += 1;
        } else if is_folder {
            match open_folder(folder, Path::new(&entry.name), &path) {
                Ok(folder) => self.folder(folder, &path),
                Err(error) => self.count_unopened(&error),
            }
        } else {
            self.file(folder, &path);
        }
    }

    /// Whether the query leaves out what is not denied.
    fn leaves_out(&mut self, path: &Path, name: &OsStr, is_folder: bool) -> bool {
        if self.glob.matched(path, is_folder).is_ignore() {
            return true;
        }
        let breadth = self.query.breadth;
        if breadth == Breadth::All {
            return false;
        }
        if name == ".git" {
            return true;
        }
        let mut rules = self.rules.iter().rev();
        if rules.find_map(|rules| rules.leave_out(path, is_folder)) == Some(true) {
            self.found.left_out.ignored += 1;
            return true;
        }
        if breadth == Breadth::Visible && name.as_bytes().starts_with(b".") {
            self.found.left_out.hidden += 1;
            return true;
        }
        false
    }

    /// Searches a file of the folder; nothing is left out any more.
    pub(super) fn file(&mut self, folder: BorrowedFd<'_>, path: &Path) {
        let (Some(name), Some(shown)) = (path.file_name(), path.to_str()) else {
            return;
        };
        let file = match open_regular(folder, Path::new(name), SAME_MOUNT, path) {
            Ok(file) => file,
            Err(error) => return self.count_unopened(&error),
        };
        let skipped = &mut self.found.skipped;
        self.content.clear();
        // One that is too large is not read at all, unless it grows at this moment.
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let read = if size > MAX_FILE_BYTES {
            Ok(0)
        } else {
            file.take(MAX_FILE_BYTES + 1).read_to_end(&mut self.content)
        };
        match read {
            Err(_) => skipped.unreadable += 1,
            Ok(read) if size.max(read as u64) > MAX_FILE_BYTES => skipped.too_large += 1,
            Ok(_) if self.content.contains(&0) => skipped.binary += 1,
            Ok(_) => {
                let matches = lines::Matches::new(&self.regex, &self.content, self.cancelled);
                self.reporter.report(shown, matches, &mut self.found);
                if !self.is_over() {
                    self.found.files_searched += 1;
                }
            }
        }
    }

    fn count_unopened(&mut self, error: &WorkspaceError) {
        match error {
            // Gone, or another kind of thing, since the folder was listed.
            WorkspaceError::NotFound(_) | WorkspaceError::NotRegular { .. } => {}
            WorkspaceError::Symlink(_) => self.found.left_out.links += 1,
            WorkspaceError::Outside(_) => self.found.left_out.other_mounts += 1,
            WorkspaceError::Io { source, .. }
                if source.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => {}
            _ => self.found.skipped.unreadable += 1,
        }
    }

    fn is_over(&mut self) -> bool {
        if !self.found.truncated.contains(&Bound::Cancelled) && (self.cancelled)() {
            self.found.truncated.insert(Bound::Cancelled);
        }
        self.found.truncated.contains(&Bound::Cancelled)
    }
}

fn kind_of(folder: BorrowedFd<'_>, name: &OsStr) -> FileType {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_or(FileType::Unknown, |stat| {
        FileType::from_raw_mode(stat.st_mode)
    })
}
