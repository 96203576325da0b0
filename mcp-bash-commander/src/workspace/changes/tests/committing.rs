//! Carrying over: what arrives, what does not, and why.

use super::*;

#[test]
fn after_a_commit_the_workspace_is_what_the_command_saw() -> anyhow::Result<()> {
    let mut place = Place::new(
        "
        echo a >a; echo b >b; mkdir -p d/deep e f/g; echo c >d/c; echo x >d/deep/x; echo e >e/e
        ln -s a link; echo gone >gone; chmod 640 gone; echo g >f/g/g; chmod 750 f; mkdir old; echo o >old/o
        mkdir locked; echo l >locked/l; chmod 555 locked
        ",
    )?;
    place.run(
        "
        echo more >>a; mv b b2; rm -rf d; mkdir d; echo n >d/n; rm -r e; echo file >e; rm gone
        mkdir gone; echo in >gone/in; ln -sfn b2 link; chmod 700 f; mv f f2; rm -r old
        mkdir -p new/sub/read-only; echo n >new/sub/read-only/n; chmod 555 new/sub/read-only; ln -s ../a new/up
        chmod 755 locked; echo m >locked/m; rm locked/l; chmod 711 locked; printf '#!/bin/sh\\n' >run; chmod 755 run
        cp -a . ../outside/wanted
        ",
    )?;
    let committed = place.commit()?;
    assert_eq!(skipped(&committed), Vec::<String>::new());
    assert_eq!(
        snapshot(place.root())?,
        snapshot(&place.outside().join("wanted"))?
    );
    assert!(place.told()?.is_empty(), "nothing is left to be committed");
    let a = committed.applied.iter().find(|applied| applied.path == "a");
    assert_eq!(
        a.and_then(|a| a.sha256.clone()),
        Some(Digest::of("a\nmore\n"))
    );
    let first_deletion = committed
        .applied
        .iter()
        .position(|applied| applied.kind == Kind::Deleted);
    let rest = committed.applied[first_deletion.unwrap_or(0)..].iter();
    assert!(
        rest.clone().all(|applied| applied.kind == Kind::Deleted),
        "deletions come last"
    );
    shell(place.root(), "chmod -R u+w .")?;
    shell(&place.outside(), "chmod -R u+w .")
}

#[test]
fn no_dangerous_permission_is_carried_over() -> anyhow::Result<()> {
    let mut place =
        Place::new("echo a >a; echo open >open; chmod 666 open; echo s >s; chmod 4755 s")?;
    place.run(
        "
        chmod 4777 a; echo b >b; chmod 6755 b; mkdir d; chmod 3777 d; echo more >>open
        echo s2 >s; chmod 4755 s
        ",
    )?;
    place.commit()?;
    let mode = |path: &str| anyhow::Ok(fs::metadata(place.root().join(path))?.mode() & 0o7777);
    assert_eq!(
        [
            mode("a")?,
            mode("b")?,
            mode("d")?,
            mode("open")?,
            mode("s")?
        ],
        [0o775, 0o755, 0o775, 0o666, 0o755],
        "what was writable by all before stays so"
    );
    Ok(())
}

#[test]
fn only_links_that_stay_inside_are_carried_over() -> anyhow::Result<()> {
    let mut place = Place::new("ln -s ../outside host; mkdir d; echo f >f")?;
    place.run(
        "
        ln -s /etc/passwd absolute; ln -s ../outside/secret above; ln -s host/secret through
        ln -s ../f d/good; ln -s nowhere d/dangling; ln -s x/../../../outside d/twisted; ln -s loop loop
        ",
    )?;
    let committed = place.commit()?;
    assert_eq!(
        skipped(&committed),
        [
            "LeavesWorkspace above",
            "LeavesWorkspace absolute",
            "LeavesWorkspace d/twisted",
            "LeavesWorkspace through",
        ]
    );
    assert_eq!(
        fs::read_link(place.root().join("d/good"))?,
        Path::new("../f")
    );
    assert!(place.root().join("d/dangling").is_symlink());
    Ok(())
}

