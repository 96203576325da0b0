//! What neither the access mode nor the plan of a statement tells: files and addresses it reads, procedures and functions it calls,
//! other databases, commands that are no queries.
//!
//! For the server `LOAD CSV`, `TERMINATE TRANSACTIONS`, `db.stats.clear` and most of what APOC has are reads. The gate lets
//! through what it knows, and refuses calls that it does not know; it may take a word for a key word that is none, never the
//! other way round. A name that is taken for a key word passes in backticks.

use super::tokens::{Kind, Token, TokenError, decoded, tokens};

/// Longest statement, in bytes.
pub const LONGEST: usize = 1 << 20;

/// Procedures that read the graph and nothing else; a star stands for one or more parts of a name.
const READING_PROCEDURES: [&str; 17] = [
    "db.index.fulltext.listAvailableAnalyzers",
    "db.index.fulltext.queryNodes",
    "db.index.fulltext.queryRelationships",
    "db.index.vector.queryNodes",
    "db.index.vector.queryRelationships",
    "db.info",
    "db.labels",
    "db.ping",
    "db.propertyKeys",
    "db.relationshipTypes",
    "db.schema.nodeTypeProperties",
    "db.schema.relTypeProperties",
    "db.schema.visualization",
    "gds.*.stats",
    "gds.*.stream",
    "gds.graph.list",
    "gds.list",
];

/// Procedures that a write may call as well.
const WRITING_PROCEDURES: [&str; 8] = [
    "db.awaitIndex",
    "db.awaitIndexes",
    "db.create.setNodeVectorProperty",
    "db.create.setRelationshipVectorProperty",
    "db.createLabel",
    "db.createProperty",
    "db.createRelationshipType",
    "db.index.vector.createNodeIndex",
];

/// Functions with a namespace that only compute; those without one are the server's own, and all of them do.
const FUNCTIONS: [&str; 13] = [
    "date.*",
    "datetime.*",
    "duration.*",
    "gds.util.asNode",
    "gds.util.asNodes",
    "gds.version",
    "localdatetime.*",
    "localtime.*",
    "point.distance",
    "point.withinBBox",
    "time.*",
    "vector.similarity.cosine",
    "vector.similarity.euclidean",
];

/// What may be shown, behind any of [`SHOWN_KINDS`].
const SHOWN: [&str; 8] = [
    "CONSTRAINT",
    "CONSTRAINTS",
    "FUNCTION",
    "FUNCTIONS",
    "INDEX",
    "INDEXES",
    "PROCEDURE",
    "PROCEDURES",
];

/// Words between `SHOW` and what is shown.
const SHOWN_KINDS: [&str; 22] = [
    "ALL",
    "BUILT",
    "DEFINED",
    "EXIST",
    "EXISTENCE",
    "FULLTEXT",
    "IN",
    "KEY",
    "LOOKUP",
    "NODE",
    "POINT",
    "PROPERTY",
    "RANGE",
    "REL",
    "RELATIONSHIP",
    "TEXT",
    "TYPE",
    "TYPED",
    "UNIQUE",
    "UNIQUENESS",
    "USER",
    "VECTOR",
];

/// Words that a statement which writes begins with, beside those that make it a command of administration.
const FIRST_WORDS: [&str; 24] = [
    "CALL", "CREATE", "DELETE", "DETACH", "DROP", "FILTER", "FINISH", "FOREACH", "INSERT", "LET",
    "LIMIT", "MATCH", "MERGE", "NODETACH", "OFFSET", "OPTIONAL", "ORDER", "REMOVE", "RETURN",
    "SET", "SHOW", "SKIP", "UNWIND", "WITH",
];

/// What `CREATE` and `DROP` may be followed by as a change of the schema.
const SCHEMA_WORDS: [&str; 8] = [
    "CONSTRAINT",
    "FULLTEXT",
    "INDEX",
    "LOOKUP",
    "POINT",
    "RANGE",
    "TEXT",
    "VECTOR",
];

