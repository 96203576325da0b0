//! What kinds of nodes and relationships a graph has, in a few lines a model can hold: by counts the server keeps and by samples,
//! without APOC.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::bolt::{Map, Value, entry};
use super::client::{Neo4j, Reading, within};
use super::cypher::names::quoted;
use super::error::GraphError;

/// Most labels, and most types, of one answer.
pub const MOST_KINDS: usize = 200;
/// Most nodes of a label, or relationships of a type, that are looked at.
pub const LARGEST_SAMPLE: usize = 10_000;
/// Properties of a kind that are told.
const MOST_PROPERTIES: usize = 40;
/// Pairs of labels that a type of relationships is told between.
const MOST_PAIRS: usize = 8;
/// Indexes and constraints that are told.
const MOST_RULES: usize = 200;
/// Counts that are asked for at once; planning more of them takes longer than asking again.
const TOGETHER: usize = 20;

/// What is asked of a schema.
#[derive(Debug, Clone)]
pub struct SchemaAsk {
    /// Part of the name of labels and types, in any case; all if none.
    pub matching: Option<String>,
    /// How many labels, and how many types, at most [`MOST_KINDS`].
    pub kinds: usize,
    /// How many labels and types are passed over, in the order of their names.
    pub skip: usize,
    /// Whether only names and counts are told, and nothing is looked at.
    pub names_only: bool,
    /// How many nodes and relationships of each are looked at, at most [`LARGEST_SAMPLE`].
    pub sample: usize,
    /// Bytes of all lines.
    pub bytes: usize,
    /// How long it may take; the source's own limits apply.
    pub timeout: Option<Duration>,
}

impl Default for SchemaAsk {
    /// 50 labels and types, 1,000 of each looked at, 32 KiB.
    fn default() -> Self {
        Self {
            matching: None,
            kinds: 50,
            skip: 0,
            names_only: false,
            sample: 1_000,
            bytes: 32 * 1024,
            timeout: None,
        }
    }
}

/// A schema in lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Schema {
    /// Nodes of the graph.
    pub node_count: i64,
    /// Relationships of the graph.
    pub relationship_count: i64,
    /// Labels that match.
    pub label_count: usize,
    /// Types of relationships that match.
    pub type_count: usize,
    /// `(:Service {name string!, tier integer?}) ~1.2k`
    pub nodes: Vec<String>,
    /// `(:Service)-[:DEPENDS_ON {since date}]->(:Service) ~1.2k`; of names only `[:DEPENDS_ON] ~1.2k`
    pub relationships: Vec<String>,
    /// `name RANGE :Service(name)`, with its state unless it is online.
    pub indexes: Vec<String>,
    /// `name UNIQUENESS :Service(name)`
    pub constraints: Vec<String>,
    /// Whether kinds, properties or rules are left out.
    pub is_truncated: bool,
    /// Whether only some of a kind were looked at, so that rare properties and pairs may be missing.
    pub is_sampled: bool,
}

impl Schema {
    /// How the marks are read.
    pub const LEGEND: &'static str =
        "! unique by a constraint, ? not on all, ~ rounded or estimated";
}

impl Neo4j {
    /// Describes the graph.
    ///
    /// # Errors
    /// Why the server did not answer.
    pub async fn schema(&self, ask: &SchemaAsk) -> Result<Schema, GraphError> {
        let limit = self.limit(ask.timeout);
        within(limit, async {
            let mut reading = self.reading(limit).await?;
            let schema = described(&mut reading, ask).await?;
            reading.close().await?;
            Ok(schema)
        })
        .await
    }
}

async fn described(reading: &mut Reading, ask: &SchemaAsk) -> Result<Schema, GraphError> {
    let mut describing = Describing {
        schema: Schema::default(),
        rules: Rules::of(reading).await?,
        matching: ask.matching.as_deref().unwrap_or_default().to_lowercase(),
        names_only: ask.names_only,
        sample: ask.sample.clamp(1, LARGEST_SAMPLE),
        room: ask.bytes,
    };
    let totals = ["(n)".to_owned(), "()-[n]->()".to_owned()];
    if let [nodes, relationships] = counted(reading, &totals).await?[..] {
        describing.schema.node_count = nodes;
        describing.schema.relationship_count = relationships;
    }
    let labels = names(reading, "db.labels() YIELD label AS name").await?;
    let types = names(
        reading,
        "db.relationshipTypes() YIELD relationshipType AS name",
    )
    .await?;
    let kinds = ask.kinds.clamp(1, MOST_KINDS);
    let (labels, types) = describing.choose(labels, types, ask.skip, kinds);
    describing.nodes(reading, &labels).await?;
    describing.relationships(reading, &types).await?;
    if !ask.names_only {
        describing.rules(&labels, &types);
    }
    Ok(describing.schema)
}

