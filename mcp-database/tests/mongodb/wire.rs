//! A server in this process that speaks the wire protocol, answers what a test says, and keeps what it was asked.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use bson::{Document, doc};
use mcp_database::mongodb::Mongodb;
use mcp_database::source::Settings;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::support::{PATIENCE, settings};

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2004;
const OP_MSG: i32 = 2013;

/// How a command is answered.
pub(crate) enum Reply {
    /// With this; `ok: 1` is added.
    With(Document),
    /// With a failure.
    Failure(i32, &'static str, &'static str),
    /// Never.
    Silence,
    /// As every server does.
    Usual,
}

type Answering = dyn Fn(&str, &Document) -> Reply + Send + Sync;

/// The server; it ends with the test's runtime.
pub(crate) struct Recorded {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Document>>>,
    news: watch::Receiver<usize>,
}

impl Recorded {
    /// Answers commands by their names.
    pub(crate) async fn start(
        answering: impl Fn(&str, &Document) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_within(None, answering).await
    }

    /// The same, behind TLS.
    pub(crate) async fn start_within(
        tls: Option<TlsAcceptor>,
        answering: impl Fn(&str, &Document) -> Reply + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (tell, news) = watch::channel(0);
        let answering: Arc<Answering> = Arc::new(answering);
        let keeping = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answering, keeping, tell) =
                    (Arc::clone(&answering), Arc::clone(&keeping), tell.clone());
                let tls = tls.clone();
                tokio::spawn(async move {
                    let served = match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &answering, &keeping, &tell).await,
                            Err(error) => Err(error.into()),
                        },
                        None => serve(stream, &answering, &keeping, &tell).await,
                    };
                    drop(served);
                });
            }
        });
        Ok(Self { port, asked, news })
    }

    pub(crate) fn settings(&self) -> Settings {
        settings(&format!("mongodb://127.0.0.1:{}/", self.port))
    }

    pub(crate) fn source(&self) -> Result<Mongodb> {
        Ok(Mongodb::open(&self.settings())?)
    }

    /// The commands of a name so far.
    pub(crate) fn asked(&self, name: &str) -> Vec<Document> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked
            .iter()
            .filter(|command| command.keys().next().is_some_and(|key| key == name))
            .cloned()
            .collect()
    }

    /// Waits until a command of this name was asked so many times.
    pub(crate) async fn wait_for(&self, name: &str, times: usize) -> Result<Vec<Document>> {
        let mut news = self.news.clone();
        let waiting = async {
            while self.asked(name).len() < times {
                news.changed().await?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .with_context(|| format!("no {name}"))??;
        Ok(self.asked(name))
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answering: &Arc<Answering>,
    asked: &Mutex<Vec<Document>>,
    tell: &watch::Sender<usize>,
) -> Result<()> {
    loop {
        let length = usize::try_from(stream.read_i32_le().await?)?;
        let request = stream.read_i32_le().await?;
        stream.read_i32_le().await?;
        let kind = stream.read_i32_le().await?;
        let mut body = vec![0; length.checked_sub(16).context("short")?];
        stream.read_exact(&mut body).await?;
        let command = match kind {
            OP_MSG => message(&body)?,
            OP_QUERY => query(&body)?,
            other => anyhow::bail!("opcode {other}"),
        };
        let name = command.keys().next().cloned().unwrap_or_default();
        asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(command.clone());
        tell.send_modify(|count| *count += 1);
        let mut reply = match answering(&name, &command) {
            Reply::With(reply) => reply,
            Reply::Failure(code, name, message) => {
                doc! { "ok": 0.0, "code": code, "codeName": name, "errmsg": message }
            }
            Reply::Silence => {
                // Until the other side has enough.
                stream.read_to_end(&mut Vec::new()).await?;
                return Ok(());
            }
            Reply::Usual => usual(&name),
        };
        if !reply.contains_key("ok") {
            reply.insert("ok", 1.0);
        }
        let mut answer = Vec::new();
        if kind == OP_MSG {
            answer.extend(0_i32.to_le_bytes());
            answer.push(0);
        } else {
            answer.extend([0; 4 + 8 + 4]);
            answer.extend(1_i32.to_le_bytes());
        }
        answer.extend(reply.to_vec()?);
        let opcode = if kind == OP_MSG { OP_MSG } else { OP_REPLY };
        stream
            .write_i32_le(i32::try_from(answer.len())? + 16)
            .await?;
        stream.write_i32_le(0).await?;
        stream.write_i32_le(request).await?;
        stream.write_i32_le(opcode).await?;
        stream.write_all(&answer).await?;
    }
}

fn message(body: &[u8]) -> Result<Document> {
    let sections = body.get(4..).context("no flags")?;
    let (0, document) = sections
        .split_first()
        .context("no section")
        .map(|(kind, rest)| (*kind, rest))?
    else {
        anyhow::bail!("the first section is no document");
    };
    let length = length_of(document)?;
    Ok(Document::from_reader(
        document.get(..length).context("short")?,
    )?)
}

fn query(body: &[u8]) -> Result<Document> {
    let name = body.get(4..).context("no flags")?;
    let end = name.iter().position(|byte| *byte == 0).context("no name")?;
    let document = name.get(end + 1 + 8..).context("no document")?;
    let length = length_of(document)?;
    Ok(Document::from_reader(
        document.get(..length).context("short")?,
    )?)
}

fn length_of(document: &[u8]) -> Result<usize> {
    let length = document.first_chunk::<4>().context("no length")?;
    Ok(usize::try_from(i32::from_le_bytes(*length))?)
}

/// What a server by itself says of itself.
pub(crate) fn hello() -> Document {
    doc! {
        "helloOk": true,
        "ismaster": true,
        "isWritablePrimary": true,
        "maxBsonObjectSize": 16_777_216,
        "maxMessageSizeBytes": 48_000_000,
        "maxWriteBatchSize": 100_000,
        "logicalSessionTimeoutMinutes": 30,
        "minWireVersion": 0,
        "maxWireVersion": 25,
        "readOnly": false,
    }
}

fn usual(name: &str) -> Document {
    match name {
        "hello" | "isMaster" | "ismaster" => hello(),
        "buildInfo" => doc! { "version": "8.0.4" },
        "killCursors" | "killSessions" | "endSessions" | "ping" => doc! {},
        other => {
            doc! { "ok": 0.0, "code": 59, "codeName": "CommandNotFound", "errmsg": format!("no such command: '{other}'") }
        }
    }
}

/// A first batch of documents, and a cursor if there are more.
pub(crate) fn batch(documents: &[Document], cursor: i64) -> Reply {
    Reply::With(doc! { "cursor": { "id": cursor, "ns": "d.c", "firstBatch": documents.to_vec() } })
}
