//! Credentials of one plane on another, what can be reached from inside a jail, and a shell without its registry.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use hyper::{Request, StatusCode};
use serde_json::json;
use tests::client::{Client, send_http};
use tests::run::{AGENT, Enforced, address_of, call, exec_step, text};
use tokio::process::Command;

use super::{forged_write, outcome};

/// Says which of the paths, processes and ports given by the environment it can reach.
const PROBE: &str = r#"
for path in $PATHS; do [ -e "$path" ] && echo "reached $path"; done
for folder in /proc/[0-9]*; do
  read -r name < "$folder/comm" && [ "$name" = mcp-spec-regist ] && echo "reached registry process"
done 2>/dev/null
if (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; then echo "reached port"; fi
echo done
"#;

#[tokio::test]
async fn from_inside_the_jail_nothing_of_the_registry_can_be_reached() -> anyhow::Result<()> {
    let run = Enforced::start().await?;
    let place = &run.place;
    let page = run.daemon.announcement("ready").await?;
    let port = text(&page, "approval_page")?
        .rsplit(':')
        .next()
        .context("no port")?
        .trim_end_matches('/')
        .to_owned();
    let paths = [
        place.socket("agent"),
        place.socket("effect"),
        place.socket("approval"),
        place.state(),
        place.state().join("registry.sqlite"),
        place.state().join("keys"),
        place.service_token(),
    ]
    .map(|path| path.display().to_string())
    .join(" ");

    let outside = Command::new("bash")
        .args(["-c", PROBE])
        .env("PATHS", &paths)
        .env("PORT", &port)
        .stdin(Stdio::null())
        .output()
        .await?;
    let outside = String::from_utf8(outside.stdout)?;
    for path in paths.split(' ').chain(["registry process", "port"]) {
        ensure!(
            outside.contains(&format!("reached {path}\n")),
            "outside the probe does not reach {path}: {outside}"
        );
    }

    let (_open, shell) = place.start_shell_with(AGENT, "open-state", []).await?;
    let token = fs::read_to_string(place.service_token())?;
    let secret = token
        .split('"')
        .find(|part| part.len() >= 32)
        .context("no token in its file")?;
    let arguments = json!({ "command": PROBE, "env": { "PATHS": paths, "PORT": port } });
    let answer = call(&shell, "exec", arguments).await?;
    let inside = text(&answer["stdout"], "text")?;
    ensure!(
        inside.contains("done"),
        "the probe did not run to its end: {answer}"
    );
    ensure!(!inside.contains("reached"), "reached from inside: {inside}");
    let readable = "env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'";
    let answer = call(&shell, "exec", json!({ "command": readable })).await?;
    let inside = text(&answer["stdout"], "text")?;
    ensure!(
        inside.contains("PATH="),
        "the environment is not shown: {answer}"
    );
    ensure!(
        !inside.contains(secret),
        "the service's token is visible inside"
    );
    Ok(())
}

#[tokio::test]
async fn a_credential_of_one_plane_is_worth_nothing_on_another() -> anyhow::Result<()> {
    let run = Enforced::start().await?;
    let place = &run.place;
    let agent_file = place.path().join("agent.toml");
    place.add_token("agent", "holder", &agent_file).await?;
    let agent = token_in(&fs::read_to_string(&agent_file)?)?;
    let service = token_in(&fs::read_to_string(place.service_token())?)?;

    // The effect plane.
    let hello = json!({ "instance": "i", "version": "1", "tools": [] });
    for (token, status) in [
        (Some(&agent), StatusCode::UNAUTHORIZED),
        (None, StatusCode::UNAUTHORIZED),
        (Some(&service), StatusCode::OK),
    ] {
        let token = token.map(String::as_str);
        let answer = place.post("effect", "/v1/hello", token, &hello).await?;
        assert_eq!(answer.0, status, "{}", answer.1);
    }

    // The agent plane.
    let greeting = |token: &str| json!({ "agent": null, "token": token });
    ensure!(
        place.greet(&greeting(&service)).await.is_err(),
        "a service is let in as an agent"
    );
    ensure!(
        place.greet(&greeting("made-up")).await.is_err(),
        "a made-up token is let in"
    );
    let holder = place.greet(&greeting(&agent)).await?;
    assert_eq!(
        requester(&holder).await?,
        "agent:holder".trim_start_matches("agent:")
    );

    // The approval page, and its decisions.
    let page = run.daemon.announcement("ready").await?;
    let page = text(&page, "approval_page")?.to_owned();
    let host = page
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let port: u16 = host.rsplit(':').next().context("no port")?.parse()?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    for token in [&agent, &service] {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/history"),
            ("POST", "/c/ABCDEF/decide"),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", &host)
                .header("origin", format!("http://{host}"))
                .header("content-type", "application/x-www-form-urlencoded")
                .header("authorization", format!("Bearer {token}"))
                .header("cookie", format!("looks_{port}={token}"))
                .body(b"verdict=approve&reason=x&code=x&secret=x&approver=holder".to_vec())?;
            let response = send_http(address, request).await?;
            ensure!(
                response.status().is_client_error(),
                "{method} {path}: {response:?}"
            );
        }
    }
    let request = Request::get("/sign-in")
        .header("host", &host)
        .body(Vec::new())?;
    assert_eq!(send_http(address, request).await?.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn without_its_registry_the_enforced_shell_reads_and_changes_nothing() -> anyhow::Result<()> {
    let run = Enforced::start().await?;
    let file = run.place.workspace().join("kept");
    fs::write(&file, "as it was\n")?;
    // The registry that knows it refuses by the handle; so the next refusals are because nobody can be asked.
    let refused = run.shell.call("write_file", forged_write("kept")).await?;
    assert_eq!(outcome(&refused), "GRANT_UNKNOWN");
    let Enforced {
        daemon,
        shell,
        place: _place,
        shell_process: _shell_process,
        ..
    } = run;
    ensure!(
        daemon.terminate().await?.success(),
        "the registry failed on SIGTERM"
    );
    let grant = forged_write("kept")["grant"].clone();
    for (tool, arguments) in [
        ("write_file", forged_write("kept")),
        ("write_file", forged_write("new")),
        (
            "exec",
            json!({ "command": "echo changed > kept", "grant": grant }),
        ),
    ] {
        let refused = shell.call(tool, arguments).await?;
        assert_eq!(
            outcome(&refused),
            "REGISTRY_UNREACHABLE",
            "{tool}: {}",
            refused.text
        );
    }
    let refused = shell
        .call("exec", json!({ "command": "echo changed > kept" }))
        .await?;
    assert_eq!(outcome(&refused), "GRANT_REQUIRED");
    let read = call(&shell, "read_file", json!({ "path": "kept" })).await?;
    ensure!(read.to_string().contains("as it was"), "{read}");
    call(&shell, "list_sessions", json!({})).await?;
    call(&shell, "doctor", json!({})).await?;
    assert_eq!(fs::read_to_string(&file)?, "as it was\n");
    ensure!(!file.with_file_name("new").exists(), "a file was written");
    Ok(())
}

#[tokio::test]
async fn a_shell_that_was_never_given_a_registry_refuses_changes() -> anyhow::Result<()> {
    let run = Enforced::start().await?;
    let place = &run.place;
    let nowhere = place.path().join("nowhere/effect.sock");
    let (_process, shell) = place
        .start_shell_with(
            AGENT,
            "lonely-state",
            [
                "--enforced".into(),
                "--registry".into(),
                address_of(&nowhere),
                "--registry-token".into(),
                place.service_token().into(),
            ],
        )
        .await?;
    let refused = shell.call("write_file", forged_write("new")).await?;
    assert_eq!(
        outcome(&refused),
        "REGISTRY_UNREACHABLE",
        "{}",
        refused.text
    );
    call(&shell, "list_sessions", json!({})).await?;
    ensure!(
        !place.workspace().join("new").exists(),
        "a file was written"
    );
    Ok(())
}

/// The name under which the registry knows who is behind a connection.
async fn requester(client: &Client) -> anyhow::Result<String> {
    let answer = call(
        client,
        "run_request",
        json!({ "spec_id": "hello", "environment": "named" }),
    )
    .await?;
    Ok(text(&answer["run"], "requester")?.to_owned())
}

pub(super) fn token_in(file: &str) -> anyhow::Result<String> {
    file.lines()
        .find_map(|line| line.strip_prefix("token = "))
        .map(|value| value.trim_matches('"').to_owned())
        .context("no token in the file")
}

#[tokio::test]
async fn a_doctor_beside_the_live_shell_takes_nothing_from_it() -> anyhow::Result<()> {
    let run = Enforced::start().await?;
    let step = exec_step("s1", "echo ran >> proof");
    let begun = run.begun(json!([step]), json!([])).await?;
    let doctor = |token: std::path::PathBuf| {
        let mut command = run.place.shell_command("shell-state");
        command
            .args(["--enforced", "--registry"])
            .arg(address_of(&run.place.socket("effect")))
            .arg("--registry-token")
            .arg(token)
            .args(["doctor", "--json"]);
        command.output()
    };
    let report = doctor(run.place.service_token()).await?;
    let report = String::from_utf8(report.stdout)?;
    ensure!(report.contains("reached at"), "{report}");

    let execute = json!({ "command": "echo ran >> proof", "grant": begun.grant("s1") });
    let done = call(&run.shell, "exec", execute).await?;
    assert_eq!(done["exit_code"], 0, "{done}");

    // It does look: another token is found out.
    let other = run.place.path().join("other.toml");
    let text = fs::read_to_string(run.place.service_token())?;
    let token = token_in(&text)?;
    fs::write(&other, text.replace(&token, &"A".repeat(token.len())))?;
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600))?;
    let report = doctor(other).await?;
    let report = String::from_utf8(report.stdout)?;
    ensure!(report.contains("no service has this token"), "{report}");
    Ok(())
}