/// A statement that is not let through. Positions are characters from 1, counted with `\u` escapes as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// Nothing but blanks, comments and semicolons.
    #[error("there is no statement in the text")]
    Empty,
    /// Over [`LONGEST`].
    #[error("the statement has {0} bytes, and {LONGEST} are allowed")]
    TooLong(usize),
    /// A semicolon between statements.
    #[error("there is more than one statement; a second one begins at character {0}")]
    Several(usize),
    /// A word that changes how a statement is treated.
    #[error("`{word}` at character {position} is not taken; give the statement without it")]
    Prefix {
        /// `EXPLAIN`, `PROFILE` or `CYPHER`.
        word: &'static str,
        /// Where.
        position: usize,
    },
    /// `LOAD CSV`.
    #[error("`LOAD CSV` at character {0} reads files and addresses, and is never let through")]
    LoadCsv(usize),
    /// A procedure that is not on the list.
    #[error(
        "the procedure `{name}` at character {position} is not on the list of those that may be called"
    )]
    Procedure {
        /// With its namespace.
        name: String,
        /// Where.
        position: usize,
    },
    /// A function that is not on the list.
    #[error(
        "the function `{name}` at character {position} is not on the list of those that may be called"
    )]
    Function {
        /// With its namespace.
        name: String,
        /// Where.
        position: usize,
    },
    /// `USE`.
    #[error("`USE` at character {0} is not taken: a source is one database")]
    Use(usize),
    /// `IN TRANSACTIONS`.
    #[error("`IN TRANSACTIONS` at character {0} is not taken: a call is one transaction")]
    InTransactions(usize),
    /// `TERMINATE TRANSACTIONS`.
    #[error("`TERMINATE` at character {0} ends what others do, and is never let through")]
    Terminate(usize),
    /// `SHOW` of what is none of the graph's.
    #[error(
        "`SHOW {what}` at character {position} is not taken; indexes, constraints, procedures and functions can be shown"
    )]
    Show {
        /// What should be shown.
        what: String,
        /// Where.
        position: usize,
    },
    /// A command that administers the server.
    #[error("`{word}` at character {position} is no statement about the graph")]
    Administration {
        /// Its first words.
        word: String,
        /// Where.
        position: usize,
    },
    /// What is no sequence of words.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl GateError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Procedure { .. } | Self::Function { .. } => Some(
                "the operator can add it to allow_functions of the source, `name.*` for a whole namespace; \
                 if it is a name of the graph, put it in backticks",
            ),
            Self::Use(_) | Self::Show { .. } | Self::Terminate(_) | Self::LoadCsv(_) => {
                Some("if the word is a name of the graph, put it in backticks")
            }
            Self::Several(_) => Some("make one call for each statement"),
            _ => None,
        }
    }
}

/// What a statement is let through for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Reading alone.
    Read,
    /// Also changing the graph and its schema.
    Write,
}

/// One statement of a caller with its escapes read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    text: String,
}

impl Statement {
    /// Takes a caller's text if it may be run for the purpose. `allowed` are procedures and functions that the operator vouches for,
    /// a star as a name's last part for all that a namespace has.
    ///
    /// # Errors
    /// What it does that it may not.
    pub fn of(cypher: &str, purpose: Purpose, allowed: &[String]) -> Result<Self, GateError> {
        let statement = Self::unchecked(cypher)?;
        let words = tokens(&statement.text)?;
        let gate = Gate {
            text: &statement.text,
            words: &words,
            purpose,
            allowed,
        };
        gate.check()?;
        Ok(statement)
    }

    /// Takes a text for one statement, whatever it does.
    ///
    /// # Errors
    /// What is no text of Cypher at all.
    pub fn unchecked(cypher: &str) -> Result<Self, GateError> {
        if cypher.len() > LONGEST {
            return Err(GateError::TooLong(cypher.len()));
        }
        let text = decoded(cypher)?;
        let words = tokens(&text)?;
        let mut words = &words[..];
        while let [rest @ .., last] = words
            && last.kind == Kind::Other(';')
        {
            words = rest;
        }
        let Some(end) = words.last().map(|word| word.end) else {
            return Err(GateError::Empty);
        };
        let text = text[..end].to_owned();
        Ok(Self { text })
    }

    /// The text to send.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first bare word of it, in upper case.
    pub fn first_word(&self) -> Option<String> {
        bare(&tokens(&self.text).ok()?, 0)
    }

    /// Whether some bare word of it, that is no property, label, parameter or key of a map, is this one in upper case.
    pub fn has_word(&self, wanted: &str) -> bool {
        let words = tokens(&self.text).unwrap_or_default();
        (0..words.len()).any(|index| {
            let is_key = words
                .get(index + 1)
                .is_some_and(|next| next.kind == Kind::Other(':'));
            !is_key && key_word(&words, index).is_some_and(|word| word == wanted)
        })
    }
}

