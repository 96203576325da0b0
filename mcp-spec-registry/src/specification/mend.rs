//! Finds the line to paste in place of one that YAML refuses: guesses what was meant, and keeps a guess only if it parses.

use std::borrow::Cow;

use super::document::{self, Value};
use super::yaml_error::{Fault, YamlError};

/// The longest line worth guessing at.
const MAX_LINE: usize = 400;
/// How many bytes all guesses for one text may have parsed.
const MAX_PARSED: usize = 3 * 1024 * 1024;

/// A line that parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mended {
    /// Which line it replaces, counted from 1.
    pub(super) line: u32,
    /// What to paste; more than one line where the one held two things.
    pub(super) corrected: String,
    /// Why.
    pub(super) reason: &'static str,
}

/// What is left to try for one text.
pub(super) struct Effort {
    bytes: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { bytes: MAX_PARSED }
    }
}

/// A guess at one line.
struct Guess {
    at: usize,
    line: String,
    reason: &'static str,
}

const QUOTES: &str =
    "put the value in quotes: to YAML its first sign or the colon in it means something else";
const SPACES: &str = "indent with spaces, not tabs";
const COLON: &str = "put a colon and a space between key and value";
const INDENT: &str = "indent it like the lines it belongs with";
const CLOSE: &str = "close what was opened";
const OWN_LINE: &str = "begin the list on a line of its own";

