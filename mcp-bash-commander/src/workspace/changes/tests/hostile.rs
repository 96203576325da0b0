//! Upper directories that a command filled to harm whoever reads them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};

use super::*;

#[test]
fn links_in_the_upper_directory_are_never_followed() -> anyhow::Result<()> {
    let mut place = Place::new("mkdir d; echo f >f; echo c >d/c")?;
    place.run(
        "
        rm -r d; ln -s ../outside d; rm f; ln -s ../outside/secret f
        mkdir farm; i=0; while [ $i -lt 500 ]; do ln -s ../../outside/secret farm/$i; i=$((i+1)); done
        ",
    )?;
    let outside = snapshot(&place.outside())?;
    let diff = place.overlay.diff(&place.workspace, &[], 1 << 20)?;
    let committed = place.commit()?;
    assert_eq!((committed.applied.len(), committed.skipped.len()), (1, 502));
    assert!(
        committed
            .skipped
            .iter()
            .all(|skipped| skipped.reason == Reason::LeavesWorkspace)
    );
    place.overlay.discard(&place.workspace, None)?;
    assert_eq!(snapshot(&place.outside())?, outside);
    assert!(!diff.text.lines().any(|line| line == "+secret"));
    Ok(())
}

#[test]
fn links_swapped_in_while_commits_run_lead_nowhere() -> anyhow::Result<()> {
    let mut place = Place::new("mkdir d; echo 0 >d/f; echo 0 >f")?;
    place.run(
        "echo 1 >d/f; echo 1 >f; echo n >d/new; echo n >d/fresh; mkdir gone; echo g >gone/g",
    )?;
    let outside = place.outside();
    fs::write(outside.join("f"), "secret")?;
    fs::write(outside.join("new"), "secret")?;
    let wanted = snapshot(&outside)?;
    let mut pairs = Vec::new();
    // Relative links: absolute ones may be refused for another reason, a mount on the way.
    for (root, up) in [(place.upper(), "../.."), (place.root().to_owned(), "..")] {
        // Beside the trees, so that the swapped names alone are in them.
        for (name, below) in [("d", "outside"), ("f", "outside/secret")] {
            let trap = place.home.path().join(format!("trap-{}", pairs.len()));
            let target = Path::new(up).join(below);
            symlink(&target, &trap)?;
            pairs.push((trap, root.join(name), target));
        }
    }
    let stop = AtomicBool::new(false);
    let mut applied = 0;
    let mut skipped = 0;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let swapper = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for (trap, name, target) in &pairs {
                    if !trap.is_symlink() && !name.is_symlink() {
                        // A commit replaced the link.
                        let _ = fs::remove_dir_all(trap).or_else(|_| fs::remove_file(trap));
                        let _ = symlink(target, trap);
                    }
                    let flags = RenameFlags::EXCHANGE;
                    swaps +=
                        u64::from(rustix::fs::renameat_with(CWD, trap, CWD, name, flags).is_ok());
                }
            }
            swaps
        });
        let mut run = || -> anyhow::Result<()> {
            for _ in 0..500 {
                // Made anew each time, but not removed where a swapped link leads to.
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY;
                if let Ok(directory) =
                    rustix::fs::open(place.root().join("d"), flags, Mode::empty())
                {
                    let _ = rustix::fs::unlinkat(&directory, "fresh", AtFlags::empty());
                }
                if let Ok(committed) = place.commit_with(&[], true) {
                    applied += committed.applied.len();
                    skipped += committed.skipped.len();
                }
                let _ = place.overlay.diff(&place.workspace, &[], 1000);
            }
            Ok(())
        };
        let result = run();
        stop.store(true, Ordering::Relaxed);
        let swaps = swapper.join().unwrap_or(0);
        ensure!(swaps > 500, "only {swaps} swaps");
        result
    })?;
    assert!(
        applied > 0 && skipped > 0,
        "{applied} applied, {skipped} skipped: no race"
    );
    assert_eq!(snapshot(&outside)?, wanted, "outside changed");
    for (path, (_, content)) in snapshot(place.root())? {
        assert_ne!(content, b"secret", "{} came from outside", path.display());
    }
    Ok(())
}

#[test]
fn a_discard_removes_no_file_that_a_swapped_link_leads_to() -> anyhow::Result<()> {
    let mut place = Place::new("")?;
    let outside = place.outside();
    for number in 0..50 {
        fs::write(outside.join(number.to_string()), "x")?;
    }
    let wanted = snapshot(&outside)?;
    let trap = place.home.path().join("trap");
    let name = place.upper().join("d");
    symlink(&outside, &trap)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat_with(CWD, &trap, CWD, &name, RenameFlags::EXCHANGE);
            }
        });
        for _ in 0..200 {
            let _ = fs::create_dir(&name);
            for number in 0..50 {
                // Not through the link, of course: only while a directory stands there.
                let directory = rustix::fs::open(
                    &name,
                    OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY,
                    Mode::empty(),
                );
                let Ok(directory) = directory else { continue };
                let flags = OFlags::CREATE | OFlags::WRONLY;
                let _ = rustix::fs::openat(&directory, number.to_string(), flags, Mode::RWXU);
            }
            let _ = place.overlay.discard(&place.workspace, None);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(snapshot(&outside)?, wanted);
    Ok(())
}