struct Gate<'a> {
    text: &'a str,
    words: &'a [Token<'a>],
    purpose: Purpose,
    allowed: &'a [String],
}

impl Gate<'_> {
    fn check(&self) -> Result<(), GateError> {
        self.check_start()?;
        let mut index = 0;
        while index < self.words.len() {
            if self.words[index].kind == Kind::Other(';') {
                // The last ones are cut off already.
                let next = self.words[index..]
                    .iter()
                    .find(|word| word.kind != Kind::Other(';'));
                return Err(GateError::Several(
                    next.map_or(0, |word| self.position(word)),
                ));
            }
            self.check_key_word(index)?;
            index = self.check_call(index)?;
        }
        Ok(())
    }

    fn check_start(&self) -> Result<(), GateError> {
        let Some(first) = key_word(self.words, 0) else {
            return Ok(());
        };
        let position = self.position(&self.words[0]);
        for word in ["EXPLAIN", "PROFILE", "CYPHER"] {
            if first == word {
                return Err(GateError::Prefix { word, position });
            }
        }
        if self.purpose == Purpose::Read {
            // The plan tells what is none.
            return Ok(());
        }
        if matches!(first.as_str(), "USE" | "LOAD" | "TERMINATE") {
            // These have errors of their own.
            return Ok(());
        }
        let second = key_word(self.words, 1).unwrap_or_default();
        let is_command = match first.as_str() {
            // `CREATE p = (a)` makes a path; no command has an equals sign there.
            "CREATE" => {
                !second.is_empty()
                    && !SCHEMA_WORDS.contains(&second.as_str())
                    && self.other(2) != Some('=')
            }
            "DROP" => !matches!(second.as_str(), "INDEX" | "CONSTRAINT"),
            first => !FIRST_WORDS.contains(&first),
        };
        if is_command {
            let word = format!("{first} {second}").trim_end().to_owned();
            return Err(GateError::Administration { word, position });
        }
        Ok(())
    }

    /// Words that make a clause or a command of what follows.
    fn check_key_word(&self, index: usize) -> Result<(), GateError> {
        let Some(word) = key_word(self.words, index) else {
            return Ok(());
        };
        let position = self.position(&self.words[index]);
        let next = self.words.get(index + 1).map(|next| &next.kind);
        let next_is_name = matches!(next, Some(Kind::Name { .. }));
        let next_word = bare(self.words, index + 1).unwrap_or_default();
        match word.as_str() {
            "LOAD" if next_word == "CSV" => Err(GateError::LoadCsv(position)),
            "USE" if next_is_name || next == Some(&Kind::Other('(')) => {
                Err(GateError::Use(position))
            }
            "TERMINATE" if matches!(next_word.as_str(), "TRANSACTION" | "TRANSACTIONS") => {
                Err(GateError::Terminate(position))
            }
            "SHOW" if next_is_name => self.check_show(index),
            "TRANSACTION" | "TRANSACTIONS" if self.ends_in_transactions(index) => {
                Err(GateError::InTransactions(position))
            }
            "CALL" if next_is_name => {
                let (name, _) = self.chain(index + 1);
                let listed: &[&str] = match self.purpose {
                    Purpose::Read => &[],
                    Purpose::Write => &WRITING_PROCEDURES,
                };
                let mut listed = READING_PROCEDURES.iter().chain(listed);
                // Unlike functions, procedures are told apart by case.
                if listed.any(|pattern| matches_pattern(pattern, &name)) || self.is_allowed(&name) {
                    Ok(())
                } else {
                    let position = self.position(&self.words[index + 1]);
                    Err(GateError::Procedure { name, position })
                }
            }
            _ => Ok(()),
        }
    }

    fn check_show(&self, index: usize) -> Result<(), GateError> {
        let mut what = Vec::new();
        for index in index + 1..self.words.len() {
            let Some(word) = bare(self.words, index) else {
                break;
            };
            if SHOWN.contains(&word.as_str()) {
                return Ok(());
            }
            let goes_on = SHOWN_KINDS.contains(&word.as_str());
            what.push(word);
            if !goes_on {
                break;
            }
        }
        Err(GateError::Show {
            what: what.join(" "),
            position: self.position(&self.words[index]),
        })
    }

    /// Whether a word stands behind `} IN`, or behind `CONCURRENT`.
    fn ends_in_transactions(&self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1) else {
            return false;
        };
        match bare(self.words, before).as_deref() {
            Some("CONCURRENT") => true,
            Some("IN") => before
                .checked_sub(1)
                .is_some_and(|before| self.other(before) == Some('}')),
            _ => false,
        }
    }

    /// A function that is called at a word, if it has a namespace; gives where to look on.
    fn check_call(&self, index: usize) -> Result<usize, GateError> {
        if !matches!(self.words[index].kind, Kind::Name { .. }) {
            return Ok(index + 1);
        }
        let (name, behind) = self.chain(index);
        let is_procedure = index
            .checked_sub(1)
            .is_some_and(|before| key_word(self.words, before).as_deref() == Some("CALL"));
        let is_call = self.other(behind) == Some('(');
        if is_call && !is_procedure && name.contains('.') {
            let folded = name.to_lowercase();
            let known = FUNCTIONS
                .iter()
                .any(|pattern| matches_pattern(&pattern.to_lowercase(), &folded));
            if !known && !self.is_allowed(&name) {
                let position = self.position(&self.words[index]);
                return Err(GateError::Function { name, position });
            }
        }
        // A word that is no name of several parts may be followed by a key word at once.
        Ok(behind)
    }

    /// The name of several parts that begins at a word, and the index behind it.
    fn chain(&self, index: usize) -> (String, usize) {
        let mut name = String::new();
        let mut at = index;
        while let Some(Kind::Name { name: part, .. }) = self.words.get(at).map(|word| &word.kind) {
            name.push_str(part);
            at += 1;
            let goes_on = self.other(at) == Some('.')
                && matches!(
                    self.words.get(at + 1).map(|word| &word.kind),
                    Some(Kind::Name { .. })
                );
            if !goes_on {
                break;
            }
            name.push('.');
            at += 1;
        }
        (name, at)
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.allowed
            .iter()
            .any(|pattern| matches_pattern(pattern, name))
    }

    fn other(&self, index: usize) -> Option<char> {
        match self.words.get(index)?.kind {
            Kind::Other(character) => Some(character),
            _ => None,
        }
    }

    fn position(&self, word: &Token<'_>) -> usize {
        self.text[..word.start].chars().count() + 1
    }
}

