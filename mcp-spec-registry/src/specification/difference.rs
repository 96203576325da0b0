//! What changed between two versions of a specification, in terms of what they demand.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::Specification;
use super::criterion::Criterion;
use super::measure::{Limit, Measure, Operator};

/// Criteria and constraints, by name, that one version demands otherwise than another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    /// Only the later version has them.
    pub added: Vec<String>,
    /// Only the earlier version has them.
    pub removed: Vec<String>,
    /// The later version demands more.
    pub tightened: Vec<String>,
    /// The later version demands less.
    pub loosened: Vec<String>,
    /// The words or the thing measured changed; which demands more cannot be computed.
    pub reworded: Vec<String>,
    /// Whether the outcome's words changed.
    pub outcome_changed: bool,
}

impl Difference {
    /// What changed from one version to another.
    pub fn between(earlier: &Specification, later: &Specification) -> Self {
        let (old, new) = (by_name(earlier), by_name(later));
        let mut difference = Self {
            outcome_changed: earlier.outcome != later.outcome,
            ..Self::default()
        };
        difference.removed = old
            .keys()
            .filter(|name| !new.contains_key(*name))
            .map(ToString::to_string)
            .collect();
        for (name, criterion) in new {
            let list = match old.get(name) {
                None => &mut difference.added,
                Some(before) if before.text == criterion.text => continue,
                Some(before) => match (&before.measure, &criterion.measure) {
                    (Some(before), Some(after)) => match stricter(before, after) {
                        Some(true) => &mut difference.tightened,
                        Some(false) => &mut difference.loosened,
                        None => &mut difference.reworded,
                    },
                    _ => &mut difference.reworded,
                },
            };
            list.push(name.to_owned());
        }
        difference
    }

    /// How many criteria and constraints changed.
    pub fn changes(&self) -> usize {
        self.names().count()
    }

    /// The names that both differences, made from one base, change: where two proposals meet.
    pub fn conflicts_with(&self, other: &Self) -> Vec<String> {
        self.names()
            .filter(|name| other.names().any(|theirs| theirs == *name))
            .map(ToOwned::to_owned)
            .collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let lists = [
            &self.added,
            &self.removed,
            &self.tightened,
            &self.loosened,
            &self.reworded,
        ];
        lists.into_iter().flatten().map(String::as_str)
    }
}

/// As the end of a sentence: "added a, b; loosened c".
impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = [
            ("added", &self.added),
            ("removed", &self.removed),
            ("tightened", &self.tightened),
            ("loosened", &self.loosened),
            ("reworded", &self.reworded),
        ];
        let mut said: Vec<String> = lists
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(verb, names)| format!("{verb} {}", names.join(", ")))
            .collect();
        if self.outcome_changed {
            said.push("changed the outcome".to_owned());
        }
        if said.is_empty() {
            said.push("changed nothing that is demanded".to_owned());
        }
        formatter.write_str(&said.join(", "))
    }
}

fn by_name(specification: &Specification) -> BTreeMap<&str, &Criterion> {
    let all = specification
        .criteria
        .iter()
        .chain(&specification.constraints);
    all.map(|criterion| (criterion.criterion_id.as_str(), criterion))
        .collect()
}

/// Whether the later of two limits of one thing is the stricter one; nothing where that cannot be said.
fn stricter(before: &Measure, after: &Measure) -> Option<bool> {
    let upper = |measure: &Measure| measure.operator.is_upper();
    let lower = |measure: &Measure| measure.operator.is_lower();
    let alike = before.dimension == after.dimension
        && before.percentile == after.percentile
        && before.window_ms == after.window_ms
        && before.load == after.load
        && ((upper(before) && upper(after)) || (lower(before) && lower(after)));
    let order = match (before.limit, after.limit) {
        (Limit::Number(before), Limit::Number(after)) => after.cmp(&before),
        (Limit::Grade(before), Limit::Grade(after)) => after.cmp(&before),
        _ => return None,
    };
    if !alike {
        return None;
    }
    let excludes_limit =
        |measure: &Measure| matches!(measure.operator, Operator::Less | Operator::Greater);
    match (order.is_eq(), upper(after)) {
        (true, _) if excludes_limit(before) == excludes_limit(after) => None,
        (true, _) => Some(excludes_limit(after)),
        (false, true) => Some(order.is_lt()),
        (false, false) => Some(order.is_gt()),
    }
}
