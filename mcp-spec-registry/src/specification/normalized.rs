//! Writes a specification in the full form, so that two that say the same read the same.

use super::criterion::Criterion;
use super::{Checkpoint, Specification};

/// The specification as YAML that parses to the same specification again.
pub(super) fn render(specification: &Specification) -> String {
    let mut yaml = String::new();
    pair(&mut yaml, "spec_id", specification.spec_id.as_str());
    pair(&mut yaml, "version", specification.version.as_str());
    for (key, value) in [
        ("title", &specification.title),
        ("author", &specification.author),
        ("session", &specification.session),
    ] {
        if let Some(value) = value {
            pair(&mut yaml, key, value);
        }
    }
    yaml.push_str("\noutcome: ");
    yaml.push_str(&block(&specification.outcome));
    criteria(&mut yaml, &specification.criteria);
    let constraints: Vec<&str> = specification
        .constraints
        .iter()
        .map(|criterion| criterion.text.as_str())
        .collect();
    list(&mut yaml, "constraints", &constraints);
    list(
        &mut yaml,
        "implementation_freedom",
        &strings(&specification.implementation_freedom),
    );
    if !specification.checkpoints.is_empty() {
        yaml.push_str("\nvalidation_checkpoints:\n");
        for Checkpoint { name, text } in &specification.checkpoints {
            yaml.extend(["  - ", &key(name), ": ", &scalar(text), "\n"]);
        }
    }
    let scope = &specification.scope;
    let parts = [
        ("pre_existing", &scope.pre_existing),
        ("create", &scope.create),
        ("out_of_scope", &scope.out_of_scope),
    ];
    if parts.iter().any(|(_, texts)| !texts.is_empty()) {
        yaml.push_str("\nscope:\n");
        for (name, texts) in parts.iter().filter(|(_, texts)| !texts.is_empty()) {
            yaml.extend(["  ", name, ":\n"]);
            items(&mut yaml, "    ", &strings(texts));
        }
    }
    let dependencies: Vec<String> = specification
        .dependencies
        .iter()
        .map(|dependency| match &dependency.reason {
            Some(reason) => format!("{}: {reason}", dependency.spec_id),
            None => dependency.spec_id.clone(),
        })
        .collect();
    list(&mut yaml, "dependencies", &strings(&dependencies));
    list(&mut yaml, "tags", &strings(&specification.tags));
    list(&mut yaml, "references", &strings(&specification.references));
    for (name, value) in &specification.other {
        // JSON is YAML, and nothing here says how these values are best laid out.
        yaml.extend(["\n", &key(name), ": ", &value.to_string(), "\n"]);
    }
    yaml
}

fn strings(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn criteria(yaml: &mut String, criteria: &[Criterion]) {
    if criteria.is_empty() {
        return;
    }
    yaml.push_str("\nsuccess_criteria:\n");
    let mut categories: Vec<&str> = Vec::new();
    for criterion in criteria {
        if !categories.contains(&criterion.category.as_str()) {
            categories.push(&criterion.category);
        }
    }
    for category in categories {
        yaml.extend(["  ", &key(category), ":\n"]);
        let texts: Vec<&str> = criteria
            .iter()
            .filter(|criterion| criterion.category == category)
            .map(|criterion| criterion.text.as_str())
            .collect();
        items(yaml, "    ", &texts);
    }
}

fn pair(yaml: &mut String, name: &str, value: &str) {
    yaml.extend([name, ": ", &scalar(value), "\n"]);
}

fn list(yaml: &mut String, name: &str, texts: &[&str]) {
    if !texts.is_empty() {
        yaml.extend(["\n", name, ":\n"]);
        items(yaml, "  ", texts);
    }
}

fn items(yaml: &mut String, indent: &str, texts: &[&str]) {
    for text in texts {
        let item = match text.split_once(": ") {
            Some((subject, limit)) if is_plain(subject) && is_plain(limit) => (*text).to_owned(),
            _ => scalar(text),
        };
        yaml.extend([indent, "- ", &item, "\n"]);
    }
}

/// The outcome as a block where its lines allow that, for it is what people read first.
fn block(text: &str) -> String {
    let fits = |line: &str| {
        line == line.trim() && !line.contains(|character: char| character.is_control())
    };
    if text.is_empty()
        || !text.lines().all(fits)
        || text.contains(['\u{2028}', '\u{2029}', '\u{85}', '\u{feff}', '\r'])
    {
        return format!("{}\n", quoted(text));
    }
    let mut block = "|\n".to_owned();
    for line in text.lines() {
        if line.is_empty() {
            block.push('\n');
        } else {
            block.extend(["  ", line, "\n"]);
        }
    }
    block
}

fn scalar(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

fn key(text: &str) -> String {
    if is_plain(text) && text.chars().count() < 200 {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Whether YAML reads the text as itself when nothing surrounds it.
fn is_plain(text: &str) -> bool {
    let begins_well = text.starts_with(|character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '<' | '≤' | '≥')
    });
    let misread =
        text.contains(": ") || text.contains(" #") || text.ends_with(':') || text.contains(":\t");
    let printable = |character: char| {
        (' '..='~').contains(&character)
            || (character.is_alphanumeric() || matches!(character, '≤' | '≥' | '–' | '—' | '’'))
    };
    let words = matches!(text.to_ascii_lowercase().as_str(), "null" | "~" | "");
    begins_well && !misread && !words && text == text.trim() && text.chars().all(printable)
}

/// A double-quoted text; JSON's escapes are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}
