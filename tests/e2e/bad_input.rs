//! Whatever is thrown at a server, it says what is wrong, goes on answering, and loses nothing.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::binaries::Server;
use tests::client::{Client, Era, RpcError, ToolResult, send_http};
use tests::fixture::{Fixture, Transport, places, registry};
use tests::process::ServerProcess;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

/// Longer lines are skipped, so nobody knows the id to answer with.
const LARGEST_LINE: usize = 4 << 20;

/// What a specification may look like that is none, and a word of the answer that names the fault.
fn bad_specifications() -> Vec<(&'static str, String, &'static str)> {
    let with = |line: &str| format!("spec_id: a\noutcome: A page is served\n{line}\n");
    let mut bombs =
        String::from("spec_id: a\noutcome: A page is served\nsuccess_criteria:\n  a: &a [x, x]\n");
    for (name, of) in ('b'..='z').zip('a'..) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            bombs,
            "  {name}: &{name} [{}]",
            vec![format!("*{of}"); 8].join(", ")
        );
    }
    let id = |id: &str| format!("spec_id: {id}\noutcome: A page is served\n");
    vec![
        ("nothing", String::new(), "empty"),
        ("blanks", "  \n\n".to_owned(), "empty"),
        (
            "a comparison that YAML takes for a folded text",
            with("success_criteria:\n  performance:\n    - uptime: >= 99.9%"),
            "quote",
        ),
        (
            "tabs",
            with("success_criteria:\n\tperformance:\n\t\t- fast"),
            "tab",
        ),
        ("a key twice", with("outcome: Another"), "outcome"),
        ("a bomb of aliases", bombs, ""),
        (
            "deep nesting",
            with(&format!("tags: {}{}", "[".repeat(5_000), "]".repeat(5_000))),
            "",
        ),
        (
            "two documents",
            "spec_id: a\noutcome: x is y\n---\nspec_id: b\noutcome: z\n".to_owned(),
            "document",
        ),
        ("a NUL", with("tags: [\"a\0b\"]"), ""),
        (
            "no outcome",
            "spec_id: a\nversion: 1\n".to_owned(),
            "outcome",
        ),
        (
            "an empty outcome",
            "spec_id: a\noutcome: \"\"\n".to_owned(),
            "outcome",
        ),
        ("a list", "- a\n- b\n".to_owned(), ""),
        ("a number", "7\n".to_owned(), ""),
        ("an open quote", with("tags: [\"a"), ""),
        ("an id with a slash", id("a/b"), "spec_id"),
        ("an id that climbs", id("\"..\""), "spec_id"),
        ("an id of 500 characters", id(&"a".repeat(500)), "spec_id"),
        ("an id with a Cyrillic а", id("p\u{430}ge"), "spec_id"),
        (
            "a version that is no version",
            with("version: [1, 2]"),
            "version",
        ),
        (
            "more than 256 KiB",
            with(&format!("notes: {}", "x".repeat(300 << 10))),
            "",
        ),
        ("nine megabytes", "x".repeat(9 << 20), ""),
    ]
}

#[tokio::test]
async fn a_specification_that_is_none_is_refused_with_a_reason_and_not_stored() -> anyhow::Result<()>
{
    for transport in Transport::ALL {
        let fixture = Fixture::start(Server::SpecRegistry, transport, Era::Modern).await?;
        let kept = keep(&fixture.client).await?;
        for (what, text, word) in bad_specifications() {
            if transport == Transport::Stdio && text.len() > LARGEST_LINE {
                continue; // answered without the id that was not read; see the lines of garbage
            }
            let said =
                match attempt(&fixture.client, "spec_validate", &json!({ "text": text })).await? {
                    Ok(answer) if answer.is_error => answer.text,
                    Ok(answer) => {
                        let answer = answer.success()?;
                        assert_eq!(answer["valid"], false, "{what}: {answer}");
                        let worst = &answer["problems"][0];
                        ensure!(worst["severity"] == "error", "{what}: {answer}");
                        worst.to_string()
                    }
                    Err(said) => said,
                };
            ensure!(
                said.to_lowercase().contains(word),
                "{what}: the answer does not say `{word}`: {}",
                short(&said)
            );
            let proposed = json!({ "text": text, "reason": "to see it refused" });
            match attempt(&fixture.client, "spec_propose", &proposed).await? {
                Ok(answer) => {
                    answer
                        .error_code()
                        .with_context(|| format!("{what} was stored"))?;
                }
                Err(said) => ensure!(!said.is_empty(), "{what}: nothing is said"),
            }
        }
        is_kept(&fixture.client, &kept).await?;
        let stored = call(
            &fixture.client,
            "spec_search",
            json!({ "query": "page served a b" }),
        )
        .await?;
        assert!(!stored.to_string().contains("A page is served"), "{stored}");
    }
    Ok(())
}

