//! Runs one read of an agent: what it asks is looked at first, it has a session and a time of its own, and no more of it is fetched than
//! a reply holds.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf};
use mongodb::Collection;
use mongodb::options::Hint;
use serde_json::Value;
use shared::tool_error::ToolError;

use super::client::Mongodb;
use super::ejson;
use super::error::MongoError;
use super::gate;
use super::session;
use super::value::{self, Shown};
use crate::cursor::{NextPart, Rest};
use crate::table::{Answer, Budget, Cell, Column, Rows};

/// What is asked, as it was written.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The database.
    pub db: String,
    /// The collection.
    pub coll: String,
    /// Find: which documents; of count and distinct too.
    pub filter: Option<Value>,
    /// Find: which of their fields.
    pub projection: Option<Value>,
    /// Find: in which order; the order of its keys counts.
    pub sort: Option<Value>,
    /// Find: how many at most; of count too.
    pub limit: Option<u64>,
    /// Find: how many are passed over first; of count too.
    pub skip: Option<u64>,
    /// The index to use: its name, or its keys.
    pub hint: Option<Value>,
    /// Aggregate: the stages.
    pub pipeline: Option<Value>,
    /// Distinct: the field.
    pub field: Option<String>,
    /// Vectors are given whole.
    pub whole_vectors: bool,
}

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Documents.
    Find,
    /// What a pipeline makes of documents.
    Aggregate,
    /// How many documents.
    Count,
    /// The different values of a field.
    Distinct,
}

/// Which of the layers that keep a read from changing anything are in place; all, but where a test shows what one of them is good for.
#[derive(Debug, Clone, Copy)]
pub struct Layers {
    /// What is asked is looked at.
    pub gate: bool,
}

impl Layers {
    /// Every layer.
    pub const ALL: Self = Self { gate: true };
}

/// An answer, and what is left of it.
pub struct Reading {
    /// One column, `document`; of a count `count`, of distinct values `value`.
    pub answer: Answer,
    /// The rest, where more was found than the reply holds.
    pub rest: Option<Box<dyn Rest>>,
    /// What the caller should know of it.
    pub notices: Vec<String>,
}

/// A read that was looked at.
pub(super) struct Read {
    pub(super) filter: Document,
    pub(super) projection: Option<Document>,
    pub(super) sort: Option<Document>,
    pub(super) hint: Option<Hint>,
    pub(super) pipeline: Vec<Document>,
    pub(super) field: String,
}

impl Read {
    /// What a request says, if all of it may be asked.
    pub(super) fn of(
        operation: Operation,
        request: &Request,
        layers: Layers,
    ) -> Result<Self, MongoError> {
        belongs(operation, request)?;
        let document = |argument: &str, value: &Option<Value>| -> Result<_, MongoError> {
            let Some(value) = value else { return Ok(None) };
            let document = ejson::document(argument, value)?;
            if layers.gate {
                gate::check(argument, &document)?;
            }
            Ok(Some(document))
        };
        let pipeline = match (&request.pipeline, operation) {
            (Some(pipeline), _) => ejson::documents("pipeline", pipeline)?,
            (None, Operation::Aggregate) => {
                return Err(MongoError::argument("pipeline", "aggregate wants one"));
            }
            (None, _) => Vec::new(),
        };
        if layers.gate {
            gate::check_collection("coll", &request.coll)?;
            gate::check_pipeline("pipeline", &pipeline)?;
        }
        let field = match (&request.field, operation) {
            (Some(field), _) => field.clone(),
            (None, Operation::Distinct) => {
                return Err(MongoError::argument("field", "distinct wants one"));
            }
            (None, _) => String::new(),
        };
        let sort = match &request.sort {
            Some(sort) => Some(ejson::keys("sort", sort)?),
            None => None,
        };
        if let Some(sort) = &sort
            && layers.gate
        {
            gate::check("sort", sort)?;
        }
        Ok(Self {
            filter: document("filter", &request.filter)?.unwrap_or_default(),
            projection: document("projection", &request.projection)?,
            sort,
            hint: request.hint.as_ref().map(hint).transpose()?,
            pipeline,
            field,
        })
    }

    /// What may explain that nothing was found.
    fn notices(&self) -> Vec<String> {
        let mut notices = Vec::new();
        let matched = self
            .pipeline
            .first()
            .and_then(|stage| stage.get_document("$match").ok());
        suspect("filter", &self.filter, &mut notices);
        if let Some(matched) = matched {
            suspect("pipeline[0].$match", matched, &mut notices);
        }
        notices
    }
}

