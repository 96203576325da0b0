//! `docs/escape-matrix.md`: the cases and what shows each, and what became of every attempt.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::cases;
use crate::matrix::Column;

const WRITTEN: &str = include_str!("../../../docs/escape-matrix.md");
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/escape-matrix.md");

/// What depends on the machine begins a line with one of these.
const RUN_ON: &str = "Run on ";
const ALONE: &str = "- Without ";

/// The columns that are no jail without a layer.
const NO_LAYERS: [&str; 5] = ["outside", "container", "no_userns", "bubblewrap", "Docker"];

pub(crate) fn write(jail: &Column, columns: &[Column]) -> anyhow::Result<String> {
    let all: Vec<_> = cases::all().collect();
    let open = all.iter().filter(|case| case.is_open()).count();
    let partly = all
        .iter()
        .filter(|case| !case.is_open() && !case.lacks.is_empty())
        .count();
    let mut text = format!(
        "# Escape matrix of `mcp-bash-commander`

What hostile code in the jail, or a hostile client, could try, and what shows that it fails. This file is written by a test from its
own run: `UPDATE_EXPECT=1 cargo test -p mcp-bash-commander --test jail matrix::`.

## Cases

{} cases: {} shown, {partly} in part, {open} open. The names are tests of this repository: `jail` and `server` are test programs of
`mcp-bash-commander`, `lib` its unit tests, `e2e` the tests of all servers together. All of `jail` runs as root and as an ordinary user.

| | Case | State | Shown by |
| --: | --- | --- | --- |
",
        all.len(),
        all.len() - open - partly,
    );
    for case in &all {
        let state = match (case.is_open(), case.lacks) {
            (true, lacks) => format!("**open**: {lacks}"),
            (false, "") => "shown".to_owned(),
            (false, lacks) => format!("in part: {lacks}"),
        };
        let tests: Vec<_> = case
            .shown_by
            .iter()
            .map(|test| format!("`{test}`"))
            .collect();
        writeln!(
            text,
            "| {} | {} | {state} | {} |",
            case.number,
            case.title,
            tests.join(", ")
        )?;
    }
    write_attempts(&mut text, jail, columns)?;
    Ok(text)
}

fn write_attempts(text: &mut String, jail: &Column, columns: &[Column]) -> anyhow::Result<()> {
    writeln!(
        text,
        "
## Attempts

Each is made by a program in the jail, and outside as a control; ✓ is blocked, ✗ is open. What is blocked outside too could not be tried
there: it needs another kernel option or another user. The columns behind the control are jails without one layer, jails of the other two
modes, and other sandboxes; the test fails if leaving a layer out opens nothing. Only the columns of the case and of the jail are the same on every machine, and are
checked.

The user, mount and process namespaces cannot be left out: there would be nothing to make a jail in. `no_new_privs` comes with the launcher
too, and leaving it out of a jail changes nothing.
"
    )?;
    writeln!(text, "{RUN_ON}{}.\n", machine(columns))?;
    let of_jail = jail.open();
    let opened: Vec<_> = columns.iter().map(Column::open).collect();
    for (column, open) in columns.iter().zip(&opened) {
        if NO_LAYERS.contains(&column.name) {
            continue;
        }
        let more: Vec<_> = open.difference(&of_jail).copied().collect();
        writeln!(
            text,
            "{ALONE}`{}`, {} open: {}.",
            column.name,
            more.len(),
            listed(&more)
        )?;
    }
    let names: Vec<_> = columns.iter().map(|column| column.name).collect();
    writeln!(text, "\n| Case | Attempt | jail | {} |", names.join(" | "))?;
    writeln!(
        text,
        "| --: | --- | --- |{}",
        " --- |".repeat(columns.len())
    )?;
    for case in cases::all() {
        for attempt in case.attempts {
            let marks: Vec<_> = columns
                .iter()
                .zip(&opened)
                .map(|(column, open)| mark(column, open, attempt))
                .collect();
            writeln!(
                text,
                "| {} | {attempt} | {} | {} |",
                case.number,
                mark(jail, &of_jail, attempt),
                marks.join(" | ")
            )?;
        }
    }
    Ok(())
}

fn mark(column: &Column, open: &BTreeSet<&str>, attempt: &str) -> &'static str {
    match &column.results {
        Err(_) => "not run",
        Ok(_) if open.contains(attempt) => "✗",
        Ok(_) => "✓",
    }
}

fn listed(names: &[&str]) -> String {
    const MOST: usize = 12;
    let mut listed = names
        .iter()
        .take(MOST)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > MOST {
        listed.push_str(", …");
    }
    listed
}

fn machine(columns: &[Column]) -> String {
    let kernel = rustix::system::uname();
    let mut told = format!(
        "{}, Linux {} on {}, as uid {}",
        time::OffsetDateTime::now_utc().date(),
        version_of(&kernel.release().to_string_lossy()),
        kernel.machine().to_string_lossy(),
        rustix::process::geteuid().as_raw()
    );
    for column in columns {
        match &column.results {
            Ok(_) if column.version.is_empty() => {}
            Ok(_) => told = format!("{told}; {}", column.version),
            Err(reason) => told = format!("{told}; {} not run: {reason}", column.name),
        }
    }
    told
}

/// Compares what is the same on every machine with the file, but for attempts that cannot be judged on this one. With
/// `UPDATE_EXPECT=1` the file is written instead.
pub(crate) fn is_current(text: &str, unjudged: &[&str]) -> anyhow::Result<()> {
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        return Ok(std::fs::write(PATH, text)?);
    }
    let (written, now) = (checked(WRITTEN, unjudged), checked(text, unjudged));
    let differing = now.iter().find(|line| !written.contains(*line));
    anyhow::ensure!(
        written == now,
        "docs/escape-matrix.md is not current, first in {differing:?}; \
         `UPDATE_EXPECT=1 cargo test -p mcp-bash-commander --test jail matrix::` writes it"
    );
    Ok(())
}

/// Its lines without what depends on the machine.
fn checked(text: &str, unjudged: &[&str]) -> Vec<String> {
    let mut is_attempts = false;
    let mut checked = Vec::new();
    for line in text.lines() {
        is_attempts |= line == "## Attempts";
        if unjudged.iter().any(|attempt| line.contains(attempt)) {
            continue;
        }
        if line.starts_with(RUN_ON) || line.starts_with(ALONE) {
            continue;
        }
        if is_attempts && line.starts_with('|') {
            checked.push(line.split('|').take(4).collect::<Vec<_>>().join("|"));
        } else {
            checked.push(line.to_owned());
        }
    }
    checked
}

/// `6.18` of a kernel's whole release.
fn version_of(release: &str) -> String {
    let numbers: Vec<&str> = release.split(['.', '-']).take(2).collect();
    numbers.join(".")
}
