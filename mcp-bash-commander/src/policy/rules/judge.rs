//! Finds the strictest decision over all commands of a script and over what they run in turn.

use super::cursor::{Budget, Unread};
use super::matching::{Fit, fit};
use super::parse::find_commands;
use super::through::{Inner, inner_commands};
use super::word::Word;
use super::{Decision, RuleTable, Verdict, shortened};

/// The verdict as it gets stricter.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    rules: &'a [RuleTable],
    verdict: Verdict,
    budget: Budget,
}

impl<'a> Judge<'a> {
    pub(super) fn new(rules: &'a [RuleTable], shown: &str) -> Self {
        Self {
            rules,
            verdict: Verdict::nothing_found(shown),
            budget: Budget::new(),
        }
    }

    pub(super) fn of_script(mut self, script: &str) -> Verdict {
        self.script(script);
        self.verdict
    }

    pub(super) fn of_argv(mut self, argv: &[String]) -> Verdict {
        let words: Vec<Word> = argv.iter().map(|word| Word::literal(word)).collect();
        let length = argv.iter().map(|word| word.len() + 1).sum();
        let judged = self
            .budget
            .spend(length)
            .and_then(|()| self.command(&words));
        self.unless_read(judged, &argv.join(" "));
        self.verdict
    }

    /// Judges the commands of a script, those in front of an error too: the shell may run them.
    fn script(&mut self, script: &str) {
        let depth = self.budget.depth;
        let mut commands = Vec::new();
        let read = find_commands(script, &mut self.budget, &mut commands);
        self.budget.depth = depth;
        self.unless_read(read, script);
        for words in &commands {
            let judged = self.command(words);
            self.budget.depth = depth;
            if judged.is_err() {
                self.unless_read(judged, &shown(words));
                break;
            }
        }
    }

    fn command(&mut self, words: &[Word]) -> Result<(), Unread> {
        self.budget.enter()?;
        self.budget.spend(1)?;
        let Some(command) = words.first() else {
            return Ok(());
        };
        for (index, rule) in self.rules.iter().enumerate() {
            match fit(&rule.elements, words) {
                Fit::Miss => continue,
                Fit::Hit => {
                    let reason = match rule.reason.as_str() {
                        "" => format!("rule {}", index + 1),
                        reason => reason.to_owned(),
                    };
                    self.tighten(rule.decision, Some(index + 1), reason, &shown(words));
                }
                Fit::Maybe if rule.decision == Decision::Allow => {}
                Fit::Maybe => self.tighten(
                    Decision::Ask,
                    Some(index + 1),
                    format!(
                        "rule {} may be about it: a part of it is only known when it runs",
                        index + 1
                    ),
                    &shown(words),
                ),
            }
            self.budget.spend(words.len())?;
        }
        if command.known().is_none() {
            self.tighten(
                Decision::Ask,
                None,
                "its name is only known when it runs".to_owned(),
                &shown(words),
            );
        }
        for inner in inner_commands(words) {
            match inner {
                Inner::Command(words) => {
                    self.budget.spend(words.len())?;
                    self.command(&words)?;
                }
                Inner::Script(script) => self.script(&script),
                Inner::Unknown(what) => self.tighten(
                    Decision::Ask,
                    None,
                    format!("it runs {what}"),
                    &shown(words),
                ),
            }
        }
        self.budget.leave();
        Ok(())
    }

    fn unless_read(&mut self, read: Result<(), Unread>, script: &str) {
        if let Err(unread) = read {
            self.tighten(
                Decision::Ask,
                None,
                format!("it cannot be read: {unread}"),
                script,
            );
        }
    }

    /// Keeps the first of the strictest decisions; among equal ones, that of a rule.
    fn tighten(&mut self, decision: Decision, rule: Option<usize>, reason: String, command: &str) {
        let stricter = decision > self.verdict.decision;
        let named =
            decision == self.verdict.decision && self.verdict.rule.is_none() && rule.is_some();
        if stricter || named {
            self.verdict = Verdict {
                decision,
                rule,
                reason,
                command: shortened(command),
            };
        }
    }
}

fn shown(words: &[Word]) -> String {
    let mut shown = String::new();
    for word in words {
        if shown.len() > 1000 {
            break;
        }
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(&word.shown());
    }
    shown
}
