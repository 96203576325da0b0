//! Another user of the machine claims to be an agent, or to be the registry.

use std::fs;
use std::os::unix::fs::chown;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::client::{Client, Era};
use tests::process::{ServerProcess, environment};
use tests::run::{AGENT, Enforced, Place, address_of, call, is_root_or_skips, text};
use tokio::process::Command;

use super::{forged_write, outcome};

const OTHER: u32 = 65534;

#[tokio::test]
async fn a_name_is_not_believed_from_another_uid() -> anyhow::Result<()> {
    if !is_root_or_skips("a_name_is_not_believed_from_another_uid")? {
        return Ok(());
    }
    let place = Place::make().await?;
    let program = place.registry_for_everybody()?;
    let _registry = place.start_registry(&["--agent-group", "65534"]).await?;
    place.prepare().await?;
    let home = place.path().join("other");
    fs::create_dir(&home)?;
    chown(&home, Some(OTHER), Some(OTHER))?;

    let mut names = Vec::new();
    for uid in [OTHER, 0] {
        let folder = if uid == 0 {
            place.path().join("own")
        } else {
            home.clone()
        };
        let mut command = Command::new(&program);
        command
            .env_clear()
            .envs(environment(&folder))
            .args(["stdio", "--agent", "planner", "--connect"])
            .arg(address_of(&place.socket("agent")))
            .uid(uid)
            .gid(uid);
        let mut process = ServerProcess::spawn(command)?;
        let client = process.client(Era::Modern).await?;
        names.push(requester(&client, &format!("of-{uid}")).await?);
    }
    assert_eq!(names, ["uid:65534", "planner"]);

    // The other planes' folders stay closed to it.
    for plane in ["effect", "approval"] {
        let mut command = Command::new("python3");
        let connect = "import socket,sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
        command.args(["-c", connect]).arg(place.socket(plane));
        ensure!(
            command.status().await?.success(),
            "the {plane} plane does not answer its owner"
        );
        command
            .uid(OTHER)
            .gid(OTHER)
            .stderr(std::process::Stdio::null());
        ensure!(
            !command.status().await?.success(),
            "the {plane} plane is open to uid {OTHER}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_registry_of_another_uid_is_not_trusted() -> anyhow::Result<()> {
    if !is_root_or_skips("a_registry_of_another_uid_is_not_trusted")? {
        return Ok(());
    }
    let run = Enforced::start().await?;
    let place = &run.place;
    let program = place.registry_for_everybody()?;
    let home = place.path().join("other");
    fs::create_dir(&home)?;
    chown(&home, Some(OTHER), Some(OTHER))?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(environment(&home))
        .arg("serve")
        .arg("--state-dir")
        .arg(home.join("state"))
        .arg("--socket-dir")
        .arg(home.join("sockets"))
        .uid(OTHER)
        .gid(OTHER);
    let fake = ServerProcess::spawn(command)?;
    fake.announcement("ready").await?;
    let folder = home.join("sockets/effect");

    let mut outcomes = Vec::new();
    for (claims, trusted) in [
        ("socket in a folder of its own", false),
        ("socket in a folder of ours", false),
        ("stated by the operator", true),
    ] {
        if claims == "socket in a folder of ours" {
            chown(&folder, Some(0), Some(0))?;
        }
        let mut flags = vec![
            "--enforced".into(),
            "--registry".into(),
            address_of(&folder.join("effect.sock")),
            "--registry-token".into(),
            place.service_token().into(),
        ];
        if trusted {
            flags.extend(["--registry-uid".into(), OTHER.to_string().into()]);
        }
        let state = format!("shell-{}", outcomes.len());
        let (_process, shell) = place.start_shell_with(AGENT, &state, flags).await?;
        let refused = shell.call("write_file", forged_write("new")).await?;
        outcomes.push((claims, outcome(&refused)));
    }
    let of = |index: usize| outcomes.get(index).map_or("", |(_, code)| code.as_str());
    assert_eq!([of(0), of(1)], ["REGISTRY_UNTRUSTED"; 2], "{outcomes:?}");
    ensure!(
        !["ok", "REGISTRY_UNTRUSTED", "REGISTRY_UNREACHABLE", ""].contains(&of(2)),
        "where its uid is stated it is asked, and does not know us: {outcomes:?}"
    );
    ensure!(
        !place.workspace().join("new").exists(),
        "a file was written"
    );
    // The true registry is trusted.
    let refused = run.shell.call("write_file", forged_write("new")).await?;
    assert_eq!(outcome(&refused), "GRANT_UNKNOWN");
    Ok(())
}

async fn requester(client: &Client, environment: &str) -> anyhow::Result<String> {
    let wanted: Value = json!({ "spec_id": "hello", "environment": environment });
    let answer = call(client, "run_request", wanted).await?;
    let name = text(&answer["run"], "requester").context("no requester")?;
    Ok(name.to_owned())
}
