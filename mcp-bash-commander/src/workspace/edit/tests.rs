//! Edits of real files.

mod refusals;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use super::*;

struct Place {
    _home: tempfile::TempDir,
    workspace: Workspace,
}

impl Place {
    fn new(content: impl AsRef<[u8]>) -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let root = home.path().canonicalize()?.join("work");
        fs::create_dir(&root)?;
        fs::write(root.join("f"), content)?;
        let workspace = Workspace::open(&root, Access::ReadWrite)?;
        Ok(Self {
            _home: home,
            workspace,
        })
    }

    fn file(&self) -> PathBuf {
        self.workspace.root().join("f")
    }

    fn edit(&self, edits: &[Edit]) -> Result<Edited, EditError> {
        self.workspace.edit("f", edits, None)
    }

    fn content(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.file())?)
    }

    /// What the error of one edit says; the file stays as it was.
    fn refusal(&self, old: &str, new: &str) -> anyhow::Result<String> {
        let before = fs::read(self.file())?;
        let Err(error) = self.edit(&[one(old, new)]) else {
            anyhow::bail!("{old:?} was replaced");
        };
        assert_eq!(fs::read(self.file())?, before);
        Ok(error.to_string())
    }
}

fn one(old: &str, new: &str) -> Edit {
    Edit {
        old: old.to_owned(),
        new: new.to_owned(),
        occurrences: Occurrences::One,
    }
}

fn all(old: &str, new: &str) -> Edit {
    Edit {
        occurrences: Occurrences::All,
        ..one(old, new)
    }
}

/// A small pseudo-random sequence, the same in every run.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self, below: usize) -> anyhow::Result<usize> {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Ok(usize::try_from(self.0 >> 33)? % below)
    }
}

#[test]
fn edits_are_made_in_order_and_reported() -> anyhow::Result<()> {
    let place = Place::new("one\ntwo\nthree\n")?;
    fs::set_permissions(place.file(), fs::Permissions::from_mode(0o750))?;
    let edited = place.edit(&[one("two", "2\n2½"), one("2½", "$& \\1"), all("e", "E")])?;
    let now = "onE\n2\n$& \\1\nthrEE\n";
    assert_eq!(place.content()?, now);
    assert_eq!(
        fs::metadata(place.file())?.permissions().mode() & 0o777,
        0o750
    );
    assert_eq!(
        edited,
        Edited {
            path: "f".into(),
            sha256_before: Digest::of("one\ntwo\nthree\n"),
            sha256_after: Digest::of(now),
            bytes: now.len() as u64,
            replacements: 5,
            diff: "--- f\n+++ f\n@@ -1,3 +1,4 @@\n-one\n-two\n-three\n+onE\n+2\n+$& \\1\n+thrEE\n"
                .into(),
            diff_cut: false,
        }
    );
    Ok(())
}

#[test]
fn of_several_edits_all_are_made_or_none() -> anyhow::Result<()> {
    let place = Place::new("a b c\n")?;
    let Err(error) = place.edit(&[one("a", "x"), one("a", "y")]) else {
        anyhow::bail!("both were made");
    };
    assert!(
        error
            .to_string()
            .starts_with("edit 2: `old` does not occur in `f` after the edits before it"),
        "{error}"
    );
    assert_eq!(place.content()?, "a b c\n");
    Ok(())
}

#[test]
fn every_line_keeps_the_break_it_has() -> anyhow::Result<()> {
    for (before, old, new, after) in [
        ("a\r\nb\r\nc\r\n", "a\nb", "x\ny\nz", "x\r\ny\r\nz\r\nc\r\n"),
        ("a\r\nb\r\nc\r\n", "a\r\nb", "x\r\ny", "x\r\ny\r\nc\r\n"),
        ("a\nb\nc\n", "a\r\nb\r\n", "x\r\ny\r\n", "x\ny\nc\n"),
        ("a\r\nb\nc\r\nd\n", "b\nc\nd", "1\n2\n3", "a\r\n1\n2\r\n3\n"),
        ("a\r\nb\r\nc\n", "c", "1\n2", "a\r\nb\r\n1\r\n2\n"),
        ("a\r\nb\r\n", "\nb", "", "a\r\n"),
        ("a\r\nb\r\n", "a", "", "\r\nb\r\n"),
        ("\u{feff}a\r\nb", "a\n", "", "\u{feff}b"),
        ("a\rb\r\n", "a\rb", "c", "c\r\n"),
        ("a", "a", "x\r\ny\nz", "x\r\ny\nz"),
    ] {
        let place = Place::new(before)?;
        place.edit(&[one(old, new)])?;
        assert_eq!(place.content()?, after, "{before:?} {old:?} {new:?}");
    }
    let place = Place::new("a\r\nb\r\na\r\nb\r\n")?;
    place.edit(&[all("a\nb", "c\nd")])?;
    assert_eq!(place.content()?, "c\r\nd\r\nc\r\nd\r\n");
    Ok(())
}

#[test]
fn an_empty_text_is_replaced_only_in_an_empty_file() -> anyhow::Result<()> {
    let place = Place::new("")?;
    assert_eq!(
        place.edit(&[one("", "a\r\n"), one("a", "b")])?.replacements,
        2
    );
    assert_eq!(place.content()?, "b\r\n");
    for edit in [one("", "x"), all("", "x")] {
        assert!(matches!(
            place.edit(&[edit]),
            Err(EditError::EmptyOld { edit: 1 })
        ));
    }
    let missing = place.workspace.edit("none", &[one("", "x")], None);
    assert!(matches!(
        missing,
        Err(EditError::Workspace(WorkspaceError::NotFound(_)))
    ));
    Ok(())
}

