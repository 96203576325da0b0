//! What an edit changed, as a unified diff of bounded length made in bounded time.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use similar::{DiffOp, TextDiff};

use super::text::{breaks_in, with_plain_breaks};

/// Longest diff, in bytes.
const MAX_BYTES: usize = 8 << 10;
/// Between the first change and the last, so much is compared, in bytes.
const MAX_COMPARED: usize = 1 << 20;
/// Lines shown around a change.
const CONTEXT: usize = 3;
/// Lines compared around what changed. More than are shown: of equal lines the differ may take others for the new ones.
const MARGIN: usize = CONTEXT + 20;
/// After this time the differ takes what it has: a correct diff, perhaps not the shortest one.
const TIME: Duration = Duration::from_secs(1);

/// The diff, and whether it was cut behind a whole line.
pub(super) fn unified(before: &str, after: &str, path: &Path) -> (String, bool) {
    let (before, after) = (with_plain_breaks(before), with_plain_breaks(after));
    let from = same_beginning(&before, &after);
    let (mut old, mut new) = (&before[from..], &after[from..]);
    let same = same_end(old, new);
    old = &old[..old.len() - same];
    new = &new[..new.len() - same];
    let compared = (beginning(old), beginning(new));
    let is_part = compared != (old, new);

    let diff = TextDiff::configure()
        .timeout(TIME)
        .diff_lines(compared.0, compared.1);
    let mut groups = diff.grouped_ops(CONTEXT);
    if is_part {
        // At its end, what was compared differs only because it was cut.
        groups.pop();
    }
    let mut written = Bounded(String::new());
    let first_line = breaks_in(&before[..from]) + 1;
    let path = path.display();
    let result = write!(written, "--- {path}\n+++ {path}\n").and_then(|()| {
        let mut groups = groups.iter();
        groups.try_for_each(|group| write_hunk(&mut written, &diff, group, first_line))
    });
    let Bounded(mut text) = written;
    if result.is_err() {
        let lines = text.rfind('\n').map_or(0, |last| last + 1);
        text.truncate(lines);
    }
    (text, is_part || result.is_err())
}

fn write_hunk(
    to: &mut Bounded,
    diff: &TextDiff<'_, '_, '_, str>,
    group: &[DiffOp],
    first_line: usize,
) -> fmt::Result {
    // A group begins with lines that are the same, or at the beginning of what was compared. Where operations that only delete
    // or insert stand on the other side is not reliable, so lengths are added up.
    let (mut old_start, mut new_start) = (0, 0);
    if let Some(DiffOp::Equal {
        old_index,
        new_index,
        ..
    }) = group.first()
    {
        (old_start, new_start) = (*old_index, *new_index);
    }
    let range = |start: usize, length: usize| {
        // Of no lines, the one before is named.
        let line = first_line + start - usize::from(length == 0);
        format!("{line},{length}")
    };
    let old = range(old_start, group.iter().map(|op| op.old_range().len()).sum());
    let new = range(new_start, group.iter().map(|op| op.new_range().len()).sum());
    writeln!(to, "@@ -{old} +{new} @@")?;
    for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
        write!(to, "{}{}", change.tag(), change.value())?;
        if change.missing_newline() {
            to.write_str("\n\\ No newline at end of file\n")?;
        }
    }
    Ok(())
}

/// The bytes before the first lines that are compared.
fn same_beginning(before: &str, after: &str) -> usize {
    let pairs = before.bytes().zip(after.bytes());
    let same = pairs.take_while(|(one, other)| one == other).count();
    let mut breaks = before.as_bytes()[..same]
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    breaks.nth(MARGIN).map_or(0, |(at, _)| at + 1)
}

/// The bytes behind the last lines that are compared.
fn same_end(before: &str, after: &str) -> usize {
    let pairs = before.bytes().rev().zip(after.bytes().rev());
    let same = pairs.take_while(|(one, other)| one == other).count();
    let end = &before.as_bytes()[before.len() - same..];
    let mut breaks = end.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let compared = breaks.nth(MARGIN).map_or(same, |(at, _)| at + 1);
    same - compared
}

/// The lines at the beginning that are compared.
fn beginning(text: &str) -> &str {
    let most = &text[..text.floor_char_boundary(MAX_COMPARED)];
    match most.rfind('\n') {
        Some(last) if most.len() < text.len() => &most[..=last],
        _ => text,
    }
}

/// A text that takes no more than its bound, so that nothing longer is ever made.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_BYTES - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room {
            return Err(fmt::Error);
        }
        Ok(())
    }
}
