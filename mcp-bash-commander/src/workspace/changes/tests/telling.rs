//! Lists, diffs and digests.

use super::*;

const PROJECT: &str = "
    echo a >a; echo b >b; echo keep >keep; mkdir -p d/deep e; echo c >d/c; echo x >d/deep/x
    echo e >e/e; ln -s a link; echo gone >gone; chmod 755 keep
";

#[test]
fn what_a_shell_does_is_told_change_by_change() -> anyhow::Result<()> {
    let place = Place::new(PROJECT)?;
    place.run(
        "
        echo more >>a; mv b b2; rm -rf d; touch keep; chmod 644 gone; mkdir -p new/sub
        echo n >new/sub/n; ln -sfn keep link; rm -r e; echo file >e; mkfifo pipe; chmod 600 gone
        ",
    )?;
    assert_eq!(
        place.told()?,
        [
            "Modified File a",
            "Deleted File b",
            "Created File b2",
            "Deleted Directory d",
            "TypeChanged File e",
            "Modified File gone",
            "Modified Link link",
            "Created Directory new",
            "Created Directory new/sub",
            "Created File new/sub/n",
            "Special Special pipe Special",
        ]
    );
    let listing = place.overlay.list(&place.workspace, None, 5)?;
    assert_eq!((listing.changes.len(), listing.omitted), (5, 6));
    let [a, _, _, d, e] = listing.changes.as_slice() else {
        bail!("five changes");
    };
    assert_eq!(a.sha256, Some(Digest::of("a\nmore\n")));
    assert_eq!((a.bytes, a.mode_changed, a.mode), (7, false, Some(0o644)));
    assert_eq!((d.deleted_entries, d.sha256.as_ref()), (4, None));
    assert_eq!(e.deleted_entries, 2);
    Ok(())
}

