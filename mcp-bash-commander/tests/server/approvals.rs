//! Commands that the policy's rules want denied or asked about.

use serde_json::{Value, json};

use crate::client::{Client, Place};

const RULES: &str = r#"
[[rule]]
match = ["git", "push"]
decision = "ask"
reason = "leaves the machine"
tests = { hit = ["git push origin x", "cd a && git push"], miss = ["git status"] }

[[rule]]
match = ["shutdown"]
decision = "deny"
reason = "never"
"#;

/// Calls exec and answers the question that comes.
fn answered(client: &mut Client, command: &str, answer: &Value) -> anyhow::Result<Value> {
    let id = client.ask(
        "tools/call",
        &json!({"name": "exec", "arguments": {"command": command}}),
    )?;
    loop {
        let message = client.message()?;
        if message["method"] == "elicitation/create" {
            let text = message["params"]["message"].as_str().unwrap_or_default();
            anyhow::ensure!(
                text.contains("git push") && text.contains("leaves the machine"),
                "{message}"
            );
            client.send(&json!({"jsonrpc": "2.0", "id": message["id"], "result": answer}))?;
        } else if message["id"] == json!(id) {
            return Ok(message["result"].clone());
        }
    }
}

fn code(result: &Value) -> String {
    let text = result["content"][0]["text"].as_str().unwrap_or_default();
    serde_json::from_str::<Value>(text).map_or_else(
        |_| String::new(),
        |error| error["code"].as_str().unwrap_or_default().to_owned(),
    )
}

#[test]
fn what_is_denied_does_not_run_however_it_is_written() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_under(RULES)?;
    for command in [
        "shutdown",
        "/sbin/shutdown now",
        "true; \"shut\"down",
        "sh -c 'shutdown -h'",
        "env X=1 shutdown",
        "echo $(shutdown)",
    ] {
        assert_eq!(
            client.error("exec", &json!({"command": command}))?,
            "COMMAND_DENIED",
            "{command}"
        );
    }
    assert_eq!(
        client.error("exec", &json!({"argv": ["shutdown"]}))?,
        "COMMAND_DENIED"
    );
    let listed = client.ok("list_sessions", &json!({}))?;
    assert_eq!(listed["sessions"], json!([]), "nothing of it was started");
    assert_eq!(
        client.exec("echo shutdown")?["policy"]["decision"],
        json!("allow")
    );
    Ok(())
}

#[test]
fn without_anybody_to_ask_what_must_be_asked_about_does_not_run() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_under(RULES)?;
    for command in ["git push", "cd x && git push", "$(echo git) push"] {
        assert_eq!(
            client.error("exec", &json!({"command": command}))?,
            "APPROVAL_REQUIRED",
            "{command}"
        );
    }
    Ok(())
}

#[test]
fn no_rule_allows_what_none_can_see() -> anyhow::Result<()> {
    const ALLOWED: &str =
        "[[rule]]\nmatch = [[\"bash\", \"eval\", \"cat\"]]\ndecision = \"allow\"\n";
    let place = Place::new()?;
    let mut client = place.start_under(ALLOWED)?;
    for unseen in ["cat x | bash", "eval \"$x\"", "$CMD"] {
        let call = json!({ "command": unseen });
        assert_eq!(
            client.error("exec", &call)?,
            "APPROVAL_REQUIRED",
            "{unseen}"
        );
    }
    client.exec("eval 'echo seen'; bash -c 'echo seen'")?;
    let mut free = place.start()?;
    free.exec("echo true | bash; eval \"$x\"; $CMD")?;
    Ok(())
}

