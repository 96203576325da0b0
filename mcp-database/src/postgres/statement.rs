//! One statement of an agent, turned into one that can only be a query: the server's own grammar is the judge.
//!
//! The text becomes the subquery of `SELECT * FROM (…) q`, sent as one statement of the extended protocol. What stands in such a
//! place can only be SELECT, VALUES, TABLE or WITH around them, and no WITH there may change data; so the server refuses anything
//! else before it runs. What is looked at here gives better messages, and finds the functions that are called, for the gate over them.

use std::collections::BTreeSet;

use super::tokens::{Kind, Token, TokenError, tokens};

/// Longest statement, in bytes.
pub const LONGEST: usize = 1 << 20;
/// Largest value that a chain of calls may blow a constant up to while the server only plans; it does so without asking its timeout.
pub const LARGEST_CONSTANT: u64 = 1 << 20;

/// What stands before the caller's text.
const BEFORE: &str = "SELECT * FROM (";
/// What stands behind it; the line break ends a comment.
const BEHIND: &str = "\n) q";

/// Functions whose result is as long as a number says.
const GROWING: [&str; 4] = ["array_fill", "lpad", "repeat", "rpad"];

/// A statement that cannot be made a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Nothing but blanks, comments and semicolons.
    #[error("there is no statement in the text")]
    Empty,
    /// Over [`LONGEST`].
    #[error("the statement has {0} bytes, and {LONGEST} are allowed")]
    TooLong(usize),
    /// A semicolon between statements.
    #[error("there is more than one statement; a second one begins at character {0}")]
    Several(usize),
    /// A verb that is no query.
    #[error("`{0}` is no query")]
    NotAQuery(String),
    /// Brackets that do not match.
    #[error("a bracket at character {0} has no counterpart")]
    Unbalanced(usize),
    /// A verb that is not one of those that change what is in a database.
    #[error("`{0}` is no change that can be made here")]
    NotAChange(String),
    /// A constant that grows beyond [`LARGEST_CONSTANT`].
    #[error(
        "calls of `{0}` within each other make a value of over {LARGEST_CONSTANT} bytes while the server plans"
    )]
    GrowsTooMuch(String),
    /// Columns that cannot be read as they are sent.
    #[error("the columns {0} cannot be given as they are where a WITH makes a change")]
    Unreadable(String),
    /// What is no sequence of words.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// A name that is called, as the server would look it up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Called {
    /// The schema, where one is given.
    pub schema: Option<String>,
    /// The function.
    pub name: String,
    /// Whether it stands as `value.name`, which reads a column where there is one of the name, and calls a function otherwise.
    pub as_attribute: bool,
}

/// A query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    wrapped: String,
    /// Characters of the caller's text before the statement.
    skipped: usize,
    called: BTreeSet<Called>,
}

impl Query {
    /// Makes a query of a caller's text.
    ///
    /// # Errors
    /// What is certainly no query; the server judges the rest.
    pub fn of(sql: &str) -> Result<Self, StatementError> {
        if sql.len() > LONGEST {
            return Err(StatementError::TooLong(sql.len()));
        }
        let sql = sql.strip_prefix('\u{feff}').unwrap_or(sql);
        let words = tokens(sql)?;
        let words = one_statement(sql, &words)?;
        check_brackets(sql, words)?;
        check_verb(words)?;
        check_growth(words)?;
        let (start, end) = match (words.first(), words.last()) {
            (Some(first), Some(last)) => (first.start, last.end),
            _ => return Err(StatementError::Empty),
        };
        Ok(Self {
            wrapped: [BEFORE, &sql[start..end], BEHIND].concat(),
            skipped: sql[..start].chars().count(),
            called: called(words),
        })
    }

    /// The statement to send.
    pub fn text(&self) -> &str {
        &self.wrapped
    }

