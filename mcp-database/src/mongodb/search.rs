//! Finds documents by words or by a vector, with what the server has for it.

use std::time::Duration;

use bson::{Bson, Document, doc};
use serde_json::Value;

use super::client::Mongodb;
use super::ejson;
use super::error::MongoError;
use super::gate;
use super::read::{Layers, Operation, Reading, Request};
use crate::table::Budget;

/// Neighbours that are looked at for each that is given.
const CANDIDATES: u64 = 20;
/// Neighbours that a server looks at at most.
const MOST_CANDIDATES: u64 = 10_000;
/// Dimensions of a vector that a server has an index for.
const MOST_DIMENSIONS: usize = 8_192;

/// What is looked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Words.
    Text(String),
    /// What is near to a vector.
    Vector {
        /// The field that has the vectors.
        path: String,
        /// The vector, with as many dimensions as they.
        vector: Vec<f32>,
    },
}

/// A search.
#[derive(Debug, Clone)]
pub struct Search {
    /// The database.
    pub db: String,
    /// The collection.
    pub coll: String,
    /// What is looked for.
    pub wanted: Wanted,
    /// The search index; of words without one, the collection's text index.
    pub index: Option<String>,
    /// What the documents must have beside it.
    pub filter: Option<Value>,
    /// How many at most, the best first.
    pub limit: u64,
}

impl Mongodb {
    /// Searches; each document has its `score` beside its own fields.
    ///
    /// # Errors
    /// [`MongoError::NotSupported`] where the server has no search of this kind; else why there is no answer.
    pub async fn search(
        &self,
        search: &Search,
        budget: Budget,
        limit: Duration,
    ) -> Result<Reading, MongoError> {
        if search.limit == 0 {
            return Err(MongoError::argument("limit", "it is 0; ask for 1 or more"));
        }
        let filter = match &search.filter {
            Some(filter) => ejson::document("filter", filter)?,
            None => Document::new(),
        };
        gate::check("filter", &filter)?;
        gate::check_collection("coll", &search.coll)?;
        let (pipeline, what) = match (&search.wanted, &search.index) {
            (Wanted::Vector { path, vector }, index) => (
                near(path, vector, index.as_deref(), &filter, search.limit)?,
                "$vectorSearch",
            ),
            (Wanted::Text(words), Some(index)) => {
                (by_index(words, index, &filter, search.limit), "$search")
            }
            (Wanted::Text(words), None) => {
                self.has_text_index(search, limit).await?;
                (by_words(words, filter, search.limit), "$text")
            }
        };
        let request = Request {
            db: search.db.clone(),
            coll: search.coll.clone(),
            pipeline: Some(Value::Array(pipeline.into_iter().map(json_of).collect())),
            ..Request::default()
        };
        self.read(Operation::Aggregate, &request, budget, limit, Layers::ALL)
            .await
            .map_err(|error| error.about(what))
    }

    async fn has_text_index(&self, search: &Search, limit: Duration) -> Result<(), MongoError> {
        let indexes = self.within(limit, self.indexes(&search.db, &search.coll, limit));
        let (indexes, _) = indexes.await?;
        if indexes
            .iter()
            .any(|index| index.keys.contains(": \"text\""))
        {
            return Ok(());
        }
        Err(MongoError::argument(
            "index",
            format!(
                "`{}.{}` has no text index; name a search index, create a text index, or read with a $regex",
                search.db, search.coll
            ),
        ))
    }
}

/// Canonical, so that nothing becomes another type on its way through the gate.
fn json_of(stage: Document) -> Value {
    Bson::Document(stage).into_canonical_extjson()
}

fn by_words(words: &str, mut filter: Document, limit: u64) -> Vec<Document> {
    filter.insert("$text", doc! { "$search": words });
    vec![
        doc! { "$match": filter },
        doc! { "$addFields": { "score": { "$meta": "textScore" } } },
        doc! { "$sort": { "score": -1 } },
        doc! { "$limit": whole(limit) },
    ]
}

fn by_index(words: &str, index: &str, filter: &Document, limit: u64) -> Vec<Document> {
    let mut stages = vec![
        doc! { "$search": { "index": index, "text": { "query": words, "path": { "wildcard": "*" } } } },
        doc! { "$addFields": { "score": { "$meta": "searchScore" } } },
    ];
    if !filter.is_empty() {
        stages.push(doc! { "$match": filter.clone() });
    }
    stages.push(doc! { "$limit": whole(limit) });
    stages
}

fn near(
    path: &str,
    vector: &[f32],
    index: Option<&str>,
    filter: &Document,
    limit: u64,
) -> Result<Vec<Document>, MongoError> {
    let Some(index) = index else {
        return Err(MongoError::argument(
            "index",
            "a search by vector wants the name of a vector search index",
        ));
    };
    if vector.is_empty() || vector.len() > MOST_DIMENSIONS {
        return Err(MongoError::argument(
            "vector",
            format!(
                "it has {} dimensions; there can be 1 to {MOST_DIMENSIONS}",
                vector.len()
            ),
        ));
    }
    if let Some(at) = vector.iter().position(|number| !number.is_finite()) {
        return Err(MongoError::argument(
            format!("vector[{at}]"),
            "it is no finite number",
        ));
    }
    let vector: Vec<Bson> = vector
        .iter()
        .map(|number| Bson::Double(f64::from(*number)))
        .collect();
    let candidates = limit
        .saturating_mul(CANDIDATES)
        .clamp(limit, MOST_CANDIDATES.max(limit));
    let mut nearest = doc! {
        "index": index,
        "path": path,
        "queryVector": vector,
        "numCandidates": whole(candidates),
        "limit": whole(limit),
    };
    if !filter.is_empty() {
        nearest.insert("filter", filter.clone());
    }
    Ok(vec![
        doc! { "$vectorSearch": nearest },
        doc! { "$addFields": { "score": { "$meta": "vectorSearchScore" } } },
    ])
}

fn whole(number: u64) -> Bson {
    i32::try_from(number).map_or_else(
        |_| Bson::Int64(i64::try_from(number).unwrap_or(i64::MAX)),
        Bson::Int32,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_that_no_index_can_have_is_refused() {
        let path = |vector: &[f32], index: Option<&str>| match near("v", vector, index, &doc! {}, 5)
        {
            Err(MongoError::Argument { argument, .. }) => argument,
            other => format!("{other:?}"),
        };
        assert_eq!(path(&[], Some("i")), "vector");
        assert_eq!(path(&vec![0.0; MOST_DIMENSIONS + 1], Some("i")), "vector");
        assert_eq!(path(&[0.0, f32::NAN], Some("i")), "vector[1]");
        assert_eq!(path(&[0.0], None), "index");
    }

    #[test]
    fn a_search_is_a_pipeline_that_only_reads() -> anyhow::Result<()> {
        let filter = doc! { "at": { "$gt": 5_i64 } };
        let pipelines = [
            by_words("dog", filter.clone(), 5),
            by_index("dog", "default", &filter, 5),
            near("v", &[0.5, 1.0], Some("i"), &filter, 5)?,
        ];
        for pipeline in pipelines {
            let written = Value::Array(pipeline.iter().cloned().map(json_of).collect());
            let read = ejson::documents("pipeline", &written)?;
            assert_eq!(read, pipeline);
            gate::check_pipeline("pipeline", &read)?;
        }
        Ok(())
    }
}
