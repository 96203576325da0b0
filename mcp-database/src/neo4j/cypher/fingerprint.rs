//! A statement of Cypher without its values.

use super::tokens::{Kind, Token, decoded, tokens};
use crate::fingerprint::Word;

/// The statement's words, each value a `?`.
pub fn fingerprint(cypher: &str) -> String {
    let none = || "(no words of Cypher)".to_owned();
    let Ok(cypher) = decoded(cypher) else {
        return none();
    };
    match tokens(&cypher) {
        Ok(words) => crate::fingerprint::fingerprint(words.into_iter().map(word)),
        Err(_) => none(),
    }
}

fn word(token: Token<'_>) -> Word<'_> {
    match token.kind {
        Kind::Name {
            name,
            is_quoted: true,
        } => Word::Quoted(name, '`'),
        Kind::Name { name, .. } => Word::Name(name),
        Kind::Text | Kind::Number => Word::Value,
        Kind::Parameter => Word::Parameter,
        Kind::Other(sign) => Word::Sign(sign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_recorded() {
        let shown = fingerprint(
            "MATCH (n:`a b` {name: 'hunter2'}) // why\nWHERE n.x > 1.5e3 AND n.\\u0079 = $z RETURN n",
        );
        assert_eq!(
            shown,
            "MATCH(n:`a b`{name:?})WHERE n.x>? AND n.y=$ RETURN n"
        );
        assert_eq!(fingerprint("RETURN 'open"), "(no words of Cypher)");
    }
}
