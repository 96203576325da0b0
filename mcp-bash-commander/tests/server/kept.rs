//! Sessions that are kept: what their commands share, and what ends with them.

use serde_json::{Value, json};

use crate::client::{Client, Place};
use crate::processes::{eventually, processes_with, tag};

fn in_session(client: &mut Client, session: &str, command: &str) -> anyhow::Result<Value> {
    client.ok("exec", &json!({"command": command, "session": session}))
}

#[test]
fn commands_of_a_session_share_what_a_fresh_jail_forgets() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    in_session(&mut client, "build", "echo kept > /tmp/file")?;
    let told = in_session(&mut client, "build", "cat /tmp/file")?;
    assert_eq!(told["stdout"]["text"], json!("kept\n"));
    let fresh = client.exec("cat /tmp/file")?;
    assert_eq!(
        fresh["exit_code"],
        json!(1),
        "a fresh jail has a /tmp of its own"
    );
    let other = in_session(&mut client, "other", "ls /tmp")?;
    assert_eq!(other["stdout"]["text"], json!(""));
    let listed = client.ok("list_sessions", &json!({}))?;
    let names: Vec<&str> = listed["kept"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|kept| kept["session"].as_str())
        .collect();
    assert_eq!(names, ["build", "other"]);
    Ok(())
}

#[test]
fn what_runs_on_in_a_session_is_counted_reached_and_stopped_with_it() -> anyhow::Result<()> {
    let (place, tag) = (Place::new()?, tag(71));
    let mut client = place.start()?;
    let started = in_session(
        &mut client,
        "s",
        &format!("sleep {tag} >/dev/null 2>&1 & echo on"),
    )?;
    assert_eq!(
        (&started["exit_code"], &started["background_processes"]),
        (&json!(0), &json!(1))
    );
    let seen = in_session(
        &mut client,
        "s",
        &format!("pgrep -fc 'sleep {tag}$' || ps aux | grep -c '[s]leep {tag}'"),
    )?;
    assert_eq!(seen["stdout"]["text"], json!("1\n"), "{seen}");
    let stopped = client.ok("stop", &json!({"id": "s"}))?;
    assert_eq!(
        (&stopped["killed"], &stopped["survivors"]),
        (&json!(true), &json!(0))
    );
    assert_eq!(processes_with(&tag)?, 0);
    // The name is free again, and nothing of the old session is there.
    assert_eq!(
        in_session(&mut client, "s", "ls /tmp")?["stdout"]["text"],
        json!("")
    );
    Ok(())
}

#[test]
fn a_command_over_its_time_ends_with_its_daemons_and_its_session_goes_on() -> anyhow::Result<()> {
    let (place, tag) = (Place::new()?, tag(72));
    let mut client = place.start()?;
    in_session(&mut client, "s", "echo kept > /tmp/file")?;
    let command = format!("(setsid sleep {tag} &); nohup sleep {tag} & sleep {tag}");
    let over = client.ok(
        "exec",
        &json!({"command": command, "session": "s", "timeout_ms": 300}),
    )?;
    assert_eq!(
        (&over["state"], &over["timed_out"], over.get("exit_code")),
        (&json!("killed"), &json!(true), None)
    );
    eventually("the daemons are gone", || Ok(processes_with(&tag)? == 0))?;
    assert_eq!(
        in_session(&mut client, "s", "cat /tmp/file")?["stdout"]["text"],
        json!("kept\n")
    );
    Ok(())
}

#[test]
fn a_session_is_what_it_was_made_as() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    in_session(&mut client, "s", "true")?;
    for other in [
        json!({"command": "true", "session": "s", "publish": [8080]}),
        json!({"command": "true", "session": "s", "workspace": "overlay"}),
        json!({"command": "true", "session": "s", "workspace": "readonly"}),
    ] {
        assert_eq!(client.error("exec", &other)?, "SESSION_DIFFERS", "{other}");
    }
    for name in ["", "x12", "9", "a b", "ä", &"a".repeat(33)] {
        let call = json!({"command": "true", "session": name});
        assert_eq!(client.error("exec", &call)?, "INVALID_ARGUMENTS", "{name}");
    }
    Ok(())
}

#[test]
fn the_end_of_the_server_ends_its_sessions() -> anyhow::Result<()> {
    let (place, tag) = (Place::new()?, tag(73));
    let mut client = place.start()?;
    in_session(
        &mut client,
        "s",
        &format!("setsid sleep {tag} >/dev/null 2>&1 &"),
    )?;
    eventually("it runs", || Ok(processes_with(&tag)? == 1))?;
    client.close()?;
    eventually("nothing is left", || Ok(processes_with(&tag)? == 0))
}
