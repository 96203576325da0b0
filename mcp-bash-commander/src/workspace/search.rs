//! Searching the files of the workspace by a regular expression, below the pinned directory and through no link.
//!
//! Whatever is left out is counted, so that "nothing found" is never mistaken for "not there".

mod ignored;
mod lines;
mod walk;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ignore::overrides::{Override, OverrideBuilder};
use regex::bytes::{Regex, RegexBuilder};
use rustix::fs::{FileType, OFlags, ResolveFlags};

use super::{NO_LINKS, Workspace, WorkspaceError, open_beneath, require_regular, unresolved};
use ignored::IgnoreRules;
use walk::Walk;

/// Longest pattern or glob, in bytes.
const MAX_PATTERN_BYTES: usize = 4096;
/// Largest compiled pattern, in bytes; it also bounds the time one piece of a file can take.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// Deepest nesting of a pattern.
const MAX_NESTING: u32 = 100;
/// Most results of one call.
const MAX_RESULTS: usize = 1000;
/// Most lines around a match.
const MAX_CONTEXT: usize = 5;
/// Links lead nowhere, and other file systems (network, `/proc`) are not entered.
const SAME_MOUNT: ResolveFlags = NO_LINKS.union(ResolveFlags::NO_XDEV);

/// What is looked for, and where.
#[derive(Debug, Clone)]
pub struct Query {
    /// A regular expression in the syntax of the crate `regex`, matched line by line.
    pub pattern: String,
    /// Whether the pattern is plain text instead.
    pub literal: bool,
    /// Whether letter case is ignored.
    pub ignore_case: bool,
    /// A folder or file of the workspace, instead of all. It is searched even if it is hidden or ignored itself.
    pub path: Option<String>,
    /// Only files that fit: `*.rs` by their name, `src/**/*.ts` by their path in the workspace; with `!` in front, only others.
    pub glob: Option<String>,
    /// Which files.
    pub breadth: Breadth,
    /// What is reported of them.
    pub report: Report,
    /// Most results, from 1 to 1000.
    pub most: usize,
}

/// How many of the files are searched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Breadth {
    /// Those that neither begin with a dot nor are left out by `.gitignore` and `.ignore`.
    #[default]
    Visible,
    /// Those that begin with a dot too, but not `.git`.
    Hidden,
    /// All, also ignored ones and `.git`.
    All,
}

/// What is reported of a file with matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Its matching lines, each with so many lines before and behind, at most 5.
    Lines {
        /// The number of lines on either side.
        context: usize,
    },
    /// Its path.
    Files,
}

/// A line that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The file, below the workspace.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// The character of the line at which its first match begins, from 1.
    pub column: usize,
    /// The line.
    pub text: Snippet,
    /// The lines before it.
    pub before: Vec<Snippet>,
    /// The lines behind it.
    pub after: Vec<Snippet>,
}

/// A line, or at most 500 bytes of it: around the match, or from its beginning. What is no UTF-8 is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The text.
    pub text: String,
    /// Whether the line has more in front of it.
    pub cut_before: bool,
    /// Whether the line has more behind it.
    pub cut_after: bool,
}

/// What was found, in the order of paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The matching lines, unless only files were asked for.
    pub matches: Vec<Match>,
    /// The files with matches, if only they were asked for.
    pub files: Vec<String>,
    /// All results in the files searched, those not returned included: matching lines, or files.
    pub total: u64,
    /// Files searched to their ends.
    pub files_searched: u64,
    /// Files and folders that should have been searched but were not.
    pub skipped: SkippedFiles,
    /// What the breadth or safety left out.
    pub left_out: LeftOut,
    /// The bounds that were met; if there are any, there may be more than was found.
    pub truncated: BTreeSet<Bound>,
}

