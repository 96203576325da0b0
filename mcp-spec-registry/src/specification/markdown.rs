//! Reads a specification written as Markdown, a heading for each part, into the same tree that YAML gives.

use super::document::{self, Entry, Node, Value};
use super::problem::Place;
use super::yaml_error::YamlError;

/// Headings that are known, and the keys they stand for.
const HEADINGS: &[(&str, &str)] = &[
    ("outcome", "outcome"),
    ("goal", "goal"),
    ("success criteria", "success_criteria"),
    ("test gates", "test_gates"),
    ("tests", "tests"),
    ("constraints", "constraints"),
    ("implementation freedom", "implementation_freedom"),
    ("validation", "validation"),
    ("validation checkpoints", "validation_checkpoints"),
    ("scope", "scope"),
    ("dependencies", "dependencies"),
    ("references", "references"),
    ("tags", "tags"),
];

/// Whether a text is a Markdown specification: it has a heading `Outcome`, and no YAML key says the same.
pub(super) fn is_markdown(text: &str) -> bool {
    let (_, body) = front_matter(text);
    let keys = ["outcome:", "goal:", "security_outcome:", "spec_id:", "id:"];
    let is_key = |line: &str| keys.iter().any(|key| line.starts_with(key));
    let says_outcome = |line: &str| {
        heading(line).is_some_and(|(_, title)| matches!(key_of(title), Some("outcome" | "goal")))
    };
    body.lines().any(says_outcome) && !body.lines().any(is_key)
}

/// Reads a Markdown specification; only the YAML between its first lines can be wrong.
pub(super) fn parse(text: &str) -> Result<Node, YamlError> {
    let (front, body) = front_matter(text);
    let mut entries = match front
        .map(document::parse)
        .transpose()?
        .map(|node| node.value)
    {
        Some(Value::Map(entries)) => entries,
        _ => Vec::new(),
    };
    let first_line = text.len() - body.len();
    let skipped = text[..first_line].lines().count();
    let mut section: Option<Section> = None;
    let lines: Vec<&str> = body.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let place = Place {
            line: u32::try_from(skipped + index + 1).unwrap_or(u32::MAX),
            column: 1,
        };
        match heading(line) {
            Some((1, title)) if key_of(title).is_none() => {
                let node = Node {
                    value: Value::Text(title.to_owned()),
                    place,
                };
                entries.push(Entry {
                    key: "title".to_owned(),
                    place,
                    node,
                });
            }
            Some((level, title)) => match &mut section {
                Some(open) if level > open.level => open.begin_group(title, place),
                _ => {
                    entries.extend(section.take().map(Section::close));
                    let key = key_of(title).unwrap_or(title).to_owned();
                    section = Some(Section::new(key, level, place));
                }
            },
            None => {
                if let Some(open) = &mut section {
                    let is_header = lines.get(index + 1).is_some_and(|next| is_table_rule(next));
                    if !is_header {
                        open.line(line, place);
                    }
                }
            }
        }
    }
    entries.extend(section.map(Section::close));
    Ok(Node {
        value: Value::Map(entries),
        place: Place { line: 1, column: 1 },
    })
}

/// The YAML between `---` lines at the top, and what follows it.
fn front_matter(text: &str) -> (Option<&str>, &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let after = text
        .strip_prefix("---\n")
        .or_else(|| text.strip_prefix("---\r\n"));
    let end = after.and_then(|after| {
        let begins_at = text.len() - after.len();
        let ends = ["\n---\n", "\n---\r\n"]
            .into_iter()
            .filter_map(|end| Some((after.find(end)?, end.len())))
            .min();
        ends.map(|(at, length)| (begins_at + at + 1, begins_at + at + length))
    });
    match end {
        // The opening line stays, so that YAML counts the lines as the file does.
        Some((front_ends, body_begins)) => (Some(&text[..front_ends]), &text[body_begins..]),
        None => (None, text),
    }
}

