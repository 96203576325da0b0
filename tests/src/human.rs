//! A human at the command line of the registry, and what they read there.

use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Runs a human's command and answers what it printed; the secret, if there is one, goes through its stdin.
///
/// # Errors
/// It fails; all it said is quoted.
pub async fn run(mut command: Command, secret: Option<&str>) -> anyhow::Result<String> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    if let Some(secret) = secret {
        // It may end without reading; what it says then is more telling than a broken pipe.
        let _ = stdin.write_all(format!("{secret}\n").as_bytes()).await;
    }
    drop(stdin);
    let output = child.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{:?} failed: {}{said}",
        command.as_std().get_args(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// The criteria in what `show --json` printed whose measurement came out unknown; accepting names each of them.
pub fn unknown_criteria(shown: &Value) -> Vec<&str> {
    ["criteria", "constraints"]
        .into_iter()
        .flat_map(|list| shown[list].as_array().into_iter().flatten())
        .filter(|criterion| {
            let mut evidence = criterion["evidence"].as_array().into_iter().flatten();
            evidence.any(|evidence| evidence["verdict"] == "unknown")
        })
        .filter_map(|criterion| criterion["key"].as_str())
        .collect()
}
