//! One JSON message a line, over any pair of streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Inbox;

/// Who waits for which answer; `None` once the server has closed its side.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>>;

pub(super) struct Lines {
    writer: tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
    waiting: Waiting,
    reading: JoinHandle<()>,
}

impl Lines {
    pub(super) fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        inbox: Inbox,
    ) -> Self {
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let reading = tokio::spawn(distribute(reader, waiting.clone(), inbox));
        Self {
            writer: tokio::sync::Mutex::new(Box::new(writer)),
            waiting,
            reading,
        }
    }

    pub(super) async fn exchange(&self, id: u64, message: &Value) -> anyhow::Result<Value> {
        let (sender, receiver) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .context("the server has closed the connection")?
            .insert(id, sender);
        self.send(&message.to_string()).await?;
        receiver
            .await
            .context("the server closed the connection before it answered")
    }

    pub(super) async fn send(&self, line: &str) -> anyhow::Result<()> {
        let mut writer = self.writer.lock().await;
        writer.write_all(format!("{line}\n").as_bytes()).await?;
        writer.flush().await?;
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn distribute(reader: impl AsyncRead + Send + Unpin, waiting: Waiting, inbox: Inbox) {
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let message = serde_json::from_str(&line).unwrap_or_else(
            |error| serde_json::json!({ "not_json": line, "why": error.to_string() }),
        );
        let recipient = message
            .get("id")
            .filter(|_| message.get("method").is_none())
            .and_then(Value::as_u64)
            .and_then(|id| {
                waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .as_mut()?
                    .remove(&id)
            });
        match recipient {
            // The request may have been given up meanwhile; its answer is then of no interest.
            Some(recipient) => drop(recipient.send(message)),
            None => inbox.push(message),
        }
    }
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
}
