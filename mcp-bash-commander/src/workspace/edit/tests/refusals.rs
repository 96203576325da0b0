//! Edits that are not made, and what is said of them.

use super::*;

#[test]
fn a_text_that_occurs_more_than_once_is_not_guessed() -> anyhow::Result<()> {
    let place = Place::new("x = 1\ny\nx = 1\n\n}\n}\n}\n")?;
    let text = place.refusal("x = 1\n", "")?;
    assert!(
        text.contains("occurs 2 times in `f`, beginning in lines 1, 3;"),
        "{text}"
    );
    let text = place.refusal("}\n}", "")?;
    assert!(
        text.contains("occurs 2 times in `f`, beginning in lines 5, 6;"),
        "overlapping: {text}"
    );
    assert_eq!(place.edit(&[all("x = 1\n", "z")])?.replacements, 2);
    let many = Place::new("ab\n".repeat(50_000))?;
    let text = many.refusal("ab", "c")?;
    assert!(
        text.contains("occurs 50000 times") && text.contains(" 10 …;"),
        "{text}"
    );
    Ok(())
}

#[test]
fn what_differs_in_white_space_or_look_alike_characters_is_shown_exactly() -> anyhow::Result<()> {
    let place = Place::new("fn main() {\n\tlet a = 1;\n\tprint(“hi”); // it’s\n}\n")?;
    for (old, expected) in [
        (
            "    let a = 1;",
            "first, in line 2, a tab where `old` has a space. The file has\n   2| \tlet a = 1;",
        ),
        ("let a  = 1;", "in line 2, `=` where `old` has a space"),
        (
            "{\n\n\tlet",
            "in line 2, a tab where `old` has a line break. The file has\n   1| fn main() {\n   2| \tlet a = 1;",
        ),
        (
            "print(\"hi\")",
            "in line 3, `“` (U+201C) where `old` has `\"`. The file has\n   3| \tprint(“hi”); // it’s",
        ),
        ("LET A", "in line 2, `l` where `old` has `L`"),
        ("}\n\n\n", "in line 5, its end where `old` has a line break"),
    ] {
        let text = place.refusal(old, "x")?;
        assert!(text.contains(expected), "{old:?}: {text}");
    }
    Ok(())
}

#[test]
fn what_does_not_occur_is_answered_with_what_may_be_meant() -> anyhow::Result<()> {
    let place = Place::new(
        "fn first() {\n    call(1, \"a\");\n}\n\nfn second() {\n    let value = compute(3);\n}\nsay(\"x\\ny\");\n",
    )?;
    for (old, new, expected) in [
        (
            "fn second() {\n    let value = 4;\n}",
            "",
            "line 5 is as given, then `old` has\n    |     let value = 4;\nand the file has\n   6|     let value = compute(3);",
        ),
        (
            "let valeu = compute(4);",
            "",
            "the most similar lines are\n   6|     let value = compute(3);",
        ),
        (
            "call(1, \\\"a\\\");",
            "",
            "from line 2 on it is there, but `old` has escapes",
        ),
        (
            "say(\"x\ny\");",
            "",
            "from line 8 on it is there, but the file has escapes",
        ),
        (
            "fn third()",
            "let value = compute(3);",
            "`new` is there already, from line 6 on",
        ),
        ("zzzzzzzz", "", "none of its 8 lines is similar"),
        (" \n\n \n", "", "it is white space only"),
    ] {
        let text = place.refusal(old, new)?;
        assert!(text.contains(expected), "{old:?}: {text}");
    }
    Ok(())
}

#[test]
fn errors_stay_short_and_fast_whatever_the_file_and_the_edit() -> anyhow::Result<()> {
    let long_line = format!("{}\u{1b}[2J{}", "ab".repeat(1 << 19), "é".repeat(1 << 19));
    let many_lines = "}\n".repeat(1 << 20);
    let wanted_line = "ab".repeat(1 << 18);
    let wanted_lines = format!("{}{{", "}\n".repeat(1 << 18));
    for (content, old) in [
        (&long_line, format!("x{wanted_line}")),
        (&long_line, wanted_line.replace('a', "A ")),
        (&many_lines, wanted_lines),
        (&many_lines, "} ".repeat(1 << 18)),
        (&"a".repeat(2 << 20), "a".repeat(1 << 20)),
    ] {
        let place = Place::new(content)?;
        let started = Instant::now();
        let text = place.refusal(&old, "x")?;
        assert!(
            text.len() < 4000 && !text.contains('\u{1b}'),
            "{} bytes",
            text.len()
        );
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
    }
    Ok(())
}

#[test]
fn edits_without_effect_are_told_so() -> anyhow::Result<()> {
    let place = Place::new("a\r\nb\r\n")?;
    for edits in [
        vec![one("a\nb", "a\r\nb")],
        vec![one("a", "c"), one("c", "a")],
    ] {
        assert!(matches!(
            place.edit(&edits),
            Err(EditError::NothingChanged(_))
        ));
    }
    assert!(matches!(place.edit(&[]), Err(EditError::Count(0))));
    let many = vec![one("a", "b"); MAX_EDITS + 1];
    assert!(matches!(place.edit(&many), Err(EditError::Count(101))));
    Ok(())
}

#[test]
fn what_is_no_text_is_not_edited() -> anyhow::Result<()> {
    for (content, at) in [(&b"text\xff"[..], 4), (b"te\0xt", 2), (b"\xff\xfea\0", 3)] {
        let place = Place::new(content)?;
        match place.edit(&[one("t", "x")]) {
            Err(EditError::NotText { at: found, .. }) => assert_eq!(found, at),
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok(())
}

#[test]
fn a_file_that_changed_is_not_edited() -> anyhow::Result<()> {
    let place = Place::new("a")?;
    let expected = Digest::of("something else");
    let stale = place.workspace.edit("f", &[one("a", "b")], Some(&expected));
    assert!(matches!(
        stale,
        Err(EditError::Workspace(WorkspaceError::Changed { .. }))
    ));
    place
        .workspace
        .edit("f", &[one("a", "b")], Some(&Digest::of("a")))?;

    // Between reading and writing, someone else writes.
    let before = place.workspace.editable(Path::new("f"))?;
    fs::write(place.file(), "theirs")?;
    let ours = place.workspace.put("f".into(), &before, "ours", 1);
    assert!(matches!(
        ours,
        Err(EditError::Workspace(WorkspaceError::Changed { .. }))
    ));
    assert_eq!(place.content()?, "theirs");
    Ok(())
}

#[test]
fn links_hard_links_and_read_only_workspaces_are_not_edited() -> anyhow::Result<()> {
    let place = Place::new("a")?;
    let root = place.workspace.root();
    symlink("f", root.join("link"))?;
    let edit = |path| place.workspace.edit(path, &[one("a", "b")], None);
    assert!(matches!(
        edit("link"),
        Err(EditError::Workspace(WorkspaceError::Symlink(_)))
    ));
    assert!(matches!(
        edit("../work/f"),
        Err(EditError::Workspace(WorkspaceError::Path { .. }))
    ));
    let read_only = Workspace::open(root, Access::ReadOnly)?;
    let refused = read_only.edit("f", &[one("a", "b")], None);
    assert!(matches!(
        refused,
        Err(EditError::Workspace(WorkspaceError::ReadOnly))
    ));
    fs::hard_link(place.file(), root.join("twin"))?;
    assert!(matches!(
        edit("f"),
        Err(EditError::Workspace(WorkspaceError::HardLinked(_)))
    ));
    Ok(())
}
