//! Text by who wrote it, so that no renderer can show one person's words as another's, or let any of them move a cursor.

use serde::{Deserialize, Serialize};
use shared::visible;

/// Words of an agent or another human, with control, bidirectional and zero-width characters shown by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prose(String);

impl Prose {
    /// These words, made visible.
    pub fn of(text: &str) -> Self {
        Self(visible::prose(text))
    }

    /// As it is shown; still to be escaped for HTML.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing to read.
    pub fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }
}

/// A path, command, name or other text that a machine reads: everything but printable ASCII as `\u{…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Machine(String);

impl Machine {
    /// One line; a line break in it is spelled out.
    pub fn of(text: &str) -> Self {
        Self(visible::machine(text, false))
    }

    /// A script or file whose lines stay lines.
    pub fn block(text: &str) -> Self {
        Self(visible::machine(text, true))
    }

    /// As it is shown; still to be escaped for HTML.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A part of a sentence of ours: our words, or a machine field set off from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The registry's own words.
    Words(String),
    /// Something a machine reads.
    Code(Machine),
}

/// A sentence of the registry that names machine fields without letting them pass for its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sentence(Vec<Piece>);

impl Sentence {
    /// A sentence without machine fields.
    pub fn words(words: impl Into<String>) -> Self {
        Self::default().then(words)
    }

    /// Goes on with our own words.
    #[must_use]
    pub fn then(mut self, words: impl Into<String>) -> Self {
        self.0.push(Piece::Words(words.into()));
        self
    }

    /// Goes on with a machine field.
    #[must_use]
    pub fn code(mut self, text: &str) -> Self {
        self.0.push(Piece::Code(Machine::of(text)));
        self
    }

    /// Goes on with machine fields, commas between them.
    #[must_use]
    pub fn codes<'a>(mut self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        for (position, text) in texts.into_iter().enumerate() {
            if position > 0 {
                self = self.then(", ");
            }
            self = self.code(text);
        }
        self
    }

    /// Goes on with another sentence.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Its parts in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }
}

impl std::fmt::Display for Sentence {
    /// For a terminal: machine fields between backticks.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Words(words) => f.write_str(words),
            Piece::Code(code) => write!(f, "`{}`", code.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_field_cannot_pass_for_our_words() {
        let sentence = Sentence::words("runs ")
            .codes(["a\u{202e}b", "ѕh"])
            .then(" once");
        assert_eq!(sentence.to_string(), "runs `a\\u{202e}b`, `\\u{455}h` once");
    }

    #[test]
    fn an_escape_sequence_in_prose_is_a_name_on_any_terminal() {
        let prose = Prose::of("fine\u{1b}[2K\u{1b}[1Aapproved");
        assert!(!prose.as_str().contains('\u{1b}'), "{}", prose.as_str());
        assert!(prose.as_str().contains("ESCAPE"));
    }
}
