//! A statement of SQL without its values.

use super::tokens::{Kind, Token, tokens};
use crate::fingerprint::Word;

/// The statement's words, each value a `?`.
pub fn fingerprint(sql: &str) -> String {
    match tokens(sql) {
        Ok(words) => crate::fingerprint::fingerprint(words.into_iter().map(word)),
        Err(_) => "(no words of SQL)".to_owned(),
    }
}

fn word(token: Token<'_>) -> Word<'_> {
    match token.kind {
        Kind::Name {
            name,
            is_quoted: true,
        } => Word::Quoted(name, '"'),
        Kind::Name { name, .. } => Word::Name(name),
        Kind::Text | Kind::Integer(_) | Kind::Number => Word::Value,
        Kind::Parameter => Word::Parameter,
        Kind::Other(sign) => Word::Sign(sign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_recorded() {
        let shown =
            fingerprint("SELECT *  FROM t -- why\nWHERE a = 'hunter2' AND b > 1.5e3 AND c=$1");
        assert_eq!(shown, "select*from t where a=? and b>? and c=$");
        assert_eq!(fingerprint("SELECT 'open"), "(no words of SQL)");
    }
}
