//! Search by text and by vectors, where the server has the module for it.

pub mod filter;

use std::collections::HashMap;

use redis::{Cmd, Value, cmd};

use super::connection::{Deadline, Line};
use super::error::{Error, Refusal};
use super::value::{self, Blob, Room, elements, integer, member};
use super::{Call, Redis};
use crate::table::{Answer, Budget, Cell, Column, Rows};
use filter::{Filter, Parameters};

/// Hits of one search.
pub const MOST_HITS: usize = 1_000;
/// What the distance is called in an answer of the server.
const DISTANCE: &str = "__distance";
/// How fast a hit counts less the further behind it stands, where two lists of hits become one.
const RANK_CONSTANT: f64 = 60.0;

/// A search that cannot be made.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SearchError {
    /// The server lacks the module.
    #[error("this server has no search module (RediSearch), so there is nothing to search with")]
    NotSupported,
    /// No such index.
    #[error("there is no index `{index}`; there are: {}", known.join(", "))]
    Index {
        /// As asked.
        index: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// The index has keys that are not this source's.
    #[error(
        "the index `{index}` is about keys that do not begin with `{prefix}`, as every key of this source must"
    )]
    OutsidePrefix {
        /// The index.
        index: String,
        /// The source's prefix.
        prefix: String,
    },
    /// No such field, or one of another type.
    #[error("the index has no {wanted} field `{field}`; it has: {}", known.join(", "))]
    Field {
        /// As asked.
        field: String,
        /// Which type it would need.
        wanted: &'static str,
        /// The fields of that type.
        known: Vec<String>,
    },
    /// Several vectors to choose from.
    #[error("the index has several vectors; name one of: {}", .0.join(", "))]
    Which(Vec<String>),
    /// Another number of numbers than the index has.
    #[error("the vector has {given} numbers, and the field `{field}` has {wanted}")]
    Dimensions {
        /// The field.
        field: String,
        /// Numbers of the field.
        wanted: usize,
        /// Numbers of the vector.
        given: usize,
    },
    /// A number that is none.
    #[error("the number {0} of the vector is not finite")]
    NotFinite(usize),
    /// A vector field of a type that is not searched here.
    #[error("the field `{field}` has vectors of {kind}; only FLOAT32 and FLOAT64 are searched")]
    VectorType {
        /// The field.
        field: String,
        /// Its type.
        kind: String,
    },
    /// A key that is to be the example, without a vector.
    #[error("the key `{key}` has no vector in `{field}`")]
    NoExample {
        /// The key.
        key: String,
        /// Where its vector would be.
        field: String,
    },
    /// Nothing to search for, or too much.
    #[error("{0}")]
    Query(&'static str),
    /// A filter that cannot be.
    #[error("{0}")]
    Filter(String),
}

/// What is searched for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Search {
    /// The index.
    pub index: String,
    /// Words that a hit has.
    pub text: Option<String>,
    /// What a hit is near to.
    pub vector: Option<Vec<f32>>,
    /// The same, as the vector of this key.
    pub like_key: Option<Blob>,
    /// The vector field; need not be said where there is one only.
    pub vector_field: Option<String>,
    /// What every hit fulfils.
    pub filter: Option<Filter>,
    /// Hits at most.
    pub count: usize,
}

/// What a search found.
#[derive(Debug)]
pub struct Found {
    /// A row for each hit: `key`, `score`, `fields` (those of the index but its vectors). `score` is a distance (less is nearer) by
    /// vector, a relevance (more is better) by text, and by both what the two ranks together come to (more is better).
    pub answer: Answer,
    /// Hits that the server knows of.
    pub total: i64,
}

/// An index as far as a search has to know it.
struct Index {
    fields: Vec<Field>,
    prefixes: Vec<Blob>,
    is_json: bool,
}

