//! What is refused: bad calls with a code, bad configurations before anything is served, and changed logs by `audit verify`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Context as _;
use serde_json::json;

use crate::client::{Place, write_private};

#[test]
fn every_bad_call_is_answered_with_a_code_and_the_server_goes_on() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    let long = "x".repeat(200_000);
    let many = vec!["x"; 100_000];
    let table = [
        ("exec", json!({}), "INVALID_ARGUMENTS"),
        ("exec", json!({"command": ""}), "INVALID_ARGUMENTS"),
        ("exec", json!({"command": " \n"}), "INVALID_ARGUMENTS"),
        ("exec", json!({"command": "a\0b"}), "INVALID_ARGUMENTS"),
        ("exec", json!({"command": long}), "INVALID_ARGUMENTS"),
        ("exec", json!({"command": 7}), "INVALID_ARGUMENTS"),
        (
            "exec",
            json!({"command": "true", "argv": ["true"]}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "sudo": true}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "grant": "gr_1"}),
            "INVALID_ARGUMENTS",
        ),
        ("exec", json!({"argv": []}), "INVALID_ARGUMENTS"),
        ("exec", json!({"argv": [""]}), "INVALID_ARGUMENTS"),
        ("exec", json!({"argv": many}), "INVALID_ARGUMENTS"),
        (
            "exec",
            json!({"argv": ["no-such-program"]}),
            "PROGRAM_NOT_RUN",
        ),
        (
            "exec",
            json!({"command": "true", "timeout_ms": -1}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "timeout_ms": 0}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "timeout_ms": 1e30}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "timeout_ms": "NaN"}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "max_output_bytes": 0}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "max_output_bytes": 99_999_999_999_u64}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "wait": {"until": "pattern"}}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "wait": {"for": 1}}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "publish": [0]}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "publish": [80, 80]}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "publish": [70_000]}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "cwd": "no/such"}),
            "NO_SUCH_DIRECTORY",
        ),
        (
            "exec",
            json!({"command": "true", "cwd": "/root"}),
            "NO_SUCH_DIRECTORY",
        ),
        (
            "exec",
            json!({"command": "true", "cwd": ""}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "env": {"LD_PRELOAD": "x.so"}}),
            "ENVIRONMENT_REFUSED",
        ),
        (
            "exec",
            json!({"command": "true", "env": {"BASH_ENV": "x"}}),
            "ENVIRONMENT_REFUSED",
        ),
        (
            "exec",
            json!({"command": "true", "env": {"A=B": "x"}}),
            "INVALID_ARGUMENTS",
        ),
        (
            "exec",
            json!({"command": "true", "env": {"A": "x\0"}}),
            "INVALID_ARGUMENTS",
        ),
        ("read_output", json!({"id": "x77"}), "UNKNOWN_SESSION"),
        ("read_output", json!({"id": "1; drop"}), "UNKNOWN_SESSION"),
        (
            "read_output",
            json!({"id": "x1", "cursor": 1, "tail": 1}),
            "INVALID_ARGUMENTS",
        ),
        ("stop", json!({"id": "x77"}), "UNKNOWN_SESSION"),
        (
            "stop",
            json!({"id": "x1", "signal": "STOP"}),
            "INVALID_ARGUMENTS",
        ),
        (
            "stop",
            json!({"id": "x1", "grace_ms": 1_000_000}),
            "INVALID_ARGUMENTS",
        ),
        ("list_sessions", json!({"cursor": "?"}), "UNKNOWN_SESSION"),
        ("read_file", json!({"path": "missing"}), "NOT_FOUND"),
        (
            "read_file",
            json!({"path": "/etc/passwd"}),
            "OUTSIDE_WORKSPACE",
        ),
        ("read_file", json!({"path": "."}), "INVALID_ARGUMENTS"),
        ("write_file", json!({"path": "f"}), "INVALID_ARGUMENTS"),
        (
            "write_file",
            json!({"path": "f", "content": "", "expect_sha256": "abc"}),
            "INVALID_ARGUMENTS",
        ),
    ];
    for (tool, arguments, code) in table {
        let found = client.error(tool, &arguments)?;
        let shown: String = arguments.to_string().chars().take(100).collect();
        assert_eq!(found, code, "{tool} {shown}");
    }
    assert_eq!(
        client.exec("echo alive")?["stdout"]["text"],
        json!("alive\n")
    );
    assert_eq!(
        client.ok("list_sessions", &json!({}))?["sessions"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    Ok(())
}

#[test]
fn a_dangerous_configuration_is_not_served() -> anyhow::Result<()> {
    let place = Place::new()?;
    let inside = place.workspace().join("policy.toml");
    write_private(&inside, "version = 1\n")?;
    let open = place.path("open.toml");
    fs::write(&open, "version = 1\n")?;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666))?;
    let wrong = place.path("wrong.toml");
    write_private(&wrong, "[network]\nmode = \"host\"\n")?;
    let state = place.workspace().join("state");
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let cases = [
        (vec!["--policy".to_owned(), text(&inside)], "inside"),
        (
            vec!["--policy".to_owned(), text(&open)],
            "changed by others",
        ),
        (
            vec!["--policy".to_owned(), text(&wrong)],
            "unknown field `network`",
        ),
        (
            vec![
                "--tokens".to_owned(),
                text(&place.workspace().join("tokens")),
            ],
            "token file",
        ),
        (vec!["--enforced".to_owned()], "--registry-token"),
    ];
    for (arguments, reason) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let refused = place.run(&[&["--check-config"], arguments.as_slice()].concat())?;
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && message.contains(reason),
            "{arguments:?}: {message}"
        );
    }
    let mut command = std::process::Command::new(crate::client::PROGRAM);
    command
        .arg("--workspace")
        .arg(place.workspace())
        .arg("--state-dir")
        .arg(&state)
        .arg("--check-config");
    let refused = command.output()?;
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("the state directory"),
        "{refused:?}"
    );
    let accepted = place.run(&["--check-config"])?;
    assert!(
        accepted.status.success() && String::from_utf8_lossy(&accepted.stdout).contains("sha256:"),
        "{accepted:?}"
    );
    assert!(!place.path("state").exists(), "checking writes nothing");
    Ok(())
}

