//! Changes documents, after what would be changed was counted; what a server would take in another sense than it was written is refused.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use serde::Serialize;
use serde_json::Value;

use super::client::{Mongodb, milliseconds};
use super::ejson;
use super::error::MongoError;
use super::gate::{self, GateError};
use super::stored::{check_stored, is_open, operators, replacement};
use super::value::{self, Shown};
use crate::table::Cell;

/// Ids of documents that a result names.
const MOST_IDS: usize = 100;
/// Bytes of an id that a result shows.
const LONGEST_ID: usize = 2_000;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// New documents.
    Insert,
    /// Fields of documents.
    Update,
    /// A whole document but its id.
    Replace,
    /// Documents no more.
    Delete,
}

/// What is to be changed, as it was written.
#[derive(Debug, Clone)]
pub struct Request {
    /// The database.
    pub db: String,
    /// The collection.
    pub coll: String,
    /// What is done.
    pub change: Change,
    /// Update, delete: all that match, and not only one of them.
    pub many: bool,
    /// Insert: the documents.
    pub docs: Option<Value>,
    /// Which documents; `{}` for all.
    pub filter: Option<Value>,
    /// Update: operators, or a pipeline. Replace: the document.
    pub update: Option<Value>,
    /// Update: what `$[name]` stands for.
    pub array_filters: Option<Value>,
    /// Update, replace: a new document if none matches.
    pub upsert: bool,
    /// Refuse if more documents would be changed.
    pub expect_max: Option<u64>,
}

/// A change that was looked at.
#[derive(Debug, Clone)]
pub struct Write {
    db: String,
    coll: String,
    change: Change,
    many: bool,
    docs: Vec<Document>,
    filter: Document,
    update: Bson,
    array_filters: Vec<Document>,
    upsert: bool,
    expect_max: Option<u64>,
}

/// What was changed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Nothing was changed: this was only counted.
    pub dry_run: bool,
    /// New documents.
    pub inserted: u64,
    /// Documents that the filter matches.
    pub matched: u64,
    /// Those of them that are another than before.
    pub modified: u64,
    /// Documents no more.
    pub deleted: u64,
    /// Ids of new documents, the first 100.
    pub ids: Vec<Value>,
    /// Why the change ended before all of it was done; what is counted here was.
    pub failed: Option<Failed>,
}

/// Where a change of several documents ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Which of the documents, from 0.
    pub index: i64,
    /// The server's words, with its code.
    pub reason: String,
}

impl Write {
    /// What a request says.
    ///
    /// # Errors
    /// Arguments that are missing, do not belong to each other, or would be understood in another sense.
    pub fn of(request: &Request) -> Result<Self, MongoError> {
        belongs(request)?;
        gate::check_collection("coll", &request.coll)?;
        let docs = match &request.docs {
            Some(docs) => ejson::documents("docs", docs)?,
            None => Vec::new(),
        };
        for (index, document) in docs.iter().enumerate() {
            check_stored(&format!("docs[{index}]"), document)?;
        }
        let filter = match &request.filter {
            Some(filter) => ejson::document("filter", filter)?,
            None => Document::new(),
        };
        gate::check("filter", &filter).map_err(|error| GateError {
            place: "a change",
            ..error
        })?;
        let update = match (&request.update, request.change) {
            (Some(update), Change::Replace) => Bson::Document(replacement(update)?),
            (Some(update), _) => operators(update)?,
            (None, _) => Bson::Null,
        };
        let array_filters = match &request.array_filters {
            Some(filters) => ejson::documents("array_filters", filters)?,
            None => Vec::new(),
        };
        Ok(Self {
            db: request.db.clone(),
            coll: request.coll.clone(),
            change: request.change,
            many: request.many,
            docs: docs.into_iter().map(with_id).collect(),
            filter,
            update,
            array_filters,
            upsert: request.upsert,
            expect_max: request.expect_max,
        })
    }

    /// Whether it takes away or overwrites more than one document: many, or whatever the filter leaves open.
    pub fn is_destructive(&self) -> bool {
        match self.change {
            Change::Insert => false,
            Change::Delete | Change::Update | Change::Replace => self.many || is_open(&self.filter),
        }
    }