#[test]
fn ten_thousand_files_are_told_committed_and_discarded() -> anyhow::Result<()> {
    let mut place = Place::new("")?;
    place.run("mkdir many; cd many; seq 1 10000 | split -l 1 -a 4 - f")?;
    let listing = place.overlay.list(&place.workspace, None, 100)?;
    assert_eq!((listing.changes.len(), listing.omitted), (100, 9_901));
    let committed = place.commit()?;
    assert_eq!(
        (committed.applied.len(), committed.skipped.len()),
        (10_001, 0)
    );
    assert_eq!(place.read("many/faaaa")?, "1\n");
    assert_eq!(fs::read_dir(place.root().join("many"))?.count(), 10_000);
    assert_eq!(
        place.overlay.discard(&place.workspace, None)?.entries,
        10_001
    );
    Ok(())
}

#[test]
fn more_than_can_be_looked_at_is_not_committed() -> anyhow::Result<()> {
    let mut place = Place::new("")?;
    let many = place.upper().join("many");
    fs::create_dir(&many)?;
    fs::write(many.join("0"), "x")?;
    for number in 1..=MAX_ENTRIES {
        fs::hard_link(many.join("0"), many.join(number.to_string()))?;
    }
    let listing = place.overlay.list(&place.workspace, None, 100)?;
    assert!(!listing.complete && listing.omitted > 0);
    let refused = place.commit().err().map(|error| error.to_string());
    assert!(refused.is_some_and(|text| text.contains("more than 50000 entries")));
    place.overlay.discard(&place.workspace, None)?;
    assert!(place.told()?.is_empty());
    Ok(())
}

#[test]
fn strange_names_are_only_names_but_must_be_utf_8() -> anyhow::Result<()> {
    let mut place = Place::new("")?;
    place.run(
        "
        printf x >\"$(printf 'line\\nbreak')\"; printf x >' -rf *'; printf x >'$(id)'; printf x >\"$(printf 'bad\\377')\"
        mkdir \"$(printf 'dir\\376')\"; printf x >\"$(printf 'dir\\376/inside')\"; printf x >'--- a'
        ",
    )?;
    let committed = place.commit()?;
    assert_eq!(
        skipped(&committed),
        [
            "NotUtf8 dir\u{fffd}",
            "NotUtf8 bad\u{fffd}",
            "NotUtf8 dir\u{fffd}/inside"
        ]
    );
    for name in ["line\nbreak", " -rf *", "$(id)", "--- a"] {
        assert_eq!(place.read(name)?, "x", "{name}");
    }
    assert!(!place.root().join(OsStr::from_bytes(b"bad\xff")).exists());
    fs::write(place.root().join("line\nbreak"), "old")?;
    let diff = place
        .overlay
        .diff(&place.workspace, &["line\nbreak".to_owned()], 1000)?;
    assert!(diff.text.contains("+++ b/line\\nbreak\n"), "{}", diff.text);
    Ok(())
}

#[test]
fn the_deepest_tree_neither_breaks_a_list_nor_escapes_a_discard() -> anyhow::Result<()> {
    let mut place = Place::new("")?;
    place.run("i=0; while [ $i -lt 500 ]; do mkdir d; cd -P d; i=$((i+1)); done; echo x >f")?;
    let told = place.told()?;
    assert_eq!(told.len(), tree::MAX_DEPTH);
    assert!(told.last().is_some_and(|last| last.ends_with("d TooDeep")));
    let committed = place.commit()?;
    assert_eq!(committed.skipped.len(), 1);
    assert_eq!(place.overlay.discard(&place.workspace, None)?.entries, 501);
    Ok(())
}

#[test]
fn pipes_sockets_and_endless_files_are_told_and_left() -> anyhow::Result<()> {
    let mut place = Place::new("echo f >f")?;
    place.run("rm f; mkfifo f p; truncate -s 2T huge; truncate -s 900M a b c")?;
    let _socket = std::os::unix::net::UnixListener::bind(place.upper().join("s"))?;
    let started = std::time::Instant::now();
    let told = place.told()?;
    for line in [
        "Special Special f Special",
        "Special Special p Special",
        "Special Special s Special",
        "Created File huge TooLarge",
    ] {
        assert!(told.contains(&line.to_owned()), "{line}: {told:?}");
    }
    assert!(
        started.elapsed().as_secs() < 20,
        "a list reads no endless files"
    );
    let refused = place.commit().err().map(|error| error.to_string());
    assert!(refused.is_some_and(|text| text.contains("bytes")));
    assert_eq!(place.read("f")?, "f\n");
    Ok(())
}

#[test]
fn what_the_server_may_not_read_is_told_and_left() -> anyhow::Result<()> {
    if is_root() {
        return Ok(());
    }
    let mut place = Place::new("echo a >a")?;
    place.run("echo 2 >a; chmod 000 a; mkdir d; echo x >d/x; chmod 000 d; echo ok >ok")?;
    let committed = place.commit()?;
    assert_eq!(skipped(&committed), ["Unreadable d", "Unreadable a"]);
    assert_eq!(committed.applied.len(), 1);
    place.overlay.discard(&place.workspace, None)?;
    Ok(())
}
