//! What brackets enclose besides commands: arithmetic, arrays, subscripts and groups of patterns.

use super::cursor::{Cursor, Unread};
use super::expand::{Place, Quotes};
use super::word::{Piece, Word};

impl Cursor<'_> {
    /// Takes `(…))` of `((…))`, where the text up to there is arithmetic; else takes nothing and says no.
    pub(super) fn arithmetic(&mut self) -> Result<bool, Unread> {
        let (from, found) = (self.at, self.commands.len());
        self.budget.enter()?;
        self.next()?;
        self.balanced('(', ')')?;
        self.budget.leave();
        if self.raw() == Some(')') {
            self.next()?;
            return Ok(true);
        }
        self.at = from;
        self.commands.truncate(found);
        Ok(false)
    }

    pub(super) fn old_arithmetic(&mut self) -> Result<(), Unread> {
        self.budget.enter()?;
        self.balanced('[', ']')?;
        self.budget.leave();
        Ok(())
    }

    /// Takes an arithmetic text up to the closing character that has no opening one.
    fn balanced(&mut self, open: char, close: char) -> Result<(), Unread> {
        let mut ignored = Word::default();
        let mut opened = 0_usize;
        loop {
            match self.peek() {
                Some('\'') => return Err(Unread::Ambiguous("a single quote in arithmetic")),
                Some(next) if next == close && opened == 0 => break,
                Some(next) if next == close => {
                    opened -= 1;
                    self.next()?;
                }
                Some(next) if next == open => {
                    opened += 1;
                    self.next()?;
                }
                None => return Err(Unread::Syntax("an arithmetic expression is not closed")),
                // Expanded like text between double quotes.
                Some(_) => self.part(&mut ignored, Quotes::Double)?,
            }
        }
        self.next()?;
        Ok(())
    }

    /// Takes the elements and the end of `name=(…)`.
    pub(super) fn array(&mut self) -> Result<(), Unread> {
        self.budget.enter()?;
        loop {
            self.skip_blanks()?;
            match self.peek() {
                Some(')') => break,
                Some('\n') => self.line_end()?,
                _ => {
                    if self.word(Place::Argument)?.is_empty() {
                        return Err(Unread::Syntax("an operator in an array"));
                    }
                }
            }
        }
        self.next()?;
        self.budget.leave();
        Ok(())
    }

    /// Takes `[…]` behind a name; blanks do not end it.
    pub(super) fn subscript(&mut self, word: &mut Word) -> Result<(), Unread> {
        self.budget.enter()?;
        self.next()?;
        let mut opened = 0_usize;
        loop {
            match self.peek() {
                Some(']') if opened == 0 => break,
                None => return Err(Unread::Syntax("a subscript is not closed")),
                Some(next @ ('[' | ']')) => {
                    opened = if next == '[' { opened + 1 } else { opened - 1 };
                    self.next()?;
                }
                Some('\'') => self.harmless_quote()?,
                // Only bash reads on here, and only where an assignment can stand.
                Some(' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>') => {
                    return Err(Unread::Ambiguous("a blank or an operator in a subscript"));
                }
                Some(_) => {
                    let mut ignored = Word::default();
                    self.part(&mut ignored, Quotes::None)?;
                }
            }
        }
        self.next()?;
        // As part of a command's name it is a pattern.
        word.push_pattern(Piece::One);
        self.budget.leave();
        Ok(())
    }

    /// Takes `…)` of `@(…)`.
    pub(super) fn pattern_group(&mut self) -> Result<(), Unread> {
        self.budget.enter()?;
        let mut ignored = Word::default();
        let mut opened = 0_usize;
        loop {
            match self.peek() {
                Some(')') if opened == 0 => break,
                Some('\n' | ';' | '&') | None => {
                    return Err(Unread::Syntax("a pattern is not closed"));
                }
                Some(next @ ('(' | ')')) => {
                    opened = if next == '(' { opened + 1 } else { opened - 1 };
                    self.next()?;
                }
                Some('<' | '>') if self.sees("<(") || self.sees(">(") => {
                    self.next()?;
                    self.next()?;
                    self.command_substitution()?;
                }
                Some(_) => self.part(&mut ignored, Quotes::None)?,
            }
        }
        self.next()?;
        self.budget.leave();
        Ok(())
    }
}
