//! What a reader must not miss, first on the page: computed from structured fields, never told by the agent.

use serde::{Deserialize, Serialize};

use super::{text::Machine, words};
use crate::plan::PlanRisks;

/// How much a line of the summary matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Nothing of the kind.
    Clear,
    /// Worth reading.
    Notice,
    /// Must be understood before saying yes.
    Grave,
}

/// One line of the summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RiskView {
    /// How much it matters.
    pub weight: Weight,
    /// What it is about: `Cannot be undone`.
    pub title: String,
    /// What was found, in our words.
    pub words: String,
    /// Which steps, hosts, files or criteria.
    pub items: Vec<Machine>,
}

/// All lines, always in the same order, so that an absence is seen too.
pub(super) fn risks(risks: &PlanRisks) -> Vec<RiskView> {
    let mut lines = vec![
        line(
            Weight::Grave,
            "Cannot be undone",
            &risks.irreversible,
            |found| format!("{found} may change something for good"),
            "every step can be undone, says the plan, and no tool's own class contradicts it",
            ("step", "steps"),
        ),
        line(
            Weight::Grave,
            "Leaves the machine",
            &risks.hosts,
            |found| format!("{found} named"),
            "no address is named anywhere in the steps",
            ("address", "addresses"),
        ),
        line(
            Weight::Notice,
            "Is written",
            &risks.writes,
            str::to_owned,
            "nothing is written",
            ("place", "places"),
        ),
        line(
            Weight::Grave,
            "Code nobody has seen",
            &risks.unseen_code,
            |found| {
                format!(
                    "{found} what looks like code that is neither shown here nor part of the system"
                )
            },
            "no word of a command looks like code from elsewhere; read the commands all the same",
            ("step runs", "steps run"),
        ),
    ];
    if !risks.unseen_content.is_empty() {
        lines.push(line(
            Weight::Grave,
            "Content nobody has seen",
            &risks.unseen_content,
            |found| format!("{found} named by a digest only"),
            "",
            ("content is", "contents are"),
        ));
    }
    if !risks.any_arguments.is_empty() {
        lines.push(line(
            Weight::Notice,
            "Left open",
            &risks.any_arguments,
            |found| format!("{found} be anything at all"),
            "",
            ("argument may", "arguments may"),
        ));
    }
    lines.push(line(
        Weight::Grave,
        "Weaker than asked",
        &risks.weakened,
        |found| format!("{found} a limit that the plan does not measure"),
        "every limit of the specification is measured",
        ("criterion has", "criteria have"),
    ));
    lines.push(line(
        Weight::Notice,
        "Nobody measures",
        &risks.unmeasured,
        |found| format!("{found} left to you"),
        "a machine measures everything",
        ("criterion is", "criteria are"),
    ));
    lines
}

fn line(
    weight: Weight,
    title: &str,
    items: &[String],
    found: impl Fn(&str) -> String,
    nothing: &str,
    (one, many): (&str, &str),
) -> RiskView {
    let (weight, words) = match items.len() {
        0 => (Weight::Clear, nothing.to_owned()),
        number => (weight, found(&words::count(number, one, many))),
    };
    RiskView {
        weight,
        title: title.to_owned(),
        words,
        items: items.iter().map(|item| Machine::of(item)).collect(),
    }
}
