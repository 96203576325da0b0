//! What clients get over stdio, and what the call guard and the call log make of it.

use std::{fs, sync::atomic::Ordering, time::Duration};

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::fixture::{Client, Fixture, error_of, soon, tight};
use crate::{
    call::Limits,
    call_log::{CallLog, Outcome, verify},
    metrics::Metrics,
    serve::MAX_REQUEST_BYTES,
};

fn fixture() -> anyhow::Result<Fixture> {
    Fixture::new(tight(), Metrics::new())
}

#[tokio::test]
async fn both_eras_are_answered_with_structure_and_a_short_text() -> anyhow::Result<()> {
    for mut client in Client::both_eras(&fixture()?).await? {
        let result = client
            .call("echo", json!({"text": "ab", "times": 2}))
            .await?;
        assert_eq!(
            result["structuredContent"],
            json!({"text": "abab", "caller": "tester"})
        );
        assert_eq!(
            result["content"],
            json!([{"type": "text", "text": "echoed"}])
        );
    }
    Ok(())
}

#[tokio::test]
async fn every_tool_is_listed_with_title_hints_and_portable_schemas() -> anyhow::Result<()> {
    for mut client in Client::both_eras(&fixture()?).await? {
        let answer = client.request("tools/list", json!({})).await?;
        let tools = answer["result"]["tools"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        assert_eq!(tools.len(), 6);
        for tool in &tools {
            for hint in [
                "readOnlyHint",
                "destructiveHint",
                "idempotentHint",
                "openWorldHint",
            ] {
                assert!(tool["annotations"][hint].is_boolean(), "{tool}");
            }
            assert!(tool["title"].is_string(), "{tool}");
            assert_eq!(tool["inputSchema"]["type"], "object");
        }
        let echo = tools
            .iter()
            .find(|tool| tool["name"] == "echo")
            .cloned()
            .unwrap_or_default();
        assert_eq!(
            echo["inputSchema"]["properties"]["times"]["type"],
            "integer"
        );
        assert_eq!(echo["inputSchema"]["additionalProperties"], false);
        assert_eq!(echo["outputSchema"]["properties"]["caller"], json!({}));
        assert!(!answer.to_string().contains("uint32"));
    }
    Ok(())
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_next_call_works() -> anyhow::Result<()> {
    for mut client in Client::both_eras(&fixture()?).await? {
        let error = error_of(&client.call("panic", json!({})).await?)?;
        assert_eq!(error.code, "INTERNAL");
        assert!(!error.message.contains("on purpose"));
        assert_eq!(
            client.call("echo", json!({"text": "a"})).await?["structuredContent"]["text"],
            "a"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_panic_outside_of_tools_is_answered_too() -> anyhow::Result<()> {
    for mut client in Client::both_eras(&fixture()?).await? {
        let answer = client.request("prompts/list", json!({})).await?;
        assert_eq!(answer["error"]["code"], -32603);
        assert!(!answer.to_string().contains("on purpose"));
    }
    Ok(())
}

#[tokio::test]
async fn wrong_arguments_say_what_would_be_right() -> anyhow::Result<()> {
    for mut client in Client::both_eras(&fixture()?).await? {
        for wrong in [
            json!({}),
            json!({"text": 5}),
            json!({"text": "a", "colour": "red"}),
        ] {
            let error = error_of(&client.call("echo", wrong).await?)?;
            assert_eq!(error.code, "INVALID_ARGUMENTS");
            assert_eq!(
                error.hint.as_deref(),
                Some("arguments: text (string, required), times (integer)")
            );
        }
        let error = error_of(
            &client
                .call("echo", json!({"text": "a", "colour": "red"}))
                .await?,
        )?;
        assert!(error.message.contains("unknown field `colour`"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tools_own_failure_and_an_unknown_tool_read_differently() -> anyhow::Result<()> {
    for mut client in Client::both_eras(&fixture()?).await? {
        let error = error_of(&client.call("fail", json!({})).await?)?;
        assert_eq!(
            (error.code.as_ref(), error.hint.as_deref()),
            ("NO_LUCK", Some("try another day"))
        );
        let answer = client
            .request("tools/call", json!({"name": "ecko", "arguments": {}}))
            .await?;
        assert_eq!(answer["error"]["code"], -32602);
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("no tool `ecko`") && text.contains("echo"))
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_result_over_the_budget_is_held_back() -> anyhow::Result<()> {
    let mut client = Client::legacy(&fixture()?).await?;
    let error = error_of(&client.call("flood", json!({})).await?)?;
    assert_eq!(error.code, "RESULT_TOO_LARGE");
    Ok(())
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_what_it_started_is_stopped() -> anyhow::Result<()> {
    let fixture =
        fixture()?.with_guard(|guard| guard.with_deadline("hang", Duration::from_millis(50)));
    for mut client in Client::both_eras(&fixture).await? {
        let error = error_of(&client.call("hang", json!({})).await?)?;
        assert_eq!(error.code, "TIMEOUT");
        soon(fixture.signs.stopped.notified()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn one_call_too_many_is_told_to_come_back_and_a_free_slot_serves_it() -> anyhow::Result<()> {
    let fixture = fixture()?;
    let mut client = Client::legacy(&fixture).await?;
    let mut hanging = Vec::new();
    for _ in 0..3 {
        hanging.push(client.start_call("hang", json!({})).await?);
        soon(fixture.signs.hanging.notified()).await?;
    }
    let error = error_of(&client.call("echo", json!({"text": "a"})).await?)?;
    assert_eq!(error.code, "BUSY");
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": hanging[0]}})).await?;
    soon(fixture.signs.stopped.notified()).await?;
    let free = async {
        loop {
            let result = client.call("echo", json!({"text": "a"})).await?;
            if result
                .get("isError")
                .is_none_or(|is_error| is_error == false)
            {
                return anyhow::Ok(());
            }
        }
    };
    soon(free).await?
}

#[tokio::test]
async fn a_cancelled_call_stops_in_both_eras() -> anyhow::Result<()> {
    let fixture = fixture()?;
    for mut client in Client::both_eras(&fixture).await? {
        let id = client.start_call("hang", json!({})).await?;
        soon(fixture.signs.hanging.notified()).await?;
        client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})).await?;
        soon(fixture.signs.stopped.notified()).await?;
        assert_eq!(
            client.call("echo", json!({"text": "a"})).await?["structuredContent"]["text"],
            "a"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_end_of_stdin_stops_what_runs_and_ends_the_session_at_once() -> anyhow::Result<()> {
    let fixture = fixture()?;
    for mut client in Client::both_eras(&fixture).await? {
        client.start_call("hang", json!({})).await?;
        soon(fixture.signs.hanging.notified()).await?;
        let began = std::time::Instant::now();
        client.writer.shutdown().await?;
        soon(fixture.signs.stopped.notified()).await?;
        soon(client.server).await???;
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "the SDK alone would take five"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_end_of_the_server_stops_what_runs_also_before_any_message() -> anyhow::Result<()> {
    let fixture = fixture()?;
    let client = Client::connect(&fixture);
    client.ended.cancel();
    soon(client.server).await???;

    let mut client = Client::legacy(&fixture).await?;
    client.start_call("hang", json!({})).await?;
    soon(fixture.signs.hanging.notified()).await?;
    client.ended.cancel();
    soon(fixture.signs.stopped.notified()).await?;
    soon(client.server).await???;
    Ok(())
}

#[tokio::test]
async fn what_is_no_message_is_answered_and_the_next_line_is_read() -> anyhow::Result<()> {
    let fixture = fixture()?;
    for mut client in Client::both_eras(&fixture).await? {
        for (line, code) in [
            ("{nonsense", -32700),
            ("{\"jsonrpc\": \"2.0\", \"id\": 5, \"method\": ", -32700),
            ("\u{7}\u{1b}[31m", -32700),
            ("[]", -32600),
            ("42", -32600),
            ("{}", -32600),
        ] {
            client.send_bytes(format!("{line}\n").as_bytes()).await?;
            let answer = client.receive().await?;
            assert_eq!(answer["error"]["code"], code, "{line}: {answer}");
            assert!(answer.get("id").is_none(), "{answer}");
        }
        client.send_bytes(b"\xff\xfe\n\r\n  \n").await?;
        assert_eq!(client.receive().await?["error"]["code"], -32700);
        client
            .send(&json!({"jsonrpc": "2.0", "id": "seven", "result": 5, "method": 5}))
            .await?;
        assert_eq!(client.receive().await?["id"], "seven");
        assert_eq!(
            client.call("echo", json!({"text": "a"})).await?["structuredContent"]["text"],
            "a"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_line_that_never_ends_is_refused_once_and_the_next_line_is_read() -> anyhow::Result<()> {
    let fixture = fixture()?;
    for mut client in Client::both_eras(&fixture).await? {
        let chunk = vec![b'x'; 1024 * 1024];
        for _ in 0..10 {
            client.send_bytes(&chunk).await?;
        }
        let answer = client.receive().await?;
        assert_eq!(answer["error"]["code"], -32600);
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains(&MAX_REQUEST_BYTES.to_string()))
        );
        client.send_bytes(b"\n").await?;
        let fits = "y".repeat(50_000);
        assert_eq!(
            client.call("echo", json!({"text": fits})).await?["structuredContent"]["text"],
            fits
        );
    }
    Ok(())
}

#[tokio::test]
async fn noise_before_the_handshake_does_not_end_the_session() -> anyhow::Result<()> {
    let fixture = fixture()?;
    let mut client = Client::connect(&fixture);
    client
        .send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
        .await?;
    client
        .send(&json!({"jsonrpc": "2.0", "id": 9, "result": {}}))
        .await?;
    client.send_bytes(b"hello?\n").await?;
    assert_eq!(client.receive().await?["error"]["code"], -32700);
    let parameters = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    assert_eq!(
        client.request("initialize", parameters).await?["result"]["protocolVersion"],
        "2025-06-18"
    );
    Ok(())
}

#[tokio::test]
async fn every_call_leaves_a_line_that_says_who_what_and_how_but_no_argument() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("calls.jsonl");
    let fixture = fixture()?
        .with_log(&path, true)?
        .with_guard(|guard| guard.with_deadline("hang", Duration::from_millis(20)));
    let mut client = Client::legacy(&fixture).await?;
    client.call("echo", json!({"text": "top secret"})).await?;
    client.call("echo", json!({"wrong": "top secret"})).await?;
    client.call("panic", json!({})).await?;
    client.call("hang", json!({})).await?;
    client.call("change", json!({})).await?;

    let text = fs::read_to_string(&path)?;
    assert!(!text.contains("secret"));
    let entries: Vec<crate::call_log::Entry> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let brief: Vec<_> = entries
        .iter()
        .map(|entry| (entry.tool.as_str(), entry.outcome, entry.code.as_deref()))
        .collect();
    assert_eq!(
        brief,
        [
            ("echo", Outcome::Ok, None),
            ("echo", Outcome::Refused, Some("INVALID_ARGUMENTS")),
            ("panic", Outcome::Error, Some("INTERNAL")),
            ("hang", Outcome::Cancelled, Some("TIMEOUT")),
            ("change", Outcome::Ok, None),
        ]
    );
    assert!(entries.iter().all(|entry| entry.principal == "tester"));
    assert_eq!(
        (entries[4].run.as_deref(), entries[4].action.as_deref()),
        (Some("run1"), Some("ac_1"))
    );
    assert_eq!(verify(&path, None)?.entries, 5);
    Ok(())
}

#[tokio::test]
async fn a_changing_call_that_cannot_be_recorded_is_refused_before_it_acts() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, required) in [("a", true), ("b", false)] {
        let log = CallLog::open(&folder.path().join(name), required)?;
        let fixture = fixture()?.with_guard(|guard| guard.with_log(log.clone()));
        let mut client = Client::legacy(&fixture).await?;
        assert_eq!(
            client.call("change", json!({})).await?["content"][0]["text"],
            "changed"
        );
        log.break_disk()?;
        let result = client.call("change", json!({})).await?;
        if required {
            let error = error_of(&result)?;
            assert_eq!(error.code, "AUDIT_UNAVAILABLE");
            assert!(error.message.contains("nothing was done"), "{error}");
        } else {
            assert_eq!(result["content"][0]["text"], "changed");
        }
        let changed = fixture.signs.changed.load(Ordering::SeqCst);
        assert_eq!(changed, if required { 1 } else { 2 });
    }
    Ok(())
}

#[tokio::test]
async fn calls_are_counted_under_their_standard_name() -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let fixture = Fixture::new(Limits::default(), metrics.clone())?;
    let mut client = Client::legacy(&fixture).await?;
    client.call("echo", json!({"text": "a"})).await?;
    client.call("fail", json!({})).await?;
    let text = metrics.render();
    let count =
        |labels: &str| format!("mcp_server_operation_duration_seconds_count{{{labels}}} 1\n");
    assert!(
        text.contains(&count(
            r#"mcp_method_name="tools/call",gen_ai_tool_name="echo""#
        )),
        "{text}"
    );
    assert!(
        text.contains(&count(
            r#"mcp_method_name="tools/call",gen_ai_tool_name="fail",error_type="NO_LUCK""#
        )),
        "{text}"
    );
    Ok(())
}
