//! What holds of every server, on both transports and in both protocol eras.

use std::fmt::Write as _;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tests::binaries::Server;
use tests::client::{Era, RpcError, send_http};
use tests::expect::is_current;
use tests::fixture::{Fixture, Transport};

/// What `tools/list` may cost a client, in bytes; some 6,000 tokens.
const LARGEST_LIST: usize = 24_000;

/// Calls that change nothing and need nothing, with which answers are checked against their schemas.
const HARMLESS_CALLS: [(Server, &str, &str); 7] = [
    (Server::BashCommander, "doctor", "{}"),
    (Server::BashCommander, "list_sessions", "{}"),
    (Server::Database, "db_sources", "{}"),
    (Server::SpecRegistry, "run_list", "{}"),
    (
        Server::SpecRegistry,
        "spec_search",
        r#"{"query": "web service"}"#,
    ),
    (
        Server::SpecRegistry,
        "spec_validate",
        r#"{"text": "spec_id: a\ngoal: A page is served\n"}"#,
    ),
    (
        Server::SpecRegistry,
        "agent_register",
        r#"{"description": "tries tools", "persona": "tester"}"#,
    ),
];

#[tokio::test]
async fn the_same_tools_are_listed_on_both_transports_in_both_eras() -> anyhow::Result<()> {
    for server in Server::ALL {
        let mut first: Option<Vec<Value>> = None;
        for transport in Transport::ALL {
            for era in Era::ALL {
                let fixture = Fixture::start(server, transport, era).await?;
                let tools = fixture.client.list_tools().await?;
                ensure!(!tools.is_empty(), "{server:?} lists no tools");
                let expected = first.get_or_insert_with(|| tools.clone());
                assert_eq!(&tools, expected, "{server:?} {transport:?} {era:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_says_its_name_version_and_how_to_use_it() -> anyhow::Result<()> {
    for server in Server::ALL {
        for era in Era::ALL {
            let fixture = Fixture::start(server, Transport::Stdio, era).await?;
            let said = fixture.client.server();
            let info = match era {
                Era::Legacy => &said["serverInfo"],
                Era::Modern => &said["_meta"]["io.modelcontextprotocol/serverInfo"],
            };
            assert_eq!(info["name"], server.name(), "{era:?}: {said}");
            assert_eq!(info["version"], env!("CARGO_PKG_VERSION"), "{era:?}");
            let instructions = said["instructions"].as_str().unwrap_or_default();
            ensure!(
                instructions.len() > 100,
                "{server:?} {era:?} gives no instructions: {said}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_tool_is_described_for_models_and_for_clients() -> anyhow::Result<()> {
    for server in Server::ALL {
        for tool in tools(server).await? {
            let name = tool["name"].as_str().context("a tool without a name")?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            ensure!(!text(&tool["title"]).is_empty(), "{name} has no title");
            ensure!(
                text(&tool["description"]).len() > 40,
                "{name} is not described"
            );
            let hints = [
                "readOnlyHint",
                "destructiveHint",
                "idempotentHint",
                "openWorldHint",
            ];
            for hint in hints {
                ensure!(
                    tool["annotations"][hint].is_boolean(),
                    "{name} does not say {hint}"
                );
            }
            for schema in ["inputSchema", "outputSchema"] {
                assert_eq!(tool[schema]["type"], "object", "{schema} of {name}");
                if let Some(problem) = unportable(&tool[schema]) {
                    anyhow::bail!("{schema} of {name}: {problem}");
                }
            }
            for (parameter, schema) in tool["inputSchema"]["properties"]
                .as_object()
                .into_iter()
                .flatten()
            {
                let described = schema["description"].is_string() || schema["$ref"].is_string();
                ensure!(
                    described,
                    "parameter `{parameter}` of {name} is not described"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn listing_the_tools_costs_a_client_little() -> anyhow::Result<()> {
    for server in Server::ALL {
        let bytes = serde_json::to_vec(&tools(server).await?)?.len();
        ensure!(
            bytes <= LARGEST_LIST,
            "{}: {bytes} bytes, {LARGEST_LIST} allowed",
            server.name()
        );
    }
    Ok(())
}

#[tokio::test]
async fn answers_fit_their_output_schemas() -> anyhow::Result<()> {
    for server in Server::ALL {
        for transport in Transport::ALL {
            let fixture = Fixture::start(server, transport, Era::Legacy).await?;
            let tools = fixture.client.list_tools().await?;
            for (_, tool, arguments) in HARMLESS_CALLS.iter().filter(|call| call.0 == server) {
                let declared = tools.iter().find(|declared| declared["name"] == *tool);
                let schema = &declared.with_context(|| format!("no tool {tool}"))?["outputSchema"];
                let result = fixture
                    .client
                    .call(tool, serde_json::from_str(arguments)?)
                    .await?;
                ensure!(
                    !result.text.is_empty(),
                    "{tool} has no text for those who read only that"
                );
                let answer = result.success().with_context(|| (*tool).to_owned())?;
                let validator = jsonschema::validator_for(schema)?;
                if let Err(error) = validator.validate(&answer) {
                    anyhow::bail!("{tool}: {error} at {}: {answer}", error.instance_path());
                }
                let listed = &schema["properties"];
                for field in answer
                    .as_object()
                    .into_iter()
                    .flat_map(|answer| answer.keys())
                {
                    ensure!(listed[field].is_object(), "{tool} does not list `{field}`");
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_tool_is_a_fault_of_the_protocol_and_hurts_nobody() -> anyhow::Result<()> {
    for server in Server::ALL {
        for transport in Transport::ALL {
            for era in Era::ALL {
                let fixture = Fixture::start(server, transport, era).await?;
                for name in ["checkpoint_approve", "", "../exec"] {
                    let error = fixture.client.call(name, json!({})).await.err();
                    let error = error.with_context(|| format!("{server:?} has a tool `{name}`"))?;
                    let error = error.downcast::<RpcError>().context("not an answer")?;
                    assert_eq!(
                        error.code, -32602,
                        "{server:?} {transport:?} {era:?}: {error}"
                    );
                }
                fixture
                    .client
                    .list_tools()
                    .await
                    .context("it does not answer any more")?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn wrong_arguments_are_answered_with_how_to_mend_them() -> anyhow::Result<()> {
    for server in Server::ALL {
        let fixture = Fixture::start(server, Transport::Stdio, Era::Legacy).await?;
        for tool in fixture.client.list_tools().await? {
            let name = tool["name"].as_str().unwrap_or_default();
            let result = fixture
                .client
                .call(name, json!({ "no_such_argument": 1 }))
                .await?;
            assert_eq!(result.error_code()?, "INVALID_ARGUMENTS", "{name}");
            ensure!(
                result.text.contains("no_such_argument") || result.text.contains("missing"),
                "{name} does not name what is wrong: {}",
                result.text
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn lines_that_are_no_messages_do_not_end_the_conversation() -> anyhow::Result<()> {
    for server in Server::ALL {
        for era in Era::ALL {
            let fixture = Fixture::start(server, Transport::Stdio, era).await?;
            let too_long = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#,
                "x".repeat(10 << 20)
            );
            for line in [
                "",
                "{",
                "[]",
                "null",
                r#"{"jsonrpc":"2.0"}"#,
                "\u{1b}[31m",
                &too_long,
            ] {
                fixture.client.send_line(line).await?;
                fixture.client.list_tools().await.with_context(|| {
                    let start: String = line.chars().take(40).collect();
                    format!("{server:?} {era:?} went silent after `{start}`")
                })?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_refused_and_hurts_nobody() -> anyhow::Result<()> {
    for server in Server::ALL {
        let fixture = Fixture::start(server, Transport::Http, Era::Modern).await?;
        let address = fixture.process.http_address().await?;
        for body in [
            vec![b' '; 10 << 20],
            b"{".to_vec(),
            b"[]".to_vec(),
            Vec::new(),
        ] {
            let request = hyper::Request::post("/mcp")
                .header("host", address.to_string())
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream")
                .header("mcp-protocol-version", Era::Modern.revision())
                .body(body)?;
            // A server may close the connection on a body it will not read.
            if let Ok(response) = send_http(address, request).await {
                ensure!(
                    response.status().is_client_error(),
                    "{server:?}: {response:?}"
                );
            }
            fixture
                .client
                .list_tools()
                .await
                .context("it does not answer any more")?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_end_of_input_and_a_signal_each_end_a_server() -> anyhow::Result<()> {
    for server in Server::ALL {
        let Fixture {
            client,
            mut process,
            daemon,
            folder,
        } = Fixture::start(server, Transport::Stdio, Era::Legacy).await?;
        drop(client); // closes its stdin
        ensure!(
            process.wait().await?.success(),
            "{server:?} failed at the end of its input"
        );
        if let Some(daemon) = daemon {
            ensure!(
                daemon.terminate().await?.success(),
                "the registry failed on SIGTERM"
            );
        }
        drop(folder);
        let fixture = Fixture::start(server, Transport::Http, Era::Modern).await?;
        ensure!(
            fixture.process.terminate().await?.success(),
            "{server:?} failed on SIGTERM"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_reference_of_tools_is_current() -> anyhow::Result<()> {
    let mut page = String::from(
        "# Tools\n\nGenerated from what the servers list: `UPDATE_EXPECT=1 cargo test -p tests` writes this page.\n\
         In enforced mode changing tools of effect servers take one more argument, `grant`; those that concern only one's own\n         sessions, such as `stop`, do not.\n",
    );
    for server in Server::ALL {
        write!(page, "\n## {}\n", server.name())?;
        for tool in tools(server).await? {
            describe(&mut page, &tool)?;
        }
    }
    is_current("docs/tools.md", &page)
}

async fn tools(server: Server) -> anyhow::Result<Vec<Value>> {
    Fixture::start(server, Transport::Stdio, Era::Modern)
        .await?
        .client
        .list_tools()
        .await
}

fn describe(page: &mut String, tool: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().replace('\n', " ");
    let class = match (
        &tool["annotations"]["readOnlyHint"],
        &tool["annotations"]["destructiveHint"],
    ) {
        (Value::Bool(true), _) => "reads",
        (_, Value::Bool(true)) => "changes, perhaps for good",
        _ => "changes",
    };
    let description = tool["description"].as_str().unwrap_or_default();
    write!(
        page,
        "\n### `{}`\n\n*{}, {class}.* {description}\n",
        text(&tool["name"]),
        text(&tool["title"])
    )?;
    let required = tool["inputSchema"]["required"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let parameters = tool["inputSchema"]["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    if !parameters.is_empty() {
        page.push_str("\n| argument | type | |\n| --- | --- | --- |\n");
    }
    for (name, schema) in &parameters {
        let name = if required.contains(&json!(name)) {
            format!("**{name}**")
        } else {
            name.clone()
        };
        let kind = kind(schema).replace('|', "\\|");
        let description = text(&schema["description"]).replace('|', "\\|");
        writeln!(page, "| {name} | {kind} | {description} |")?;
    }
    let fields = tool["outputSchema"]["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let fields: Vec<String> = fields.keys().map(|field| format!("`{field}`")).collect();
    if !fields.is_empty() {
        write!(page, "\nAnswers {}.\n", fields.join(", "))?;
    }
    Ok(())
}

fn kind(schema: &Value) -> String {
    if let Some(choices) = schema["enum"].as_array() {
        let choices: Vec<String> = choices.iter().map(|choice| format!("`{choice}`")).collect();
        return choices.join(" | ").replace('"', "");
    }
    let default = match schema.get("default") {
        Some(value) if !value.is_null() => format!(", default `{value}`"),
        _ => String::new(),
    };
    let kind = match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some(kind) => kind.to_owned(),
        None => "see its schema".to_owned(),
    };
    format!("{kind}{default}")
}

/// What in a schema some clients' model providers refuse.
fn unportable(schema: &Value) -> Option<String> {
    match schema {
        Value::Array(items) => items.iter().find_map(unportable),
        Value::Object(members) => {
            let is_null = |value: &Value| value == "null" || value["type"] == "null";
            let nullable = ["type", "anyOf", "oneOf"].iter().find(|key| {
                members
                    .get(**key)
                    .and_then(Value::as_array)
                    .is_some_and(|union| union.iter().any(is_null))
            });
            if let Some(key) = nullable {
                return Some(format!("a union with null in `{key}`: {schema}"));
            }
            if members.get("default").is_some_and(Value::is_null) {
                return Some(format!("a null default: {schema}"));
            }
            let format = members.get("format").and_then(Value::as_str);
            if let Some(format) = format.filter(|format| *format != "date-time") {
                return Some(format!("the format `{format}`"));
            }
            members.values().find_map(unportable)
        }
        _ => None,
    }
}
