//! What changed between two revisions of a plan, line by line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};

use super::Plan;

/// A line that one revision has and the other has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangedLine {
    /// Whether the newer revision has it; otherwise the older one had it.
    pub added: bool,
    /// The step, test or part that the line is in, such as `steps/s2`.
    pub part: String,
    /// The line.
    pub text: String,
}

/// The lines that differ, in the order of the newer plan.
pub fn changes(before: &Plan, after: &Plan) -> Vec<ChangedLine> {
    let (before, after) = (lines(before), lines(after));
    let keys = |lines: &[(String, String)]| -> Vec<String> {
        lines
            .iter()
            .map(|(part, text)| format!("{part}\u{0}{text}"))
            .collect()
    };
    let (old, new) = (keys(&before), keys(&after));
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    TextDiff::from_slices(&old, &new)
        .iter_all_changes()
        .filter(|change| change.tag() != ChangeTag::Equal)
        .map(|change| {
            let (part, text) = change
                .value()
                .split_once('\u{0}')
                .unwrap_or(("", change.value()));
            ChangedLine {
                added: change.tag() == ChangeTag::Insert,
                part: part.to_owned(),
                text: text.to_owned(),
            }
        })
        .collect()
}

/// The plan as lines, each with the part it is in.
fn lines(plan: &Plan) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut push = |part: String, value: serde_json::Value| {
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        lines.extend(
            text.lines()
                .map(|line| (part.clone(), line.trim().to_owned())),
        );
    };
    for step in &plan.steps {
        push(format!("steps/{}", step.id), serde_json::json!(step));
    }
    for test in &plan.tests {
        push(
            format!("tests/{}", test.criterion),
            serde_json::json!(test.check),
        );
    }
    for judged in &plan.human_judges {
        push(
            format!("human_judges/{}", judged.criterion),
            serde_json::json!(judged.why),
        );
    }
    for (part, texts) in [
        ("assumptions", &plan.assumptions),
        ("alternatives", &plan.alternatives),
    ] {
        for text in texts {
            push(part.to_owned(), serde_json::json!(text));
        }
    }
    push("rollback".to_owned(), serde_json::json!(plan.rollback));
    lines
}
