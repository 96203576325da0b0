//! What a caller writes as extended JSON, made values of BSON; whatever is no value is named by its path.

use std::fmt;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp,
};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// How deep values may stand within each other, which is also as deep as the server takes them.
pub const DEEPEST: usize = 100;

/// A value that is none of BSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}`: {reason}")]
pub struct EjsonError {
    /// Where it stands: `filter.author._id`, `pipeline[1].$match`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl EjsonError {
    pub(super) fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }
}

/// A document given as an object, or as the text of one, in which the order of keys is kept. `argument` names it in errors.
///
/// # Errors
/// What is no document, or has a value that is none.
pub fn document(argument: &str, value: &Value) -> Result<Document, EjsonError> {
    match bson(argument, value)? {
        Bson::Document(document) => Ok(document),
        _ => Err(EjsonError::new(
            argument,
            "it is no document; write an object, or the text of one",
        )),
    }
}

/// A list of documents, such as a pipeline, given as an array or as the text of one.
///
/// # Errors
/// What is no list of documents, or has a value that is none.
pub fn documents(argument: &str, value: &Value) -> Result<Vec<Document>, EjsonError> {
    let Bson::Array(list) = bson(argument, value)? else {
        return Err(EjsonError::new(
            argument,
            "it is no list; write an array of documents, or the text of one",
        ));
    };
    list.into_iter()
        .enumerate()
        .map(|(index, one)| match one {
            Bson::Document(document) => Ok(document),
            _ => Err(EjsonError::new(
                format!("{argument}[{index}]"),
                "it is no document; write an object",
            )),
        })
        .collect()
}

/// Keys whose order counts, such as those of a sort: an object, the text of one, or a list of objects of one key each.
///
/// # Errors
/// What is none of the three, or an object of several keys, whose order is not known.
pub fn keys(argument: &str, value: &Value) -> Result<Document, EjsonError> {
    let value = tree(argument, value)?;
    let keys = convert(argument, &value.tree, 1, value.is_ordered)?;
    ordered(argument, keys, value.is_ordered)
}

/// Any value, an object's or a text's.
///
/// # Errors
/// A value that is none of BSON.
pub fn bson(argument: &str, value: &Value) -> Result<Bson, EjsonError> {
    let value = tree(argument, value)?;
    convert(argument, &value.tree, 1, value.is_ordered)
}

/// A value of which a string is only a string.
///
/// # Errors
/// A value that is none of BSON.
pub fn value(argument: &str, value: &Value) -> Result<Bson, EjsonError> {
    let tree =
        Tree::deserialize(value).map_err(|error| EjsonError::new(argument, error.to_string()))?;
    convert(argument, &tree, 1, is_order_kept())
}

/// Whether objects that were JSON before still have their keys in the order they were written in.
fn is_order_kept() -> bool {
    let probe = serde_json::json!({ "b": 1, "a": 1 });
    probe
        .as_object()
        .and_then(|object| object.keys().next())
        .is_some_and(|first| first == "b")
}

struct Read {
    tree: Tree,
    is_ordered: bool,
}

fn tree(argument: &str, value: &Value) -> Result<Read, EjsonError> {
    let (tree, is_ordered) = match value {
        Value::String(text) => (serde_json::from_str(text), true),
        other => (Tree::deserialize(other), is_order_kept()),
    };
    tree.map(|tree| Read { tree, is_ordered })
        .map_err(|error| EjsonError::new(argument, format!("it is no extended JSON: {error}")))
}

/// JSON with its keys in order, and none of them twice.
enum Tree {
    Leaf(Value),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::Leaf(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Leaf(Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    elements.push(element);
                }
                Ok(Tree::List(elements))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut members: Vec<(String, Tree)> = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, Tree>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format!("the key `{key}` is there twice")));
                    }
                    members.push((key, value));
                }
                Ok(Tree::Map(members))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