    fn command(&self, limit: Duration, concern: Option<&Document>) -> Document {
        let mut command = match self.change {
            Change::Insert => doc! { "insert": &self.coll, "documents": self.docs.clone() },
            Change::Delete => doc! { "delete": &self.coll, "deletes": [
                { "q": self.filter.clone(), "limit": i32::from(!self.many) }
            ] },
            Change::Update | Change::Replace => {
                let mut update = doc! {
                    "q": self.filter.clone(),
                    "u": self.update.clone(),
                    "multi": self.many,
                    "upsert": self.upsert,
                };
                if !self.array_filters.is_empty() {
                    update.insert("arrayFilters", self.array_filters.clone());
                }
                doc! { "update": &self.coll, "updates": [update] }
            }
        };
        command.insert("ordered", true);
        command.insert("maxTimeMS", milliseconds(limit));
        if let Some(concern) = concern {
            command.insert("writeConcern", concern.clone());
        }
        command
    }
}

fn belongs(request: &Request) -> Result<(), MongoError> {
    use Change::{Delete, Insert, Replace, Update};
    for (argument, is_given, to, is_wanted) in [
        ("docs", request.docs.is_some(), &[Insert][..], true),
        (
            "filter",
            request.filter.is_some(),
            &[Update, Replace, Delete],
            true,
        ),
        ("update", request.update.is_some(), &[Update, Replace], true),
        (
            "array_filters",
            request.array_filters.is_some(),
            &[Update],
            false,
        ),
        ("upsert", request.upsert, &[Update, Replace], false),
        (
            "many",
            request.many && request.change != Insert,
            &[Update, Delete],
            false,
        ),
    ] {
        let belongs = to.contains(&request.change);
        let change = format!("{:?}", request.change).to_lowercase();
        if is_given && !belongs {
            return Err(MongoError::argument(
                argument,
                format!("it does not belong to {change}"),
            ));
        }
        if is_wanted && belongs && !is_given {
            let all = if argument == "filter" {
                "; {} stands for all documents"
            } else {
                ""
            };
            return Err(MongoError::argument(
                argument,
                format!("{change} wants it{all}"),
            ));
        }
    }
    Ok(())
}

fn with_id(document: Document) -> Document {
    if document.contains_key("_id") {
        return document;
    }
    let mut whole = doc! { "_id": ObjectId::new() };
    whole.extend(document);
    whole
}

impl Mongodb {
    /// Changes what a write says, or with `dry_run` counts what it would change.
    ///
    /// # Errors
    /// Why nothing was changed; after [`MongoError::Timeout`] and [`MongoError::Connection`] it is not known whether something was.
    pub async fn write(
        &self,
        write: &Write,
        dry_run: bool,
        limit: Duration,
    ) -> Result<Outcome, MongoError> {
        self.must_write()?;
        self.within(limit, async {
            let counted = if dry_run || write.expect_max.is_some() {
                Some(self.affected(write, limit).await?)
            } else {
                None
            };
            if let (Some(found), Some(most)) = (counted, write.expect_max)
                && found > most
            {
                return Err(MongoError::TooMany { found, most });
            }
            if dry_run {
                return Ok(would_be(write, counted.unwrap_or_default()));
            }
            let database = self.database(&write.db, limit).await?;
            let concern = self.write_concern();
            let mut session = self.session(limit).await?;
            let mut changing = database.run_command(write.command(limit, concern.as_ref()));
            if let Some(session) = session.get() {
                changing = changing.session(session);
            }
            let changed = changing.await;
            session.settle(&changed);
            outcome(write, &self.told(changed, limit).await?, limit)
        })
        .await
    }

    /// How many documents would be changed.
    async fn affected(&self, write: &Write, limit: Duration) -> Result<u64, MongoError> {
        if write.change == Change::Insert {
            return Ok(write.docs.len() as u64);
        }
        let collection = self
            .collection::<Document>(&write.db, &write.coll, limit)
            .await?;
        let mut session = self.session(limit).await?;
        let mut counting = collection
            .count_documents(write.filter.clone())
            .max_time(limit);
        if !write.many {
            counting = counting.limit(1);
        }
        if let Some(session) = session.get() {
            counting = counting.session(session);
        }
        let counted = counting.await;
        session.settle(&counted);
        self.told(counted, limit).await
    }
}

