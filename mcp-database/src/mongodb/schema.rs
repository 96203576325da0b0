//! What is in a server: its databases and collections, and of one collection the fields that a sample of its documents has, and its
//! indexes with how much they are used.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::Value;

use super::client::{Mongodb, milliseconds};
use super::error::MongoError;
use super::session;
use super::value::{self, Shown};

/// Documents that are looked at where the call does not say.
pub const SAMPLE: u32 = 100;
/// Documents that are looked at at most.
pub const LARGEST_SAMPLE: u32 = 1_000;
/// Collections that are counted; of what is beyond only the names are told.
const MOST_COUNTED: usize = 100;
/// Collections that are told.
const MOST_COLLECTIONS: usize = 1_000;
/// Collections that are counted at once.
const COUNTED_AT_ONCE: usize = 5;
/// Fields that are told.
const MOST_FIELDS: usize = 500;
/// How deep fields are followed.
const DEEPEST: usize = 20;
/// Elements of an array that are looked at.
const MOST_ELEMENTS: usize = 100;
/// Bytes of an index's description.
const LONGEST_INDEX: usize = 4_000;

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseEntry {
    /// Its name.
    pub name: String,
    /// Bytes on the disk.
    pub bytes: Option<i64>,
}

/// What a collection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An ordinary one.
    Collection,
    /// What a pipeline makes of another.
    View,
    /// Of a fixed size, the oldest documents go.
    Capped,
    /// Measurements by time.
    Timeseries,
}

impl Kind {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Collection => "collection",
            Self::View => "view",
            Self::Capped => "capped collection",
            Self::Timeseries => "timeseries",
        }
    }
}

/// A collection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CollectionEntry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Documents, about; unknown of views.
    pub documents: Option<i64>,
    /// Bytes of its documents, not compressed.
    pub bytes: Option<i64>,
    /// Bytes of its indexes.
    pub index_bytes: Option<i64>,
}

/// The collections of a database.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Collections {
    /// By name.
    pub collections: Vec<CollectionEntry>,
    /// How many are not told.
    pub left_out: usize,
}

/// A collection as its documents are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CollectionSchema {
    /// Nothing of this name is there; a read of it finds nothing.
    pub missing: bool,
    /// The collection; of a view without sizes.
    pub entry: Option<CollectionEntry>,
    /// Documents that were looked at.
    pub sampled: u64,
    /// Bytes of one of them, on average.
    pub average_bytes: u64,
    /// Bytes of the largest of them.
    pub largest_bytes: u64,
    /// Their fields, by path: `items[].sku`.
    pub fields: Vec<Field>,
    /// How many fields are not told.
    pub fields_left_out: usize,
    /// Its indexes.
    pub indexes: Vec<Index>,
    /// What could not be found out, and why.
    pub notices: Vec<String>,
}

/// A field of documents.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Field {
    /// Where it is: `[]` stands for the elements of an array.
    pub path: String,
    /// In which part of what it can be in it is, from 0 to 1.
    pub share: f64,
    /// Its types, by MongoDB's names, each with its part of the values.
    pub types: BTreeMap<&'static str, f64>,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its keys as extended JSON; as text, since their order counts.
    pub keys: String,
    /// Everything else that is said of it: `unique`, `sparse`, `partialFilterExpression`, `expireAfterSeconds`.
    pub options: Value,
    /// How often it was used, by all servers that tell.
    pub used: Option<i64>,
    /// Since when that is counted.
    pub since: Option<String>,
}

