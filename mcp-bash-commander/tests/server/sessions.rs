//! Commands that run on: read, listed, stopped, and only by whom they belong to.

use std::sync::Arc;

use mcp_bash_commander::jail::{JailSpec, Launcher};
use mcp_bash_commander::network::Reachable;
use mcp_bash_commander::session::{Killed, Order, SessionError, Sessions, SpoolFolder, Stream};
use serde_json::{Value, json};

use crate::client::Place;
use crate::processes::{processes_with, tag};
use crate::program::PROGRAM;

#[test]
fn a_command_that_runs_on_is_read_and_stopped() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let session =
        client.launch("trap 'echo bye; exit 5' TERM; echo one; while :; do sleep 0.05; done")?;
    let read = client.ok(
        "read_output",
        &json!({"id": session, "wait": {"until": "output"}}),
    )?;
    assert_eq!(
        (&read["text"], &read["end"], &read["state"]),
        (&json!("one\n"), &json!(false), &json!("running"))
    );
    let listed = client.ok("list_sessions", &json!({}))?;
    assert_eq!(
        (
            &listed["sessions"][0]["id"],
            &listed["sessions"][0]["state"]
        ),
        (&json!(session), &json!("running"))
    );
    let stopped = client.ok("stop", &json!({"id": session, "grace_ms": 10_000}))?;
    assert_eq!(
        (
            &stopped["exit_code"],
            &stopped["killed"],
            &stopped["survivors"]
        ),
        (&json!(5), &json!(false), &json!(0))
    );
    let rest = client.ok(
        "read_output",
        &json!({"id": session, "cursor": read["cursor"]}),
    )?;
    assert_eq!(
        (&rest["text"], &rest["end"]),
        (&json!("bye\n"), &json!(true))
    );
    let again = client.ok("stop", &json!({"id": session}))?;
    assert_eq!(again["exit_code"], json!(5));
    Ok(())
}

#[test]
fn a_command_that_ignores_the_signal_is_killed_after_the_grace() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let seconds = tag(6);
    let session = client.launch(&format!(
        "trap '' TERM HUP INT; echo ready; while :; do sleep {seconds}; done"
    ))?;
    client.ok(
        "read_output",
        &json!({"id": session, "wait": {"until": "output"}}),
    )?;
    let stopped = client.ok("stop", &json!({"id": session, "grace_ms": 100}))?;
    assert_eq!(
        (&stopped["state"], &stopped["killed"], &stopped["signal"]),
        (&json!("killed"), &json!(true), &json!(9))
    );
    assert_eq!(
        (&stopped["exit_code"], &stopped["survivors"]),
        (&Value::Null, &json!(0))
    );
    assert_eq!(processes_with(&seconds)?, 0);
    Ok(())
}

#[test]
fn waiting_ends_with_the_command() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let waited = client.ok(
        "exec",
        &json!({"command": "read line < <(sleep 0.5; echo)", "wait": {"ms": 20}}),
    )?;
    assert_eq!(waited["state"], json!("running"));
    let ended = client.ok(
        "read_output",
        &json!({"id": waited["id"], "wait": {"until": "exit"}}),
    )?;
    assert_eq!(
        (&ended["state"], &ended["exit_code"], &ended["end"]),
        (&json!("exited"), &json!(0), &json!(true))
    );
    Ok(())
}

fn order(owner: &str, place: &Place, command: &[&str]) -> Order {
    Order {
        owner: Arc::from(owner),
        command: command.join(" "),
        jail: JailSpec::new(command.iter().copied()),
        kept: None,
        reachable: Reachable::default(),
        overlay: None,
        forbidden: None,
        timeout: None,
        output_bytes: 1 << 20,
        spools: SpoolFolder::new(&place.path("")),
        origin: None,
        recording: None,
    }
}

#[tokio::test]
async fn nobody_sees_or_finds_the_sessions_of_another() -> anyhow::Result<()> {
    let place = Place::new()?;
    let sessions = Sessions::new(Launcher::start_from(PROGRAM.as_ref())?, 4);
    let session = sessions
        .start(order("ana", &place, &["sleep", "100"]))
        .await?;
    let id = session.id().to_string();
    assert!(sessions.find(&id, "ana").is_ok());
    assert_eq!(sessions.of_owner("ana").len(), 1);
    assert!(matches!(
        sessions.find(&id, "ben"),
        Err(SessionError::Unknown(_))
    ));
    assert_eq!(sessions.of_owner("ben").len(), 0);
    let unknown = sessions
        .find("x999", "ben")
        .err()
        .map(|error| error.to_string().replace("x999", &id));
    let foreign = sessions
        .find(&id, "ben")
        .err()
        .map(|error| error.to_string());
    assert_eq!(
        unknown, foreign,
        "the answer does not tell whether it exists"
    );
    session.kill(Killed::Stopped);
    session.over().await;
    Ok(())
}

#[tokio::test]
async fn a_live_session_is_never_dropped_to_make_room() -> anyhow::Result<()> {
    let place = Place::new()?;
    let sessions = Sessions::new(Launcher::start_from(PROGRAM.as_ref())?, 2);
    let first = sessions
        .start(order("ana", &place, &["sleep", "100"]))
        .await?;
    let second = sessions
        .start(order("ana", &place, &["sleep", "100"]))
        .await?;
    let refused = sessions.start(order("ben", &place, &["true"])).await;
    assert!(matches!(refused, Err(SessionError::Full(2))));
    assert!(first.state().ended.is_none() && second.state().ended.is_none());
    first.kill(Killed::Stopped);
    first.over().await;
    let third = sessions.start(order("ben", &place, &["true"])).await?;
    assert_eq!(
        third.ended().await.ended.and_then(|ended| ended.exit.code),
        Some(0)
    );
    assert_ne!(third.id(), first.id(), "a name is never used again");
    sessions.end();
    assert!(matches!(
        sessions.start(order("ana", &place, &["true"])).await,
        Err(SessionError::Ending)
    ));
    assert_eq!(
        second.over().await.ended.and_then(|ended| ended.killed),
        Some(Killed::ServerEnded)
    );
    Ok(())
}

#[tokio::test]
async fn a_command_that_was_not_started_leaves_its_place_free() -> anyhow::Result<()> {
    let place = Place::new()?;
    let sessions = Sessions::new(Launcher::start_from(PROGRAM.as_ref())?, 1);
    for _ in 0..3 {
        assert!(
            sessions
                .start(order("ana", &place, &["no-such-program"]))
                .await
                .is_err()
        );
    }
    let session = sessions
        .start(order("ana", &place, &["echo", "hi"]))
        .await?;
    session.ended().await;
    assert_eq!(session.excerpt(Stream::Stdout, 100)?.text, "hi\n");
    Ok(())
}