fn convert(path: &str, tree: &Tree, depth: usize, is_ordered: bool) -> Result<Bson, EjsonError> {
    if depth > DEEPEST {
        return Err(EjsonError::new(
            path,
            format!("values stand more than {DEEPEST} deep within each other"),
        ));
    }
    match tree {
        Tree::Leaf(value) => leaf(path, value),
        Tree::List(elements) => elements
            .iter()
            .enumerate()
            .map(|(index, element)| {
                convert(&format!("{path}[{index}]"), element, depth + 1, is_ordered)
            })
            .collect::<Result<Vec<Bson>, _>>()
            .map(Bson::Array),
        Tree::Map(members) => {
            if let Some((key, _)) = members.iter().find(|(key, _)| is_special(key)) {
                return special(path, key, members, depth, is_ordered);
            }
            let mut document = Document::new();
            for (key, value) in members {
                let path = format!("{path}.{key}");
                if key.contains('\0') {
                    return Err(EjsonError::new(
                        path.escape_debug().to_string(),
                        "a key cannot contain a NUL",
                    ));
                }
                let mut value = convert(&path, value, depth + 1, is_ordered)?;
                if matches!(key.as_str(), "$sort" | "sortBy")
                    && matches!(value, Bson::Document(_) | Bson::Array(_))
                {
                    value = Bson::Document(ordered(&path, value, is_ordered)?);
                }
                document.insert(key.clone(), value);
            }
            Ok(Bson::Document(document))
        }
    }
}

fn ordered(path: &str, keys: Bson, is_ordered: bool) -> Result<Document, EjsonError> {
    match keys {
        Bson::Document(keys) if is_ordered || keys.len() < 2 => Ok(keys),
        Bson::Document(_) => Err(EjsonError::new(
            path,
            "the order of its keys is lost on the way here; write a list of objects of one key each, [{\"b\": 1}, {\"a\": -1}]",
        )),
        Bson::Array(list) => {
            let mut keys = Document::new();
            for (index, one) in list.into_iter().enumerate() {
                match one {
                    Bson::Document(one) if one.len() == 1 => keys.extend(one),
                    _ => {
                        return Err(EjsonError::new(
                            format!("{path}[{index}]"),
                            "it is no object of one key, such as {\"a\": -1}",
                        ));
                    }
                }
            }
            Ok(keys)
        }
        _ => Err(EjsonError::new(
            path,
            "it is no object, and no list of objects of one key each",
        )),
    }
}

fn leaf(path: &str, value: &Value) -> Result<Bson, EjsonError> {
    Ok(match value {
        Value::Null => Bson::Null,
        Value::Bool(value) => Bson::Boolean(*value),
        Value::String(text) => Bson::String(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => {
                i32::try_from(whole).map_or_else(|_| Bson::Int64(whole), Bson::Int32)
            }
            (None, Some(float)) if !number.is_u64() => Bson::Double(float),
            _ => {
                return Err(EjsonError::new(
                    path,
                    format!(
                        "{number} is larger than a 64-bit integer; write {{\"$numberDecimal\": \"{number}\"}}"
                    ),
                ));
            }
        },
        Value::Array(_) | Value::Object(_) => {
            return Err(EjsonError::new(path, "it is no single value"));
        }
    })
}

fn is_special(key: &str) -> bool {
    matches!(
        key,
        "$oid"
            | "$date"
            | "$numberInt"
            | "$numberLong"
            | "$numberDouble"
            | "$numberDecimal"
            | "$binary"
            | "$uuid"
            | "$regularExpression"
            | "$timestamp"
            | "$minKey"
            | "$maxKey"
            | "$undefined"
            | "$symbol"
            | "$code"
            | "$dbPointer"
    )
}

