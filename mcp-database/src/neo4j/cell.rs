//! Values of the graph as cells of a result, within bounds however deep and long they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use super::bolt::{Map as Entries, Node, Path, Point, Relationship, Structure, Value};
use crate::table::Cell;

/// Numbers a list of floats has at least to count as a vector.
const SHORTEST_VECTOR: usize = 32;
/// Elements of a list, or entries of a map, that are shown.
const SHOWN_ELEMENTS: usize = 100;
/// Values of one cell that are shown, all that is nested counted.
const SHOWN_VALUES: usize = 1_000;
/// Bytes of texts of one cell that are shown.
const SHOWN_BYTES: usize = 32 * 1024;
/// How deep lists and maps within each other are shown.
const DEEPEST: usize = 12;

/// A value as a cell: nodes as `{id, labels, props}`, relationships as `{id, type, from, to, props}`, paths as `{nodes,
/// relationships}`, times and durations in ISO 8601, points as `{srid, x, y, z?}`, bytes as `{"$bytes", base64}`, long lists of
/// floats as `{"$vector", head}` unless `whole_vectors`, other long lists as `{"$list", head}`, long maps with a member `$more`, and
/// `{"$deeper": kind}` for what is nested too deep or too much.
pub fn cell(value: &Value, whole_vectors: bool) -> Cell {
    let mut shaping = Shaping {
        whole_vectors,
        values: SHOWN_VALUES,
        bytes: SHOWN_BYTES,
        is_cut: false,
    };
    let json = shaping.value(value, 0);
    Cell::nested(json, shaping.is_cut)
}

/// The name of a value's type, for a column of which nothing else is known.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) => "integer",
        Value::Float(_) => "float",
        Value::Bytes(_) => "bytes",
        Value::String(_) => "string",
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Node(_) => "node",
        Value::Relationship(_) | Value::UnboundRelationship(_) => "relationship",
        Value::Path(_) => "path",
        Value::Date(_) => "date",
        Value::Time(_) => "time",
        Value::LocalTime(_) => "localtime",
        Value::DateTime(_) => "datetime",
        Value::LocalDateTime(_) => "localdatetime",
        Value::Duration(_) => "duration",
        Value::Point(_) => "point",
        Value::Structure(_) => "structure",
    }
}

struct Shaping {
    whole_vectors: bool,
    values: usize,
    bytes: usize,
    is_cut: bool,
}

impl Shaping {
    fn value(&mut self, value: &Value, depth: usize) -> Json {
        if depth > DEEPEST || self.values == 0 || self.bytes == 0 {
            self.is_cut = true;
            return json!({ "$deeper": kind(value) });
        }
        self.values -= 1;
        match value {
            Value::Null => Json::Null,
            Value::Boolean(boolean) => (*boolean).into(),
            Value::Integer(number) => Cell::integer(*number).into_value(),
            Value::Float(number) => Cell::float(*number).into_value(),
            Value::Bytes(bytes) => {
                self.take(Cell::bytes_of(bytes, |shown| STANDARD.encode(shown)), 64)
            }
            Value::String(text) => self.text(text),
            Value::List(elements) => self.list(elements, depth),
            Value::Map(entries) => self.map(entries, depth),
            Value::Node(node) => self.node(node, depth),
            Value::Relationship(relationship) => self.relationship(relationship, depth),
            Value::UnboundRelationship(unbound) => json!({
                "id": &*unbound.id,
                "type": self.text(&unbound.kind),
                "props": self.map(&unbound.properties, depth),
            }),
            Value::Path(path) => self.path(path, depth),
            Value::Date(date) => date.to_string().into(),
            Value::Time(time) => time.to_string().into(),
            Value::LocalTime(time) => time.to_string().into(),
            Value::DateTime(instant) => instant.to_string().into(),
            Value::LocalDateTime(local) => local.to_string().into(),
            Value::Duration(duration) => duration.to_string().into(),
            Value::Point(point) => place(point),
            Value::Structure(structure) => {
                let Structure { tag, fields } = &**structure;
                json!({ "$structure": tag, "fields": self.list(fields, depth) })
            }
        }
    }

    fn take(&mut self, cell: Cell, bytes: usize) -> Json {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_cut |= cell.is_cut();
        cell.into_value()
    }

    fn text(&mut self, text: &str) -> Json {
        // No more of it is looked at than can be shown.
        let bytes = text.len().min(8_000);
        self.take(Cell::text(text.to_owned()), bytes)
    }

    fn list(&mut self, elements: &[Value], depth: usize) -> Json {
        let numbers: Option<Vec<f64>> = elements.iter().map(as_float).collect();
        match numbers {
            Some(numbers) if numbers.len() >= SHORTEST_VECTOR => self.vector(&numbers),
            _ => self.shown(elements, depth),
        }
    }

    fn vector(&mut self, numbers: &[f64]) -> Json {
        let shown = if self.whole_vectors { numbers.len() } else { 5 };
        let head: Vec<Json> = numbers[..shown]
            .iter()
            .map(|number| Cell::float(*number).into_value())
            .collect();
        if self.whole_vectors {
            return head.into();
        }
        self.is_cut = true;
        json!({ "$vector": numbers.len(), "head": head })
    }

    fn shown(&mut self, elements: &[Value], depth: usize) -> Json {
        let mut head = Vec::new();
        for element in elements.iter().take(SHOWN_ELEMENTS) {
            if self.values == 0 || self.bytes == 0 {
                break;
            }
            head.push(self.value(element, depth + 1));
        }
        if head.len() == elements.len() {
            return head.into();
        }
        self.is_cut = true;
        json!({ "$list": elements.len(), "head": head })
    }

