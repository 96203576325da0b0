//! One statement of an agent that changes something: what it is, and whether it destroys more than it names.

use std::collections::BTreeSet;

use super::statement::{
    Called, LONGEST, StatementError, called, check_brackets, check_growth, is, name, one_statement,
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
        Ok(Self {
            text: sql[first.start..last.end].to_owned(),
            verb: verb.to_owned(),
            called: called(words),
            destroys: destroys(verb, words),
            returns: verb == "select"
                || words.iter().any(|word| key_word(word) == Some("returning")),
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

    /// Why it destroys more than it names, if it does.
    pub fn destroys(&self) -> Option<&'static str> {
        self.destroys
    }

    /// Whether it gives rows.
    pub fn returns(&self) -> bool {
        self.returns
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
        let before = index.checked_sub(1).and_then(|before| words.get(before));
        // A part of a foreign key, of ON CONFLICT or MERGE, or a lock.
        if matches!(
            name(before),
            Some("on" | "do" | "then" | "for" | "or" | "no" | "before" | "after" | "of")
        ) {
            return None;
        }
        let what = match key_word(word) {
            Some("delete") if key_word(words.get(index + 1)?) == Some("from") => {
                "it deletes every row: it has no WHERE"
            }
            Some("update") => "it updates every row: it has no WHERE",
            _ => return None,
        };
        (!has_where(&words[index..])).then_some(what)
    })
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
    condition
        .iter()
        .take_while(|word| key_word(word) != Some("returning"))
        .any(|word| match &word.kind {
            Kind::Name { name, is_quoted } => {
                *is_quoted
                    || !matches!(
                        name.as_ref(),
                        "true" | "false" | "not" | "null" | "is" | "and" | "or"
                    )
            }
            _ => false,
        })
}

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
