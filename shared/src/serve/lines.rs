//! MCP's stdio framing, one message a line, over any stream. What is no message is answered, and the next line is read.

use std::{future::Future, io, sync::Arc};

use rmcp::{
    RoleServer,
    model::{
        CallToolRequest, ClientJsonRpcMessage, ClientRequest, ErrorCode, ErrorData, GetExtensions,
        GetMeta, JsonRpcRequest, ProtocolVersion, RequestId, ServerJsonRpcMessage,
    },
    transport::Transport,
};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::Mutex,
    task::JoinHandle,
};

use super::MAX_REQUEST_BYTES;
use crate::principal::Caller;

/// Allowed by RFC 8259 to be ignored before a JSON text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

pub(super) struct LineTransport<R, W> {
    reader: BufReader<R>,
    /// The line so far; kept here since `receive` may be dropped and called again in the middle of one.
    line: Vec<u8>,
    /// The line is too long, answered already, and skipped up to its end.
    skipping: bool,
    writer: Arc<Mutex<Option<W>>>,
    /// An answer to what was no message, on its way; the next line is read after it.
    answering: Option<JoinHandle<()>>,
    /// Whether a request has begun a session. Before that the SDK takes anything else for the end.
    begun: bool,
    caller: Caller,
}

enum Line {
    Whole,
    TooLong,
    End,
}

impl<R, W> LineTransport<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    pub(super) fn new(reader: R, writer: W, caller: Caller) -> Self {
        Self {
            reader: BufReader::with_capacity(64 * 1024, reader),
            line: Vec::new(),
            skipping: false,
            writer: Arc::new(Mutex::new(Some(writer))),
            answering: None,
            begun: false,
            caller,
        }
    }

    /// Reads on to the end of a line. May be dropped at its only await, where nothing has been taken yet.
    async fn read_line(&mut self) -> Line {
        loop {
            let available = match self.reader.fill_buf().await {
                Ok([]) => return Line::End,
                Ok(available) => available,
                Err(error) => {
                    tracing::warn!(%error, "reading from the client failed");
                    return Line::End;
                }
            };
            let newline = available.iter().position(|byte| *byte == b'\n');
            let taken = newline.map_or(available.len(), |at| at + 1);
            let too_long = !self.skipping && self.line.len() + taken > MAX_REQUEST_BYTES;
            if too_long {
                self.line = Vec::new();
            } else if !self.skipping {
                self.line.extend_from_slice(&available[..taken]);
            }
            self.reader.consume(taken);
            let ended_skipping = self.skipping && newline.is_some();
            self.skipping = (self.skipping || too_long) && newline.is_none();
            if too_long {
                return Line::TooLong;
            }
            if newline.is_some() && !ended_skipping {
                return Line::Whole;
            }
        }
    }

    /// Answers what was no message. In a task, so that nobody stops it in the middle of a line.
    fn answer(&mut self, id: Option<RequestId>, error: ErrorData) {
        tracing::debug!(code = error.code.0, "a line was no message");
        let answer = send(self.writer.clone(), ServerJsonRpcMessage::error(error, id));
        self.answering = Some(tokio::spawn(async move {
            if let Err(error) = answer.await {
                tracing::debug!(%error, "an answer did not reach the client");
            }
        }));
    }

    /// Whether a message is handed on, marked with who sent it.
    fn accept(&mut self, message: &mut ClientJsonRpcMessage) -> bool {
        match message {
            ClientJsonRpcMessage::Request(request) => {
                self.begun = self.begun || begins(&request.request);
                request.request.extensions_mut().insert(self.caller.clone());
                true
            }
            ClientJsonRpcMessage::Notification(notification) => {
                notification
                    .notification
                    .extensions_mut()
                    .insert(self.caller.clone());
                self.begun
            }
            _ => self.begun,
        }
    }
}

/// Whether a request settles which era the session is of.
fn begins(request: &ClientRequest) -> bool {
    match request {
        ClientRequest::InitializeRequest(_) => true,
        ClientRequest::PingRequest(_) | ClientRequest::DiscoverRequest(_) => false,
        other => other
            .get_meta()
            .missing_required_keys(&ProtocolVersion::V_2026_07_28)
            .is_empty(),
    }
}

impl<R, W> Transport<RoleServer> for LineTransport<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        send(self.writer.clone(), message)
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            if let Some(answering) = &mut self.answering {
                let _ = answering.await;
                self.answering = None;
            }
            match self.read_line().await {
                Line::End => {
                    self.caller.ended.cancel();
                    return None;
                }
                Line::TooLong => {
                    let message = format!(
                        "Invalid Request: the line is longer than {MAX_REQUEST_BYTES} bytes"
                    );
                    self.answer(None, ErrorData::invalid_request(message, None));
                }
                Line::Whole => {
                    let parsed = parse(&self.line);
                    self.line.clear();
                    self.line.shrink_to(64 * 1024);
                    match parsed {
                        Parsed::Message(mut message) => {
                            if self.accept(&mut message) {
                                return Some(*message);
                            }
                        }
                        Parsed::Nothing => {}
                        Parsed::Wrong(id, error) => self.answer(id, error),
                    }
                }
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        let writer = self.writer.lock().await.take();
        match writer {
            Some(mut writer) => writer.shutdown().await,
            None => Ok(()),
        }
    }
}

