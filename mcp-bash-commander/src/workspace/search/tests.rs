//! Searches of real folders.

mod bounds;
mod files;

use std::cell::Cell;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, RenameFlags};

use super::*;
use crate::policy::Access;

struct Place {
    home: tempfile::TempDir,
    workspace: Workspace,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let root = home.path().canonicalize()?.join("work");
        fs::create_dir(&root)?;
        let workspace = Workspace::open(&root, Access::ReadOnly)?;
        let place = Self { home, workspace };
        for (path, content) in files {
            place.write(path, content)?;
        }
        Ok(place)
    }

    fn root(&self) -> &Path {
        self.workspace.root()
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap_or(self.root()))?;
        Ok(fs::write(path, content)?)
    }

    fn search(&self, query: &Query) -> Result<Found, SearchError> {
        self.workspace.search(query, &|_| false, &|| false)
    }

    /// The files in which the letter x is found.
    fn files(&self, query: Query) -> Result<Vec<String>, SearchError> {
        let report = Report::Files;
        Ok(self.search(&Query { report, ..query })?.files)
    }
}

fn query(pattern: &str) -> Query {
    Query {
        pattern: pattern.to_owned(),
        literal: false,
        ignore_case: false,
        path: None,
        glob: None,
        breadth: Breadth::Visible,
        report: Report::Lines { context: 0 },
        most: 100,
    }
}

fn whole(text: &str) -> Snippet {
    Snippet {
        text: text.to_owned(),
        cut_before: false,
        cut_after: false,
    }
}

fn places(found: &Found) -> Vec<(&str, usize, usize)> {
    let matches = found.matches.iter();
    matches
        .map(|found| (found.path.as_str(), found.line, found.column))
        .collect()
}

#[test]
fn matching_lines_come_with_place_and_context_in_the_order_of_paths() -> anyhow::Result<()> {
    let place = Place::new(&[
        ("b.txt", "one\r\ntwo\r\nüb 2three\r\nfour"),
        ("a/c", "two"),
        ("a.txt", "\n\ntwo\n"),
    ])?;
    let context = Report::Lines { context: 2 };
    let found = place.search(&Query {
        report: context,
        ..query("tw|2")
    })?;
    assert_eq!(
        places(&found),
        [
            ("a/c", 1, 1),
            ("a.txt", 3, 1),
            ("b.txt", 2, 1),
            ("b.txt", 3, 4)
        ]
    );
    assert_eq!(
        found.matches[3],
        Match {
            path: "b.txt".into(),
            line: 3,
            column: 4,
            text: whole("üb 2three"),
            before: vec![whole("one"), whole("two")],
            after: vec![whole("four")],
        }
    );
    assert_eq!((found.total, found.files_searched), (4, 3));
    assert!(found.truncated.is_empty());
    Ok(())
}

#[test]
fn anchors_and_classes_stay_within_a_line() -> anyhow::Result<()> {
    let text = "foo\r\n\r\nbar foo\nfoo\n";
    for (pattern, lines) in [
        ("^foo$", &[1, 4][..]),
        ("^$", &[2]),
        ("foo\\s+bar", &[]),
        ("o[^x]b", &[]),
        ("(?s)foo.", &[]),
        ("\\bfoo$", &[1, 3, 4]),
        ("\\Afoo", &[1]),
        ("FOO", &[]),
        ("(?i)BAR", &[3]),
    ] {
        let place = Place::new(&[("f", text)])?;
        let found = place.search(&query(pattern))?;
        let found: Vec<_> = found.matches.iter().map(|found| found.line).collect();
        assert_eq!(found, lines, "{pattern}");
    }
    Ok(())
}

#[test]
fn a_literal_pattern_means_itself_and_case_can_be_ignored() -> anyhow::Result<()> {
    let place = Place::new(&[("f", "a.b(\nA.B(\naxb\n\\n\n")])?;
    let literal = Query {
        literal: true,
        ..query("a.b(")
    };
    assert_eq!(places(&place.search(&literal)?), [("f", 1, 1)]);
    let either = Query {
        ignore_case: true,
        ..literal
    };
    assert_eq!(place.search(&either)?.total, 2);
    let escape = Query {
        literal: true,
        ..query("\\n")
    };
    assert_eq!(places(&place.search(&escape)?), [("f", 4, 1)]);
    Ok(())
}

#[test]
fn what_cannot_be_searched_for_is_told() -> anyhow::Result<()> {
    let place = Place::new(&[("f", "x")])?;
    for (wrong, expected) in [
        (query("foo("), "unclosed group"),
        (query("(a)\\1"), "backreferences are not supported"),
        (query("\\w{900}{900}"), "too large when compiled"),
        (
            query(&format!("{}a{}", "(".repeat(500), ")".repeat(500))),
            "nest",
        ),
        (query(""), "`pattern` has 0 bytes"),
        (query(&"x".repeat(5000)), "`pattern` has 5000 bytes"),
        (query("a\\nb"), "asks for a line break"),
        (query("a\nb"), "asks for a line break"),
        (
            Query {
                glob: Some("[a".into()),
                ..query("x")
            },
            "`glob` is none",
        ),
        (
            Query {
                glob: Some("#".into()),
                ..query("x")
            },
            "fits nothing",
        ),
        (
            Query {
                most: 0,
                ..query("x")
            },
            "`most` is 0; it goes from 1 to 1000",
        ),
        (
            Query {
                report: Report::Lines { context: 6 },
                ..query("x")
            },
            "`context` is 6",
        ),
        (
            Query {
                path: Some("none/x".into()),
                ..query("x")
            },
            "there is no `none`",
        ),
        (
            Query {
                path: Some("f/x".into()),
                ..query("x")
            },
            "there is no `f/x`",
        ),
        (
            Query {
                path: Some("../outside".into()),
                ..query("x")
            },
            "it holds `..`",
        ),
        (
            Query {
                path: Some("/".into()),
                ..query("x")
            },
            "outside the workspace",
        ),
    ] {
        let text = place.search(&wrong).err().map(|error| error.to_string());
        let text = text.unwrap_or_default();
        assert!(
            text.contains(expected) && text.len() < 2000,
            "{expected}: {text}"
        );
    }
    assert_eq!(place.search(&query("[^\\n]"))?.total, 1);
    Ok(())
}
