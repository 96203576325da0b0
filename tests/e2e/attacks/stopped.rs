//! A run that was stopped, and callers that are not the one a handle was made for.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hyper::StatusCode;
use serde_json::json;
use shared::digest::Digest;
use tests::run::{AGENT, Enforced, call, exec_step};

use super::planes::token_in;

/// How long the end of a run's processes may take: the shell waits for orders, it does not poll.
const PATIENCE_MS: u64 = 5_000;

#[tokio::test]
async fn no_process_outlives_the_pause_or_kill_of_its_run_or_the_loss_of_its_lease()
-> anyhow::Result<()> {
    for end in ["pause", "kill", "lose the lease"] {
        let run = Enforced::start().await?;
        let begun = run
            .begun(json!([exec_step("s1", "sleep 600")]), json!([]))
            .await?;
        let execute = json!({
            "command": "sleep 600", "wait": { "until": "none" }, "grant": begun.grant("s1").context("no handle")?,
        });
        let started = call(&run.shell, "exec", execute).await?;
        assert_eq!(started["state"], "running");

        // What a human needs to stop it stands in the queue.
        let queue = run.place.human(&["queue", "--json"], None).await?;
        let queue: serde_json::Value = serde_json::from_str(&queue)?;
        assert_eq!(queue["runs"][0]["run_id"], begun.run.run_id.as_str());
        if end == "lose the lease" {
            let_the_lease_lapse(&run.place.state(), &begun.run.run_id)?;
        } else {
            let words = [end, &begun.run.run_id, "--reason", "a test"];
            run.place.human(&words, None).await?;
        }
        let wait = json!({ "id": started["id"], "wait": { "until": "exit", "ms": PATIENCE_MS } });
        let ended = call(&run.shell, "read_output", wait).await?;
        assert_eq!(ended["state"], "killed", "after `{end}`: {ended}");
    }
    Ok(())
}

#[tokio::test]
async fn a_command_on_its_way_does_not_come_up_after_its_run_was_killed() -> anyhow::Result<()> {
    const BYTES: usize = 32 << 20;
    for is_killed in [true, false] {
        let run = Enforced::start().await?;
        // To hash these takes longer than to kill the run.
        let content = vec![b'x'; BYTES];
        let mut inputs = Vec::new();
        for number in 0..6 {
            let path = format!("input-{number}");
            fs::write(run.place.workspace().join(&path), &content)?;
            inputs.push(json!({ "path": path, "sha256": Digest::of(&content) }));
        }
        let command = "echo started >> proof";
        let mut step = exec_step("s1", command);
        step["inputs"] = json!(inputs);
        let begun = run.begun(json!([step]), json!([])).await?;
        let execute =
            json!({ "command": command, "grant": begun.grant("s1").context("no handle")? });
        let executing = run.shell.call("exec", execute);
        let killing = async {
            // The permit is on record before the inputs are looked at.
            loop {
                let seen = json!({ "run_id": begun.run.run_id });
                let seen = call(&run.registry, "run_get", seen).await?;
                if seen["actions"]
                    .as_array()
                    .is_some_and(|actions| !actions.is_empty())
                {
                    break;
                }
            }
            if is_killed {
                // As the command does, without the time that a process takes to start.
                let path = format!("/v1/runs/{}/kill", begun.run.run_id);
                let why = json!({ "reason": "a test", "approver": null, "secret": null });
                let (status, answer) = run.place.post("approval", &path, None, &why).await?;
                ensure!(status.is_success(), "{status} {answer}");
            }
            anyhow::Ok(())
        };
        let (executed, killed) = tokio::join!(executing, killing);
        killed?;
        let proof = run.place.workspace().join("proof");
        if is_killed {
            assert_eq!(executed?.error_code()?, "RUN_STOPPED");
            ensure!(
                !proof.exists(),
                "the command ran although its run was killed"
            );
        } else {
            executed?.success()?;
            ensure!(proof.exists(), "the control did not run");
        }
    }
    Ok(())
}

/// As a quarter of an hour without a call of the claimant would.
fn let_the_lease_lapse(state: &Path, run_id: &str) -> anyhow::Result<()> {
    let database = rusqlite::Connection::open(state.join("registry.sqlite"))?;
    database.busy_timeout(Duration::from_secs(5))?;
    let changed = database.execute(
        "UPDATE runs SET lease_until = '2020-01-01T00:00:00Z', rev = rev + 1 WHERE run_id = ?1",
        [run_id],
    )?;
    assert_eq!(changed, 1);
    Ok(())
}

#[tokio::test]
async fn a_handle_is_worth_nothing_in_another_hand() -> anyhow::Result<()> {
    let run = Enforced::start().await?;
    let begun = run
        .begun(json!([exec_step("s1", "echo ran >> proof")]), json!([]))
        .await?;
    let grant = begun.grant("s1").context("no handle")?;
    let execute = json!({ "command": "echo ran >> proof", "grant": grant });
    let proof = run.place.workspace().join("proof");

    // Another process with the same credential that has not said hello.
    let token = token_in(&fs::read_to_string(run.place.service_token())?)?;
    let question = json!({
        "instance": "another", "seq": 1, "grant": grant, "principal": AGENT, "tool": "exec", "arguments": {},
        "idempotency_key": "k",
    });
    let (status, answer) = run
        .place
        .post("effect", "/v1/actions/begin", Some(&token), &question)
        .await?;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    ensure!(answer.contains("SERVICE_UNKNOWN"), "{answer}");

    // Another agent, at a shell of its own with the same credential.
    let (_process, other) = run.place.start_shell_of("other", "state-of-other").await?;
    let refused = other.call("exec", execute.clone()).await?;
    assert_eq!(refused.error_code()?, "GRANT_NOT_YOURS");
    ensure!(!proof.exists(), "the command ran for another agent");

    // The agent it was made for.
    let (_process, own) = run.place.start_shell().await?;
    let done = call(&own, "exec", execute).await?;
    assert_eq!(done["exit_code"], 0, "{done}");
    assert_eq!(fs::read_to_string(&proof)?, "ran\n");
    Ok(())
}
