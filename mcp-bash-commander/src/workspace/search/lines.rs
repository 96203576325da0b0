//! The matching lines of one content, and what is reported of them, clamped.

use std::ops::Range;

use regex::bytes::Regex;

use super::{Bound, Found, Match, Report, Snippet};

/// Contents are looked through in pieces of about this many bytes, each at once if nothing in it matches; between two pieces a
/// search can be cancelled.
const PIECE_BYTES: usize = 64 << 10;
/// Longer lines are looked through in parts that overlap, so that a search can be cancelled between them.
const PART_BYTES: usize = 256 << 10;
/// By so much; a match up to this length is found wherever it is.
const OVERLAP_BYTES: usize = 16 << 10;
/// So much of a line is reported, in bytes.
const SNIPPET_BYTES: usize = 500;
/// So much text is reported by one search, in bytes.
const MAX_REPORTED_BYTES: usize = 256 << 10;

/// A line of a content, with its first match.
pub(super) struct MatchingLine {
    number: usize,
    /// Without its line break.
    line: Range<usize>,
    matched: Range<usize>,
}

/// The matching lines of a content, one after the other.
pub(super) struct Matches<'a> {
    regex: &'a Regex,
    content: &'a [u8],
    cancelled: &'a dyn Fn() -> bool,
    /// Where the next line begins.
    at: usize,
    /// Its number, from 1.
    number: usize,
    /// Up to here something may match.
    promising: usize,
}

impl<'a> Matches<'a> {
    pub(super) fn new(
        regex: &'a Regex,
        content: &'a [u8],
        cancelled: &'a dyn Fn() -> bool,
    ) -> Self {
        Self {
            regex,
            content,
            cancelled,
            at: 0,
            number: 1,
            promising: 0,
        }
    }

    /// Goes on to the piece behind, over pieces without a match; nothing if the search is cancelled or the content ends.
    fn find_promising(&mut self) -> Option<()> {
        while self.at >= self.promising {
            if self.at >= self.content.len() || (self.cancelled)() {
                return None;
            }
            let end = behind_break(self.content, self.at + PIECE_BYTES - 1);
            let piece = &self.content[self.at..end];
            if piece.len() > PART_BYTES || self.regex.is_match(piece) {
                self.promising = end;
            } else {
                self.number += piece.split(|byte| *byte == b'\n').count() - 1;
                self.at = end;
            }
        }
        Some(())
    }

    /// The first match in a line.
    fn match_in(&self, line: &Range<usize>) -> Option<Range<usize>> {
        let mut from = line.start;
        loop {
            let end = line.end.min(from + PART_BYTES + OVERLAP_BYTES);
            if let Some(found) = self.regex.find_at(&self.content[..end], from) {
                return Some(found.range());
            }
            if end == line.end || (self.cancelled)() {
                return None;
            }
            from += PART_BYTES;
        }
    }
}

impl Iterator for Matches<'_> {
    type Item = MatchingLine;

    fn next(&mut self) -> Option<MatchingLine> {
        loop {
            self.find_promising()?;
            let (start, number) = (self.at, self.number);
            self.at = behind_break(self.content, start);
            self.number += 1;
            let line = start..without_break(self.content, start, self.at);
            if let Some(matched) = self.match_in(&line) {
                return Some(MatchingLine {
                    number,
                    line,
                    matched,
                });
            }
        }
    }
}

/// Takes matches into the result until a bound is met, and counts the others.
pub(super) struct Reporter {
    report: Report,
    results_left: usize,
    bytes_left: usize,
}

impl Reporter {
    pub(super) fn new(report: Report, most: usize) -> Self {
        Self {
            report,
            results_left: most,
            bytes_left: MAX_REPORTED_BYTES,
        }
    }

