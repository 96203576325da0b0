//! Why a text does not occur where a call says it does: what the file has instead, in a few lines. Nothing is changed by it.

use std::collections::HashMap;
use std::fmt;

use super::text::breaks_in;

/// Most lines of the file that a hint shows.
const MAX_LINES: usize = 12;
/// Longest piece of a line that a hint shows, in bytes.
const MAX_LINE_BYTES: usize = 160;
/// Most lines that are shown because they are similar.
const MAX_SIMILAR: usize = 3;
/// So much of a line is looked at for similarity, in bytes.
const COMPARED_BYTES: usize = 400;
/// Shared pairs of bytes, in percent of all, from which on two lines are similar.
const SIMILAR_PERCENT: usize = 50;
/// Fewer characters say too little to point at them.
const TELLING_CHARACTERS: usize = 8;
/// Most lines compared in search of the place where a text begins to differ.
const MAX_COMPARISONS: usize = 500_000;

/// What the file has instead of the text that does not occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The same but for white space, letter case or characters that look alike.
    Nearly {
        /// The first difference: what the file has, and what the text has.
        difference: [Option<char>; 2],
        /// The line of the file it is in, from 1.
        line: usize,
        /// The lines of the file, at most twelve.
        lines: Vec<Line>,
    },
    /// The same if escapes such as `\n` and `\"` are taken for what they stand for, or the other way round.
    Escaped {
        /// The line it begins in, from 1.
        line: usize,
        /// Whether it is the file that has the escapes.
        in_file: bool,
    },
    /// What should be put there is there.
    AlreadyThere {
        /// The line it begins in, from 1.
        line: usize,
    },
    /// The first lines are there, another line than given follows.
    Begins {
        /// The first of the lines that agree, from 1.
        line: usize,
        /// How many agree.
        agreeing: usize,
        /// What the text goes on with.
        given: String,
        /// What the file goes on with; absent at its end.
        found: Option<Line>,
    },
    /// The lines of the file most similar to the longest line of the text, at most three.
    Similar(Vec<Line>),
    /// The text is white space only.
    Blank,
    /// Nothing resembles it in a file of so many lines.
    Nothing(usize),
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// Its text, perhaps shortened.
    pub text: String,
}

impl Hint {
    /// Looks for what `old`, which does not occur in `text`, may mean. All have plain line breaks.
    pub(super) fn find(text: &str, old: &str, new: &str) -> Self {
        if old.trim().is_empty() {
            return Self::Blank;
        }
        nearly(text, old, Folding::WhiteSpace)
            .or_else(|| escaped(text, old))
            .or_else(|| already_there(text, new))
            .or_else(|| nearly(text, old, Folding::Characters))
            .or_else(|| begins(text, old))
            .or_else(|| similar(text, old))
            .unwrap_or_else(|| Self::Nothing(text.lines().count()))
    }
}

/// What is not told apart.
#[derive(Clone, Copy, PartialEq)]
enum Folding {
    /// No white space counts.
    WhiteSpace,
    /// Nor letter case, nor which of several similar quotes or dashes it is.
    Characters,
}

impl Folding {
    fn fold(self, text: &str) -> impl Iterator<Item = (usize, char)> {
        text.char_indices()
            .filter(|(_, character)| !character.is_whitespace() && *character != '\u{feff}')
            .map(move |(at, character)| match self {
                Self::WhiteSpace => (at, character),
                Self::Characters => (at, plain_character(character)),
            })
    }

    fn folded(self, text: &str) -> String {
        self.fold(text).map(|(_, character)| character).collect()
    }
}

/// What people, and models, type for it.
fn plain_character(character: char) -> char {
    match character {
        '\u{2018}'..='\u{201b}' | '\u{2032}' | '`' | '\u{b4}' => '\'',
        '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{ab}' | '\u{bb}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        other => other.to_lowercase().next().unwrap_or(other),
    }
}

