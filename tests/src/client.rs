//! A plain MCP client: JSON-RPC over lines or Streamable HTTP, in both protocol eras, with nothing between a test and the wire.

mod http;
mod lines;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

pub use self::http::{HttpEndpoint, send as send_http};

/// How long a request may stay unanswered before the client gives up.
const DEFAULT_PATIENCE: Duration = Duration::from_mins(1);

/// Which family of protocol revisions a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// 2025-11-25: `initialize`, and a session on HTTP.
    Legacy,
    /// 2026-07-28: `server/discover`, every request stands alone.
    Modern,
}

impl Era {
    /// Both eras, for tests that hold in each.
    pub const ALL: [Self; 2] = [Self::Legacy, Self::Modern];

    /// The revision as it is written on the wire.
    pub fn revision(self) -> &'static str {
        match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        }
    }
}

/// A JSON-RPC error, as the server sent it.
#[derive(Clone, Debug)]
pub struct RpcError {
    /// The JSON-RPC code, such as -32602.
    pub code: i64,
    /// The message beside it.
    pub message: String,
    /// Whatever the server put into `data`; `Null` where it put nothing.
    pub data: Value,
}

impl fmt::Display for RpcError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (JSON-RPC {})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}

/// What a tool answered.
#[derive(Clone, Debug)]
pub struct ToolResult {
    /// The call failed; `text` holds `{code, message, hint}`.
    pub is_error: bool,
    /// The structured content of a success.
    pub structured: Option<Value>,
    /// All text blocks, joined by line feeds.
    pub text: String,
}

impl ToolResult {
    fn read(result: &Value) -> Self {
        let blocks = result["content"].as_array().map_or(&[][..], Vec::as_slice);
        let texts: Vec<&str> = blocks
            .iter()
            .filter_map(|block| block["text"].as_str())
            .collect();
        Self {
            is_error: result["isError"].as_bool().unwrap_or(false),
            structured: result
                .get("structuredContent")
                .filter(|value| !value.is_null())
                .cloned(),
            text: texts.join("\n"),
        }
    }

    /// The structured content; an error that quotes the answer where the call failed or had none.
    pub fn success(self) -> anyhow::Result<Value> {
        if self.is_error {
            bail!("the tool failed: {}", self.text);
        }
        self.structured
            .with_context(|| format!("no structured content beside `{}`", self.text))
    }

    /// The stable code of a failed call; an error where the call succeeded or its text is not `{code, message, hint}`.
    pub fn error_code(&self) -> anyhow::Result<String> {
        if !self.is_error {
            bail!("the tool succeeded: {}", self.text);
        }
        let error: Value = serde_json::from_str(&self.text)
            .with_context(|| format!("the error is no JSON document: {}", self.text))?;
        let code = error["code"].as_str();
        code.map(str::to_owned)
            .with_context(|| format!("no `code` in {error}"))
    }
}

/// What the server sent without being asked: notifications, and answers nobody waited for.
#[derive(Clone, Default)]
struct Inbox {
    messages: Arc<Mutex<Vec<Value>>>,
    arrived: Arc<Notify>,
}

impl Inbox {
    fn push(&self, message: Value) {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(message);
        self.arrived.notify_waiters();
    }

    fn take(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, kept) = std::mem::take(&mut *messages).into_iter().partition(wanted);
        *messages = kept;
        taken
    }
}

enum Transport {
    Lines(lines::Lines),
    Http(http::Http),
}

/// A connected client.
pub struct Client {
    era: Era,
    transport: Transport,
    inbox: Inbox,
    next_id: AtomicU64,
    patience: Duration,
    server: Value,
}

