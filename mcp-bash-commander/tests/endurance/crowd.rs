//! Many commands at once over one connection: all live where the policy has room; the surplus is refused and nobody pays for it.

use std::fs::OpenOptions;
use std::time::Instant;

use serde_json::{Value, json};

use crate::client::{Call, Place, Server};
use crate::machine::family;
use crate::processes::{eventually, processes_with, tag};
use crate::scale::{Scale, alone};

/// Commands that a policy lets run at once by default.
const DEFAULT: usize = 32;

/// Waits at the gate, a pipe that nobody has opened yet, and then says its number.
fn waiting(tag: &str, number: usize) -> Value {
    json!({"argv": ["/bin/sh", "-c", "cat gate && echo \"$1\"", tag, number.to_string()]})
}

fn make_gate(place: &Place) -> anyhow::Result<()> {
    let gate = place.workspace().join("gate");
    Ok(rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::Mode::from_raw_mode(0o666),
    )
    .and_then(|()| rustix::fs::chmod(&gate, rustix::fs::Mode::from_raw_mode(0o666)))?)
}

/// Whoever waits at the gate goes on.
fn open_gate(place: &Place) -> anyhow::Result<()> {
    let gate = place.workspace().join("gate");
    drop(OpenOptions::new().write(true).open(gate)?);
    Ok(())
}

fn crowd(server: &mut Server, tag: &str, size: usize) -> anyhow::Result<Vec<Call>> {
    (0..size)
        .map(|number| server.begin("exec", &waiting(tag, number)))
        .collect()
}

/// How many commands the server lists as running.
fn listed_as_running(server: &mut Server) -> anyhow::Result<usize> {
    let (mut running, mut cursor) = (0, Value::Null);
    loop {
        let page = server.ok("list_sessions", &json!({"cursor": cursor}))?;
        running += page["sessions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|session| session["state"] == json!("running"))
            .count();
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            return Ok(running);
        }
    }
}

/// Each command ended well and said its own number.
fn check(number: usize, done: &Value) {
    assert_eq!(
        (
            &done["state"],
            &done["exit_code"],
            &done["stdout"]["text"],
            &done["stderr"]["text"]
        ),
        (
            &json!("exited"),
            &json!(0),
            &json!(format!("{number}\n")),
            &json!("")
        ),
        "command {number}"
    );
}

fn all_live_at_once(
    server: &mut Server,
    place: &Place,
    tag: &str,
    size: usize,
) -> anyhow::Result<()> {
    make_gate(place)?;
    let started = Instant::now();
    let calls = crowd(server, tag, size)?;
    eventually("all run at once", || Ok(processes_with(tag)? == size))?;
    let up = started.elapsed();
    // A process is there an instant before the server lists it.
    eventually("all are listed", || Ok(listed_as_running(server)? == size))?;
    let asked = Instant::now();
    listed_as_running(server)?;
    let listed = asked.elapsed();
    open_gate(place)?;
    for (number, call) in calls.into_iter().enumerate() {
        let done = server.outcome(call)?.map_err(anyhow::Error::msg)?;
        check(number, &done);
    }
    eprintln!(
        "{size} commands at once: all up after {up:?}, listed in {listed:?}, all answered after {:?}",
        started.elapsed()
    );
    eventually("all jails are over", || Ok(family(server.id()).len() == 2))
}

#[test]
fn as_many_commands_as_the_policy_allows_run_at_once() -> anyhow::Result<()> {
    let (scale, _turn) = (Scale::asked_for()?, alone());
    let place = Place::new()?;
    let policy = place.policy(&format!("[limits]\nsessions = {}\n", scale.crowd))?;
    let mut server = place.start_with(&["--policy", &policy])?;
    all_live_at_once(&mut server, &place, &tag(1), scale.crowd)
}

#[test]
fn two_hundred_commands_run_at_once_where_a_program_may_open_a_thousand_files() -> anyhow::Result<()>
{
    let _turn = alone();
    let place = Place::new()?;
    let policy = place.policy("[limits]\nsessions = 200\n")?;
    let mut server = place.start_with_usual_limit_of_files(&["--policy", &policy])?;
    all_live_at_once(&mut server, &place, &tag(2), 200)
}

#[test]
fn commands_over_the_limit_are_refused_and_the_others_go_on() -> anyhow::Result<()> {
    let _turn = alone();
    let place = Place::new()?;
    let mut server = place.start()?;
    let tag = tag(3);
    make_gate(&place)?;
    let kept = server.ok("exec", &json!({"argv": ["true"], "session": "kept"}))?;
    assert_eq!(kept["exit_code"], json!(0));
    // The kept session takes one place.
    let room = DEFAULT - 1;
    let first = crowd(&mut server, &tag, room)?;
    eventually("as many run as may", || Ok(processes_with(&tag)? == room))?;
    let refused = crowd(&mut server, &tag, 200 - room)?;
    for call in refused {
        let code = server.outcome(call)?.err();
        assert_eq!(code.as_deref(), Some("TOO_MANY_SESSIONS"));
    }
    assert_eq!(
        (processes_with(&tag)?, listed_as_running(&mut server)?),
        (room, room),
        "nobody made room"
    );
    open_gate(&place)?;
    for (number, call) in first.into_iter().enumerate() {
        let done = server.outcome(call)?.map_err(anyhow::Error::msg)?;
        check(number, &done);
    }
    eprintln!("{} refused, {room} unharmed", 200 - room);
    let kept = server.ok("exec", &json!({"argv": ["true"], "session": "kept"}))?;
    assert_eq!(kept["exit_code"], json!(0));
    Ok(())
}
