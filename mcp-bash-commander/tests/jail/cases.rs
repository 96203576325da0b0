//! The cases an attacker may try, with the tests and the attempts of the probe that show each.

mod calls;
mod channels;
mod faults;
mod files;
mod inputs;
mod processes;

use std::collections::BTreeSet;
use std::path::Path;

/// One thing a hostile command, client or repository may try.
pub(crate) struct Case {
    pub(crate) number: u32,
    pub(crate) title: &'static str,
    /// Tests: the test program, the modules without those named `tests`, and the function.
    pub(crate) shown_by: &'static [&'static str],
    /// Attempts of the probe.
    pub(crate) attempts: &'static [&'static str],
    /// What is not shown; empty where nothing is missing.
    pub(crate) lacks: &'static str,
}

impl Case {
    /// Is there nothing that shows it?
    pub(crate) fn is_open(&self) -> bool {
        self.shown_by.is_empty()
    }
}

/// What shows a case that has attempts.
const ATTEMPTS: &str =
    "jail::escape::no_attempt_succeeds_inside_and_the_same_attempts_succeed_outside";

pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        files::CASES,
        processes::CASES,
        calls::CASES,
        channels::CASES,
        inputs::CASES,
        faults::CASES,
    ]
    .into_iter()
    .flatten()
}

#[test]
fn every_case_is_shown_by_tests_that_exist_or_says_why_not() -> anyhow::Result<()> {
    let numbers: Vec<u32> = all().map(|case| case.number).collect();
    assert_eq!(numbers, (1..=70).collect::<Vec<_>>());
    let mut tests = BTreeSet::new();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (program, root) in [
        ("jail", package.join("tests/jail")),
        ("server", package.join("tests/server")),
        ("endurance", package.join("tests/endurance")),
        ("lib", package.join("src")),
        ("e2e", package.join("../tests/e2e")),
    ] {
        collect(&root, program, &mut tests)?;
    }
    for case in all() {
        let number = case.number;
        assert!(
            !case.is_open() || !case.lacks.is_empty(),
            "{number} has neither a test nor a reason"
        );
        assert!(
            case.attempts.is_empty() || case.shown_by.contains(&ATTEMPTS),
            "{number} has attempts that no test makes"
        );
        for name in case.shown_by {
            assert!(tests.contains(*name), "{number}: there is no test {name}");
        }
    }
    Ok(())
}

/// The names of all tests in the source files below `directory`.
fn collect(directory: &Path, prefix: &str, tests: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let prefix = match name.as_str() {
            "tests" | "main" | "lib" => prefix.to_owned(),
            module => format!("{prefix}::{module}"),
        };
        if path.is_dir() {
            collect(&path, &prefix, tests)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path)?;
            let mut is_test = false;
            for line in source.lines().map(str::trim_start) {
                let function = line.trim_start_matches("async ").strip_prefix("fn ");
                if let (true, Some(function)) = (is_test, function) {
                    let function = function.split('(').next().unwrap_or_default();
                    tests.insert(format!("{prefix}::{function}"));
                    is_test = false;
                }
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            }
        }
    }
    Ok(())
}

/// Programs of a repository, such as the helpers its git configuration names, could be run by whoever starts programs.
#[test]
fn the_server_starts_no_program_but_its_launcher() -> anyhow::Result<()> {
    let mut starting = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let is_part_of_tests = path.components().any(|part| {
                ["tests", "tests.rs", "jail-probe"]
                    .iter()
                    .any(|name| part.as_os_str() == *name)
            });
            if is_part_of_tests {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path)?;
            let served = source.split("#[cfg(test)]").next().unwrap_or_default();
            if ["process::Command", "CommandExt", "execve(", "posix_spawn"]
                .iter()
                .any(|word| served.contains(word))
            {
                starting.push(path.file_name().unwrap_or_default().to_owned());
            }
        }
    }
    starting.sort();
    assert_eq!(starting, ["launcher.rs", "sys.rs"]);
    Ok(())
}