/// Finds a line that, put in place of a refused one, lets the text parse at least beyond it.
pub(super) fn mend(text: &str, error: &YamlError, effort: &mut Effort) -> Option<Mended> {
    // Which of two values is meant, or how to split a text, only its author knows.
    let unmendable = matches!(
        error.fault,
        Fault::DuplicateKey { .. }
            | Fault::SecondDocument
            | Fault::TooManyNodes(_)
            | Fault::TooDeep(_)
            | Fault::NonFinite(_)
    );
    if unmendable {
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let at = (error.place.line as usize - 1).min(lines.len().checked_sub(1)?);
    let above = (0..at).rev().find(|index| !lines[*index].trim().is_empty());
    let mut guesses = Vec::new();
    // The parser notices a tab where the text before it began, up to a line above.
    for line in at..lines.len().min(at + 2) {
        guess_spaces(&lines, line, &mut guesses);
    }
    if let Some(above) = above {
        guess_colon(&lines, above, &mut guesses);
    }
    for line in std::iter::once(at).chain(above) {
        if lines[line].len() <= MAX_LINE {
            guess(&lines, line, &mut guesses);
        }
    }
    guesses
        .into_iter()
        .find(|guess| helps(&lines, guess, at, effort))
        .map(|guess| Mended {
            line: u32::try_from(guess.at + 1).unwrap_or(u32::MAX),
            corrected: guess.line,
            reason: guess.reason,
        })
}

/// The text with a line replaced.
pub(super) fn replaced(text: &str, line: u32, by: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    if let Some(slot) = lines.get_mut((line as usize).saturating_sub(1)) {
        *slot = by;
    }
    lines.join("\n") + "\n"
}

/// Whether the text with the guess in it parses, or fails only further down.
fn helps(lines: &[&str], guess: &Guess, failed_at: usize, effort: &mut Effort) -> bool {
    if guess.line == lines[guess.at] {
        return false;
    }
    let mut tried: Vec<Cow<'_, str>> = lines.iter().map(|line| Cow::from(*line)).collect();
    if guess.reason == SPACES {
        indent_alike(&mut tried, guess);
    }
    tried[guess.at] = Cow::from(guess.line.as_str());
    let tried = tried.join("\n") + "\n";
    let Some(left) = effort.bytes.checked_sub(tried.len()) else {
        return false;
    };
    effort.bytes = left;
    match document::parse(&tried) {
        Ok(node) => matches!(node.value, Value::Map(_)),
        Err(error) => {
            let last_changed = failed_at.max(guess.at + guess.line.matches('\n').count());
            // Lines are counted from 1 in places and from 0 here.
            error.place.line as usize > last_changed + 1
        }
    }
}

/// Indents the lines below a tabbed one as the guess does; their tabs would hide whether it is right.
fn indent_alike(lines: &mut [Cow<'_, str>], guess: &Guess) {
    let tabs = |line: &str| line.len() - line.trim_start_matches('\t').len();
    let width = guess.line.len() - guess.line.trim_start().len();
    let Some(each) = width.checked_div(tabs(&lines[guess.at])) else {
        return;
    };
    for line in &mut lines[guess.at + 1..] {
        let deep = tabs(line);
        if deep > 0 {
            *line = Cow::from(" ".repeat(each * deep) + &line[deep..]);
        }
    }
}

/// `spec_id:test` and `version 2.1` swallow the next line and fail there.
fn guess_colon(lines: &[&str], at: usize, guesses: &mut Vec<Guess>) {
    let Parts { lead, rest } = Parts::of(lines[at]);
    let word_end = rest
        .find(|character: char| !character.is_alphanumeric() && !matches!(character, '_' | '-'));
    let Some(word_end) = word_end.filter(|end| *end > 0) else {
        return;
    };
    let (key, after) = rest.split_at(word_end);
    let value = match after.strip_prefix(':') {
        Some(value) if !value.is_empty() && !value.starts_with(' ') => value,
        None if !after.contains(": ") && !after.ends_with(':') => after.trim_start(),
        _ => return,
    };
    for value in [value.to_owned(), quoted(value)] {
        guesses.push(Guess {
            at,
            line: format!("{lead}{key}: {value}"),
            reason: COLON,
        });
    }
}

/// A tab or a no-break space in a line, most of all where it is indented.
fn guess_spaces(lines: &[&str], at: usize, guesses: &mut Vec<Guess>) {
    let line = lines[at];
    if line.len() > MAX_LINE || !line.contains(['\t', '\u{a0}']) {
        return;
    }
    let body = line
        .trim_start_matches([' ', '\t', '\u{a0}'])
        .replace(['\t', '\u{a0}'], " ");
    for width in indentation_above(lines, at).into_iter().chain([2, 4, 6, 8]) {
        guesses.push(Guess {
            at,
            line: format!("{}{body}", " ".repeat(width)),
            reason: SPACES,
        });
    }
}

fn guess(lines: &[&str], at: usize, guesses: &mut Vec<Guess>) {
    let mut push = |line: String, reason| guesses.push(Guess { at, line, reason });
    let line = lines[at];
    let Parts { lead, rest } = Parts::of(line);
    let is_item = lead.trim_start().starts_with('-');
    let (body, comment) = match rest.find(" #") {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let value = key_and_value(body).map_or(body, |(_, value)| value);
    for (open, close) in [('[', "]"), ('{', "}")] {
        if value.starts_with(open) {
            push(format!("{lead}{body}{close}{comment}"), CLOSE);
        }
    }
    if let Some((key, value)) = key_and_value(body) {
        if let Some(item) = value.strip_prefix("- ") {
            let indent = " ".repeat(lead.chars().count() + 2);
            push(format!("{lead}{key}:\n{indent}- {item}{comment}"), OWN_LINE);
        } else if !value.is_empty() {
            push(format!("{lead}{key}: {}{comment}", quoted(value)), QUOTES);
        }
    }
    if is_item && !body.is_empty() {
        push(format!("{lead}{}{comment}", quoted(body)), QUOTES);
    }
    // `-foo` beside `- bar`.
    if let Some(item) = rest
        .strip_prefix('-')
        .filter(|item| !item.starts_with(['-', ' ']))
    {
        push(format!("{lead}- {item}"), "put a space after the dash");
    }
    guess_colon(lines, at, guesses);
    let body = line.trim_start();
    for width in indentation_above(lines, at) {
        guesses.push(Guess {
            at,
            line: format!("{}{body}", " ".repeat(width)),
            reason: INDENT,
        });
    }
}

/// The different indentations of the lines above, nearest first.
fn indentation_above(lines: &[&str], at: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines[..at]
        .iter()
        .rev()
        .filter(|line| !line.trim().is_empty())
    {
        let width = line.len() - line.trim_start_matches(' ').len();
        // Below a key without a value comes something deeper.
        if widths.is_empty() && line.trim_end().ends_with([':', '|', '>']) {
            widths.push(width + 2);
        }
        if !widths.contains(&width) {
            widths.push(width);
        }
        if width == 0 || widths.len() >= 5 {
            break;
        }
    }
    widths
}

/// A line's indentation with its list dashes, and what follows.
struct Parts<'line> {
    lead: &'line str,
    rest: &'line str,
}

impl<'line> Parts<'line> {
    fn of(line: &'line str) -> Self {
        let mut end = line.len() - line.trim_start().len();
        while let Some(after) = line[end..].strip_prefix("- ") {
            end = line.len() - after.trim_start().len();
        }
        let (lead, rest) = line.split_at(end);
        Self {
            lead,
            rest: rest.trim_end(),
        }
    }
}

/// The key before the first colon and what follows; a quoted text has none.
fn key_and_value(body: &str) -> Option<(&str, &str)> {
    let (key, value) = body.split_once(':')?;
    let plain = !key.is_empty()
        && !key.starts_with([
            '"', '\'', '[', '{', '%', '@', '`', '&', '*', '!', '>', '|', ',',
        ]);
    (plain && (value.is_empty() || value.starts_with(' '))).then(|| (key, value.trim()))
}

/// The text in the quotes that fit it; quotes it already has, whole or half, are taken off first.
fn quoted(text: &str) -> String {
    let inner = match text.as_bytes() {
        [b'"', .., b'"'] | [b'\'', .., b'\''] => &text[1..text.len() - 1],
        [b'"' | b'\'', ..] if text.matches(['"', '\'']).count() == 1 => &text[1..],
        _ => text,
    };
    if inner.contains(['"', '\\']) {
        format!("'{}'", inner.replace('\'', "''"))
    } else {
        format!("\"{inner}\"")
    }
}
