//! Jails that are not strict, as the policy names them and as a client is told of them.

use std::fs;

use serde_json::{Value, json};

use crate::client::{Client, Place};
use crate::skips::container_image;

/// Lets an ordinary user own the workspace: as root no command of these runs.
fn give_workspace(place: &Place) -> anyhow::Result<()> {
    if fs::metadata(place.workspace())
        .is_ok_and(|folder| std::os::unix::fs::MetadataExt::uid(&folder) == 0)
    {
        std::os::unix::fs::chown(place.workspace(), Some(41_237), Some(41_237))?;
    }
    Ok(())
}

fn jail_check(client: &mut Client) -> anyhow::Result<Value> {
    let report = client.ok("doctor", &json!({}))?;
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    let jail = checks.into_iter().find(|check| check["check"] == "jail");
    Ok(jail.unwrap_or_default())
}

#[test]
fn without_user_namespaces_commands_run_where_the_policy_says_so_and_results_say_what_is_missing()
-> anyhow::Result<()> {
    let place = Place::new()?;
    give_workspace(&place)?;
    let mut client = place.start_under("mode = \"no_userns\"\n")?;
    let done = client.exec("echo $((6 * 7)) > answer; cat answer; cat ../state/calls.jsonl")?;
    assert_eq!(done["stdout"]["text"], "42\n", "{done}");
    assert_eq!(done["isolation"]["mode"], "no_userns");
    let missing = done["isolation"]["missing"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for layer in ["user_ns", "mnt_ns", "pid_ns", "net_ns", "private_root"] {
        assert!(missing.contains(&json!(layer)), "{missing:?}");
    }
    let refused = client.exec("python3 -c 'import socket; socket.socket()' 2>/dev/null")?;
    assert!(
        refused["violations"].to_string().contains("socket(AF_INET"),
        "{refused}"
    );
    let session = |command: &str| json!({"command": command, "session": "build"});
    client.ok("exec", &session("echo kept > $TMPDIR/file"))?;
    let kept = client.ok("exec", &session("cat $TMPDIR/file"))?;
    assert_eq!(kept["stdout"]["text"], "kept\n");
    let jail = jail_check(&mut client)?;
    assert_eq!(jail["status"], "warn", "{jail}");
    assert!(
        jail["detail"]
            .as_str()
            .is_some_and(|told| told.starts_with("no_userns: ")),
        "{jail}"
    );
    let aside = client.call("exec", &json!({"command": "true", "workspace": "overlay"}))?;
    assert!(aside.to_string().contains("JAIL_INCOMPLETE"), "{aside}");
    Ok(())
}

#[test]
fn in_a_container_commands_and_sessions_are_as_anywhere_else() -> anyhow::Result<()> {
    let Some(image) = container_image()? else {
        return Ok(());
    };
    let engine = std::env::var("DOCKER_HOST")?;
    let place = Place::new()?;
    give_workspace(&place)?;
    fs::write(place.workspace().join(".env"), "secret")?;
    let mut client = place.start_under(&format!(
        "mode = \"container\"\n[container]\nimage = \"{image}\"\nengine = \"{engine}\"\n[workspace]\ndeny_read = [\".env\"]\n"
    ))?;
    let done = client
        .exec("echo $((6 * 7)) > answer; cat answer .env; cat /etc/debian_version 2>&1; exit 3")?;
    assert_eq!(
        (&done["isolation"]["mode"], &done["exit_code"]),
        (&json!("container"), &json!(3)),
        "{done}"
    );
    let text = done["stdout"]["text"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("42\n") && text.contains("No such file"),
        "{done}"
    );
    let session = |command: &str| json!({"command": command, "session": "build"});
    client.ok("exec", &session("echo kept > /tmp/file"))?;
    let kept = client.ok("exec", &session("cat /tmp/file"))?;
    assert_eq!(kept["stdout"]["text"], "kept\n");
    let killed = client.ok("exec", &json!({"command": "sleep 1000", "timeout_ms": 300}))?;
    assert_eq!(
        (&killed["timed_out"], &killed["state"]),
        (&json!(true), &json!("killed"))
    );
    let terminal = json!({"command": "tty", "tty": {"rows": 10, "cols": 40}});
    let told = client.ok("exec", &terminal)?;
    assert!(
        told["stdout"]["text"]
            .as_str()
            .is_some_and(|text| text.starts_with("/dev/pts/")),
        "{told}"
    );
    let jail = jail_check(&mut client)?;
    assert_eq!(jail["status"], "ok", "{jail}");
    Ok(())
}

#[test]
fn a_policy_that_names_containers_without_an_image_is_refused_at_start() -> anyhow::Result<()> {
    let place = Place::new()?;
    let policy = place.policy("allow_degraded = [\"container\"]\n")?;
    let output = place.run(&["--check-config", "--policy", &policy.to_string_lossy()])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && told.contains("container.image"),
        "{told}"
    );
    Ok(())
}
