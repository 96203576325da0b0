//! A registry as small as the protocol allows, for tests of its client.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;

use super::super::*;
use crate::{
    effect::protocol::{Begin, End, Ended, Hello, Lifetime, SignedHead, Welcome, Work},
    serve::Json,
};

/// What the registry of a test does with the next begin or end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fate {
    /// Recorded, but the connection breaks before the answer.
    AnswerLost,
    /// The connection breaks before anything is recorded.
    RequestLost,
    Forbidden,
    Conflict,
    Head(u64),
    ForgedHead,
}

#[derive(Default)]
pub(super) struct Memory {
    pub(super) hellos: Vec<Hello>,
    pub(super) begins: Vec<Begin>,
    pub(super) ends: Vec<End>,
    pub(super) refused: Vec<Value>,
    pub(super) last_seq: BTreeMap<String, u64>,
    pub(super) fates: VecDeque<Fate>,
    pub(super) alarms: Vec<String>,
    pub(super) orders: VecDeque<Work>,
    pub(super) work_results: Vec<(String, Value)>,
    pub(super) welcome_head: Option<u64>,
    pub(super) bearer: Option<String>,
}

pub(super) type Shared = Arc<Mutex<Memory>>;

/// A registry as small as the protocol allows, which notices gaps and doubled numbers.
pub(super) struct Registry {
    pub(super) memory: Shared,
    pub(super) folder: tempfile::TempDir,
    running: Option<(
        tokio::sync::oneshot::Sender<Infallible>,
        std::thread::JoinHandle<()>,
    )>,
}

pub(super) fn signing_key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn head(seq: u64) -> SignedHead {
    let hash = Digest::of(seq.to_string());
    let signature = signing_key().sign(&SignedHead::signed_bytes(seq, &hash));
    SignedHead {
        seq,
        hash,
        signature: STANDARD.encode(signature.to_bytes()),
    }
}

fn broken() -> Response {
    let pieces = futures_util::stream::iter([
        Ok::<_, std::io::Error>("{".to_owned()),
        Err(std::io::ErrorKind::BrokenPipe.into()),
    ]);
    Response::new(Body::from_stream(pieces))
}

fn refusal(code: &str) -> Json<Refusal> {
    Json(Refusal {
        code: code.to_owned(),
        message: "no".to_owned(),
        hint: "ask".to_owned(),
    })
}

impl Memory {
    fn count(&mut self, instance: &str, seq: u64) {
        let last = self.last_seq.entry(instance.to_owned()).or_default();
        if seq == *last + 1 {
            *last = seq;
        } else {
            self.alarms.push(format!("{instance}: {seq} after {last}"));
        }
    }
}

async fn hello(
    State(memory): State<Shared>,
    headers: HeaderMap,
    Json(hello): Json<Hello>,
) -> Json<Welcome> {
    let mut memory = memory
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let authorization = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    memory.bearer = authorization.map(str::to_owned);
    let last_seq = memory
        .last_seq
        .get(&hello.instance)
        .copied()
        .unwrap_or_default();
    memory.hellos.push(hello);
    Json(Welcome {
        service: "shell".to_owned(),
        last_seq,
        audit_head: memory.welcome_head.map(head),
    })
}

async fn begin(State(memory): State<Shared>, Json(begin): Json<Begin>) -> Response {
    let mut memory = memory
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let fate = memory.fates.pop_front();
    if fate == Some(Fate::RequestLost) {
        return broken();
    }
    let known = memory.begins.iter().position(|known| known == &begin);
    let position = known.unwrap_or_else(|| {
        memory.count(&begin.instance, begin.seq);
        memory.begins.push(begin);
        memory.begins.len() - 1
    });
    let audit_head = match fate {
        Some(Fate::AnswerLost) => return broken(),
        Some(Fate::Forbidden) => {
            return (StatusCode::FORBIDDEN, refusal("GRANT_NOT_COVERED")).into_response();
        }
        Some(Fate::Conflict) => {
            return (StatusCode::CONFLICT, refusal("GRANT_USED")).into_response();
        }
        Some(Fate::Head(seq)) => Some(head(seq)),
        Some(Fate::ForgedHead) => Some(SignedHead { seq: 99, ..head(1) }),
        _ => None,
    };
    Json(Permit {
        action_id: format!("ac_{}", position + 1),
        run_id: "run".to_owned(),
        step_id: "s1".to_owned(),
        inputs: Vec::new(),
        lifetime: Lifetime::Step,
        audit_head,
    })
    .into_response()
}

async fn end(State(memory): State<Shared>, Json(end): Json<End>) -> Response {
    let mut memory = memory
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let fate = memory.fates.pop_front();
    if fate == Some(Fate::RequestLost) {
        return broken();
    }
    memory.count(&end.instance, end.seq);
    memory.ends.push(end);
    match fate {
        Some(Fate::AnswerLost) => broken(),
        _ => Json(Ended { audit_head: None }).into_response(),
    }
}

async fn next_work(State(memory): State<Shared>) -> Response {
    let order = || {
        memory
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .orders
            .pop_front()
    };
    for _ in 0..500 {
        if let Some(work) = order() {
            return Json(work).into_response();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn work_result(
    State(memory): State<Shared>,
    UrlPath(id): UrlPath<String>,
    Json(result): Json<Value>,
) {
    memory
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .work_results
        .push((id, result));
}

async fn refused_call(State(memory): State<Shared>, Json(call): Json<Value>) {
    memory
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .refused
        .push(call);
}

impl Registry {
    pub(super) fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut registry = Self {
            memory: Shared::default(),
            folder,
            running: None,
        };
        registry.listen()?;
        Ok(registry)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("effect.sock")
    }

    /// Listens on a thread of its own, so that all connections end with it.
    pub(super) fn listen(&mut self) -> anyhow::Result<()> {
        let listener = std::os::unix::net::UnixListener::bind(self.socket())?;
        listener.set_nonblocking(true)?;
        let router = Router::new()
            .route("/v1/hello", post(hello))
            .route("/v1/actions/begin", post(begin))
            .route("/v1/actions/end", post(end))
            .route("/v1/actions/refused", post(refused_call))
            .route("/v1/work", get(next_work))
            .route("/v1/work/{id}", post(work_result))
            .with_state(Arc::clone(&self.memory));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<Infallible>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = tokio::net::UnixListener::from_std(listener) else {
                    return;
                };
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped => {}
                }
            });
        });
        self.running = Some((stop, thread));
        Ok(())
    }

    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let (stop, thread) = self.running.take().context("the registry is not running")?;
        drop(stop);
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the registry's thread failed"))?;
        std::fs::remove_file(self.socket())?;
        Ok(())
    }

    pub(super) fn look<T>(&self, what: impl FnOnce(&mut Memory) -> T) -> T {
        what(
            &mut self
                .memory
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    pub(super) fn plan(&self, fates: &[Fate]) {
        self.look(|memory| memory.fates.extend(fates));
    }

    pub(super) async fn until(&self, fact: impl Fn(&Memory) -> bool) -> anyhow::Result<()> {
        for _ in 0..2500 {
            if self.look(|memory| fact(memory)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::bail!("it did not come to pass within 5 s")
    }
}
