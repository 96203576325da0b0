//! Processes of this machine, found by what stands in their arguments: whether something was left running.

use std::time::{Duration, Instant};

use anyhow::bail;

/// A process as `/proc` shows it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub id: u32,
    /// Program and arguments.
    pub arguments: Vec<String>,
}

/// Every process with this text in an argument, this one excepted.
///
/// # Errors
/// `/proc` cannot be read.
pub fn all_of(text: &str) -> anyhow::Result<Vec<Process>> {
    let own = std::process::id();
    let mut found = all()?;
    found.retain(|process| {
        let mut arguments = process.arguments.iter();
        process.id != own && arguments.any(|argument| argument.contains(text))
    });
    Ok(found)
}

/// The processes that this one has started itself.
///
/// # Errors
/// `/proc` cannot be read.
pub fn children_of(parent: u32) -> anyhow::Result<Vec<Process>> {
    let mut found = all()?;
    found.retain(|process| parent_of(process.id) == Some(parent));
    Ok(found)
}

/// Waits until no process with this text in an argument is left.
///
/// # Errors
/// Some are after the given time; they are named.
pub async fn until_none_of(text: &str, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let left = all_of(text)?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("still there after {patience:?}: {left:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn all() -> anyhow::Result<Vec<Process>> {
    let ids = std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // A process may end while it is looked at; a zombie has no arguments.
    Ok(ids
        .filter_map(|id| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
            let arguments = line
                .split(|byte| *byte == 0)
                .filter(|part| !part.is_empty());
            Some(Process {
                id,
                arguments: arguments
                    .map(|part| String::from_utf8_lossy(part).into_owned())
                    .collect(),
            })
        })
        .collect())
}

fn parent_of(id: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}