#[test]
fn a_client_is_asked_and_its_answer_recorded_as_the_clients() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_asking(RULES)?;
    let command = "git push origin; echo ran";
    let yes = json!({"action": "accept", "content": {"decision": "approve"}});
    let result = answered(&mut client, command, &yes)?;
    let policy = &result["structuredContent"]["policy"];
    assert_eq!(
        (&policy["decision"], &policy["rule"], &policy["approved_by"]),
        (&json!("ask"), &json!(1), &json!("client_elicitation")),
        "{result}"
    );
    for no in [
        json!({"action": "decline"}),
        json!({"action": "cancel"}),
        json!({"action": "accept", "content": {"decision": "reject"}}),
        // As clients answer that accept every form.
        json!({"action": "accept", "content": {}}),
        json!({"action": "accept"}),
    ] {
        let result = answered(&mut client, command, &no)?;
        assert_eq!(code(&result), "APPROVAL_REQUIRED", "{no}");
    }
    client.close()?;
    let logs = std::fs::read_dir(place.path("state"))?
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .collect::<String>();
    assert_eq!(logs.matches("approved_by:client_elicitation").count(), 1);
    let recorded = r#""approved_by":"client_elicitation","client":"test""#;
    assert_eq!(logs.matches(recorded).count(), 1, "{logs}");
    Ok(())
}

/// A call as clients make it since 2026-07-28.
fn modern(client: &mut Client, more: &Value) -> anyhow::Result<Value> {
    let mut call = json!({
        "name": "exec",
        "arguments": {"command": "git push origin; echo ran"},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "modern", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
        },
    });
    if let (Some(call), Some(more)) = (call.as_object_mut(), more.as_object()) {
        call.extend(more.clone());
    }
    let answer = client.request("tools/call", &call)?;
    anyhow::ensure!(answer.get("result").is_some(), "{answer}");
    Ok(answer["result"].clone())
}

#[test]
fn an_answer_is_for_one_call_once() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_modern(RULES)?;
    let asked = modern(&mut client, &json!({}))?;
    assert_eq!(asked["resultType"], json!("input_required"), "{asked}");
    let yes = json!({"approval": {"action": "accept", "content": {"decision": "approve"}}});
    let state = asked["requestState"].clone();
    // Another command, a state that was made up, and one that was changed.
    let other = json!({"arguments": {"command": "git push --force"}, "requestState": state, "inputResponses": yes});
    assert_eq!(code(&modern(&mut client, &other)?), "APPROVAL_REQUIRED");
    let forged = format!("{}x", state.as_str().unwrap_or_default());
    for forged in [json!("made up"), json!(forged)] {
        let call = json!({"requestState": forged, "inputResponses": yes});
        assert_eq!(code(&modern(&mut client, &call)?), "APPROVAL_REQUIRED");
    }
    let answer = json!({"requestState": state, "inputResponses": yes});
    let ran = modern(&mut client, &answer)?;
    assert_eq!(
        ran["structuredContent"]["policy"]["approved_by"],
        json!("client_elicitation"),
        "{ran}"
    );
    assert_eq!(
        code(&modern(&mut client, &answer)?),
        "APPROVAL_REQUIRED",
        "used twice"
    );
    Ok(())
}

#[test]
fn a_rule_that_does_not_do_what_its_examples_say_is_not_served() -> anyhow::Result<()> {
    let place = Place::new()?;
    let policy = RULES.replace("miss = [\"git status\"]", "miss = [\"git push\"]");
    crate::client::write_private(&place.path("policy.toml"), &policy)?;
    let path = place.path("policy.toml");
    let refused = place.run(&["--check-config", "--policy", &path.to_string_lossy()])?;
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && message.contains("rule 1"),
        "{message}"
    );
    Ok(())
}

#[test]
fn the_policy_is_explained_without_running_anything() -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut client = place.start_under(&format!(
        "[network]\nmode = \"allowlist\"\nallow = [\"a.org:443\"]\n{RULES}"
    ))?;
    for (question, decision, layer) in [
        (json!({"command": "cd x; git push"}), "ask", "rules"),
        (json!({"command": "shutdown"}), "deny", "rules"),
        (
            json!({"path": "/home/ana/.ssh/id_ed25519"}),
            "deny",
            "private_root",
        ),
        (json!({"path": "src/x"}), "allow", "workspace"),
        (json!({"host": "a.org:443"}), "allow", "network"),
        (json!({"host": "b.org:443"}), "deny", "network"),
    ] {
        let told = client.ok("explain", &question)?;
        assert_eq!(
            (&told["decision"], &told["layer"]),
            (&json!(decision), &json!(layer)),
            "{told}"
        );
    }
    assert_eq!(client.error("explain", &json!({}))?, "INVALID_ARGUMENTS");
    Ok(())
}
