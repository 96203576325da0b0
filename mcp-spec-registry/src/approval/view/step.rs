//! A step of the plan in words: what is called, what each argument may be, and whether it can be undone.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    effect::protocol::Lifetime,
    plan::{ArgumentPattern, ArgvElement},
};

use super::text::{Machine, Prose, Sentence};
use crate::plan::{PlanRisks, Reversibility, Step};

/// A step as a reader sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Name within the plan.
    pub id: Machine,
    /// Who does it.
    pub server: Machine,
    /// By which tool.
    pub tool: Machine,
    /// It may change something for good.
    pub is_irreversible: bool,
    /// Whether it can be undone, in words.
    pub reversibility: String,
    /// What each argument may be.
    pub arguments: Vec<ArgumentView>,
    /// Files it reads or runs, with the bytes they must have.
    pub inputs: Vec<InputView>,
    /// When it may be called and how often.
    pub conditions: Vec<Sentence>,
    /// How the agent says it is undone.
    pub rollback: Prose,
}

/// A pinned file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputView {
    /// Its path.
    pub path: Machine,
    /// The digest it must have.
    pub sha256: String,
}

/// An argument as a reader sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArgumentView {
    /// Its name.
    pub name: Machine,
    /// What it may be, in words: `exactly`, `one of`.
    pub rule: String,
    /// The values that the rule speaks of.
    pub values: Vec<Machine>,
    /// Nothing is known about it beforehand.
    pub is_open: bool,
}

/// All steps in order.
pub(super) fn steps(steps: &[Step], risks: &PlanRisks) -> Vec<StepView> {
    steps.iter().map(|step| step_view(step, risks)).collect()
}

fn step_view(step: &Step, risks: &PlanRisks) -> StepView {
    // The risks know the tool's own class; a plan may only raise it.
    let is_irreversible =
        step.reversibility == Reversibility::Irreversible || risks.irreversible.contains(&step.id);
    let reversibility = match step.reversibility {
        _ if is_irreversible => "cannot be undone",
        Reversibility::ReadOnly => "changes nothing",
        Reversibility::Reversible | Reversibility::Irreversible => "can be undone",
    };
    StepView {
        id: Machine::of(&step.id),
        server: Machine::of(&step.server),
        tool: Machine::of(&step.tool),
        is_irreversible,
        reversibility: reversibility.to_owned(),
        arguments: step
            .arguments
            .iter()
            .map(|(name, pattern)| argument(name, pattern))
            .collect(),
        inputs: step
            .inputs
            .iter()
            .map(|input| InputView {
                path: Machine::of(&input.path),
                sha256: input.sha256.to_string(),
            })
            .collect(),
        conditions: conditions(step),
        rollback: Prose::of(&step.rollback),
    }
}

fn conditions(step: &Step) -> Vec<Sentence> {
    let mut conditions = Vec::new();
    if !step.after.is_empty() {
        conditions
            .push(Sentence::words("only after ").codes(step.after.iter().map(String::as_str)));
    }
    conditions.push(Sentence::words(match step.uses {
        1 => "may be called once".to_owned(),
        uses => format!("may be called up to {uses} times"),
    }));
    conditions.push(Sentence::words(match step.lifetime {
        Lifetime::Step => "what it starts ends with it",
        Lifetime::Run => "what it starts keeps running afterwards, without a time limit",
    }));
    conditions
}

fn argument(name: &str, pattern: &ArgumentPattern) -> ArgumentView {
    let (rule, values): (String, Vec<Machine>) = match pattern {
        ArgumentPattern::Exact(value) => (exactly(value), vec![machine_value(value)]),
        ArgumentPattern::OneOf(values) => (
            "one of".to_owned(),
            values.iter().map(machine_value).collect(),
        ),
        ArgumentPattern::Range { minimum, maximum } => range(minimum.as_ref(), maximum.as_ref()),
        ArgumentPattern::PathUnder(path) => {
            ("a path at or below".to_owned(), vec![Machine::of(path)])
        }
        ArgumentPattern::Argv(words) => (
            "these words in this order".to_owned(),
            words.iter().map(argv).collect(),
        ),
        ArgumentPattern::Sha256 {
            sha256,
            shown: Some(shown),
        } => (
            format!("exactly this text, {} bytes, {sha256}", shown.len()),
            vec![Machine::block(shown)],
        ),
        ArgumentPattern::Sha256 {
            sha256,
            shown: None,
        } => (
            format!("content you have not seen, with the digest {sha256}"),
            Vec::new(),
        ),
        ArgumentPattern::Any => ("anything at all".to_owned(), Vec::new()),
    };
    let is_open = matches!(
        pattern,
        ArgumentPattern::Any | ArgumentPattern::Sha256 { shown: None, .. }
    ) || matches!(pattern, ArgumentPattern::Argv(words) if words.iter().any(is_any_word));
    ArgumentView {
        name: Machine::of(name),
        rule,
        values,
        is_open,
    }
}

fn exactly(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "the empty text",
        Value::String(_) => "exactly",
        Value::Number(_) => "exactly the number",
        Value::Array(_) => "exactly the list",
        Value::Bool(_) | Value::Null => "exactly the value",
        Value::Object(_) => "exactly the object",
    }
    .to_owned()
}

fn range(
    minimum: Option<&serde_json::Number>,
    maximum: Option<&serde_json::Number>,
) -> (String, Vec<Machine>) {
    let rule = match (minimum, maximum) {
        (Some(low), Some(high)) => format!("a number from {low} to {high}"),
        (Some(low), None) => format!("a number from {low} up"),
        (None, Some(high)) => format!("a number up to {high}"),
        (None, None) => "any number".to_owned(),
    };
    (rule, Vec::new())
}

fn argv(word: &ArgvElement) -> Machine {
    match word {
        ArgvElement::Exact(word) => Machine::of(word),
        ArgvElement::Variable(pattern) => {
            let view = argument("", pattern);
            let values: Vec<&str> = view.values.iter().map(Machine::as_str).collect();
            Machine::of(
                format!("<{} {}>", view.rule, values.join(" | "))
                    .replace(" >", ">")
                    .as_str(),
            )
        }
    }
}

fn is_any_word(word: &ArgvElement) -> bool {
    matches!(word, ArgvElement::Variable(ArgumentPattern::Any))
}

fn machine_value(value: &Value) -> Machine {
    match value {
        Value::String(text) => Machine::block(text),
        other => Machine::of(&other.to_string()),
    }
}
