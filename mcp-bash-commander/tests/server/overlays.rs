//! Changes kept aside: looked at, carried over, thrown away; and what no command may make.

use std::fs;

use serde_json::{Value, json};

use crate::client::{Client, Place};
use crate::processes::eventually;

fn overlaid(client: &mut Client, command: &str) -> anyhow::Result<Value> {
    let call = json!({"command": command, "session": "try", "workspace": "overlay"});
    client.ok("exec", &call)
}

fn changes(client: &mut Client, action: &str, more: &Value) -> anyhow::Result<Value> {
    let mut call = json!({"id": "try", "action": action});
    if let (Some(call), Some(more)) = (call.as_object_mut(), more.as_object()) {
        call.extend(more.clone());
    }
    client.ok("changes", &call)
}

#[test]
fn a_trial_is_seen_committed_and_only_as_it_was_seen() -> anyhow::Result<()> {
    let place = Place::new()?;
    let at = |name: &str| place.workspace().join(name);
    fs::write(at("kept.txt"), "one\ntwo\n")?;
    fs::write(at("gone.txt"), "gone\n")?;
    let mut client = place.start()?;
    let ran = overlaid(
        &mut client,
        "echo three >> kept.txt; rm gone.txt; mkdir new; echo x > new/file",
    )?;
    assert!(
        ran["isolation"]["layers"].to_string().contains("overlay"),
        "{ran}"
    );
    assert_eq!(fs::read_to_string(at("kept.txt"))?, "one\ntwo\n");
    assert!(at("gone.txt").exists());

    let listed = changes(&mut client, "list", &json!({}))?;
    let told: Vec<String> = listed["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| format!("{} {}", change["kind"], change["path"]).replace('"', ""))
        .collect();
    assert_eq!(
        told,
        [
            "deleted gone.txt",
            "modified kept.txt",
            "created new",
            "created new/file"
        ]
    );
    let diff = changes(&mut client, "diff", &json!({"paths": ["kept.txt"]}))?;
    assert!(
        diff["diff"]
            .as_str()
            .is_some_and(|diff| diff.contains("+three")),
        "{diff}"
    );

    // What was looked at is not what would be committed now.
    overlaid(&mut client, "echo sly > new/other")?;
    let stale = json!({"id": "try", "action": "commit", "expect": listed["digest"]});
    assert_eq!(client.error("changes", &stale)?, "CHANGES_DIFFER");
    assert!(at("gone.txt").exists());
    let now = changes(&mut client, "list", &json!({}))?;
    let committed = changes(&mut client, "commit", &json!({"expect": now["digest"]}))?;
    assert_eq!(committed["skipped"], json!([]));
    assert_eq!(fs::read_to_string(at("kept.txt"))?, "one\ntwo\nthree\n");
    assert!(!at("gone.txt").exists() && at("new/other").exists());
    assert_eq!(
        changes(&mut client, "list", &json!({}))?["changes"],
        json!([])
    );
    Ok(())
}

#[test]
fn what_is_listed_or_compared_is_what_its_digest_is_of() -> anyhow::Result<()> {
    let place = Place::new()?;
    let at = |name: &str| place.workspace().join(name);
    let mut client = place.start()?;
    overlaid(
        &mut client,
        "mkdir -p a/deep a/other b; echo 1 > a/deep/one; echo 2 > a/other/two; echo 3 > b/three",
    )?;
    let paths = json!({"paths": ["./a/deep"]});
    let listed = changes(&mut client, "list", &paths)?;
    let told: Vec<&Value> = listed["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| &change["path"])
        .collect();
    // The folder above is new, and carried over with what is in it.
    assert_eq!(told, ["a", "a/deep", "a/deep/one"], "{listed}");
    assert_eq!(listed["omitted"], json!(0));
    let compared = changes(&mut client, "diff", &paths)?;
    assert_eq!(compared["digest"], listed["digest"]);
    let absolute = json!({"paths": [place.workspace().canonicalize()?.join("a")]});
    let above = changes(&mut client, "list", &absolute)?;
    assert_eq!(above["changes"].as_array().map(Vec::len), Some(5));
    let other =
        json!({"id": "try", "action": "commit", "paths": ["a"], "expect": listed["digest"]});
    assert_eq!(client.error("changes", &other)?, "CHANGES_DIFFER");
    let nothing = json!({"id": "try", "action": "list", "paths": ["c"]});
    assert_eq!(client.error("changes", &nothing)?, "INVALID_ARGUMENTS");
    let same = json!({"paths": ["a/deep"], "expect": compared["digest"]});
    let committed = changes(&mut client, "commit", &same)?;
    assert_eq!(committed["applied"].as_array().map(Vec::len), Some(3));
    assert!(at("a/deep/one").exists() && !at("a/other").exists() && !at("b").exists());
    Ok(())
}

#[test]
fn what_is_thrown_away_was_never_there() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    overlaid(&mut client, "echo x > file; seq 1 100 | xargs touch")?;
    let discarded = changes(&mut client, "discard", &json!({}))?;
    assert_eq!(discarded["discarded"], json!(101));
    assert_eq!(fs::read_dir(place.workspace())?.count(), 0);
    let plain = client.exec("true")?;
    let none = json!({"id": plain["id"], "action": "list"});
    assert_eq!(client.error("changes", &none)?, "NO_OVERLAY");
    client.close()?;
    let left: Vec<_> = fs::read_dir(place.path("state").join("overlays"))?.collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn a_single_command_can_have_an_overlay_too() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let ran = client.ok(
        "exec",
        &json!({"command": "echo x > file", "workspace": "overlay"}),
    )?;
    let committed = client.ok("changes", &json!({"id": ran["id"], "action": "commit"}))?;
    assert_eq!(committed["applied"][0]["path"], json!("file"));
    assert_eq!(fs::read_to_string(place.workspace().join("file"))?, "x\n");
    let readonly = client.ok(
        "exec",
        &json!({"command": "echo y > file", "workspace": "readonly"}),
    )?;
    assert_ne!(readonly["exit_code"], json!(0));
    assert_eq!(fs::read_to_string(place.workspace().join("file"))?, "x\n");
    Ok(())
}

#[test]
fn protected_paths_are_neither_changed_nor_moved_nor_made() -> anyhow::Result<()> {
    let place = Place::new()?;
    let at = |name: &str| place.workspace().join(name);
    fs::create_dir_all(at(".git/hooks"))?;
    fs::write(at(".git/config"), "[core]\n")?;
    fs::write(at(".git/index"), "index\n")?;
    let mut client = place.start()?;
    let tried = client.exec(
        "echo evil > .git/hooks/pre-commit; echo evil >> .git/config; rm -rf .git/hooks; mv .git g; echo new > .git/index; \
         mkdir .vscode; echo '{}' > .vscode/tasks.json; ln -s /etc/passwd .mcp.json; true",
    )?;
    assert_eq!(fs::read_to_string(at(".git/config"))?, "[core]\n");
    assert_eq!(fs::read_dir(at(".git/hooks"))?.count(), 0);
    assert!(!at("g").exists());
    assert_eq!(
        fs::read_to_string(at(".git/index"))?,
        "new\n",
        "the rest can be worked with"
    );
    assert!(at(".mcp.json").symlink_metadata().is_err() && !at(".vscode").exists());
    let made: Vec<&str> = tried["violations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|violation| violation["source"] == "workspace")
        .filter_map(|violation| violation["what"].as_str())
        .collect();
    assert_eq!(made, ["made .mcp.json", "made .vscode"], "{tried}");
    // The operator has them.
    assert_eq!(
        fs::read_dir(place.path("state").join("put-away"))?.count(),
        2
    );
    // The same behind an overlay is not carried over.
    overlaid(
        &mut client,
        "rm -rf .git/hooks; mkdir .idea; echo x > .idea/x; echo y > fine",
    )?;
    let committed = changes(&mut client, "commit", &json!({}))?;
    assert!(at(".git/hooks").exists() && !at(".idea").exists() && at("fine").exists());
    assert!(
        committed["skipped"].to_string().contains("protected"),
        "{committed}"
    );
    Ok(())
}

/// What a command leaves running is still the jail's, and what it makes is looked at when nothing of the jail is left.
#[test]
fn what_a_command_leaves_running_makes_no_protected_path_either() -> anyhow::Result<()> {
    let place = Place::new()?;
    let at = |name: &str| place.workspace().join(name);
    fs::create_dir(at(".git"))?;
    let mut client = place.start()?;
    let later = |session: &str| {
        format!(
            "(sleep 0.1; mkdir .git/hooks; echo evil > .git/hooks/pre-commit; echo ../evil > .git/commondir; echo x > .mcp.json; \
             touch made-{session}) </dev/null >/dev/null 2>&1 & exit 0"
        )
    };
    let is_clean = || {
        let planted = [".git/hooks", ".git/commondir", ".mcp.json"];
        planted
            .iter()
            .all(|path| at(path).symlink_metadata().is_err())
    };
    client.exec(&later("fresh"))?;
    eventually("it was made", || Ok(at("made-fresh").exists()))?;
    eventually("what was made is put away", || Ok(is_clean()))?;
    client.ok(
        "exec",
        &json!({"command": later("kept"), "session": "build"}),
    )?;
    eventually("it was made", || Ok(at("made-kept").exists()))?;
    eventually("what was made is put away", || Ok(is_clean()))?;
    client.ok(
        "exec",
        &json!({"command": later("last"), "session": "other"}),
    )?;
    eventually("it was made", || Ok(at("made-last").exists()))?;
    client.close()?;
    assert!(is_clean(), "the server's end left it");
    Ok(())
}

#[test]
fn the_file_tools_write_no_protected_path_and_no_file_in_place_of_the_folder_above()
-> anyhow::Result<()> {
    let place = Place::new()?;
    let at = |name: &str| place.workspace().join(name);
    fs::create_dir(at(".git"))?;
    fs::write(at(".git/config"), "[core]\n")?;
    let mut client = place.start()?;
    for path in [
        ".git/hooks/pre-commit",
        ".git/config",
        ".mcp.json",
        ".vscode/tasks.json",
        ".GIT/hooks/x",
        "./.idea/x",
    ] {
        let write = json!({"path": path, "content": "evil"});
        assert_eq!(client.error("write_file", &write)?, "PROTECTED", "{path}");
    }
    let edit = json!({"path": ".git/config", "edits": [{"old": "[core]", "new": "[core]\nfsmonitor = evil"}]});
    assert_eq!(client.error("edit_file", &edit)?, "PROTECTED");
    fs::remove_dir_all(at(".git"))?;
    let pointer = json!({"path": ".git", "content": "gitdir: evil"});
    assert_eq!(client.error("write_file", &pointer)?, "PROTECTED");
    client.ok(
        "write_file",
        &json!({"path": ".gitignore", "content": "target"}),
    )?;
    Ok(())
}

#[test]
fn an_overlay_can_be_written_whoever_owns_the_workspace() -> anyhow::Result<()> {
    let place = Place::new()?;
    let is_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata(place.workspace())?) == 0;
    if is_root {
        std::os::unix::fs::chown(place.workspace(), Some(41_238), Some(41_238))?;
    }
    let mut client = place.start()?;
    let ran = client.ok(
        "exec",
        &json!({"command": "echo x > file && mkdir folder && touch folder/y", "workspace": "overlay"}),
    )?;
    assert_eq!(ran["exit_code"], json!(0), "{ran}");
    let committed = client.ok("changes", &json!({"id": ran["id"], "action": "commit"}))?;
    assert_eq!(
        committed["applied"].as_array().map(Vec::len),
        Some(3),
        "{committed}"
    );
    assert_eq!(fs::read_to_string(place.workspace().join("file"))?, "x\n");
    Ok(())
}