fn would_be(write: &Write, found: u64) -> Outcome {
    let mut outcome = Outcome {
        dry_run: true,
        ..Outcome::default()
    };
    match write.change {
        Change::Insert => outcome.inserted = found,
        Change::Delete => {
            outcome.matched = found;
            outcome.deleted = found;
        }
        Change::Update | Change::Replace => {
            outcome.matched = found;
            outcome.modified = found;
            outcome.inserted = u64::from(found == 0 && write.upsert);
        }
    }
    outcome
}

fn outcome(write: &Write, reply: &Document, limit: Duration) -> Result<Outcome, MongoError> {
    let whole = |key: &str| match reply.get(key) {
        Some(Bson::Int32(number)) => u64::try_from(*number).unwrap_or_default(),
        Some(Bson::Int64(number)) => u64::try_from(*number).unwrap_or_default(),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        Some(Bson::Double(number)) => *number as u64,
        _ => 0,
    };
    let first = reply
        .get_array("writeErrors")
        .ok()
        .and_then(|errors| errors.first()?.as_document());
    let mut done = whole("n");
    if let (Change::Insert, Some(error)) = (write.change, first) {
        // The documents before it are there; some servers count those after it as well.
        let before = error.get_i32("index").unwrap_or_default();
        done = done.min(u64::try_from(before).unwrap_or_default());
    }
    let upserted: Vec<&Bson> = reply
        .get_array("upserted")
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_document()?.get("_id"))
        .collect();
    let mut outcome = Outcome::default();
    let mut ids: Vec<&Bson> = Vec::new();
    match write.change {
        Change::Insert => {
            outcome.inserted = done;
            let inserted = usize::try_from(done).unwrap_or(usize::MAX);
            ids.extend(
                write
                    .docs
                    .iter()
                    .take(inserted)
                    .filter_map(|document| document.get("_id")),
            );
        }
        Change::Delete => outcome.deleted = done,
        Change::Update | Change::Replace => {
            outcome.inserted = upserted.len() as u64;
            outcome.matched = done.saturating_sub(outcome.inserted);
            outcome.modified = whole("nModified");
            ids = upserted;
        }
    }
    let shown = Shown {
        bytes: LONGEST_ID,
        whole_vectors: false,
    };
    for id in ids.into_iter().take(MOST_IDS) {
        let id = value::cell(id, shown).map_err(|error| MongoError::Reply(error.to_string()))?;
        outcome.ids.push(Cell::into_value(id));
    }
    let concern = reply.get_document("writeConcernError").ok();
    if let Some(error) = first.or(concern) {
        let spoken = MongoError::spoken(
            error.get_i32("code").unwrap_or_default(),
            error.get_str("codeName").unwrap_or_default(),
            error.get_str("errmsg").unwrap_or_default(),
            limit,
        );
        if done == 0 {
            return Err(spoken);
        }
        outcome.failed = Some(Failed {
            index: error.get_i32("index").unwrap_or_default().into(),
            reason: spoken.to_string(),
        });
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(change: Change) -> Request {
        Request {
            db: "d".to_owned(),
            coll: "c".to_owned(),
            change,
            many: false,
            docs: (change == Change::Insert).then(|| json!([{ "a": 1 }])),
            filter: (change != Change::Insert).then(|| json!({ "a": 1 })),
            update: match change {
                Change::Update => Some(json!({ "$set": { "a": 2 } })),
                Change::Replace => Some(json!({ "a": 2 })),
                _ => None,
            },
            array_filters: None,
            upsert: false,
            expect_max: None,
        }
    }

    fn path(request: &Request) -> String {
        match Write::of(request) {
            Err(MongoError::Argument { argument, .. }) => argument,
            Err(MongoError::Gate(error)) => error.path,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_would_be_understood_otherwise_is_refused_by_its_path() {
        for (update, expected) in [
            (json!({ "$set": { "a": 1 }, "b": 1 }), "update.b"),
            (json!({ "a": 1 }), "update.a"),
            (json!({}), "update"),
            (json!("text"), "update"),
            (
                json!({ "$set": { "a": { "$gt": "" } } }),
                "update.$set.a.$gt",
            ),
            (
                json!({ "$push": { "a": { "$each": [{ "$gt": 1 }] } } }),
                "update.$push.a.$each[0].$gt",
            ),
            (json!([{ "$out": "x" }]), "update[0].$out"),
            (json!([]), "update"),
        ] {
            let request = Request {
                update: Some(update.clone()),
                ..request(Change::Update)
            };
            let found = if update == json!("text") {
                matches!(Write::of(&request), Err(MongoError::Ejson(_)))
                    .then(|| expected.to_owned())
            } else {
                Some(path(&request))
            };
            assert_eq!(found.as_deref(), Some(expected), "{update}");
        }
        let insert = Request {
            docs: Some(json!([{ "a": 1 }, { "b": [{ "$where": 1 }] }])),
            ..request(Change::Insert)
        };
        assert_eq!(path(&insert), "docs[1].b[0].$where");
        let replace = Request {
            update: Some(json!({ "$set": { "a": 1 } })),
            ..request(Change::Replace)
        };
        assert_eq!(path(&replace), "update.$set");
        let delete = Request {
            filter: Some(json!({ "$where": "1" })),
            ..request(Change::Delete)
        };
        assert_eq!(path(&delete), "filter.$where");
        assert_eq!(
            path(&Request {
                filter: None,
                ..request(Change::Delete)
            }),
            "filter"
        );
        assert_eq!(
            path(&Request {
                many: true,
                ..request(Change::Replace)
            }),
            "many"
        );
        assert_eq!(
            path(&Request {
                upsert: true,
                ..request(Change::Delete)
            }),
            "upsert"
        );
    }

    #[test]
    fn what_is_stored_may_be_a_reference_and_what_operators_take() -> anyhow::Result<()> {
        let insert = Request {
            docs: Some(
                json!([{ "by": { "$ref": "users", "$id": 1 }, "a.b": 1, "": 1, "__proto__": 1 }]),
            ),
            ..request(Change::Insert)
        };
        Write::of(&insert)?;
        for update in [
            json!({ "$push": { "a": { "$each": [1], "$slice": -5, "$sort": { "b": 1 } } } }),
            json!({ "$pull": { "a": { "$gt": 1 } } }),
            json!({ "$currentDate": { "a": { "$type": "timestamp" } } }),
            json!([{ "$set": { "a": { "$add": ["$b", 1] } } }]),
        ] {
            Write::of(&Request {
                update: Some(update),
                ..request(Change::Update)
            })?;
        }
        Ok(())
    }

    #[test]
    fn what_a_filter_leaves_open_is_destructive() -> anyhow::Result<()> {
        for (change, many, filter, expected) in [
            (Change::Delete, false, json!({ "a": 1 }), false),
            (Change::Delete, true, json!({ "a": 1 }), true),
            (Change::Delete, false, json!({}), true),
            (Change::Update, false, json!({}), true),
            (Change::Update, true, json!({ "a": { "$gte": 0 } }), true),
            (Change::Update, false, json!({ "a": 1 }), false),
            (
                Change::Update,
                false,
                json!({ "_id": { "$exists": true } }),
                true,
            ),
            (Change::Update, false, json!({ "a": { "$ne": null } }), true),
            (
                Change::Update,
                false,
                json!({ "$or": [{ "a": 1 }, {}] }),
                true,
            ),
            (
                Change::Update,
                false,
                json!({ "$and": [{}, { "a": 1 }] }),
                false,
            ),
            (Change::Update, false, json!({ "$expr": true }), true),
            (Change::Update, false, json!({ "a": { "$gt": 1 } }), false),
            (Change::Replace, false, json!({}), true),
        ] {
            let write = Write::of(&Request {
                many,
                filter: Some(filter.clone()),
                ..request(change)
            })?;
            assert_eq!(write.is_destructive(), expected, "{change:?} {filter}");
        }
        Ok(())
    }
}
