//! Here-documents: their text stands behind the line they are named in, and may hold commands of its own.

use super::cursor::{Cursor, HereDocument, Unread};
use super::expand::{Place, Quotes};
use super::word::Word;

impl Cursor<'_> {
    /// Takes the word behind `<<` or `<<-`.
    pub(super) fn here_document(&mut self, strip_tabs: bool) -> Result<(), Unread> {
        self.skip_blanks()?;
        if matches!(self.peek(), Some('$' | '`')) {
            return Err(Unread::Ambiguous(
                "an expansion as the end of a here-document",
            ));
        }
        let from = self.commands.len();
        let word = self.word(Place::Argument)?;
        if word.is_empty() {
            return Err(Unread::Syntax("a here-document without a name for its end"));
        }
        let quoted = word.quoted;
        match word.known() {
            Some(end) if self.commands.len() == from && !end.contains('\n') => {
                self.pending.push(HereDocument {
                    end: end.to_owned(),
                    quoted,
                    strip_tabs,
                });
                Ok(())
            }
            _ => Err(Unread::Ambiguous(
                "an expansion as the end of a here-document",
            )),
        }
    }

    /// Takes a line end and the text of the here-documents that begin behind it.
    pub(super) fn line_end(&mut self) -> Result<(), Unread> {
        if self.pending_outside {
            return Err(Unread::Ambiguous(
                "a line end in a substitution before the text of a here-document",
            ));
        }
        self.next()?;
        for document in std::mem::take(&mut self.pending) {
            let mut text = String::new();
            loop {
                let Some(mut line) = self.raw_line()? else {
                    return Err(Unread::Syntax("a here-document without its end"));
                };
                if document.strip_tabs {
                    line.drain(..line.len() - line.trim_start_matches('\t').len());
                }
                // Joined lines are compared with the end as one.
                while !document.quoted && ends_in_continuation(&line) {
                    if document.strip_tabs {
                        return Err(Unread::Ambiguous("joined lines in a <<- here-document"));
                    }
                    let Some(more) = self.raw_line()? else { break };
                    line.pop();
                    line.push_str(&more);
                }
                if line == document.end {
                    break;
                }
                text.push_str(&line);
                text.push('\n');
            }
            if !document.quoted {
                self.budget.enter()?;
                let mut inner = Cursor::new(&text, self.budget, self.commands)?;
                let mut ignored = Word::default();
                while inner.peek().is_some() {
                    inner.part(&mut ignored, Quotes::HereDocument)?;
                }
                self.budget.leave();
            }
        }
        Ok(())
    }
}

/// An odd number of backslashes stands at its end.
fn ends_in_continuation(line: &str) -> bool {
    (line.len() - line.trim_end_matches('\\').len()) % 2 == 1
}