fn nearly(text: &str, old: &str, folding: Folding) -> Option<Hint> {
    let (folded, wanted) = (folding.folded(text), folding.folded(old));
    let found = folded.find(&wanted)?;
    let before = folded[..found].chars().count();
    let first = folding.fold(text).nth(before)?.0;
    let last = folding
        .fold(&text[first..])
        .nth(wanted.chars().count() - 1)?;
    let end = first + last.0;

    let lead = &old[..old.len() - old.trim_start().len()];
    let start = if text[..first].ends_with(lead) {
        first - lead.len()
    } else if lead.contains('\n') {
        text[..first].trim_end().len()
    } else {
        text[..first].trim_end_matches([' ', '\t']).len()
    };
    let (mut file, mut given) = (text[start..].char_indices(), old.chars());
    let (at, difference) = loop {
        let (here, wanted) = (file.next(), given.next());
        let found = here.map(|(_, character)| character);
        if found != wanted || wanted.is_none() {
            let at = here.map_or(text.len(), |(at, _)| start + at);
            break (at, [found, wanted]);
        }
    };
    Some(Hint::Nearly {
        difference,
        line: line_at(text, at),
        lines: lines_between(text, start.max(line_start(text, first)), end),
    })
}

fn escaped(text: &str, old: &str) -> Option<Hint> {
    let pairs = [
        ("\\n", "\n"),
        ("\\t", "\t"),
        ("\\\"", "\""),
        ("\\'", "'"),
        ("\\\\", "\\"),
    ];
    let meant = pairs
        .iter()
        .fold(old.to_owned(), |old, (escape, is)| old.replace(escape, is));
    let breaks = old.replace('\n', "\\n").replace('\t', "\\t");
    let quotes = old.replace('\\', "\\\\").replace('"', "\\\"");
    let both = quotes.replace('\n', "\\n").replace('\t', "\\t");
    let candidates = [(meant, false), (breaks, true), (quotes, true), (both, true)];
    let mut found = candidates.into_iter();
    found.find_map(|(candidate, in_file)| {
        let at = text
            .find(&candidate)
            .filter(|_| !candidate.trim().is_empty())?;
        Some(Hint::Escaped {
            line: line_at(text, at),
            in_file,
        })
    })
}

fn already_there(text: &str, new: &str) -> Option<Hint> {
    if new.trim().chars().count() < TELLING_CHARACTERS {
        return None;
    }
    let at = text.find(new)?;
    Some(Hint::AlreadyThere {
        line: line_at(text, at),
    })
}

/// The longest run of lines with which `old` begins.
fn begins(text: &str, old: &str) -> Option<Hint> {
    let wanted: Vec<_> = old.split('\n').take(MAX_COMPARISONS).collect();
    let lines: Vec<_> = text.split('\n').take(MAX_COMPARISONS).collect();
    let (mut best, mut compared) = ((0, 0), 0);
    for start in 0..lines.len() {
        let agreeing = if lines[start].ends_with(wanted[0]) {
            let pairs = lines[start..].iter().zip(&wanted).skip(1);
            1 + pairs.take_while(|(line, wanted)| line == wanted).count()
        } else {
            0
        };
        compared += 1 + agreeing;
        if agreeing > best.1 {
            best = (start, agreeing);
        }
        if compared > MAX_COMPARISONS {
            break;
        }
    }
    let (start, agreeing) = best;
    let telling: usize = wanted[..agreeing]
        .iter()
        .map(|line| line.trim().chars().count())
        .sum();
    let given = wanted.get(agreeing)?;
    (telling >= TELLING_CHARACTERS).then(|| Hint::Begins {
        line: start + 1,
        agreeing,
        given: shortened(given),
        found: lines.get(start + agreeing).map(|text| Line {
            number: start + agreeing + 1,
            text: shortened(text),
        }),
    })
}

/// The lines that share most pairs of neighbouring bytes with the longest line of `old`.
fn similar(text: &str, old: &str) -> Option<Hint> {
    let wanted = old.lines().map(str::trim).max_by_key(|line| line.len())?;
    // How often the wanted line has a pair, how often the line looked at has had it, and the number of that line.
    let mut pairs: HashMap<[u8; 2], (usize, usize, usize)> = HashMap::new();
    for pair in pairs_of(wanted) {
        pairs.entry(pair).or_default().0 += 1;
    }
    let count = pairs_of(wanted).count();
    let mut best: Vec<(usize, Line)> = Vec::new();
    for (text, number) in text.lines().zip(1..) {
        let (mut shared, mut all): (usize, usize) = (0, count);
        for pair in pairs_of(text.trim()) {
            all += 1;
            let Some((wanted, seen, line)) = pairs.get_mut(&pair) else {
                continue;
            };
            if *line != number {
                (*line, *seen) = (number, 0);
            }
            if seen < wanted {
                *seen += 1;
                shared += 1;
            }
        }
        let percent = (200 * shared).checked_div(all).unwrap_or(0);
        let least = best.last().filter(|_| best.len() == MAX_SIMILAR);
        if percent >= SIMILAR_PERCENT && least.is_none_or(|(least, _)| percent > *least) {
            let place = best.partition_point(|(other, _)| *other >= percent);
            let text = shortened(text);
            best.insert(place, (percent, Line { number, text }));
            best.truncate(MAX_SIMILAR);
        }
    }
    let lines: Vec<_> = best.into_iter().map(|(_, line)| line).collect();
    (!lines.is_empty()).then_some(Hint::Similar(lines))
}

