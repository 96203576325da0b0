//! One statement of an agent that changes something: what it is, and whether it destroys more than it names.

use std::collections::BTreeSet;

use super::statement::{
    Called, LONGEST, StatementError, called, check_brackets, check_growth, is, one_statement,
};
use super::tokens::{Kind, Token, tokens};

/// What may be executed. Everything else is a way out of the transaction, out of the database, or into another session's settings.
const VERBS: [&str; 16] = [
    "alter", "analyze", "call", "comment", "create", "delete", "drop", "grant", "insert", "merge",
    "refresh", "revoke", "select", "truncate", "update", "with",
];

/// Second words that reach beyond the database: `CREATE SUBSCRIPTION`, `ALTER SYSTEM`.
const BEYOND: [&str; 9] = [
    "database",
    "foreign",
    "group",
    "role",
    "server",
    "subscription",
    "system",
    "tablespace",
    "user",
];

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    text: String,
    verb: String,
    called: BTreeSet<Called>,
    destroys: Option<&'static str>,
    returns: bool,
    selects: bool,
    has_change_within: bool,
}

impl Change {
    /// Makes a change of a caller's text.
    ///
    /// # Errors
    /// What is no single change.
    pub fn of(sql: &str) -> Result<Self, StatementError> {
        if sql.len() > LONGEST {
            return Err(StatementError::TooLong(sql.len()));
        }
        let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql);
        let words = tokens(sql)?;
        let words = one_statement(sql, &words)?;
        check_brackets(sql, words)?;
        check_growth(words)?;
        let (Some(first), Some(last)) = (words.first(), words.last()) else {
            return Err(StatementError::Empty);
        };
        let Some(verb) = key_word(first).filter(|verb| VERBS.contains(verb)) else {
            let shown = &sql[first.start..first.end];
            return Err(StatementError::NotAChange(shown.to_uppercase()));
        };
        let is_definition = matches!(verb, "alter" | "create" | "drop");
        let second = words.get(1).and_then(key_word).unwrap_or_default();
        if is_definition && BEYOND.contains(&second) {
            let both = format!("{verb} {second}");
            return Err(StatementError::NotAChange(both.to_uppercase()));
        }
        let selects = selects(verb, words);
        Ok(Self {
            text: sql[first.start..last.end].to_owned(),
            verb: verb.to_owned(),
            called: called(words),
            destroys: destroys(verb, words),
            returns: selects || words.iter().any(|word| key_word(word) == Some("returning")),
            selects,
            has_change_within: verb == "with"
                && words.iter().any(|word| {
                    matches!(
                        key_word(word),
                        Some("insert" | "update" | "delete" | "merge")
                    )
                }),
        })
    }

    /// The statement to send.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its first word, in lower case.
    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// What it calls.
    pub fn called(&self) -> impl Iterator<Item = &Called> {
        self.called.iter()
    }

    /// Whether it is about rows, not about definitions.
    pub fn is_about_rows(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "call" | "delete" | "insert" | "merge" | "select" | "update" | "with"
        )
    }

    /// Why it destroys more than it names, if it does.
    pub fn destroys(&self) -> Option<&'static str> {
        self.destroys
    }

    /// Whether it gives rows.
    pub fn returns(&self) -> bool {
        self.returns
    }

    /// Whether it is a query of what it may have changed within.
    pub fn selects(&self) -> bool {
        self.selects
    }

    /// Whether it changes something in a WITH, which may then not stand within another.
    pub fn has_change_within(&self) -> bool {
        self.has_change_within
    }

    /// The statement that gives each column it returns behind the cast of its place, under names of ours.
    pub fn text_with(&self, casts: &[&str]) -> String {
        let selected = casts.iter().enumerate();
        let selected: Vec<String> = selected
            .map(|(index, cast)| format!("c{index}{cast}"))
            .collect();
        let named: Vec<String> = (0..casts.len()).map(|index| format!("c{index}")).collect();
        format!(
            "WITH q({}) AS (\n{}\n) SELECT {} FROM q",
            named.join(", "),
            self.text,
            selected.join(", ")
        )
    }
}

