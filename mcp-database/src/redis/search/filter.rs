//! What hits must fulfil, as a tree: a query language that callers cannot write into.

use serde::Deserialize;

use super::SearchError;

/// Levels of a filter.
const DEEPEST: usize = 10;
/// Parts of a filter, and words of a text.
const MOST_PARTS: usize = 200;

/// What a hit fulfils.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// All of these.
    All(Vec<Filter>),
    /// One of these.
    Any(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// A tag field has one of these values, exactly.
    Tag {
        /// Field.
        field: String,
        /// Values.
        any_of: Vec<String>,
    },
    /// A number is within these bounds, which belong to it.
    Number {
        /// Field.
        field: String,
        /// Least; none if absent.
        min: Option<f64>,
        /// Most; none if absent.
        max: Option<f64>,
    },
    /// A text field has all these words.
    Text {
        /// Field.
        field: String,
        /// Words.
        words: String,
    },
}

/// Values that the query names by their number.
#[derive(Debug, Default)]
pub(super) struct Parameters(pub(super) Vec<Vec<u8>>);

impl Parameters {
    /// What stands for the value in the query.
    pub(super) fn of(&mut self, value: &[u8]) -> String {
        self.0.push(value.to_vec());
        format!("$p{}", self.0.len() - 1)
    }
}

/// Says whether the index has a field of a type.
pub(super) type HasField<'a> = dyn Fn(&str, &'static str) -> Result<(), SearchError> + 'a;

impl Filter {
    /// As the server's language has it.
    pub(super) fn query(
        &self,
        has_field: &HasField<'_>,
        parameters: &mut Parameters,
        depth: usize,
    ) -> Result<String, SearchError> {
        if depth > DEEPEST || parameters.0.len() > MOST_PARTS {
            let message = format!("a filter has {DEEPEST} levels and {MOST_PARTS} values at most");
            return Err(SearchError::Filter(message));
        }
        let mut joined = |parts: &[Self], between: &str| {
            if parts.is_empty() || parts.len() > MOST_PARTS {
                let message = format!("`all` and `any` have 1 to {MOST_PARTS} parts");
                return Err(SearchError::Filter(message));
            }
            let parts: Result<Vec<String>, _> = parts
                .iter()
                .map(|part| part.query(has_field, parameters, depth + 1))
                .collect();
            Ok(format!("({})", parts?.join(between)))
        };
        match self {
            Self::All(parts) => joined(parts, " "),
            Self::Any(parts) => joined(parts, " | "),
            Self::Not(part) => Ok(format!(
                "(-{})",
                part.query(has_field, parameters, depth + 1)?
            )),
            Self::Tag { field, any_of } => {
                has_field(field, "TAG")?;
                if any_of.is_empty()
                    || any_of.len() > MOST_PARTS
                    || any_of.iter().any(String::is_empty)
                {
                    let message =
                        format!("`any_of` has 1 to {MOST_PARTS} values, none of them empty");
                    return Err(SearchError::Filter(message));
                }
                let values: Vec<String> = any_of.iter().map(|value| escaped(value)).collect();
                Ok(format!("@{}:{{{}}}", name(field), values.join(" | ")))
            }
            Self::Number { field, min, max } => {
                has_field(field, "NUMERIC")?;
                if min.or(*max).is_none() || [min, max].iter().any(|n| n.is_some_and(f64::is_nan)) {
                    let message = "a number has `min` or `max`".to_owned();
                    return Err(SearchError::Filter(message));
                }
                // Numbers are written by us, and nothing else can come of them.
                let bound = |bound: &Option<f64>, none: &str| match bound {
                    None => none.to_owned(),
                    Some(f64::INFINITY) => "+inf".to_owned(),
                    Some(f64::NEG_INFINITY) => "-inf".to_owned(),
                    Some(number) => number.to_string(),
                };
                let (min, max) = (bound(min, "-inf"), bound(max, "+inf"));
                Ok(format!("@{}:[{min} {max}]", name(field)))
            }
            Self::Text { field, words: text } => {
                has_field(field, "TEXT")?;
                let words = words(text);
                if words.is_empty() {
                    let message = format!("`{text}` has no words to search for");
                    return Err(SearchError::Filter(message));
                }
                let words: Vec<String> = words
                    .iter()
                    .map(|word| parameters.of(word.as_bytes()))
                    .collect();
                Ok(format!("@{}:({})", name(field), words.join(" ")))
            }
        }
    }
}

/// The words of a text, at most 200: letters, digits, and what joins them in no language of queries.
pub(super) fn words(text: &str) -> Vec<String> {
    text.split(|character: char| !(character.is_alphanumeric() || character == '_'))
        .filter(|word| !word.is_empty())
        .take(MOST_PARTS)
        .map(str::to_lowercase)
        .collect()
}

/// The name of a field that the index has, so that nothing in it means anything.
pub(super) fn name(field: &str) -> String {
    escaped(field)
}

/// A text in which nothing means anything: `\` before whatever is no letter, digit, or `_`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if character.is_ascii() && !(character.is_ascii_alphanumeric() || character == '_') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(json: serde_json::Value) -> Result<(String, Vec<String>), SearchError> {
        let filter: Filter =
            serde_json::from_value(json).map_err(|error| SearchError::Filter(error.to_string()))?;
        let mut parameters = Parameters::default();
        let query = filter.query(&|_, _| Ok(()), &mut parameters, 0)?;
        let values = parameters.0.iter();
        let values = values.map(|value| String::from_utf8_lossy(value).into_owned());
        Ok((query, values.collect()))
    }

    #[test]
    fn a_filter_becomes_a_query_with_nothing_of_the_callers_own_in_it() -> anyhow::Result<()> {
        for (filter, expected, values) in [
            (
                serde_json::json!({ "tag": { "field": "kind", "any_of": ["a}|@x:{b", "c d"] } }),
                r"@kind:{a\}\|\@x\:\{b | c\ d}",
                vec![],
            ),
            (
                serde_json::json!({ "number": { "field": "price", "min": 1.5 } }),
                "@price:[1.5 +inf]",
                vec![],
            ),
            (
                serde_json::json!({ "all": [
                    { "text": { "field": "body", "words": "Hello)|(@x:y -world" } },
                    { "not": { "tag": { "field": "a-b", "any_of": ["x*"] } } },
                ] }),
                r"(@body:($p0 $p1 $p2 $p3) (-@a\-b:{x\*}))",
                vec!["hello", "x", "y", "world"],
            ),
        ] {
            let (query, found) = query(filter)?;
            assert_eq!(
                (query.as_str(), found),
                (expected, values.iter().map(ToString::to_string).collect())
            );
        }
        Ok(())
    }

    #[test]
    fn a_filter_that_says_nothing_or_too_much_is_refused() {
        let mut deep = serde_json::json!({ "tag": { "field": "a", "any_of": ["x"] } });
        for _ in 0..=DEEPEST {
            deep = serde_json::json!({ "not": deep });
        }
        for filter in [
            deep,
            serde_json::json!({ "all": [] }),
            serde_json::json!({ "tag": { "field": "a", "any_of": [] } }),
            serde_json::json!({ "tag": { "field": "a", "any_of": [""] } }),
            serde_json::json!({ "number": { "field": "a" } }),
            serde_json::json!({ "text": { "field": "a", "words": "-|()" } }),
            serde_json::json!({ "raw": "@a:*" }),
            serde_json::json!({ "tag": { "field": "a", "any_of": ["x"], "raw": "*" } }),
        ] {
            assert!(query(filter.clone()).is_err(), "{filter}");
        }
    }
}
