//! A word of a command as far as it is known before the command runs: its literal characters, and where anything may stand.

use std::cell::OnceCell;

/// A part of a word after quotes and escapes are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// This character.
    Char(char),
    /// Any one character: `?` or `[…]` of a pattern.
    One,
    /// Any characters or none: an expansion, or `*` of a pattern.
    Many,
}

/// What becomes of a word when the command runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    /// The word that stands there.
    #[default]
    Known,
    /// One word, of which a part is not known.
    One,
    /// No word at all, or one, or several.
    Any,
}

/// A word of a simple command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pieces: Vec<Piece>,
    /// The text, once somebody asked for it; the word is complete then.
    text: OnceCell<Option<String>>,
    extent: Extent,
    /// Part of it was quoted, so that it is neither a reserved word nor a number before a redirection.
    pub(super) quoted: bool,
    /// It begins like an assignment.
    pub(super) assigns: bool,
}

impl Word {
    /// A word that is known as a whole.
    pub(super) fn literal(text: &str) -> Self {
        Self {
            pieces: text.chars().map(Piece::Char).collect(),
            ..Self::default()
        }
    }

    /// Stands for whatever may follow: the arguments that `xargs` adds.
    pub(super) fn anything() -> Self {
        let mut word = Self::default();
        word.push_unknown(true);
        word
    }

    pub(super) fn push(&mut self, character: char) {
        self.pieces.push(Piece::Char(character));
    }

    /// Adds a part whose value is not known; `splits` unless it is quoted.
    pub(super) fn push_unknown(&mut self, splits: bool) {
        self.pieces.push(Piece::Many);
        let extent = if splits { Extent::Any } else { Extent::One };
        self.extent = self.extent.max(extent);
    }

    /// Adds a part of a file name pattern.
    pub(super) fn push_pattern(&mut self, piece: Piece) {
        self.pieces.push(piece);
        self.extent = self.extent.max(Extent::One);
    }

    /// Makes the whole word unknown: it is a brace expansion.
    pub(super) fn forget(&mut self) {
        self.pieces.clear();
        self.push_unknown(true);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && !self.quoted
    }

    /// Whether it may turn into no word at all or into several.
    pub(super) fn splits(&self) -> bool {
        self.extent == Extent::Any
    }

    /// The text of the complete word, if all of it is known.
    pub(super) fn known(&self) -> Option<&str> {
        self.text
            .get_or_init(|| (self.extent == Extent::Known).then(|| self.shown()))
            .as_deref()
    }

    /// How a person reads it: `…` where the value is not known.
    pub(super) fn shown(&self) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Char(character) => *character,
                Piece::One => '?',
                Piece::Many => '…',
            })
            .collect()
    }

    /// Whether it begins with this character, or might.
    pub(super) fn may_begin_with(&self, first: char) -> bool {
        match self.pieces.first() {
            Some(Piece::Char(character)) => *character == first,
            Some(Piece::One | Piece::Many) => true,
            None => false,
        }
    }

    /// Whether it is `text`, or might turn into it.
    pub(super) fn may_be(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        fits(&self.pieces, &text)
    }

    /// Whether it begins with `start`, or might.
    pub(super) fn may_start_with(&self, start: &str) -> bool {
        let start: Vec<char> = start.chars().collect();
        for (place, piece) in self.pieces.iter().enumerate() {
            match (piece, start.get(place)) {
                (Piece::Many, _) | (_, None) => return true,
                (Piece::Char(have), Some(want)) if have != want => return false,
                _ => {}
            }
        }
        self.pieces.len() >= start.len()
    }
}

/// Linear with one place to come back to, like every matcher of `*`.
fn fits(pieces: &[Piece], text: &[char]) -> bool {
    let (mut piece, mut place) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    loop {
        match (pieces.get(piece), text.get(place)) {
            (None, None) => return true,
            (Some(Piece::Many), _) => {
                again = Some((piece + 1, place));
                piece += 1;
                continue;
            }
            (Some(Piece::One), Some(_)) => {
                piece += 1;
                place += 1;
                continue;
            }
            (Some(Piece::Char(have)), Some(want)) if have == want => {
                piece += 1;
                place += 1;
                continue;
            }
            _ => {}
        }
        match again {
            Some((after, from)) if from < text.len() => {
                again = Some((after, from + 1));
                piece = after;
                place = from + 1;
            }
            _ => return false,
        }
    }
}
