//! Names and texts of a caller within statements of ours, which parameters cannot carry.

/// A label, type or property as Cypher quotes it. A backslash is written as an escape, since the server reads escapes within
/// backticks, too, and would read `\u0060` as the closing one.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\u005c").replace('`', "``"))
}

/// Names as alternatives, `` :`A`|`B` ``; nothing where there are none.
pub fn alternatives(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    format!(":{}", names.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_its_quotes() {
        assert_eq!(quoted("a`b"), "`a``b`");
        assert_eq!(quoted("a\\u0060b"), "`a\\u005cu0060b`");
        assert_eq!(alternatives(&[]), "");
        assert_eq!(alternatives(&["A".into(), "B".into()]), ":`A`|`B`");
    }
}
