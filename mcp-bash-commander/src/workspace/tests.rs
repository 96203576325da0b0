use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::RenameFlags;

use super::*;

struct Place {
    home: tempfile::TempDir,
    workspace: Workspace,
}

impl Place {
    /// A workspace, and beside it `outside/secret`.
    fn new() -> anyhow::Result<Self> {
        let home = tempfile::tempdir()?;
        let root = home.path().canonicalize()?.join("work");
        fs::create_dir(&root)?;
        fs::create_dir(home.path().join("outside"))?;
        fs::write(home.path().join("outside/secret"), "secret")?;
        let workspace = Workspace::open(&root, Access::ReadWrite)?;
        Ok(Self { home, workspace })
    }

    fn root(&self) -> &Path {
        self.workspace.root()
    }

    fn outside(&self) -> PathBuf {
        self.home.path().join("outside")
    }

    fn write(&self, path: &str, content: &str) -> Result<Written, WorkspaceError> {
        self.workspace.write(path, content.as_bytes(), None, false)
    }

    fn read(&self, path: &str) -> Result<FileSlice, WorkspaceError> {
        self.workspace.read(path, 0, 1000)
    }
}

#[test]
fn what_was_written_is_read_back_with_the_same_digest() -> anyhow::Result<()> {
    let place = Place::new()?;
    let written = place.write("a/b/c.txt", "hello")?;
    assert_eq!((written.created, written.bytes), (true, 5));
    let read = place.read("a/b/c.txt")?;
    assert_eq!(read.bytes, b"hello");
    assert_eq!(read.sha256, Some(written.sha256.clone()));
    assert_eq!(place.workspace.digest("a/b/c.txt")?, written.sha256);
    let absolute = place.root().join("a/./b/c.txt");
    assert_eq!(place.read(&absolute.to_string_lossy())?, read);
    Ok(())
}

#[test]
fn a_range_is_read_and_the_whole_size_told() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.write("f", "0123456789")?;
    let slice = place.workspace.read("f", 4, 3)?;
    assert_eq!((slice.bytes.as_slice(), slice.size), (&b"456"[..], 10));
    assert_eq!(place.workspace.read("f", 99, 3)?.bytes, b"");
    Ok(())
}

#[test]
fn only_paths_below_the_workspace_are_paths() -> anyhow::Result<()> {
    let place = Place::new()?;
    let long = "x/".repeat(3000) + "y";
    for path in [
        "",
        ".",
        "..",
        "../outside/secret",
        "a/../../outside/secret",
        "/etc/passwd",
        "a\0b",
        "a/",
        "/",
        &long,
    ] {
        assert!(place.read(path).is_err(), "{path:?} was read");
        assert!(place.write(path, "x").is_err(), "{path:?} was written");
    }
    let sibling = format!("{}-sibling/x", place.root().display());
    assert!(matches!(
        place.read(&sibling),
        Err(WorkspaceError::Outside(_))
    ));
    Ok(())
}

#[test]
fn hostile_names_are_only_names() -> anyhow::Result<()> {
    let place = Place::new()?;
    for name in [
        "*",
        "[a-z]",
        "a\nb",
        "-rf",
        "$(id)",
        "ü\u{202e}",
        "~",
        "CON:",
    ] {
        place.write(name, name)?;
        assert_eq!(place.read(name)?.bytes, name.as_bytes());
        assert_eq!(fs::read(place.root().join(name))?, name.as_bytes());
    }
    Ok(())
}

#[test]
fn a_link_to_the_outside_is_neither_read_nor_written() -> anyhow::Result<()> {
    let place = Place::new()?;
    symlink(
        place.outside().join("secret"),
        place.root().join("absolute"),
    )?;
    symlink("../outside/secret", place.root().join("relative"))?;
    symlink(place.outside(), place.root().join("folder"))?;
    for path in ["absolute", "relative", "folder/secret"] {
        assert!(
            fs::read(place.root().join(path)).is_ok(),
            "the link {path} leads somewhere"
        );
        assert!(
            matches!(place.read(path), Err(WorkspaceError::Outside(_))),
            "{path} was read"
        );
        assert!(
            matches!(place.write(path, "x"), Err(WorkspaceError::Symlink(_))),
            "{path} was written"
        );
    }
    assert!(place.write("folder/new/file", "x").is_err());
    assert_eq!(fs::read(place.outside().join("secret"))?, b"secret");
    assert_eq!(fs::read_dir(place.outside())?.count(), 1);
    Ok(())
}

#[test]
fn a_link_that_stays_inside_can_be_read_but_not_written_through() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.write("real", "text")?;
    symlink("real", place.root().join("link"))?;
    assert_eq!(place.read("link")?.bytes, b"text");
    assert!(matches!(
        place.write("link", "x"),
        Err(WorkspaceError::Symlink(_))
    ));
    assert_eq!(place.read("real")?.bytes, b"text");
    Ok(())
}

