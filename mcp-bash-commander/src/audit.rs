//! `audit verify`: the call logs of a state directory, checked line by line.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use shared::call_log::{self, Head, VerifyError};
use shared::state_dir;

use crate::config::Config;
use crate::server::NAME;

/// Prints a line for each log; 1 if one of them is not as it was written, if the noted head is in none of them, or if there is none where
/// the command line says.
pub(crate) fn verify(config: &Config, against: Option<&str>) -> anyhow::Result<ExitCode> {
    let given = config.serve.state_dir.as_deref();
    // Looking must not make it.
    if let Some(given) = given.filter(|given| given.symlink_metadata().is_err()) {
        bail!("no call log in {}: it is not there", given.display());
    }
    let state = state_dir::open(NAME, given)?;
    let head = against.map(Head::from_argument).transpose()?;
    let logs = call_log::files(&state)
        .with_context(|| format!("failed to look into `{}`", state.display()))?;
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
        match call_log::verify(log, None) {
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
        is_found = is_found || call_log::verify(log, head.as_ref()).is_ok();
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
