//! Brings nodes and relationships into the graph by their keys: what is there is changed, what is not is made, all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map as Object, Value as Json};

use super::bolt::{Access, Map, TransactionOptions, Value, entry};
use super::client::{Neo4j, within};
use super::cypher::names::quoted;
use super::error::GraphError;
use super::parameter;
use super::pool::Session;
use super::write::finish;

/// Rows of one statement.
const BATCH: usize = 500;
/// Nodes and relationships of one call.
const MOST: usize = 10_000;
/// Missing ends of relationships that are told.
const TOLD: usize = 20;

/// A node by its key: `{"label": "Service", "key": {"name": "billing"}}`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeKey {
    /// Its label.
    pub label: String,
    /// Properties that tell it from all others of the label; none of them null.
    pub key: Object<String, Json>,
}

/// A node and what it shall have.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its label.
    pub label: String,
    /// Properties that tell it from all others of the label; none of them null.
    pub key: Object<String, Json>,
    /// Properties to set; null takes one away, what is not named stays.
    #[serde(default)]
    pub props: Object<String, Json>,
}

/// A relationship and what it shall have.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relationship {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it starts.
    pub from: NodeKey,
    /// Where it ends.
    pub to: NodeKey,
    /// Properties that tell it from others of the type between the same nodes; without, there is one.
    #[serde(default)]
    pub key: Object<String, Json>,
    /// Properties to set; null takes one away, what is not named stays.
    #[serde(default)]
    pub props: Object<String, Json>,
}

/// What shall be in the graph.
#[derive(Debug, Clone, Copy)]
pub struct Upsert<'a> {
    /// Nodes, which are there before the relationships.
    pub nodes: &'a [Node],
    /// Relationships.
    pub relationships: &'a [Relationship],
    /// How long it may take; the source's own limits apply.
    pub timeout: Option<Duration>,
    /// Whether it is rolled back, and only told what it would do.
    pub dry_run: bool,
}

/// How many of a kind were made, and how many were there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Made.
    pub created: u64,
    /// Were there, or named before in the same call.
    pub matched: u64,
}

/// What was brought in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Upserted {
    /// Nodes.
    pub nodes: Count,
    /// Relationships.
    pub relationships: Count,
    /// Whether it is in the database now.
    pub is_committed: bool,
    /// Keys that no constraint holds unique, so that two calls at once could each make a node.
    pub notices: Vec<String>,
}

/// Rows that one statement takes: the same names all over.
type Groups = BTreeMap<String, Vec<Value>>;

impl Neo4j {
    /// Brings nodes and relationships in, in one transaction.
    ///
    /// # Errors
    /// Why nothing was changed; [`GraphError::Unknown`] if that is not known.
    pub async fn upsert(&self, upsert: Upsert<'_>) -> Result<Upserted, GraphError> {
        self.check_writable()?;
        let count = upsert.nodes.len() + upsert.relationships.len();
        if count == 0 || count > MOST {
            return Err(GraphError::Argument(format!(
                "there are {count} nodes and relationships; a call takes 1 to {MOST}"
            )));
        }
        let nodes = node_groups(upsert.nodes)?;
        let relationships = relationship_groups(upsert.relationships)?;
        let limit = self.limit(upsert.timeout);
        let (session, upserted) = within(limit, async {
            let mut session = self.session().await?;
            let options = session.options(Access::Write, limit);
            let notices = unguarded(&mut session, &options, upsert.nodes).await?;
            let connection = session.connection()?;
            connection.begin(&options).await.map_err(GraphError::of)?;
            let nodes = merge(&mut session, &options, nodes, "nodes-created").await?;
            for (statement, rows) in &relationships {
                check_ends(&mut session, &options, statement, rows).await?;
            }
            let made = "relationships-created";
            let relationships = merge(&mut session, &options, relationships, made).await?;
            let upserted = Upserted {
                nodes,
                relationships,
                is_committed: !upsert.dry_run,
                notices,
            };
            Ok((session, upserted))
        })
        .await?;
        finish(session, upsert.dry_run).await?;
        Ok(upserted)
    }
}

/// Runs the statements in batches; a row that comes back more than once has a key of several.
async fn merge(
    session: &mut Session,
    options: &TransactionOptions,
    groups: Groups,
    made: &str,
) -> Result<Count, GraphError> {
    let mut count = Count::default();
    for (statement, rows) in groups {
        for rows in rows.chunks(BATCH) {
            let parameters = vec![entry("rows", Value::List(rows.to_vec()))];
            let batch = session
                .run(statement.clone(), parameters, options, 1)
                .await?;
            let merged = batch.records.first().and_then(|record| record.first());
            let merged = merged.and_then(Value::as_integer).unwrap_or_default();
            let (merged, sent) = (merged.unsigned_abs(), rows.len() as u64);
            if merged != sent {
                let pattern = statement.split(" SET ").next().unwrap_or_default();
                return Err(GraphError::Argument(format!(
                    "a key is that of several nodes or relationships, and nothing was changed; in: {pattern}"
                )));
            }
            let counters = batch.summary.unwrap_or_default().counters;
            let created = counters.get(made).copied().unwrap_or_default();
            count.created += created.unsigned_abs();
            count.matched += sent.saturating_sub(created.unsigned_abs());
        }
    }
    Ok(count)
}