/// Files, or folders with all they hold, that could not be searched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkippedFiles {
    /// Files with a NUL.
    pub binary: u64,
    /// Files over 10 MiB.
    pub too_large: u64,
    /// Files and folders that could not be opened or read.
    pub unreadable: u64,
    /// Files and folders whose name cannot be told.
    pub not_utf8_name: u64,
}

/// Files and folders that a search does not look into; a folder counts once, whatever it holds. Those that are denied and `.git`
/// do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Left out by `.gitignore` or `.ignore`.
    pub ignored: u64,
    /// Begin with a dot.
    pub hidden: u64,
    /// Symbolic links.
    pub links: u64,
    /// Folders and files of other mounts.
    pub other_mounts: u64,
}

/// What ended a search, or part of it, early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// As many results as were asked for.
    Results,
    /// 256 KiB of text.
    Bytes,
    /// 200 000 files and folders.
    Entries,
    /// 64 folders in each other.
    Depth,
    /// The caller cancelled, or its time was over.
    Cancelled,
}

/// A search that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The place cannot be searched.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The policy keeps it closed.
    #[error("`{0}` may not be read by the policy")]
    Denied(String),
    /// No regular expression.
    #[error(
        "`pattern` is no regular expression: {0}; to look for exactly this text, search literally"
    )]
    Pattern(String),
    /// A pattern that compiles to more than 1 MiB.
    #[error("`pattern` is too large when compiled; make its counted repetitions smaller")]
    PatternTooLarge,
    /// A pattern that asks for a line break, which no line has.
    #[error(
        "`pattern` asks for a line break, but lines are searched one by one; look for one of the lines, with context"
    )]
    LineBreak,
    /// No glob.
    #[error("`glob` is none: {0}; use for instance `*.rs` or `src/**/*.ts`")]
    Glob(String),
    /// A pattern of another length than possible.
    #[error("`{name}` has {bytes} bytes; it needs 1 to {MAX_PATTERN_BYTES}")]
    Length {
        /// Which one.
        name: &'static str,
        /// Bytes given.
        bytes: usize,
    },
    /// A number out of range.
    #[error("`{name}` is {given}; it goes from {least} to {most}")]
    Range {
        /// Which one.
        name: &'static str,
        /// The number given.
        given: usize,
        /// The least possible.
        least: usize,
        /// The most possible.
        most: usize,
    },
}

impl Workspace {
    /// Searches files for lines that match. What `denied` holds of a path below the workspace, or of a folder above it, is neither
    /// opened nor named. `cancelled` is asked often; once it says yes, which it must stay with, what was found until then is
    /// returned.
    ///
    /// # Errors
    /// A pattern or glob that is none, a number out of range, or a place that cannot be searched.
    pub fn search(
        &self,
        query: &Query,
        denied: &dyn Fn(&Path) -> bool,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Found, SearchError> {
        require_in_range("most", query.most, 1, MAX_RESULTS)?;
        if let Report::Lines { context } = query.report {
            require_in_range("context", context, 0, MAX_CONTEXT)?;
        }
        let regex = regex(query)?;
        let glob = glob(query.glob.as_deref())?;
        let place = self.search_start(query.path.as_deref())?;
        let mut ancestors: Vec<_> = place.ancestors().filter(|path| *path != "").collect();
        if ancestors.iter().any(|path| denied(path)) {
            return Err(SearchError::Denied(place.display().to_string()));
        }
        ancestors.reverse();

        let mut walk = Walk::new(query, regex, glob, denied, cancelled);
        let mut folder = open_folder(self.directory().as_fd(), Path::new("."), Path::new("."))?;
        for path in ancestors {
            let name = Path::new(path.file_name().unwrap_or_default());
            let above = path.parent().unwrap_or(Path::new(""));
            let looked_at = open_beneath(folder.as_fd(), name, OFlags::PATH, SAME_MOUNT)
                .map_err(unresolved("open", path))?;
            let stat = rustix::fs::fstat(&looked_at).map_err(unresolved("look at", path))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                walk.enter(IgnoreRules::read(folder.as_fd(), above, denied));
                folder = open_folder(folder.as_fd(), name, path)?;
            } else if path == place {
                require_regular(stat.st_mode, path)?;
                walk.file(folder.as_fd(), path);
                return Ok(walk.into_found());
            } else {
                return Err(WorkspaceError::NotFound(place.display().to_string()).into());
            }
        }
        walk.folder(folder, &place);
        Ok(walk.into_found())
    }