struct Field {
    /// What it is called in queries.
    name: String,
    /// Where it is in a key: a field of a hash, or a path.
    path: String,
    kind: String,
    dimensions: usize,
    numbers: String,
}

/// A hit before it is shown.
struct Hit {
    key: Blob,
    score: Option<f64>,
    fields: Value,
}

impl Redis {
    /// The names of the indexes.
    ///
    /// # Errors
    /// [`SearchError::NotSupported`] where the server has no search module.
    pub async fn indexes(&self, call: Call) -> Result<Vec<String>, Error> {
        let deadline = Deadline::after(call.timeout);
        let told = self.lines().ask(&cmd("FT._LIST"), deadline).await;
        let told = told.map_err(supported)?;
        let names = elements(told).unwrap_or_default();
        Ok(names.into_iter().filter_map(value::text).collect())
    }

    /// Searches an index by text, by a vector, or by both.
    ///
    /// # Errors
    /// [`Error::Search`] for what cannot be searched; what the server says.
    pub async fn search(&self, search: &Search, call: Call) -> Result<Found, Error> {
        let deadline = Deadline::after(call.timeout);
        let count = search.count;
        if !(1..=MOST_HITS).contains(&count) {
            return Err(SearchError::Query("a search gives 1 to 1000 hits").into());
        }
        if search.vector.is_some() && search.like_key.is_some() {
            return Err(SearchError::Query("give a vector or a key to be like, not both").into());
        }
        let index = self.index(&search.index, call, deadline).await?;
        let mut line = self.lines().line(deadline).await?;
        let outcome = searched(self, &mut line, search, &index, deadline).await;
        if !outcome.as_ref().is_err_and(Error::is_final) {
            line.release();
        }
        let (hits, total) = outcome?;
        Ok(Found {
            answer: show(hits, call.budget),
            total,
        })
    }

    async fn index(&self, name: &str, call: Call, deadline: Deadline) -> Result<Index, Error> {
        let mut ask = cmd("FT.INFO");
        ask.arg(name);
        let told = match self.lines().ask(&ask, deadline).await {
            Ok(told) => told,
            Err(error @ Error::Server { .. }) => {
                let error = supported(error);
                if !matches!(
                    error,
                    Error::Server {
                        refusal: Refusal::Other,
                        ..
                    }
                ) {
                    return Err(error);
                }
                return Err(SearchError::Index {
                    index: name.to_owned(),
                    known: self.indexes(call).await?,
                }
                .into());
            }
            Err(error) => return Err(error),
        };
        let index = Index::of(&told);
        // What is searched shows keys; an index of more than the source's would show others'.
        if let Some(prefix) = self.prefix()
            && (index.prefixes.is_empty()
                || !index
                    .prefixes
                    .iter()
                    .all(|own| own.0.starts_with(&prefix.0)))
        {
            return Err(SearchError::OutsidePrefix {
                index: name.to_owned(),
                prefix: prefix.for_message(),
            }
            .into());
        }
        Ok(index)
    }
}

fn supported(error: Error) -> Error {
    if error.refusal() == Some(Refusal::UnknownCommand) {
        SearchError::NotSupported.into()
    } else {
        error
    }
}

