//! Walks through the graph level by level and visits every node once, so that no number of paths is too many.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map as Object, Value as Json};

use super::bolt::{Map, Value, entry};
use super::cell;
use super::client::Reading;
use super::cypher::names::{alternatives, quoted};
use super::error::GraphError;
use super::parameter;

/// Properties by which a node is called, the first that it has.
const NAMES: [&str; 6] = ["name", "title", "id", "key", "path", "uri"];
/// Characters of a name that are shown.
const LONGEST_NAME: usize = 120;

/// Which relationships are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From their start to their end: what a node depends on.
    #[default]
    Down,
    /// From their end to their start: what depends on a node.
    Up,
    /// Either way.
    Both,
}

/// Where a walk starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// A node by its element id.
    Id(String),
    /// The only node with a label and these properties.
    Key {
        /// The label.
        label: String,
        /// The properties; at least one.
        key: Object<String, Json>,
    },
}

/// How far a walk may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Relationships from the start.
    pub depth: usize,
    /// Nodes, the start among them.
    pub nodes: usize,
    /// Relationships in all.
    pub relationships: usize,
}

/// Why a walk ended before there was nothing left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CutReason {
    /// There is more behind the last level.
    Depth,
    /// There are more nodes than were asked for.
    Nodes,
    /// There are more relationships than are looked at.
    Relationships,
}

/// Where and why a walk ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Why.
    pub reason: CutReason,
    /// Of which level on something is missing.
    pub depth: usize,
}

/// A node that was reached.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reached {
    /// Its element id.
    pub id: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// What it is called; its element id if nothing else tells.
    pub name: String,
    /// How many relationships it is from the start.
    pub depth: usize,
}

/// A relationship between two nodes that were reached, by their places in [`Walk::nodes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    /// Where it starts.
    pub(super) from: usize,
    /// Where it ends.
    pub(super) to: usize,
    /// Its type.
    pub(super) kind: String,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) nodes: Vec<Reached>,
    pub(super) edges: Vec<Edge>,
    pub(super) cut: Option<Cut>,
    places: HashMap<String, usize>,
    seen: HashSet<String>,
}

impl Walk {
    /// Walks from nodes that were found.
    pub(super) async fn from(
        reading: &mut Reading,
        starts: Vec<Reached>,
        direction: Direction,
        types: &[String],
        reach: Reach,
    ) -> Result<Self, GraphError> {
        let mut walk = Self::default();
        for start in starts {
            walk.place(start);
        }
        let mut level: Vec<String> = walk.nodes.iter().map(|node| node.id.clone()).collect();
        for depth in 1..=reach.depth {
            if level.is_empty() {
                return Ok(walk);
            }
            level = walk
                .level(reading, &level, direction, types, depth, reach)
                .await?;
        }
        if walk.cut.is_none()
            && !level.is_empty()
            && walk.goes_on(reading, &level, direction, types).await?
        {
            walk.cut = Some(Cut {
                reason: CutReason::Depth,
                depth: reach.depth + 1,
            });
        }
        Ok(walk)
    }

    async fn level(
        &mut self,
        reading: &mut Reading,
        level: &[String],
        direction: Direction,
        types: &[String],
        depth: usize,
        reach: Reach,
    ) -> Result<Vec<String>, GraphError> {
        let room = reach.relationships.saturating_sub(self.edges.len());
        let text = format!(
            "UNWIND $ids AS id MATCH (n) WHERE elementId(n) = id MATCH {} \
             RETURN elementId(r), type(r), elementId(startNode(r)), elementId(endNode(r)), \
             elementId(m), labels(m), {} LIMIT $most",
            step(direction, types),
            name_of("m")
        );
        let most = i64::try_from(room.saturating_add(1)).unwrap_or(i64::MAX);
        let parameters = vec![entry("ids", level.to_vec()), entry("most", most)];
        let records = reading.rows(text, parameters).await?;
        let mut next = Vec::new();
        for (index, record) in records.into_iter().enumerate() {
            if index == room {
                self.cut_at(CutReason::Relationships, depth);
                break;
            }
            let Some(found) = Found::of(record, depth) else {
                continue;
            };
            let id = found.node.id.clone();
            if !self.places.contains_key(&id) {
                if self.nodes.len() >= reach.nodes {
                    self.cut_at(CutReason::Nodes, depth);
                    continue;
                }
                next.push(id);
                self.place(found.node);
            }
            if !self.seen.insert(found.relationship) {
                continue;
            }
            if let (Some(&from), Some(&to)) =
                (self.places.get(&found.from), self.places.get(&found.to))
            {
                self.edges.push(Edge {
                    from,
                    to,
                    kind: found.kind,
                });
            }
        }
        Ok(next)
    }

