//! Asks how a read would be done, without doing it unless that is wanted.

use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::options::Hint;
use serde::Serialize;

use super::client::{Mongodb, milliseconds};
use super::error::MongoError;
use super::plan::Plan;
use super::read::{Layers, Operation, Read, Request};

/// How a read would be done, and what would make it better.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The plan.
    pub plan: Plan,
    /// What would make it better, for a model to read.
    pub advice: Vec<String>,
}

impl Mongodb {
    /// Explains a read; with `execute` it is run, and what it took is told.
    ///
    /// # Errors
    /// What may not be read, or why there is no answer.
    pub async fn explain(
        &self,
        operation: Operation,
        request: &Request,
        execute: bool,
        limit: Duration,
    ) -> Result<Explanation, MongoError> {
        let read = Read::of(operation, request, Layers::ALL)?;
        let command = doc! {
            "explain": command(operation, &read, request, limit),
            "verbosity": if execute { "executionStats" } else { "queryPlanner" },
            "maxTimeMS": milliseconds(limit),
        };
        let reply = self
            .within(limit, async {
                // For its name.
                self.collection::<Document>(&request.db, &request.coll, limit)
                    .await?;
                let database = self.database(&request.db, limit).await?;
                let mut session = self.session(limit).await?;
                let mut asked = database.run_command(command);
                if let Some(reads) = self.reads() {
                    asked = asked.selection_criteria(reads);
                }
                if let Some(session) = session.get() {
                    asked = asked.session(session);
                }
                let reply = asked.await;
                session.settle(&reply);
                self.told(reply, limit).await
            })
            .await
            .map_err(|error| error.about("explain"))?;
        let plan = Plan::of(&reply);
        let (filter, sort) = indexable(&read);
        let mut advice = plan.advice(&filter, sort.as_ref());
        if plan.stages.is_empty() {
            advice.push("the server's plan is written in a way that is not known here".to_owned());
        }
        Ok(Explanation { plan, advice })
    }
}

fn command(operation: Operation, read: &Read, request: &Request, limit: Duration) -> Document {
    let coll = request.coll.as_str();
    let mut command = match operation {
        Operation::Find => doc! { "find": coll, "filter": read.filter.clone() },
        Operation::Aggregate => {
            doc! { "aggregate": coll, "pipeline": read.pipeline.clone(), "cursor": {} }
        }
        Operation::Count => doc! { "count": coll, "query": read.filter.clone() },
        Operation::Distinct => {
            doc! { "distinct": coll, "key": read.field.as_str(), "query": read.filter.clone() }
        }
    };
    let whole = |number: u64| Bson::Int64(i64::try_from(number).unwrap_or(i64::MAX));
    for (key, value) in [
        ("projection", read.projection.clone().map(Bson::Document)),
        ("sort", read.sort.clone().map(Bson::Document)),
        ("skip", request.skip.map(whole)),
        ("limit", request.limit.map(whole)),
        (
            "hint",
            match &read.hint {
                Some(Hint::Name(name)) => Some(Bson::String(name.clone())),
                Some(Hint::Keys(keys)) => Some(Bson::Document(keys.clone())),
                _ => None,
            },
        ),
    ] {
        if let Some(value) = value {
            command.insert(key, value);
        }
    }
    command.insert("maxTimeMS", milliseconds(limit));
    command
}

/// The conditions and the order that an index may help with: of a pipeline those it begins with.
fn indexable(read: &Read) -> (Document, Option<Document>) {
    let mut stages = read.pipeline.iter().peekable();
    let mut filter = read.filter.clone();
    let mut sort = read.sort.clone();
    while let Some(matched) = stages
        .peek()
        .and_then(|stage| stage.get_document("$match").ok())
    {
        filter.extend(matched.clone());
        stages.next();
    }
    if let Some(sorted) = stages
        .peek()
        .and_then(|stage| stage.get_document("$sort").ok())
    {
        sort = Some(sorted.clone());
    }
    (filter, sort)
}
