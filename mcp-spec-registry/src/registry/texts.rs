//! How long what an agent writes may be: a human reads it, and it stays on record.

use super::RegistryError;
use crate::run::Rationale;

/// Bytes of an agent's description, and of the reason for a proposal.
pub(super) const SHORT: usize = 2 * 1024;
/// Bytes of a deviation, and of each part of a rationale.
pub(super) const LONG: usize = 8 * 1024;
/// Bytes of the report at the end of Generate.
pub(super) const REPORT: usize = 16 * 1024;
/// Options of one rationale.
const MOST_OPTIONS: usize = 16;
/// Rationales of one run.
const MOST_RATIONALES: usize = 256;

/// `TEXT_TOO_LONG` for a text of more bytes.
pub(super) fn check(name: &str, text: &str, most: usize) -> Result<(), RegistryError> {
    if text.len() <= most {
        return Ok(());
    }
    Err(RegistryError::new(
        "TEXT_TOO_LONG",
        format!(
            "`{name}` has {} bytes; at most {most} are taken",
            text.len()
        ),
        "say the same in fewer words; long output belongs into a file that a step leaves behind",
    ))
}

/// As [`check`] for every part of a rationale; `TOO_MANY` for too many options, or for one more than a run takes.
pub(super) fn check_rationale(rationale: &Rationale, recorded: usize) -> Result<(), RegistryError> {
    let too_many = |what: &str, most: usize| {
        RegistryError::new(
            "TOO_MANY",
            format!("at most {most} {what} are taken"),
            "record the choices that a reader of the run has to know",
        )
    };
    if recorded >= MOST_RATIONALES {
        return Err(too_many("rationales of one run", MOST_RATIONALES));
    }
    if rationale.options.len() > MOST_OPTIONS {
        return Err(too_many("options", MOST_OPTIONS));
    }
    check("question", &rationale.question, LONG)?;
    check("chosen", &rationale.chosen, LONG)?;
    check("why", &rationale.why, LONG)?;
    rationale
        .options
        .iter()
        .try_for_each(|option| check("options", option, LONG))
}
