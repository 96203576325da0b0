//! The `stdio` command towards a registry on another host: each line of stdin is posted to its Streamable HTTP endpoint,
//! and what comes back, JSON or an event stream, becomes lines on stdout. It knows no MCP beyond what the headers need.

mod events;
mod headers;
mod http_client;

use std::{
    collections::HashMap,
    io::{self, BufRead, Write},
    rc::Rc,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, LocalSet},
};
use zeroize::Zeroizing;

use events::Events;
use headers::Session;
use http_client::Client;

/// No line of either side may be longer; what the servers accept is 4 MiB.
const MOST_LINE_BYTES: usize = 16 * 1024 * 1024;
/// Lines read ahead of what is being sent.
const LINES_AHEAD: usize = 64;
/// Saying goodbye must not keep a client waiting.
const GOODBYE_TIME: Duration = Duration::from_millis(500);
/// JSON-RPC's own code for what went wrong between client and server.
const INTERNAL_ERROR: i64 = -32603;

/// Passes messages until stdin ends.
///
/// # Errors
/// A URL that cannot be used, or a stdout that takes nothing more.
pub fn run(url: &str, token: Option<Zeroizing<String>>) -> anyhow::Result<()> {
    let client = Client::new(url, token)?;
    let (lines, from_stdin) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || read_lines(io::stdin().lock(), &lines));
    shared::serve::block_on(pass(client, from_stdin, Box::new(io::stdout())))?
}

async fn pass(
    client: Client,
    mut from_client: mpsc::Receiver<Vec<u8>>,
    to_client: Box<dyn Write>,
) -> anyhow::Result<()> {
    let bridge = Rc::new(Bridge {
        client,
        session: Mutex::default(),
        to_client: Mutex::new(to_client),
        open: Mutex::default(),
    });
    let local = LocalSet::new();
    let passing = async {
        while let Some(line) = from_client.recv().await {
            Rc::clone(&bridge).message(line).await?;
        }
        anyhow::Ok(())
    };
    let result = local.run_until(passing).await;
    // What is still being answered has nobody to read it.
    drop(local);
    let goodbye = bridge.session().goodbye();
    if let Some(headers) = goodbye {
        let _ = tokio::time::timeout(
            GOODBYE_TIME,
            bridge.client.send(Method::DELETE, headers, Vec::new()),
        )
        .await;
    }
    result
}

/// Lines until stdin ends; one that is too long ends it too.
fn read_lines(mut stdin: impl BufRead, lines: &mpsc::Sender<Vec<u8>>) {
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(MOST_LINE_BYTES).unwrap_or(u64::MAX);
        match io::Read::take(&mut stdin, limit).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 && read < MOST_LINE_BYTES => {}
            _ => return,
        }
        if !line.trim_ascii().is_empty() && lines.blocking_send(line).is_err() {
            return;
        }
    }
}

/// One client's messages on their way to a registry and back.
struct Bridge {
    client: Client,
    session: Mutex<Session>,
    to_client: Mutex<Box<dyn Write>>,
    /// Requests that are being answered, by the text of their id.
    open: Mutex<HashMap<String, AbortHandle>>,
}