fn special(
    path: &str,
    key: &str,
    members: &[(String, Tree)],
    depth: usize,
    is_ordered: bool,
) -> Result<Bson, EjsonError> {
    let at = format!("{path}.{key}");
    let wrong = |reason: String| EjsonError::new(at.clone(), reason);
    let member = |name: &str| {
        members
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value))
    };
    if key == "$code" {
        return code(&at, members, depth, is_ordered);
    }
    let (Some(value), 1) = (member(key), members.len()) else {
        return Err(wrong("it stands alone in its object".to_owned()));
    };
    let text = |what: &str| match value {
        Tree::Leaf(Value::String(text)) => Ok(text.as_str()),
        _ => Err(EjsonError::new(
            at.clone(),
            format!("it is no string; write {what}"),
        )),
    };
    Ok(match key {
        "$oid" => {
            let text = text("24 hexadecimal digits")?;
            let id = ObjectId::parse_str(text).map_err(|_| {
                wrong(format!(
                    "`{text}` is no ObjectId; write 24 hexadecimal digits"
                ))
            })?;
            Bson::ObjectId(id)
        }
        "$date" => Bson::DateTime(date(&at, value)?),
        "$numberInt" => Bson::Int32(number(&at, text("\"1\"")?, "a 32-bit integer")?),
        "$numberLong" => Bson::Int64(number(&at, text("\"1\"")?, "a 64-bit integer")?),
        "$numberDouble" => Bson::Double(match text("\"1.5\"")? {
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            "NaN" => f64::NAN,
            digits => number(&at, digits, "a double")?,
        }),
        "$numberDecimal" => Bson::Decimal128(number::<Decimal128>(
            &at,
            text("\"1.50\"")?,
            "a decimal of 34 digits",
        )?),
        "$uuid" => {
            let text = text("\"c8edabc3-f738-4ca3-b68d-ab92a91478a3\"")?;
            let uuid =
                bson::Uuid::parse_str(text).map_err(|_| wrong(format!("`{text}` is no UUID")))?;
            Bson::Binary(uuid.into())
        }
        "$symbol" => Bson::Symbol(text("a string")?.to_owned()),
        "$minKey" => Bson::MinKey,
        "$maxKey" => Bson::MaxKey,
        "$undefined" => Bson::Undefined,
        "$binary" => binary(&at, value)?,
        "$regularExpression" => regular_expression(&at, value)?,
        "$timestamp" => Bson::Timestamp(Timestamp {
            time: part(&at, value, "t")?,
            increment: part(&at, value, "i")?,
        }),
        _ => return Err(wrong("it is deprecated and not taken".to_owned())),
    })
}

fn number<T: std::str::FromStr>(path: &str, digits: &str, what: &str) -> Result<T, EjsonError> {
    digits
        .parse()
        .map_err(|_| EjsonError::new(path, format!("`{digits}` is not {what}")))
}

fn date(path: &str, value: &Tree) -> Result<DateTime, EjsonError> {
    const RIGHT: &str =
        "write \"2026-11-22T10:00:00Z\", or {\"$numberLong\": \"milliseconds since 1970\"}";
    let milliseconds = match value {
        Tree::Leaf(Value::String(text)) => {
            return DateTime::parse_rfc3339_str(text)
                .map_err(|_| EjsonError::new(path, format!("`{text}` is no time; {RIGHT}")));
        }
        Tree::Leaf(Value::Number(number)) => number.as_i64(),
        Tree::Map(members) => match members.as_slice() {
            [(key, Tree::Leaf(Value::String(digits)))] if key == "$numberLong" => {
                digits.parse().ok()
            }
            _ => None,
        },
        _ => None,
    };
    milliseconds
        .map(DateTime::from_millis)
        .ok_or_else(|| EjsonError::new(path, format!("it is no time; {RIGHT}")))
}

fn member<'a>(path: &str, value: &'a Tree, name: &str) -> Result<&'a Tree, EjsonError> {
    match value {
        Tree::Map(members) => members
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value)),
        _ => None,
    }
    .ok_or_else(|| EjsonError::new(path, format!("it has no `{name}`")))
}

fn string<'a>(path: &str, value: &'a Tree, name: &str) -> Result<&'a str, EjsonError> {
    match member(path, value, name)? {
        Tree::Leaf(Value::String(text)) => Ok(text),
        _ => Err(EjsonError::new(format!("{path}.{name}"), "it is no string")),
    }
}

fn part(path: &str, value: &Tree, name: &str) -> Result<u32, EjsonError> {
    match member(path, value, name)? {
        Tree::Leaf(Value::Number(number)) => {
            number.as_u64().and_then(|one| u32::try_from(one).ok())
        }
        _ => None,
    }
    .ok_or_else(|| {
        EjsonError::new(
            format!("{path}.{name}"),
            "it is no whole number of 0 to 4294967295",
        )
    })
}