/// Writes one message and its newline in one piece.
async fn send<W: AsyncWrite + Unpin>(
    writer: Arc<Mutex<Option<W>>>,
    message: ServerJsonRpcMessage,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(&message)?;
    line.push(b'\n');
    let mut writer = writer.lock().await;
    let Some(writer) = writer.as_mut() else {
        return Err(io::Error::new(
            io::ErrorKind::NotConnected,
            "the connection is closed",
        ));
    };
    writer.write_all(&line).await?;
    writer.flush().await
}

enum Parsed {
    Message(Box<ClientJsonRpcMessage>),
    /// A blank line, or a notification that nobody knows.
    Nothing,
    Wrong(Option<RequestId>, ErrorData),
}

/// What tells a call of a tool from all other messages.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    method: &'a str,
    #[serde(default, deserialize_with = "is_there")]
    result: bool,
    #[serde(default, deserialize_with = "is_there")]
    error: bool,
}

/// The id of a message whose rest no value can hold, such as half a surrogate, `1e400`, or a list in a thousand lists.
#[derive(Deserialize)]
struct Identified {
    id: RequestId,
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// A call of a tool, read as what it is: the SDK tries one kind of message after the other, which takes several times as long. What is
/// none, or a wrong one, is left to it.
fn tool_call(line: &[u8]) -> Option<ClientJsonRpcMessage> {
    let shape: Shape<'_> = serde_json::from_slice(line).ok()?;
    if shape.method != "tools/call" || shape.result || shape.error {
        return None;
    }
    let call: JsonRpcRequest<CallToolRequest> = serde_json::from_slice(line).ok()?;
    Some(ClientJsonRpcMessage::Request(JsonRpcRequest::new(
        call.id,
        call.request.into(),
    )))
}

fn parse(line: &[u8]) -> Parsed {
    let line = line
        .strip_prefix(BYTE_ORDER_MARK)
        .unwrap_or(line)
        .trim_ascii();
    if line.is_empty() {
        return Parsed::Nothing;
    }
    if let Some(call) = tool_call(line) {
        return Parsed::Message(Box::new(call));
    }
    if let Ok(message) = serde_json::from_slice(line) {
        return Parsed::Message(Box::new(message));
    }
    match serde_json::from_slice::<Value>(line) {
        Err(error) => {
            let message = format!("Parse error: the line is not JSON: {error}");
            let id = serde_json::from_slice::<Identified>(line).ok();
            Parsed::Wrong(
                id.map(|message| message.id),
                ErrorData::new(ErrorCode::PARSE_ERROR, message, None),
            )
        }
        Ok(Value::Array(_)) => Parsed::Wrong(
            None,
            ErrorData::invalid_request(
                "Invalid Request: batches are not part of MCP; send one message a line",
                None,
            ),
        ),
        Ok(value)
            if value.get("id").is_none() && value.get("method").is_some_and(Value::is_string) =>
        {
            Parsed::Nothing
        }
        Ok(value) => {
            let id = value
                .get("id")
                .and_then(|id| serde_json::from_value(id.clone()).ok());
            Parsed::Wrong(
                id,
                ErrorData::invalid_request(
                    "Invalid Request: not a JSON-RPC 2.0 message of MCP",
                    None,
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(message: &ClientJsonRpcMessage) -> anyhow::Result<Value> {
        let ClientJsonRpcMessage::Request(request) = message else {
            anyhow::bail!("no request: {message:?}");
        };
        Ok(json!([message, request.request.get_meta()]))
    }

    #[test]
    fn a_call_that_is_read_as_one_is_what_the_sdk_reads() -> anyhow::Result<()> {
        let calls = [
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "exec" } }),
            json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/call", "other": [1], "params": {
                "_meta": { "progressToken": 7, "x/y": { "z": null } },
                "name": "exec",
                "arguments": { "argv": ["true", "\u{1}ä"], "n": 1.5, "_meta": 1 },
                "task": { "ttl": 1000 },
                "inputResponses": {},
            }}),
        ];
        for call in calls {
            let line = serde_json::to_vec(&call)?;
            let short = tool_call(&line).ok_or_else(|| anyhow::anyhow!("not read: {call}"))?;
            let long: ClientJsonRpcMessage = serde_json::from_slice(&line)?;
            assert_eq!(told(&short)?, told(&long)?);
        }
        Ok(())
    }

    #[test]
    fn who_sends_what_no_value_holds_is_answered_all_the_same() {
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for value in [r#""\ud83d""#, "1e400", &deep] {
            for line in [
                format!(
                    r#"{{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{{"x":{value}}}}}"#
                ),
                format!(
                    r#"{{"params":{{"x":{value}}},"method":"tools/call","id":"a","jsonrpc":"2.0"}}"#
                ),
            ] {
                let parsed = parse(line.as_bytes());
                assert!(
                    matches!(&parsed, Parsed::Wrong(Some(RequestId::String(id)), _) if **id == *"a"),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_whole_call_is_left_to_the_sdk() {
        for line in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"exec"},"result":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"exec"},"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"tools/call","params":{"name":"exec"}}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"tools/call","params":{"name":"exec"}}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"exec"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
        ] {
            assert!(tool_call(line.as_bytes()).is_none(), "{line}");
        }
    }
}