    /// The statement that gives each column behind the cast of its place (`::text`, or nothing), under names of ours.
    pub fn text_with(&self, casts: &[&str]) -> String {
        let list =
            |columns: &mut dyn Iterator<Item = String>| columns.collect::<Vec<_>>().join(", ");
        let selected = casts.iter().enumerate();
        let selected = list(&mut selected.map(|(index, cast)| format!("c{index}{cast}")));
        let named = list(&mut (0..casts.len()).map(|index| format!("c{index}")));
        let rest = &self.wrapped["SELECT *".len()..];
        format!("SELECT {selected}{rest}({named})")
    }

    /// A character's place in the caller's text (from 1), for a place that the server gives in the sent one.
    pub fn position(&self, sent: usize) -> usize {
        (sent + self.skipped).saturating_sub(BEFORE.len()).max(1)
    }

    /// What it calls.
    pub fn called(&self) -> impl Iterator<Item = &Called> {
        self.called.iter()
    }
}

fn character(sql: &str, token: &Token<'_>) -> usize {
    sql[..token.start].chars().count() + 1
}

/// The words of the only statement, without the semicolons around it.
pub(super) fn one_statement<'t, 'a>(
    sql: &str,
    words: &'t [Token<'a>],
) -> Result<&'t [Token<'a>], StatementError> {
    let is_end = |token: &Token<'_>| token.kind == Kind::Other(';');
    let begin = words
        .iter()
        .position(|token| !is_end(token))
        .ok_or(StatementError::Empty)?;
    let words = &words[begin..];
    let length = words.iter().position(is_end).unwrap_or(words.len());
    match words[length..].iter().find(|token| !is_end(token)) {
        Some(second) => Err(StatementError::Several(character(sql, second))),
        None => Ok(&words[..length]),
    }
}

