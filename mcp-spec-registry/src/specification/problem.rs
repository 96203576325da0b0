//! What is wrong, doubtful or worth knowing about a specification, each with what would be right.

use schemars::JsonSchema;
use serde::Serialize;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing has to change.
    Note,
    /// Probably not what was meant; the specification is accepted.
    Warning,
    /// The specification is refused until it is mended.
    Error,
}

/// What kind of problem it is; stable, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProblemCode {
    /// The text is not UTF-8, holds control characters, or is empty.
    NotText,
    /// The text is over a limit.
    TooLarge,
    /// The text is not YAML.
    Yaml,
    /// A value stands where another kind of value belongs.
    WrongShape,
    /// There is no `spec_id`, neither in the text nor beside it.
    SpecIdMissing,
    /// The `spec_id` breaks its rules.
    SpecIdInvalid,
    /// The `spec_id` in the text is not the one given beside it.
    SpecIdMismatch,
    /// The version breaks its rules.
    VersionInvalid,
    /// There is no outcome, or it is empty.
    OutcomeEmpty,
    /// The outcome says how, not what.
    OutcomePrescribes,
    /// The outcome promises a number that no criterion holds it to.
    OutcomeUnmeasured,
    /// There is no criterion.
    CriteriaMissing,
    /// Two limits of one thing cannot both hold.
    Contradiction,
    /// A limit is below zero.
    ValueNegative,
    /// A limit is no number.
    ValueNotANumber,
    /// A limit nothing can reach.
    ValueImpossible,
    /// A number is written in a way that reads differently in different places.
    NumberUnclear,
    /// The unit is not known.
    UnitUnknown,
    /// There is no unit.
    UnitMissing,
    /// The unit has two meanings; the stricter one is used.
    UnitAmbiguous,
    /// It is not said whether a number is a lower or an upper limit.
    OperatorMissing,
    /// The key is not known; its value is kept.
    KeyUnknown,
    /// There are more problems than are listed.
    MoreProblems,
}

/// One problem of a specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// What kind it is.
    pub code: ProblemCode,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: String,
    /// The line, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in characters, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The line as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The line to put in its place; tried, it parses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected: Option<String>,
}

impl Problem {
    pub(super) fn new(
        severity: Severity,
        code: ProblemCode,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            hint: hint.into(),
            line: None,
            column: None,
            source: None,
            corrected: None,
        }
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.line = Some(place.line);
        self.column = Some(place.column);
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(formatter, "line {line}, column {column}: ")?;
        }
        formatter.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(formatter, "; the line is `{source}`")?;
        }
        match &self.corrected {
            Some(corrected) => write!(formatter, "; replace it by `{corrected}`"),
            None => write!(formatter, "; {}", self.hint),
        }
    }
}

/// A place in the text, line and column counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The beginning of a text, for messages.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
