//! Which files are searched, and which are left out, skipped or denied.

use super::*;

#[test]
fn ignore_files_apply_as_git_applies_them_and_what_they_leave_out_is_counted() -> anyhow::Result<()>
{
    let place = Place::new(&[
        (
            ".gitignore",
            "\u{feff}# made\n/build\n*.log\n!keep.log\nout/*\n!out/kept\nlist/\n",
        ),
        ("sub/.gitignore", "!again.log\n/only-here\n"),
        ("sub/.ignore", "secretly\n"),
        ("build/a", "x"),
        ("a.log", "x"),
        ("keep.log", "x"),
        ("out/gone", "x"),
        ("out/kept", "x"),
        ("list", "x"),
        ("sub/build/a", "x"),
        ("sub/again.log", "x"),
        ("sub/other.log", "x"),
        ("sub/only-here", "x"),
        ("sub/deep/only-here", "x"),
        ("sub/secretly", "x"),
        (".github/flow", "x"),
        (".git/config", "x"),
    ])?;
    let visible = [
        "keep.log",
        "list",
        "out/kept",
        "sub/again.log",
        "sub/build/a",
        "sub/deep/only-here",
    ];
    assert_eq!(place.files(query("x"))?, visible);
    let left_out = place.search(&query("x"))?.left_out;
    assert_eq!((left_out.ignored, left_out.hidden), (6, 4), "{left_out:?}");

    let hidden = Query {
        breadth: Breadth::Hidden,
        ..query("x")
    };
    assert_eq!(
        place.files(hidden)?,
        [&[".github/flow"][..], &visible].concat()
    );
    let all = Query {
        breadth: Breadth::All,
        ..query("x")
    };
    assert_eq!(place.files(all)?.len(), 14);
    for (path, files) in [
        ("sub", &visible[3..]),
        ("sub/", &visible[3..]),
        ("build", &["build/a"]),
        ("a.log", &["a.log"]),
        (".git", &[".git/config"]),
        (".", &visible),
    ] {
        let there = Query {
            path: Some(path.into()),
            ..query("x")
        };
        assert_eq!(place.files(there)?, files, "{path}");
    }
    let absolute = Query {
        path: Some(place.root().display().to_string()),
        ..query("x")
    };
    assert_eq!(place.files(absolute)?, visible);
    Ok(())
}

#[test]
fn a_glob_fits_names_or_whole_paths() -> anyhow::Result<()> {
    let place = Place::new(&[
        ("a.rs", "x"),
        ("src/b.rs", "x"),
        ("src/d/c.ts", "x"),
        ("t/src/e.ts", "x"),
    ])?;
    for (glob, files) in [
        ("*.rs", &["a.rs", "src/b.rs"][..]),
        ("src/**/*.ts", &["src/d/c.ts"]),
        (
            "*.{rs,ts}",
            &["a.rs", "src/b.rs", "src/d/c.ts", "t/src/e.ts"],
        ),
        ("!src", &["a.rs"]),
        ("!*.ts", &["a.rs", "src/b.rs"]),
        ("/*.rs", &["a.rs"]),
    ] {
        let fitting = Query {
            glob: Some(glob.into()),
            ..query("x")
        };
        assert_eq!(place.files(fitting)?, files, "{glob}");
    }
    Ok(())
}

#[test]
fn what_is_denied_is_neither_opened_nor_named() -> anyhow::Result<()> {
    let place = Place::new(&[
        ("a", "x"),
        ("keys/deep/k", "x"),
        ("sub/.env", "x"),
        ("z.pem", "x"),
    ])?;
    let denied = |path: &Path| {
        path == "keys" || path.ends_with(".env") || path.extension().is_some_and(|end| end == "pem")
    };
    let search = |path: Option<&str>| {
        let query = Query {
            path: path.map(str::to_owned),
            breadth: Breadth::All,
            ..query("x")
        };
        place.workspace.search(&query, &denied, &|| false)
    };
    let found = search(None)?;
    assert_eq!(places(&found), [("a", 1, 1)]);
    assert_eq!((found.total, found.files_searched), (1, 1));
    for path in [
        "keys",
        "keys/deep",
        "keys/deep/k",
        "keys/not-there",
        "sub/.env",
        "./z.pem",
    ] {
        assert!(
            matches!(search(Some(path)), Err(SearchError::Denied(_))),
            "{path}"
        );
    }
    Ok(())
}

