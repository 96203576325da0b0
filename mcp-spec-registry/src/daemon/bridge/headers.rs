//! The headers that Streamable HTTP wants beside each message, in both eras.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// Where each request of the modern era says which revision it speaks.
const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";

/// What was agreed on so far.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Of the modern era, from the newest request; there every message says it.
    modern: Option<String>,
    /// From the answer to `initialize`.
    negotiated: Option<String>,
    id: Option<HeaderValue>,
}

impl Session {
    /// Headers of a message that is posted.
    pub(super) fn headers(&mut self, message: &Value) -> HeaderMap {
        let params = &message["params"];
        let method = message["method"].as_str().unwrap_or_default();
        match params["_meta"][VERSION_KEY].as_str() {
            Some(version) => self.modern = Some(version.to_owned()),
            None if method == "initialize" => *self = Self::default(),
            None => {}
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        if let Some(version) = self.modern.clone() {
            insert(&mut headers, PROTOCOL_VERSION, &version);
            insert(&mut headers, METHOD, method);
            let name = match method {
                "tools/call" | "prompts/get" => &params["name"],
                "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
                    &params["uri"]
                }
                "tasks/get" | "tasks/update" | "tasks/cancel" => &params["taskId"],
                _ => &Value::Null,
            };
            if let Some(name) = name.as_str() {
                insert(&mut headers, NAME, name);
            }
        } else {
            self.of_session(&mut headers);
        }
        headers
    }

    /// Headers of the GET on which a server says things of its own accord; only sessions have that.
    pub(super) fn listen(&self) -> Option<HeaderMap> {
        self.id.as_ref()?;
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("text/event-stream"),
        );
        self.of_session(&mut headers);
        Some(headers)
    }

    /// Headers of the DELETE that ends a session, if there is one.
    pub(super) fn goodbye(&self) -> Option<HeaderMap> {
        self.id.as_ref()?;
        let mut headers = HeaderMap::new();
        self.of_session(&mut headers);
        Some(headers)
    }

    /// The client speaks 2026-07-28 or later: no sessions, and hanging up cancels.
    pub(super) fn is_modern(&self) -> bool {
        self.modern.is_some()
    }

    /// The answer to `initialize` names the session.
    pub(super) fn opened(&mut self, headers: &HeaderMap) {
        self.id = headers.get(SESSION).cloned();
    }

    /// The answer to `initialize` names the revision.
    pub(super) fn negotiated(&mut self, version: &str) {
        self.negotiated = Some(version.to_owned());
    }

    fn of_session(&self, headers: &mut HeaderMap) {
        if let Some(version) = &self.negotiated {
            insert(headers, PROTOCOL_VERSION, version);
        }
        if let Some(id) = &self.id {
            headers.insert(SESSION, id.clone());
        }
    }
}

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    kind.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("text/event-stream")
}

/// What is not plain ASCII travels as base64, marked as such.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let is_plain = value.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
        && value.trim_ascii() == value
        && !value.starts_with("=?base64?");
    let encoded = if is_plain {
        value.to_owned()
    } else {
        format!("=?base64?{}?=", BASE64.encode(value))
    };
    if let Ok(value) = HeaderValue::from_str(&encoded) {
        headers.insert(name, value);
    }
}
