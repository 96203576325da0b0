//! Reads a script character by character as the shell does, with line continuations taken out, and never for too long or too deep.

use super::word::Word;

/// Bytes of the longest script that is read.
pub(super) const MAX_BYTES: usize = 128 * 1024;
/// Most constructs inside each other; scripts written by people stay below 15.
const MAX_DEPTH: usize = 100;
/// Most characters looked at for one verdict: a few times the longest script, since inner scripts are read again.
const MAX_STEPS: usize = 16 * MAX_BYTES;

/// Why a script cannot be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    #[error("it nests more than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("it takes too long to read")]
    TooMuch,
    #[error("it does not parse: {0}")]
    Syntax(&'static str),
    #[error("shells read it differently: {0}")]
    Ambiguous(&'static str),
}

/// What reading may still cost, over all scripts of one verdict.
#[derive(Debug)]
pub(super) struct Budget {
    steps: usize,
    pub(super) depth: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            steps: MAX_STEPS,
            depth: 0,
        }
    }

    /// Takes what `steps` characters cost.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Unread> {
        self.steps = self.steps.checked_sub(steps).ok_or(Unread::TooMuch)?;
        Ok(())
    }

    /// Enters a construct; every call is followed by `leave`, unless reading ends with an error.
    pub(super) fn enter(&mut self) -> Result<(), Unread> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Unread::TooDeep);
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }
}

/// A here-document whose text begins behind the next line end.
#[derive(Debug)]
pub(super) struct HereDocument {
    pub(super) end: String,
    pub(super) quoted: bool,
    pub(super) strip_tabs: bool,
}

/// A place in a script, and what was found up to there.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: Vec<char>,
    pub(super) at: usize,
    pub(super) budget: &'a mut Budget,
    /// The words of every simple command found.
    pub(super) commands: &'a mut Vec<Vec<Word>>,
    pub(super) pending: Vec<HereDocument>,
    /// Here-documents of an enclosing script wait for their text.
    pub(super) pending_outside: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(
        text: &str,
        budget: &'a mut Budget,
        commands: &'a mut Vec<Vec<Word>>,
    ) -> Result<Self, Unread> {
        if text.len() > MAX_BYTES {
            return Err(Unread::TooLong);
        }
        if text.contains('\0') {
            return Err(Unread::Syntax("a NUL character"));
        }
        budget.spend(text.len())?;
        Ok(Self {
            text: text.chars().collect(),
            at: 0,
            budget,
            commands,
            pending: Vec::new(),
            pending_outside: false,
        })
    }

    /// The next character as it stands there.
    pub(super) fn raw(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    /// The next character; a backslash before a line end does not count.
    pub(super) fn peek(&mut self) -> Option<char> {
        while self.raw() == Some('\\') && self.text.get(self.at + 1) == Some(&'\n') {
            self.at += 2;
        }
        self.raw()
    }

    /// Takes the next character.
    pub(super) fn next(&mut self) -> Result<Option<char>, Unread> {
        let next = self.peek();
        self.skip_raw()?;
        Ok(next)
    }

    /// Takes the next character as it stands there.
    pub(super) fn skip_raw(&mut self) -> Result<(), Unread> {
        self.budget.spend(1)?;
        self.at += 1;
        Ok(())
    }

    /// Whether `expected` comes next; a look, nothing is taken.
    pub(super) fn sees(&mut self, expected: &str) -> bool {
        let from = self.at;
        let seen = expected.chars().all(|want| {
            let same = self.peek() == Some(want);
            self.at += 1;
            same
        });
        self.at = from;
        seen
    }

    /// Takes `expected` if it comes next.
    pub(super) fn takes(&mut self, expected: &str) -> Result<bool, Unread> {
        let seen = self.sees(expected);
        if seen {
            for _ in expected.chars() {
                self.next()?;
            }
        }
        Ok(seen)
    }

    /// The unquoted letters up to the next blank or operator, at most 12 of them; empty where something else stands.
    pub(super) fn plain_word(&mut self) -> String {
        let from = self.at;
        let mut word = String::new();
        while let Some(character) = self.peek() {
            if is_separator(character) {
                break;
            }
            if word.len() > 12 || matches!(character, '\\' | '\'' | '"' | '$' | '`') {
                word.clear();
                break;
            }
            word.push(character);
            self.at += 1;
        }
        self.at = from;
        word
    }

    /// Takes blanks and a comment.
    pub(super) fn skip_blanks(&mut self) -> Result<(), Unread> {
        while let Some(' ' | '\t') = self.peek() {
            self.next()?;
        }
        if self.peek() == Some('#') {
            while self.raw().is_some_and(|character| character != '\n') {
                self.skip_raw()?;
            }
        }
        Ok(())
    }

    /// The rest of the line without its end, as it stands there, and past it. `None` behind the last line.
    pub(super) fn raw_line(&mut self) -> Result<Option<String>, Unread> {
        if self.at >= self.text.len() {
            return Ok(None);
        }
        let mut line = String::new();
        while let Some(character) = self.raw() {
            self.skip_raw()?;
            if character == '\n' {
                break;
            }
            line.push(character);
        }
        Ok(Some(line))
    }
}

/// Ends a word where it is not quoted.
pub(super) fn is_separator(character: char) -> bool {
    matches!(
        character,
        ' ' | '\t' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>'
    )
}