#[tokio::test]
async fn versions_are_texts_and_no_version_has_two_contents() -> anyhow::Result<()> {
    let fixture = Fixture::start(Server::SpecRegistry, Transport::Stdio, Era::Legacy).await?;
    let client = &fixture.client;
    let text = |version: &str, outcome: &str| {
        format!(
            "spec_id: page\nversion: {version}\noutcome: {outcome}\nsuccess_criteria:\n  html:\n    - A page is served\n"
        )
    };
    let propose = async |text: String, base: &Value| {
        let mut arguments = json!({ "text": text, "reason": "a test" });
        if !base.is_null() {
            arguments["base_digest"] = base.clone();
        }
        client.call("spec_propose", arguments).await
    };
    let first = propose(text("1.1", "A page is served"), &Value::Null)
        .await?
        .success()?;
    assert_eq!(first["version"], "1.1");
    let tenth = propose(text("1.10", "A page is served"), &first["digest"])
        .await?
        .success()?;
    assert_eq!(tenth["version"], "1.10", "1.10 is not 1.1");

    let again = propose(text("1.10", "Two pages are served"), &tenth["digest"]).await?;
    ensure!(
        again.is_error && again.text.contains("1.10"),
        "{}",
        again.text
    );
    let stale = propose(text("2.1.0-rc1", "A page is served"), &first["digest"]).await?;
    assert_eq!(stale.error_code()?, "BASE_MISMATCH");
    let stored = call(
        client,
        "spec_get",
        json!({ "spec_id": "page", "version": "1.10" }),
    )
    .await?;
    ensure!(stored.to_string().contains("A page is served"), "{stored}");
    Ok(())
}

/// Arguments for any tool, none of which any tool takes.
fn bad_arguments() -> Vec<(&'static str, Value)> {
    let mut deep = json!(1);
    for _ in 0..90 {
        deep = json!([deep]);
    }
    vec![
        ("a list", json!([])),
        ("a text", json!("run_id")),
        ("a number", json!(7)),
        ("an unknown field", json!({ "no_such_argument": true })),
        (
            "an unknown field of ten megabytes",
            json!({ "no_such_argument": "x".repeat(10 << 20) }),
        ),
        (
            "an unknown field, deep",
            json!({ "no_such_argument": deep }),
        ),
        (
            "a field that is named like a prototype",
            json!({ "__proto__": {}, "constructor": {} }),
        ),
        (
            "texts where none belong",
            json!({ "run_id": 7, "id": 7, "path": 7, "text": 7, "spec_id": 7 }),
        ),
        (
            "no texts where some belong",
            json!({ "run_id": null, "id": [], "path": {}, "text": [], "spec_id": {} }),
        ),
        (
            "NUL and control characters",
            json!({ "no\0such": "\u{1b}[31m\0" }),
        ),
        (
            "a thousand unknown fields",
            (0..1000)
                .map(|number| (format!("f{number}"), json!(number)))
                .collect(),
        ),
    ]
}