    fn map(&mut self, entries: &Entries, depth: usize) -> Json {
        let mut shown = Map::new();
        for (index, (key, value)) in entries.iter().enumerate() {
            if index == SHOWN_ELEMENTS || self.values == 0 || self.bytes == 0 {
                self.is_cut = true;
                shown.insert("$more".to_owned(), (entries.len() - index).into());
                break;
            }
            self.bytes = self.bytes.saturating_sub(key.len());
            shown.insert(key.clone(), self.value(value, depth + 1));
        }
        shown.into()
    }

    fn node(&mut self, node: &Node, depth: usize) -> Json {
        let labels: Vec<Json> = node
            .labels
            .iter()
            .take(SHOWN_ELEMENTS)
            .map(|label| self.text(label))
            .collect();
        self.is_cut |= node.labels.len() > SHOWN_ELEMENTS;
        json!({ "id": &*node.id, "labels": labels, "props": self.map(&node.properties, depth) })
    }

    fn relationship(&mut self, relationship: &Relationship, depth: usize) -> Json {
        json!({
            "id": &*relationship.id,
            "type": self.text(&relationship.kind),
            "from": &*relationship.start,
            "to": &*relationship.end,
            "props": self.map(&relationship.properties, depth),
        })
    }

    fn path(&mut self, path: &Path, depth: usize) -> Json {
        let mut steps = Vec::new();
        for (index, node) in path.nodes.iter().enumerate() {
            if self.values == 0 || self.bytes == 0 || index == SHOWN_ELEMENTS {
                self.is_cut = true;
                break;
            }
            if let Some(relationship) = index
                .checked_sub(1)
                .and_then(|before| path.relationships.get(before))
            {
                steps.push(self.relationship(relationship, depth + 1));
            }
            self.values -= 1;
            steps.push(self.node(node, depth + 1));
        }
        json!({ "length": path.relationships.len(), "path": steps })
    }
}

fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        _ => None,
    }
}

fn place(point: &Point) -> Json {
    let coordinate = |number| Cell::float(number).into_value();
    let mut place =
        json!({ "srid": point.srid, "x": coordinate(point.x), "y": coordinate(point.y) });
    if let Some(height) = point.z {
        place["z"] = coordinate(height);
    }
    place
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn node(id: &str, properties: Entries) -> Node {
        Node {
            id: id.into(),
            labels: vec!["A".to_owned()],
            properties,
        }
    }

    #[test]
    fn what_the_graph_is_made_of_has_its_form() {
        let properties = vec![("n".to_owned(), Value::Integer(i64::MAX))];
        let relationship = Relationship {
            id: "r".into(),
            kind: "T".to_owned(),
            start: "a".into(),
            end: "b".into(),
            properties: vec![("w".to_owned(), Value::Float(f64::NAN))],
        };
        let shown_node =
            json!({ "id": "a", "labels": ["A"], "props": { "n": "9223372036854775807" } });
        let shown_relationship =
            json!({ "id": "r", "type": "T", "from": "a", "to": "b", "props": { "w": "NaN" } });
        let path = Path {
            nodes: vec![
                Arc::new(node("a", properties.clone())),
                Arc::new(node("b", vec![])),
            ],
            relationships: vec![Arc::new(relationship.clone())],
        };
        let end = json!({ "id": "b", "labels": ["A"], "props": {} });
        for (value, expected) in [
            (
                Value::Node(Box::new(node("a", properties))),
                shown_node.clone(),
            ),
            (
                Value::Relationship(Box::new(relationship)),
                shown_relationship.clone(),
            ),
            (
                Value::Path(Box::new(path)),
                json!({ "length": 1, "path": [shown_node, shown_relationship, end] }),
            ),
            (
                Value::Bytes(vec![1, 2]),
                json!({ "$bytes": 2, "base64": "AQI=" }),
            ),
        ] {
            let cell = cell(&value, false);
            assert_eq!((cell.value(), cell.is_cut()), (&expected, false));
        }
    }

    #[test]
    fn vectors_and_long_lists_show_their_heads() {
        let vector = Value::List(vec![Value::Float(0.5); 1_536]);
        let shown = cell(&vector, false);
        assert_eq!(
            *shown.value(),
            json!({ "$vector": 1_536, "head": [0.5, 0.5, 0.5, 0.5, 0.5] })
        );
        assert!(shown.is_cut() && !cell(&vector, true).is_cut());
        let list = Value::List((0..10_000).map(Value::Integer).collect());
        let shown = cell(&list, false);
        assert_eq!(shown.value()["$list"], json!(10_000));
        assert_eq!(shown.value()["head"].as_array().map(Vec::len), Some(100));
        // Whole numbers and few floats are no vector.
        let floats = Value::List(vec![Value::Float(1.0); 31]);
        assert!(!cell(&floats, false).is_cut());
    }

    #[test]
    fn a_cell_is_bounded_however_it_is_nested() {
        let mut deep = Value::Integer(1);
        let mut wide = Value::String("x".repeat(3_000));
        for _ in 0..4 {
            wide = Value::List(vec![wide; 8]);
        }
        for _ in 0..1_000 {
            deep = Value::List(vec![deep]);
        }
        let map = Value::Map((0..500).map(|n| (n.to_string(), Value::Null)).collect());
        for value in [&deep, &wide, &map] {
            let cell = cell(value, false);
            assert!(cell.is_cut());
            assert!(cell.value().to_string().len() < 80_000);
        }
        assert_eq!(cell(&map, false).value()["$more"], json!(400));
    }
}
