//! What may be stored, and what an update may say: a `$` where the server or the next reader would take it in another sense is refused.

use bson::{Bson, Document};
use serde_json::Value;

use super::ejson;
use super::error::MongoError;
use super::gate;

pub(super) fn replacement(update: &Value) -> Result<Document, MongoError> {
    let document = ejson::document("update", update)?;
    if let Some(operator) = document.keys().find(|key| key.starts_with('$')) {
        return Err(MongoError::argument(
            format!("update.{operator}"),
            "a replacement has fields and no operators; to change some fields, update",
        ));
    }
    check_stored("update", &document)?;
    Ok(document)
}

pub(super) fn operators(update: &Value) -> Result<Bson, MongoError> {
    match ejson::bson("update", update)? {
        Bson::Array(_) => {
            let pipeline = ejson::documents("update", update)?;
            gate::check_update("update", &pipeline)?;
            if pipeline.is_empty() {
                return Err(MongoError::argument("update", "it has no stage"));
            }
            Ok(pipeline.into())
        }
        Bson::Document(update) => {
            if update.is_empty() {
                return Err(MongoError::argument(
                    "update",
                    "it has no operator, such as $set",
                ));
            }
            if let Some(field) = update.keys().find(|key| !key.starts_with('$')) {
                let reason = if update.keys().any(|key| key.starts_with('$')) {
                    "it is a field beside operators; write it within $set"
                } else {
                    "it is a field and no operator; write it within $set, or replace the whole document"
                };
                return Err(MongoError::argument(format!("update.{field}"), reason));
            }
            for (operator, fields) in &update {
                check_slots(operator, fields)?;
            }
            Ok(Bson::Document(update))
        }
        _ => Err(MongoError::argument(
            "update",
            "it is neither an object of operators nor a list of stages",
        )),
    }
}

/// Values that an update stores: a `$` within them is an operator to nobody, but looks like one.
fn check_slots(operator: &str, fields: &Bson) -> Result<(), MongoError> {
    let path = format!("update.{operator}");
    let Bson::Document(fields) = fields else {
        return Err(MongoError::argument(path, "it is no object of fields"));
    };
    for (field, value) in fields {
        let path = format!("{path}.{field}");
        let is_modified = |value: &Document| {
            matches!(operator, "$push" | "$addToSet") && value.contains_key("$each")
        };
        match (operator, value) {
            // Conditions, and words of the operator's own.
            ("$pull" | "$currentDate" | "$bit", _) => {}
            (_, Bson::Document(value)) if is_modified(value) => {
                if let Some(elements) = value.get("$each") {
                    check_value(&format!("{path}.$each"), elements)?;
                }
            }
            _ => check_value(&path, value)?,
        }
    }
    Ok(())
}

pub(super) fn check_stored(path: &str, document: &Document) -> Result<(), MongoError> {
    let is_reference = document.contains_key("$ref") && document.contains_key("$id");
    for (key, value) in document {
        let path = format!("{path}.{key}");
        let may = is_reference && matches!(key.as_str(), "$ref" | "$id" | "$db");
        if key.starts_with('$') && !may {
            return Err(MongoError::argument(
                path,
                "a field that is stored cannot begin with `$`; the server would take it as an operator, or never find it again",
            ));
        }
        check_value(&path, value)?;
    }
    Ok(())
}

fn check_value(path: &str, value: &Bson) -> Result<(), MongoError> {
    match value {
        Bson::Document(document) => check_stored(path, document),
        Bson::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                check_value(&format!("{path}[{index}]"), element)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether a filter leaves open which documents are meant: it has no condition, or only such that say what a field is not.
pub(super) fn is_open(filter: &Document) -> bool {
    filter
        .iter()
        .all(|(key, condition)| match (key.as_str(), condition) {
            ("$comment" | "$nor", _) => true,
            ("$and", Bson::Array(all)) => {
                all.iter().all(|one| one.as_document().is_none_or(is_open))
            }
            ("$or", Bson::Array(any)) => {
                any.iter().any(|one| one.as_document().is_none_or(is_open))
            }
            // What an expression comes to is not known here.
            ("$expr", condition) => condition.as_document().is_none(),
            (_, Bson::Document(condition)) => {
                !condition.is_empty()
                    && condition
                        .keys()
                        .all(|key| matches!(key.as_str(), "$exists" | "$ne" | "$nin" | "$not"))
            }
            (_, Bson::RegularExpression(regex)) => is_any(&regex.pattern.to_string()),
            _ => false,
        })
}

/// Whether a regular expression matches whatever it is asked of.
fn is_any(pattern: &str) -> bool {
    matches!(pattern, "" | "." | ".*" | "^" | "$" | "^.*$" | "^.*")
}
