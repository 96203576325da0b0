//! Outcome specifications: what must be true, in the words of whoever asks for it, read from any of the dialects they are written in.

mod comparison;
mod criterion;
mod decimal;
mod dependency;
mod difference;
mod document;
mod examine;
mod identity;
mod markdown;
mod measure;
mod mend;
mod normalized;
mod parse;
mod problem;
mod reading;
mod review;
mod token;
mod unit;
mod yaml_error;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use shared::digest::Digest;

pub use criterion::Criterion;
pub use decimal::Decimal;
pub use dependency::{Standing, UnmetDependency, unmet_dependencies};
pub use difference::Difference;
pub use examine::{Examination, examine};
pub use identity::{IdentityError, SpecId, Version};
pub use measure::{Grade, Limit, Load, Measure, Operator};
pub use problem::{Problem, ProblemCode, Severity};
pub use unit::Dimension;

/// An outcome specification as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Specification {
    /// Its id: lower-case letters, digits and hyphens.
    pub spec_id: SpecId,
    /// Its version exactly as written; "1" where none is.
    pub version: Version,
    /// SHA-256 of the text as it stands in the file, to the byte.
    pub digest: Digest,
    /// The form it is written in.
    pub dialect: Dialect,
    /// A name for people, where one is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The session it was written in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What must be true.
    pub outcome: String,
    /// What shows that it is.
    pub criteria: Vec<Criterion>,
    /// What every way to it has to keep.
    pub constraints: Vec<Criterion>,
    /// What the agent may decide by itself.
    pub implementation_freedom: Vec<String>,
    /// Where a human decides.
    pub checkpoints: Vec<Checkpoint>,
    /// What is there, what is made, what is left alone.
    pub scope: Scope,
    /// Other specifications that have to hold first.
    pub dependencies: Vec<Dependency>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Where to read on.
    pub references: Vec<String>,
    /// Keys that are not known here, with their values; kept, not acted on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, serde_json::Value>,
    /// Warnings and notes about it.
    pub problems: Vec<Problem>,
    #[serde(skip)]
    text: String,
}

/// The form a specification is written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `spec_id`, `outcome`, `success_criteria`, `constraints`, checkpoints.
    #[default]
    Full,
    /// `goal` and a list `validation`.
    Short,
    /// `security_outcome` and `security_validation`.
    Security,
    /// `id` and `metadata`, `validation` under headings.
    Metadata,
    /// `outcome` and `test_gates` or `tests`.
    TestGates,
    /// Markdown with a heading for each part, `Outcome`, `Test Gates`, `Constraints` and so on.
    Markdown,
}

/// A point where a human decides, and on what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Checkpoint {
    /// `V1`, `V2`.
    pub name: String,
    /// What the human does there, as written.
    pub text: String,
}

/// What belongs to the work and what does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Scope {
    /// What is there already.
    pub pre_existing: Vec<String>,
    /// What is made.
    pub create: Vec<String>,
    /// What is left alone.
    pub out_of_scope: Vec<String>,
}

/// Another specification that has to hold first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Dependency {
    /// Its id, as written.
    pub spec_id: String,
    /// What it is needed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a text is no specification: every error found in it, the first one in the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", first_error(.problems))]
pub struct SpecificationError {
    /// All problems, errors first.
    pub problems: Vec<Problem>,
}

impl SpecificationError {
    /// The first error.
    pub fn first(&self) -> Option<&Problem> {
        self.problems.first()
    }

    /// The code of the first error.
    pub fn code(&self) -> ProblemCode {
        self.first()
            .map_or(ProblemCode::WrongShape, |problem| problem.code)
    }

    /// What would be right.
    pub fn hint(&self) -> &str {
        self.first().map_or("", |problem| &problem.hint)
    }
}

fn first_error(problems: &[Problem]) -> String {
    match problems {
        [] => "no problem is known".to_owned(),
        [only] => only.to_string(),
        [first, rest @ ..] => match rest
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count()
        {
            0 => first.to_string(),
            more => format!("{first} (and {more} more)"),
        },
    }
}

impl Specification {
    /// Reads a specification; `spec_id` is needed beside a text that does not name one, and must not differ from one it names.
    pub fn parse(
        text: impl AsRef<[u8]>,
        spec_id: Option<&str>,
    ) -> Result<Self, SpecificationError> {
        let Examination {
            specification,
            problems,
        } = examine(text, spec_id);
        match specification {
            Some(specification)
                if problems
                    .iter()
                    .all(|problem| problem.severity < Severity::Error) =>
            {
                Ok(specification)
            }
            _ => Err(SpecificationError { problems }),
        }
    }

    /// The text as it stands in the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The title, or the first line of the outcome.
    pub fn title(&self) -> &str {
        self.title
            .as_deref()
            .unwrap_or_else(|| self.outcome.lines().next().unwrap_or_default())
    }

    /// The criterion or constraint with this name.
    pub fn criterion(&self, criterion_id: &str) -> Option<&Criterion> {
        self.criteria
            .iter()
            .chain(&self.constraints)
            .find(|criterion| criterion.criterion_id == criterion_id)
    }

    /// The same specification in the full form, keys and lists in one order, as YAML.
    pub fn normalized(&self) -> String {
        normalized::render(self)
    }
}

/// What a search index keeps of a specification: the words of its id, its title, its outcome and its tags.
///
/// The criteria stay out; their numbers would only dilute what a search compares.
pub fn search_text(specification: &Specification) -> String {
    let mut text = specification.spec_id.as_str().replace('-', " ");
    let parts = specification
        .title
        .iter()
        .chain([&specification.outcome])
        .chain(&specification.tags);
    for part in parts {
        text.push('\n');
        text.push_str(&part.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    text
}

#[cfg(test)]
mod tests;
