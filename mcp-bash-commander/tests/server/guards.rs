//! What commands must not make or change, tried by commands that help each other, and by those of an ordinary user, who can close folders
//! to the server.

use std::fs;

use serde_json::{Value, json};

use crate::client::{Client, Place};
use crate::processes::eventually;

fn begin(client: &mut Client, command: &str) -> anyhow::Result<Value> {
    let started = json!({"command": command, "wait": {"until": "none"}});
    Ok(client.ok("exec", &started)?["id"].clone())
}

fn is_over(client: &mut Client, id: &Value) -> anyhow::Result<bool> {
    let state = client.ok("read_output", &json!({"id": id, "tail": 1}))?;
    Ok(state["state"] != json!("running"))
}

/// What the operator finds put away.
fn put_away(place: &Place) -> Vec<String> {
    let folder = fs::read_dir(place.path("state").join("put-away"));
    let names = folder.into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn what_one_command_made_of_a_protected_path_is_no_other_ones_to_keep() -> anyhow::Result<()> {
    let place = Place::new()?;
    let folder = place.workspace().join(".vscode");
    let mut client = place.start()?;
    let first = begin(
        &mut client,
        "mkdir .vscode; until [ -e go ]; do sleep 0.01; done",
    )?;
    eventually("it is made", || Ok(folder.exists()))?;
    let second = "until [ ! -e .vscode ]; do sleep 0.01; done; mkdir .vscode; echo evil > .vscode/tasks.json; sleep 0.2";
    let second = begin(&mut client, second)?;
    fs::write(place.workspace().join("go"), "")?;
    eventually("both are over", || {
        Ok(is_over(&mut client, &first)? && is_over(&mut client, &second)?)
    })?;
    eventually("it is put away", || Ok(!folder.exists()))?;
    assert_eq!(put_away(&place).len(), 2);
    // What the user makes when no jail is left is the user's.
    client.close()?;
    let mut client = place.start()?;
    fs::create_dir(&folder)?;
    client.exec("true")?;
    assert!(folder.exists());
    Ok(())
}

#[test]
fn a_command_that_makes_and_removes_protected_paths_ends_no_other() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let noise = "while :; do mkdir .vscode .idea; sleep 0.02; rmdir .vscode .idea; done";
    let noise = begin(&mut client, noise)?;
    for _ in 0..10 {
        let innocent = client.exec("sleep 0.1; echo alive")?;
        assert_eq!(innocent["stdout"]["text"], json!("alive\n"), "{innocent}");
    }
    client.ok("stop", &json!({"id": noise, "signal": "KILL"}))?;
    Ok(())
}

#[test]
fn a_file_that_was_put_away_takes_no_name_of_the_workspace_along() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.workspace().join("main.rs"), "old")?;
    let mut client = place.start()?;
    client.exec("mkdir .vscode; ln main.rs .vscode/; echo own > .vscode/own")?;
    let away = place
        .path("state")
        .join("put-away")
        .join(&put_away(&place)[0]);
    assert_eq!(fs::read_to_string(away.join("own"))?, "own\n");
    assert!(!away.join("main.rs").exists());
    let doctor = client.ok("doctor", &json!({}))?.to_string();
    assert!(doctor.contains("no file of the workspace has a name outside it"));
    assert_eq!(client.exec("echo new > main.rs")?["exit_code"], json!(0));
    Ok(())
}

#[test]
fn the_host_may_remove_a_file_with_a_name_outside_while_a_command_runs() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.path("outside"), "old")?;
    fs::hard_link(place.path("outside"), place.workspace().join("linked"))?;
    let mut client = place.start()?;
    let running = begin(
        &mut client,
        "until [ ! -e linked ]; do sleep 0.01; done; echo saw it",
    )?;
    fs::remove_file(place.workspace().join("linked"))?;
    eventually("it ends", || is_over(&mut client, &running))?;
    let output = client.ok("read_output", &json!({"id": running, "tail": 100}))?;
    assert_eq!(output["text"], json!("saw it\n"), "{output}");
    Ok(())
}

