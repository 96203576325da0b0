//! Editing a text file of the workspace: literal replacements, all of them or none, in one atomic write.
//!
//! Nothing is ever replaced that only resembles what the call gave: a near miss is an error that shows the lines meant.

mod diff;
mod hint;
mod text;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use shared::digest::Digest;

use self::text::Text;
use super::read::open_regular;
use super::write::Expected;
use super::{NO_LINKS, Workspace, WorkspaceError, failed, unresolved};
use crate::policy::Access;
pub use hint::Hint;

/// Longest file that is edited, before and after, in bytes.
const MAX_FILE_BYTES: usize = 10 << 20;
/// Most edits of one call.
const MAX_EDITS: usize = 100;
/// Most lines an error names.
const MAX_LINES_NAMED: usize = 10;

/// How often the old text must occur.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Occurrences {
    /// Once, or the edit is refused.
    #[default]
    One,
    /// At least once; every occurrence is replaced.
    All,
}

/// One replacement.
///
/// Both texts are taken literally, except that a line break is a line break: `\n` and `\r\n` in `old` match either, and those
/// in `new` are written like those they replace, further ones as most of the file has them (as given if the file has none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is there. Empty only while the file has no bytes at all: then the file becomes `new`.
    pub old: String,
    /// What takes its place; may be empty.
    pub new: String,
    /// How often `old` must occur.
    pub occurrences: Occurrences,
}

/// A file that was edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// Its path below the workspace.
    pub path: PathBuf,
    /// Digest of the bytes before.
    pub sha256_before: Digest,
    /// Digest of the bytes now.
    pub sha256_after: Digest,
    /// Their number now.
    pub bytes: u64,
    /// Occurrences replaced, over all edits.
    pub replacements: usize,
    /// What changed, as a unified diff with three lines around each change; at most 8 KiB, whole lines. Line breaks are shown
    /// as `\n`.
    pub diff: String,
    /// Whether the diff goes on behind its last line.
    pub diff_cut: bool,
}

/// An edit that was not made; the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be used, or changed meanwhile.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// No edit, or too many.
    #[error("{0} edits were given; one call takes 1 to {MAX_EDITS}")]
    Count(usize),
    /// An empty text occurs everywhere.
    #[error(
        "edit {edit}: `old` is empty, which is only possible while the file is; give the text to replace"
    )]
    EmptyOld {
        /// Which edit, from 1.
        edit: usize,
    },
    /// The old text is not there.
    #[error("edit {edit}: `old` does not occur in `{path}`{}: {hint}", earlier(*.edit))]
    NoMatch {
        /// Which edit, from 1.
        edit: usize,
        /// The path.
        path: String,
        /// What is there instead. Lines are those of the text that the edits before this one left.
        hint: Hint,
    },
    /// The old text is there more than once.
    #[error(
        "edit {edit}: `old` occurs {occurrences} times in `{path}`{}, beginning in {}; add lines around it until it occurs \
         once, or ask for all occurrences",
        earlier(*.edit), lines_named(.lines, *.occurrences)
    )]
    Ambiguous {
        /// Which edit, from 1.
        edit: usize,
        /// The path.
        path: String,
        /// How often it occurs; of more than ten only those that do not overlap are counted.
        occurrences: usize,
        /// The lines, from 1, in which the first ten begin.
        lines: Vec<usize>,
    },
    /// The edits add up to nothing.
    #[error("the edits leave `{0}` as it is: what they put there is what is there already")]
    NothingChanged(String),
    /// No text.
    #[error("`{path}` is no UTF-8 text: {reason} at byte {at}")]
    NotText {
        /// The path.
        path: String,
        /// What was found.
        reason: &'static str,
        /// Where, from 0.
        at: usize,
    },
    /// Longer than is edited, before or after.
    #[error("`{path}` {} {bytes} bytes; files up to {MAX_FILE_BYTES} bytes are edited", if *.after { "would have at least" } else { "has" })]
    TooLong {
        /// The path.
        path: String,
        /// Its length, or the least that the edits would give it.
        bytes: u64,
        /// Whether it is the edits that make it too long.
        after: bool,
    },
}

impl Workspace {
    /// Replaces literal texts in a UTF-8 file, one edit after the other, and writes the file whole or not at all. What was read
    /// must still be there when it is written; the mode is kept. A missing file is not made: that is what writing is for.
    ///
    /// # Errors
    /// A file that [`Workspace::write`] would not replace, that is no text or too long, that is not `expected`, or edits of which
    /// one does not fit.
    pub fn edit(
        &self,
        path: &str,
        edits: &[Edit],
        expected: Option<&Digest>,
    ) -> Result<Edited, EditError> {
        if self.access == Access::ReadOnly {
            return Err(WorkspaceError::ReadOnly.into());
        }
        if !(1..=MAX_EDITS).contains(&edits.len()) {
            return Err(EditError::Count(edits.len()));
        }
        let relative = self.relative(path)?;
        let before = self.editable(&relative)?;
        if let Some(expected) = expected.filter(|expected| **expected != before.sha256) {
            return Err(before.changed(&relative, expected).into());
        }
        let (after, replacements) = apply(edits, &before.text, &relative)?;
        self.put(relative, &before, &after, replacements)
    }