#[test]
fn a_path_swapped_for_a_link_while_the_server_writes_leads_nowhere_else() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.root().join("real"))?;
    symlink(place.outside(), place.root().join("link"))?;
    let stop = AtomicBool::new(false);
    let root = place.root();
    let outside_has = |name: &str| place.outside().join(name).exists();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (real, link) = (root.join("real"), root.join("link"));
                let _ = rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    real,
                    rustix::fs::CWD,
                    link,
                    RenameFlags::EXCHANGE,
                );
            }
        });
        let swapping = (|| {
            // The control: a plain write does end up outside, so the swapper works.
            let deadline = Instant::now() + Duration::from_secs(20);
            while !outside_has("control") {
                anyhow::ensure!(
                    Instant::now() < deadline,
                    "the swapper never won against a plain write"
                );
                let _ = fs::write(root.join("real/control"), "x");
            }
            let (mut written, mut refused) = (0, 0);
            while written + refused < 3000 || written < 10 || refused < 10 {
                anyhow::ensure!(
                    Instant::now() < deadline + Duration::from_secs(40),
                    "{written} {refused}"
                );
                match place.write("real/ours", "x") {
                    Ok(_) => written += 1,
                    Err(WorkspaceError::Symlink(_)) => refused += 1,
                    Err(other) => return Err(other.into()),
                }
                let read = place.workspace.read("real/secret", 0, 10);
                anyhow::ensure!(read.is_err(), "read {read:?} from outside");
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        swapping
    })?;
    assert!(!outside_has("ours"), "the server wrote outside");
    assert_eq!(fs::read_dir(place.outside())?.count(), 2);
    Ok(())
}

#[test]
fn pipes_sockets_devices_and_folders_are_no_files() -> anyhow::Result<()> {
    let place = Place::new()?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.root().join("pipe"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )?;
    let _socket = std::os::unix::net::UnixListener::bind(place.root().join("socket"))?;
    fs::create_dir(place.root().join("folder"))?;
    for (path, kind) in [
        ("pipe", "a pipe"),
        ("socket", "a socket"),
        ("folder", "a directory"),
    ] {
        for result in [place.read(path).err(), place.write(path, "x").err()] {
            let text = result.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.contains(kind), "{path}: {text}");
        }
    }
    Ok(())
}

#[test]
fn a_file_with_another_name_is_not_written() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::hard_link(place.outside().join("secret"), place.root().join("twin"))?;
    assert!(matches!(
        place.write("twin", "x"),
        Err(WorkspaceError::HardLinked(_))
    ));
    assert_eq!(fs::read(place.outside().join("secret"))?, b"secret");
    Ok(())
}

#[test]
fn a_file_keeps_its_mode_and_becomes_executable_on_request() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mode = |name: &str| anyhow::Ok(fs::metadata(place.root().join(name))?.mode() & 0o7777);
    place.write("new", "x")?;
    assert_eq!(mode("new")?, 0o644);
    fs::set_permissions(place.root().join("new"), fs::Permissions::from_mode(0o4640))?;
    place.write("new", "y")?;
    assert_eq!(mode("new")?, 0o640, "the mode is kept, setuid is not");
    place.workspace.write("new", b"z", None, true)?;
    assert_eq!(mode("new")?, 0o751);
    Ok(())
}

#[test]
fn a_file_that_is_not_as_expected_stays_as_it_is() -> anyhow::Result<()> {
    let place = Place::new()?;
    let write = |content: &str, expected: &Expected| {
        place
            .workspace
            .write("f", content.as_bytes(), Some(expected), false)
    };
    let of = |content: &str| Expected::Content(Digest::of(content));
    assert!(matches!(
        write("1", &of("0")),
        Err(WorkspaceError::Changed { .. })
    ));
    write("1", &Expected::Absent)?;
    assert!(matches!(
        write("2", &Expected::Absent),
        Err(WorkspaceError::Changed { .. })
    ));
    assert!(matches!(
        write("2", &of("0")),
        Err(WorkspaceError::Changed { .. })
    ));
    write("2", &of("1"))?;
    assert_eq!(place.read("f")?.bytes, b"2");
    Ok(())
}

#[test]
fn nothing_half_written_stays_behind() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.write("f", "1")?;
    let expected = Expected::Content(Digest::of("other"));
    let _ = place.workspace.write("f", b"2", Some(&expected), false);
    let _ = place.workspace.write("g/f", &vec![0; 9 << 20], None, false);
    let names: Vec<_> = fs::read_dir(place.root())?
        .collect::<Result<Vec<_>, _>>()?
        .iter()
        .map(fs::DirEntry::file_name)
        .collect();
    assert_eq!(names, ["f"]);
    Ok(())
}

#[test]
fn a_read_only_workspace_is_not_written() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.write("f", "x")?;
    let workspace = Workspace::open(place.root(), Access::ReadOnly)?;
    assert!(matches!(
        workspace.write("f", b"y", None, false),
        Err(WorkspaceError::ReadOnly)
    ));
    assert_eq!(workspace.read("f", 0, 9)?.bytes, b"x");
    Ok(())
}

#[test]
fn the_pinned_directory_stays_when_something_else_takes_its_name() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.write("f", "inside")?;
    fs::rename(place.root(), place.home.path().join("moved"))?;
    symlink(place.outside(), place.root())?;
    assert_eq!(place.read("f")?.bytes, b"inside");
    place.write("g", "x")?;
    assert!(place.home.path().join("moved/g").exists());
    assert!(!place.outside().join("g").exists());
    Ok(())
}

#[test]
fn binary_content_is_told_from_text() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.workspace.write("binary", &[1, 0, 2], None, false)?;
    place.write("text", "späß\n")?;
    assert!(place.read("binary")?.is_binary());
    assert!(!place.read("text")?.is_binary());
    Ok(())
}