impl Client {
    /// Connects over a pair of streams that carry one JSON message a line: a child's pipes, or a socket.
    ///
    /// # Errors
    /// The server does not answer the handshake of this era.
    pub async fn over(
        era: Era,
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> anyhow::Result<Self> {
        let inbox = Inbox::default();
        let lines = lines::Lines::new(reader, writer, inbox.clone());
        Self::connect(era, Transport::Lines(lines), inbox).await
    }

    /// Connects over Streamable HTTP.
    ///
    /// # Errors
    /// The endpoint cannot be reached, or does not answer the handshake of this era.
    pub async fn http(era: Era, endpoint: HttpEndpoint) -> anyhow::Result<Self> {
        let inbox = Inbox::default();
        let http = http::Http::new(endpoint, era, inbox.clone());
        Self::connect(era, Transport::Http(http), inbox).await
    }

    async fn connect(era: Era, transport: Transport, inbox: Inbox) -> anyhow::Result<Self> {
        let mut client = Self {
            era,
            transport,
            inbox,
            next_id: AtomicU64::new(1),
            patience: DEFAULT_PATIENCE,
            server: Value::Null,
        };
        client.server = match era {
            Era::Legacy => {
                let parameters = json!({
                    "protocolVersion": era.revision(), "capabilities": {}, "clientInfo": client_info()
                });
                let answer = client.request("initialize", parameters).await?;
                client
                    .notify("notifications/initialized", json!({}))
                    .await?;
                answer
            }
            Era::Modern => client.request("server/discover", json!({})).await?,
        };
        Ok(client)
    }

    /// What the server said of itself: the result of `initialize` or of `server/discover`.
    pub fn server(&self) -> &Value {
        &self.server
    }

    /// Waits this long for each answer from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends a request and waits for its result.
    ///
    /// # Errors
    /// An [`RpcError`] where the server answered with one; else the connection broke or patience ran out.
    pub async fn request(&self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let message = json!({
            "jsonrpc": "2.0", "id": id, "method": method, "params": self.complete(parameters)
        });
        let exchange = async {
            match &self.transport {
                Transport::Lines(lines) => lines.exchange(id, &message).await,
                Transport::Http(http) => http.exchange(id, &message).await,
            }
        };
        let answer = tokio::time::timeout(self.patience, exchange)
            .await
            .map_err(|_| anyhow!("no answer to `{method}` within {:?}", self.patience))?
            .with_context(|| format!("`{method}` got no answer"))?;
        if let Some(error) = answer.get("error") {
            return Err(anyhow::Error::new(RpcError {
                code: error["code"].as_i64().unwrap_or_default(),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
                data: error["data"].clone(),
            }));
        }
        Ok(answer["result"].clone())
    }

    /// Sends a notification.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn notify(&self, method: &str, parameters: Value) -> anyhow::Result<()> {
        let message =
            json!({ "jsonrpc": "2.0", "method": method, "params": self.complete(parameters) });
        match &self.transport {
            Transport::Lines(lines) => lines.send(&message.to_string()).await,
            Transport::Http(http) => http.notify(&message).await,
        }
    }

    /// Sends one line exactly as given; what comes back is found by [`Client::take_messages`].
    ///
    /// # Errors
    /// The connection broke, or it is HTTP, for which there is [`send_http`].
    pub async fn send_line(&self, line: &str) -> anyhow::Result<()> {
        match &self.transport {
            Transport::Lines(lines) => lines.send(line).await,
            Transport::Http(_) => bail!("HTTP carries requests, not lines"),
        }
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// As [`Client::request`]; a tool that fails is a [`ToolResult`], not an error.
    pub async fn call(&self, tool: &str, arguments: Value) -> anyhow::Result<ToolResult> {
        let result = self
            .request(
                "tools/call",
                json!({ "name": tool, "arguments": arguments }),
            )
            .await?;
        Ok(ToolResult::read(&result))
    }

    /// Calls a tool and collects the progress it reports until it answers.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_with_progress(
        &self,
        tool: &str,
        arguments: Value,
    ) -> anyhow::Result<(ToolResult, Vec<Value>)> {
        let token = format!("progress-{}", self.next_id.fetch_add(1, Ordering::Relaxed));
        let parameters =
            json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": token } });
        let result = self.request("tools/call", parameters).await?;
        let progress = self.inbox.take(|message| {
            message["method"] == "notifications/progress"
                && message["params"]["progressToken"] == token.as_str()
        });
        Ok((ToolResult::read(&result), progress))
    }

    /// Every tool the server lists, all pages.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn list_tools(&self) -> anyhow::Result<Vec<Value>> {
        self.list("tools/list", "tools").await
    }

    /// Everything under `key` of a paged list such as `prompts/list`, all pages.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn list(&self, method: &str, key: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut parameters = json!({});
        loop {
            let page = self.request(method, parameters).await?;
            let listed = page[key]
                .as_array()
                .with_context(|| format!("`{method}` has no `{key}`"))?;
            items.extend(listed.iter().cloned());
            match page["nextCursor"].as_str() {
                Some(cursor) => parameters = json!({ "cursor": cursor }),
                None => return Ok(items),
            }
        }
    }

    /// Takes what the server has sent unasked so far, oldest first.
    pub fn take_messages(&self) -> Vec<Value> {
        self.inbox.take(|_| true)
    }

    /// Waits for an unasked message that `wanted` accepts, and takes it.
    ///
    /// # Errors
    /// None came before patience ran out.
    pub async fn next_message(&self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let search = async {
            loop {
                let arrived = self.inbox.arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                let mut found = self.inbox.take(&wanted).into_iter();
                if let Some(first) = found.next() {
                    found.for_each(|message| self.inbox.push(message));
                    return first;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(self.patience, search)
            .await
            .map_err(|_| anyhow!("no such message within {:?}", self.patience))
    }

    /// Adds what each request of the modern era must carry.
    fn complete(&self, parameters: Value) -> Value {
        if self.era == Era::Legacy {
            return parameters;
        }
        let mut parameters = match parameters {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        let meta = parameters.entry("_meta").or_insert_with(|| json!({}));
        meta["io.modelcontextprotocol/protocolVersion"] = json!(self.era.revision());
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        meta["io.modelcontextprotocol/clientInfo"] = client_info();
        Value::Object(parameters)
    }
}

fn client_info() -> Value {
    json!({ "name": "spec-driven-ai-tests", "version": env!("CARGO_PKG_VERSION") })
}
