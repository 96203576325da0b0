//! What a server tells about a query once all its records are out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::value::{Map, Value, get};

/// What a query did, or with `EXPLAIN` would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryType {
    /// `r`: only reads. `LOAD CSV` and procedures in mode DBMS count as reads, too.
    Read,
    /// `rw`: reads and writes.
    ReadWrite,
    /// `w`: only writes.
    Write,
    /// `s`: changes the schema or administers the server.
    Schema,
}

/// The end of a result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// What kind of query it was; absent when the server does not say.
    pub query_type: Option<QueryType>,
    /// What was changed by the server's own names, such as `nodes-created`; empty when nothing was.
    pub counters: BTreeMap<String, i64>,
    /// Warnings and hints about the query.
    pub notifications: Vec<Notification>,
    /// The plan of an `EXPLAIN`: nested maps of `operatorType`, `args`, `identifiers`, `children`.
    pub plan: Option<Value>,
    /// The plan of a `PROFILE`: as above, with `dbHits` and `rows`.
    pub profile: Option<Value>,
    /// The database that answered.
    pub database: Option<String>,
    /// How long the server took until the first record was available.
    pub available_after: Option<Duration>,
    /// How long the server took from then on until the last record was consumed.
    pub consumed_after: Option<Duration>,
}

/// One warning or hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Such as `Neo.ClientNotification.Statement.CartesianProduct`.
    pub code: String,
    /// `WARNING` or `INFORMATION`.
    pub severity: String,
    /// A short headline.
    pub title: String,
    /// A sentence or two.
    pub description: String,
}

impl Summary {
    pub(super) fn new(metadata: Map, available_after: Option<Duration>) -> Self {
        let mut summary = Self {
            available_after,
            ..Self::default()
        };
        for (key, value) in metadata {
            match (key.as_str(), value) {
                ("type", Value::String(kind)) => summary.query_type = query_type(&kind),
                ("stats", Value::Map(entries)) => summary.counters = counters(entries),
                ("notifications" | "statuses", Value::List(list)) => {
                    summary.notifications = list.iter().filter_map(notification).collect();
                }
                ("plan", plan @ Value::Map(_)) => summary.plan = Some(plan),
                ("profile", profile @ Value::Map(_)) => summary.profile = Some(profile),
                ("db", Value::String(name)) => summary.database = Some(name),
                ("t_last", Value::Integer(milliseconds)) => {
                    summary.consumed_after = duration(milliseconds);
                }
                _ => {}
            }
        }
        summary
    }
}

pub(super) fn duration(milliseconds: i64) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

fn query_type(letters: &str) -> Option<QueryType> {
    Some(match letters {
        "r" => QueryType::Read,
        "rw" => QueryType::ReadWrite,
        "w" => QueryType::Write,
        "s" => QueryType::Schema,
        _ => return None,
    })
}

/// Leaves out `contains-updates` and its like, which say only that another counter is there.
fn counters(entries: Map) -> BTreeMap<String, i64> {
    let changes = entries
        .into_iter()
        .filter_map(|(name, count)| Some((name, count.as_integer()?)));
    changes.filter(|(_, count)| *count != 0).collect()
}

/// Reads the form of Bolt 5.5 and later and the older one. The newer also lists mere success, which
/// has no code.
fn notification(value: &Value) -> Option<Notification> {
    let entries = value.as_map()?;
    let text = |map, key| get(map, key).and_then(Value::as_str);
    let record = get(entries, "diagnostic_record")
        .and_then(Value::as_map)
        .unwrap_or_default();
    Some(Notification {
        code: text(entries, "neo4j_code")
            .or_else(|| text(entries, "code"))?
            .to_owned(),
        severity: text(record, "_severity")
            .or_else(|| text(entries, "severity"))
            .unwrap_or_default()
            .to_owned(),
        title: text(entries, "title").unwrap_or_default().to_owned(),
        description: text(entries, "description").unwrap_or_default().to_owned(),
    })
}
