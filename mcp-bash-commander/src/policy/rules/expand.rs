//! Reads words: quotes and escapes are resolved, and every command inside an expansion is found.

use super::cursor::{Cursor, Unread, is_separator};
use super::word::{Piece, Word};

/// Where a word stands, which decides what is special in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Where a command or an assignment may begin.
    Command,
    /// Any other word.
    Argument,
    /// Between `[[` and `]]`, where operators of the shell are part of the test.
    Test,
}

/// What surrounds an expansion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    None,
    Double,
    /// The text of a here-document: like double quotes, but `"` is a character.
    HereDocument,
}

impl Cursor<'_> {
    /// Takes one word; empty if none stands here.
    pub(super) fn word(&mut self, place: Place) -> Result<Word, Unread> {
        let mut word = Word::default();
        let mut braces = Braces::default();
        // The characters so far, while they could be the name of an assignment.
        let mut name = (place != Place::Test).then(String::new);
        while let Some(next) = self.peek() {
            if matches!(next, '<' | '>') && (self.sees("<(") || self.sees(">(")) {
                self.next()?;
                self.next()?;
                self.command_substitution()?;
                word.push_unknown(false);
                name = None;
                continue;
            }
            if place == Place::Test {
                if matches!(next, ' ' | '\t' | '\n' | ';') {
                    break;
                }
            } else if is_separator(next) {
                break;
            }
            match next {
                '=' if name.as_deref().is_some_and(is_assigned_name) => {
                    self.next()?;
                    word.push('=');
                    word.assigns = true;
                    name = None;
                    if self.peek() == Some('(') {
                        self.next()?;
                        self.array()?;
                        word.push_unknown(false);
                    }
                    continue;
                }
                '[' if place == Place::Command && name.as_deref().is_some_and(is_name) => {
                    self.subscript(&mut word)?;
                    // A name with a subscript is assigned like one without; anything else is part of a pattern.
                    name = (self.sees("=") || self.sees("+=")).then(|| "a".to_owned());
                    continue;
                }
                '?' | '*' | '+' | '@' | '!' => {
                    self.next()?;
                    if self.peek() == Some('(') {
                        self.next()?;
                        self.pattern_group()?;
                        word.push_pattern(Piece::Many);
                        name = None;
                        continue;
                    }
                    match next {
                        '?' => word.push_pattern(Piece::One),
                        '*' => word.push_pattern(Piece::Many),
                        _ => word.push(next),
                    }
                    match &mut name {
                        Some(name) if next == '+' => name.push('+'),
                        other => *other = None,
                    }
                    continue;
                }
                _ => {}
            }
            if let Some(so_far) = &mut name {
                if next.is_ascii_alphanumeric() || next == '_' {
                    so_far.push(next);
                } else {
                    name = None;
                }
            }
            braces.see(next);
            self.part(&mut word, Quotes::None)?;
        }
        if braces.expands {
            word.forget();
        }
        Ok(word)
    }

    /// Takes a character, a quoted part or an expansion that is no operator.
    pub(super) fn part(&mut self, word: &mut Word, quotes: Quotes) -> Result<(), Unread> {
        let bare = quotes == Quotes::None;
        match self.peek() {
            Some('\\') => self.escape(word, quotes),
            Some('\'') if bare => {
                self.skip_raw()?;
                self.single_quoted(word)
            }
            Some('"') if quotes != Quotes::HereDocument => {
                self.next()?;
                self.double_quoted(word)
            }
            Some('$') => self.dollar(word, quotes),
            Some('`') => self.backquoted(word, quotes),
            Some(other) => {
                self.next()?;
                word.push(other);
                Ok(())
            }
            None => Err(Unread::Syntax("it ends too early")),
        }
    }

    fn escape(&mut self, word: &mut Word, quotes: Quotes) -> Result<(), Unread> {
        self.skip_raw()?;
        let Some(next) = self.raw() else {
            word.push('\\');
            return Ok(());
        };
        let kept = match quotes {
            Quotes::None => false,
            Quotes::Double => !matches!(next, '$' | '`' | '"' | '\\'),
            Quotes::HereDocument => !matches!(next, '$' | '`' | '\\'),
        };
        if kept {
            word.push('\\');
        }
        self.skip_raw()?;
        word.push(next);
        word.quoted = true;
        Ok(())
    }

    fn single_quoted(&mut self, word: &mut Word) -> Result<(), Unread> {
        word.quoted = true;
        loop {
            let next = self.raw();
            self.skip_raw()?;
            match next {
                Some('\'') => return Ok(()),
                Some(other) => word.push(other),
                None => return Err(Unread::Syntax("a single quote is not closed")),
            }
        }
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), Unread> {
        word.quoted = true;
        self.budget.enter()?;
        loop {
            match self.peek() {
                Some('"') => break,
                None => return Err(Unread::Syntax("a double quote is not closed")),
                Some(_) => self.part(word, Quotes::Double)?,
            }
        }
        self.next()?;
        self.budget.leave();
        Ok(())
    }

    fn dollar(&mut self, word: &mut Word, quotes: Quotes) -> Result<(), Unread> {
        let bare = quotes == Quotes::None;
        self.next()?;
        match self.peek() {
            Some('(') => {
                self.next()?;
                if self.peek() != Some('(') || !self.arithmetic()? {
                    self.command_substitution()?;
                }
                word.push_unknown(bare);
            }
            Some('{') => {
                self.next()?;
                let several = self.parameter(quotes)?;
                word.push_unknown(bare || several);
            }
            Some('[') => {
                self.next()?;
                self.old_arithmetic()?;
                word.push_unknown(bare);
            }
            Some('\'') if bare => {
                self.skip_raw()?;
                self.escaped_string(word)?;
            }
            Some('"') if bare => {
                self.next()?;
                self.double_quoted(word)?;
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!' | '0'..='9') => {
                // `"$@"` is several words even between quotes.
                let several = self.peek() == Some('@');
                self.next()?;
                word.push_unknown(bare || several);
            }
            Some(first) if first.is_ascii_alphabetic() || first == '_' => {
                while self
                    .peek()
                    .is_some_and(|next| next.is_ascii_alphanumeric() || next == '_')
                {
                    self.next()?;
                }
                word.push_unknown(bare);
            }
            _ => word.push('$'),
        }
        Ok(())
    }

    /// Takes `…)` of `$(…)`, `<(…)` and `>(…)`.
    pub(super) fn command_substitution(&mut self) -> Result<(), Unread> {
        self.budget.enter()?;
        let outside = std::mem::take(&mut self.pending);
        let before = self.pending_outside;
        self.pending_outside |= !outside.is_empty();
        self.list(&[")"])?;
        if !self.pending.is_empty() {
            return Err(Unread::Ambiguous(
                "a here-document whose text is not inside its substitution",
            ));
        }
        self.pending = outside;
        self.pending_outside = before;
        self.budget.leave();
        Ok(())
    }

    fn backquoted(&mut self, word: &mut Word, quotes: Quotes) -> Result<(), Unread> {
        self.skip_raw()?;
        let mut script = String::new();
        loop {
            let next = self.raw();
            self.skip_raw()?;
            match next {
                Some('`') => break,
                Some('\\') => match self.raw() {
                    Some(escaped @ ('$' | '`' | '\\')) => {
                        self.skip_raw()?;
                        script.push(escaped);
                    }
                    Some('"') if quotes == Quotes::Double => {
                        self.skip_raw()?;
                        script.push('"');
                    }
                    _ => script.push('\\'),
                },
                Some(other) => script.push(other),
                None => return Err(Unread::Syntax("a backquote is not closed")),
            }
        }
        self.inner_script(&script)?;
        word.push_unknown(quotes == Quotes::None);
        Ok(())
    }

    /// Reads text that the shell reads as a script of its own.
    fn inner_script(&mut self, script: &str) -> Result<(), Unread> {
        self.budget.enter()?;
        Cursor::new(script, self.budget, self.commands)?.script()?;
        self.budget.leave();
        Ok(())
    }

    /// Takes `…}` of `${…}`; says whether it is several words even between quotes.
    fn parameter(&mut self, quotes: Quotes) -> Result<bool, Unread> {
        self.budget.enter()?;
        if matches!(self.peek(), Some(' ' | '\t' | '\n' | '|')) {
            return Err(Unread::Ambiguous("commands inside ${ }"));
        }
        let mut ignored = Word::default();
        let mut several = false;
        loop {
            match self.peek() {
                Some('}') => break,
                Some('\'') if quotes != Quotes::None => {
                    return Err(Unread::Ambiguous("a single quote inside \"${…}\""));
                }
                Some('\'') => self.harmless_quote()?,
                Some('"') if quotes == Quotes::HereDocument => {
                    return Err(Unread::Ambiguous("a quote inside ${…} of a here-document"));
                }
                Some('@') if self.sees("@P}") => {
                    return Err(Unread::Ambiguous("${…@P} runs what the variable holds"));
                }
                Some('<' | '>')
                    if quotes == Quotes::None && (self.sees("<(") || self.sees(">(")) =>
                {
                    self.next()?;
                    self.next()?;
                    self.command_substitution()?;
                }
                None => return Err(Unread::Syntax("${ is not closed")),
                Some(next) => {
                    several |= next == '@';
                    self.part(&mut ignored, quotes)?;
                }
            }
        }
        self.next()?;
        self.budget.leave();
        Ok(several)
    }

    /// Takes a single-quoted text where bash may expand it all the same: in the subscript of an array.
    pub(super) fn harmless_quote(&mut self) -> Result<(), Unread> {
        let mut quoted = Word::default();
        self.skip_raw()?;
        self.single_quoted(&mut quoted)?;
        let text = quoted.shown();
        if text.contains("$(") || text.contains('`') {
            return Err(Unread::Ambiguous("a quoted substitution in an expansion"));
        }
        Ok(())
    }
}

