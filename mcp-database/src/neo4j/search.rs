//! Finds nodes by their text or by the nearness of their vectors, and what stands around them.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;

use super::bolt::{Map, Value, entry, get};
use super::cell;
use super::client::{Neo4j, Reading, within};
use super::error::GraphError;
use super::walk::{Cut, Direction, Reach, Reached, Start, Walk, find, reached};

/// Most hits.
pub const MOST_HITS: usize = 100;
/// How far around a hit may be looked.
pub const MOST_HOPS: usize = 2;
/// Nodes around the hits.
const MOST_AROUND: usize = 500;
/// Relationships around the hits that are looked at.
const MOST_RELATIONSHIPS: usize = 2_000;
/// How many more neighbours an index is asked for where not all of them count.
const WIDER: usize = 4;

/// What is looked for.
#[derive(Debug, Clone)]
pub enum Sought {
    /// Words, by a full text index; taken as they are, without operators.
    Text(String),
    /// An expression in the language of Lucene, by a full text index.
    Lucene(String),
    /// A vector, by a vector index.
    Vector(Vec<f64>),
    /// What is like an existing node, by a vector index that it is in.
    Like(Start),
}

/// A search.
#[derive(Debug, Clone)]
pub struct Search {
    /// What is looked for.
    pub sought: Sought,
    /// The index; the only one of its kind that has the label, if none is given.
    pub index: Option<String>,
    /// The label that hits have.
    pub label: Option<String>,
    /// How many hits, at most [`MOST_HITS`].
    pub hits: usize,
    /// How far around the hits is looked, at most [`MOST_HOPS`].
    pub hops: usize,
    /// How many nodes around them, at most 500.
    pub around: usize,
    /// How long it may take; the source's own limits apply.
    pub timeout: Option<Duration>,
}

/// A node that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// How well it fits; larger is better.
    pub score: Json,
    /// The node as `{id, labels, props}`.
    pub node: Json,
}

/// A relationship around the hits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Element id of where it starts.
    pub from: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Element id of where it ends.
    pub to: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchResult {
    /// The index that was asked.
    pub index: String,
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// Nodes around them, nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub around: Vec<Reached>,
    /// Relationships between hits and nodes around them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Why not everything around them is there, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
    /// What limits the result: a filter that leaves fewer hits, an index that is not ready.
    pub notices: Vec<String>,
}

/// An index that can be asked.
struct Index {
    name: String,
    labels: Vec<String>,
    property: String,
    dimensions: Option<i64>,
    is_online: bool,
}

impl Neo4j {
    /// Searches.
    ///
    /// # Errors
    /// No index that fits, a vector that does not, or why the server did not answer.
    pub async fn search(&self, search: &Search) -> Result<SearchResult, GraphError> {
        let limit = self.limit(search.timeout);
        within(limit, async {
            let mut reading = self.reading(limit).await?;
            let found = searched(&mut reading, search).await?;
            reading.close().await?;
            Ok(found)
        })
        .await
    }
}