async fn searched(
    redis: &Redis,
    line: &mut Line,
    search: &Search,
    index: &Index,
    deadline: Deadline,
) -> Result<(Vec<Hit>, i64), Error> {
    let near = match (&search.vector, &search.like_key) {
        (None, None) => None,
        (vector, example) => {
            let field = index.vector(search.vector_field.as_deref())?;
            let blob = match (vector, example) {
                (Some(vector), _) => field.blob(vector)?,
                (None, Some(key)) => {
                    redis.check_key(key)?;
                    field.example(line, key, index.is_json, deadline).await?
                }
                (None, None) => Vec::new(),
            };
            Some((field, blob))
        }
    };
    let words = search.text.as_deref().map(filter::words);
    if words.as_ref().is_some_and(Vec::is_empty) {
        return Err(SearchError::Query("the text has no words to search for").into());
    }
    if near.is_none() && words.is_none() && search.filter.is_none() {
        return Err(
            SearchError::Query("give a text, a vector, a key to be like, or a filter").into(),
        );
    }
    let ask = |words: Option<&[String]>, near: Option<&(&Field, Vec<u8>)>| {
        query(search, index, words, near, deadline)
    };
    let answer = match (&words, &near) {
        (Some(words), Some(near)) => {
            let by_text = line.ask(&ask(Some(words), None)?, deadline).await?;
            let by_vector = line.ask(&ask(None, Some(near))?, deadline).await?;
            let (by_text, by_vector) = (hits(by_text, false), hits(by_vector, true));
            let total = by_text.1.max(by_vector.1);
            (fuse(by_text.0, by_vector.0, search.count), total)
        }
        (words, near) => {
            let ask = ask(words.as_deref(), near.as_ref())?;
            hits(line.ask(&ask, deadline).await?, near.is_some())
        }
    };
    Ok(answer)
}

/// One search by text or by a vector. Whatever the caller gave is a parameter, but names of fields, which the index has.
fn query(
    search: &Search,
    index: &Index,
    words: Option<&[String]>,
    near: Option<&(&Field, Vec<u8>)>,
    deadline: Deadline,
) -> Result<Cmd, SearchError> {
    let mut parameters = Parameters::default();
    let mut parts = Vec::new();
    if let Some(filter) = &search.filter {
        parts.push(filter.query(&|name, kind| index.field(name, kind), &mut parameters, 0)?);
    }
    if let Some(words) = words {
        let words: Vec<String> = words
            .iter()
            .map(|word| parameters.of(word.as_bytes()))
            .collect();
        parts.push(format!("({})", words.join(" ")));
    }
    let mut query = if parts.is_empty() {
        "*".to_owned()
    } else {
        format!("({})", parts.join(" "))
    };
    if let Some((field, blob)) = near {
        let blob = parameters.of(blob);
        let name = filter::name(&field.name);
        query = format!(
            "{query}=>[KNN {} @{name} {blob} AS {DISTANCE}]",
            search.count
        );
    }
    let mut ask = cmd("FT.SEARCH");
    ask.arg(&search.index).arg(query);
    if near.is_none() {
        ask.arg("WITHSCORES");
    }
    let shown: Vec<&Field> = index
        .fields
        .iter()
        .filter(|field| field.kind != "VECTOR")
        .collect();
    ask.arg("RETURN")
        .arg(shown.len() + usize::from(near.is_some()));
    for field in shown {
        ask.arg(&field.name);
    }
    if near.is_some() {
        ask.arg(DISTANCE).arg("SORTBY").arg(DISTANCE);
    }
    ask.arg("LIMIT").arg(0).arg(search.count);
    let limit = u64::try_from(deadline.rest().as_millis()).unwrap_or(u64::MAX);
    ask.arg("TIMEOUT").arg(limit.clamp(1, 300_000));
    // The server takes no empty list of them.
    if !parameters.0.is_empty() {
        ask.arg("PARAMS").arg(parameters.0.len() * 2);
    }
    for (number, value) in parameters.0.iter().enumerate() {
        ask.arg(format!("p{number}")).arg(value);
    }
    ask.arg("DIALECT").arg(2);
    Ok(ask)
}

impl Index {
    fn of(told: &Value) -> Self {
        let definition = member(told, "index_definition").unwrap_or(Value::Nil);
        let prefixes = member(&definition, "prefixes").and_then(elements);
        let kind = member(&definition, "key_type").and_then(value::text);
        let attributes = member(told, "attributes").and_then(elements);
        Self {
            fields: attributes
                .unwrap_or_default()
                .into_iter()
                .map(Field::of)
                .collect(),
            prefixes: prefixes
                .unwrap_or_default()
                .into_iter()
                .filter_map(value::bytes)
                .map(Blob::from)
                .collect(),
            is_json: kind.is_some_and(|kind| kind.eq_ignore_ascii_case("json")),
        }
    }