    /// Whether some relationship leads from a level to a node that was not reached.
    async fn goes_on(
        &self,
        reading: &mut Reading,
        level: &[String],
        direction: Direction,
        types: &[String],
    ) -> Result<bool, GraphError> {
        let text = format!(
            "UNWIND $ids AS id MATCH (n) WHERE elementId(n) = id MATCH {} \
             WHERE NOT elementId(m) IN $reached RETURN 1 LIMIT 1",
            step(direction, types)
        );
        let reached: Vec<&str> = self.nodes.iter().map(|node| node.id.as_str()).collect();
        let parameters = vec![entry("ids", level.to_vec()), entry("reached", reached)];
        Ok(!reading.rows(text, parameters).await?.is_empty())
    }

    fn place(&mut self, node: Reached) {
        self.places.insert(node.id.clone(), self.nodes.len());
        self.nodes.push(node);
    }

    fn cut_at(&mut self, reason: CutReason, depth: usize) {
        self.cut.get_or_insert(Cut { reason, depth });
    }
}

/// A row of a level.
struct Found {
    relationship: String,
    kind: String,
    from: String,
    to: String,
    node: Reached,
}

impl Found {
    fn of(record: Vec<Value>, depth: usize) -> Option<Self> {
        let mut values = record.into_iter();
        let mut text = || match values.next() {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (relationship, kind, from, to) = (text()?, text()?, text()?, text()?);
        let node = reached(values.collect(), depth)?;
        Some(Self {
            relationship,
            kind,
            from,
            to,
            node,
        })
    }
}

/// The one node that a start means.
pub(super) async fn find(reading: &mut Reading, start: &Start) -> Result<Reached, GraphError> {
    let (pattern, parameters, told) = match start {
        Start::Id(id) => (
            "(n) WHERE elementId(n) = $id".to_owned(),
            vec![entry("id", id.as_str())],
            format!("the element id `{id}`"),
        ),
        Start::Key { label, key } => {
            if label.is_empty() || key.is_empty() || key.contains_key("") {
                return Err(GraphError::Argument(
                    "a node is named by a label and at least one property".to_owned(),
                ));
            }
            let pairs: Vec<String> = key
                .keys()
                .map(|name| format!("{0}: $key.{0}", quoted(name)))
                .collect();
            let key_text = Json::Object(key.clone()).to_string();
            let parameters: Map = vec![("key".to_owned(), Value::Map(parameter::map(key)?))];
            let told = format!(
                "the label `{label}` and {}",
                shared::budget::head(&key_text, 200).text
            );
            let pattern = format!("(n:{} {{{}}})", quoted(label), pairs.join(", "));
            (pattern, parameters, told)
        }
    };
    let text = format!(
        "MATCH {pattern} RETURN elementId(n), labels(n), {} LIMIT 2",
        name_of("n")
    );
    let mut records = reading.rows(text, parameters).await?;
    match (records.pop(), records.pop()) {
        (None, _) => Err(GraphError::Argument(format!("no node has {told}"))),
        (Some(record), None) => reached(record, 0)
            .ok_or_else(|| GraphError::Argument(format!("what has {told} is no node"))),
        (Some(_), Some(_)) => Err(GraphError::Argument(format!(
            "more than one node has {told}; name one by its element id"
        ))),
    }
}

/// A node of the columns id, labels and name.
pub(super) fn reached(record: Vec<Value>, depth: usize) -> Option<Reached> {
    let [Value::String(id), Value::List(labels), name] = <[Value; 3]>::try_from(record).ok()?
    else {
        return None;
    };
    let labels = labels
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let name = called(&name).unwrap_or_else(|| id.clone());
    Some(Reached {
        id,
        labels,
        name,
        depth,
    })
}

fn called(name: &Value) -> Option<String> {
    let text = match cell::cell(name, false).into_value() {
        Json::Null => return None,
        Json::String(text) => text,
        other => other.to_string(),
    };
    Some(shared::budget::head(&text, LONGEST_NAME).text.to_owned())
}

/// An expression for what a node is called.
pub(super) fn name_of(variable: &str) -> String {
    let names = NAMES.map(|name| format!("{variable}.{name}"));
    // Whatever else it is, a long list must not come along.
    format!("left(toStringOrNull(coalesce({})), 200)", names.join(", "))
}

fn step(direction: Direction, types: &[String]) -> String {
    let relationship = format!("[r{}]", alternatives(types));
    match direction {
        Direction::Down => format!("(n)-{relationship}->(m)"),
        Direction::Up => format!("(n)<-{relationship}-(m)"),
        Direction::Both => format!("(n)-{relationship}-(m)"),
    }
}