async fn searched(reading: &mut Reading, search: &Search) -> Result<SearchResult, GraphError> {
    let kind = match search.sought {
        Sought::Text(_) | Sought::Lucene(_) => "FULLTEXT",
        Sought::Vector(_) | Sought::Like(_) => "VECTOR",
    };
    let index = index(reading, kind, search).await?;
    let wanted = search.hits.clamp(1, MOST_HITS);
    // An index knows nothing of a filter; more is asked for where some of it will not count.
    let is_filtered = search
        .label
        .as_ref()
        .is_some_and(|label| index.labels != [label.clone()]);
    let asked = if is_filtered { wanted * WIDER } else { wanted };
    let mut parameters = vec![
        entry("index", index.name.as_str()),
        entry("asked", count(asked)),
        entry("wanted", count(wanted)),
        entry(
            "label",
            search.label.as_deref().map_or(Value::Null, Value::from),
        ),
    ];
    let call = match &search.sought {
        Sought::Text(text) => full_text(&mut parameters, escaped(text))?,
        Sought::Lucene(text) => full_text(&mut parameters, text.clone())?,
        Sought::Vector(vector) => nearest(&mut parameters, vector, &index)?,
        Sought::Like(start) => like(reading, &mut parameters, start, &index).await?,
    };
    let text = format!(
        "{call} YIELD node, score WHERE ($label IS NULL OR $label IN labels(node)) \
         AND ($like IS NULL OR elementId(node) <> $like) \
         RETURN score, node, elementId(node), labels(node), {} ORDER BY score DESC LIMIT $wanted",
        super::walk::name_of("node")
    );
    if super::bolt::get(&parameters, "like").is_none() {
        parameters.push(entry("like", Value::Null));
    }
    let records = reading.rows(text, parameters).await?;
    let (mut hits, mut starts) = (Vec::new(), Vec::new());
    for mut record in records {
        let behind = record.split_off(2.min(record.len()));
        let [score, node] = &record[..] else {
            continue;
        };
        hits.push(Hit {
            score: cell::cell(score, false).into_value(),
            node: cell::cell(node, false).into_value(),
        });
        starts.extend(reached(behind, 0));
    }
    let mut notices = Vec::new();
    if !index.is_online {
        notices.push(format!("the index `{}` is still being filled", index.name));
    }
    if is_filtered && hits.len() < wanted {
        notices.push(format!(
            "of the {asked} best of the index only {} have the label",
            hits.len()
        ));
    }
    let mut found = SearchResult {
        index: index.name,
        hits,
        around: Vec::new(),
        links: Vec::new(),
        cut: None,
        notices,
    };
    let hops = search.hops.min(MOST_HOPS);
    if hops > 0 && !starts.is_empty() {
        around(reading, &mut found, starts, hops, search.around).await?;
    }
    Ok(found)
}

async fn around(
    reading: &mut Reading,
    found: &mut SearchResult,
    starts: Vec<Reached>,
    hops: usize,
    most: usize,
) -> Result<(), GraphError> {
    let hits = starts.len();
    let reach = Reach {
        depth: hops,
        nodes: hits + most.clamp(1, MOST_AROUND),
        relationships: MOST_RELATIONSHIPS,
    };
    let walk = Walk::from(reading, starts, Direction::Both, &[], reach).await?;
    let id = |place: usize| walk.nodes[place].id.clone();
    found.links = walk
        .edges
        .iter()
        .map(|edge| Link {
            from: id(edge.from),
            kind: edge.kind.clone(),
            to: id(edge.to),
        })
        .collect();
    found.around = walk.nodes[hits..].to_vec();
    // That there is more behind the last hop is what was asked for.
    found.cut = walk
        .cut
        .filter(|cut| cut.reason != super::walk::CutReason::Depth);
    Ok(())
}

/// The index that is meant, or the only one there is.
async fn index(reading: &mut Reading, kind: &str, search: &Search) -> Result<Index, GraphError> {
    let text = "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, options, state \
        WHERE type = $type AND entityType = 'NODE' RETURN name, labelsOrTypes, properties, options, state";
    let records = reading.rows(text, vec![entry("type", kind)]).await?;
    let all: Vec<Index> = records
        .iter()
        .filter_map(|record| as_index(record))
        .collect();
    let names = || {
        let names: Vec<&str> = all
            .iter()
            .take(20)
            .map(|index| index.name.as_str())
            .collect();
        if names.is_empty() {
            "there is none".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        }
    };
    let what = if kind == "VECTOR" {
        "vector"
    } else {
        "full text"
    };
    if let Some(name) = &search.index {
        let told = format!("`{name}` is no {what} index of nodes; {}", names());
        let mut all = all;
        let place = all.iter().position(|index| index.name == *name);
        return place
            .map(|place| all.swap_remove(place))
            .ok_or(GraphError::Argument(told));
    }
    let told = names();
    let label = search.label.as_ref();
    let mut fitting = all
        .into_iter()
        .filter(|index| label.is_none_or(|label| index.labels.contains(label)));
    match (fitting.next(), fitting.next()) {
        (Some(index), None) => Ok(index),
        (Some(_), Some(_)) => Err(GraphError::Argument(format!(
            "more than one {what} index fits; name one in index: {told}"
        ))),
        (None, _) => Err(GraphError::Argument(format!(
            "no {what} index fits{}; {told}",
            label
                .map(|label| format!(" the label `{label}`"))
                .unwrap_or_default()
        ))),
    }
}

