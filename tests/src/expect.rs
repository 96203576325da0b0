//! Files of the repository that are made from the code, and must be current.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::binaries::workspace;

/// Compares a file with what the code says it should hold. With `UPDATE_EXPECT=1` the file is written instead.
///
/// # Errors
/// The file differs, or cannot be read or written.
pub fn is_current(path: impl AsRef<Path>, expected: &str) -> anyhow::Result<()> {
    let path = workspace().join(path);
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        return fs::write(&path, expected).with_context(|| path.display().to_string());
    }
    let found = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let difference = found
        .lines()
        .zip(expected.lines())
        .find(|(found, expected)| found != expected);
    if found == expected {
        return Ok(());
    }
    let (found, expected) = difference.unwrap_or(("", "a different number of lines"));
    bail!(
        "{} is not current; `UPDATE_EXPECT=1 cargo test -p tests` writes it\n  there: {found}\n  now:   {expected}",
        path.display()
    )
}
