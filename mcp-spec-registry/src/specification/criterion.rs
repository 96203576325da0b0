//! One thing that must be true, with a name that stays the same and, where its words allow, a limit a machine can compare.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::measure::Measure;
use super::unit::Dimension;

/// The longest slug of a category or a text, in bytes.
const MAX_SLUG: usize = 60;

/// A success criterion or a constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Criterion {
    /// Its name within the specification, like `performance/page-load-time`; the same text always gets the same name.
    pub criterion_id: String,
    /// The heading it stands under, as written.
    pub category: String,
    /// Its words, as written.
    pub text: String,
    /// What a machine can compare; absent where a human has to judge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
}

/// Gives out names that do not repeat within one specification.
#[derive(Debug, Default)]
pub(super) struct Names {
    taken: HashMap<String, u32>,
}

impl Names {
    /// The name of a criterion: from what its text speaks of, not from the limit, so that a tightened limit keeps its name.
    pub(super) fn name(&mut self, category: &str, text: &str, measure: Option<&Measure>) -> String {
        let base = format!(
            "{}/{}",
            slug(category, "criteria"),
            slug(subject(text, measure), "criterion")
        );
        let mut number = self.taken.get(&base).copied().unwrap_or(0);
        loop {
            number += 1;
            let name = if number == 1 {
                base.clone()
            } else {
                format!("{base}-{number}")
            };
            if number == 1 || !self.taken.contains_key(&name) {
                self.taken.insert(base, number);
                self.taken.entry(name.clone()).or_insert(1);
                return name;
            }
        }
    }
}

/// What a text speaks of: before the colon, before the sign, else what is measured, else all of it.
fn subject<'text>(text: &'text str, measure: Option<&'text Measure>) -> &'text str {
    let says_something = |part: &&str| part.chars().any(char::is_alphanumeric);
    let head = text.split_once(": ").map_or(text, |(head, _)| head);
    let before_sign = head
        .find(['<', '>', '=', '≤', '≥', '⩽', '⩾'])
        .map(|at| head[..at].trim());
    // A port or a status is what is meant, not how much of it.
    let measure =
        measure.filter(|measure| !matches!(measure.dimension, Dimension::Port | Dimension::Status));
    let measured = || {
        measure
            .map(|measure| measure.subject.as_str())
            .filter(says_something)
    };
    match before_sign.filter(says_something) {
        Some(before_sign) => before_sign,
        None if head.len() < text.len() => head,
        None => measured().unwrap_or(text),
    }
}

/// Lower-case letters, digits and single hyphens; letters of other scripts are kept, as criteria are written in any language.
fn slug(text: &str, otherwise: &str) -> String {
    let mut slug = String::new();
    for character in text.chars().flat_map(char::to_lowercase) {
        if slug.len() + character.len_utf8() > MAX_SLUG {
            break;
        }
        if character.is_alphanumeric() {
            slug.push(character);
        } else if !slug.is_empty() && !slug.ends_with('-') && !matches!(character, '\'' | '’') {
            slug.push('-');
        }
    }
    let trimmed = slug.trim_end_matches('-');
    if trimmed.is_empty() {
        otherwise.to_owned()
    } else {
        trimmed.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading;
    use super::*;

    #[test]
    fn a_name_says_what_is_meant_and_survives_a_tightened_limit() {
        let name =
            |text| Names::default().name("performance", text, reading::read(text).measure.as_ref());
        assert_eq!(
            name("Page load time: < 200ms"),
            "performance/page-load-time"
        );
        assert_eq!(
            name("Page load time: < 100ms"),
            "performance/page-load-time"
        );
        assert_eq!(name("99.9% uptime target"), "performance/uptime");
        assert_eq!(name("99.99% uptime target"), "performance/uptime");
        assert_eq!(
            name("Resource usage < 512MB RAM"),
            "performance/resource-usage"
        );
        assert_eq!(
            name("Serves static HTML content"),
            "performance/serves-static-html-content"
        );
        assert_eq!(
            name("Accessible on port 80"),
            "performance/accessible-on-port-80"
        );
    }

    #[test]
    fn equal_texts_get_different_names() {
        let mut names = Names::default();
        let given: Vec<String> = ["Up", "Up 2", "Up", "up!", "Up"]
            .iter()
            .map(|text| names.name("a", text, None))
            .collect();
        assert_eq!(given, ["a/up", "a/up-2", "a/up-3", "a/up-4", "a/up-5"]);
    }

    #[test]
    fn every_text_gets_a_name() {
        let mut names = Names::default();
        for text in ["", "≥", "…", "日本語", "<", &"long ".repeat(100)] {
            let name = names.name("", text, None);
            assert!(
                name.len() <= 2 * MAX_SLUG + 8 && !name.ends_with('-'),
                "{name}"
            );
        }
    }
}
