//! A statement without its values, for records that must not have any.

use super::tokens::{Kind, decoded, tokens};

/// Bytes of a statement that are recorded.
const LONGEST: usize = 400;

/// The statement's words, each value a `?`: the same for statements that differ in values, blanks and comments alone.
pub fn fingerprint(cypher: &str) -> String {
    let none = || "(no words of Cypher)".to_owned();
    let Ok(cypher) = decoded(cypher) else {
        return none();
    };
    let Ok(words) = tokens(&cypher) else {
        return none();
    };
    let mut shown = String::new();
    let mut is_name_before = false;
    for word in words {
        let is_name = !matches!(word.kind, Kind::Other(_));
        if is_name && is_name_before {
            shown.push(' ');
        }
        match word.kind {
            Kind::Name {
                name,
                is_quoted: true,
            } => {
                shown.push('`');
                shown.push_str(&name);
                shown.push('`');
            }
            Kind::Name { name, .. } => shown.push_str(&name),
            Kind::Text | Kind::Number => shown.push('?'),
            Kind::Parameter => shown.push('$'),
            Kind::Other(character) => shown.push(character),
        }
        is_name_before = is_name;
        if shown.len() > LONGEST {
            break;
        }
    }
    shared::budget::head(&shown, LONGEST).text.to_owned()
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