    fn names(&self, kind: &str) -> Vec<String> {
        let fields = self.fields.iter().filter(|field| field.kind == kind);
        fields.map(|field| field.name.clone()).collect()
    }

    fn field(&self, name: &str, kind: &'static str) -> Result<(), SearchError> {
        let is_it = |field: &Field| field.name == name && field.kind == kind;
        if self.fields.iter().any(is_it) {
            return Ok(());
        }
        Err(SearchError::Field {
            field: shared::budget::head(name, 200).text.to_owned(),
            wanted: kind,
            known: self.names(kind),
        })
    }

    fn vector(&self, name: Option<&str>) -> Result<&Field, SearchError> {
        let mut vectors = self.fields.iter().filter(|field| field.kind == "VECTOR");
        let missing = || SearchError::Field {
            field: shared::budget::head(name.unwrap_or_default(), 200)
                .text
                .to_owned(),
            wanted: "VECTOR",
            known: self.names("VECTOR"),
        };
        match name {
            Some(name) => vectors.find(|field| field.name == name).ok_or_else(missing),
            None => match (vectors.next(), vectors.next()) {
                (Some(only), None) => Ok(only),
                (None, _) => Err(missing()),
                (Some(_), Some(_)) => Err(SearchError::Which(self.names("VECTOR"))),
            },
        }
    }
}

impl Field {
    fn of(told: Value) -> Self {
        // Among the names and values stand options that have none, so that not every other part is a name.
        let parts: Vec<Value> = elements(told).unwrap_or_default();
        let texts: Vec<String> = parts
            .into_iter()
            .map(|part| value::text(part).unwrap_or_default())
            .collect();
        let after = |name: &str| {
            let at = texts
                .iter()
                .position(|text| text.eq_ignore_ascii_case(name));
            at.and_then(|at| texts.get(at + 1))
                .cloned()
                .unwrap_or_default()
        };
        // The names and paths come first, and may themselves be called like an option.
        let at = |place: usize| texts.get(place).cloned().unwrap_or_default();
        Self {
            path: at(1),
            name: at(3),
            kind: at(5).to_ascii_uppercase(),
            dimensions: after("dim").parse().unwrap_or_default(),
            numbers: after("data_type").to_ascii_uppercase(),
        }
    }

    /// The vector as the index has it.
    fn blob(&self, vector: &[f32]) -> Result<Vec<u8>, SearchError> {
        if vector.len() != self.dimensions {
            return Err(SearchError::Dimensions {
                field: self.name.clone(),
                wanted: self.dimensions,
                given: vector.len(),
            });
        }
        if let Some(at) = vector.iter().position(|number| !number.is_finite()) {
            return Err(SearchError::NotFinite(at));
        }
        match self.numbers.as_str() {
            "FLOAT32" => Ok(vector
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect()),
            "FLOAT64" => Ok(vector
                .iter()
                .flat_map(|number| f64::from(*number).to_le_bytes())
                .collect()),
            kind => Err(SearchError::VectorType {
                field: self.name.clone(),
                kind: kind.to_owned(),
            }),
        }
    }

    /// The vector of a key.
    async fn example(
        &self,
        line: &mut Line,
        key: &Blob,
        is_json: bool,
        deadline: Deadline,
    ) -> Result<Vec<u8>, Error> {
        let missing = || SearchError::NoExample {
            key: key.for_message(),
            field: self.path.clone(),
        };
        let mut ask = cmd(if is_json { "JSON.GET" } else { "HGET" });
        ask.arg(key).arg(&self.path);
        let held = line.ask(&ask, deadline).await?;
        let held = value::bytes(held).ok_or_else(missing)?;
        if !is_json {
            let width = if self.numbers == "FLOAT64" { 8 } else { 4 };
            if held.len() != self.dimensions * width {
                return Err(missing().into());
            }
            return Ok(held);
        }
        // A path gives a list of what it finds.
        let found: Vec<Vec<f32>> = serde_json::from_slice(&held).map_err(|_| missing())?;
        let vector = found.into_iter().next().ok_or_else(missing)?;
        Ok(self.blob(&vector)?)
    }
}

