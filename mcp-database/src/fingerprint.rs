//! A statement without its values, for records that must not have any.

use std::borrow::Cow;

/// Bytes of a statement that are recorded.
const LONGEST: usize = 400;

/// A word of a statement, of whatever language.
pub(crate) enum Word<'a> {
    /// A name or key word.
    Name(Cow<'a, str>),
    /// A name between these quotes.
    Quoted(Cow<'a, str>, char),
    /// A value.
    Value,
    /// A parameter.
    Parameter,
    /// Anything else.
    Sign(char),
}

/// The words in one line, each value a `?`: the same for statements that differ in values, blanks and comments alone.
pub(crate) fn fingerprint<'a>(words: impl Iterator<Item = Word<'a>>) -> String {
    let mut shown = String::new();
    let mut is_name_before = false;
    for word in words {
        let is_name = !matches!(word, Word::Sign(_));
        if is_name && is_name_before {
            shown.push(' ');
        }
        match word {
            Word::Name(name) => shown.push_str(&name),
            Word::Quoted(name, quote) => {
                shown.push(quote);
                shown.push_str(&name);
                shown.push(quote);
            }
            Word::Value => shown.push('?'),
            Word::Parameter => shown.push('$'),
            Word::Sign(sign) => shown.push(sign),
        }
        is_name_before = is_name;
        if shown.len() > LONGEST {
            break;
        }
    }
    shared::budget::head(&shown, LONGEST).text.to_owned()
}
