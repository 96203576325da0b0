//! What the call log says of commands.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::{Value, json};
use shared::digest::Digest;

use crate::client::{Client, Place};
use crate::processes::eventually;

/// The lines of the log so far.
fn lines(place: &Place) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(place.path("state/calls.jsonl"))?;
    text.lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

/// The details of those with this outcome, of this command.
fn details(place: &Place, outcome: &str, exec: &Value) -> anyhow::Result<Vec<Value>> {
    let is_it = |line: &Value| line["outcome"] == outcome && line["details"]["exec"] == *exec;
    let found = lines(place)?.into_iter().filter(is_it);
    Ok(found.map(|line| line["details"].clone()).collect())
}

/// The one record of a command's end, once it is there.
fn end(place: &Place, exec: &Value) -> anyhow::Result<Value> {
    eventually("the end is recorded", || {
        Ok(!details(place, "ended", exec)?.is_empty())
    })?;
    let mut ends = details(place, "ended", exec)?;
    anyhow::ensure!(ends.len() == 1, "{ends:?}");
    ends.pop().context("no end")
}

fn the_log_verifies(place: &Place) -> anyhow::Result<()> {
    let verified = place.run(&["audit", "verify"])?;
    anyhow::ensure!(verified.status.success(), "{verified:?}");
    Ok(())
}

#[test]
fn a_command_is_recorded_before_it_starts_and_when_it_has_ended() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.workspace().join("sub"))?;
    let mut client = place.start()?;
    let output = "x".repeat(100_000);
    let argv = [
        "bash",
        "-c",
        "printf '%0100000d' 0 | tr 0 x; cat >&2; exit 3",
    ];
    let done = client.ok(
        "exec",
        &json!({"argv": argv, "cwd": "sub", "stdin": "typed", "env": {"GREETING": "canary-6411"}}),
    )?;
    let end = end(&place, &done["id"])?;
    let recorded = lines(&place)?;
    let policy = recorded[0]["arguments_sha256"]
        .as_str()
        .context("no policy")?;
    let started = &recorded[1];
    assert_eq!(
        started["details"],
        json!({
            "exec": done["id"],
            "argv": argv,
            "cwd": place.workspace().canonicalize()?.join("sub"),
            "env": ["GREETING"],
            "network": "none",
            "policy": format!("sha256:{policy}"),
            "decision": "allow",
            "approved_by": "none",
        })
    );
    for (name, bytes) in [("stdout", output.as_bytes()), ("stderr", b"typed")] {
        let sum = json!({"bytes": bytes.len(), "sha256": Digest::of(bytes)});
        assert_eq!(end[name], sum, "{end}");
    }
    assert_eq!(end["isolation"], done["isolation"]);
    assert_eq!(
        (&end["state"], &end["exit_code"], &end["timed_out"]),
        (&json!("exited"), &json!(3), &json!(false))
    );
    assert_eq!(end["violations"], json!([]));
    // The call has its own line, which names the command.
    let of_call: Vec<&Value> = recorded
        .iter()
        .filter(|line| line["outcome"] == "ok")
        .collect();
    let details = &of_call.last().context("no call")?["details"];
    assert_eq!(*details, json!({"exec": done["id"]}));
    for line in &recorded[1..] {
        for same in ["principal", "tool", "arguments_sha256"] {
            assert_eq!(line[same], started[same], "{line}");
        }
    }
    assert!(!json!(recorded).to_string().contains("canary-6411"));
    client.close()?;
    the_log_verifies(&place)
}

#[test]
fn the_end_of_a_command_is_recorded_long_after_its_call() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let stopped = json!(client.launch("echo up; exec sleep 1000")?);
    assert_eq!(details(&place, "started", &stopped)?.len(), 1);
    client.exec("true")?;
    assert_eq!(
        details(&place, "ended", &stopped)?.len(),
        0,
        "it still runs"
    );
    client.ok("stop", &json!({"id": stopped, "signal": "KILL"}))?;
    let of_stopped = end(&place, &stopped)?;
    assert_eq!(
        (&of_stopped["signal"], &of_stopped["stdout"]["bytes"]),
        (&json!(9), &json!(3)),
        "{of_stopped}"
    );

    let by_itself = json!(client.launch("unshare -U true; exit 4")?);
    let of_other = end(&place, &by_itself)?;
    assert_eq!(of_other["exit_code"], json!(4), "{of_other}");
    assert_eq!(
        of_other["violations"][0]["source"],
        json!("kernel"),
        "{of_other}"
    );

    // What lives longer than the server ends with it, and that is recorded too.
    let alone = json!(client.launch("exec sleep 1000")?);
    let of_session = client.ok(
        "exec",
        &json!({"command": "exec sleep 1000", "session": "s", "wait": {"until": "none"}}),
    )?;
    client.close()?;
    for exec in [&alone, &of_session["id"]] {
        let end = end(&place, exec)?;
        assert_eq!(
            (&end["state"], &end["killed"]),
            (&json!("killed"), &json!("server_ended")),
            "{end}"
        );
    }
    the_log_verifies(&place)
}

#[test]
fn a_command_over_its_time_is_recorded_as_one() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let killed = client.ok(
        "exec",
        &json!({"command": "echo begun; sleep 1000", "timeout_ms": 300}),
    )?;
    let end = end(&place, &killed["id"])?;
    assert_eq!(
        (&end["state"], &end["killed"], &end["timed_out"]),
        (&json!("killed"), &json!("timed_out"), &json!(true)),
        "{end}"
    );
    assert_eq!(
        end["exit_code"],
        Value::Null,
        "a killed command has no exit code"
    );
    assert_eq!(end["stdout"]["bytes"], json!(6));
    Ok(())
}

