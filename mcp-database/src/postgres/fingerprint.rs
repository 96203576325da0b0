//! A statement without its values, for records that must not have any.

use super::tokens::{Kind, tokens};

/// Bytes of a statement that are recorded.
const LONGEST: usize = 400;

/// The statement's words, each value a `?`: the same for statements that differ in values, blanks and comments alone.
pub fn fingerprint(sql: &str) -> String {
    let Ok(words) = tokens(sql) else {
        return "(no words of SQL)".to_owned();
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
                shown.push('"');
                shown.push_str(&name);
                shown.push('"');
            }
            Kind::Name { name, .. } => shown.push_str(&name),
            Kind::Text | Kind::Integer(_) | Kind::Number => shown.push('?'),
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
        let shown =
            fingerprint("SELECT *  FROM t -- why\nWHERE a = 'hunter2' AND b > 1.5e3 AND c=$1");
        assert_eq!(shown, "select*from t where a=? and b>? and c=$");
        assert_eq!(fingerprint("SELECT 'open"), "(no words of SQL)");
    }
}