/// Looks for the ends of relationships, which must all be there.
async fn check_ends(
    session: &mut Session,
    options: &TransactionOptions,
    statement: &str,
    rows: &[Value],
) -> Result<(), GraphError> {
    // Between the rows and the relationship stand the two patterns of the ends.
    let patterns = statement
        .strip_prefix(UNWIND)
        .and_then(|rest| rest.split_once(" MERGE "))
        .map_or("", |(patterns, _)| patterns);
    let patterns = patterns.replace(" MATCH ", " OPTIONAL MATCH ");
    let look = format!(
        "{UNWIND}{patterns} WITH row, a, b WHERE a IS NULL OR b IS NULL \
         RETURN CASE WHEN a IS NULL THEN row.from_text ELSE row.to_text END"
    );
    let mut missing = BTreeSet::new();
    for rows in rows.chunks(BATCH) {
        let parameters = vec![entry("rows", Value::List(rows.to_vec()))];
        let found = session
            .rows(look.clone(), parameters, options, u32::MAX)
            .await?;
        missing.extend(found.iter().filter_map(|record| {
            let text = record.first()?.as_str()?;
            Some(text.to_owned())
        }));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(GraphError::MissingEnds {
        count: missing.len(),
        missing: missing.into_iter().take(TOLD).collect(),
    })
}

/// Keys of the nodes that no constraint holds unique.
async fn unguarded(
    session: &mut Session,
    options: &TransactionOptions,
    nodes: &[Node],
) -> Result<Vec<String>, GraphError> {
    let keys: BTreeSet<(&str, Vec<&str>)> = nodes
        .iter()
        .map(|node| {
            let names = node.key.keys().map(String::as_str).collect();
            (node.label.as_str(), names)
        })
        .collect();
    let guarded = session
        .rows(
            "SHOW CONSTRAINTS YIELD type, labelsOrTypes, properties \
             WHERE type IN ['UNIQUENESS', 'NODE_KEY', 'NODE_PROPERTY_UNIQUENESS'] RETURN labelsOrTypes[0], properties",
            Map::new(),
            options,
            u32::MAX,
        )
        .await?;
    let is_guarded = |label: &str, names: &[&str]| {
        guarded.iter().any(|record| {
            let [found, properties] = &record[..] else {
                return false;
            };
            let properties = properties.as_list().unwrap_or_default();
            found.as_str() == Some(label)
                && properties
                    .iter()
                    .all(|property| property.as_str().is_some_and(|name| names.contains(&name)))
        })
    };
    Ok(keys
        .into_iter()
        .filter(|(label, names)| !is_guarded(label, names))
        .take(TOLD)
        .map(|(label, names)| {
            format!(
                "no constraint holds (:{label} {{{}}}) unique: it is looked for slowly, and two calls at once could make it twice",
                names.join(", ")
            )
        })
        .collect())
}

const UNWIND: &str = "UNWIND $rows AS row";

fn node_groups(nodes: &[Node]) -> Result<Groups, GraphError> {
    let mut groups = Groups::new();
    for node in nodes {
        check(&node.label, &node.key, true)?;
        check_props(&node.key, &node.props)?;
        let pattern = pattern("n", &node.label, &node.key, "row.key");
        let statement = format!("{UNWIND} MERGE {pattern} SET n += row.props RETURN count(n)");
        let row = vec![
            ("key".to_owned(), object(&node.key)?),
            ("props".to_owned(), object(&node.props)?),
        ];
        groups.entry(statement).or_default().push(Value::Map(row));
    }
    Ok(groups)
}

fn relationship_groups(relationships: &[Relationship]) -> Result<Groups, GraphError> {
    let mut groups = Groups::new();
    for relationship in relationships {
        let Relationship {
            kind,
            from,
            to,
            key,
            props,
        } = relationship;
        check(&from.label, &from.key, true)?;
        check(&to.label, &to.key, true)?;
        check(kind, key, false)?;
        check_props(key, props)?;
        let statement = format!(
            "{UNWIND} MATCH {} MATCH {} MERGE (a)-[r:{}{}]->(b) SET r += row.props RETURN count(r)",
            pattern("a", &from.label, &from.key, "row.from"),
            pattern("b", &to.label, &to.key, "row.to"),
            quoted(kind),
            properties(key, "row.key"),
        );
        let row = vec![
            ("from".to_owned(), object(&from.key)?),
            ("to".to_owned(), object(&to.key)?),
            ("key".to_owned(), object(key)?),
            ("props".to_owned(), object(props)?),
            entry("from_text", told(from)),
            entry("to_text", told(to)),
        ];
        groups.entry(statement).or_default().push(Value::Map(row));
    }
    Ok(groups)
}

/// `` (n:`Label` {`key`: row.key.`key`}) ``
fn pattern(variable: &str, label: &str, key: &Object<String, Json>, place: &str) -> String {
    format!("({variable}:{}{})", quoted(label), properties(key, place))
}

fn properties(key: &Object<String, Json>, place: &str) -> String {
    if key.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = key
        .keys()
        .map(|name| format!("{0}: {place}.{0}", quoted(name)))
        .collect();
    format!(" {{{}}}", pairs.join(", "))
}

fn check(name: &str, key: &Object<String, Json>, needs_key: bool) -> Result<(), GraphError> {
    if name.is_empty() || key.contains_key("") {
        return Err(GraphError::Argument(
            "a label, a type or a property has an empty name".to_owned(),
        ));
    }
    if needs_key && key.is_empty() {
        return Err(GraphError::Argument(format!(
            "a node :{name} has no key; name at least one property that tells it from others"
        )));
    }
    let scalar = |value: &Json| !matches!(value, Json::Null | Json::Array(_) | Json::Object(_));
    match key.iter().find(|(_, value)| !scalar(value)) {
        None => Ok(()),
        Some((property, _)) => Err(GraphError::Argument(format!(
            "the key property `{property}` of :{name} is no text, number or boolean"
        ))),
    }
}

fn check_props(key: &Object<String, Json>, props: &Object<String, Json>) -> Result<(), GraphError> {
    for (name, value) in props {
        if name.is_empty() {
            return check("", key, false);
        }
        if key.get(name).is_some_and(|known| known != value) {
            return Err(GraphError::Argument(format!(
                "the property `{name}` has one value in the key and another in props"
            )));
        }
        let plain = |value: &Json| !value.is_object() && !value.is_array();
        let can_be_kept = match value {
            Json::Object(_) => false,
            Json::Array(elements) => elements
                .iter()
                .all(|element| plain(element) && !element.is_null()),
            _ => true,
        };
        if !can_be_kept {
            return Err(GraphError::Argument(format!(
                "the property `{name}` is an object or a list of more than plain values, which a graph does not keep"
            )));
        }
    }
    Ok(())
}

fn object(entries: &Object<String, Json>) -> Result<Value, GraphError> {
    Ok(Value::Map(parameter::map(entries)?))
}

fn told(node: &NodeKey) -> String {
    let pairs: Vec<String> = node
        .key
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let text = format!("(:{} {{{}}})", node.label, pairs.join(", "));
    shared::budget::head(&text, 200).text.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(value: Json) -> anyhow::Result<Node> {
        Ok(serde_json::from_value(value)?)
    }

    #[test]
    fn names_stay_names_and_values_parameters() -> anyhow::Result<()> {
        let hostile = node(json!({
            "label": "A`) DETACH DELETE n //\\u0060",
            "key": { "k`}": "v' }) //" },
        }))?;
        let groups = node_groups(&[hostile])?;
        let (statement, rows) = groups.iter().next().ok_or(anyhow::anyhow!("no group"))?;
        assert_eq!(
            statement,
            "UNWIND $rows AS row MERGE (n:`A``) DETACH DELETE n //\\u005cu0060` {`k``}`: row.key.`k``}`}) \
             SET n += row.props RETURN count(n)"
        );
        assert_eq!(rows.len(), 1);
        Ok(())
    }

    #[test]
    fn what_a_graph_cannot_keep_is_refused_before_it_is_sent() -> anyhow::Result<()> {
        for wrong in [
            json!({ "label": "", "key": { "a": 1 } }),
            json!({ "label": "A", "key": {} }),
            json!({ "label": "A", "key": { "a": null } }),
            json!({ "label": "A", "key": { "a": [1] } }),
            json!({ "label": "A", "key": { "": 1 } }),
            json!({ "label": "A", "key": { "a": 1 }, "props": { "a": 2 } }),
            json!({ "label": "A", "key": { "a": 1 }, "props": { "b": { "c": 1 } } }),
            json!({ "label": "A", "key": { "a": 1 }, "props": { "b": [1, null] } }),
            json!({ "label": "A", "key": { "a": 1 }, "props": { "": 1 } }),
        ] {
            let refused = node_groups(&[node(wrong.clone())?]);
            assert!(matches!(refused, Err(GraphError::Argument(_))), "{wrong}");
        }
        let same =
            json!({ "label": "A", "key": { "a": 1 }, "props": { "a": 1, "b": [1], "c": null } });
        assert!(node_groups(&[node(same)?]).is_ok());
        assert!(node(json!({ "label": "A", "key": {}, "properties": {} })).is_err());
        Ok(())
    }
}
