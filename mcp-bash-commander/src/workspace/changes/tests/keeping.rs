//! Discarding, reopening, and what is no overlay of the workspace.

use super::*;

#[test]
fn discarded_changes_are_gone_and_the_others_stay() -> anyhow::Result<()> {
    let mut place = Place::new("echo a >a; echo b >b; mkdir d; echo c >d/c; echo e >d/e")?;
    place.run("echo 2 >a; rm b; rm d/c; mkdir -p new/sub; echo n >new/sub/n")?;
    let discarded = place
        .overlay
        .discard(&place.workspace, Some(&["b".to_owned(), "new".to_owned()]))?;
    assert_eq!(discarded.entries, 4);
    assert_eq!(place.told()?, ["Modified File a", "Deleted File d/c"]);
    place.run("test -e b; test ! -e new; test ! -e d/c")?;
    place.overlay.discard(&place.workspace, None)?;
    assert!(place.told()?.is_empty());
    place.run("test \"$(cat a d/c)\" = \"$(printf 'a\\nc')\"")?;
    Ok(())
}

#[test]
fn a_part_of_a_replaced_directory_is_not_discarded_alone() -> anyhow::Result<()> {
    let mut place = Place::new("mkdir d; echo c >d/c; echo e >d/e")?;
    place.run("rm -r d; mkdir d; echo new >d/c; echo n >d/n")?;
    let mut discard = |path: &str| {
        let paths = [path.to_owned()];
        place.overlay.discard(&place.workspace, Some(&paths))
    };
    for path in ["d/c", "d/e"] {
        assert!(matches!(
            discard(path),
            Err(ChangesError::WithinReplaced { directory, .. }) if directory == "d"
        ));
    }
    assert_eq!(discard("d/n")?.entries, 1);
    assert_eq!(discard("d")?.entries, 2);
    assert!(place.told()?.is_empty());
    Ok(())
}

#[test]
fn discarding_needs_no_rights_within_what_is_discarded() -> anyhow::Result<()> {
    let mut place = Place::new("")?;
    place.run("mkdir -p a/b/c; echo x >a/b/c/x; chmod 000 a/b/c/x; chmod 000 a/b/c; chmod 500 a/b; chmod 000 a")?;
    place.overlay.discard(&place.workspace, None)?;
    assert_eq!(fs::read_dir(place.upper())?.count(), 0);
    Ok(())
}

#[test]
fn an_overlay_is_found_again_with_its_baseline() -> anyhow::Result<()> {
    let mut place = Place::new("echo a >a")?;
    place.run("echo 2 >a; echo b >b")?;
    shell(place.root(), "echo host >a")?;
    place.overlay = Overlay::open(&place.home.path().join("overlay"))?;
    assert_eq!(
        place.told()?,
        ["Modified File a ChangedMeanwhile", "Created File b"]
    );
    Ok(())
}

#[test]
fn another_workspace_and_another_directory_are_refused() -> anyhow::Result<()> {
    let place = Place::new("")?;
    let other = Place::new("")?;
    assert!(matches!(
        place.overlay.list(&other.workspace, None, 9),
        Err(ChangesError::NoOverlay { .. })
    ));
    assert!(Overlay::open(&place.outside()).is_err());
    assert!(
        Overlay::create(&place.home.path().join("overlay"), &place.workspace).is_err(),
        "made over an existing one"
    );
    fs::write(place.home.path().join("overlay/made"), "{}")?;
    assert!(matches!(
        Overlay::open(&place.home.path().join("overlay")),
        Err(ChangesError::NoOverlay { .. })
    ));
    Ok(())
}
