//! Memory that runs out, as a client is told of it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Client, Place};
use crate::skips::skip;

const POLICY: &str = "[limits]\nmemory = \"64M\"\n";

/// Whether commands have control groups here. Where they have none, the test is skipped by name; on CI that is an error.
fn has_groups_or_skips(client: &mut Client, test: &str) -> anyhow::Result<bool> {
    let missing = &client.exec("true")?["isolation"]["missing"];
    if missing == &json!([]) {
        return Ok(true);
    }
    skip(test, "a writable control group")?;
    Ok(false)
}

#[test]
fn a_command_is_told_that_memory_ran_out_and_its_neighbours_are_not() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_under(POLICY)?;
    if !has_groups_or_skips(&mut client, "a_command_is_told_that_memory_ran_out")? {
        return Ok(());
    }
    fs::copy(
        env!("CARGO_BIN_EXE_jail-probe"),
        place.workspace().join("probe"),
    )?;
    let too_much = "./probe 'allocate together' 20 10000000; exit 5";
    for session in [json!(null), json!("build")] {
        let mut told = |command: &str| -> anyhow::Result<(Value, Value)> {
            let mut arguments = json!({"command": command});
            if !session.is_null() {
                arguments["session"] = session.clone();
            }
            let done = client.ok("exec", &arguments)?;
            Ok((done["exit_code"].clone(), done["oom"].clone()))
        };
        assert_eq!(told("exit 4")?, (json!(4), json!(false)));
        assert_eq!(told(too_much)?, (json!(5), json!(true)));
        assert_eq!(told("exit 6")?, (json!(6), json!(false)));
    }
    Ok(())
}

#[test]
fn a_policy_that_requires_a_group_is_kept_or_refuses() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_under(&format!("{POLICY}require_cgroup = true\n"))?;
    let answer = client.call("exec", &json!({"command": "echo ran > ran"}))?;
    let doctor = client.ok("doctor", &json!({}))?;
    let checks = doctor["checks"].as_array().cloned().unwrap_or_default();
    let of_jail = |word: &str| {
        checks.iter().any(|check| {
            let text = check.to_string();
            text.contains("\"check\":\"jail") && text.contains(word)
        })
    };
    if place.workspace().join("ran").exists() {
        assert!(answer.to_string().contains("cgroup:v"), "{answer}");
        assert!(of_jail("cgroup:v"), "{doctor}");
    } else {
        assert!(answer.to_string().contains("Delegate=yes"), "{answer}");
        assert!(of_jail("Delegate=yes"), "{doctor}");
        assert_eq!(doctor["status"], json!("fail"));
    }
    Ok(())
}

/// How many control groups below `folder` are those of jails of this launcher.
fn groups_of(launcher: &str, folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders
        .map(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_jails =
                name.starts_with("mcp-bash-commander.") && name.contains(&format!(".{launcher}."));
            usize::from(is_jails) + groups_of(launcher, &entry.path())
        })
        .sum()
}

#[test]
fn a_server_that_ends_leaves_no_group_of_a_session_it_had() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    if !has_groups_or_skips(&mut client, "a_server_that_ends_leaves_no_group")? {
        return Ok(());
    }
    let kept = json!({"command": "sleep 1000 > /dev/null 2>&1 &", "session": "kept"});
    client.ok("exec", &kept)?;
    let id = client.id();
    let threads = fs::read_dir(format!("/proc/{id}/task"))?.flatten();
    let children: String = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .collect();
    let launcher = children.trim();
    let hierarchies = Path::new("/sys/fs/cgroup");
    assert!(groups_of(launcher, hierarchies) > 0, "{launcher}");
    client.close()?;
    assert_eq!(groups_of(launcher, hierarchies), 0);
    Ok(())
}