#[test]
fn protected_paths_stay_whatever_happens_to_the_directories_above() -> anyhow::Result<()> {
    let project = "
        mkdir -p .git/hooks .git/objects settings; echo hook >.git/hooks/h; echo config >.git/config
        echo head >.git/HEAD; echo t >settings/tasks; ln -s settings .vscode; echo f >f
    ";
    let protected = [".git/hooks", ".git/config", ".mcp.json", ".vscode", ".idea"];
    for (script, refused) in [
        (
            "echo evil >.git/hooks/h; rm .git/config; echo ok >.git/index",
            2,
        ),
        (
            "mv .git g; mkdir -p .git/hooks; echo evil >.git/hooks/h; echo evil >.git/config",
            2,
        ),
        ("rm -rf .git", 1),
        ("rm -rf .git; ln -s f .git", 1),
        ("rm -rf .git; echo 'gitdir: f' >.git", 1),
        ("echo evil >.mcp.json; mkdir .idea; echo evil >.idea/x", 3),
        ("echo evil >.MCP.json; chmod 700 .git/hooks", 2),
        ("echo evil >settings/tasks", 1),
        ("rm .vscode; mkdir .vscode; echo evil >.vscode/tasks", 2),
        ("mv .git/hooks .git/h2; ln -s h2 .git/hooks", 1),
    ] {
        let mut place = Place::new(project)?;
        let guarded = |place: &Place| -> anyhow::Result<_> {
            let mut all = snapshot(place.root())?;
            all.retain(|path, _| {
                let path = path.to_string_lossy().to_lowercase();
                [
                    ".git/hooks",
                    ".git/config",
                    ".mcp",
                    ".vscode",
                    ".idea",
                    "settings/",
                ]
                .iter()
                .any(|guarded| path.starts_with(guarded))
            });
            Ok(all)
        };
        let before = guarded(&place)?;
        place.run(script)?;
        let committed = place.commit_with(&protected, true)?;
        let protected = committed.skipped.iter();
        let count = protected
            .filter(|skipped| skipped.reason == Reason::Protected)
            .count();
        assert_eq!(count, refused, "{script}: {:?}", committed.skipped);
        assert_eq!(guarded(&place)?, before, "{script}");
    }
    for wrong in ["../x", "/x", "", "a\0b"] {
        assert!(Protected::new([wrong]).is_err(), "{wrong:?}");
    }
    Ok(())
}

#[test]
fn a_repository_may_be_made_but_not_its_hooks_and_no_pointer_to_another() -> anyhow::Result<()> {
    let mut place = Place::new("")?;
    place.run(
        "mkdir -p .git/hooks; echo h >.git/HEAD; echo evil >.git/hooks/h; echo evil >.git/config",
    )?;
    let committed = place.commit_with(&[".git/hooks", ".git/config"], false)?;
    assert_eq!(committed.applied.len(), 2, "{committed:?}");
    assert_eq!(fs::read_dir(place.root().join(".git"))?.count(), 1);
    let mut place = Place::new("")?;
    place.run("echo 'gitdir: elsewhere' >.git")?;
    assert!(
        place
            .commit_with(&[".git/hooks"], false)?
            .applied
            .is_empty()
    );
    Ok(())
}

#[test]
fn what_the_host_changed_meanwhile_is_kept_unless_forced() -> anyhow::Result<()> {
    let mut place = Place::new(
        "echo a >a; echo b >b; echo c >c; mkdir -p d/e f; echo x >d/e/x; echo f >f/f; echo t >t",
    )?;
    place.run(
        "echo 2 >a; echo 2 >b; rm c; rm -r d; rm -r f; mkdir f; rm t; mkdir t; echo new >new",
    )?;
    shell(
        place.root(),
        "echo host >a; echo host >c; echo host >d/e/y; echo host >f/g; echo host >t; echo host >new",
    )?;
    let before = snapshot(place.root())?;
    let committed = place.commit()?;
    assert_eq!(
        skipped(&committed),
        [
            "ChangedMeanwhile t",
            "ChangedMeanwhile a",
            "ChangedMeanwhile new",
            "ChangedMeanwhile c",
            "ChangedMeanwhile d",
            "ChangedMeanwhile f/g",
        ]
    );
    let mut expected = before;
    expected.remove(Path::new("f/f"));
    expected.insert("b".into(), (0o100_644, b"2\n".to_vec()));
    assert_eq!(snapshot(place.root())?, expected);
    let forced = place.commit_with(&[], true)?;
    assert_eq!(skipped(&forced), Vec::<String>::new());
    assert_eq!(
        (place.read("a")?, place.read("new")?),
        ("2\n".into(), "new\n".into())
    );
    assert!(!place.root().join("d").exists() && place.root().join("t").is_dir());
    Ok(())
}