    pub(super) fn report(&mut self, path: &str, mut matches: Matches<'_>, found: &mut Found) {
        let content = matches.content;
        match self.report {
            Report::Files => {
                if matches.next().is_some() {
                    found.total += 1;
                    if self.takes(path.len(), found) {
                        found.files.push(path.to_owned());
                    }
                }
            }
            Report::Lines { context } => {
                for matching in matches {
                    found.total += 1;
                    if self.results_left > 0 && self.bytes_left > 0 {
                        let result = matching.with_context(path, content, context);
                        if self.takes(result.bytes(), found) {
                            found.matches.push(result);
                        }
                    } else {
                        self.takes(0, found);
                    }
                }
            }
        }
    }

    /// Whether a result of so many bytes is still returned. The first that is not is the last that could be.
    fn takes(&mut self, bytes: usize, found: &mut Found) -> bool {
        if self.results_left == 0 {
            found.truncated.insert(Bound::Results);
            return false;
        }
        if bytes > self.bytes_left || self.bytes_left == 0 {
            self.bytes_left = 0;
            found.truncated.insert(Bound::Bytes);
            return false;
        }
        self.results_left -= 1;
        self.bytes_left -= bytes;
        true
    }
}

impl MatchingLine {
    fn with_context(&self, path: &str, content: &[u8], lines: usize) -> Match {
        let mut before = Vec::new();
        let mut start = self.line.start;
        while before.len() < lines && start > 0 {
            let end = start;
            start = content[..end - 1]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            let line = start..without_break(content, start, end);
            before.push(snippet(content, &line, start));
        }
        before.reverse();
        let mut after = Vec::new();
        let mut start = behind_break(content, self.line.end);
        while after.len() < lines && start < content.len() {
            let end = behind_break(content, start);
            let line = start..without_break(content, start, end);
            after.push(snippet(content, &line, start));
            start = end;
        }
        let in_front = &content[self.line.start..self.matched.start];
        Match {
            path: path.to_owned(),
            line: self.number,
            column: String::from_utf8_lossy(in_front).chars().count() + 1,
            text: snippet(content, &self.line, self.matched.start),
            before,
            after,
        }
    }
}

impl Match {
    /// The bytes of its texts.
    fn bytes(&self) -> usize {
        let around = self.before.iter().chain(&self.after);
        let lines: usize = around.map(|snippet| snippet.text.len()).sum();
        self.path.len() + self.text.text.len() + lines
    }
}

/// Behind the first line break from a place on, or the end.
fn behind_break(content: &[u8], from: usize) -> usize {
    let rest = content.get(from..).unwrap_or_default();
    rest.iter()
        .position(|byte| *byte == b'\n')
        .map_or(content.len(), |at| from + at + 1)
}

/// The end of the line without `\n` or `\r\n`.
fn without_break(content: &[u8], start: usize, end: usize) -> usize {
    let line = &content[start..end];
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    start + line.strip_suffix(b"\r").unwrap_or(line).len()
}

/// The line, or so much of it that a fifth stands before the place.
fn snippet(content: &[u8], line: &Range<usize>, place: usize) -> Snippet {
    let latest = line.end.saturating_sub(SNIPPET_BYTES).max(line.start);
    let mut start = place
        .saturating_sub(SNIPPET_BYTES / 5)
        .clamp(line.start, latest);
    let mut end = line.end.min(start + SNIPPET_BYTES);
    // Both ends move to the beginning of a character, at most by the three bytes that may follow one.
    let is_inside = |at: usize| content.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    if start > line.start {
        start = (start..end.min(start + 4))
            .find(|at| !is_inside(*at))
            .unwrap_or(start);
    }
    if end < line.end {
        end = (end.saturating_sub(3).max(start)..=end)
            .rev()
            .find(|at| !is_inside(*at))
            .unwrap_or(end);
    }
    Snippet {
        text: String::from_utf8_lossy(&content[start..end]).into_owned(),
        cut_before: start > line.start,
        cut_after: end < line.end,
    }
}