#[tokio::test]
async fn arguments_that_no_tool_takes_are_refused_and_the_next_call_is_answered()
-> anyhow::Result<()> {
    for server in Server::ALL {
        for transport in Transport::ALL {
            let fixture = Fixture::start(server, transport, Era::Modern).await?;
            let client = &fixture.client;
            let kept = match server {
                Server::SpecRegistry => Some(keep(client).await?),
                Server::BashCommander | Server::Database => None,
            };
            for tool in client.list_tools().await? {
                let tool = tool["name"].as_str().context("a tool without a name")?;
                for (what, arguments) in bad_arguments() {
                    if transport == Transport::Stdio && arguments.to_string().len() > LARGEST_LINE {
                        continue; // as above
                    }
                    let place = || format!("{server:?} {transport:?} {tool}: {what}");
                    match attempt(client, tool, &arguments)
                        .await
                        .with_context(place)?
                    {
                        Ok(answer) => {
                            let code = answer.error_code().with_context(place)?;
                            assert_eq!(
                                code,
                                "INVALID_ARGUMENTS",
                                "{}: {}",
                                place(),
                                short(&answer.text)
                            );
                            ensure!(
                                answer.text.len() < 4096,
                                "{}: an answer of {} bytes",
                                place(),
                                answer.text.len()
                            );
                        }
                        Err(said) => ensure!(said.len() < 4096, "{}: {}", place(), short(&said)),
                    }
                }
            }
            for name in [
                "",
                "exec\0",
                "../exec",
                "EXEC",
                "ｅxec",
                &"x".repeat(1 << 20),
            ] {
                // Over HTTP the name also stands in a header.
                if transport == Transport::Http && !name.bytes().all(|byte| byte.is_ascii_graphic())
                {
                    continue;
                }
                let said = attempt(client, name, &json!({})).await?.err();
                let said = said.with_context(|| format!("there is a tool `{}`", short(name)))?;
                ensure!(said.len() < 4096, "an answer of {} bytes", said.len());
            }
            match (server, kept) {
                (_, Some(kept)) => is_kept(client, &kept).await?,
                (Server::Database, None) => drop(call(client, "db_sources", json!({})).await?),
                (_, None) => drop(call(client, "list_sessions", json!({})).await?),
            }
        }
    }
    Ok(())
}

