//! What is wrong with a YAML text and where, in words for someone who does not know YAML's rules by heart.

use super::mend;
use super::problem::{Place, Problem, ProblemCode, Severity};

/// The longest line that is quoted back.
const MAX_SHOWN: usize = 400;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Syntax(String),
    #[error("the key `{key}` already stands in line {first_line}")]
    DuplicateKey { key: String, first_line: u32 },
    #[error("a second YAML document begins here")]
    SecondDocument,
    #[error(
        "`&` and `*` at the start of a value are YAML anchors and aliases, which specifications do not use"
    )]
    Anchor,
    #[error("`!` at the start of a value is a YAML tag, which specifications do not use")]
    Tag,
    #[error("a list or map stands where a key belongs")]
    ComplexKey,
    #[error("`{0}` is not a finite number")]
    NonFinite(String),
    #[error("YAML takes `{0}` for the head of a text block, and the block is empty")]
    BlockHeader(String),
    #[error("there are more than {0} values")]
    TooManyNodes(usize),
    #[error("lists and maps nest deeper than {0}")]
    TooDeep(usize),
}

impl Fault {
    const fn hint(&self) -> &'static str {
        match self {
            Self::Syntax(_) => {
                "put the value in double quotes if it begins with a sign or holds a colon; indent with spaces"
            }
            Self::DuplicateKey { .. } => "keep one of the two, or join their values",
            Self::SecondDocument => {
                "put each specification into a file of its own and remove the `---` between them"
            }
            Self::Anchor => "write the text out, or put the value in double quotes",
            Self::Tag => "remove the tag, or put the value in double quotes",
            Self::ComplexKey => {
                "use a short text as the key; put a text with brackets in double quotes"
            }
            Self::NonFinite(_) => "give a finite number, or put the value in double quotes",
            Self::BlockHeader(_) => "put the value in double quotes",
            Self::TooManyNodes(_) => "split the specification",
            Self::TooDeep(_) => "flatten it: a heading, a list below it, and no more",
        }
    }
}

/// A fault and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlError {
    pub(super) place: Place,
    pub(super) fault: Fault,
}

impl YamlError {
    pub(super) const fn new(place: Place, fault: Fault) -> Self {
        Self { place, fault }
    }

    /// The error as a problem with its line, and the corrected line where one was found that parses.
    pub(super) fn problem(&self, text: &str, mended: Option<&mend::Mended>) -> Problem {
        let (line, hint) = match mended {
            Some(mended) => (mended.line, mended.reason),
            None => (self.place.line, self.fault.hint()),
        };
        // A line may have to change above the place where the parser gave up.
        let place = if line == self.place.line {
            self.place
        } else {
            Place { line, column: 1 }
        };
        let mut problem = Problem::new(
            Severity::Error,
            ProblemCode::Yaml,
            self.fault.to_string(),
            hint,
        )
        .at(place);
        problem.source = Some(shown(line_of(text, line)));
        problem.corrected = mended.map(|mended| mended.corrected.clone());
        problem
    }
}

/// The line with this number, without its end.
pub(super) fn line_of(text: &str, line: u32) -> &str {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .nth((line as usize).saturating_sub(1))
        .unwrap_or_default()
}

fn shown(line: &str) -> String {
    match line.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Makes text of bytes; refuses what is no text, saying where and what it may be instead.
pub(super) fn text_of(bytes: &[u8]) -> Result<&str, Problem> {
    let not_text = |message: String, hint: &str| {
        Problem::new(Severity::Error, ProblemCode::NotText, message, hint)
    };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(not_text(
            "the text is UTF-16".to_owned(),
            "save it as UTF-8",
        ));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let wrong = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
            let place = place_after(&String::from_utf8_lossy(valid));
            let whole: String = bytes.iter().map(|byte| char::from(*byte)).collect();
            let line = line_of(&whole, place.line);
            let message = format!(
                "the byte 0x{wrong:02x} is not UTF-8; in Latin-1 it is `{}`",
                char::from(wrong)
            );
            let mut problem = not_text(message, "save the file as UTF-8").at(place);
            problem.source = Some(shown(
                &line.replace(|character: char| !character.is_ascii(), "\u{fffd}"),
            ));
            let mendable = wrong >= 0xa0 && line.chars().count() <= MAX_SHOWN;
            problem.corrected = mendable.then(|| line.to_owned());
            return Err(problem);
        }
    };
    let control =
        |character: char| character.is_control() && !matches!(character, '\n' | '\r' | '\t');
    if let Some(at) = text.find(control) {
        let code = text[at..].chars().next().map_or(0, u32::from);
        let place = place_after(&text[..at]);
        let mut problem = not_text(
            format!("the control character U+{code:04X} stands in the text"),
            "remove it",
        )
        .at(place);
        problem.source = Some(shown(
            &line_of(text, place.line).replace(control, "\u{fffd}"),
        ));
        return Err(problem);
    }
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        let hint = "write at least `spec_id: my-service` and `outcome: what must be true`";
        return Err(not_text("the text is empty".to_owned(), hint));
    }
    Ok(text)
}

fn place_after(before: &str) -> Place {
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    Place {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
    }
}