    /// The place to search; empty for the whole workspace.
    fn search_start(&self, path: Option<&str>) -> Result<PathBuf, WorkspaceError> {
        let Some(path) = path else {
            return Ok(PathBuf::new());
        };
        let trimmed = match path.trim_end_matches('/') {
            "" => path,
            trimmed => trimmed,
        };
        if matches!(trimmed, "" | ".") || Path::new(trimmed) == self.root {
            return Ok(PathBuf::new());
        }
        self.relative(trimmed)
    }
}

fn open_folder(above: impl AsFd, name: &Path, shown: &Path) -> Result<OwnedFd, WorkspaceError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    open_beneath(above.as_fd(), name, flags, SAME_MOUNT).map_err(unresolved("open", shown))
}

fn require_in_range(
    name: &'static str,
    given: usize,
    least: usize,
    most: usize,
) -> Result<(), SearchError> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(SearchError::Range {
        name,
        given,
        least,
        most,
    })
}

fn require_length(name: &'static str, text: &str) -> Result<(), SearchError> {
    if (1..=MAX_PATTERN_BYTES).contains(&text.len()) {
        return Ok(());
    }
    Err(SearchError::Length {
        name,
        bytes: text.len(),
    })
}

fn regex(query: &Query) -> Result<Regex, SearchError> {
    require_length("pattern", &query.pattern)?;
    if asks_for_line_break(&query.pattern, query.literal) {
        return Err(SearchError::LineBreak);
    }
    let pattern = if query.literal {
        regex::escape(&query.pattern)
    } else {
        query.pattern.clone()
    };
    RegexBuilder::new(&pattern)
        .case_insensitive(query.ignore_case)
        .multi_line(true)
        .crlf(true)
        .size_limit(MAX_COMPILED_BYTES)
        .nest_limit(MAX_NESTING)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => SearchError::PatternTooLarge,
            other => SearchError::Pattern(shortened(&other.to_string())),
        })
}

/// An error of the regex compiler; it repeats the pattern, with its reason in the last line.
fn shortened(error: &str) -> String {
    if error.len() <= 1000 {
        return error.to_owned();
    }
    let reason = error.lines().last().unwrap_or_default();
    reason.chars().take(1000).collect()
}

/// Whether a line break stands in the pattern, or `\n` outside of a class: `[^\n]` is harmless.
fn asks_for_line_break(pattern: &str, literal: bool) -> bool {
    let mut characters = pattern.chars();
    let mut classes = 0_usize;
    while let Some(character) = characters.next() {
        match character {
            '\n' => return true,
            '\\' if !literal => {
                let is_break = characters.next() == Some('n');
                if is_break && classes == 0 {
                    return true;
                }
            }
            '[' => classes += 1,
            ']' => classes = classes.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn glob(glob: Option<&str>) -> Result<Override, SearchError> {
    let Some(glob) = glob else {
        return Ok(Override::empty());
    };
    require_length("glob", glob)?;
    let wrong = |error: ignore::Error| SearchError::Glob(error.to_string());
    let mut builder = OverrideBuilder::new(".");
    builder.add(glob).map_err(wrong)?;
    let built = builder.build().map_err(wrong)?;
    if built.is_empty() {
        // A comment or white space, in the syntax of ignore files.
        return Err(SearchError::Glob(format!("`{glob}` fits nothing")));
    }
    Ok(built)
}

#[cfg(test)]
mod tests;
