//! `audit verify`: the call logs of a state directory, checked line by line.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::{Head, VerifyError, files, verify};
use crate::state_dir;

/// What can be done with the call log.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Check the chain of every call log in the state directory: 0 and a summary, or 1 and the first bad line.
    Verify {
        /// A head noted earlier (SEQ:HASH, or a file that holds it): also finds a cut-off end.
        #[arg(long, value_name = "HEAD|FILE")]
        against: Option<String>,
    },
}

/// Prints a line for each log; 1 if one of them is not as it was written, if the noted head is in none of them, or if there is none where
/// the command line says (`given`, else that of the server of this name).
///
/// # Errors
/// A directory or log that cannot be read, or a head that is none.
pub fn audit(name: &str, given: Option<&Path>, command: &AuditCommand) -> anyhow::Result<ExitCode> {
    let AuditCommand::Verify { against } = command;
    // Looking must not make it.
    if let Some(given) = given.filter(|given| given.symlink_metadata().is_err()) {
        bail!("no call log in {}: it is not there", given.display());
    }
    let state = state_dir::open(name, given)?;
    let head = against.as_deref().map(Head::from_argument).transpose()?;
    let logs =
        files(&state).with_context(|| format!("failed to look into `{}`", state.display()))?;
    let mut out = std::io::stdout();
    if logs.is_empty() {
        if given.is_some() {
            bail!("no call log in {}", state.display());
        }
        writeln!(out, "no call log in {}", state.display())?;
    }
    let mut is_intact = true;
    let mut is_found = head.is_none();
    for log in &logs {
        match verify(log, None) {
            Ok(summary) => {
                let (entries, recovered, head) = (summary.entries, summary.recovered, summary.head);
                writeln!(
                    out,
                    "ok   {}: {entries} entries, {recovered} recovered, head {head}",
                    log.display()
                )?;
            }
            Err(error @ VerifyError::Bad { .. }) => {
                writeln!(out, "BAD  {error}")?;
                is_intact = false;
            }
            Err(error) => return Err(error.into()),
        }
        // Where several servers share the directory, the head belongs to one of their logs.
        is_found = is_found || verify(log, head.as_ref()).is_ok();
    }
    if let Some(head) = head.filter(|_| !is_found) {
        writeln!(
            out,
            "BAD  no log holds {head}: it was cut off there or before, or is another log"
        )?;
        is_intact = false;
    }
    Ok(if is_intact {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