/// Sees the unquoted characters of a word and knows whether they make a brace expansion or a bracket pattern.
#[derive(Debug, Default)]
struct Braces {
    brace: Brace,
    bracket: bool,
    expands: bool,
}

/// How far a brace expansion has come.
#[derive(Debug, Default, PartialEq, Eq)]
enum Brace {
    #[default]
    None,
    Opened,
    /// Behind the first dot of `..`.
    Dot,
    /// A comma or two dots were there: the closing brace makes it one.
    Listed,
}

impl Braces {
    fn see(&mut self, next: char) {
        self.expands |= next == '}' && self.brace == Brace::Listed;
        self.expands |= next == ']' && self.bracket;
        self.bracket |= next == '[';
        self.brace = match (&self.brace, next) {
            (Brace::None, '{') => Brace::Opened,
            (Brace::None, _) => Brace::None,
            (Brace::Listed, _) | (Brace::Opened | Brace::Dot, ',') | (Brace::Dot, '.') => {
                Brace::Listed
            }
            (Brace::Opened, '.') => Brace::Dot,
            (Brace::Opened | Brace::Dot, _) => Brace::Opened,
        };
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text
            .chars()
            .all(|next| next.is_ascii_alphanumeric() || next == '_')
}

fn is_assigned_name(text: &str) -> bool {
    is_name(text.strip_suffix('+').unwrap_or(text))
}