fn key_word<'t>(token: &'t Token<'_>) -> Option<&'t str> {
    match &token.kind {
        Kind::Name {
            name,
            is_quoted: false,
        } => Some(name),
        _ => None,
    }
}

/// Whether it is a query, also behind WITH.
fn selects(verb: &str, words: &[Token<'_>]) -> bool {
    let mut depth = 0_usize;
    let outside = words.iter().filter(|word| {
        if is(Some(word), '(') {
            depth += 1;
        } else if is(Some(word), ')') {
            depth = depth.saturating_sub(1);
        }
        depth == 0
    });
    let mut verbs = outside.filter_map(key_word).filter(|verb| {
        matches!(
            *verb,
            "select" | "table" | "values" | "insert" | "update" | "delete" | "merge"
        )
    });
    matches!(verb, "select" | "with") && matches!(verbs.next(), Some("select" | "table" | "values"))
}

fn destroys(verb: &str, words: &[Token<'_>]) -> Option<&'static str> {
    match verb {
        "drop" => return Some("it drops what it names, with all that is in it"),
        "truncate" => return Some("it empties whole tables"),
        "alter"
            if words
                .iter()
                .any(|word| matches!(key_word(word), Some("drop" | "type"))) =>
        {
            return Some("it drops or remakes a part of what it names, with all that is in it");
        }
        "merge" if words.iter().any(|word| key_word(word) == Some("delete")) => {
            return Some("it merges by deleting");
        }
        _ => {}
    }
    words.iter().enumerate().find_map(|(index, word)| {
        let what = match key_word(word) {
            Some("delete") if key_word(words.get(index + 1)?) == Some("from") => {
                "it deletes every row: it has no WHERE"
            }
            Some("update") if sets_rows(&words[index + 1..]) => {
                "it updates every row: it has no WHERE"
            }
            _ => return None,
        };
        (!has_where(&words[index..])).then_some(what)
    })
}

/// Whether what follows UPDATE is a table and SET: else it is a part of a foreign key, a trigger, a policy, ON CONFLICT, MERGE, or a lock.
fn sets_rows(behind: &[Token<'_>]) -> bool {
    let first = behind.first().and_then(key_word);
    if matches!(
        first,
        Some("set" | "cascade" | "restrict" | "no" | "on" | "of" | "or")
    ) {
        return false;
    }
    behind
        .iter()
        .find(|word| {
            key_word(word) == Some("set")
                || !matches!(word.kind, Kind::Name { .. } | Kind::Other('.' | '*'))
        })
        .is_some_and(|word| key_word(word) == Some("set"))
}

/// Whether a WHERE follows before the brackets around the words close.
fn has_where(words: &[Token<'_>]) -> bool {
    let mut depth = 0_usize;
    let mut before = None;
    for (index, word) in words.iter().enumerate() {
        if is(Some(word), '(') {
            depth += 1;
        } else if is(Some(word), ')') {
            let Some(less) = depth.checked_sub(1) else {
                return false;
            };
            depth = less;
        } else if depth == 0 && key_word(word) == Some("where") && !is_label(before) {
            return names_something(&words[index + 1..]);
        }
        before = Some(word);
    }
    false
}

/// Whether the next word is what something is called: behind AS or a dot.
fn is_label(before: Option<&Token<'_>>) -> bool {
    is(before, '.') || before.and_then(key_word) == Some("as")
}

/// Whether a condition says anything of a row: constants alone are true of all of them.
fn names_something(condition: &[Token<'_>]) -> bool {
    let said = condition
        .iter()
        .take_while(|word| key_word(word) != Some("returning"));
    said.enumerate().any(|(index, word)| match &word.kind {
        Kind::Name { name, is_quoted } => {
            let is_called = is(condition.get(index + 1), '(');
            let is_type = index > 0 && is(condition.get(index - 1), ':');
            !is_called && !is_type && (*is_quoted || !NAMES_NOTHING.contains(&name.as_ref()))
        }
        _ => false,
    })
}

/// Key words of conditions, which are names of nothing in a row.
const NAMES_NOTHING: [&str; 36] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "asymmetric",
    "between",
    "case",
    "cast",
    "distinct",
    "else",
    "end",
    "escape",
    "exists",
    "false",
    "from",
    "ilike",
    "in",
    "is",
    "isnull",
    "like",
    "not",
    "notnull",
    "null",
    "or",
    "row",
    "select",
    "similar",
    "some",
    "symmetric",
    "then",
    "to",
    "true",
    "unknown",
    "values",
    "when",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_destroys_is_told_from_what_names_its_rows() -> anyhow::Result<()> {
        for sql in [
            "DELETE FROM t",
            "update t set a = (select 1 where true)",
            "WITH x AS (DELETE FROM t RETURNING a) SELECT * FROM x WHERE true",
            "INSERT INTO log SELECT 1 FROM (SELECT 1 WHERE true) s; ".trim_end_matches("; "),
            "DROP TABLE t",
            "TRUNCATE t",
            "ALTER TABLE t DROP COLUMN a",
            "ALTER TABLE t ALTER COLUMN a TYPE int USING NULL",
            "DELETE FROM t WHERE true",
            "DELETE FROM t WHERE 1 = 1 RETURNING a",
            "DELETE FROM t RETURNING 1 AS where",
            "UPDATE t SET a = 2 RETURNING 1 AS where",
            "MERGE INTO t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
            "WITH RECURSIVE x(a) AS (SELECT 1) SEARCH DEPTH FIRST BY a SET \"do\" DELETE FROM t",
            "WITH RECURSIVE x(a) AS (SELECT 1) SEARCH DEPTH FIRST BY a SET before UPDATE ONLY public.t SET a = 1",
            "DELETE FROM t WHERE (SELECT true)",
            "DELETE FROM t WHERE 1 IN (1)",
            "DELETE FROM t WHERE 'a' LIKE '%'",
            "DELETE FROM t WHERE now() > '2000-01-01'::date",
        ] {
            let destroys = Change::of(sql)?.destroys().is_some();
            assert_eq!(destroys, !sql.starts_with("INSERT"), "{sql}");
        }
        for sql in [
            "DELETE FROM t WHERE a = 1",
            "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2",
            "CREATE TABLE u (a int REFERENCES t ON DELETE CASCADE ON UPDATE SET NULL)",
            "SELECT a FROM t FOR UPDATE",
            "ALTER TABLE t ADD COLUMN b int",
            "SELECT a FROM t FOR NO KEY UPDATE SKIP LOCKED",
            "CREATE TABLE u (a int REFERENCES t ON UPDATE NO ACTION ON DELETE SET NULL)",
            "CREATE TRIGGER x BEFORE UPDATE OF a OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION f()",
            "CREATE POLICY p ON t FOR UPDATE USING (true)",
            "DELETE FROM t WHERE \"true\"",
            "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = 1",
        ] {
            assert_eq!(Change::of(sql)?.destroys(), None, "{sql}");
        }
        Ok(())
    }

    #[test]
    fn nothing_leaves_its_transaction_or_its_database() {
        for sql in [
            "COMMIT",
            "BEGIN",
            "ROLLBACK",
            "SAVEPOINT a",
            "SET ROLE postgres",
            "DO $$ BEGIN END $$",
            "COPY t TO PROGRAM 'id'",
            "LISTEN x",
            "PREPARE p AS DELETE FROM t",
            "VACUUM",
            "ALTER SYSTEM SET a = 1",
            "CREATE ROLE x",
            "CREATE DATABASE x",
            "\"delete\" from t",
            "(delete from t)",
            "INSERT INTO t VALUES (1); COMMIT",
        ] {
            assert!(Change::of(sql).is_err(), "{sql}");
        }
    }
}
