//! The values a query takes and gives.

use std::sync::Arc;

use super::temporal::{Date, DateTime, Duration, LocalDateTime, LocalTime, Time};

/// Keys and values in the order the server sent them.
pub type Map = Vec<(String, Value)>;

/// One value of a record, a property or a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean(bool),
    /// A 64-bit integer.
    Integer(i64),
    /// A 64-bit float; NaN and infinities occur.
    Float(f64),
    /// A byte array.
    Bytes(Vec<u8>),
    /// Text.
    String(String),
    /// A list, elements may differ in type.
    List(Vec<Value>),
    /// A map.
    Map(Map),
    /// A node.
    Node(Box<Node>),
    /// A relationship.
    Relationship(Box<Relationship>),
    /// A relationship without its ends; servers send it only within a path.
    UnboundRelationship(Box<UnboundRelationship>),
    /// A path.
    Path(Box<Path>),
    /// A calendar date.
    Date(Date),
    /// A time of day with an offset.
    Time(Time),
    /// A time of day.
    LocalTime(LocalTime),
    /// An instant with an offset or a zone.
    DateTime(Box<DateTime>),
    /// A date and a time of day.
    LocalDateTime(LocalDateTime),
    /// An amount of time.
    Duration(Box<Duration>),
    /// A point in two or three dimensions.
    Point(Box<Point>),
    /// A structure this client does not know, as it came.
    Structure(Box<Structure>),
}

/// A node of the graph; virtual nodes have ids such as `-1`.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The element id; before Bolt 5 the numeric id in decimal.
    pub id: Arc<str>,
    /// The labels, in no particular order.
    pub labels: Vec<String>,
    /// The properties.
    pub properties: Map,
}

/// A relationship of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Relationship {
    /// The element id; before Bolt 5 the numeric id in decimal.
    pub id: Arc<str>,
    /// The type, such as `KNOWS`.
    pub kind: String,
    /// The id of the node it starts at.
    pub start: Arc<str>,
    /// The id of the node it ends at.
    pub end: Arc<str>,
    /// The properties.
    pub properties: Map,
}

/// A relationship without its ends.
#[derive(Clone, Debug, PartialEq)]
pub struct UnboundRelationship {
    /// The element id; before Bolt 5 the numeric id in decimal.
    pub id: Arc<str>,
    /// The type, such as `KNOWS`.
    pub kind: String,
    /// The properties.
    pub properties: Map,
}

/// A walk through the graph: `nodes[i]` and `nodes[i + 1]` are the ends of `relationships[i]`.
///
/// A relationship walked against its direction keeps its own start and end. What is walked twice is
/// shared, so that a path is never much larger than the message it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The nodes in walking order, one more than relationships.
    pub nodes: Vec<Arc<Node>>,
    /// The relationships in walking order.
    pub relationships: Vec<Arc<Relationship>>,
}

/// A point; the unit of the coordinates depends on the reference system.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The reference system: 4326 and 4979 are WGS 84 in degrees (and metres), 7203 and 9157 are
    /// Cartesian.
    pub srid: i64,
    /// Longitude in WGS 84.
    pub x: f64,
    /// Latitude in WGS 84.
    pub y: f64,
    /// Height; absent in two dimensions.
    pub z: Option<f64>,
}

/// A tagged tuple of the wire format.
#[derive(Clone, Debug, PartialEq)]
pub struct Structure {
    /// Which structure it is.
    pub tag: u8,
    /// Its fields in order.
    pub fields: Vec<Value>,
}

impl Value {
    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Self::List(elements) => Some(elements),
            _ => None,
        }
    }

    /// The entries, if it is a map.
    pub fn as_map(&self) -> Option<&[(String, Value)]> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }
}

/// The value at `key`, if there is one.
pub fn get<'map>(map: &'map [(String, Value)], key: &str) -> Option<&'map Value> {
    map.iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value)
}

/// One key with its value, as parameters need them.
pub fn entry(key: &str, value: impl Into<Value>) -> (String, Value) {
    (key.to_owned(), value.into())
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(elements: Vec<T>) -> Self {
        Self::List(elements.into_iter().map(Into::into).collect())
    }
}