fn binary(path: &str, value: &Tree) -> Result<Bson, EjsonError> {
    let subtype = string(path, value, "subType")?;
    let subtype = u8::from_str_radix(subtype, 16).map_err(|_| {
        EjsonError::new(
            format!("{path}.subType"),
            format!("`{subtype}` is no subtype; write two hexadecimal digits"),
        )
    })?;
    let binary = Binary::from_base64(
        string(path, value, "base64")?,
        Some(BinarySubtype::from(subtype)),
    )
    .map_err(|_| EjsonError::new(format!("{path}.base64"), "it is no base64"))?;
    Ok(Bson::Binary(binary))
}

fn regular_expression(path: &str, value: &Tree) -> Result<Bson, EjsonError> {
    let pattern = string(path, value, "pattern")?;
    let options = string(path, value, "options")?;
    if let Some(other) = options.chars().find(|option| !"imsxlu".contains(*option)) {
        return Err(EjsonError::new(
            format!("{path}.options"),
            format!("`{other}` is no option of a regular expression; there are i, m, s and x"),
        ));
    }
    regex(pattern, options)
        .map(Bson::RegularExpression)
        .map_err(|_| EjsonError::new(path, "it contains a NUL"))
}

fn regex(pattern: &str, options: &str) -> Result<Regex, bson::error::Error> {
    // The server wants the options in the order of the alphabet.
    let mut options: Vec<char> = options.chars().collect();
    options.sort_unstable();
    Ok(Regex {
        pattern: pattern.try_into()?,
        options: options.into_iter().collect::<String>().try_into()?,
    })
}

