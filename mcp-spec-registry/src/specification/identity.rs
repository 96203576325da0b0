//! What a specification is called: its id and its version.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

/// The longest id, in characters.
const MAX_ID: usize = 100;
/// The longest version, in characters.
const MAX_VERSION: usize = 64;

/// Why a text is no id or version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The id is empty.
    #[error(
        "the specification id is empty; use lower-case letters, digits and hyphens, like `test-web-service`"
    )]
    IdEmpty,
    /// The id is too long.
    #[error("the specification id has {0} characters; the most is {MAX_ID}")]
    IdTooLong(usize),
    /// The id holds a character it may not.
    #[error(
        "the specification id `{id}` holds {character}; use lower-case letters, digits and hyphens, like `{suggestion}`"
    )]
    IdCharacter {
        /// The id, shortened.
        id: String,
        /// The character by name.
        character: String,
        /// A near id that would do.
        suggestion: String,
    },
    /// The id begins or ends with a hyphen.
    #[error("the specification id `{0}` begins or ends with a hyphen")]
    IdHyphen(String),
    /// The version is not one.
    #[error(
        "the version `{0}` is none; use up to {MAX_VERSION} letters, digits, dots, hyphens, pluses and underscores, like `1.10` or `2.1.0-rc1`"
    )]
    Version(String),
}

/// The id of a specification: lower-case letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SpecId(String);

impl SpecId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SpecId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let length = text.chars().count();
        if text.is_empty() {
            return Err(IdentityError::IdEmpty);
        }
        if length > MAX_ID {
            return Err(IdentityError::IdTooLong(length));
        }
        let allowed = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '-');
        if let Some(wrong) = text.chars().find(|character| !allowed(*character)) {
            return Err(IdentityError::IdCharacter {
                id: visible(text),
                character: name_of(wrong),
                suggestion: suggestion(text),
            });
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(IdentityError::IdHyphen(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SpecId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl JsonSchema for SpecId {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SpecId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// A version exactly as its author wrote it: `1.10` is not `1.1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Version(String);

impl Version {
    /// The version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of two versions is the later one, number by number: 1.9 < 1.10 < 2.0-rc1 < 2.0; a leading `v` does not count.
    ///
    /// Two that differ only in spelling (`1.0`, `v1.0`) are equal here and yet different versions.
    pub fn compare(&self, other: &Self) -> Ordering {
        let (numbers, pre_release) = self.parts();
        let (other_numbers, other_pre_release) = other.parts();
        let by_number = || {
            let longest = numbers.len().max(other_numbers.len());
            let at =
                |parts: &[&str], index: usize| parts.get(index).copied().unwrap_or("0").to_owned();
            (0..longest)
                .map(|index| natural(&at(&numbers, index), &at(&other_numbers, index)))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        by_number().then_with(|| match (pre_release, other_pre_release) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(two)) => natural(one, two),
        })
    }

    fn parts(&self) -> (Vec<&str>, Option<&str>) {
        let text = self.0.strip_prefix(['v', 'V']).unwrap_or(&self.0);
        let text = text.split('+').next().unwrap_or(text);
        let (numbers, pre_release) = match text.split_once('-') {
            Some((numbers, pre_release)) => (numbers, Some(pre_release)),
            None => (text, None),
        };
        (numbers.split('.').collect(), pre_release)
    }
}

/// Compares runs of digits as numbers and the rest as text.
fn natural(one: &str, two: &str) -> Ordering {
    let digits_at_end =
        |text: &str| text.len() - text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let split = |text: &'_ str| {
        let (head, digits) = text.split_at(text.len() - digits_at_end(text));
        let digits = digits.trim_start_matches('0');
        (head.to_owned(), digits.len(), digits.to_owned())
    };
    split(one).cmp(&split(two))
}

impl FromStr for Version {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let allowed = |character: char| {
            character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '+' | '_')
        };
        let begins_well = text.starts_with(|character: char| character.is_ascii_alphanumeric());
        if begins_well
            && text.len() <= MAX_VERSION
            && text.chars().all(allowed)
            && !text.contains("..")
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdentityError::Version(visible(text)))
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl JsonSchema for Version {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// The text on one short line, every character outside printable ASCII as `\u{…}`, so that look-alikes show.
fn visible(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_ID)
        .map(|character| match character {
            ' '..='~' => character.to_string(),
            other => format!("\\u{{{:x}}}", u32::from(other)),
        })
        .collect();
    if text.chars().count() > MAX_ID {
        shown.push('…');
    }
    shown
}

fn name_of(character: char) -> String {
    match character {
        'A'..='Z' => format!("the upper-case letter `{character}`"),
        ' ' => "a space".to_owned(),
        '!'..='~' => format!("`{character}`"),
        other if other.is_alphabetic() => {
            format!(
                "U+{:04X}, a letter that is not one of a to z though it may look like one",
                u32::from(other)
            )
        }
        other => format!("the character U+{:04X}", u32::from(other)),
    }
}

fn suggestion(text: &str) -> String {
    let mut suggestion = String::new();
    for character in text.chars().flat_map(char::to_lowercase).take(MAX_ID) {
        match character {
            'a'..='z' | '0'..='9' => suggestion.push(character),
            _ if !suggestion.is_empty() && !suggestion.ends_with('-') => suggestion.push('-'),
            _ => {}
        }
    }
    let trimmed = suggestion.trim_end_matches('-');
    if trimmed.is_empty() {
        "my-service".to_owned()
    } else {
        trimmed.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_number_by_number() {
        let sorted = [
            "1", "1.1", "1.9", "1.10", "2.0-rc1", "2.0-rc2", "2.0-rc10", "2.0", "10",
        ];
        let versions: Result<Vec<Version>, _> = sorted.iter().map(|text| text.parse()).collect();
        for pair in versions.iter().flatten().collect::<Vec<_>>().windows(2) {
            assert_eq!(pair[0].compare(pair[1]), Ordering::Less, "{pair:?}");
        }
    }

    #[test]
    fn a_suggested_id_is_an_id() {
        for text in [
            "Test Web Service",
            "../../etc/passwd",
            "tеst",
            "---",
            "日本",
            &"A/".repeat(300),
        ] {
            assert!(suggestion(text).parse::<SpecId>().is_ok(), "{text:?}");
        }
    }
}
