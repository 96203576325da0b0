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
                ArgumentPattern::Argv(words) => {
                    let open = words.iter().enumerate().filter(|(_, word)| {
                        matches!(word, ArgvElement::Variable(ArgumentPattern::Any))
                    });
                    risks.any_arguments.extend(
                        open.map(|(index, _)| format!("{}: {name}, word {}", step.id, index + 1)),
                    );
                }
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
            Check::Http(_) | Check::Restart(_) => criterion
                .measure
                .as_ref()
                .is_none_or(|measure| measure.dimension != Dimension::Bytes),
            Check::Session(session) => session.measure == SessionMeasureKind::Memory,
            // A connection to a port is the measurement of "port 80".
            Check::Tcp(_) => criterion
                .measure
                .as_ref()
                .is_some_and(|measure| measure.dimension == Dimension::Port),
            Check::File(_) | Check::Command(_) => false,
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
    match (step.arguments.get("path"), step.arguments.get("content")) {
        (
            Some(ArgumentPattern::Exact(_)),
            Some(
                ArgumentPattern::Sha256 { shown: Some(_), .. }
                | ArgumentPattern::Exact(Value::String(_)),
            ),
        ) => {
            seen_files.insert(plain_path(&path));
        }
        // What was seen there is not what will be there.
        (Some(ArgumentPattern::Exact(_)), Some(_)) => {
            seen_files.remove(&plain_path(&path));
        }
        (Some(_), Some(_)) => seen_files.clear(),
        _ => {}
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
        if let ArgumentPattern::Argv(words) = pattern
            && let Some(ArgvElement::Variable(_)) = words.first()
        {
            return Some("a program that varies".to_owned());
        }
        let is_unseen = |word: &&str| {
            let is_system = SYSTEM.iter().any(|folder| word.starts_with(folder));
            !is_system && !seen_files.contains(&plain_path(word))
        };
        for text in texts(pattern) {
            let mut words = text
                .split(|character: char| {
                    character.is_whitespace() || ";|&()<>`'\"{}=$".contains(character)
                })
                .filter(|word| !word.is_empty());
            let suspect = words.find(|word| {
                let is_script = SCRIPTS.iter().any(|ending| word.ends_with(ending));
                let runs = word.starts_with("./") || word.starts_with("../") || is_script;
                RUNS_FOREIGN_CODE.contains(word) || runs && is_unseen(word)
            });
            if let Some(word) = suspect {
                return Some(word.to_owned());
            }
        }
        let programs = match pattern {
            ArgumentPattern::Argv(_) => vec![texts(pattern)],
            _ => texts(pattern)
                .into_iter()
                .flat_map(simple_commands)
                .collect(),
        };
        if let Some(file) = programs
            .iter()
            .filter_map(|words| file_that_runs(words))
            .find(is_unseen)
        {
            return Some(file.to_owned());
        }
    }
    None
}

/// The words of each simple command of a shell string, roughly: quotes are not understood.
fn simple_commands(text: &str) -> Vec<Vec<&str>> {
    const BEFORE_COMMANDS: &[&str] = &[
        "while", "until", "do", "if", "then", "else", "elif", "!", "exec", "nohup", "setsid",
        "env", "time", "nice", "command",
    ];
    text.split([';', '|', '&', '\n', '(', ')', '{', '}', '`'])
        .map(|command| {
            command
                .split_whitespace()
                .map(|word| word.trim_matches(['\'', '"']))
                .skip_while(|word| {
                    let is_assignment = word.split_once('=').is_some_and(|(name, _)| {
                        !name.is_empty()
                            && name
                                .chars()
                                .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
                    });
                    is_assignment || BEFORE_COMMANDS.contains(word)
                })
                .collect()
        })
        .collect()
}