/// Brackets match, so that the text cannot leave the place it is put in.
pub(super) fn check_brackets(sql: &str, words: &[Token<'_>]) -> Result<(), StatementError> {
    let mut open = Vec::new();
    for token in words {
        let matches = match token.kind {
            Kind::Other('(' | '[') => {
                open.push(token);
                continue;
            }
            Kind::Other(')') => '(',
            Kind::Other(']') => '[',
            _ => continue,
        };
        if open.pop().map(|token| &token.kind) != Some(&Kind::Other(matches)) {
            return Err(StatementError::Unbalanced(character(sql, token)));
        }
    }
    match open.first() {
        Some(token) => Err(StatementError::Unbalanced(character(sql, token))),
        None => Ok(()),
    }
}

fn check_verb(words: &[Token<'_>]) -> Result<(), StatementError> {
    let verb = words
        .iter()
        .find(|token| token.kind != Kind::Other('('))
        .ok_or(StatementError::Empty)?;
    match &verb.kind {
        Kind::Name {
            name,
            is_quoted: false,
        } if matches!(name.as_ref(), "select" | "values" | "table" | "with") => Ok(()),
        Kind::Name { name, .. } => Err(StatementError::NotAQuery(name.to_uppercase())),
        Kind::Other(character) => Err(StatementError::NotAQuery(character.to_string())),
        _ => Err(StatementError::NotAQuery("a constant".to_owned())),
    }
}

pub(super) fn is(token: Option<&Token<'_>>, character: char) -> bool {
    token.is_some_and(|token| token.kind == Kind::Other(character))
}

pub(super) fn name<'t>(token: Option<&'t Token<'_>>) -> Option<&'t str> {
    match &token?.kind {
        Kind::Name { name, .. } => Some(name),
        _ => None,
    }
}

/// Every name before an opening bracket, and every one behind a dot that is not followed by one more.
pub(super) fn called(words: &[Token<'_>]) -> BTreeSet<Called> {
    let mut found = BTreeSet::new();
    for (index, token) in words.iter().enumerate() {
        let Some(called) = name(Some(token)) else {
            continue;
        };
        let before = |steps: usize| index.checked_sub(steps).and_then(|at| words.get(at));
        let is_behind_dot = is(before(1), '.');
        let schema = name(before(2)).filter(|_| is_behind_dot);
        if is(words.get(index + 1), '(') {
            found.insert(Called {
                schema: schema.map(str::to_owned),
                name: called.to_owned(),
                as_attribute: false,
            });
        } else if is_behind_dot {
            found.insert(Called {
                schema: None,
                name: called.to_owned(),
                as_attribute: true,
            });
        }
    }
    found
}

/// Refuses calls that the planner would blow up: the numbers of a growing call, times those of the calls around it.
pub(super) fn check_growth(words: &[Token<'_>]) -> Result<(), StatementError> {
    // By how much what is in each open bracket grows.
    let mut open: Vec<u64> = Vec::new();
    for (index, token) in words.iter().enumerate() {
        match &token.kind {
            Kind::Other('(') => {
                let mut growth = open.last().copied().unwrap_or(1);
                let before = index.checked_sub(1).and_then(|before| words.get(before));
                if let Some(caller) = name(before).filter(|name| GROWING.contains(name)) {
                    growth = growth.saturating_mul(own_numbers(&words[index..]));
                    if growth > LARGEST_CONSTANT {
                        return Err(StatementError::GrowsTooMuch(caller.to_owned()));
                    }
                }
                open.push(growth);
            }
            Kind::Other(')') => {
                open.pop();
            }
            _ => {}
        }
    }
    Ok(())
}

/// The product of the whole numbers in the brackets that `words` begin with, but for those in calls within them; beyond all bounds
/// where a number grows by more than products.
fn own_numbers(words: &[Token<'_>]) -> u64 {
    // Whether each open bracket is one of a call, or in one.
    let mut open: Vec<bool> = Vec::new();
    let mut product = 1_u64;
    let mut commas = 0;
    let mut before = None;
    for token in words {
        match token.kind {
            Kind::Other('(') => {
                let is_call = name(before).is_some() || open.last() == Some(&true);
                open.push(is_call);
            }
            Kind::Other(')') => {
                open.pop();
                if open.is_empty() {
                    break;
                }
            }
            Kind::Integer(value) if open.last() == Some(&false) => {
                product = product.saturating_mul(value.max(1));
            }
            Kind::Other(',') if open.len() == 1 => commas += 1,
            // The second of every one of them is a size, and may be one in quotes.
            Kind::Text if open.last() == Some(&false) && commas == 1 => return u64::MAX,
            // `1e9`, `2 ^ 30`, `1 << 30`
            Kind::Number | Kind::Other('^') if open.last() == Some(&false) => return u64::MAX,
            Kind::Other('<') if open.last() == Some(&false) && is(before, '<') => return u64::MAX,
            _ => {}
        }
        before = Some(token);
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sql: &str) -> StatementError {
        Query::of(sql).map_or_else(|error| error, |query| panic!("`{}` is taken", query.text()))
    }

    #[test]
    fn a_query_is_put_in_brackets_without_its_end() -> anyhow::Result<()> {
        for (sql, inner) in [
            ("SELECT 1", "SELECT 1"),
            (";; SELECT 1 ; ; -- done", "SELECT 1"),
            ("(values (1)) -- a", "(values (1))"),
            ("\u{feff}TABLE t", "TABLE t"),
            ("SELECT ';' /* ; */", "SELECT ';'"),
        ] {
            let text = format!("SELECT * FROM ({inner}\n) q");
            assert_eq!(Query::of(sql)?.text(), text, "{sql}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_query_is_named() {
        assert_eq!(refused(" -- only\n;"), StatementError::Empty);
        assert_eq!(refused("commit; drop table t"), StatementError::Several(9));
        for (sql, verb) in [
            ("explain select 1", "EXPLAIN"),
            ("((delete from t))", "DELETE"),
            ("\"select\" 1", "SELECT"),
            ("* from t", "*"),
            ("'select'", "a constant"),
        ] {
            assert_eq!(
                refused(sql),
                StatementError::NotAQuery(verb.to_owned()),
                "{sql}"
            );
        }
        assert_eq!(
            refused(&" ".repeat(LONGEST + 1)),
            StatementError::TooLong(LONGEST + 1)
        );
    }

    #[test]
    fn no_text_leaves_its_brackets() {
        assert_eq!(
            refused("SELECT 1) q, (SELECT 2"),
            StatementError::Unbalanced(9)
        );
        assert_eq!(refused("SELECT (1"), StatementError::Unbalanced(8));
        assert_eq!(refused("SELECT a[(1])"), StatementError::Unbalanced(12));
    }

    #[test]
    fn calls_are_found_whatever_their_spelling() -> anyhow::Result<()> {
        let calls = |sql: &str| -> anyhow::Result<Vec<String>> {
            let show = |called: &Called| {
                let dot = if called.as_attribute { "." } else { "" };
                let schema = called
                    .schema
                    .as_ref()
                    .map(|schema| format!("{schema}."))
                    .unwrap_or_default();
                format!("{dot}{schema}{}", called.name)
            };
            Ok(Query::of(sql)?.called().map(show).collect())
        };
        for (sql, expected) in [
            ("select PG_read_file ('x')", "pg_read_file"),
            ("select * from \"pg_read_file\"/* */('x')", "pg_read_file"),
            ("select pg_catalog . lo_export\n(1)", "pg_catalog.lo_export"),
            ("select 'f(1)', $$g(2)$$ from rows from (h(1))", "from"),
            ("select ('x'::text).pg_ls_dir", ".pg_ls_dir"),
        ] {
            assert!(
                calls(sql)?.contains(&expected.to_owned()),
                "{sql}: {:?}",
                calls(sql)?
            );
        }
        assert!(!calls("select 'f(1)'")?.contains(&"f".to_owned()));
        Ok(())
    }

    #[test]
    fn constants_do_not_grow_without_limit() -> anyhow::Result<()> {
        let bomb = "select repeat(repeat(repeat('x',1000),1000),1000)";
        assert_eq!(
            refused(bomb),
            StatementError::GrowsTooMuch("repeat".to_owned())
        );
        refused("select lpad('x', 1000 * 2000)");
        refused("select lpad('x', ((1000) * (2000)))");
        refused("select array_fill(0, array[2000, 2000])");
        refused("select repeat('x', 1 << 29)");
        refused("select lpad('x', '260000000')");
        refused("select repeat('x', 30000 * '30000')");
        refused("select rpad('x', int '260000000', 'y')");
        Query::of("select lpad(a, 10, '0'), repeat('-', 20) from t")?;
        refused("select repeat('x', 1e9::int)");
        refused("select lpad('x', (2 ^ 29)::int)");
        refused("select length(repeat(upper(repeat('x', 2000)), 2000))");
        Query::of("select repeat('x', 1000), rpad('y', 2000), lpad(a, 100) from t")?;
        Query::of("select repeat(substr(a, 1, 5000), 500) from t")?;
        Query::of("select * from generate_series(1, 100000000)")?;
        Ok(())
    }

    #[test]
    fn columns_can_be_asked_for_as_text() -> anyhow::Result<()> {
        assert_eq!(
            Query::of("select a, b from t")?.text_with(&["", "::text"]),
            "SELECT c0, c1::text FROM (select a, b from t\n) q(c0, c1)"
        );
        Ok(())
    }

    #[test]
    fn places_are_those_of_the_callers_text() -> anyhow::Result<()> {
        let sql = "  select x";
        // The server counts from 1, in the text that was sent.
        let query = Query::of(sql)?;
        let sent = query.text().find(" x").map_or(0, |at| at + 2);
        assert_eq!(Some(query.position(sent)), sql.find(" x").map(|at| at + 2));
        Ok(())
    }
}