/// An argument that another operation has is a misunderstanding, and not passed over.
fn belongs(operation: Operation, request: &Request) -> Result<(), MongoError> {
    use Operation::{Aggregate, Count, Distinct, Find};
    for (argument, is_given, to) in [
        (
            "filter",
            request.filter.is_some(),
            &[Find, Count, Distinct][..],
        ),
        ("projection", request.projection.is_some(), &[Find]),
        ("sort", request.sort.is_some(), &[Find]),
        ("limit", request.limit.is_some(), &[Find, Count]),
        ("skip", request.skip.is_some(), &[Find, Count]),
        ("hint", request.hint.is_some(), &[Find, Aggregate, Count]),
        ("pipeline", request.pipeline.is_some(), &[Aggregate]),
        ("field", request.field.is_some(), &[Distinct]),
    ] {
        if is_given && !to.contains(&operation) {
            let instead = if operation == Aggregate {
                "; write it as a stage of the pipeline"
            } else {
                ""
            };
            return Err(MongoError::argument(
                argument,
                format!("it does not belong to {operation:?}{instead}").to_lowercase(),
            ));
        }
    }
    Ok(())
}

fn hint(hint: &Value) -> Result<Hint, MongoError> {
    match hint {
        Value::String(name) if !name.trim_start().starts_with(['{', '[']) => {
            Ok(Hint::Name(name.clone()))
        }
        keys => Ok(Hint::Keys(ejson::keys("hint", keys)?)),
    }
}

/// What the caller may have meant otherwise: an ObjectId, or a document whose keys stand in another order.
fn suspect(path: &str, filter: &Document, notices: &mut Vec<String>) {
    for (key, value) in filter {
        let path = format!("{path}.{key}");
        match value {
            Bson::String(text) if is_object_id(text) => notices.push(format!(
                "`{path}` is a string that looks like an ObjectId; if it is one, write {{\"$oid\": \"{text}\"}}"
            )),
            Bson::Array(elements) => {
                let looks = |element: &Bson| matches!(element, Bson::String(text) if is_object_id(text));
                if elements.iter().any(looks) {
                    notices.push(format!(
                        "`{path}` has strings that look like ObjectIds; if they are, write {{\"$oid\": …}}"
                    ));
                }
                for element in elements {
                    if let Bson::Document(element) = element {
                        suspect(&path, element, notices);
                    }
                }
            }
            Bson::Document(inner) if inner.keys().any(|key| key.starts_with('$')) => {
                suspect(&path, inner, notices);
            }
            Bson::Document(inner) if inner.len() > 1 => notices.push(format!(
                "`{path}` is compared as a whole, with the order of its keys; ask for its fields one by one, `{key}.…`"
            )),
            _ => {}
        }
    }
}

