//! The words of a Cypher text, cut as Neo4j's own scanner cuts them; knows nothing of grammar.
//!
//! What is assumed was tried on 5.26: escapes of the form `\uXXXX` are read before anything else, also in comments and quoted names; a
//! backslash behind a backslash is no escape; line comments end at a line feed or a carriage return, block comments do not nest.

use std::borrow::Cow;

/// A word of a statement and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind<'a>,
    /// Byte at which it begins.
    pub start: usize,
    /// Byte behind its end.
    pub end: usize,
}

/// What a word is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind<'a> {
    /// An identifier or key word.
    Name {
        /// As it is written; without the backticks if quoted.
        name: Cow<'a, str>,
        /// Whether it stood in backticks, and so is no key word.
        is_quoted: bool,
    },
    /// A string constant; its content is nobody's business here.
    Text,
    /// A number.
    Number,
    /// `$name`
    Parameter,
    /// A character that is none of these: operators, commas, brackets.
    Other(char),
}

/// A text that cannot be cut into words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A comment, string or quoted name without an end.
    #[error("the {what} that begins at character {position} does not end")]
    Open {
        /// What was begun.
        what: &'static str,
        /// Where, counted from 1.
        position: usize,
    },
    /// A `\u` without four hexadecimal digits, or half of a pair.
    #[error(
        "the escape at character {0} is none: `\\u` and four hexadecimal digits, of which two that mean one character stand together"
    )]
    Escape(usize),
    /// A backslash written as an escape, which the server and others would read differently.
    #[error("`\\u005c` at character {0} is not taken; write the backslash itself, doubled")]
    EscapedBackslash(usize),
}

/// The text with its `\uXXXX` escapes read, as the server reads them before it looks for words. Read once more it is the same.
///
/// # Errors
/// Escapes that are none, and that of the backslash.
pub fn decoded(cypher: &str) -> Result<Cow<'_, str>, TokenError> {
    if !cypher.contains("\\u") {
        return Ok(Cow::Borrowed(cypher));
    }
    let position = |at: usize| cypher[..at].chars().count() + 1;
    let mut text = String::with_capacity(cypher.len());
    let mut at = 0;
    while let Some(backslash) = cypher[at..].find('\\').map(|found| at + found) {
        text.push_str(&cypher[at..backslash]);
        let rest = &cypher[backslash..];
        if rest.starts_with("\\u") {
            let (character, length) =
                escaped(rest).ok_or(TokenError::Escape(position(backslash)))?;
            if character == '\\' {
                return Err(TokenError::EscapedBackslash(position(backslash)));
            }
            text.push(character);
            at = backslash + length;
        } else {
            // The backslash and what it escapes, be it another backslash.
            let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            text.push_str(&rest[..length]);
            at = backslash + length;
        }
    }
    text.push_str(&cypher[at..]);
    Ok(Cow::Owned(text))
}

/// The character that a text begins with as one or two escapes, and how many bytes they take.
fn escaped(text: &str) -> Option<(char, usize)> {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        let all_hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u16::from_str_radix(digits, 16)
            .ok()
            .filter(|_| all_hexadecimal)
    };
    let first = unit(text)?;
    if let Some(character) = char::from_u32(first.into()) {
        return Some((character, 6));
    }
    let second = unit(&text[6..])?;
    let character = char::decode_utf16([first, second]).next()?.ok()?;
    Some((character, 12))
}

/// Cuts a text whose escapes are read into words, without its blanks and comments.
///
/// # Errors
/// What does not end.
pub fn tokens(cypher: &str) -> Result<Vec<Token<'_>>, TokenError> {
    let mut scanner = Scanner { cypher, at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = scanner.next()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Scanner<'a> {
    cypher: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.cypher[self.at..]
    }

    fn open(&self, what: &'static str, start: usize) -> TokenError {
        TokenError::Open {
            what,
            position: self.cypher[..start].chars().count() + 1,
        }
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, TokenError> {
        self.skip_blanks()?;
        let start = self.at;
        let Some(first) = self.rest().chars().next() else {
            return Ok(None);
        };
        let kind = match first {
            '\'' | '"' => self.text(first)?,
            '`' => self.quoted_name()?,
            '$' if self.rest()[1..].starts_with(is_name_part) => {
                self.at += 1;
                self.skip_while(is_name_part);
                Kind::Parameter
            }
            '$' if self.rest()[1..].starts_with('`') => {
                self.at += 1;
                self.quoted_name()?;
                Kind::Parameter
            }
            '0'..='9' => self.number(),
            '.' if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            first if is_name_part(first) => {
                let name = self.skip_while(is_name_part);
                Kind::Name {
                    name: name.into(),
                    is_quoted: false,
                }
            }
            other => {
                self.at += other.len_utf8();
                Kind::Other(other)
            }
        };
        Ok(Some(Token {
            kind,
            start,
            end: self.at,
        }))
    }

    fn skip_blanks(&mut self) -> Result<(), TokenError> {
        loop {
            let rest = self.rest();
            if rest.starts_with("//") {
                self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let length = comment
                    .find("*/")
                    .ok_or_else(|| self.open("comment", self.at))?;
                self.at += 2 + length + 2;
            } else if let Some(blank) = rest.chars().next().filter(|c| is_blank(*c)) {
                self.at += blank.len_utf8();
            } else {
                return Ok(());
            }
        }
    }

    fn skip_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// A string in quotes of either kind; a backslash takes what follows it for itself.
    fn text(&mut self, quote: char) -> Result<Kind<'a>, TokenError> {
        let start = self.at;
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((index, character)) = characters.next() {
            if character == '\\' {
                characters.next();
            } else if character == quote {
                self.at += index + 1;
                return Ok(Kind::Text);
            }
        }
        Err(self.open("string", start))
    }

    /// A name in backticks, of which one is doubled within it; a backslash means itself.
    fn quoted_name(&mut self) -> Result<Kind<'a>, TokenError> {
        let start = self.at;
        let content = &self.rest()[1..];
        let mut from = 0;
        loop {
            let Some(backtick) = content[from..].find('`').map(|found| from + found) else {
                return Err(self.open("quoted name", start));
            };
            if content[backtick + 1..].starts_with('`') {
                from = backtick + 2;
                continue;
            }
            self.at = start + 1 + backtick + 1;
            let name = &content[..backtick];
            let name = if name.contains('`') {
                name.replace("``", "`").into()
            } else {
                name.into()
            };
            return Ok(Kind::Name {
                name,
                is_quoted: true,
            });
        }
    }

    /// Digits, a point only with a digit behind it (`1..2` is a range), and an exponent. Letters that follow at once are words of
    /// their own: more words than the server sees, never fewer.
    fn number(&mut self) -> Kind<'a> {
        let is_digit = |c: char| c.is_ascii_digit() || c == '_';
        self.skip_while(is_digit);
        let rest = self.rest();
        if rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            self.at += 1;
            self.skip_while(is_digit);
        }
        let rest = self.rest();
        let exponent = rest.strip_prefix(['e', 'E']).map(|rest| {
            let unsigned = rest.strip_prefix(['+', '-']).unwrap_or(rest);
            (unsigned, self.cypher.len() - unsigned.len())
        });
        if let Some((unsigned, at)) = exponent
            && unsigned.starts_with(|c: char| c.is_ascii_digit())
        {
            self.at = at;
            self.skip_while(is_digit);
        }
        Kind::Number
    }
}