/// A schema on its way.
struct Describing {
    schema: Schema,
    rules: Rules,
    /// In lower case; empty for everything.
    matching: String,
    names_only: bool,
    sample: usize,
    /// Bytes that are left for lines.
    room: usize,
}

impl Describing {
    fn is_meant(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.matching)
    }

    /// The labels and types that are looked at.
    fn choose(
        &mut self,
        labels: Vec<String>,
        types: Vec<String>,
        skip: usize,
        kinds: usize,
    ) -> (Vec<String>, Vec<String>) {
        let labels: Vec<String> = labels
            .into_iter()
            .filter(|name| self.is_meant(name))
            .collect();
        self.schema.label_count = labels.len();
        self.schema.type_count = types.iter().filter(|name| self.is_meant(name)).count();
        // A type is also meant by the labels at its ends; where there are few, all are looked at for that.
        let looks_at_all = types.len() <= kinds && !labels.is_empty();
        let types: Vec<String> = types
            .into_iter()
            .filter(|name| looks_at_all || self.is_meant(name))
            .collect();
        let last = skip.saturating_add(kinds);
        self.schema.is_truncated = last < labels.len() || last < types.len();
        let shown = |names: Vec<String>| names.into_iter().skip(skip).take(kinds).collect();
        (shown(labels), shown(types))
    }

    async fn nodes(&mut self, reading: &mut Reading, labels: &[String]) -> Result<(), GraphError> {
        let counts: Vec<String> = labels
            .iter()
            .map(|label| format!("(:{})", quoted(label)))
            .collect();
        let counts = counted(reading, &counts).await?;
        for (label, count) in labels.iter().zip(counts) {
            let told = if self.names_only {
                String::new()
            } else {
                let pattern = format!("MATCH (n:{})", quoted(label));
                let sampled = properties(reading, &pattern, "n", count, self.sample).await?;
                self.note(&sampled);
                sampled.told(|property| self.rules.is_unique(label, property))
            };
            let line = format!("(:{}{told}) {}", plain(label), rounded(count));
            if !take(&mut self.schema.nodes, line, &mut self.room) {
                self.schema.is_truncated = true;
                break;
            }
        }
        Ok(())
    }

    async fn relationships(
        &mut self,
        reading: &mut Reading,
        types: &[String],
    ) -> Result<(), GraphError> {
        let counts: Vec<String> = types
            .iter()
            .map(|kind| format!("()-[:{}]->()", quoted(kind)))
            .collect();
        let counts = counted(reading, &counts).await?;
        for (kind, count) in types.iter().zip(counts) {
            if self.names_only {
                let line = format!("[:{}] {}", plain(kind), rounded(count));
                if self.is_meant(kind)
                    && !take(&mut self.schema.relationships, line, &mut self.room)
                {
                    self.schema.is_truncated = true;
                    return Ok(());
                }
                continue;
            }
            let pattern = format!("MATCH ()-[r:{}]->()", quoted(kind));
            let sampled = properties(reading, &pattern, "r", count, self.sample).await?;
            let told = sampled.told(|_| false);
            let looked_at = count.min(as_integer(self.sample)).max(1);
            for (from, to, found) in pairs(reading, kind, self.sample).await? {
                let mut names = from.iter().chain(&to).chain([kind]);
                if !names.any(|name| self.is_meant(name)) {
                    continue;
                }
                self.note(&sampled);
                let estimate = i128::from(found) * i128::from(count) / i128::from(looked_at);
                let size = rounded(i64::try_from(estimate).unwrap_or(i64::MAX));
                let size = if sampled.is_part {
                    format!("~{}", size.trim_start_matches('~'))
                } else {
                    size
                };
                let line = format!(
                    "({})-[:{}{told}]->({}) {size}",
                    ends(&from),
                    plain(kind),
                    ends(&to)
                );
                if !take(&mut self.schema.relationships, line, &mut self.room) {
                    self.schema.is_truncated = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Notes what is left out of what is told.
    fn note(&mut self, sampled: &Sampled) {
        self.schema.is_sampled |= sampled.is_part;
        self.schema.is_truncated |= sampled.is_truncated;
    }

    fn rules(&mut self, labels: &[String], types: &[String]) {
        let is_shown = |kind: &String| labels.contains(kind) || types.contains(kind);
        for (rules, lines) in [
            (&self.rules.indexes, &mut self.schema.indexes),
            (&self.rules.constraints, &mut self.schema.constraints),
        ] {
            for rule in rules {
                if !self.matching.is_empty() && !rule.kinds.iter().any(is_shown) {
                    continue;
                }
                if lines.len() >= MOST_RULES || !take(lines, rule.told(), &mut self.room) {
                    self.schema.is_truncated = true;
                    break;
                }
            }
        }
    }
}

fn take(lines: &mut Vec<String>, line: String, room: &mut usize) -> bool {
    let Some(left) = room.checked_sub(line.len() + 3) else {
        return false;
    };
    *room = left;
    lines.push(line);
    true
}

/// Names of a procedure's column `name`, in order.
async fn names(reading: &mut Reading, call: &str) -> Result<Vec<String>, GraphError> {
    let text = format!("CALL {call} RETURN name ORDER BY name");
    let records = reading.rows(text, Map::new()).await?;
    Ok(records
        .into_iter()
        .filter_map(|record| match record.into_iter().next() {
            Some(Value::String(name)) => Some(name),
            _ => None,
        })
        .collect())
}

/// The counts of patterns, such as `(:A)`, in few round trips; the server keeps them, so that nothing is looked at.
async fn counted(reading: &mut Reading, patterns: &[String]) -> Result<Vec<i64>, GraphError> {
    let mut counts = Vec::with_capacity(patterns.len());
    for together in patterns.chunks(TOGETHER) {
        let parts: Vec<String> = together
            .iter()
            .map(|pattern| format!("COUNT {{ {pattern} }}"))
            .collect();
        let text = format!("RETURN [{}]", parts.join(", "));
        let records = reading.rows(text, Map::new()).await?;
        let list = records.first().and_then(|record| record.first());
        let list = list.and_then(Value::as_list).unwrap_or_default();
        counts.extend(
            list.iter()
                .map(|count| count.as_integer().unwrap_or_default()),
        );
    }
    Ok(counts)
}

/// The properties of some of a kind.
struct Sampled {
    /// Name, types, whether not all have it.
    properties: Vec<(String, String, bool)>,
    is_part: bool,
    is_truncated: bool,
}

impl Sampled {
    fn told(&self, is_unique: impl Fn(&str) -> bool) -> String {
        if self.properties.is_empty() {
            return String::new();
        }
        let mut told: Vec<String> = self
            .properties
            .iter()
            .map(|(name, kind, is_optional)| {
                let optional = if *is_optional { "?" } else { "" };
                let unique = if is_unique(name) { "!" } else { "" };
                format!("{} {kind}{unique}{optional}", plain(name))
            })
            .collect();
        if self.is_truncated {
            told.push("…".to_owned());
        }
        format!(" {{{}}}", told.join(", "))
    }
}

async fn properties(
    reading: &mut Reading,
    pattern: &str,
    variable: &str,
    count: i64,
    sample: usize,
) -> Result<Sampled, GraphError> {
    let text = format!(
        "{pattern} WITH {variable} LIMIT $sample UNWIND keys({variable}) AS key \
         RETURN key, count(*), collect(DISTINCT valueType({variable}[key]))[..3] ORDER BY key LIMIT $most"
    );
    let parameters = vec![
        entry("sample", as_integer(sample)),
        entry("most", as_integer(MOST_PROPERTIES + 1)),
    ];
    let looked_at = count.min(as_integer(sample));
    let records = reading.rows(text, parameters).await?;
    let is_truncated = records.len() > MOST_PROPERTIES;
    let properties = records
        .iter()
        .take(MOST_PROPERTIES)
        .filter_map(|record| {
            let [name, having, kinds] = &record[..] else {
                return None;
            };
            let kinds: BTreeSet<String> = kinds
                .as_list()?
                .iter()
                .filter_map(Value::as_str)
                .map(short)
                .collect();
            let kinds: Vec<String> = kinds.into_iter().collect();
            let is_optional = having.as_integer()? < looked_at;
            Some((name.as_str()?.to_owned(), kinds.join("|"), is_optional))
        })
        .collect();
    Ok(Sampled {
        properties,
        is_part: count > looked_at,
        is_truncated,
    })
}

/// The labels at both ends of a type, most frequent first, with how many of the sample are between them.
async fn pairs(
    reading: &mut Reading,
    kind: &str,
    sample: usize,
) -> Result<Vec<(Vec<String>, Vec<String>, i64)>, GraphError> {
    let text = format!(
        "MATCH (a)-[r:{}]->(b) WITH a, b LIMIT $sample WITH labels(a)[..5] AS from, labels(b)[..5] AS to \
         RETURN from, to, count(*) AS count ORDER BY count DESC, from, to LIMIT $most",
        quoted(kind)
    );
    let parameters = vec![
        entry("sample", as_integer(sample)),
        entry("most", as_integer(MOST_PAIRS)),
    ];
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_list().unwrap_or_default();
        list.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let records = reading.rows(text, parameters).await?;
    Ok(records
        .iter()
        .filter_map(|record| match &record[..] {
            [from, to, Value::Integer(count)] => Some((texts(from), texts(to), *count)),
            _ => None,
        })
        .collect())
}

/// An index or a constraint.
struct Rule {
    name: String,
    kind: String,
    state: String,
    kinds: Vec<String>,
    properties: Vec<String>,
}

impl Rule {
    fn told(&self) -> String {
        let mut told = format!("{} {}", plain(&self.name), self.kind);
        if !self.kinds.is_empty() {
            let kinds: Vec<String> = self.kinds.iter().map(|kind| plain(kind)).collect();
            let properties: Vec<String> = self.properties.iter().map(|name| plain(name)).collect();
            // Writing to a string does not fail.
            let _ = write!(told, " :{}({})", kinds.join("|"), properties.join(", "));
        }
        if !self.state.is_empty() && self.state != "ONLINE" {
            let _ = write!(told, " {}", self.state);
        }
        told
    }
}

struct Rules {
    indexes: Vec<Rule>,
    constraints: Vec<Rule>,
    unique: BTreeMap<String, BTreeSet<String>>,
}

impl Rules {
    async fn of(reading: &mut Reading) -> Result<Self, GraphError> {
        let indexes = reading
            .rows(
                "SHOW INDEXES YIELD name, type, state, labelsOrTypes, properties \
                 WHERE type <> 'LOOKUP' RETURN name, type, state, labelsOrTypes, properties ORDER BY name",
                Map::new(),
            )
            .await?;
        let constraints = reading
            .rows(
                "SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties \
                 RETURN name, type, '', labelsOrTypes, properties ORDER BY name",
                Map::new(),
            )
            .await?;
        let constraints: Vec<Rule> = constraints
            .iter()
            .filter_map(|record| rule(record))
            .collect();
        let mut unique: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for rule in &constraints {
            let is_unique = rule.kind.contains("UNIQUE") || rule.kind.contains("KEY");
            if let ([kind], [property], true) = (&rule.kinds[..], &rule.properties[..], is_unique) {
                unique
                    .entry(kind.clone())
                    .or_default()
                    .insert(property.clone());
            }
        }
        Ok(Self {
            indexes: indexes.iter().filter_map(|record| rule(record)).collect(),
            constraints,
            unique,
        })
    }

    fn is_unique(&self, kind: &str, property: &str) -> bool {
        self.unique
            .get(kind)
            .is_some_and(|known| known.contains(property))
    }
}

fn rule(record: &[Value]) -> Option<Rule> {
    let [name, kind, state, kinds, properties] = record else {
        return None;
    };
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_list().unwrap_or_default();
        list.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    Some(Rule {
        name: name.as_str()?.to_owned(),
        kind: kind.as_str()?.to_owned(),
        state: state.as_str()?.to_owned(),
        kinds: texts(kinds),
        properties: texts(properties),
    })
}

fn ends(labels: &[String]) -> String {
    let labels: Vec<String> = labels.iter().map(|label| plain(label)).collect();
    if labels.is_empty() {
        return String::new();
    }
    format!(":{}", labels.join(":"))
}

/// A name as it can be written in a statement: in backticks where it needs them.
fn plain(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_plain {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// `LIST<INTEGER NOT NULL> NOT NULL` as `list<integer>`.
fn short(kind: &str) -> String {
    kind.replace(" NOT NULL", "").to_lowercase()
}

/// 1234 as `~1.2k`.
fn rounded(count: i64) -> String {
    let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    for (unit, name) in units {
        if count >= unit {
            let tenths = count / (unit / 10);
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if tenth == 0 || whole >= 100 {
                format!("~{whole}{name}")
            } else {
                format!("~{whole}.{tenth}{name}")
            };
        }
    }
    count.to_string()
}

fn as_integer(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short_and_names_can_be_written_back() {
        for (count, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "~1k"),
            (1_234, "~1.2k"),
            (123_456, "~123k"),
            (5_000_000, "~5M"),
        ] {
            assert_eq!(rounded(count), expected);
        }
        assert_eq!(short("LIST<INTEGER NOT NULL> NOT NULL"), "list<integer>");
        assert_eq!(plain("a b"), "`a b`");
        assert_eq!(plain("Service_1"), "Service_1");
    }
}
