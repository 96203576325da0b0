//! Reads the document tree of any of the dialects in which specifications are written.

use serde_json::Value as Json;

use super::criterion::{Criterion, Names};
use super::document::{Entry, Node, Value};
use super::problem::{Place, Problem, ProblemCode, Severity, shortened};
use super::reading;
use super::{Checkpoint, Dependency, Dialect, Scope};

/// A criterion or constraint before it has a name.
struct Line {
    category: String,
    text: String,
    place: Place,
}

/// What was read, before the id and the version are checked.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) spec_id: Option<(String, Place)>,
    pub(super) version: Option<(String, Place)>,
    pub(super) title: Option<String>,
    pub(super) author: Option<String>,
    pub(super) session: Option<String>,
    pub(super) dialect: Dialect,
    pub(super) outcome: Vec<String>,
    pub(super) outcome_place: Option<Place>,
    pub(super) criteria: Vec<Criterion>,
    pub(super) constraints: Vec<Criterion>,
    /// Where each criterion, then each constraint stands.
    pub(super) places: Vec<Place>,
    pub(super) implementation_freedom: Vec<String>,
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) scope: Scope,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) tags: Vec<String>,
    pub(super) references: Vec<String>,
    pub(super) other: Vec<(String, Json)>,
    pub(super) problems: Vec<Problem>,
    lines: Vec<Line>,
    constraint_lines: Vec<Line>,
}

/// Keys at the top of a specification, for guessing what a misspelt one means.
const KEYS: &[&str] = &[
    "spec_id",
    "id",
    "version",
    "title",
    "author",
    "session",
    "metadata",
    "outcome",
    "goal",
    "security_outcome",
    "success_criteria",
    "criteria",
    "constraints",
    "implementation_freedom",
    "validation_checkpoints",
    "validation",
    "security_validation",
    "test_gates",
    "tests",
    "scope",
    "dependencies",
    "tags",
    "references",
];

/// Reads a document; what it cannot read becomes a problem.
pub(super) fn read(document: &Node) -> Draft {
    let mut draft = Draft::default();
    match &document.value {
        Value::Map(entries) => {
            for entry in entries {
                draft.entry(entry);
            }
        }
        _ => draft.wrong_shape(
            "the specification",
            document,
            "write one `key: value` to a line, with a space after the colon, like `outcome: what must be true`",
        ),
    }
    draft.finish();
    draft
}

impl Draft {
    fn entry(&mut self, entry: &Entry) {
        let key = entry.key.trim().to_lowercase().replace([' ', '-'], "_");
        let node = &entry.node;
        match key.as_str() {
            "spec_id" | "id" => {
                if key == "id" {
                    self.dialect = Dialect::Metadata;
                }
                self.spec_id = self.one_text(&key, node).map(|text| (text, node.place));
            }
            "version" => self.version = self.one_text(&key, node).map(|text| (text, node.place)),
            "title" => self.title = self.one_text(&key, node),
            "author" => self.author = self.one_text(&key, node),
            "session" => self.session = self.one_text(&key, node),
            "metadata" => self.metadata(entry),
            "outcome" | "goal" | "security_outcome" => self.outcome(&key, entry),
            "success_criteria" | "criteria" => self.success_criteria(node),
            "constraints" => {
                let mut lines = Vec::new();
                self.lines("constraints", node, &mut lines);
                self.constraint_lines.extend(lines);
            }
            "implementation_freedom" => self.implementation_freedom = self.texts(&key, node),
            "validation_checkpoints" => self.validation(node, "validation", true),
            "validation" => self.validation(node, "validation", false),
            "security_validation" => self.validation(node, "security", false),
            "test_gates" | "tests" => {
                self.dialect = Dialect::TestGates;
                self.validation(node, "test-gates", false);
            }
            "scope" => self.scope(node),
            "dependencies" => self.dependencies(node),
            "tags" => self.tags = self.texts(&key, node),
            "references" => self.references = self.texts(&key, node),
            _ => self.unknown(entry, ""),
        }
    }

    /// Turns the collected lines into criteria, each with a name of its own.
    fn finish(&mut self) {
        let mut names = Names::default();
        for (lines, is_constraint) in [
            (std::mem::take(&mut self.lines), false),
            (std::mem::take(&mut self.constraint_lines), true),
        ] {
            for line in lines {
                let reading = reading::read(&line.text);
                self.problems
                    .extend(reading.problems.into_iter().map(|problem| Problem {
                        message: format!("`{}`: {}", line.text, problem.message),
                        ..problem.at(line.place)
                    }));
                let criterion = Criterion {
                    criterion_id: names.name(&line.category, &line.text, reading.measure.as_ref()),
                    category: line.category,
                    text: line.text,
                    measure: reading.measure,
                };
                self.places.push(line.place);
                if is_constraint {
                    self.constraints.push(criterion);
                } else {
                    self.criteria.push(criterion);
                }
            }
        }
    }