#[test]
fn the_call_log_shows_an_edit_and_a_cut_tail() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start()?;
    client.exec("echo one")?;
    client.exec("echo canary-9127")?;
    client.close()?;
    let verified = place.run(&["audit", "verify"])?;
    let summary = String::from_utf8(verified.stdout)?;
    assert!(
        verified.status.success() && summary.contains("3 entries"),
        "{summary}"
    );
    let head = summary
        .trim()
        .rsplit(' ')
        .next()
        .context("no head")?
        .to_owned();
    assert!(
        place
            .run(&["audit", "verify", "--against", &head])?
            .status
            .success()
    );

    let log = place.path("state/calls.jsonl");
    let text = fs::read_to_string(&log)?;
    assert!(!text.contains("canary-9127"), "the log holds an argument");
    let mut lines: Vec<&str> = text.lines().collect();
    fs::write(&log, text.replacen("\"exec\"", "\"exek\"", 1))?;
    let edited = place.run(&["audit", "verify"])?;
    assert!(
        !edited.status.success() && String::from_utf8_lossy(&edited.stdout).contains("line 2"),
        "{edited:?}"
    );
    lines.pop();
    fs::write(&log, lines.join("\n") + "\n")?;
    assert!(
        place.run(&["audit", "verify"])?.status.success(),
        "a cut tail alone does not show"
    );
    assert!(
        !place
            .run(&["audit", "verify", "--against", &head])?
            .status
            .success()
    );
    Ok(())
}

#[test]
fn doctor_says_the_same_to_people_and_programs() -> anyhow::Result<()> {
    let place = Place::new()?;
    let text = place.run(&["doctor"])?;
    assert!(text.status.success(), "{text:?}");
    let json: serde_json::Value =
        serde_json::from_slice(&place.run(&["doctor", "--json"])?.stdout)?;
    assert_eq!(json["status"], json!("ok"), "{json}");
    let text = String::from_utf8(text.stdout)?;
    for check in json["checks"].as_array().context("no checks")? {
        assert!(
            text.contains(check["check"].as_str().unwrap_or("?")),
            "{check} is not in {text}"
        );
    }
    assert!(
        text.contains("landlock:") && text.contains("seccomp"),
        "{text}"
    );
    Ok(())
}
