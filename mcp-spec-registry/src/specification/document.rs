//! One YAML document as a tree of texts with their places; numbers, booleans and dates stay as they were written.

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span};

use super::problem::{Place, shortened};
use super::yaml_error::{Fault, YamlError};

/// The most a specification may hold, in bytes.
pub(super) const MAX_BYTES: usize = 256 * 1024;
/// The most texts, lists and maps together.
const MAX_NODES: usize = 4_000;
/// How deep lists and maps may nest.
const MAX_DEPTH: usize = 24;

/// A place in the document tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// What stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing (`key:`, `~`, `null`).
    Nothing,
    /// Any scalar, as written, quotes and folding resolved.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order written; no key stands twice.
    Map(Vec<Entry>),
}

/// A key and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    /// The scalar's text without the blank lines around it.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text.trim()),
            _ => None,
        }
    }

    /// What this is, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Nothing => "nothing",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Parses one YAML document; an empty one is [`Value::Nothing`].
pub(super) fn parse(text: &str) -> Result<Node, YamlError> {
    // The parser counts a byte order mark as no column; our places should fit what an editor shows.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut builder = Builder {
        text,
        open: Vec::new(),
        root: None,
        nodes: 0,
        documents: 0,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| scan_error(&error))?;
        builder.take(event, span)?;
    }
    Ok(builder.root.unwrap_or(Node {
        value: Value::Nothing,
        place: Place { line: 1, column: 1 },
    }))
}

fn scan_error(error: &ScanError) -> YamlError {
    let marker = error.marker();
    YamlError::new(
        place(marker.line(), marker.col()),
        Fault::Syntax(error.info()),
    )
}

fn place(line: usize, column: usize) -> Place {
    Place {
        line: u32::try_from(line.max(1)).unwrap_or(u32::MAX),
        column: u32::try_from(column.saturating_add(1)).unwrap_or(u32::MAX),
    }
}

/// A list or map whose end has not been read.
enum Open {
    List {
        nodes: Vec<Node>,
        place: Place,
    },
    Map {
        entries: Vec<Entry>,
        key: Option<(String, Place)>,
        place: Place,
    },
}

struct Builder<'text> {
    text: &'text str,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let here = place(span.start.line(), span.start.col());
        let fail = |fault| Err(YamlError::new(here, fault));
        if event.is_node() {
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return fail(Fault::TooManyNodes(MAX_NODES));
            }
            if event.anchor_id().is_some() || event.is_alias() {
                return fail(Fault::Anchor);
            }
            if event
                .tag()
                .is_some_and(|tag| !tag.is_yaml_core_schema_tag("str") && !tag.handle().is_empty())
            {
                return fail(Fault::Tag);
            }
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fail(Fault::SecondDocument);
                }
            }
            Event::Scalar(text, style, ..) => {
                let value = self.scalar(text.into_owned(), style, here)?;
                return self.place_node(Node { value, place: here });
            }
            Event::SequenceStart(..) => self.open(
                Open::List {
                    nodes: Vec::new(),
                    place: here,
                },
                here,
            )?,
            Event::MappingStart(..) => self.open(
                Open::Map {
                    entries: Vec::new(),
                    key: None,
                    place: here,
                },
                here,
            )?,
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop() {
                    Some(Open::List { nodes, place }) => Node {
                        value: Value::List(nodes),
                        place,
                    },
                    Some(Open::Map { entries, place, .. }) => Node {
                        value: Value::Map(entries),
                        place,
                    },
                    None => return Ok(()),
                };
                return self.place_node(node);
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, open: Open, here: Place) -> Result<(), YamlError> {
        if matches!(self.open.last(), Some(Open::Map { key: None, .. })) {
            return Err(YamlError::new(here, Fault::ComplexKey));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(YamlError::new(here, Fault::TooDeep(MAX_DEPTH)));
        }
        self.open.push(open);
        Ok(())
    }

    fn scalar(&self, text: String, style: ScalarStyle, here: Place) -> Result<Value, YamlError> {
        match style {
            ScalarStyle::Plain if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") => {
                return Ok(Value::Nothing);
            }
            ScalarStyle::Plain => {
                let unsigned = text.trim_start_matches(['-', '+']).to_ascii_lowercase();
                if matches!(unsigned.as_str(), ".inf" | ".nan") {
                    return Err(YamlError::new(here, Fault::NonFinite(text)));
                }
            }
            // `>5` alone opens a block whose text is indented by 5, and an empty one at that.
            ScalarStyle::Folded | ScalarStyle::Literal if text.trim().is_empty() => {
                if let Some(header) = header_with_digit_above(self.text, here.line) {
                    return Err(YamlError::new(here, Fault::BlockHeader(header)));
                }
            }
            _ => {}
        }
        Ok(Value::Text(text))
    }

    /// Puts a finished node where it belongs.
    fn place_node(&mut self, node: Node) -> Result<(), YamlError> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { nodes, .. }) => nodes.push(node),
            Some(Open::Map { entries, key, .. }) => {
                if let Some((key, place)) = key.take() {
                    entries.push(Entry { key, place, node });
                } else {
                    let text = match node.value {
                        Value::Text(text) => text,
                        _ => String::new(),
                    };
                    if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                        let fault = Fault::DuplicateKey {
                            key: shortened(&text),
                            first_line: first.place.line,
                        };
                        return Err(YamlError::new(node.place, fault));
                    }
                    *key = Some((text, node.place));
                }
            }
        }
        Ok(())
    }
}

/// The header of the empty block that ended at this line, if it holds a digit: `>5`, `|2-`.
fn header_with_digit_above(text: &str, line: u32) -> Option<String> {
    let upto: Vec<&str> = text.lines().take(line as usize).collect();
    let blank_between = |below: &[&str]| below.iter().skip(1).all(|line| line.trim().is_empty());
    (0..upto.len())
        .rev()
        .take_while(|at| *at + 1 >= upto.len() || blank_between(&upto[*at..]))
        .find_map(|at| {
            let header = upto[at].trim_end().rsplit([' ', '\t']).next()?;
            let digits = header.strip_prefix(['>', '|'])?;
            let is_header = digits
                .chars()
                .all(|character| character.is_ascii_digit() || matches!(character, '-' | '+'));
            (is_header && digits.contains(|character: char| character.is_ascii_digit()))
                .then(|| header.to_owned())
        })
}