/// The hits of an answer, in either shape of the protocol, and how many there are in all.
fn hits(answer: Value, by_vector: bool) -> (Vec<Hit>, i64) {
    if matches!(answer, Value::Map(_)) {
        let total = member(&answer, "total_results").as_ref().and_then(integer);
        let results = member(&answer, "results").and_then(elements);
        let hits = results.unwrap_or_default().into_iter().map(|hit| {
            let fields = member(&hit, "extra_attributes").unwrap_or(Value::Nil);
            let score = if by_vector {
                member(&fields, DISTANCE)
            } else {
                member(&hit, "score")
            };
            Hit {
                key: member(&hit, "id")
                    .and_then(value::bytes)
                    .unwrap_or_default()
                    .into(),
                score: score.as_ref().and_then(value::number),
                fields,
            }
        });
        return (hits.collect(), total.unwrap_or_default());
    }
    let mut parts = elements(answer).unwrap_or_default().into_iter();
    let total = parts.next().as_ref().and_then(integer).unwrap_or_default();
    let mut hits = Vec::new();
    while let Some(key) = parts.next() {
        let score = if by_vector { None } else { parts.next() };
        let fields = parts.next().unwrap_or(Value::Nil);
        let score = score.or_else(|| member(&fields, DISTANCE));
        hits.push(Hit {
            key: value::bytes(key).unwrap_or_default().into(),
            score: score.as_ref().and_then(value::number),
            fields,
        });
    }
    (hits, total)
}

/// One list of two: a hit counts by its places in them, whatever their scores mean.
fn fuse(by_text: Vec<Hit>, by_vector: Vec<Hit>, count: usize) -> Vec<Hit> {
    let mut fused: Vec<Hit> = Vec::new();
    let mut places: HashMap<Blob, usize> = HashMap::new();
    for list in [by_text, by_vector] {
        let mut rank = 0.0;
        for mut hit in list {
            rank += 1.0;
            let counts = 1.0 / (RANK_CONSTANT + rank);
            if let Some(place) = places.get(&hit.key) {
                let known = &mut fused[*place];
                known.score = known.score.map(|score| score + counts);
            } else {
                places.insert(hit.key.clone(), fused.len());
                hit.score = Some(counts);
                fused.push(hit);
            }
        }
    }
    fused.sort_by(|one, other| {
        other
            .score
            .partial_cmp(&one.score)
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    fused.truncate(count);
    fused
}

fn show(hits: Vec<Hit>, budget: Budget) -> Answer {
    let mut rows = Rows::new(budget);
    for hit in hits {
        let fields: Vec<Value> = elements(hit.fields)
            .unwrap_or_default()
            .chunks_exact(2)
            .filter(|pair| value::text(pair[0].clone()).is_none_or(|name| name != DISTANCE))
            .flatten()
            .cloned()
            .collect();
        let fields = Room::new(budget.bytes).cell(Value::Array(fields));
        let is_cut = fields.is_cut();
        let row = vec![
            value::shown(hit.key.0),
            hit.score.map_or_else(Cell::null, Cell::float),
            Cell::nested(super::read::fields_of(fields.into_value()), is_cut),
        ];
        if rows.push(row).is_err() {
            break;
        }
    }
    let columns = [("key", "text"), ("score", "float"), ("fields", "any")];
    let columns = columns.map(|(name, kind)| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
    });
    Answer {
        columns: columns.into(),
        rows,
    }
}