/// The level and the title of a heading, without numbering and signs around it.
fn heading(line: &str) -> Option<(usize, &str)> {
    let title = line.trim_start_matches('#');
    let level = line.len() - title.len();
    let is_heading = (1..=6).contains(&level) && title.starts_with([' ', '\t']);
    let decoration =
        |character: char| !character.is_alphabetic() && !matches!(character, '(' | '`');
    is_heading.then(|| {
        (
            level,
            title
                .trim_start_matches(decoration)
                .trim_end_matches(['#', ' ', '\t', ':', '*']),
        )
    })
}

fn key_of(title: &str) -> Option<&'static str> {
    let title = title.to_lowercase();
    HEADINGS
        .iter()
        .find(|(heading, _)| *heading == title)
        .map(|(_, key)| *key)
}

/// `| --- | :-: |`
fn is_table_rule(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('|')
        && line.contains("--")
        && line
            .chars()
            .all(|character| matches!(character, '|' | '-' | ':' | ' '))
}

/// A heading and what has been read below it.
struct Section {
    key: String,
    level: usize,
    place: Place,
    /// The paragraphs, as one text.
    prose: String,
    items: Vec<Node>,
    groups: Vec<Entry>,
}

impl Section {
    fn new(key: String, level: usize, place: Place) -> Self {
        Self {
            key,
            level,
            place,
            prose: String::new(),
            items: Vec::new(),
            groups: Vec::new(),
        }
    }

    fn begin_group(&mut self, title: &str, place: Place) {
        let node = Node {
            value: Value::List(Vec::new()),
            place,
        };
        self.groups.push(Entry {
            key: title.to_owned(),
            place,
            node,
        });
    }

    fn line(&mut self, line: &str, place: Place) {
        let indented = line.starts_with([' ', '\t']);
        let line = line.trim().trim_start_matches("> ");
        if is_table_rule(line) || line == "---" {
            return;
        }
        if self.is_prose() {
            self.prose.push_str(line);
            self.prose.push('\n');
            return;
        }
        if line.is_empty() {
            return;
        }
        if let Some(row) = line.strip_prefix('|') {
            let cells: Vec<&str> = row
                .trim_end_matches('|')
                .split('|')
                .map(plain)
                .filter(|cell| !cell.is_empty())
                .collect();
            return self.item(cells.join(": "), place);
        }
        // `**Create:** the service` opens a group, as a heading would.
        if let Some((label, rest)) = line
            .strip_prefix("**")
            .and_then(|line| line.split_once("**"))
        {
            self.begin_group(label.trim_end_matches(':'), place);
            let rest = rest.trim_start_matches(':').trim();
            if !rest.is_empty() {
                self.item(rest.to_owned(), place);
            }
            return;
        }
        match bullet(line) {
            Some(item) => self.item(plain(item).to_owned(), place),
            None if indented => self.continue_item(line, place),
            None => self.item(line.to_owned(), place),
        }
    }

    fn is_prose(&self) -> bool {
        matches!(self.key.as_str(), "outcome" | "goal")
    }

    fn items(&mut self) -> &mut Vec<Node> {
        match self.groups.last_mut().map(|group| &mut group.node.value) {
            Some(Value::List(items)) => items,
            _ => &mut self.items,
        }
    }

    fn item(&mut self, text: String, place: Place) {
        self.items().push(Node {
            value: Value::Text(text),
            place,
        });
    }

    /// A line that belongs to the item above it.
    fn continue_item(&mut self, line: &str, place: Place) {
        match self.items().last_mut().map(|item| &mut item.value) {
            Some(Value::Text(text)) => text.extend([" ", line]),
            _ => self.item(line.to_owned(), place),
        }
    }

    fn close(mut self) -> Entry {
        let value = if self.is_prose() {
            Value::Text(self.prose.trim().to_owned())
        } else if self.groups.is_empty() {
            Value::List(self.items)
        } else {
            if !self.items.is_empty() {
                let node = Node {
                    value: Value::List(self.items),
                    place: self.place,
                };
                self.groups.insert(
                    0,
                    Entry {
                        key: "criteria".to_owned(),
                        place: self.place,
                        node,
                    },
                );
            }
            Value::Map(self.groups)
        };
        Entry {
            key: self.key,
            place: self.place,
            node: Node {
                value,
                place: self.place,
            },
        }
    }
}