/// A word that no backticks protect, in upper case.
fn bare(words: &[Token<'_>], index: usize) -> Option<String> {
    match &words.get(index)?.kind {
        Kind::Name {
            name,
            is_quoted: false,
        } => Some(folded(name)),
        _ => None,
    }
}

/// A word that can be a key word: it is bare, and neither a property nor a label.
fn key_word(words: &[Token<'_>], index: usize) -> Option<String> {
    let word = bare(words, index)?;
    let before = |distance: usize| {
        index
            .checked_sub(distance)
            .and_then(|at| words.get(at))
            .map(|word| &word.kind)
    };
    let is_label = before(1) == Some(&Kind::Other(':'));
    // A number's point or a range's is none of a property.
    let is_property = before(1) == Some(&Kind::Other('.'))
        && matches!(
            before(2),
            Some(
                Kind::Name { .. }
                    | Kind::Text
                    | Kind::Parameter
                    | Kind::Other(')' | ']' | '}' | '{' | ',')
            )
        );
    (!is_label && !is_property).then_some(word)
}

/// A word in upper case; letters that are one of ASCII in another case count as it.
fn folded(word: &str) -> String {
    if word.is_ascii() {
        return word.to_ascii_uppercase();
    }
    word.chars()
        .flat_map(|character| character.to_lowercase().flat_map(char::to_uppercase))
        .collect()
}

/// Whether a name is what a pattern says: the same, or with one or more parts in the place of a star.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let Some((before, behind)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let inner = name
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(behind));
    // A star alone would vouch for everything there is.
    !before.is_empty() && inner.is_some_and(|inner| !inner.is_empty())
}

/// The text with a word before it on a line of its own, so that columns stay what they are.
pub(in crate::neo4j) fn explained(text: &str) -> String {
    format!("{EXPLAIN}{text}")
}

/// What [`explained`] puts before a text.
pub(in crate::neo4j) const EXPLAIN: &str = "EXPLAIN\n";

#[cfg(test)]
mod tests;
