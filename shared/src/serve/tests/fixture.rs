//! A server with the worst tools, and a client that speaks raw JSON-RPC.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::{tool::ToolRouter, wrapper::Parameters},
    model::{
        CallToolRequestParams, CallToolResponse, Implementation, ListPromptsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
    tool, tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    call::{self, CallGuard, Limits},
    call_log::CallLog,
    effect::class::EffectClass,
    metrics::Metrics,
    principal::{self, Principal},
    serve::{ServeError, connection},
    tool_error::ToolError,
    tool_result::{Json, structured},
    tools::{ToolEffect, finish},
};

const EFFECTS: [ToolEffect; 6] = [
    ToolEffect::new("echo", "Echo", EffectClass::Read),
    ToolEffect::new("panic", "Panic", EffectClass::Read),
    ToolEffect::new("hang", "Hang", EffectClass::Read),
    ToolEffect::new("flood", "Flood", EffectClass::Read),
    ToolEffect::new("change", "Change", EffectClass::Write),
    ToolEffect::new("fail", "Fail", EffectClass::Read),
];

#[derive(Clone)]
pub(super) struct Fixture {
    tools: Arc<ToolRouter<Self>>,
    guard: CallGuard,
    pub(super) signs: Arc<Signs>,
}

/// What happened inside the tools.
#[derive(Default)]
pub(super) struct Signs {
    pub(super) hanging: Notify,
    pub(super) stopped: Notify,
    pub(super) changed: std::sync::atomic::AtomicUsize,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EchoArguments {
    /// What comes back.
    text: String,
    /// How often.
    times: Option<u32>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Echo {
    text: String,
    caller: String,
}

#[tool_router]
impl Fixture {
    /// Says the same.
    #[tool]
    async fn echo(
        &self,
        Parameters(arguments): Parameters<EchoArguments>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Echo>, ToolError> {
        let caller = principal::of(&context)?.to_string();
        let times = usize::try_from(arguments.times.unwrap_or(1)).unwrap_or(1);
        Ok(structured(
            Echo {
                text: arguments.text.repeat(times),
                caller,
            },
            "echoed",
        ))
    }

    /// Panics.
    #[tool]
    #[expect(clippy::panic, reason = "the guard is tested with it")]
    async fn panic(&self) -> Result<Json<Echo>, ToolError> {
        panic!("on purpose");
    }

    /// Waits to be stopped.
    #[tool]
    async fn hang(&self, context: RequestContext<RoleServer>) -> Result<Json<Echo>, ToolError> {
        let (signs, stop) = (self.signs.clone(), context.ct.clone());
        tokio::spawn(async move {
            stop.cancelled().await;
            signs.stopped.notify_one();
        });
        self.signs.hanging.notify_one();
        std::future::pending().await
    }

    /// Answers far too much.
    #[tool]
    async fn flood(&self) -> Result<Json<Echo>, ToolError> {
        Ok(structured(
            Echo {
                text: "x".repeat(3_000_000),
                caller: String::new(),
            },
            "much",
        ))
    }

    /// Changes something.
    #[tool]
    async fn change(&self, context: RequestContext<RoleServer>) -> Result<Json<Echo>, ToolError> {
        call::belongs_to(&context, Some("run1"), Some("ac_1"));
        self.signs
            .changed
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(structured(
            Echo {
                text: String::new(),
                caller: String::new(),
            },
            "changed",
        ))
    }

    /// Fails as tools fail.
    #[tool]
    async fn fail(&self) -> Result<Json<Echo>, ToolError> {
        Err(ToolError::new("NO_LUCK", "nothing came of it").with_hint("try another day"))
    }
}

#[tool_handler(router = self.tools)]
impl ServerHandler for Fixture {
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.guard.call(self, &self.tools, request, context).await
    }

    #[expect(clippy::panic, reason = "the guard is tested with it")]
    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        self.guard
            .request("prompts/list", async { panic!("on purpose") })
            .await
    }

    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(
            ServerCapabilities::builder()
                .enable_tools()
                .enable_prompts()
                .build(),
        )
        .with_server_info(Implementation::new("fixture", "1"))
    }
}

/// Few calls at once, and short deadlines.
pub(super) fn tight() -> Limits {
    Limits {
        deadline: Duration::from_secs(20),
        grace: Duration::from_millis(200),
        concurrent: 3,
        result_bytes: 100_000,
    }
}

impl Fixture {
    pub(super) fn new(limits: Limits, metrics: Metrics) -> anyhow::Result<Self> {
        let tools = Arc::new(finish(Self::tool_router(), &EFFECTS)?);
        Ok(Self {
            tools,
            guard: CallGuard::new(limits, metrics),
            signs: Arc::default(),
        })
    }