impl Bridge {
    fn session(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn message(self: Rc<Self>, line: Vec<u8>) -> anyhow::Result<()> {
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            let answer = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "the line is not JSON"}});
            return self.answer(&answer.to_string());
        };
        let method = message["method"].as_str().unwrap_or_default();
        let is_request = message.get("id").is_some() && !method.is_empty();
        if is_request && method != "initialize" {
            let id = message["id"].to_string();
            let (bridge, own) = (Rc::clone(&self), id.clone());
            let task = tokio::task::spawn_local(async move {
                if let Err(error) = bridge.exchange(&message, line).await {
                    tracing::warn!(%error, "an answer was lost");
                }
                bridge.open().remove(&own);
            });
            self.open().insert(id, task.abort_handle());
            return Ok(());
        }
        if method == "notifications/cancelled" && self.session().is_modern() {
            // There a request is cancelled by hanging up on its answer.
            let id = message["params"]["requestId"].to_string();
            if let Some(request) = self.open().remove(&id) {
                request.abort();
            }
            return Ok(());
        }
        // In turn: what follows `initialize` or a notification may depend on it.
        self.exchange(&message, line).await?;
        if method == "notifications/initialized" {
            tokio::task::spawn_local(self.listen());
        }
        Ok(())
    }

    /// Sends a message and passes on what comes back; a request is answered in any case.
    async fn exchange(&self, message: &Value, line: Vec<u8>) -> anyhow::Result<()> {
        let headers = self.session().headers(message);
        let result = match self.client.send(Method::POST, headers, line).await {
            Ok(response) => self.response(message, response).await,
            Err(error) => Err(error),
        };
        match (
            result,
            message
                .get("id")
                .filter(|_| message.get("method").is_some()),
        ) {
            (Ok(()), _) => Ok(()),
            (Err(error), Some(id)) => {
                let error = json!({"code": INTERNAL_ERROR, "message": format!("{error:#}")});
                self.answer(&json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string())
            }
            (Err(error), None) => {
                tracing::warn!(%error, "a notification did not arrive");
                Ok(())
            }
        }
    }

    async fn response(
        &self,
        message: &Value,
        response: http::Response<Incoming>,
    ) -> anyhow::Result<()> {
        let status = response.status();
        let is_initialize = message["method"] == "initialize";
        if is_initialize {
            self.session().opened(response.headers());
        }
        if status.is_success() && headers::is_event_stream(response.headers()) {
            return self.event_stream(response.into_body(), is_initialize).await;
        }
        let body = http_body_util::Limited::new(response.into_body(), MOST_LINE_BYTES);
        let body = body
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("the registry's answer broke off: {error}"))?;
        let body = body.to_bytes();
        let answer = serde_json::from_slice::<Value>(&body)
            .ok()
            .filter(|answer| answer.get("jsonrpc").is_some());
        match answer {
            Some(answer) => self.pass_on(&answer, is_initialize),
            None if status.is_success()
                && message
                    .get("id")
                    .is_none_or(|_| message.get("method").is_none()) =>
            {
                Ok(())
            }
            None => Err(anyhow::anyhow!(
                "{}",
                refusal(status, self.client.address())
            )),
        }
    }

    async fn event_stream(&self, mut body: Incoming, is_initialize: bool) -> anyhow::Result<()> {
        let mut events = Events::new(MOST_LINE_BYTES);
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the registry's answer broke off")?;
            for data in events.take(frame.data_ref().map_or(&[], |bytes| bytes))? {
                if let Ok(message) = serde_json::from_slice::<Value>(&data) {
                    self.pass_on(&message, is_initialize)?;
                }
            }
        }
        Ok(())
    }

    /// What a session-bound server says of its own accord; one that does not offer this is fine too.
    async fn listen(self: Rc<Self>) {
        let Some(headers) = self.session().listen() else {
            return;
        };
        match self.client.send(Method::GET, headers, Vec::new()).await {
            Ok(response)
                if response.status().is_success()
                    && headers::is_event_stream(response.headers()) =>
            {
                if let Err(error) = self.event_stream(response.into_body(), false).await {
                    tracing::warn!(%error, "the registry's own messages ended");
                }
            }
            Ok(response) => {
                tracing::debug!(status = %response.status(), "the registry sends nothing on its own");
            }
            Err(error) => {
                tracing::warn!(%error, "failed to listen for the registry's own messages");
            }
        }
    }

    fn pass_on(&self, message: &Value, is_initialize: bool) -> anyhow::Result<()> {
        if is_initialize && let Some(version) = message["result"]["protocolVersion"].as_str() {
            self.session().negotiated(version);
        }
        self.answer(&message.to_string())
    }

    fn answer(&self, line: &str) -> anyhow::Result<()> {
        let mut to_client = self
            .to_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        writeln!(to_client, "{line}")
            .and_then(|()| to_client.flush())
            .context("the client reads no more")
    }
}

fn refusal(status: StatusCode, address: &str) -> String {
    let mend = match status {
        StatusCode::UNAUTHORIZED => {
            "; give --token-file a file made by `token add --kind agent` there"
        }
        StatusCode::FORBIDDEN => "; start it with --allowed-host for the name in the URL",
        StatusCode::NOT_FOUND => "; give the URL of its MCP endpoint, or start the session again",
        _ => "",
    };
    format!("the registry at {address} answered {status}{mend}")
}

#[cfg(test)]
mod tests;
