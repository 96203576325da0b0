//! Long calls as tasks, for clients that can follow one.

use serde_json::{Value, json};

use crate::client::{Client, Place};
use crate::processes::{PATIENCE, eventually, processes_with, tag};

/// What a client of the newer era sends with each request; `with_tasks` says whether it can follow tasks.
fn meta(with_tasks: bool) -> Value {
    let extensions = if with_tasks {
        json!({"io.modelcontextprotocol/tasks": {}})
    } else {
        json!({})
    };
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": extensions},
    })
}

fn request(
    client: &mut Client,
    method: &str,
    mut params: Value,
    with_tasks: bool,
) -> anyhow::Result<Value> {
    params["_meta"] = meta(with_tasks);
    client.request(method, &params)
}

fn exec(client: &mut Client, command: &str, with_tasks: bool) -> anyhow::Result<Value> {
    let params = json!({"name": "exec", "arguments": {"command": command}});
    Ok(request(client, "tools/call", params, with_tasks)?["result"].clone())
}

/// Asks after a task until it is no longer `working`.
fn settled(client: &mut Client, id: &Value) -> anyhow::Result<Value> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let task = request(client, "tasks/get", json!({"taskId": id}), true)?["result"].clone();
        if task["status"] != json!("working") {
            return Ok(task);
        }
        anyhow::ensure!(std::time::Instant::now() < deadline, "{task}");
    }
}

#[test]
fn a_long_command_becomes_a_task_for_a_client_that_follows_tasks_and_for_no_other()
-> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_modern("")?;
    let soon = exec(&mut client, "echo soon", true)?;
    assert_eq!(
        soon["structuredContent"]["stdout"]["text"], "soon\n",
        "{soon}"
    );
    let task = exec(&mut client, "sleep 6; echo late; exit 3", true)?;
    assert_eq!(
        (&task["resultType"], &task["status"]),
        (&json!("task"), &json!("working")),
        "{task}"
    );
    let done = settled(&mut client, &task["taskId"])?;
    assert_eq!(done["status"], "completed", "{done}");
    let result = &done["result"]["structuredContent"];
    assert_eq!(
        (&result["stdout"]["text"], &result["exit_code"]),
        (&json!("late\n"), &json!(3)),
        "{done}"
    );
    let waited = exec(&mut client, "sleep 6; echo late", false)?;
    assert_eq!(
        waited["structuredContent"]["stdout"]["text"], "late\n",
        "{waited}"
    );
    Ok(())
}

#[test]
fn a_cancelled_task_ends_its_command_and_an_unknown_one_is_none() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_modern("")?;
    let tag = tag(81);
    let task = exec(&mut client, &format!("sleep {tag} & sleep {tag}"), true)?;
    assert_eq!(task["resultType"], "task", "{task}");
    assert_eq!(processes_with(&tag)?, 2);
    request(
        &mut client,
        "tasks/cancel",
        json!({"taskId": task["taskId"]}),
        true,
    )?;
    let done = settled(&mut client, &task["taskId"])?;
    assert_eq!(done["status"], "cancelled", "{done}");
    eventually("its processes are gone", || Ok(processes_with(&tag)? == 0))?;
    let unknown = request(&mut client, "tasks/get", json!({"taskId": "made up"}), true)?;
    assert!(
        unknown["error"]["message"]
            .as_str()
            .is_some_and(|told| told.contains("made up")),
        "{unknown}"
    );
    Ok(())
}