#[test]
fn a_commit_is_not_taken_for_a_conflict_by_the_next_one() -> anyhow::Result<()> {
    let mut place = Place::new("echo a >a; mkdir d; echo b >d/b; echo later >later")?;
    for round in 0..3 {
        place.run(&format!(
            "echo {round} >a; echo {round} >d/new; mkdir -p d/made; echo {round} >d/made/x"
        ))?;
        let committed = place.commit()?;
        assert_eq!(skipped(&committed), Vec::<String>::new(), "round {round}");
        place.overlay = Overlay::open(&place.home.path().join("overlay"))?;
    }
    place.run("rm -r d a")?;
    assert_eq!(skipped(&place.commit()?), Vec::<String>::new());
    assert!(!place.root().join("d").exists());
    shell(place.root(), "echo host >a")?;
    place.run("echo 9 >a")?;
    assert_eq!(skipped(&place.commit()?), ["ChangedMeanwhile a"]);
    Ok(())
}

#[test]
fn only_the_changes_that_were_approved_are_committed() -> anyhow::Result<()> {
    let mut place = Place::new("echo a >a")?;
    place.run("echo 2 >a; echo b >b")?;
    let protected = Protected::default();
    let approved = place.overlay.digest(&place.workspace, None)?;
    place.run("echo sneaked >>b")?;
    let commit = Commit {
        paths: None,
        protected: &protected,
        expect: Some(&approved),
        force: false,
    };
    let refused = place.overlay.commit(&place.workspace, &commit, |_| Ok(()));
    assert!(matches!(refused, Err(ChangesError::Digest { .. })));
    assert_eq!(place.read("a")?, "a\n");
    place.run("echo b >b")?;
    let done = place
        .overlay
        .commit(&place.workspace, &commit, |_| Ok(()))?;
    assert_eq!(
        (done.applied.len(), place.read("b")?),
        (2, "b\n".to_owned())
    );
    Ok(())
}

#[test]
fn bytes_that_change_after_they_were_hashed_are_not_written() -> anyhow::Result<()> {
    let mut place = Place::new("echo a >a; echo b >b")?;
    place.run("echo 1 >a; echo 1 >b; ln -s a l")?;
    let upper = place.upper();
    let protected = Protected::default();
    let commit = Commit {
        paths: None,
        protected: &protected,
        expect: None,
        force: false,
    };
    // Between the hash and the copy, as a command still running could.
    let done = place.overlay.commit(&place.workspace, &commit, |change| {
        let swapped = match change.path.as_str() {
            "a" => fs::write(upper.join("a"), "2\n"),
            "l" => fs::remove_file(upper.join("l"))
                .and_then(|()| std::os::unix::fs::symlink("/etc", upper.join("l"))),
            _ => Ok(()),
        };
        swapped.map_err(|error| error.to_string())
    })?;
    assert_eq!(
        skipped(&done),
        ["ChangedWhileCopied a", "ChangedWhileCopied l"]
    );
    assert_eq!(
        (place.read("a")?, place.read("b")?),
        ("a\n".into(), "1\n".into())
    );
    assert_eq!(
        fs::read_dir(place.root())?.count(),
        2,
        "nothing half written stays"
    );
    Ok(())
}

#[test]
fn what_the_host_writes_while_a_commit_runs_survives() -> anyhow::Result<()> {
    let mut place =
        Place::new("echo a >a; echo d >d; mkdir -p t/z gone/z; echo t >t/t; echo g >gone/a")?;
    place.run("echo 1 >a; rm d; echo new >new; rm -r t gone; echo file >t")?;
    let root = place.root().to_owned();
    let protected = Protected::default();
    let commit = Commit {
        paths: None,
        protected: &protected,
        expect: None,
        force: false,
    };
    let done = place.overlay.commit(&place.workspace, &commit, |change| {
        let path = root.join(&change.path);
        let path = if path.is_dir() {
            path.join("z/x")
        } else {
            path
        };
        fs::write(path, "host").map_err(|error| error.to_string())
    })?;
    assert!(done.applied.is_empty(), "{done:?}");
    assert_eq!(done.skipped.len(), 5);
    for path in ["a", "d", "new", "t/z/x", "gone/z/x"] {
        assert_eq!(place.read(path)?, "host", "{path}");
    }
    assert_eq!(
        (place.read("t/t")?, place.read("gone/a")?),
        ("t\n".into(), "g\n".into())
    );
    Ok(())
}