fn pairs_of(line: &str) -> impl Iterator<Item = [u8; 2]> {
    let bytes = &line.as_bytes()[..line.len().min(COMPARED_BYTES)];
    bytes.windows(2).map(|pair| [pair[0], pair[1]])
}

/// The line, from 1, of a place.
fn line_at(text: &str, place: usize) -> usize {
    breaks_in(&text[..place]) + 1
}

fn line_start(text: &str, place: usize) -> usize {
    text[..place].rfind('\n').map_or(0, |last| last + 1)
}

/// The lines from the one of `start` to the one of `end`.
fn lines_between(text: &str, start: usize, end: usize) -> Vec<Line> {
    let first = line_start(text, start);
    let count = breaks_in(&text[first..end]) + 1;
    let lines = text[first..].split('\n').zip(line_at(text, start)..);
    lines
        .take(count.min(MAX_LINES))
        .map(|(text, number)| Line {
            number,
            text: shortened(text),
        })
        .collect()
}

/// The line as it can be shown: its beginning, without characters that could steer a terminal.
fn shortened(line: &str) -> String {
    let shown = &line[..line.floor_char_boundary(MAX_LINE_BYTES)];
    let mut text: String = shown
        .chars()
        .map(|character| {
            if character.is_control() && character != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            }
        })
        .collect();
    if shown.len() < line.len() {
        text.push('…');
    }
    text
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nearly {
                difference: [found, given],
                line,
                lines,
            } => {
                let (found, given) = (Named(*found), Named(*given));
                write!(
                    f,
                    "the file has it a little differently; first, in line {line}, {found} where `old` has {given}. The file has"
                )?;
                write_lines(f, lines)
            }
            Self::Escaped { line, in_file } => {
                let (escapes, characters) = if *in_file {
                    ("the file", "`old`")
                } else {
                    ("`old`", "the file")
                };
                write!(
                    f,
                    "from line {line} on it is there, but {escapes} has escapes (a backslash and a letter or quote) where {characters} \
                     has the characters themselves"
                )
            }
            Self::AlreadyThere { line } => write!(
                f,
                "`new` is there already, from line {line} on; perhaps the edit was made before"
            ),
            Self::Begins {
                line,
                agreeing,
                given,
                found,
            } => {
                match agreeing {
                    1 => write!(f, "line {line} is")?,
                    more => write!(f, "lines {line} to {} are", line + more - 1)?,
                }
                f.write_str(" as given, then `old` has")?;
                write!(f, "\n    | {given}\nand the file ")?;
                f.write_str(if found.is_some() { "has" } else { "ends" })?;
                write_lines(f, found)
            }
            Self::Similar(lines) => {
                f.write_str("the most similar lines are")?;
                write_lines(f, lines)
            }
            Self::Blank => f.write_str("it is white space only; give text around it too"),
            Self::Nothing(lines) => write!(
                f,
                "none of its {lines} lines is similar; read the file again"
            ),
        }
    }
}

fn write_lines<'a>(
    f: &mut fmt::Formatter<'_>,
    lines: impl IntoIterator<Item = &'a Line>,
) -> fmt::Result {
    for Line { number, text } in lines {
        write!(f, "\n{number:4}| {text}")?;
    }
    Ok(())
}

/// A character by a name that shows which it is.
struct Named(Option<char>);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("its end"),
            Some(' ') => f.write_str("a space"),
            Some('\t') => f.write_str("a tab"),
            Some('\n') => f.write_str("a line break"),
            Some(character) if character.is_ascii_graphic() => write!(f, "`{character}`"),
            Some(character) if character.is_control() || character.is_whitespace() => {
                write!(f, "U+{:04X}", u32::from(character))
            }
            Some(character) => write!(f, "`{character}` (U+{:04X})", u32::from(character)),
        }
    }
}