fn code(
    path: &str,
    members: &[(String, Tree)],
    depth: usize,
    is_ordered: bool,
) -> Result<Bson, EjsonError> {
    let text = |value: &Tree| match value {
        Tree::Leaf(Value::String(text)) => Ok(text.clone()),
        _ => Err(EjsonError::new(path, "it is no string")),
    };
    match members {
        [(_, code)] => Ok(Bson::JavaScriptCode(text(code)?)),
        [(one, first), (other, second)] if one == "$scope" || other == "$scope" => {
            let (code, scope) = if one == "$scope" {
                (second, first)
            } else {
                (first, second)
            };
            match convert(&format!("{path}.$scope"), scope, depth + 1, is_ordered)? {
                Bson::Document(scope) => {
                    Ok(Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
                        code: text(code)?,
                        scope,
                    }))
                }
                _ => Err(EjsonError::new(path, "its $scope is no document")),
            }
        }
        _ => Err(EjsonError::new(path, "beside it only $scope may stand")),
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use serde_json::json;

    use super::*;

    #[test]
    fn extended_json_becomes_what_it_means() -> anyhow::Result<()> {
        for (json, expected) in [
            (json!(1), Bson::Int32(1)),
            (json!(5_000_000_000_i64), Bson::Int64(5_000_000_000)),
            (json!(1.5), Bson::Double(1.5)),
            (json!({ "$numberLong": "1" }), Bson::Int64(1)),
            (json!({ "$numberInt": "-1" }), Bson::Int32(-1)),
            (
                json!({ "$numberDouble": "-Infinity" }),
                Bson::Double(f64::NEG_INFINITY),
            ),
            (
                json!({ "$numberDecimal": "1.50" }),
                Bson::Decimal128("1.50".parse()?),
            ),
            (
                json!({ "$date": "1970-01-01T00:00:01Z" }),
                Bson::DateTime(DateTime::from_millis(1000)),
            ),
            (
                json!({ "$date": { "$numberLong": "-5" } }),
                Bson::DateTime(DateTime::from_millis(-5)),
            ),
            (
                json!({ "$timestamp": { "t": 1, "i": 2 } }),
                Bson::Timestamp(Timestamp {
                    time: 1,
                    increment: 2,
                }),
            ),
            (json!({ "$minKey": 1 }), Bson::MinKey),
            (
                json!({ "$oid": "0123456789abcdef01234567" }),
                Bson::ObjectId(ObjectId::parse_str("0123456789abcdef01234567")?),
            ),
            (
                json!({ "$regularExpression": { "pattern": "^a", "options": "i" } }),
                Bson::RegularExpression(regex("^a", "i")?),
            ),
            (
                json!({ "a": { "$gt": "" } }),
                Bson::Document(doc! { "a": { "$gt": "" } }),
            ),
        ] {
            assert_eq!(bson("it", &json)?, expected, "{json}");
        }
        Ok(())
    }

    #[test]
    fn a_value_that_is_none_is_named_by_its_path() {
        for (json, path, reason) in [
            (
                json!({ "a": [{ "_id": { "$oid": "xyz" } }] }),
                "filter.a[0]._id.$oid",
                "`xyz` is no ObjectId",
            ),
            (
                json!({ "at": { "$date": "yesterday" } }),
                "filter.at.$date",
                "`yesterday` is no time",
            ),
            (
                json!({ "at": { "$date": true } }),
                "filter.at.$date",
                "it is no time",
            ),
            (
                json!({ "n": { "$numberLong": "9223372036854775808" } }),
                "filter.n.$numberLong",
                "is not a 64-bit integer",
            ),
            (
                json!({ "n": { "$numberLong": 1 } }),
                "filter.n.$numberLong",
                "it is no string",
            ),
            (
                json!({ "n": 18_446_744_073_709_551_615_u64 }),
                "filter.n",
                "$numberDecimal",
            ),
            (
                json!({ "r": { "$regularExpression": { "pattern": "a", "options": "q" } } }),
                "filter.r.$regularExpression.options",
                "`q` is no option",
            ),
            (
                json!({ "b": { "$binary": { "base64": "?", "subType": "00" } } }),
                "filter.b.$binary.base64",
                "no base64",
            ),
            (
                json!({ "a": { "$oid": "0123456789abcdef01234567", "b": 1 } }),
                "filter.a.$oid",
                "alone",
            ),
            (
                json!("{\"a\": 1, \"a\": 2}"),
                "filter",
                "`a` is there twice",
            ),
            (json!("{\"a\": "), "filter", "no extended JSON"),
            (json!({ "a\0": 1 }), "filter.a\\0", "NUL"),
            (json!([1]), "filter", "no document"),
        ] {
            let error = document("filter", &json).expect_err("no document");
            assert_eq!(error.path, path, "{error}");
            assert!(error.reason.contains(reason), "{error}");
        }
    }

    #[test]
    fn keys_whose_order_counts_keep_it_or_are_refused() -> anyhow::Result<()> {
        let expected = doc! { "b": 1, "a": -1 };
        assert_eq!(keys("sort", &json!([{ "b": 1 }, { "a": -1 }]))?, expected);
        assert_eq!(keys("sort", &json!("{\"b\": 1, \"a\": -1}"))?, expected);
        assert_eq!(keys("sort", &json!({ "b": 1 }))?, doc! { "b": 1 });
        let pipeline = documents("pipeline", &json!([{ "$sort": [{ "b": 1 }, { "a": -1 }] }]))?;
        assert_eq!(pipeline, [doc! { "$sort": { "b": 1, "a": -1 } }]);
        if !is_order_kept() {
            for refused in [
                keys("sort", &json!({ "b": 1, "a": -1 })),
                document("stage", &json!({ "$sort": { "b": 1, "a": -1 } })),
            ] {
                let error = refused.expect_err("the order is lost");
                assert!(error.to_string().contains("order"), "{error}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_hundred_values_may_stand_within_each_other_and_no_more() {
        let nested = |depth: usize| {
            let mut value = json!(1);
            for _ in 1..depth {
                value = json!({ "a": value });
            }
            value
        };
        assert!(document("filter", &nested(DEEPEST)).is_ok());
        let error = document("filter", &nested(DEEPEST + 1)).expect_err("too deep");
        assert!(error.reason.contains("100 deep"), "{error}");
    }
}