#[test]
fn force_is_for_changes_that_were_looked_at_not_for_later_ones() -> anyhow::Result<()> {
    let mut place = Place::new("echo a >a; echo d >d")?;
    place.run("echo 1 >a; rm d")?;
    let root = place.root().to_owned();
    let protected = Protected::default();
    let commit = Commit {
        paths: None,
        protected: &protected,
        expect: None,
        force: true,
    };
    let done = place.overlay.commit(&place.workspace, &commit, |change| {
        fs::write(root.join(&change.path), "host").map_err(|error| error.to_string())
    })?;
    assert_eq!(skipped(&done), ["ChangedMeanwhile a", "ChangedMeanwhile d"]);
    assert_eq!(
        (place.read("a")?, place.read("d")?),
        ("host".into(), "host".into())
    );
    Ok(())
}

#[test]
fn chosen_paths_are_committed_with_the_directories_they_need() -> anyhow::Result<()> {
    let mut place = Place::new("echo a >a; echo f >f")?;
    place.run("echo 2 >a; rm f; mkdir -p f/sub/other; echo x >f/sub/x; echo y >f/sub/y")?;
    let protected = Protected::default();
    let paths = ["f/sub/x".to_owned()];
    let commit = Commit {
        paths: Some(&paths),
        protected: &protected,
        expect: None,
        force: false,
    };
    let done = place
        .overlay
        .commit(&place.workspace, &commit, |_| Ok(()))?;
    let applied: Vec<_> = done
        .applied
        .iter()
        .map(|applied| applied.path.as_str())
        .collect();
    assert_eq!(applied, ["f", "f/sub", "f/sub/x"]);
    assert_eq!(
        (place.read("a")?, place.read("f/sub/x")?),
        ("a\n".into(), "x\n".into())
    );
    let refuse = |change: &Change| match change.path.as_str() {
        "a" => Err("the policy says no".to_owned()),
        _ => Ok(()),
    };
    let all = Commit {
        paths: None,
        ..commit
    };
    let done = place.overlay.commit(&place.workspace, &all, refuse)?;
    assert_eq!(skipped(&done), ["Refused a"]);
    assert_eq!(
        done.skipped[0].detail.as_deref(),
        Some("the policy says no")
    );
    Ok(())
}

#[test]
fn files_with_other_names_and_read_only_workspaces_are_left_alone() -> anyhow::Result<()> {
    let mut place = Place::new("echo w >w; ln ../outside/secret twin; ln ../outside/secret gone")?;
    place.run("echo evil >twin; echo 2 >w; rm gone")?;
    assert_eq!(skipped(&place.commit()?), ["HardLinked twin"]);
    assert_eq!(fs::read(place.outside().join("secret"))?, b"secret");
    assert!(!place.root().join("gone").exists());
    place.run("echo 3 >w")?;
    place.workspace = Workspace::open(place.root(), Access::ReadOnly)?;
    assert!(place.commit().is_err());
    assert_eq!(place.read("w")?, "2\n");
    Ok(())
}

#[test]
fn a_root_server_gives_everything_to_the_owner_of_the_workspace() -> anyhow::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let setup = "chown 65534:65534 .; echo a >a; chown -R 65534:65534 a";
    let mut place = Place::new(setup)?;
    place.namespace = &["--mount"];
    place.run("echo 2 >a; mkdir d; echo x >d/x; ln -s x d/l; rm a; mkdir a")?;
    assert_eq!(skipped(&place.commit()?), Vec::<String>::new());
    for path in ["a", "d", "d/x", "d/l"] {
        let metadata = place.root().join(path).symlink_metadata()?;
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{path}");
    }
    Ok(())
}