    /// The file with its digest. No link is followed: what is read must be what is replaced.
    fn editable(&self, relative: &Path) -> Result<Before, EditError> {
        let file = open_regular(self.directory(), relative, NO_LINKS, relative)?;
        let stat = rustix::fs::fstat(&file).map_err(unresolved("look at", relative))?;
        let shown = || relative.display().to_string();
        if stat.st_nlink > 1 {
            return Err(WorkspaceError::HardLinked(shown()).into());
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(failed("read", relative))?;
        if bytes.len() > MAX_FILE_BYTES {
            return Err(EditError::TooLong {
                path: shown(),
                bytes: u64::try_from(stat.st_size)
                    .unwrap_or(0)
                    .max(bytes.len() as u64),
                after: false,
            });
        }
        let not_text = |reason, at| EditError::NotText {
            path: shown(),
            reason,
            at,
        };
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            return Err(not_text("there is a NUL", at));
        }
        let sha256 = Digest::of(&bytes);
        let text = String::from_utf8(bytes).map_err(|error| {
            not_text("there is something else", error.utf8_error().valid_up_to())
        })?;
        Ok(Before { text, sha256 })
    }

    fn put(
        &self,
        relative: PathBuf,
        before: &Before,
        after: &str,
        replacements: usize,
    ) -> Result<Edited, EditError> {
        if after == before.text {
            return Err(EditError::NothingChanged(relative.display().to_string()));
        }
        let (diff, diff_cut) = diff::unified(&before.text, after, &relative);
        let unchanged = Expected::Content(before.sha256.clone());
        let written = self.replace(relative, after.as_bytes(), Some(&unchanged), false)?;
        Ok(Edited {
            path: written.path,
            sha256_before: before.sha256.clone(),
            sha256_after: written.sha256,
            bytes: written.bytes,
            replacements,
            diff,
            diff_cut,
        })
    }
}

/// A file as it was read.
struct Before {
    text: String,
    sha256: Digest,
}

impl Before {
    fn changed(&self, path: &Path, expected: &Digest) -> WorkspaceError {
        WorkspaceError::Changed {
            path: path.display().to_string(),
            expected: expected.to_string(),
            found: self.sha256.to_string(),
        }
    }
}

/// The text behind all edits, and how many occurrences were replaced.
fn apply(edits: &[Edit], text: &str, path: &Path) -> Result<(String, usize), EditError> {
    let mut text = Text::new(text.to_owned());
    let mut replacements = 0;
    for (edit, number) in edits.iter().zip(1..) {
        let old = text::with_plain_breaks(&edit.old);
        let result = if old.is_empty() {
            if !text.is_empty() {
                return Err(EditError::EmptyOld { edit: number });
            }
            text.replaced([0], 0, &edit.new, MAX_FILE_BYTES)
        } else {
            let first = require_fit(edit, number, text.plain(), &old, path)?;
            match edit.occurrences {
                Occurrences::One => text.replaced([first], old.len(), &edit.new, MAX_FILE_BYTES),
                Occurrences::All => {
                    let places = text.plain().match_indices(&*old).map(|(at, _)| at);
                    text.replaced(places, old.len(), &edit.new, MAX_FILE_BYTES)
                }
            }
        };
        let (edited, count) = result.map_err(|bytes| EditError::TooLong {
            path: path.display().to_string(),
            bytes,
            after: true,
        })?;
        text = edited;
        replacements += count;
    }
    Ok((text.into_text(), replacements))
}

/// Where `old` begins, if it occurs as often as it must.
fn require_fit(
    edit: &Edit,
    number: usize,
    text: &str,
    old: &str,
    path: &Path,
) -> Result<usize, EditError> {
    // Overlapping occurrences count too: which of them is meant would be a guess.
    let step = old.chars().next().map_or(1, char::len_utf8);
    let next = |from: usize| text.get(from..)?.find(old).map(|at| from + at);
    let Some(first) = next(0) else {
        return Err(EditError::NoMatch {
            edit: number,
            path: path.display().to_string(),
            hint: Hint::find(text, old, &text::with_plain_breaks(&edit.new)),
        });
    };
    if edit.occurrences == Occurrences::All || next(first + step).is_none() {
        return Ok(first);
    }
    let places = std::iter::successors(Some(first), |place| next(place + step));
    let lines = lines_of(text, places.take(MAX_LINES_NAMED));
    Err(EditError::Ambiguous {
        edit: number,
        path: path.display().to_string(),
        occurrences: text.matches(old).count().max(lines.len()),
        lines,
    })
}

/// The lines, from 1, of places in order.
fn lines_of(text: &str, places: impl Iterator<Item = usize>) -> Vec<usize> {
    let (mut line, mut counted) = (1, 0);
    places
        .map(|place| {
            line += text::breaks_in(&text[counted..place]);
            counted = place;
            line
        })
        .collect()
}

/// What an error adds when edits came before.
fn earlier(edit: usize) -> &'static str {
    if edit > 1 {
        " after the edits before it"
    } else {
        ""
    }
}

fn lines_named(lines: &[usize], occurrences: usize) -> impl fmt::Display {
    let named: Vec<_> = lines.iter().map(usize::to_string).collect();
    let more = if occurrences > lines.len() {
        " …"
    } else {
        ""
    };
    format!("lines {}{more}", named.join(", "))
}

#[cfg(test)]
mod tests;
