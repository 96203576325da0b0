//! The words of a SQL text, cut as PostgreSQL's own scanner cuts them; knows nothing of grammar.
//!
//! Source: the lexical structure of PostgreSQL's documentation (4.1). What is assumed: `standard_conforming_strings` is on, which every
//! connection of ours sets.

use std::borrow::Cow;

/// Longest name PostgreSQL keeps, in bytes (`NAMEDATALEN` - 1); longer ones are cut by the server.
const LONGEST_NAME: usize = 63;

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
    /// An identifier or key word as the server reads it: folded to lower case unless quoted, cut to 63 bytes.
    Name {
        /// What it names.
        name: Cow<'a, str>,
        /// Whether it stood in double quotes, and so is no key word.
        is_quoted: bool,
    },
    /// A string constant of any form; its content is nobody's business here.
    Text,
    /// A whole number, where it fits.
    Integer(u64),
    /// Any other number.
    Number,
    /// `$1`
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
    /// A name in the form `U&"…"`.
    #[error("names in the form U&\"…\" are not taken")]
    UnicodeName,
    /// A NUL character.
    #[error("there is a NUL character in the statement")]
    Nul,
    /// `$` right behind a number.
    #[error("a `$` stands right behind a number at character {0}; put a blank between them")]
    Glued(usize),
}