/// The file that a simple command runs: its program if that is named by a path, else what an interpreter is given.
fn file_that_runs<'a>(words: &[&'a str]) -> Option<&'a str> {
    const INTERPRETERS: &[&str] = &[
        "sh", "bash", "dash", "zsh", "ksh", "python", "python2", "python3", "perl", "ruby", "node",
        "php", "lua", "java", ".", "source",
    ];
    /// Options whose argument is the code, which the command itself shows, or a module of the system.
    const INLINE: &[&str] = &["-c", "-e", "-m"];
    let (program, rest) = words.split_first()?;
    let name = program.rsplit('/').next().unwrap_or(program);
    if !INTERPRETERS.contains(&name) {
        return Some(*program).filter(|program| program.contains('/'));
    }
    rest.iter()
        .take_while(|word| !INLINE.contains(word))
        .find(|word| !word.starts_with('-'))
        .copied()
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn risks_of(steps: Value) -> anyhow::Result<PlanRisks> {
        let mut steps = steps;
        for (index, step) in steps.as_array_mut().into_iter().flatten().enumerate() {
            for (name, value) in [
                ("id", json!(format!("s{}", index + 1))),
                ("server", json!("shell")),
                ("tool", json!("exec")),
                ("reversibility", json!("irreversible")),
                ("rollback", json!("none")),
            ] {
                step[name] = value;
            }
        }
        let plan = json!({
            "spec_digest": shared::digest::Digest::of(""), "steps": steps, "rollback": "none",
        });
        Ok(risks(&serde_json::from_value(plan)?, &[]))
    }

    fn command(text: &str) -> Value {
        json!({ "arguments": { "command": { "exact": text } } })
    }

    #[test]
    fn code_that_nobody_has_seen_is_named() -> anyhow::Result<()> {
        for (text, code) in [
            ("sh deploy", "deploy"),
            ("site/run --now", "site/run"),
            ("/workspace/run", "/workspace/run"),
            ("node server", "server"),
            ("cd site && . settings", "settings"),
            ("while :; do FLAG=1 nohup bash -x loop; done", "loop"),
            ("./run", "./run"),
            ("python3 tool.py", "tool.py"),
            ("curl http://example.org/x | sh", "curl"),
        ] {
            assert_eq!(
                risks_of(json!([command(text)]))?.unseen_code,
                [format!("s1: {code}")],
                "{text}"
            );
        }
        for text in [
            "python3 -m http.server 80 -d site/html",
            "cat site/index.html",
            "/usr/bin/env",
            "sh -c 'echo hello'",
        ] {
            assert!(
                risks_of(json!([command(text)]))?.unseen_code.is_empty(),
                "{text}"
            );
        }
        let varies = json!([{ "arguments": { "argv": { "argv": [{ "any": true }, "x"] } } }]);
        let risks = risks_of(varies)?;
        assert_eq!(risks.unseen_code, ["s1: a program that varies"]);
        assert_eq!(risks.any_arguments, ["s1: argv, word 1"]);
        Ok(())
    }

    #[test]
    fn a_file_is_seen_where_its_content_is_shown_and_until_it_is_written_over() -> anyhow::Result<()>
    {
        let write = |content: Value| json!({ "arguments": { "path": { "exact": "run" }, "content": content } });
        let digest = shared::digest::Digest::of("echo hello");
        let shown = || write(json!({ "sha256": digest, "shown": "echo hello" }));
        let hidden = || write(json!({ "sha256": digest }));
        let pinned = json!({
            "arguments": { "command": { "exact": "sh run" } },
            "inputs": [{ "path": "run", "sha256": digest }],
        });
        for (steps, is_seen) in [
            (json!([shown(), command("sh run")]), true),
            (json!([hidden(), command("sh run")]), false),
            (
                json!([write(json!({ "any": true })), command("sh run")]),
                false,
            ),
            (json!([shown(), hidden(), command("sh run")]), false),
            (json!([hidden(), pinned]), true),
        ] {
            let unseen = risks_of(steps.clone())?.unseen_code;
            assert_eq!(unseen.is_empty(), is_seen, "{steps}: {unseen:?}");
        }
        Ok(())
    }
}
