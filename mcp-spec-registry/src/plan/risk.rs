//! What a reader of a plan must not miss, computed from its structured fields and never told by the agent.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::plan::{ArgumentPattern, ArgvElement};

use super::{Check, Plan, Reversibility, SessionMeasureKind, Step};
use crate::specification::{Criterion, Dimension};

/// What a reader of a plan must not miss.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanRisks {
    /// Steps that may change something for good.
    pub irreversible: Vec<String>,
    /// What the steps may talk to.
    pub hosts: Vec<String>,
    /// What the steps write, each with its step.
    pub writes: Vec<String>,
    /// Steps that run code which is neither pinned nor from the system, and which.
    pub unseen_code: Vec<String>,
    /// Contents that are named by digest only.
    pub unseen_content: Vec<String>,
    /// Arguments that may be anything.
    pub any_arguments: Vec<String>,
    /// Criteria with a number that the plan does not measure against that number.
    pub weakened: Vec<String>,
    /// Criteria and constraints that no machine measures.
    pub unmeasured: Vec<String>,
}

/// Computes what a reader must not miss.
pub fn risks(plan: &Plan, criteria: &[&Criterion]) -> PlanRisks {
    let mut risks = PlanRisks::default();
    let mut seen_files: BTreeSet<String> = BTreeSet::new();
    for step in &plan.steps {
        if step.reversibility == Reversibility::Irreversible {
            risks.irreversible.push(step.id.clone());
        }
        seen_files.extend(step.inputs.iter().map(|input| plain_path(&input.path)));
        for (name, pattern) in &step.arguments {
            match pattern {
                ArgumentPattern::Any => risks.any_arguments.push(format!("{}: {name}", step.id)),
                ArgumentPattern::Sha256 {
                    shown: None,
                    sha256,
                } => {
                    risks.unseen_content.push(format!(
                        "{}: {name}, sha256 {}…",
                        step.id,
                        sha256.short()
                    ));
                }
                _ => {}
            }
            risks.hosts.extend(
                texts(pattern)
                    .into_iter()
                    .flat_map(urls)
                    .map(|url| format!("{}: {url}", step.id)),
            );
        }
        describe_writes(step, &mut risks, &mut seen_files);
        if let Some(code) = unseen_code(step, &seen_files) {
            risks.unseen_code.push(format!("{}: {code}", step.id));
        }
    }
    for criterion in criteria {
        let id = &criterion.criterion_id;
        let mut checks = plan
            .tests
            .iter()
            .filter(|test| test.criterion == *id)
            .map(|test| &test.check)
            .peekable();
        if checks.peek().is_none() {
            risks.unmeasured.push(id.clone());
        }
        let measures_number = |check: &Check| match check {
            Check::Http(_) | Check::Restart(_) => true,
            Check::Session(session) => session.measure == SessionMeasureKind::Memory,
            // A connection to a port is the measurement of "port 80".
            Check::Tcp(_) => criterion
                .measure
                .as_ref()
                .is_some_and(|measure| measure.dimension == Dimension::Port),
            Check::File(_) => false,
        };
        if criterion.measure.is_some() && !checks.any(measures_number) {
            risks.weakened.push(id.clone());
        }
    }
    risks
}

fn describe_writes(step: &Step, risks: &mut PlanRisks, seen_files: &mut BTreeSet<String>) {
    if step.reversibility == Reversibility::ReadOnly {
        return;
    }
    let path = match step.arguments.get("path") {
        Some(ArgumentPattern::Exact(Value::String(path))) => path.clone(),
        Some(ArgumentPattern::PathUnder(path)) => format!("anything under {path}"),
        Some(_) => "a path that varies".to_owned(),
        None => "anywhere its server lets it".to_owned(),
    };
    let shown = step.arguments.values().any(|pattern| {
        matches!(pattern, ArgumentPattern::Sha256 { shown: Some(_), .. })
            || matches!(pattern, ArgumentPattern::Exact(Value::String(_)))
    });
    if step.arguments.contains_key("content") && shown {
        seen_files.insert(plain_path(&path));
    }
    risks.writes.push(format!("{}: {path}", step.id));
}

/// The first word of a command that names code which no one has seen.
///
/// A heuristic on words, on the safe side: what looks like a file of the workspace or like a program that fetches or builds code
/// counts, unless the plan pins or shows that file.
fn unseen_code(step: &Step, seen_files: &BTreeSet<String>) -> Option<String> {
    const RUNS_FOREIGN_CODE: &[&str] = &[
        "make", "cmake", "ninja", "cargo", "go", "npm", "npx", "yarn", "pnpm", "pip", "pip3",
        "pipx", "uv", "mvn", "gradle", "bundle", "gem", "composer", "eval", "curl", "wget",
    ];
    const SCRIPTS: &[&str] = &[
        ".sh", ".bash", ".py", ".js", ".mjs", ".ts", ".rb", ".pl", ".php", ".lua", ".jar",
    ];
    const SYSTEM: &[&str] = &[
        "/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/", "/etc/", "/dev/", "/tmp/",
    ];
    let commands = ["command", "argv"]
        .iter()
        .filter_map(|name| step.arguments.get(*name));
    for pattern in commands {
        if matches!(
            pattern,
            ArgumentPattern::Any | ArgumentPattern::Sha256 { shown: None, .. }
        ) {
            return Some("a command that is not shown".to_owned());
        }
        for text in texts(pattern) {
            let mut words = text
                .split(|character: char| {
                    character.is_whitespace() || ";|&()<>`'\"{}=$".contains(character)
                })
                .filter(|word| !word.is_empty());
            let suspect = words.find(|word| {
                let is_script = SCRIPTS.iter().any(|ending| word.ends_with(ending));
                let is_system = SYSTEM.iter().any(|folder| word.starts_with(folder));
                let runs = word.starts_with("./") || word.starts_with("../") || is_script;
                let foreign = RUNS_FOREIGN_CODE.contains(word) || (runs && !is_system);
                foreign && !seen_files.contains(&plain_path(word))
            });
            if let Some(word) = suspect {
                return Some(word.to_owned());
            }
        }
    }
    None
}

fn plain_path(path: &str) -> String {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect::<Vec<_>>()
        .join("/")
}

/// The texts a pattern shows.
fn texts(pattern: &ArgumentPattern) -> Vec<&str> {
    fn of_value(value: &Value) -> Vec<&str> {
        match value {
            Value::String(text) => vec![text],
            Value::Array(values) => values.iter().flat_map(of_value).collect(),
            Value::Object(map) => map.values().flat_map(of_value).collect(),
            _ => Vec::new(),
        }
    }
    match pattern {
        ArgumentPattern::Exact(value) => of_value(value),
        ArgumentPattern::OneOf(values) => values.iter().flat_map(of_value).collect(),
        ArgumentPattern::Sha256 {
            shown: Some(text), ..
        }
        | ArgumentPattern::PathUnder(text) => vec![text],
        ArgumentPattern::Argv(words) => words
            .iter()
            .flat_map(|word| match word {
                ArgvElement::Exact(text) => vec![text.as_str()],
                ArgvElement::Variable(pattern) => texts(pattern),
            })
            .collect(),
        ArgumentPattern::Range { .. } | ArgumentPattern::Sha256 { .. } | ArgumentPattern::Any => {
            Vec::new()
        }
    }
}

fn urls(text: &str) -> Vec<String> {
    text.split(|character: char| character.is_whitespace() || "'\"<>()`".contains(character))
        .filter(|word| word.contains("://"))
        .map(str::to_owned)
        .collect()
}