fn is_object_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Mongodb {
    /// Answers a read. It is given up at the server when the future is dropped, or the rest.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn read(
        &self,
        operation: Operation,
        request: &Request,
        budget: Budget,
        limit: Duration,
        layers: Layers,
    ) -> Result<Reading, MongoError> {
        let read = Read::of(operation, request, layers)?;
        let reading = async {
            match operation {
                Operation::Find | Operation::Aggregate => {
                    self.documents(operation, &read, request, budget, limit)
                        .await
                }
                Operation::Count => self.count(&read, request, budget, limit).await,
                Operation::Distinct => self.distinct(&read, request, budget, limit).await,
            }
        };
        self.within(limit, reading).await
    }

    async fn documents(
        &self,
        operation: Operation,
        read: &Read,
        request: &Request,
        budget: Budget,
        limit: Duration,
    ) -> Result<Reading, MongoError> {
        let collection: Collection<RawDocumentBuf> =
            self.collection(&request.db, &request.coll, limit).await?;
        let mut session = self.session(limit).await?;
        // One more than fits tells whether there are more.
        let batch = u32::try_from(budget.rows.saturating_add(1)).unwrap_or(u32::MAX);
        let opened = if operation == Operation::Aggregate {
            let mut asked = collection
                .aggregate(read.pipeline.clone())
                .batch_size(batch)
                .max_time(limit);
            if let Some(hint) = &read.hint {
                asked = asked.hint(hint.clone());
            }
            let asked = asked.with_type::<RawDocumentBuf>();
            session::open!(asked, session)
        } else {
            let mut asked = collection
                .find(read.filter.clone())
                .batch_size(batch)
                .max_time(limit);
            if let Some(projection) = &read.projection {
                asked = asked.projection(projection.clone());
            }
            if let Some(sort) = &read.sort {
                asked = asked.sort(sort.clone());
            }
            if let Some(hint) = &read.hint {
                asked = asked.hint(hint.clone());
            }
            if let Some(most) = request.limit {
                asked = asked.limit(i64::try_from(most).unwrap_or(i64::MAX));
            }
            if let Some(skip) = request.skip {
                asked = asked.skip(skip);
            }
            session::open!(asked, session)
        };
        if opened.is_err() {
            session.settle(&opened);
        }
        let opened = self.told(opened, limit).await?;
        let mut rest = Documents {
            open: Some(Open {
                cursor: opened,
                session,
                held: None,
            }),
            whole_vectors: request.whole_vectors,
            limit,
        };
        let answer = rest.page(budget).await?;
        let notices = if answer.rows.is_empty() {
            read.notices()
        } else {
            Vec::new()
        };
        let is_left = rest.open.is_some();
        Ok(Reading {
            answer,
            rest: is_left.then(|| Box::new(rest) as Box<dyn Rest>),
            notices,
        })
    }

    async fn count(
        &self,
        read: &Read,
        request: &Request,
        budget: Budget,
        limit: Duration,
    ) -> Result<Reading, MongoError> {
        let collection: Collection<Document> =
            self.collection(&request.db, &request.coll, limit).await?;
        let mut session = self.session(limit).await?;
        let mut asked = collection
            .count_documents(read.filter.clone())
            .max_time(limit);
        if let Some(hint) = &read.hint {
            asked = asked.hint(hint.clone());
        }
        if let Some(most) = request.limit {
            asked = asked.limit(most);
        }
        if let Some(skip) = request.skip {
            asked = asked.skip(skip);
        }
        if let Some(session) = session.get() {
            asked = asked.session(session);
        }
        let counted = asked.await;
        session.settle(&counted);
        let counted = self.told(counted, limit).await?;
        let count = i64::try_from(counted).unwrap_or(i64::MAX);
        let notices = if counted == 0 {
            read.notices()
        } else {
            Vec::new()
        };
        Ok(all(
            "count",
            "long",
            vec![Cell::integer(count)],
            notices,
            budget,
        ))
    }

    async fn distinct(
        &self,
        read: &Read,
        request: &Request,
        budget: Budget,
        limit: Duration,
    ) -> Result<Reading, MongoError> {
        let collection: Collection<Document> =
            self.collection(&request.db, &request.coll, limit).await?;
        let mut session = self.session(limit).await?;
        let mut asked = collection
            .distinct(&read.field, read.filter.clone())
            .max_time(limit);
        if let Some(session) = session.get() {
            asked = asked.session(session);
        }
        let values = asked.await;
        session.settle(&values);
        let shown = Shown {
            bytes: budget.bytes,
            whole_vectors: request.whole_vectors,
        };
        let mut cells = Vec::new();
        for value in self.told(values, limit).await? {
            let cell = value::cell(&value, shown);
            cells.push(cell.map_err(|error| MongoError::Reply(error.to_string()))?);
        }
        let notices = if cells.is_empty() {
            read.notices()
        } else {
            Vec::new()
        };
        Ok(all("value", "any", cells, notices, budget))
    }
}

/// What is there at once; what does not fit is told, and kept for later.
fn all(
    column: &'static str,
    kind: &'static str,
    cells: Vec<Cell>,
    notices: Vec<String>,
    budget: Budget,
) -> Reading {
    let mut rest = Values {
        column,
        kind,
        left: cells.into_iter(),
        held: None,
    };
    let answer = rest.page(budget);
    let is_left = rest.held.is_some();
    Reading {
        answer,
        rest: is_left.then(|| Box::new(rest) as Box<dyn Rest>),
        notices,
    }
}

/// Values that came in one reply and did not fit one of ours.
struct Values {
    column: &'static str,
    kind: &'static str,
    left: std::vec::IntoIter<Cell>,
    held: Option<Vec<Cell>>,
}

impl Values {
    fn page(&mut self, budget: Budget) -> Answer {
        let mut rows = Rows::new(budget);
        while let Some(row) = self
            .held
            .take()
            .or_else(|| self.left.next().map(|cell| vec![cell]))
        {
            if let Err(row) = rows.push(row) {
                self.held = Some(row);
                break;
            }
        }
        Answer {
            columns: vec![column(self.column, self.kind)],
            rows,
        }
    }
}

impl Rest for Values {
    fn next(&mut self, budget: Budget) -> NextPart<'_> {
        Box::pin(async move { Ok(self.page(budget)) })
    }
}

/// An open cursor, and the session it lives in: the cursor is dropped first.
struct Open {
    cursor: session::Batches,
    session: session::Session,
    held: Option<Vec<Cell>>,
}

