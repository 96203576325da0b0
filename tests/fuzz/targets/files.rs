//! Any edits of any text, and any search in it: what was made is what a plain replacement makes, what was found is there.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shell::policy::Access;
use shell::workspace::{Breadth, Edit, EditError, Occurrences, Query, Report, Workspace};

#[derive(Debug, Arbitrary)]
struct Call {
    text: String,
    action: Action,
}

#[derive(Debug, Arbitrary)]
enum Action {
    /// Old, new, and whether all.
    Edit(Vec<(Old, String, bool)>),
    Search {
        pattern: String,
        literal: bool,
        ignore_case: bool,
        context: u8,
        most: u8,
    },
    Path(String),
}

#[derive(Debug, Arbitrary)]
enum Old {
    Any(String),
    /// A part of the text.
    Part(u16, u8),
}

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join("workspace");
    fs::create_dir_all(&folder).expect("a folder");
    folder
});
static WORKSPACE: LazyLock<Workspace> =
    LazyLock::new(|| Workspace::open(&FOLDER, Access::ReadWrite).expect("a workspace"));
const NAME: &str = "text.txt";

fuzz_target!(|call: Call| {
    let path = FOLDER.join(NAME);
    fs::write(&path, &call.text).expect("a file");
    match call.action {
        Action::Edit(edits) => edit(&call.text, &edits),
        Action::Search {
            pattern,
            literal,
            ignore_case,
            context,
            most,
        } => {
            let query = Query {
                pattern,
                literal,
                ignore_case,
                path: Some(NAME.to_owned()),
                glob: None,
                breadth: Breadth::All,
                report: Report::Lines {
                    context: usize::from(context % 7),
                },
                most: most.into(),
            };
            search(&call.text, &query);
        }
        Action::Path(path) => {
            if let Ok(below) = WORKSPACE.path_in_jail(&path) {
                assert!(below.starts_with(&*FOLDER) && below != *FOLDER);
                assert!(!below.iter().any(|part| part == ".."));
            }
        }
    }
});

fn edit(text: &str, given: &[(Old, String, bool)]) {
    let edits: Vec<Edit> = given
        .iter()
        .map(|(old, new, all)| Edit {
            old: match old {
                Old::Any(old) => old.clone(),
                Old::Part(from, length) => part(text, (*from).into(), (*length).into()).to_owned(),
            },
            new: new.clone(),
            occurrences: if *all {
                Occurrences::All
            } else {
                Occurrences::One
            },
        })
        .collect();
    let edited = WORKSPACE.edit(NAME, &edits, None);
    let after = fs::read_to_string(FOLDER.join(NAME)).expect("a text");
    match edited {
        Ok(edited) => {
            assert_ne!(after, text);
            assert_eq!(edited.bytes, after.len() as u64);
            assert!(edited.diff.len() <= 8 << 10 && !edited.diff.is_empty());
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(after, text, "a refused edit changes the file: {error}");
            if !matches!(error, EditError::NothingChanged(_)) {
                return;
            }
        }
    }
    // A lone carriage return can become half of a line break, which a plain replacement does not know.
    let has_lone = |text: &str| text.replace("\r\n", "\n").contains('\r');
    let texts = edits.iter().flat_map(|edit| [&*edit.old, &*edit.new]);
    if texts.chain([text]).any(has_lone) {
        return;
    }
    let plain = edits.iter().fold(plain(text), |text, edit| {
        let (old, new) = (plain(&edit.old), plain(&edit.new));
        if old.is_empty() {
            assert!(text.is_empty(), "nothing was replaced in a text");
            return new;
        }
        match edit.occurrences {
            Occurrences::All => text.replace(&old, &new),
            Occurrences::One => {
                assert_eq!(text.matches(&*old).count(), 1, "{old:?} is not there once");
                text.replacen(&old, &new, 1)
            }
        }
    });
    assert_eq!(self::plain(&after), plain);
}

fn plain(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// So many bytes of a text, or a few more or less for whole characters.
fn part(text: &str, from: usize, length: usize) -> &str {
    let start = text.floor_char_boundary(from % (text.len() + 1));
    let end = text.floor_char_boundary((start + length).min(text.len()));
    &text[start..end]
}

fn search(text: &str, query: &Query) {
    let found = match WORKSPACE.search(query, &|_| false, &|| false) {
        Ok(found) => found,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    if text.contains('\0') {
        return;
    }
    assert!(found.matches.len() <= query.most && found.matches.len() as u64 <= found.total);
    let lines: Vec<&str> = text.split('\n').collect();
    for matching in &found.matches {
        let line = lines.get(matching.line - 1).expect("a line of the text");
        assert!(
            line.contains(&*matching.text.text),
            "not the line {}: {:?}",
            matching.line,
            matching.text
        );
        assert!(matching.column <= line.chars().count() + 1);
        assert!(matching.before.len() < matching.line && matching.before.len() <= 5);
    }
    if query.literal && !query.ignore_case {
        let lines = lines
            .iter()
            .map(|line| line.strip_suffix('\r').unwrap_or(line));
        let expected = lines.filter(|line| line.contains(&query.pattern)).count();
        assert_eq!(found.total, expected as u64, "{:?}", query.pattern);
    }
}
