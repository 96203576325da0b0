//! The escapes of `$'…'`.

use super::cursor::{Cursor, Unread};
use super::word::Word;

impl Cursor<'_> {
    /// Takes `$'…'` behind its first quote.
    pub(super) fn escaped_string(&mut self, word: &mut Word) -> Result<(), Unread> {
        word.quoted = true;
        loop {
            let next = self.raw();
            self.skip_raw()?;
            match next {
                Some('\'') => return Ok(()),
                Some('\\') => {
                    let escape = self.raw().ok_or(Unread::Syntax("a quote is not closed"))?;
                    self.skip_raw()?;
                    self.one_escape(escape, word)?;
                }
                Some(other) => word.push(other),
                None => return Err(Unread::Syntax("a quote is not closed")),
            }
        }
    }

    fn one_escape(&mut self, escape: char, word: &mut Word) -> Result<(), Unread> {
        let plain = match escape {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'e' | 'E' => '\u{1b}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '?' => escape,
            '0'..='7' => {
                self.at -= 1;
                return self.code(8, 3, word);
            }
            'x' => return self.code(16, 2, word),
            'u' => return self.code(16, 4, word),
            'U' => return self.code(16, 8, word),
            'c' => return Err(Unread::Ambiguous("a control character in $'…'")),
            other => {
                word.push('\\');
                other
            }
        };
        word.push(plain);
        Ok(())
    }

    fn code(&mut self, radix: u32, most: usize, word: &mut Word) -> Result<(), Unread> {
        let mut code = 0_u32;
        for _ in 0..most {
            let Some(digit) = self.raw().and_then(|digit| digit.to_digit(radix)) else {
                break;
            };
            self.skip_raw()?;
            code = code.wrapping_mul(radix).wrapping_add(digit);
        }
        // Zero ends the string, and bytes above 127 are joined to characters by their neighbours: neither is worth knowing.
        match char::from_u32(code) {
            Some(character) if code != 0 && (code < 128 || most > 3) => {
                word.push(character);
                Ok(())
            }
            _ => Err(Unread::Ambiguous("a byte without a letter in $'…'")),
        }
    }
}