/// Cuts a text into words, without its blanks and comments.
///
/// # Errors
/// What does not end, and what is not taken at all.
pub fn tokens(sql: &str) -> Result<Vec<Token<'_>>, TokenError> {
    if sql.contains('\0') {
        return Err(TokenError::Nul);
    }
    let mut scanner = Scanner { sql, at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = scanner.next()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Scanner<'a> {
    sql: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.sql[self.at..]
    }

    fn open(&self, what: &'static str, start: usize) -> TokenError {
        TokenError::Open {
            what,
            position: self.sql[..start].chars().count() + 1,
        }
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, TokenError> {
        self.skip_blanks()?;
        let start = self.at;
        let Some(first) = self.rest().chars().next() else {
            return Ok(None);
        };
        let kind = match first {
            '\'' => self.text(false)?,
            '"' => self.quoted_name()?,
            // Behind a number older servers read it as part of a name.
            '$' if self.sql[..start].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_') => {
                return Err(TokenError::Glued(self.sql[..start].chars().count() + 1));
            }
            '$' => self.dollar()?,
            '0'..='9' => self.number(),
            '.' if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            first if begins_name(first) => self.word()?,
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

    /// Blanks as the server knows them (no others: a no-break space is part of a name), and comments, which nest.
    fn skip_blanks(&mut self) -> Result<(), TokenError> {
        loop {
            let rest = self.rest();
            if let Some(comment) = rest.strip_prefix("--") {
                let length = comment.find(['\n', '\r']).unwrap_or(comment.len());
                self.at += 2 + length;
            } else if rest.starts_with("/*") {
                self.block_comment()?;
            } else if rest.starts_with([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']) {
                self.at += 1;
            } else {
                return Ok(());
            }
        }
    }

    fn block_comment(&mut self) -> Result<(), TokenError> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                let Some(character) = rest.chars().next() else {
                    return Err(self.open("comment", start));
                };
                self.at += character.len_utf8();
            }
        }
    }

    /// A string in single quotes with what continues it; a quote is doubled within it, and behind a backslash where `escapes`.
    fn text(&mut self, escapes: bool) -> Result<Kind<'a>, TokenError> {
        let start = self.at;
        loop {
            self.at += 1;
            let mut characters = self.rest().char_indices();
            let length = loop {
                match characters.next() {
                    Some((_, '\\')) if escapes => {
                        characters.next();
                    }
                    Some((index, '\'')) => break index,
                    Some(_) => {}
                    None => return Err(self.open("string", start)),
                }
            };
            self.at += length + 1;
            let Some(next) = self.continued() else {
                return Ok(Kind::Text);
            };
            self.at = next;
        }
    }

    /// Where the string that just ended goes on: at once with a second quote, or on another line, in the same form.
    fn continued(&self) -> Option<usize> {
        if self.rest().starts_with('\'') {
            return Some(self.at);
        }
        let mut at = self.at;
        loop {
            let rest = &self.sql[at..];
            if rest.starts_with([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']) {
                at += 1;
            } else if rest.starts_with("--") {
                at += rest.find(['\n', '\r']).unwrap_or(rest.len());
            } else {
                let is_another_line = self.sql[self.at..at].contains(['\n', '\r']);
                return (is_another_line && rest.starts_with('\'')).then_some(at);
            }
        }
    }

    fn quoted_name(&mut self) -> Result<Kind<'a>, TokenError> {
        let start = self.at;
        let content = &self.rest()[1..];
        let mut from = 0;
        loop {
            let Some(quote) = content[from..].find('"') else {
                return Err(self.open("quoted name", start));
            };
            let quote = from + quote;
            if content[quote + 1..].starts_with('"') {
                from = quote + 2;
                continue;
            }
            self.at = start + 1 + quote + 1;
            let name = cut(content[..quote].replace("\"\"", "\"").into());
            return Ok(Kind::Name {
                name,
                is_quoted: true,
            });
        }
    }

    /// `$1`, or a string between `$tag$` and `$tag$`.
    fn dollar(&mut self) -> Result<Kind<'a>, TokenError> {
        let start = self.at;
        let content = &self.rest()[1..];
        if content.starts_with(|c: char| c.is_ascii_digit()) {
            let digits = content
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(content.len());
            self.at += 1 + digits;
            return Ok(Kind::Parameter);
        }
        let tag = content
            .find(|c: char| !(begins_name(c) || c.is_ascii_digit()))
            .unwrap_or(content.len());
        if !content[tag..].starts_with('$') {
            self.at += 1;
            return Ok(Kind::Other('$'));
        }
        let delimiter = &self.rest()[..tag + 2];
        let body = start + delimiter.len();
        let Some(length) = self.sql[body..].find(delimiter) else {
            return Err(self.open("string", start));
        };
        self.at = body + length + delimiter.len();
        Ok(Kind::Text)
    }

    /// A number as the server reads it and no character more: letters right behind it are a name of their own, which newer servers
    /// refuse there and older ones take for a label.
    fn number(&mut self) -> Kind<'a> {
        let rest = self.rest();
        let radix = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => Some(16),
            Some("0o") => Some(8),
            Some("0b") => Some(2),
            _ => None,
        };
        let mut length = radix.map_or(0, |radix| digits(&rest[2..], radix));
        if length > 0 {
            length += 2;
        } else {
            length = digits(rest, 10);
            // `1..10` of PL/pgSQL does not concern us, yet must not become one number.
            if rest[length..].starts_with('.') && !rest[length..].starts_with("..") {
                length += 1;
                length += digits(&rest[length..], 10);
            }
            if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
                let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                let power = digits(unsigned, 10);
                if power > 0 {
                    length = rest.len() - unsigned.len() + power;
                }
            }
        }
        self.at += length;
        integer(&rest[..length]).map_or(Kind::Number, Kind::Integer)
    }

    fn word(&mut self) -> Result<Kind<'a>, TokenError> {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !(begins_name(c) || c.is_ascii_digit() || c == '$'))
            .unwrap_or(rest.len());
        let (word, behind) = rest.split_at(length);
        if behind.starts_with('\'') && word.len() == 1 {
            let escapes = match word {
                "E" | "e" => Some(true),
                "B" | "b" | "X" | "x" | "N" | "n" => Some(false),
                _ => None,
            };
            if let Some(escapes) = escapes {
                self.at += 1;
                return self.text(escapes);
            }
        }
        if word.eq_ignore_ascii_case("u") {
            if behind.starts_with("&'") {
                self.at += 2;
                return self.text(false);
            }
            if behind.starts_with("&\"") {
                return Err(TokenError::UnicodeName);
            }
        }
        self.at += length;
        // Where a character has one byte, the server folds by its locale, and İ to i in a Turkish one.
        let name = if word.contains('\u{130}') {
            Cow::Owned(word.replace('\u{130}', "i").to_ascii_lowercase())
        } else if word.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(word.to_ascii_lowercase())
        } else {
            Cow::Borrowed(word)
        };
        Ok(Kind::Name {
            name: cut(name),
            is_quoted: false,
        })
    }
}

fn begins_name(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_' || !character.is_ascii()
}

/// Length of the digits that a text begins with, with single underscores before them.
fn digits(text: &str, radix: u32) -> usize {
    let mut length = 0;
    let mut after_underscore = false;
    for (at, character) in text.char_indices() {
        if character.is_digit(radix) {
            length = at + 1;
            after_underscore = false;
        } else if character == '_' && !after_underscore && (at > 0 || radix != 10) {
            after_underscore = true;
        } else {
            break;
        }
    }
    length
}

fn cut(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= LONGEST_NAME {
        return name;
    }
    name[..name.floor_char_boundary(LONGEST_NAME)]
        .to_owned()
        .into()
}