#[test]
fn what_is_refused_is_recorded_with_what_decided_and_nothing_of_it_starts() -> anyhow::Result<()> {
    const RULES: &str = "[[rule]]\nmatch = [\"shutdown\"]\ndecision = \"deny\"\nreason = \"never\"\n\
                         [[rule]]\nmatch = [\"ls\"]\ndecision = \"allow\"\nreason = \"harmless\"\n";
    let place = Place::new()?;
    let mut client = place.start_under(RULES)?;
    let denied = json!({"command": "true; shutdown now"});
    assert_eq!(client.error("exec", &denied)?, "COMMAND_DENIED");
    let listed = client.ok("exec", &json!({"argv": ["ls"]}))?;
    end(&place, &listed["id"])?;
    let recorded = lines(&place)?;
    let line = &recorded[1];
    assert_eq!(
        (&line["outcome"], &line["code"]),
        (&json!("refused"), &json!("COMMAND_DENIED"))
    );
    let said = &line["details"];
    assert_eq!(
        (
            &said["command"],
            &said["decision"],
            &said["rule"],
            &said["approved_by"]
        ),
        (
            &denied["command"],
            &json!("deny"),
            &json!(1),
            &json!("none")
        ),
        "{line}"
    );
    let allowed = details(&place, "started", &listed["id"])?;
    assert_eq!(
        (&allowed[0]["decision"], &allowed[0]["approved_by"]),
        (&json!("allow"), &json!("rule")),
        "{allowed:?}"
    );
    let starts = recorded.iter().filter(|line| line["outcome"] == "started");
    assert_eq!(starts.count(), 1);
    Ok(())
}

#[test]
fn a_command_that_could_not_be_started_is_recorded_as_not_started() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let missing = json!({"argv": ["no-such-program"]});
    assert_eq!(client.error("exec", &missing)?, "PROGRAM_NOT_RUN");
    client.close()?;
    let recorded = lines(&place)?;
    let end = recorded
        .iter()
        .find(|line| line["outcome"] == "ended")
        .context("no end")?;
    assert_eq!(end["details"]["state"], json!("not_started"), "{end}");
    assert_eq!(end["details"]["exec"], recorded[1]["details"]["exec"]);
    Ok(())
}

/// A server whose files have a longest size, as on a disk that is full.
fn start_without_room(place: &Place, policy: &str) -> anyhow::Result<Client> {
    let server = place.command();
    let mut command = Command::new("bash");
    command
        .args(["-c", "trap '' XFSZ; ulimit -S -f 4; exec \"$@\"", "bash"])
        .arg(server.get_program())
        .args(server.get_args())
        .arg("--policy")
        .arg(place.policy(policy)?)
        .stderr(Stdio::null());
    Client::start(&mut command, &json!({}))
}

#[test]
fn what_cannot_be_recorded_does_not_run_unless_the_policy_says_so() -> anyhow::Result<()> {
    let place = Place::new()?;
    let touch = |number: u32| json!({"command": format!("echo {number} >ran-{number}")});
    let mut client = start_without_room(&place, "")?;
    let full = (1..20).find(|&number| {
        let call = client.error("exec", &touch(number));
        call.is_ok_and(|code| code == "AUDIT_UNAVAILABLE")
    });
    let full = full.context("the log never was full")?;
    assert!(
        full == 1 || place.workspace().join("ran-1").exists(),
        "the control"
    );
    for number in 100..103 {
        assert_eq!(client.error("exec", &touch(number))?, "AUDIT_UNAVAILABLE");
        assert!(!place.workspace().join(format!("ran-{number}")).exists());
    }
    // Reading goes on.
    client.ok("list_sessions", &json!({}))?;
    drop(client);

    let place = Place::new()?;
    let mut client = start_without_room(&place, "[audit]\nrequired = false\n")?;
    for number in 1..20 {
        client.ok("exec", &touch(number))?;
        assert!(place.workspace().join(format!("ran-{number}")).exists());
    }
    let size = fs::metadata(place.path("state/calls.jsonl"))?.len();
    assert!(size <= 4096, "the control: {size}");
    Ok(())
}

#[test]
fn secrets_in_a_command_are_not_recorded() -> anyhow::Result<()> {
    let place = Place::new()?;
    let policy = "[network]\nmode = \"allowlist\"\nallow = [\"api.example.org:443\"]\n\
                  [secrets.gh]\nfrom_env = \"SERVER_SECRET\"\n\
                  inject = { host = \"api.example.org\", header = \"Authorization\" }";
    let mut client = place.start_under(policy)?;
    // What the server has as SERVER_SECRET, and what only looks like a secret.
    let command =
        "echo canary-7351; : curl -H 'Authorization: Bearer canary-1' --password canary-2";
    let done = client.exec(command)?;
    assert_eq!(
        done["stdout"]["text"],
        json!("canary-7351\n"),
        "the control"
    );
    end(&place, &done["id"])?;
    let argv = json!({"argv": ["echo", "--token", "canary-3", "X=canary-7351"]});
    client.ok("exec", &argv)?;
    client.close()?;
    let started = details(&place, "started", &done["id"])?;
    assert_eq!(
        started[0]["command"],
        json!("echo [secret gh]; : curl -H 'Authorization: [hidden]' --password [hidden]")
    );
    let whole = fs::read_to_string(place.path("state/calls.jsonl"))?;
    assert!(whole.contains("X=[secret gh]"), "{whole}");
    assert!(!whole.contains("canary"), "{whole}");
    Ok(())
}