#[test]
fn what_is_no_readable_text_is_skipped_and_counted() -> anyhow::Result<()> {
    let place = Place::new(&[("good", "x"), ("locked/f", "x"), ("latin", "")])?;
    place.write("binary", b"x\n\0")?;
    place.write("latin", b"gr\xfcn x\n")?;
    place.write("long", "x".repeat(50 << 20))?;
    place.write("large", "x\n".repeat(5 << 20))?;
    fs::write(
        place.root().join(std::ffi::OsStr::from_bytes(b"bad\xff")),
        "x",
    )?;
    fs::create_dir(
        place
            .root()
            .join(std::ffi::OsStr::from_bytes(b"folder\xff")),
    )?;
    symlink("good", place.root().join("link"))?;
    let _socket = std::os::unix::net::UnixListener::bind(place.root().join("socket"))?;
    let pipe = place.root().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )?;
    let locked = place.root().join("locked");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o0))?;
    // Root reads it all the same.
    let is_locked = fs::read_dir(&locked).is_err();

    let found = place.search(&Query {
        report: Report::Files,
        ..query("x")
    });
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700))?;
    let found = found?;
    let mut files = vec!["good", "large", "latin", "locked/f"];
    files.truncate(if is_locked { 3 } else { 4 });
    assert_eq!(found.files, files);
    assert_eq!(found.left_out.links, 1);
    assert_eq!(
        found.skipped,
        SkippedFiles {
            binary: 1,
            too_large: 1,
            unreadable: u64::from(is_locked),
            not_utf8_name: 2,
        }
    );
    let pipe = Query {
        path: Some("pipe".into()),
        ..query("x")
    };
    let refused = place.search(&pipe);
    assert!(matches!(
        refused,
        Err(SearchError::Workspace(WorkspaceError::NotRegular { .. }))
    ));
    let text = place.search(&Query {
        glob: Some("latin".into()),
        ..query("x")
    })?;
    assert_eq!(text.matches[0].text, whole("gr\u{fffd}n x"));
    Ok(())
}

#[test]
fn a_folder_swapped_for_a_link_never_leads_outside() -> anyhow::Result<()> {
    let place = Place::new(&[("real/deep/f", "inside"), ("other", "inside")])?;
    let outside = place.home.path().join("outside");
    fs::create_dir_all(outside.join("deep"))?;
    for name in ["deep/f", "secret", "deep/secret"] {
        fs::write(outside.join(name), "outside")?;
    }
    symlink(&outside, place.root().join("link"))?;
    let stop = AtomicBool::new(false);
    let root = place.root();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (real, link) = (root.join("real"), root.join("link"));
            while !stop.load(Ordering::Relaxed) {
                let flags = RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &real,
                    rustix::fs::CWD,
                    &link,
                    flags,
                );
            }
        });
        let searching = (|| {
            // The control: a plain walk is led outside, so the swapper works.
            let deadline = Instant::now() + Duration::from_secs(20);
            while fs::read(root.join("real/secret")).is_err() {
                anyhow::ensure!(Instant::now() < deadline, "the swapper never won");
            }
            let (mut whole, mut part) = (0, 0);
            while whole + part < 300 || whole < 10 || part < 10 {
                anyhow::ensure!(
                    Instant::now() < deadline + Duration::from_secs(40),
                    "{whole} {part}"
                );
                let path = [
                    None,
                    Some("real".to_owned()),
                    Some("real/deep/f".to_owned()),
                ];
                for path in path {
                    match place.search(&Query {
                        path,
                        ..query("side")
                    }) {
                        Ok(found) => {
                            for matching in &found.matches {
                                anyhow::ensure!(matching.text.text == "inside", "{matching:?}");
                            }
                            whole += 1;
                        }
                        Err(SearchError::Workspace(_)) => part += 1,
                        Err(other) => return Err(other.into()),
                    }
                }
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        searching
    })
}