#[test]
fn closing_a_folder_to_the_server_opens_nothing_to_a_command() -> anyhow::Result<()> {
    for mode in ["000", "400", "600"] {
        let place = Place::new()?;
        let work = place.workspace();
        for folder in ["deep", "conf", "repo"] {
            fs::create_dir(work.join(folder))?;
        }
        fs::write(place.path("outside"), "old")?;
        fs::hard_link(place.path("outside"), work.join("deep/linked"))?;
        fs::write(work.join("conf/.env"), "canary-8812")?;
        let policy = place.policy("[workspace]\ndeny_read = [\"**/.env\"]\n")?;
        let mut command = place.command_of_user()?;
        command.arg("--policy").arg(&policy);
        let mut client = Client::start(&mut command, &json!({}))?;
        let made = "mkdir -p .git/hooks; echo evil > .git/hooks/pre-commit";
        client.exec(&format!("{made}; chmod {mode} deep conf .git"))?;
        let tried = "chmod 755 deep conf .git; echo evil > deep/linked; cat conf/.env; cat .git/hooks/pre-commit";
        for _ in 0..2 {
            let tried = client.exec(tried)?;
            let told = tried.to_string();
            assert!(!told.contains("canary-8812"), "{mode}: {told}");
            assert_eq!(tried["stdout"]["text"], json!(""), "{mode}: {told}");
        }
        assert_eq!(fs::read_to_string(place.path("outside"))?, "old", "{mode}");
        let hook = work.join(".git/hooks/pre-commit");
        assert!(
            fs::symlink_metadata(hook).is_err(),
            "{mode}: the hook stays"
        );
    }
    Ok(())
}

#[test]
fn what_was_denied_to_a_command_is_told_by_every_tool_that_follows_it() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let denied = "python3 -c 'import socket; socket.socket(socket.AF_NETLINK, 3)'";
    let running = begin(&mut client, &format!("{denied}; cat; {denied}"))?;
    let read = |client: &mut Client| -> anyhow::Result<Value> {
        let read = client.ok("read_output", &json!({"id": running, "tail": 1}))?;
        Ok(read["violations"][0].clone())
    };
    eventually("the first is told", || Ok(read(&mut client)?["times"] == 1))?;
    let denied = read(&mut client)?;
    assert_eq!(denied["source"], json!("kernel"));
    assert!(denied["what"].to_string().contains("socket("), "{denied}");
    let stopped = client.ok("stop", &json!({"id": running}))?;
    assert_eq!(stopped["violations"], json!([denied]), "{stopped}");
    Ok(())
}

#[test]
fn a_session_that_lost_a_guard_ends_and_its_name_is_free() -> anyhow::Result<()> {
    let place = Place::new()?;
    let hooks = place.workspace().join(".git/hooks");
    fs::create_dir_all(&hooks)?;
    let mut client = place.start()?;
    let in_session = json!({"command": "echo ran", "session": "s"});
    client.ok("exec", &in_session)?;
    fs::remove_dir(&hooks)?;
    fs::create_dir(&hooks)?;
    assert_eq!(client.error("exec", &in_session)?, "JAIL_INCOMPLETE");
    eventually("it is listed no more", || {
        Ok(client.ok("list_sessions", &json!({}))?["kept"] == json!([]))
    })?;
    let again = client.ok("exec", &in_session)?;
    assert_eq!(again["stdout"]["text"], json!("ran\n"), "{again}");
    Ok(())
}

#[test]
fn a_file_that_names_the_repository_is_guarded_like_what_it_leads_to() -> anyhow::Result<()> {
    let place = Place::new()?;
    let git = place.workspace().join(".git");
    fs::write(&git, "gitdir: elsewhere\n")?;
    let mut client = place.start()?;
    let tried = client.exec("echo 'gitdir: evil' > .git || rm -f .git || mv .git other")?;
    assert_ne!(tried["exit_code"], json!(0), "{tried}");
    assert_eq!(fs::read_to_string(&git)?, "gitdir: elsewhere\n");
    let explained = client.ok("explain", &json!({"path": ".git"}))?;
    let told = explained["reason"].to_string();
    assert!(told.contains("may not be changed"), "{explained}");
    // The same where no protected path is below it.
    let free = place.policy("[workspace]\nprotect = []\n")?;
    client.close()?;
    let mut client = place.start_with(&["--policy", &free.display().to_string()])?;
    client.exec("echo 'gitdir: own' > .git")?;
    assert_eq!(fs::read_to_string(&git)?, "gitdir: own\n");
    Ok(())
}

#[test]
fn a_link_in_the_place_of_a_folder_above_a_protected_path_is_put_away() -> anyhow::Result<()> {
    for command in [
        "rmdir .git; mkdir evil; echo '[core]' > evil/config; ln -s evil .git",
        "rmdir .git; echo 'gitdir: evil' > .git",
    ] {
        let place = Place::new()?;
        let git = place.workspace().join(".git");
        fs::create_dir(&git)?;
        let mut client = place.start()?;
        let tried = client.exec(command)?;
        assert!(fs::symlink_metadata(&git).is_err(), "{command}: it stays");
        let violations = tried["violations"].as_array().map_or(0, Vec::len);
        assert_eq!((violations, put_away(&place).len()), (1, 1), "{tried}");
        assert_eq!(client.exec("true")?["exit_code"], json!(0));
    }
    Ok(())
}