/// What follows `- `, `* `, `+ ` or `1. `, and a checkbox.
fn bullet(line: &str) -> Option<&str> {
    let item = line
        .strip_prefix("- ")
        .or_else(|| line.strip_prefix("* "))
        .or_else(|| line.strip_prefix("+ "))
        .or_else(|| {
            let rest = line.trim_start_matches(|character: char| character.is_ascii_digit());
            (rest.len() < line.len()).then(|| rest.strip_prefix(". "))?
        })?;
    let item = item.trim();
    Some(
        ["[ ] ", "[x] ", "[X] "]
            .iter()
            .find_map(|checkbox| item.strip_prefix(checkbox))
            .unwrap_or(item),
    )
}

/// The text without the marks around all of it.
fn plain(text: &str) -> &str {
    let text = text.trim();
    let inner = |mark: &str| {
        text.strip_prefix(mark)?
            .strip_suffix(mark)
            .filter(|inner| !inner.contains(mark))
    };
    inner("**").or_else(|| inner("`")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, ProblemCode, Specification};

    const MARKDOWN: &str = "---\nspec_id: static-pages\nversion: 1.10\nauthor: ana\n---\n# Static pages\n\n## 1. Outcome\n\nPages are served\nto everyone.\n\n\
        ## 2. Test Gates\n\n| Gate | Verification |\n| --- | --- |\n| **Page load** | < 200ms |\n| Health | returns 200 |\n\n\
        ## Constraints\n\n- Memory < 512 MiB,\n  measured as resident set\n- [ ] Not as root\n\n\
        ## Scope\n\n### Create\n\n- the service\n\n**Out of scope:** billing\n\n\
        ## Dependencies\n\n| Spec | Why |\n|---|---|\n| `network-base` | the port |\n\n## References\n\n1. RFC 9110\n";

    #[test]
    fn a_markdown_specification_is_read() -> anyhow::Result<()> {
        let specification = Specification::parse(MARKDOWN, None)?;
        assert_eq!(specification.dialect, Dialect::Markdown);
        assert_eq!(
            (specification.version.as_str(), specification.title()),
            ("1.10", "Static pages")
        );
        assert_eq!(specification.outcome, "Pages are served\nto everyone.");
        let texts: Vec<&str> = specification
            .criteria
            .iter()
            .chain(&specification.constraints)
            .map(|c| c.text.as_str())
            .collect();
        assert_eq!(
            texts,
            [
                "Page load: < 200ms",
                "Health: returns 200",
                "Memory < 512 MiB, measured as resident set",
                "Not as root"
            ]
        );
        assert!(
            specification
                .criteria
                .iter()
                .all(|criterion| criterion.measure.is_some())
        );
        assert_eq!(specification.scope.create, ["the service"]);
        assert_eq!(specification.scope.out_of_scope, ["billing"]);
        assert_eq!(specification.dependencies[0].spec_id, "network-base");
        assert_eq!(specification.references, ["RFC 9110"]);
        let again = Specification::parse(specification.normalized(), None)?;
        assert_eq!(again.criteria, specification.criteria);
        Ok(())
    }

    #[test]
    fn a_fault_in_the_front_matter_has_the_line_of_the_file() {
        let error =
            Specification::parse(MARKDOWN.replace("author: ana", "author: @ana"), None).err();
        let first =
            error.and_then(|error| error.first().map(|problem| (problem.code, problem.line)));
        assert_eq!(first, Some((ProblemCode::Yaml, Some(4))));
    }

    #[test]
    fn a_comment_does_not_make_yaml_markdown() -> anyhow::Result<()> {
        let specification = Specification::parse("# Outcome\nspec_id: a\noutcome: b\n", None)?;
        assert_eq!(specification.dialect, Dialect::Full);
        Ok(())
    }
}
