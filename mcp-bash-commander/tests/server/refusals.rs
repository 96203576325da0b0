//! What is refused: bad calls with a code, bad configurations before anything is served, and changed logs by `audit verify`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Context as _;
use serde_json::json;

use crate::client::{Place, write_private};

/// Calls whose arguments cannot be used.
const INVALID: &[(&str, &str)] = &[
    ("exec", "{}"),
    ("exec", r#"{"command": ""}"#),
    ("exec", r#"{"command": " \n"}"#),
    ("exec", r#"{"command": "a\u0000b"}"#),
    ("exec", r#"{"command": 7}"#),
    ("exec", r#"{"command": "true", "argv": ["true"]}"#),
    ("exec", r#"{"command": "true", "sudo": true}"#),
    ("exec", r#"{"command": "true", "grant": "gr_1"}"#),
    ("exec", r#"{"argv": []}"#),
    ("exec", r#"{"argv": [""]}"#),
    ("exec", r#"{"command": "true", "timeout_ms": -1}"#),
    ("exec", r#"{"command": "true", "timeout_ms": 0}"#),
    ("exec", r#"{"command": "true", "timeout_ms": 1e30}"#),
    ("exec", r#"{"command": "true", "timeout_ms": "NaN"}"#),
    ("exec", r#"{"command": "true", "max_output_bytes": 0}"#),
    (
        "exec",
        r#"{"command": "true", "max_output_bytes": 99999999999}"#,
    ),
    (
        "exec",
        r#"{"command": "true", "wait": {"until": "pattern"}}"#,
    ),
    ("exec", r#"{"command": "true", "wait": {"for": 1}}"#),
    ("exec", r#"{"command": "true", "publish": [0]}"#),
    ("exec", r#"{"command": "true", "publish": [80, 80]}"#),
    ("exec", r#"{"command": "true", "publish": [70000]}"#),
    ("exec", r#"{"command": "true", "cwd": ""}"#),
    ("exec", r#"{"command": "true", "env": {"A=B": "x"}}"#),
    ("exec", r#"{"command": "true", "env": {"A": "x\u0000"}}"#),
    ("read_output", r#"{"id": "x1", "cursor": 1, "tail": 1}"#),
    ("read_output", r#"{"id": "x1", "max_bytes": 0}"#),
    ("stop", r#"{"id": "x1", "signal": "STOP"}"#),
    ("stop", r#"{"id": "x1", "grace_ms": 1000000}"#),
    ("read_file", r#"{"path": "."}"#),
    ("read_file", r#"{"path": "../x"}"#),
    ("write_file", r#"{"path": "f"}"#),
    (
        "write_file",
        r#"{"path": "f", "content": "", "expect_sha256": "abc"}"#,
    ),
];

/// Calls that fail for another reason.
const FAILING: &[(&str, &str, &str)] = &[
    (
        "exec",
        r#"{"argv": ["no-such-program"]}"#,
        "PROGRAM_NOT_RUN",
    ),
    (
        "exec",
        r#"{"command": "true", "cwd": "no/such"}"#,
        "NO_SUCH_DIRECTORY",
    ),
    (
        "exec",
        r#"{"command": "true", "cwd": "/root"}"#,
        "NO_SUCH_DIRECTORY",
    ),
    (
        "exec",
        r#"{"command": "true", "cwd": "link"}"#,
        "NO_SUCH_DIRECTORY",
    ),
    (
        "exec",
        r#"{"command": "true", "env": {"LD_PRELOAD": "x.so"}}"#,
        "ENVIRONMENT_REFUSED",
    ),
    (
        "exec",
        r#"{"command": "true", "env": {"BASH_ENV": "x"}}"#,
        "ENVIRONMENT_REFUSED",
    ),
    ("read_output", r#"{"id": "x77"}"#, "UNKNOWN_SESSION"),
    ("read_output", r#"{"id": "1; drop"}"#, "UNKNOWN_SESSION"),
    ("stop", r#"{"id": "x77"}"#, "UNKNOWN_SESSION"),
    ("list_sessions", r#"{"cursor": "?"}"#, "UNKNOWN_SESSION"),
    ("read_file", r#"{"path": "missing"}"#, "NOT_FOUND"),
    (
        "read_file",
        r#"{"path": "/etc/passwd"}"#,
        "OUTSIDE_WORKSPACE",
    ),
];

#[test]
fn every_bad_call_is_answered_with_a_code_and_the_server_goes_on() -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::create_dir(place.workspace().join("there"))?;
    std::os::unix::fs::symlink("there", place.workspace().join("link"))?;
    let mut client = place.start()?;
    let invalid = INVALID
        .iter()
        .map(|(tool, arguments)| (*tool, *arguments, "INVALID_ARGUMENTS"));
    for (tool, arguments, code) in invalid.chain(FAILING.iter().copied()) {
        let found = client.error(tool, &serde_json::from_str(arguments)?)?;
        assert_eq!(found, code, "{tool} {arguments}");
    }
    for arguments in [
        json!({"command": "x".repeat(200_000)}),
        json!({"argv": vec!["x"; 100_000]}),
    ] {
        assert_eq!(client.error("exec", &arguments)?, "INVALID_ARGUMENTS");
    }
    let there = client.ok("exec", &json!({ "command": "true", "cwd": "there" }))?;
    assert_eq!(there["exit_code"], json!(0), "{there}");
    assert_eq!(
        client.exec("echo alive")?["stdout"]["text"],
        json!("alive\n")
    );
    let listed = client.ok("list_sessions", &json!({}))?;
    assert_eq!(
        listed["sessions"].as_array().map(Vec::len),
        Some(2),
        "what was refused was not started"
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
    write_private(&wrong, "[network]\nmode = \"bridge\"\n")?;
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
            "unknown variant `bridge`",
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
    let mut command = std::process::Command::new(crate::program::PROGRAM);
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
    client.ok(
        "exec",
        &json!({"command": "cat", "stdin": "canary-9127", "env": {"CANARY": "canary-9127"}}),
    )?;
    client.close()?;
    let verified = place.run(&["audit", "verify"])?;
    let summary = String::from_utf8(verified.stdout)?;
    assert!(
        verified.status.success() && summary.contains("7 entries"),
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
    assert!(
        !text.contains("canary-9127"),
        "the log holds what a command read"
    );
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
fn a_log_that_is_not_where_it_is_looked_for_does_not_verify() -> anyhow::Result<()> {
    let place = Place::new()?;
    let verify = |arguments: &[&str]| {
        std::process::Command::new(crate::program::PROGRAM)
            .args(["audit", "verify"])
            .args(arguments)
            .env_clear()
            .env("XDG_STATE_HOME", place.path("home"))
            .output()
    };
    let state = place.path("state");
    let missing = verify(&["--state-dir", &state.to_string_lossy()])?;
    assert!(!missing.status.success() && !state.exists(), "{missing:?}");
    fs::create_dir(&state)?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    let empty = verify(&["--state-dir", &state.to_string_lossy()])?;
    assert_eq!(empty.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&empty.stderr).contains("no call log in"));
    // Where nobody says that there is one, there may be none yet.
    let unused = verify(&[])?;
    assert!(unused.status.success(), "{unused:?}");
    assert!(String::from_utf8_lossy(&unused.stdout).contains("no call log in"));
    Ok(())
}

#[test]
fn doctor_tells_what_of_a_policy_has_no_effect() -> anyhow::Result<()> {
    let place = Place::new()?;
    let policy = place.policy("[network]\nallow = [\"a.org:443\"]\n[limits]\nwall_ms = 60000\n")?;
    let report = place.run(&["doctor", "--policy", &policy.to_string_lossy()])?;
    let report = String::from_utf8(report.stdout)?;
    for told in ["60000 ms", "at most none, 1 host allowed, which no command"] {
        assert!(report.contains(told), "{report}");
    }
    // What commands cannot write, they are not said to.
    let mut command = place.command_of_user()?;
    fs::set_permissions(place.workspace(), fs::Permissions::from_mode(0o555))?;
    let report = String::from_utf8(command.arg("doctor").output()?.stdout)?;
    assert!(
        report.contains("writable by the policy, but not"),
        "{report}"
    );
    fs::set_permissions(place.workspace(), fs::Permissions::from_mode(0o755))?;
    let report = String::from_utf8(command.output()?.stdout)?;
    assert!(
        !report.contains("writable by the policy, but not"),
        "{report}"
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