/// Bytes that are no message, for either transport.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let call = |arguments: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"exec","arguments":{arguments}}}}}"#).into_bytes()
    };
    vec![
        ("nothing but a brace", b"{".to_vec()),
        (
            "random bytes",
            (0..5000_u32)
                .map(|index| {
                    u8::try_from(index.wrapping_mul(2_654_435_761) >> 24)
                        .unwrap_or(1)
                        .max(11)
                })
                .collect(),
        ),
        (
            "bytes that are no UTF-8",
            b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"\xff\xfe\"}".to_vec(),
        ),
        ("half a surrogate pair", call(r#"{"command":"\ud800"}"#)),
        ("NULs", vec![0; 4096]),
        ("ten thousand open brackets", call(&"[".repeat(10_000))),
        (
            "ten thousand nested lists",
            call(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
        ),
        (
            "ten thousand nested objects",
            call(&format!(
                "{}1{}",
                "{\"a\":".repeat(10_000),
                "}".repeat(10_000)
            )),
        ),
        (
            "a number that fits nowhere",
            call(&format!("{{\"timeout_ms\":1{}}}", "0".repeat(5000))),
        ),
        (
            "a key twice",
            call(r#"{"command":"true","command":"false"}"#),
        ),
        (
            "ten megabytes of one value",
            call(&format!("{{\"no\":\"{}\"}}", "x".repeat(10 << 20))),
        ),
        ("ten megabytes that never end", vec![b'['; 10 << 20]),
        (
            "a method that is no text",
            br#"{"jsonrpc":"2.0","id":7,"method":[]}"#.to_vec(),
        ),
        ("another protocol", b"GET / HTTP/1.1".to_vec()),
        (
            "an id that is an object",
            br#"{"jsonrpc":"2.0","id":{},"method":"tools/list"}"#.to_vec(),
        ),
        (
            "another version of JSON-RPC",
            br#"{"jsonrpc":"1.0","id":7,"method":"tools/list"}"#.to_vec(),
        ),
    ]
}

#[tokio::test]
async fn lines_of_garbage_are_answered_or_passed_over_and_the_next_request_is_answered()
-> anyhow::Result<()> {
    for server in Server::ALL {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("workspace"))?;
        let mut daemon = None;
        let mut arguments = places(server, folder.path());
        if server == Server::SpecRegistry {
            daemon = Some(registry(folder.path(), &[]).await?);
            arguments.insert(0, "stdio".into());
        }
        let mut process = ServerProcess::start(server, folder.path(), arguments).await?;
        let (mut stdin, stdout) = process.pipes()?;
        let mut lines = BufReader::new(stdout).lines();
        let hello = json!({ "jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": {
            "protocolVersion": Era::Legacy.revision(), "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        stdin
            .write_all(format!("{hello}\n{initialized}\n").as_bytes())
            .await?;
        for (index, (what, bytes)) in garbage().into_iter().enumerate() {
            let id = format!("after-{index}");
            let next = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" });
            stdin.write_all(&bytes).await?;
            stdin.write_all(format!("\n{next}\n").as_bytes()).await?;
            let mut said_why = false;
            let answered = async {
                while let Some(line) = lines.next_line().await? {
                    let message: Value = serde_json::from_str(&line)
                        .with_context(|| format!("no JSON: {}", short(&line)))?;
                    ensure!(
                        message["id"] == id || line.len() < 40_000,
                        "a long answer: {}",
                        short(&line)
                    );
                    said_why = said_why || message["error"]["message"].is_string();
                    if message["id"] == id.as_str() {
                        ensure!(
                            said_why || bytes.len() < LARGEST_LINE,
                            "nothing is said about the length"
                        );
                        ensure!(message["result"]["tools"].is_array(), "{}", short(&line));
                        return Ok(());
                    }
                }
                anyhow::bail!("it ended")
            };
            tokio::time::timeout(std::time::Duration::from_secs(30), answered)
                .await
                .map_err(anyhow::Error::from)
                .and_then(|answered| answered)
                .with_context(|| {
                    format!("{server:?} after {what}; stderr: {}", process.stderr())
                })?;
        }
        drop(daemon);
    }
    Ok(())
}

#[tokio::test]
async fn bodies_of_garbage_are_refused_and_the_next_request_is_answered() -> anyhow::Result<()> {
    for server in Server::ALL {
        let fixture = Fixture::start(server, Transport::Http, Era::Modern).await?;
        let address = fixture.process.http_address().await?;
        for (what, body) in garbage() {
            let request = hyper::Request::post("/mcp")
                .header("host", address.to_string())
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream")
                .header("mcp-protocol-version", Era::Modern.revision())
                .body(body)?;
            // A server may close the connection on a body that it will not read.
            if let Ok(response) = send_http(address, request).await {
                let is_refused =
                    response.status().is_client_error() || response.body().contains("\"error\"");
                ensure!(
                    is_refused,
                    "{server:?}: {what}: {} {}",
                    response.status(),
                    short(response.body())
                );
            }
            let listed = fixture.client.list_tools().await;
            listed.with_context(|| format!("{server:?} does not answer after {what}"))?;
        }
    }
    Ok(())
}

/// A run that must still be there at the end.
async fn keep(client: &Client) -> anyhow::Result<Value> {
    let text =
        "spec_id: kept\noutcome: Something is kept\nsuccess_criteria:\n  a:\n    - It is kept\n";
    call(
        client,
        "spec_propose",
        json!({ "text": text, "reason": "a test" }),
    )
    .await?;
    call(
        client,
        "run_request",
        json!({ "spec_id": "kept", "version": "1" }),
    )
    .await
}

async fn is_kept(client: &Client, kept: &Value) -> anyhow::Result<()> {
    let run_id = &kept["run"]["run_id"];
    let found = call(client, "run_get", json!({ "run_id": run_id })).await?;
    assert_eq!(found["run"], kept["run"], "the run changed");
    let runs = call(client, "run_list", json!({})).await?;
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
    Ok(())
}

async fn call(client: &Client, tool: &str, arguments: Value) -> anyhow::Result<Value> {
    let answer = client.call(tool, arguments).await?;
    answer.success().with_context(|| format!("{tool} failed"))
}

/// Makes a call that should be refused: by the tool, or with what the protocol or HTTP says.
async fn attempt(
    client: &Client,
    tool: &str,
    arguments: &Value,
) -> anyhow::Result<Result<ToolResult, String>> {
    let is_large = arguments.to_string().len() > LARGEST_LINE;
    let mut is_again = false;
    loop {
        let error = match client.call(tool, arguments.clone()).await {
            Ok(answer) => return Ok(Ok(answer)),
            Err(error) => error,
        };
        let said = format!("{error:#}");
        if error.is::<RpcError>() || said.contains("HTTP 4") {
            ensure!(!said.is_empty(), "an error without a message");
            return Ok(Err(said));
        }
        // A server may close the connection in the middle of a body that it will not read, or after it.
        if is_large {
            return Ok(Err(said));
        }
        ensure!(!is_again && said.contains("connection"), "{said}");
        is_again = true;
    }
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}