#[test]
fn what_was_only_touched_or_written_alike_did_not_change() -> anyhow::Result<()> {
    let place = Place::new(PROJECT)?;
    place.run(
        "
        touch a d/c; echo b >b; rm keep; echo keep >keep; chmod 755 keep; mkdir t; rmdir t
        rm -r d; mkdir -p d/deep; echo c >d/c; echo x >d/deep/x
        rm link; ln -s a link; chmod 600 e; chmod 755 e; ln a a2; rm a; mv a2 a
        ",
    )?;
    assert_eq!(place.told()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_directory_made_anew_misses_what_was_in_the_old_one() -> anyhow::Result<()> {
    let place = Place::new(PROJECT)?;
    place.run(
        "rm -r d; mkdir d; echo n >d/n; mkdir e/new; rm -r e/new; rm a; mkdir a; echo in >a/in",
    )?;
    assert_eq!(
        place.told()?,
        [
            "TypeChanged Directory a",
            "Created File a/in",
            "Deleted File d/c",
            "Deleted Directory d/deep",
            "Created File d/n",
        ]
    );
    Ok(())
}

#[test]
fn a_diff_shows_lines_modes_and_sizes() -> anyhow::Result<()> {
    let place =
        Place::new("printf '1\\n2\\n3\\n' >f; printf 'a\\0b' >bin; echo x >gone; ln -s f l")?;
    place.run("printf '1\\ntwo\\n3\\n' >f; chmod 755 f; printf 'a\\0bcd' >bin; rm gone; ln -sfn bin l; echo n >new; mkdir d")?;
    let diff = place.overlay.diff(&place.workspace, &[], 10_000)?;
    assert_eq!(diff.cut, 0);
    assert_eq!(
        diff.text,
        "\
# modified file bin
binary, 3 bytes → 5 bytes
# created directory d
# modified file f, mode 755 now
--- a/f
+++ b/f
@@ -1,3 +1,3 @@
 1
-2
+two
 3
# deleted file gone
--- a/gone
+++ /dev/null
@@ -1 +0,0 @@
-x
# modified link l
--- a/l
+++ b/l
@@ -1 +1 @@
-f
+bin
# created file new
--- /dev/null
+++ b/new
@@ -0,0 +1 @@
+n
"
    );
    let only = place
        .overlay
        .diff(&place.workspace, &["bin".to_owned()], 10_000)?;
    assert_eq!(
        only.text,
        "# modified file bin\nbinary, 3 bytes → 5 bytes\n"
    );
    let nothing = place
        .overlay
        .diff(&place.workspace, &["none".to_owned()], 10_000);
    assert!(matches!(nothing, Err(ChangesError::Unchanged(path)) if path == "none"));
    Ok(())
}

#[test]
fn a_long_diff_is_cut_at_a_line_and_says_so() -> anyhow::Result<()> {
    let place = Place::new("")?;
    place.run("seq 1 100000 >a; seq 1 1000 >b; head -c 2000000 /dev/zero | tr '\\0' x >c")?;
    let diff = place.overlay.diff(&place.workspace, &[], 1000)?;
    assert_eq!(diff.cut, 3);
    assert!(diff.text.len() < 1100, "{} bytes", diff.text.len());
    assert!(
        diff.text
            .ends_with("\n# cut at 1000 bytes: 3 of 3 changes are not or not wholly shown\n")
    );
    let long = place
        .overlay
        .diff(&place.workspace, &["c".to_owned()], 1000)?;
    assert_eq!(
        long.text,
        "# created file c\ntoo long to be compared, 0 bytes → 2000000 bytes\n"
    );
    Ok(())
}

#[test]
fn the_digest_stands_for_paths_bytes_and_modes() -> anyhow::Result<()> {
    let place = Place::new(PROJECT)?;
    let digest = |paths: Option<&[String]>| place.overlay.digest(&place.workspace, paths);
    let mut seen = vec![digest(None)?];
    for script in [
        "echo 1 >a",
        "echo 2 >a",
        "chmod 755 a",
        "rm -r d",
        "ln -s a l",
        "ln -sfn b l",
        "mkfifo p",
    ] {
        place.run(script)?;
        let now = digest(None)?;
        assert!(!seen.contains(&now), "{script} changed nothing");
        seen.push(now);
    }
    let of_a = digest(Some(&["a".to_owned()]))?;
    place.run("touch a; echo other >b")?;
    assert_eq!(digest(Some(&["a".to_owned()]))?, of_a);
    Ok(())
}

#[test]
fn empty_files_stand_for_deletions_where_the_directory_says_so() -> anyhow::Result<()> {
    use rustix::fs::{XattrFlags, setxattr};
    let place = Place::new("mkdir d e; echo a >d/a; echo b >d/b; echo a >e/a")?;
    shell(&place.upper(), "mkdir d e; : >d/a; : >d/b; : >e/a")?;
    let set = |path: &str, name: &str, value: &[u8]| {
        setxattr(place.upper().join(path), name, value, XattrFlags::empty())
    };
    set("d", "user.overlay.opaque", b"x")?;
    set("d/a", "user.overlay.whiteout", b"y")?;
    set("e/a", "user.overlay.whiteout", b"y")?;
    assert_eq!(
        place.told()?,
        ["Deleted File d/a", "Modified File d/b", "Modified File e/a"]
    );
    Ok(())
}

#[test]
fn an_upper_directory_that_refers_elsewhere_is_refused() -> anyhow::Result<()> {
    use rustix::fs::{XattrFlags, setxattr};
    for mark in ["redirect", "metacopy"] {
        let mut place = Place::new("echo a >a")?;
        place.run("echo b >b")?;
        let name = format!("user.overlay.{mark}");
        setxattr(place.upper().join("b"), name, b"/etc", XattrFlags::empty())?;
        let refused = place.overlay.list(&place.workspace, None, 9);
        assert!(matches!(refused, Err(ChangesError::Marked { mark: found, .. }) if found == mark));
        assert!(place.commit().is_err());
        place.overlay.discard(&place.workspace, None)?;
        assert!(place.told()?.is_empty());
    }
    Ok(())
}