#[test]
fn ten_mebibytes_are_edited_and_one_byte_more_is_not() -> anyhow::Result<()> {
    let lines = "a line of thirty-one characters\n".repeat(MAX_FILE_BYTES / 32 - 1);
    let longest = format!("b{lines}{}", "-".repeat(31));
    let place = Place::new(&longest)?;
    assert_eq!(place.edit(&[one("b", "x")])?.bytes, MAX_FILE_BYTES as u64);
    assert!(matches!(
        place.edit(&[one("x", "xy")]),
        Err(EditError::TooLong { after: true, .. })
    ));
    let huge = "y".repeat(1 << 20);
    assert!(matches!(
        place.edit(&[all("a", &huge)]),
        Err(EditError::TooLong { after: true, .. })
    ));
    fs::write(place.file(), format!("{longest}!"))?;
    assert!(matches!(
        place.edit(&[one("b", "x")]),
        Err(EditError::TooLong { after: false, bytes, .. }) if bytes == MAX_FILE_BYTES as u64 + 1
    ));
    Ok(())
}

#[test]
fn a_long_diff_is_cut_behind_a_whole_line() -> anyhow::Result<()> {
    let place = Place::new("one line\n".repeat(100_000))?;
    let edited = place.edit(&[all("one", "öne")])?;
    assert!(edited.diff_cut && edited.diff.len() <= 8 << 10 && edited.diff.ends_with('\n'));
    assert!(
        edited.diff.starts_with("--- f\n+++ f\n@@ "),
        "{}",
        &edited.diff[..100]
    );
    Ok(())
}

#[test]
fn a_diff_names_the_lines_of_the_whole_file() -> anyhow::Result<()> {
    let lines: Vec<_> = (1..=10_000).map(|line| line.to_string()).collect();
    let place = Place::new(lines.join("\n") + "\nend")?;
    let edited = place.edit(&[
        one("\n5000\n", "\n"),
        one("end", "the end"),
        one("1\n2\n", ""),
    ])?;
    assert_eq!(
        edited.diff,
        "--- f\n+++ f\n@@ -1,5 +1,3 @@\n-1\n-2\n 3\n 4\n 5\n\
         @@ -4997,7 +4995,6 @@\n 4997\n 4998\n 4999\n-5000\n 5001\n 5002\n 5003\n\
         @@ -9998,4 +9995,4 @@\n 9998\n 9999\n 10000\n-end\n\\ No newline at end of file\n\
         +the end\n\\ No newline at end of file\n"
    );
    let edited = place.edit(&[one("7777\n", "7777\n.\n")])?;
    assert_eq!(
        edited.diff,
        "--- f\n+++ f\n@@ -7772,6 +7772,7 @@\n 7775\n 7776\n 7777\n+.\n 7778\n 7779\n 7780\n"
    );
    let place = Place::new("")?;
    assert_eq!(
        place.edit(&[one("", "a\n")])?.diff,
        "--- f\n+++ f\n@@ -0,0 +1,1 @@\n+a\n"
    );
    assert_eq!(
        place.edit(&[one("a\n", "")])?.diff,
        "--- f\n+++ f\n@@ -1,1 +0,0 @@\n-a\n"
    );
    Ok(())
}

#[test]
fn changes_far_apart_are_shown_as_far_as_they_were_compared() -> anyhow::Result<()> {
    let line = "a line of thirty-one characters\n";
    let place = Place::new(format!("first\n{}last\n", line.repeat(40_000)))?;
    let edited = place.edit(&[one("first\n", ""), one("last", "")])?;
    let expected = format!("--- f\n+++ f\n@@ -1,4 +1,3 @@\n-first\n {line} {line} {line}");
    assert_eq!((edited.diff, edited.diff_cut), (expected, true));
    Ok(())
}

#[test]
fn an_edit_and_its_inverse_give_the_same_bytes() -> anyhow::Result<()> {
    let mut random = Sequence(3);
    let pieces = ["a", "b", "ü", "\n", "\r\n", "\n", "漢", " ", "\t", "🦀"];
    let mut made = 0;
    for round in 0..3000 {
        // Of the breaks, one kind or both.
        let kinds = round % 3;
        let mut text = String::new();
        for _ in 0..=random.next(60)? {
            text.push_str(match pieces[random.next(pieces.len())?] {
                "\n" if kinds == 0 => "\r\n",
                "\r\n" if kinds == 1 => "\n",
                piece => piece,
            });
        }
        let plain = text::with_plain_breaks(&text).into_owned();
        let borders: Vec<_> = plain
            .char_indices()
            .map(|(at, _)| at)
            .chain([plain.len()])
            .collect();
        let one_end = borders[random.next(borders.len())?];
        let other_end = borders[random.next(borders.len())?];
        let old = &plain[one_end.min(other_end)..one_end.max(other_end)];
        // As many breaks as before: with fewer, which kind they were would be forgotten.
        let new = old.replace(['a', 'b', ' ', '漢'], "<é>") + "|";
        let Ok((edited, 1)) = apply(&[one(old, &new)], &text, Path::new("f")) else {
            continue;
        };
        assert_ne!(edited, text);
        let (back, _) = apply(&[one(&new, old)], &edited, Path::new("f"))?;
        assert_eq!(back, text, "{old:?} {new:?}");
        made += 1;
    }
    assert!(made > 1000, "{made}");
    Ok(())
}
