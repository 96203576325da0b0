//! Facts about processes of this machine, and waiting for them.

use std::fs;
use std::time::{Duration, Instant};

/// Generous, since tests share few cores.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Waits for a fact.
pub(crate) fn eventually(
    what: &str,
    fact: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    within(PATIENCE, what, fact)
}

/// Waits for a fact, at most so long.
pub(crate) fn within(
    patience: Duration,
    what: &str,
    mut fact: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while !fact()? {
        anyhow::ensure!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Ok(())
}

/// How many processes of this machine have `tag` as an argument; zombies have no arguments.
pub(crate) fn processes_with(tag: &str) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let is_number = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok());
        // A process may end while one looks.
        let line = if is_number {
            fs::read(path.join("cmdline")).unwrap_or_default()
        } else {
            Vec::new()
        };
        count += usize::from(
            line.split(|byte| *byte == 0)
                .any(|argument| argument == tag.as_bytes()),
        );
    }
    Ok(count)
}

/// A number of seconds that nobody else sleeps.
pub(crate) fn tag(test: u32) -> String {
    format!("98{test}.{}", std::process::id())
}