/// The documents that are left.
struct Documents {
    /// Taken while the next are fetched: a cursor that was given up in between is of no use any more.
    open: Option<Open>,
    whole_vectors: bool,
    limit: Duration,
}

impl Documents {
    /// The next documents; the cursor stays open if there are more.
    async fn page(&mut self, budget: Budget) -> Result<Answer, MongoError> {
        let mut open = self.open.take().ok_or(MongoError::Ended)?;
        let shown = Shown {
            bytes: budget.bytes,
            whole_vectors: self.whole_vectors,
        };
        let mut rows = Rows::new(budget);
        if let Some(row) = open.held.take()
            && let Err(row) = rows.push(row)
        {
            open.held = Some(row);
        }
        while open.held.is_none() {
            let document = match open.cursor.next(&mut open.session).await {
                Some(Ok(document)) => document,
                Some(Err(error)) => match MongoError::of(&error, self.limit) {
                    // What came in time is not lost.
                    MongoError::Timeout(_) if !rows.is_empty() => {
                        rows.out_of_time();
                        return Ok(documents(rows));
                    }
                    error => return Err(error),
                },
                None => {
                    open.session.finish();
                    return Ok(documents(rows));
                }
            };
            let cell = value::document(&document, shown)
                .map_err(|error| MongoError::Reply(error.to_string()))?;
            open.held = rows.push(vec![cell]).err();
        }
        self.open = Some(open);
        Ok(documents(rows))
    }
}

impl Rest for Documents {
    fn next(&mut self, budget: Budget) -> NextPart<'_> {
        Box::pin(async move {
            let limit = self.limit;
            tokio::time::timeout(limit, self.page(budget))
                .await
                .unwrap_or(Err(MongoError::Timeout(limit)))
                .map_err(ToolError::from)
        })
    }
}

fn documents(rows: Rows) -> Answer {
    Answer {
        columns: vec![column("document", "document")],
        rows,
    }
}

fn column(name: &str, kind: &str) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_argument_of_another_operation_is_refused() {
        for (operation, request, argument) in [
            (
                Operation::Find,
                Request {
                    pipeline: Some(json!([])),
                    ..Request::default()
                },
                "pipeline",
            ),
            (
                Operation::Aggregate,
                Request {
                    filter: Some(json!({})),
                    pipeline: Some(json!([])),
                    ..Request::default()
                },
                "filter",
            ),
            (Operation::Aggregate, Request::default(), "pipeline"),
            (Operation::Distinct, Request::default(), "field"),
            (
                Operation::Count,
                Request {
                    sort: Some(json!({ "a": 1 })),
                    ..Request::default()
                },
                "sort",
            ),
        ] {
            let error = Read::of(operation, &request, Layers::ALL).err();
            assert!(
                matches!(&error, Some(MongoError::Argument { argument: it, .. }) if it == argument),
                "{error:?}"
            );
        }
    }

    #[test]
    fn every_part_of_a_read_is_looked_at() {
        let program = || Some(json!({ "a": { "$function": {} } }));
        for (request, path) in [
            (
                Request {
                    filter: program(),
                    ..Request::default()
                },
                "filter.a.$function",
            ),
            (
                Request {
                    projection: program(),
                    ..Request::default()
                },
                "projection.a.$function",
            ),
            (
                Request {
                    sort: program(),
                    ..Request::default()
                },
                "sort.a.$function",
            ),
            (
                Request {
                    coll: "system.users".to_owned(),
                    ..Request::default()
                },
                "coll",
            ),
        ] {
            let error = Read::of(Operation::Find, &request, Layers::ALL).err();
            assert!(
                matches!(&error, Some(MongoError::Gate(error)) if error.path == path),
                "{error:?}"
            );
            assert!(Read::of(Operation::Find, &request, Layers { gate: false }).is_ok());
        }
    }

    #[test]
    fn what_may_have_been_meant_otherwise_is_told() -> anyhow::Result<()> {
        let id = "0123456789abcdef01234567";
        let request = Request {
            filter: Some(
                json!({ "_id": id, "owner": { "$in": [id] }, "$or": [{ "by": id }], "at": { "x": 1, "y": 2 }, "name": "x" }),
            ),
            ..Request::default()
        };
        let notices = Read::of(Operation::Find, &request, Layers::ALL)?.notices();
        assert_eq!(notices.len(), 4, "{notices:?}");
        assert!(
            notices
                .iter()
                .any(|notice| notice.contains("filter._id") && notice.contains("$oid"))
        );
        assert!(notices.iter().any(|notice| notice.contains("filter.at")));
        Ok(())
    }
}