fn is_name_part(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// What the server passes over between words; a little more is harmless.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}' | '\u{180e}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(cypher: &str) -> anyhow::Result<Vec<String>> {
        let tokens = tokens(cypher)?;
        Ok(tokens
            .into_iter()
            .map(|token| match token.kind {
                Kind::Name { name, is_quoted } if is_quoted => format!("`{name}"),
                Kind::Name { name, .. } => name.into_owned(),
                Kind::Text => "'".to_owned(),
                Kind::Number => "0".to_owned(),
                Kind::Parameter => "$".to_owned(),
                Kind::Other(character) => character.to_string(),
            })
            .collect())
    }

    #[test]
    fn words_are_cut_as_the_server_cuts_them() -> anyhow::Result<()> {
        for (cypher, expected) in [
            ("MATCH (n:`A b`)", "MATCH ( n : `A b )"),
            ("RETURN 'a\\'b' + \"c'\"", "RETURN ' + '"),
            ("a/*'*/b//'\rc", "a b c"),
            ("/* /* */ x */", "x * /"),
            ("[1..2] .5 1.5e-3 1_000", "[ 0 . 0 ] 0 0 0"),
            ("0x1F 5call 1.CALL", "0 x1F 0 call 0 . CALL"),
            ("$a $`b c` $1 $(x)", "$ $ $ $ ( x )"),
            ("`a``b` `a\\` ünï", "`a`b `a\\ ünï"),
            ("RETURN\u{2028}1", "RETURN 0"),
        ] {
            assert_eq!(words(cypher)?.join(" "), expected, "{cypher}");
        }
        Ok(())
    }

    #[test]
    fn escapes_are_read_once_and_before_everything() -> anyhow::Result<()> {
        for (cypher, expected) in [
            ("\\u0043REATE", "CREATE"),
            ("'\\\\u0041'", "'\\\\u0041'"),
            ("'\\\\\\u0041'", "'\\\\A'"),
            ("'\\u0027 + x", "'' + x"),
            ("'\\uD83D\\uDE00 \\n'", "'😀 \\n'"),
            ("`a\\`", "`a\\`"),
        ] {
            let once = decoded(cypher)?;
            assert_eq!(once, expected, "{cypher}");
            assert_eq!(decoded(&once)?, once, "{cypher}");
        }
        for (cypher, expected) in [
            ("ü\\u00g1", TokenError::Escape(2)),
            ("\\u12", TokenError::Escape(1)),
            ("\\u+123", TokenError::Escape(1)),
            ("\\uD83D", TokenError::Escape(1)),
            ("\\uD83D\\u0041", TokenError::Escape(1)),
            ("\\uu0041", TokenError::Escape(1)),
            ("'\\u005cu0041'", TokenError::EscapedBackslash(2)),
        ] {
            assert_eq!(decoded(cypher), Err(expected), "{cypher}");
        }
        Ok(())
    }

    #[test]
    fn what_does_not_end_is_named() {
        for (cypher, what) in [
            ("ü'a", "string"),
            ("ü\"a'", "string"),
            ("ü`a``", "quoted name"),
            ("ü$`a", "quoted name"),
            ("ü/* *", "comment"),
        ] {
            let Err(TokenError::Open {
                what: found,
                position,
            }) = tokens(cypher)
            else {
                panic!("{cypher} ends");
            };
            assert_eq!((found, position >= 2), (what, true), "{cypher}");
        }
    }
}