fn as_index(record: &[Value]) -> Option<Index> {
    let [name, labels, properties, options, state] = record else {
        return None;
    };
    let config = get(options.as_map().unwrap_or_default(), "indexConfig")
        .and_then(Value::as_map)
        .unwrap_or_default();
    let texts = |list: &Value| -> Vec<String> {
        let list = list.as_list().unwrap_or_default();
        list.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    Some(Index {
        name: name.as_str()?.to_owned(),
        labels: texts(labels),
        property: texts(properties).into_iter().next().unwrap_or_default(),
        dimensions: get(config, "vector.dimensions").and_then(Value::as_integer),
        is_online: state.as_str() == Some("ONLINE"),
    })
}

fn full_text(parameters: &mut Map, text: String) -> Result<String, GraphError> {
    if text.trim().is_empty() {
        return Err(GraphError::Argument(
            "the text to look for is empty".to_owned(),
        ));
    }
    parameters.push(entry("text", text));
    Ok("CALL db.index.fulltext.queryNodes($index, $text, {limit: $asked})".to_owned())
}

fn nearest(parameters: &mut Map, vector: &[f64], index: &Index) -> Result<String, GraphError> {
    let wrong = |reason: String| Err(GraphError::Argument(reason));
    if let Some(dimensions) = index.dimensions
        && dimensions != count(vector.len())
    {
        return wrong(format!(
            "the vector has {} dimensions, and those of the index `{}` have {dimensions}",
            vector.len(),
            index.name
        ));
    }
    if let Some(place) = vector.iter().position(|number| !number.is_finite()) {
        return wrong(format!("the number at {} of the vector is none", place + 1));
    }
    if vector.iter().all(|number| *number == 0.0) {
        return wrong("a vector of zeros is near to nothing".to_owned());
    }
    parameters.push(entry("vector", vector.to_vec()));
    Ok("CALL db.index.vector.queryNodes($index, $asked, $vector)".to_owned())
}

/// The vector stays at the server: it is that of a node there.
async fn like(
    reading: &mut Reading,
    parameters: &mut Map,
    start: &Start,
    index: &Index,
) -> Result<String, GraphError> {
    let start = find(reading, start).await?;
    let text = "MATCH (n) WHERE elementId(n) = $id RETURN n[$property] IS NULL";
    let known = vec![
        entry("id", start.id.as_str()),
        entry("property", index.property.as_str()),
    ];
    let has_none = reading.rows(text, known).await?;
    if has_none.first().and_then(|record| record.first()) != Some(&Value::Boolean(false)) {
        return Err(GraphError::Argument(format!(
            "the node `{}` has no vector in `{}`, of which the index `{}` is",
            start.name, index.property, index.name
        )));
    }
    parameters.push(entry("like", start.id));
    parameters.push(entry("property", index.property.as_str()));
    // One more, since the node is the nearest to itself.
    Ok("MATCH (like) WHERE elementId(like) = $like \
        CALL db.index.vector.queryNodes($index, $asked + 1, like[$property])"
        .to_owned())
}

/// A text of which nothing is an operator of Lucene.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !escaped.is_empty() {
            escaped.push(' ');
        }
        // These are operators only in capitals.
        if matches!(word, "AND" | "OR" | "NOT" | "TO") {
            escaped.push_str(&word.to_lowercase());
            continue;
        }
        for character in word.chars() {
            if "+-&|!(){}[]^\"~*?:\\/<>=".contains(character) {
                escaped.push('\\');
            }
            escaped.push(character);
        }
    }
    escaped
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_no_operators() {
        assert_eq!(escaped("a AND (b:c*)  x/y"), "a and \\(b\\:c\\*\\) x\\/y");
        assert_eq!(escaped("\"open ~2"), "\\\"open \\~2");
    }
}