    fn outcome(&mut self, key: &str, entry: &Entry) {
        match key {
            "goal" if self.dialect == Dialect::Full => self.dialect = Dialect::Short,
            "security_outcome" if self.dialect == Dialect::Full => self.dialect = Dialect::Security,
            _ => {}
        }
        self.outcome_place.get_or_insert(entry.place);
        if let Some(text) = self
            .one_text(key, &entry.node)
            .filter(|text| !text.is_empty())
        {
            self.outcome.push(text);
        }
    }

    fn metadata(&mut self, entry: &Entry) {
        let Value::Map(entries) = &entry.node.value else {
            return self.wrong_shape(
                "metadata",
                &entry.node,
                "write a map like `author: platform-team` below it",
            );
        };
        let mut rest = serde_json::Map::new();
        for entry in entries {
            let text = || entry.node.text().map(ToOwned::to_owned);
            match entry.key.trim() {
                "author" if self.author.is_none() => self.author = text(),
                "session" if self.session.is_none() => self.session = text(),
                "title" if self.title.is_none() => self.title = text(),
                "version" if self.version.is_none() => {
                    self.version = text().map(|text| (text, entry.node.place));
                }
                "spec_id" | "id" if self.spec_id.is_none() => {
                    self.spec_id = text().map(|text| (text, entry.node.place));
                }
                "tags" if self.tags.is_empty() => self.tags = self.texts("tags", &entry.node),
                other => {
                    rest.insert(other.to_owned(), json(&entry.node));
                }
            }
        }
        if !rest.is_empty() {
            self.other.push(("metadata".to_owned(), Json::Object(rest)));
        }
    }

    /// Headings with lists below them, or one list, or one map of lines.
    fn success_criteria(&mut self, node: &Node) {
        let mut lines = Vec::new();
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    match &entry.node.value {
                        Value::List(_) | Value::Map(_) => {
                            self.lines(entry.key.trim(), &entry.node, &mut lines);
                        }
                        _ => self.line("criteria", entry, &mut lines),
                    }
                }
            }
            _ => self.lines("criteria", node, &mut lines),
        }
        self.lines.extend(lines);
    }

    /// Checkpoints (`V1: …`) and criteria, in one list or under headings.
    fn validation(&mut self, node: &Node, category: &str, only_checkpoints: bool) {
        let mut lines = Vec::new();
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    match &entry.node.value {
                        Value::List(_) | Value::Map(_) => {
                            self.lines(entry.key.trim(), &entry.node, &mut lines);
                        }
                        _ => self.line(category, entry, &mut lines),
                    }
                }
            }
            _ => self.lines(category, node, &mut lines),
        }
        for line in lines {
            if let Some(checkpoint) = checkpoint(&line.text) {
                self.checkpoints.push(checkpoint);
            } else if only_checkpoints {
                let name = format!("V{}", self.checkpoints.len() + 1);
                self.checkpoints.push(Checkpoint {
                    name,
                    text: line.text,
                });
            } else {
                self.lines.push(line);
            }
        }
    }

    /// The lines of a list, each a text or a map that YAML made of `subject: limit`.
    fn lines(&mut self, category: &str, node: &Node, lines: &mut Vec<Line>) {
        match &node.value {
            Value::Text(text) => {
                let text = text.trim().to_owned();
                push(lines, category, text, node.place);
            }
            Value::Nothing => {}
            Value::Map(entries) => {
                for entry in entries {
                    self.line(category, entry, lines);
                }
            }
            Value::List(items) => {
                for item in items {
                    match &item.value {
                        Value::Map(entries) if is_gate(entries) => {
                            let text = entries
                                .iter()
                                .filter_map(|entry| entry.node.text())
                                .collect::<Vec<_>>()
                                .join(": ");
                            push(lines, category, text, item.place);
                        }
                        Value::List(_) => {
                            self.wrong_shape(
                                category,
                                item,
                                "write a list of texts, one to a line",
                            );
                        }
                        _ => self.lines(category, item, lines),
                    }
                }
            }
        }
    }

    fn line(&mut self, category: &str, entry: &Entry, lines: &mut Vec<Line>) {
        let key = entry.key.trim();
        let text = match &entry.node.value {
            Value::Text(text) if !text.trim().is_empty() => format!("{key}: {}", text.trim()),
            Value::Text(_) | Value::Nothing => key.to_owned(),
            Value::List(_) | Value::Map(_) => {
                return self.wrong_shape(
                    &format!("`{}`", shortened(key)),
                    &entry.node,
                    "write one text after the colon",
                );
            }
        };
        push(lines, category, text, entry.place);
    }

    fn scope(&mut self, node: &Node) {
        let Value::Map(entries) = &node.value else {
            self.scope.create = self.texts("scope", node);
            return;
        };
        for entry in entries {
            let texts = self.texts("scope", &entry.node);
            match entry
                .key
                .trim()
                .to_lowercase()
                .replace([' ', '-'], "_")
                .as_str()
            {
                "pre_existing" | "preexisting" | "existing" => {
                    self.scope.pre_existing.extend(texts);
                }
                "create" | "in_scope" | "in" => self.scope.create.extend(texts),
                "out_of_scope" | "out" => self.scope.out_of_scope.extend(texts),
                _ => self.unknown(entry, "scope."),
            }
        }
    }

    fn dependencies(&mut self, node: &Node) {
        for text in self.texts("dependencies", node) {
            let (spec_id, reason) = match text.split_once(':') {
                Some((spec_id, reason)) => {
                    (spec_id.trim().to_owned(), Some(reason.trim().to_owned()))
                }
                None => (text, None),
            };
            self.dependencies.push(Dependency { spec_id, reason });
        }
    }

    /// One text, or every text of a list; `key: value` items are joined again.
    fn texts(&mut self, name: &str, node: &Node) -> Vec<String> {
        let mut lines = Vec::new();
        self.lines(name, node, &mut lines);
        lines.into_iter().map(|line| line.text).collect()
    }

    fn one_text(&mut self, name: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::Text(text) => Some(text.trim().to_owned()),
            Value::Nothing => None,
            Value::List(_) | Value::Map(_) => {
                self.wrong_shape(&format!("`{name}`"), node, "write one text after the colon");
                None
            }
        }
    }

    fn unknown(&mut self, entry: &Entry, parent: &str) {
        let key = entry.key.trim();
        let shown = shortened(key);
        let meant = KEYS
            .iter()
            .find(|known| differ_little(known, &key.to_lowercase()));
        self.problems.push(
            match meant {
                Some(meant) => Problem::new(
                    Severity::Warning,
                    ProblemCode::KeyUnknown,
                    format!(
                        "`{shown}` is not known; what stands below it is kept but nobody acts on it"
                    ),
                    format!("write `{meant}` if that is what is meant"),
                ),
                None => Problem::new(
                    Severity::Note,
                    ProblemCode::KeyUnknown,
                    format!(
                        "`{shown}` is not known; what stands below it is kept but nobody acts on it"
                    ),
                    "leave it, or put what must be true under `success_criteria` or `constraints`",
                ),
            }
            .at(entry.place),
        );
        self.other
            .push((format!("{parent}{key}"), json(&entry.node)));
    }

    fn wrong_shape(&mut self, what: &str, node: &Node, hint: &str) {
        let message = format!("{what} is {}", node.kind());
        self.problems.push(
            Problem::new(Severity::Error, ProblemCode::WrongShape, message, hint).at(node.place),
        );
    }
}

