//! Outcome specifications: what must be true, in the words of whoever asks for it, read from any of the dialects they are written in.

mod criterion;
mod decimal;
mod document;
mod identity;
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
pub use identity::{IdentityError, SpecId, Version};
pub use measure::{Grade, Limit, Load, Measure, Operator};
pub use problem::{Problem, ProblemCode, Severity};
pub use unit::Dimension;

use parse::Draft;

/// How many faults of a text that is no YAML are reported at once.
const MAX_YAML_FAULTS: usize = 8;

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

/// What a look at a text found: a specification if there is one in it, and every problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// The specification, also where it has errors, as long as it can be read and has an id.
    pub specification: Option<Specification>,
    /// Errors, warnings and notes, worst first.
    pub problems: Vec<Problem>,
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

/// Looks a text over and says everything there is to say about it; never fails.
pub fn examine(text: impl AsRef<[u8]>, spec_id: Option<&str>) -> Examination {
    let bytes = text.as_ref();
    let mut examination = match read_text(bytes) {
        Ok(text) => examine_text(text, spec_id),
        Err(problems) => Examination {
            specification: None,
            problems,
        },
    };
    examination
        .problems
        .sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    examination
}

fn read_text(bytes: &[u8]) -> Result<&str, Vec<Problem>> {
    if bytes.len() > document::MAX_BYTES {
        let message = format!(
            "the text has {} bytes; the most is {}",
            bytes.len(),
            document::MAX_BYTES
        );
        return Err(vec![Problem::new(
            Severity::Error,
            ProblemCode::TooLarge,
            message,
            "split the specification",
        )]);
    }
    yaml_error::text_of(bytes).map_err(|problem| vec![problem])
}

fn examine_text(text: &str, spec_id: Option<&str>) -> Examination {
    let document = match document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            return Examination {
                specification: None,
                problems: yaml_problems(text, error),
            };
        }
    };
    let mut draft = parse::read(&document);
    draft.problems.extend(review::review(&draft));
    let version = draft.version.take().map_or_else(
        || "1".parse().ok(),
        |(version, place)| match version.parse::<Version>() {
            Ok(version) => Some(version),
            Err(error) => {
                let hint = "write it like `1.10`; quotes are not needed";
                draft.problems.push(
                    Problem::new(
                        Severity::Error,
                        ProblemCode::VersionInvalid,
                        error.to_string(),
                        hint,
                    )
                    .at(place),
                );
                None
            }
        },
    );
    let spec_id = identify(&mut draft, spec_id);
    let problems = std::mem::take(&mut draft.problems);
    let specification = match (spec_id, version) {
        (Some(spec_id), Some(version)) => Some(assemble(draft, spec_id, version, text, &problems)),
        _ => None,
    };
    Examination {
        specification,
        problems,
    }
}

/// The id in the text or the one given beside it.
fn identify(draft: &mut Draft, given: Option<&str>) -> Option<SpecId> {
    let hint = "use lower-case letters, digits and hyphens, like `test-web-service`";
    let (written, place) = match (draft.spec_id.take(), given) {
        (Some((written, place)), _) => (written, Some(place)),
        (None, Some(given)) => (given.to_owned(), None),
        (None, None) => {
            let message = "the specification has no id";
            let hint = "write `spec_id: my-service` as its first line, or give `spec_id` beside it";
            draft.problems.push(Problem::new(
                Severity::Error,
                ProblemCode::SpecIdMissing,
                message,
                hint,
            ));
            return None;
        }
    };
    let mut refuse = |code, message: String, hint: &str| {
        let problem = Problem::new(Severity::Error, code, message, hint);
        draft.problems.push(match place {
            Some(place) => problem.at(place),
            None => problem,
        });
        None
    };
    match (written.parse::<SpecId>(), given) {
        (Err(error), _) => refuse(ProblemCode::SpecIdInvalid, error.to_string(), hint),
        (Ok(written), Some(given)) if written.as_str() != given => {
            let message = format!("the text says `{written}`, and another id is given beside it");
            refuse(
                ProblemCode::SpecIdMismatch,
                message,
                "give the same id in both places, or only in the text",
            )
        }
        (Ok(written), _) => Some(written),
    }
}

fn assemble(
    draft: Draft,
    spec_id: SpecId,
    version: Version,
    text: &str,
    problems: &[Problem],
) -> Specification {
    Specification {
        spec_id,
        version,
        digest: Digest::of(text),
        dialect: draft.dialect,
        title: draft.title,
        author: draft.author,
        session: draft.session,
        outcome: draft.outcome.join("\n\n"),
        criteria: draft.criteria,
        constraints: draft.constraints,
        implementation_freedom: draft.implementation_freedom,
        checkpoints: draft.checkpoints,
        scope: draft.scope,
        dependencies: draft.dependencies,
        tags: draft.tags,
        references: draft.references,
        other: draft.other.into_iter().collect(),
        problems: problems
            .iter()
            .filter(|problem| problem.severity < Severity::Error)
            .cloned()
            .collect(),
        text: text.to_owned(),
    }
}

/// All faults of a text that is no YAML: each is mended and the rest read on, as far as mending goes.
fn yaml_problems(text: &str, first: yaml_error::YamlError) -> Vec<Problem> {
    let mut effort = mend::Effort::default();
    let mut problems = Vec::new();
    let mut text = text.to_owned();
    let mut next = Some(first);
    while let Some(error) = next {
        let mended = mend::mend(&text, &error, &mut effort);
        problems.push(error.problem(&text, mended.as_ref()));
        // A mended line of two would shift the numbers of all below it.
        let Some(mended) = mended
            .filter(|mended| !mended.corrected.contains('\n') && problems.len() < MAX_YAML_FAULTS)
        else {
            break;
        };
        text = mend::replaced(&text, mended.line, &mended.corrected);
        next = document::parse(&text).err();
    }
    problems
}
