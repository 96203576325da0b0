//! Command rules: which commands are allowed, asked about or denied, judged by reading the script before it runs.
//!
//! This is advice, not the boundary: what a program does when it runs is up to the jail. A rule sees the words of every simple command as
//! far as they are known beforehand. What cannot be read, or is only known when it runs, is asked about. Scripts are read as bash reads
//! them; where other shells differ in a way that could hide a command, they are asked about too. Aliases, script files, assignments in
//! front of a command (`GIT_PAGER=x git log`) and the arguments of other interpreters (`python -c`) are not looked into.

mod brackets;
mod cursor;
mod escapes;
mod expand;
mod here;
mod judge;
mod matching;
mod options;
mod parse;
mod through;
mod word;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod hostile;

use serde::{Deserialize, Serialize};

pub use matching::Element;

use judge::Judge;
use matching::MAX_ELEMENTS;

/// Most rules of a policy.
const MAX_RULES: usize = 256;
/// Bytes of the longest word of a rule.
const MAX_WORD: usize = 256;
/// Most words of a rule that stand for each other.
const MAX_ALTERNATIVES: usize = 64;
/// Characters of a command in a verdict.
const MAX_SHOWN: usize = 160;

/// What happens with a command; the later, the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It runs.
    Allow,
    /// It runs if somebody approves it.
    Ask,
    /// It does not run.
    Deny,
}

impl std::fmt::Display for Decision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        })
    }
}

/// One `[[rule]]` of the policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleTable {
    /// The program and the words that follow it, as in `["git", ["push", "send-pack"]]`; further words may follow.
    #[serde(rename = "match")]
    pub elements: Vec<Element>,
    /// What happens with such a command.
    pub decision: Decision,
    /// Why, for whoever reads the verdict.
    #[serde(default)]
    pub reason: String,
    /// Examples that are checked when the policy is read.
    #[serde(default)]
    pub tests: RuleTests,
}

/// Examples of one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleTests {
    /// Scripts in which the rule finds its command.
    #[serde(default)]
    pub hit: Vec<String>,
    /// Scripts that the rule alone allows.
    #[serde(default)]
    pub miss: Vec<String>,
}

/// Rules that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// There are too many.
    #[error("there are {0} rules; at most {MAX_RULES} are possible")]
    TooMany(usize),
    /// A rule's `match` is empty, too long or has an impossible word.
    #[error("rule {rule}: its match {found}; it must be {right}")]
    Match {
        /// Number of the rule, from 1.
        rule: usize,
        /// What is wrong with it.
        found: String,
        /// What would be right.
        right: String,
    },
    /// One of its own examples came out differently.
    #[error("rule {rule}: `{command}` should be a {expected}, but came out as {found}")]
    Test {
        /// Number of the rule, from 1.
        rule: usize,
        /// The example.
        command: String,
        /// `hit` or `miss`.
        expected: &'static str,
        /// The decision and its reason.
        found: String,
    },
}

/// What the rules say of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The strictest decision of all its commands.
    pub decision: Decision,
    /// Number of the rule that decided, from 1; none if nothing was found or something could not be read.
    pub rule: Option<usize>,
    /// Why, in words.
    pub reason: String,
    /// The simple command it was about, at most 160 characters; `…` stands for what is only known when it runs.
    pub command: String,
}

/// Checked rules, in the order of the policy file; serialized as that list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Rules {
    rules: Vec<RuleTable>,
}

impl Rules {
    /// Checks the rules and runs the examples of each against that rule alone.
    ///
    /// # Errors
    /// A rule that cannot match anything, or that one of its examples contradicts.
    pub fn from_tables(tables: Vec<RuleTable>) -> Result<Self, RuleError> {
        if tables.len() > MAX_RULES {
            return Err(RuleError::TooMany(tables.len()));
        }
        for (index, table) in tables.iter().enumerate() {
            check_match(index + 1, &table.elements)?;
            check_examples(index + 1, table)?;
        }
        Ok(Self { rules: tables })
    }

    /// Whether there are no rules; everything is allowed then.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules say of a shell script. Without rules it is allowed unread.
    pub fn decide_shell(&self, script: &str) -> Verdict {
        if self.is_empty() {
            return Verdict::nothing_found(script);
        }
        Judge::new(&self.rules, script).of_script(script)
    }

    /// What the rules say of a program and its arguments, which no shell reads.
    pub fn decide_argv(&self, argv: &[String]) -> Verdict {
        let shown = argv.join(" ");
        if self.is_empty() {
            return Verdict::nothing_found(&shown);
        }
        Judge::new(&self.rules, &shown).of_argv(argv)
    }
}

impl Verdict {
    fn nothing_found(script: &str) -> Self {
        Self {
            decision: Decision::Allow,
            rule: None,
            reason: "no rule is about it".to_owned(),
            command: shortened(script),
        }
    }
}

fn check_match(rule: usize, elements: &[Element]) -> Result<(), RuleError> {
    let wrong = |found: String, right: String| RuleError::Match { rule, found, right };
    if elements.is_empty() || elements.len() > MAX_ELEMENTS {
        return Err(wrong(
            format!("has {} elements", elements.len()),
            format!("1 to {MAX_ELEMENTS}"),
        ));
    }
    for element in elements {
        let Element::OneOf(words) = element else {
            continue;
        };
        if words.is_empty() || words.len() > MAX_ALTERNATIVES {
            return Err(wrong(
                format!("has a list of {} words", words.len()),
                format!("1 to {MAX_ALTERNATIVES}"),
            ));
        }
        if let Some(word) = words.iter().find(|word| {
            word.is_empty()
                || word.len() > MAX_WORD
                || *word == "*"
                || word.contains(|letter: char| letter.is_whitespace() || letter.is_control())
        }) {
            return Err(wrong(
                format!("has the word `{}`", shortened(word)),
                format!("a word of 1 to {MAX_WORD} bytes without blanks, or \"*\" outside a list"),
            ));
        }
    }
    Ok(())
}

fn check_examples(rule: usize, table: &RuleTable) -> Result<(), RuleError> {
    let alone = Rules {
        rules: vec![table.clone()],
    };
    let hits = table.tests.hit.iter().map(|command| (command, true));
    let misses = table.tests.miss.iter().map(|command| (command, false));
    for (command, hit) in hits.chain(misses) {
        let verdict = alone.decide_shell(command);
        let right = if hit {
            verdict.rule.is_some() && verdict.decision == table.decision
        } else {
            verdict.rule.is_none() && verdict.decision == Decision::Allow
        };
        if !right {
            return Err(RuleError::Test {
                rule,
                command: shortened(command),
                expected: if hit { "hit" } else { "miss" },
                found: format!("{}: {}", verdict.decision, verdict.reason),
            });
        }
    }
    Ok(())
}

/// One line of at most 160 characters.
fn shortened(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_SHOWN)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}