impl Mongodb {
    /// The databases that may be seen.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn databases(&self, limit: Duration) -> Result<Vec<DatabaseEntry>, MongoError> {
        self.within(limit, async {
            let reply = self
                .command(
                    "admin",
                    doc! { "listDatabases": 1, "authorizedDatabases": true },
                    limit,
                )
                .await?;
            Ok(reply
                .get_array("databases")
                .into_iter()
                .flatten()
                .filter_map(Bson::as_document)
                .map(|one| DatabaseEntry {
                    name: one.get_str("name").unwrap_or_default().to_owned(),
                    bytes: whole(one.get("sizeOnDisk")),
                })
                .collect())
        })
        .await
    }

    /// The collections of a database, with how large they are where the server tells.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn collections(&self, db: &str, limit: Duration) -> Result<Collections, MongoError> {
        self.within(limit, async {
            let mut listed = self.listed(db, None, limit).await?;
            listed.sort_by(|one, other| one.name.cmp(&other.name));
            let left_out = listed.len().saturating_sub(MOST_COLLECTIONS);
            listed.truncate(MOST_COLLECTIONS);
            let rest = listed.split_off(listed.len().min(MOST_COUNTED));
            let measured = futures_util::stream::iter(listed)
                .map(|entry| self.measured(db, entry, limit))
                .buffered(COUNTED_AT_ONCE);
            let mut collections: Vec<CollectionEntry> = measured.collect().await;
            collections.extend(rest);
            Ok(Collections {
                collections,
                left_out,
            })
        })
        .await
    }

    /// What a collection's documents are made of, from a sample of them.
    ///
    /// # Errors
    /// Why there is no answer; what may not be asked beside the sample is told in the result.
    pub async fn schema(
        &self,
        db: &str,
        coll: &str,
        sample: u32,
        limit: Duration,
    ) -> Result<CollectionSchema, MongoError> {
        super::gate::check_collection("coll", coll)?;
        self.within(limit, async {
            let mut notices = Vec::new();
            let entry = match self.listed(db, Some(coll), limit).await {
                Ok(listed) => listed.into_iter().next(),
                Err(error) => {
                    notices.push(format!("its kind is not known: {error}"));
                    None
                }
            };
            let missing = entry.is_none() && notices.is_empty();
            let entry = match entry {
                Some(entry) => Some(self.measured(db, entry, limit).await),
                None => None,
            };
            let is_view = entry.as_ref().is_some_and(|entry| entry.kind == Kind::View);
            let mut sampled = Sampled::default();
            let mut indexes = Vec::new();
            if !missing {
                self.sample(
                    db,
                    coll,
                    sample.clamp(1, LARGEST_SAMPLE),
                    limit,
                    &mut sampled,
                )
                .await?;
                if !is_view {
                    match self.indexes(db, coll, limit).await {
                        Ok((found, notice)) => {
                            indexes = found;
                            notices.extend(notice);
                        }
                        Err(error) => notices.push(format!("its indexes are not known: {error}")),
                    }
                }
            }
            let (fields, fields_left_out) = sampled.fields();
            Ok(CollectionSchema {
                missing,
                entry,
                sampled: sampled.documents,
                average_bytes: sampled.bytes / sampled.documents.max(1),
                largest_bytes: sampled.largest,
                fields,
                fields_left_out,
                indexes,
                notices,
            })
        })
        .await
    }

    /// The indexes of a collection with their use, and why the use is not known.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn indexes(
        &self,
        db: &str,
        coll: &str,
        limit: Duration,
    ) -> Result<(Vec<Index>, Option<String>), MongoError> {
        let list = doc! { "listIndexes": coll };
        let found = match self.all(db, list, limit).await {
            Ok(found) => found,
            // Of a collection that is not there.
            Err(MongoError::Server { code: 26, .. }) => return Ok((Vec::new(), None)),
            Err(error) => return Err(error),
        };
        let used = doc! { "aggregate": coll, "pipeline": [{ "$indexStats": {} }], "cursor": {} };
        let (used, notice) = match self.all(db, used, limit).await {
            Ok(used) => (used, None),
            Err(error) => (
                Vec::new(),
                Some(format!(
                    "how much its indexes are used is not known: {error}"
                )),
            ),
        };
        let mut indexes = Vec::new();
        for one in found {
            let one =
                Document::try_from(&*one).map_err(|error| MongoError::Reply(error.to_string()))?;
            indexes.push(index(one, &used)?);
        }
        Ok((indexes, notice))
    }

    /// Everything a command of ours gives through a cursor.
    pub(super) async fn all(
        &self,
        db: &str,
        mut command: Document,
        limit: Duration,
    ) -> Result<Vec<RawDocumentBuf>, MongoError> {
        let database = self.database(db, limit).await?;
        command.insert("maxTimeMS", milliseconds(limit));
        let mut session = self.session(limit).await?;
        let mut asked = database.run_cursor_command(command);
        if let Some(reads) = self.reads() {
            asked = asked.selection_criteria(reads);
        }
        let opened = match session.get() {
            Some(session) => asked
                .session(session)
                .await
                .map(|cursor| session::Batches::InSession(cursor.with_type())),
            None => asked
                .await
                .map(|cursor| session::Batches::Alone(cursor.with_type())),
        };
        let mut cursor = self.told(opened, limit).await?;
        let mut found = Vec::new();
        while let Some(one) = cursor.next(&mut session).await {
            found.push(self.told(one, limit).await?);
        }
        session.finish();
        Ok(found)
    }

    pub(super) async fn listed(
        &self,
        db: &str,
        name: Option<&str>,
        limit: Duration,
    ) -> Result<Vec<CollectionEntry>, MongoError> {
        let mut command =
            doc! { "listCollections": 1, "authorizedCollections": true, "nameOnly": false };
        if let Some(name) = name {
            command.insert("filter", doc! { "name": name });
        }
        // Without the privilege to see more than names, only names may be asked.
        let found = match self.all(db, command.clone(), limit).await {
            Err(MongoError::Unauthorized { .. }) => {
                command.insert("nameOnly", true);
                self.all(db, command, limit).await?
            }
            other => other?,
        };
        Ok(found
            .iter()
            .filter_map(|one| Document::try_from(&**one).ok())
            .filter_map(|one| entry(&one))
            .collect())
    }

    /// The same with its count and sizes, where the server tells them.
    async fn measured(
        &self,
        db: &str,
        mut entry: CollectionEntry,
        limit: Duration,
    ) -> CollectionEntry {
        if entry.kind == Kind::View {
            return entry;
        }
        let stats = self
            .command(db, doc! { "collStats": &entry.name }, limit)
            .await;
        if let Ok(stats) = stats {
            entry.documents = whole(stats.get("count"));
            entry.bytes = whole(stats.get("size"));
            entry.index_bytes = whole(stats.get("totalIndexSize"));
        }
        if entry.documents.is_none() && entry.kind != Kind::Timeseries {
            let counted = self.command(db, doc! { "count": &entry.name }, limit).await;
            entry.documents = counted.ok().and_then(|counted| whole(counted.get("n")));
        }
        entry
    }

    async fn sample(
        &self,
        db: &str,
        coll: &str,
        size: u32,
        limit: Duration,
        sampled: &mut Sampled,
    ) -> Result<(), MongoError> {
        let collection = self.collection::<RawDocumentBuf>(db, coll, limit).await?;
        let mut session = self.session(limit).await?;
        let asked = collection
            .aggregate([doc! { "$sample": { "size": size } }])
            .max_time(limit)
            .with_type::<RawDocumentBuf>();
        let opened = session::open!(asked, session);
        let mut cursor = self.told(opened, limit).await?;
        while let Some(document) = cursor.next(&mut session).await {
            let document = self.told(document, limit).await?;
            sampled
                .add(&document)
                .map_err(|error| MongoError::Reply(error.to_string()))?;
        }
        session.finish();
        Ok(())
    }
}