    pub(super) fn with_guard(mut self, change: impl FnOnce(CallGuard) -> CallGuard) -> Self {
        self.guard = change(self.guard);
        self
    }

    pub(super) fn with_log(self, path: &Path, required: bool) -> anyhow::Result<Self> {
        let log = CallLog::open(path, required)?;
        Ok(self.with_guard(|guard| guard.with_log(log)))
    }
}

/// A client on the other end of a pipe.
pub(super) struct Client {
    reader: BufReader<ReadHalf<DuplexStream>>,
    pub(super) writer: WriteHalf<DuplexStream>,
    pub(super) ended: CancellationToken,
    pub(super) server: JoinHandle<Result<(), ServeError>>,
    modern: bool,
    next_id: i64,
}

impl Client {
    /// Connects without saying anything.
    pub(super) fn connect(fixture: &Fixture) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (far_reader, far_writer) = tokio::io::split(far);
        let (reader, writer) = tokio::io::split(near);
        let (ended, fixture) = (CancellationToken::new(), fixture.clone());
        let token = ended.clone();
        let server = tokio::spawn(async move {
            let principal = Principal::of_flag(Some("tester"));
            connection(
                fixture,
                far_reader,
                far_writer,
                principal,
                &Metrics::new(),
                &token,
            )
            .await
        });
        Self {
            reader: BufReader::new(reader),
            writer,
            ended,
            server,
            modern: false,
            next_id: 0,
        }
    }

    /// Begins a session of the era before 2026-07-28.
    pub(super) async fn legacy(fixture: &Fixture) -> anyhow::Result<Self> {
        let mut client = Self::connect(fixture);
        let parameters = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}
        });
        let answer = client.request("initialize", parameters).await?;
        anyhow::ensure!(
            answer["result"]["protocolVersion"] == "2025-11-25",
            "{answer}"
        );
        client
            .send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await?;
        Ok(client)
    }

    /// Begins as clients of 2026-07-28 do.
    pub(super) async fn modern(fixture: &Fixture) -> anyhow::Result<Self> {
        let mut client = Self::connect(fixture);
        client.modern = true;
        let answer = client.request("server/discover", json!({})).await?;
        anyhow::ensure!(
            answer["result"]["supportedVersions"]
                .to_string()
                .contains("2026-07-28"),
            "{answer}"
        );
        Ok(client)
    }

    pub(super) async fn both_eras(fixture: &Fixture) -> anyhow::Result<[Self; 2]> {
        Ok([Self::legacy(fixture).await?, Self::modern(fixture).await?])
    }

    /// Sends a request and gives its id.
    pub(super) async fn start(
        &mut self,
        method: &str,
        mut parameters: Value,
    ) -> anyhow::Result<i64> {
        self.next_id += 1;
        if self.modern {
            parameters["_meta"] = modern_meta();
        }
        let request =
            json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": parameters});
        self.send(&request).await?;
        Ok(self.next_id)
    }

    pub(super) async fn request(
        &mut self,
        method: &str,
        parameters: Value,
    ) -> anyhow::Result<Value> {
        let id = self.start(method, parameters).await?;
        let answer = self.receive().await?;
        anyhow::ensure!(answer["id"] == id, "{answer}");
        Ok(answer)
    }

    pub(super) async fn start_call(&mut self, tool: &str, arguments: Value) -> anyhow::Result<i64> {
        self.start("tools/call", json!({"name": tool, "arguments": arguments}))
            .await
    }

    /// The result of a tool call.
    pub(super) async fn call(&mut self, tool: &str, arguments: Value) -> anyhow::Result<Value> {
        let answer = self
            .request("tools/call", json!({"name": tool, "arguments": arguments}))
            .await?;
        anyhow::ensure!(answer.get("result").is_some(), "{answer}");
        Ok(answer["result"].clone())
    }

    pub(super) async fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        self.send_bytes(format!("{message}\n").as_bytes()).await
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.writer.write_all(bytes).await?)
    }

    pub(super) async fn receive(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        soon(self.reader.read_line(&mut line)).await??;
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line:?}"))
    }
}

pub(super) fn modern_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}
    })
}

/// The error inside an `isError` result, checked for its form.
pub(super) fn error_of(result: &Value) -> anyhow::Result<ToolError> {
    anyhow::ensure!(result["isError"] == true, "{result}");
    anyhow::ensure!(result.get("structuredContent").is_none(), "{result}");
    Ok(serde_json::from_str(
        result["content"][0]["text"].as_str().unwrap_or_default(),
    )?)
}

/// What must happen soon, or the test fails.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .context("nothing happened for 10 s")
}