/// Adds a line, unless it says nothing.
fn push(lines: &mut Vec<Line>, category: &str, text: String, place: Place) {
    if !text.is_empty() {
        lines.push(Line {
            category: category.to_owned(),
            text,
            place,
        });
    }
}

/// `V1: Human reviews the plan`, also without the space that would make it a YAML map.
fn checkpoint(text: &str) -> Option<Checkpoint> {
    let (name, rule) = text.split_once(':')?;
    let number = name.trim().strip_prefix(['V', 'v'])?;
    let is_name =
        (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    is_name.then(|| Checkpoint {
        name: format!("V{number}"),
        text: rule.trim().to_owned(),
    })
}

/// A gate written as a map: what, and how it is verified.
fn is_gate(entries: &[Entry]) -> bool {
    const WHAT: &[&str] = &["gate", "name", "criterion", "test"];
    const HOW: &[&str] = &[
        "verification",
        "verify",
        "target",
        "expect",
        "expected",
        "how",
    ];
    let has = |keys: &[&str]| {
        entries
            .iter()
            .any(|entry| keys.contains(&entry.key.trim().to_lowercase().as_str()))
    };
    entries.len() == 2 && has(WHAT) && has(HOW)
}

/// Whether two keys are one or two slips of a finger apart.
fn differ_little(known: &str, written: &str) -> bool {
    let written = written.replace([' ', '-'], "_");
    if known.len() < 4 || known.chars().count().abs_diff(written.chars().count()) > 2 {
        return false;
    }
    let written: Vec<char> = written.chars().collect();
    let mut row: Vec<usize> = (0..=written.len()).collect();
    for (index, letter) in known.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 0..written.len() {
            let change = diagonal + usize::from(written[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().is_some_and(|distance| *distance <= 2)
}

/// The tree as JSON, every scalar a string.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Nothing => Json::Null,
        Value::Text(text) => Json::String(text.clone()),
        Value::List(nodes) => Json::Array(nodes.iter().map(json).collect()),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|entry| (entry.key.clone(), json(&entry.node)))
                .collect(),
        ),
    }
}