fn whole(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int32(number) => Some((*number).into()),
        Bson::Int64(number) => Some(*number),
        #[expect(clippy::cast_possible_truncation, reason = "a count or a size")]
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

fn entry(listed: &Document) -> Option<CollectionEntry> {
    let name = listed.get_str("name").ok()?.to_owned();
    let is_capped = listed
        .get_document("options")
        .and_then(|options| options.get_bool("capped"))
        .unwrap_or_default();
    let kind = match listed.get_str("type") {
        Ok("view") => Kind::View,
        Ok("timeseries") => Kind::Timeseries,
        _ if is_capped => Kind::Capped,
        _ => Kind::Collection,
    };
    Some(CollectionEntry {
        name,
        kind,
        documents: None,
        bytes: None,
        index_bytes: None,
    })
}

fn index(mut listed: Document, used: &[RawDocumentBuf]) -> Result<Index, MongoError> {
    let name = listed.get_str("name").unwrap_or_default().to_owned();
    let keys = match listed.remove("key") {
        Some(Bson::Document(keys)) => keys,
        _ => Document::new(),
    };
    for known in ["name", "v", "ns", "background"] {
        listed.remove(known);
    }
    let keys: Vec<String> = keys
        .into_iter()
        .map(|(key, direction)| {
            format!("{}: {}", Value::from(key), direction.into_relaxed_extjson())
        })
        .collect();
    let shown = Shown {
        bytes: LONGEST_INDEX,
        whole_vectors: false,
    };
    let options = value::cell(&Bson::Document(listed), shown)
        .map_err(|error| MongoError::Reply(error.to_string()))?;
    let mut index = Index {
        keys: format!("{{{}}}", keys.join(", ")),
        options: options.into_value(),
        used: None,
        since: None,
        name,
    };
    // One entry for each server that has it.
    for one in used {
        let Ok(one) = Document::try_from(&**one) else {
            continue;
        };
        let Ok(accesses) = one.get_document("accesses") else {
            continue;
        };
        if one.get_str("name").is_ok_and(|name| name == index.name) {
            let more = whole(accesses.get("ops")).unwrap_or_default();
            index.used = Some(index.used.unwrap_or_default().saturating_add(more));
            if let Ok(since) = accesses.get_datetime("since") {
                let since = since.try_to_rfc3339_string().unwrap_or_default();
                // The counts of all of them begin with the last.
                index.since = index.since.take().max(Some(since));
            }
        }
    }
    Ok(index)
}

/// What the documents of a sample have.
#[derive(Default)]
struct Sampled {
    documents: u64,
    bytes: u64,
    largest: u64,
    paths: BTreeMap<String, Seen>,
    left_out: usize,
}

#[derive(Default)]
struct Seen {
    times: u64,
    types: BTreeMap<&'static str, u64>,
}

impl Sampled {
    fn add(&mut self, document: &RawDocument) -> Result<(), bson::error::Error> {
        let bytes = document.as_bytes().len() as u64;
        self.documents += 1;
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
        self.fields_of("", document, 1)
    }

    fn fields_of(
        &mut self,
        path: &str,
        document: &RawDocument,
        depth: usize,
    ) -> Result<(), bson::error::Error> {
        for field in document {
            let (key, value) = field?;
            let path = if path.is_empty() {
                key.as_str().to_owned()
            } else {
                format!("{path}.{}", key.as_str())
            };
            self.value(&path, value, depth)?;
        }
        Ok(())
    }

    fn value(
        &mut self,
        path: &str,
        value: RawBsonRef<'_>,
        depth: usize,
    ) -> Result<(), bson::error::Error> {
        if !self.paths.contains_key(path) && self.paths.len() >= MOST_FIELDS {
            self.left_out += 1;
            return Ok(());
        }
        let seen = self.paths.entry(path.to_owned()).or_default();
        seen.times += 1;
        *seen.types.entry(value::type_name(&value)).or_default() += 1;
        if depth >= DEEPEST {
            return Ok(());
        }
        match value {
            RawBsonRef::Document(document) => self.fields_of(path, document, depth + 1),
            RawBsonRef::Array(elements) => {
                let path = format!("{path}[]");
                for element in elements.into_iter().take(MOST_ELEMENTS) {
                    self.value(&path, element?, depth + 1)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fields(&self) -> (Vec<Field>, usize) {
        #[expect(clippy::cast_precision_loss, reason = "counts of a sample")]
        let share = |part: u64, of: u64| {
            let share = part as f64 / of.max(1) as f64;
            (share * 1_000.0).round() / 1_000.0
        };
        let fields = self
            .paths
            .iter()
            .map(|(path, seen)| Field {
                share: share(seen.times, self.times_of_parent(path, seen.times)),
                types: seen
                    .types
                    .iter()
                    .map(|(kind, times)| (*kind, share(*times, seen.times)))
                    .collect(),
                path: path.clone(),
            })
            .collect();
        (fields, self.left_out)
    }

    /// How often there was what a field can be in; of elements, the elements.
    fn times_of_parent(&self, path: &str, own: u64) -> u64 {
        if path.ends_with("[]") {
            return own;
        }
        match path
            .rsplit_once('.')
            .and_then(|(parent, _)| self.paths.get(parent))
        {
            Some(parent) => parent.types.get("object").copied().unwrap_or(own),
            None => self.documents,
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn fields_have_paths_types_and_shares() -> anyhow::Result<()> {
        let mut sampled = Sampled::default();
        sampled.add(&rawdoc! { "_id": 1, "a": { "b": "x" }, "items": [{ "sku": 1 }, { "sku": "s", "n": 1.5 }] })?;
        sampled.add(&rawdoc! { "_id": 2, "a": 5, "items": [] })?;
        let (fields, left_out) = sampled.fields();
        let told: Vec<String> = fields
            .iter()
            .map(|field| format!("{} {} {:?}", field.path, field.share, field.types))
            .collect();
        assert_eq!(
            told,
            [
                r#"_id 1 {"int": 1.0}"#,
                r#"a 1 {"int": 0.5, "object": 0.5}"#,
                r#"a.b 1 {"string": 1.0}"#,
                r#"items 1 {"array": 1.0}"#,
                r#"items[] 1 {"object": 1.0}"#,
                r#"items[].n 0.5 {"double": 1.0}"#,
                r#"items[].sku 1 {"int": 0.5, "string": 0.5}"#,
            ]
        );
        assert_eq!(left_out, 0);
        Ok(())
    }

    #[test]
    fn a_document_of_countless_fields_is_told_in_part() -> anyhow::Result<()> {
        let mut document = Document::new();
        for number in 0..2_000 {
            document.insert(number.to_string(), number);
        }
        let mut sampled = Sampled::default();
        sampled.add(&RawDocumentBuf::try_from(&document)?)?;
        let (fields, left_out) = sampled.fields();
        assert_eq!((fields.len(), left_out), (MOST_FIELDS, 2_000 - MOST_FIELDS));
        Ok(())
    }
}