/// The value of `10`, `1_000`, `0x1F`, `0o17`, `0b1`.
fn integer(text: &str) -> Option<u64> {
    let digits = text.replace('_', "").to_ascii_lowercase();
    let (digits, radix) = match digits.get(..2) {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        _ => (digits.as_str(), 10),
    };
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in a text, quoted ones in quotes; strings as `''`.
    fn read(sql: &str) -> Result<Vec<String>, TokenError> {
        let word = |token: Token<'_>| match token.kind {
            Kind::Name {
                name,
                is_quoted: true,
            } => format!("\"{name}\""),
            Kind::Name { name, .. } => name.into_owned(),
            Kind::Text => "''".to_owned(),
            Kind::Integer(value) => value.to_string(),
            Kind::Number => "number".to_owned(),
            Kind::Parameter => "$".to_owned(),
            Kind::Other(character) => character.to_string(),
        };
        Ok(tokens(sql)?.into_iter().map(word).collect())
    }

    #[test]
    fn strings_of_every_form_hide_what_is_in_them() -> anyhow::Result<()> {
        for text in [
            "';drop()'",
            "'it''s; drop()'",
            r"'ends\'",
            r"E'a\';drop()'",
            "e'x'",
            "B'01'",
            "X'1F'",
            "N'ü'",
            "U&'d\\0061t'",
            "$$;drop()$$",
            "$tag$ $$ ; drop() $other$ $tag$",
            "$ü$;$ü$",
        ] {
            assert_eq!(read(text)?, ["''"], "{text}");
        }
        Ok(())
    }

    #[test]
    fn a_backslash_ends_nothing_in_a_plain_string() -> anyhow::Result<()> {
        assert_eq!(read(r"'\' f()")?, ["''", "f", "(", ")"]);
        Ok(())
    }

    #[test]
    fn a_string_goes_on_in_the_next_line_in_the_same_form() -> anyhow::Result<()> {
        assert_eq!(read("E'a' -- b\n 'c\\'; drop()' x")?, ["''", "x"]);
        assert_eq!(read("'a'\n'c\\' f")?, ["''", "f"]);
        assert_eq!(read("'a' 'b'")?, ["''", "''"]);
        Ok(())
    }

    #[test]
    fn comments_nest_and_are_nothing() -> anyhow::Result<()> {
        assert_eq!(read("a/* b /* c */ ' d */(--x\n) -- '")?, ["a", "(", ")"]);
        Ok(())
    }

    #[test]
    fn names_are_folded_and_cut_as_the_server_does() -> anyhow::Result<()> {
        assert_eq!(
            read(r#"PG_Read_File "Pg""x" Größe a$1 U "#)?,
            ["pg_read_file", "\"Pg\"x\"", "größe", "a$1", "u"]
        );
        let long = "x".repeat(70);
        assert_eq!(read(&long)?, ["x".repeat(63)]);
        Ok(())
    }

    #[test]
    fn a_no_break_space_is_part_of_a_name() -> anyhow::Result<()> {
        assert_eq!(read("a\u{a0}b")?, ["a\u{a0}b"]);
        Ok(())
    }

    #[test]
    fn numbers_do_not_swallow_what_follows() -> anyhow::Result<()> {
        assert_eq!(
            read("1_000 0x1F 1.5e-3 .5 $1::int")?,
            ["1000", "31", "number", "number", "$", ":", ":", "int"]
        );
        assert_eq!(read("(1)-2")?, ["(", "1", ")", "-", "2"]);
        for (sql, words) in [
            ("0x1e-f(1)", "30 - f ( 1 )"),
            ("0b1e-f(1)", "1 e - f ( 1 )"),
            ("1e-f(1)", "1 e - f ( 1 )"),
            ("0x1e--'\n-f()--'", "30 - f ( )"),
            ("1e5f(1)", "number f ( 1 )"),
            ("1e+5-f", "number - f"),
            ("0xf(1)", "15 ( 1 )"),
            ("0xg(1)", "0 xg ( 1 )"),
            ("1__0 1_ 1._5", "1 __0 1 _ number _5"),
            ("1.e5 1.5.6", "number number number"),
            ("1..2", "1 . number"),
            ("$1f(1)", "$ f ( 1 )"),
            ("advİsory(1)", "advisory ( 1 )"),
            ("a$1 1 $1", "a$1 1 $"),
        ] {
            assert_eq!(read(sql)?.join(" "), words, "{sql}");
        }
        Ok(())
    }

    #[test]
    fn what_does_not_end_is_named_with_its_place() {
        for (sql, what) in [
            ("ü 'a", "string"),
            ("ü \"a", "quoted name"),
            ("ü $a$ $$", "string"),
            ("ü /* /* */", "comment"),
        ] {
            let expected = TokenError::Open { what, position: 3 };
            assert_eq!(tokens(sql), Err(expected), "{sql}");
        }
        assert_eq!(tokens("U&\"a\" (1)"), Err(TokenError::UnicodeName));
        assert_eq!(tokens("a\0"), Err(TokenError::Nul));
        assert_eq!(tokens("1_0$a$ f() $a$"), Err(TokenError::Glued(4)));
    }
}
