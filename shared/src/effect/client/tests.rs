use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::effect::{
    class::EffectClass,
    protocol::{
        Begin, End, Ended, Hello, Lifetime, SignedHead, Welcome, Work, WorkOrder, WorkResult,
    },
};

/// What the registry of a test does with the next begin or end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
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
struct Memory {
    hellos: Vec<Hello>,
    begins: Vec<Begin>,
    ends: Vec<End>,
    refused: Vec<Value>,
    last_seq: BTreeMap<String, u64>,
    fates: VecDeque<Fate>,
    alarms: Vec<String>,
    orders: VecDeque<Work>,
    work_results: Vec<(String, Value)>,
    welcome_head: Option<u64>,
    bearer: Option<String>,
}

type Shared = Arc<Mutex<Memory>>;

/// A registry as small as the protocol allows, which notices gaps and doubled numbers.
struct Registry {
    memory: Shared,
    folder: tempfile::TempDir,
    running: Option<(
        tokio::sync::oneshot::Sender<Infallible>,
        std::thread::JoinHandle<()>,
    )>,
}

fn signing_key() -> SigningKey {
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
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut registry = Self {
            memory: Shared::default(),
            folder,
            running: None,
        };
        registry.listen()?;
        Ok(registry)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("effect.sock")
    }

    /// Listens on a thread of its own, so that all connections end with it.
    fn listen(&mut self) -> anyhow::Result<()> {
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

    fn stop(&mut self) -> anyhow::Result<()> {
        let (stop, thread) = self.running.take().context("the registry is not running")?;
        drop(stop);
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the registry's thread failed"))?;
        std::fs::remove_file(self.socket())?;
        Ok(())
    }

    fn look<T>(&self, what: impl FnOnce(&mut Memory) -> T) -> T {
        what(
            &mut self
                .memory
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    fn plan(&self, fates: &[Fate]) {
        self.look(|memory| memory.fates.extend(fates));
    }

    async fn until(&self, fact: impl Fn(&Memory) -> bool) -> anyhow::Result<()> {
        for _ in 0..2500 {
            if self.look(|memory| fact(memory)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::bail!("it did not come to pass within 5 s")
    }
}

fn client(registry: &Registry, state_dir: &Path) -> anyhow::Result<EffectClient> {
    let path = state_dir.join("credential.toml");
    let key = STANDARD.encode(signing_key().verifying_key().as_bytes());
    let text = format!(
        "principal = \"shell\"\nkind = \"service\"\nserver = \"mcp-bash-commander\"\ntoken = \"t0ken\"\nregistry_key = \"ed25519:{key}\"\n"
    );
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(EffectClient::open(EffectConfig {
        socket: registry.socket(),
        registry_uid: None,
        credential: ServiceCredential::read(&path)?,
        version: "1".to_owned(),
        tools: vec![ToolDeclaration {
            tool: "exec".to_owned(),
            class: EffectClass::Write,
            schema: json!({}),
        }],
        state_dir: state_dir.join("effect"),
    })?)
}

async fn ask(client: &EffectClient, command: &str) -> Result<Permit, Refusal> {
    let arguments = serde_json::Map::from_iter([("command".to_owned(), Value::from(command))]);
    client.begin("gr_1", "ana", "exec", arguments).await
}

async fn tell(client: &EffectClient, permit: Permit) -> Result<Delivery, Refusal> {
    client
        .end(EndReport::done(permit.action_id, Digest::of("result")))
        .await
}

fn code(result: Result<Permit, Refusal>) -> String {
    result.map_or_else(|refusal| refusal.code, |permit| permit.action_id)
}

#[tokio::test]
async fn begins_and_ends_share_one_count_without_gaps() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    let calls = (0..20).map(|number| {
        let client = client.clone();
        async move {
            let permit = ask(&client, &format!("echo {number}")).await?;
            tell(&client, permit).await
        }
    });
    for delivery in futures_util::future::join_all(calls).await {
        assert_eq!(delivery?, Delivery::Delivered);
    }
    registry.look(|memory| {
        assert_eq!(memory.alarms, Vec::<String>::new());
        assert_eq!(memory.last_seq.get(client.instance()), Some(&40));
        assert_eq!(memory.hellos.len(), 1);
        assert_eq!(memory.bearer.as_deref(), Some("Bearer t0ken"));
    });
    Ok(())
}

#[tokio::test]
async fn long_content_travels_as_its_digest() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let long = "x".repeat(100_000);
    ask(&client(&registry, state.path())?, &long).await?;
    let arguments = registry.look(|memory| memory.begins[0].arguments.clone());
    let hashed = ArgumentValue::Hashed {
        sha256: Digest::of(&long),
        length: 100_000,
    };
    assert_eq!(arguments.get("command"), Some(&hashed));
    Ok(())
}

#[tokio::test]
async fn a_begin_whose_answer_is_lost_is_asked_again_as_the_same_record() -> anyhow::Result<()> {
    for fate in [Fate::AnswerLost, Fate::RequestLost] {
        let registry = Registry::start()?;
        let state = tempfile::tempdir()?;
        let client = client(&registry, state.path())?;
        registry.plan(&[fate]);
        let permit = ask(&client, "echo").await?;
        tell(&client, permit).await?;
        registry.look(|memory| {
            assert_eq!(memory.begins.len(), 1, "{fate:?}");
            assert_eq!(memory.alarms, Vec::<String>::new(), "{fate:?}");
        });
    }
    Ok(())
}

#[tokio::test]
async fn an_end_whose_answer_is_lost_is_not_counted_twice() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    for fate in [Fate::AnswerLost, Fate::RequestLost] {
        let permit = ask(&client, "echo").await?;
        registry.plan(&[fate]);
        assert_eq!(tell(&client, permit).await?, Delivery::Delivered);
    }
    registry.look(|memory| {
        assert_eq!(memory.ends.len(), 2);
        assert_eq!(memory.alarms, Vec::<String>::new());
    });
    Ok(())
}

#[tokio::test]
async fn a_caller_who_asks_again_gets_the_answer_that_was_lost() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.plan(&[Fate::AnswerLost, Fate::AnswerLost]);
    assert_eq!(code(ask(&client, "echo").await), "REGISTRY_UNREACHABLE");
    assert_eq!(code(ask(&client, "echo").await), "ac_1");
    registry.look(|memory| {
        assert_eq!((memory.begins.len(), memory.ends.len()), (1, 0));
        assert_eq!(memory.alarms, Vec::<String>::new());
    });
    Ok(())
}

#[tokio::test]
async fn a_begin_that_nobody_waits_for_any_more_is_ended_as_not_started() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.plan(&[Fate::AnswerLost, Fate::AnswerLost]);
    assert_eq!(code(ask(&client, "one").await), "REGISTRY_UNREACHABLE");
    assert_eq!(code(ask(&client, "two").await), "ac_2");

    let dropped = client.clone();
    let asking = tokio::spawn(async move { ask(&dropped, "three").await });
    tokio::task::yield_now().await;
    asking.abort();
    registry.until(|memory| memory.ends.len() == 2).await?;
    registry.look(|memory| {
        let ended: Vec<_> = memory
            .ends
            .iter()
            .map(|end| (end.action_id.as_str(), end.error_code.as_deref()))
            .collect();
        assert_eq!(
            ended,
            [("ac_1", Some(NOT_STARTED)), ("ac_3", Some(NOT_STARTED))]
        );
        assert_eq!(memory.alarms, Vec::<String>::new());
    });
    Ok(())
}

#[tokio::test]
async fn without_a_registry_every_call_is_refused_and_nothing_is_kept_for_later()
-> anyhow::Result<()> {
    let mut registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.stop()?;
    let refusal = ask(&client, "echo").await.err().context("it was allowed")?;
    assert_eq!(refusal.code, "REGISTRY_UNREACHABLE");
    assert!(
        refusal.hint.contains("mcp-spec-registry serve"),
        "{}",
        refusal.hint
    );
    registry.listen()?;
    assert_eq!(code(ask(&client, "other").await), "ac_1");
    registry.look(|memory| assert_eq!((memory.begins.len(), memory.ends.len()), (1, 0)));
    Ok(())
}

#[tokio::test]
async fn a_kept_connection_that_broke_is_replaced_unnoticed() -> anyhow::Result<()> {
    let mut registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    let first = ask(&client, "echo").await?;
    registry.stop()?;
    registry.listen()?;
    assert_eq!(code(ask(&client, "other").await), "ac_2");
    assert_eq!(tell(&client, first).await?, Delivery::Delivered);
    registry.look(|memory| assert_eq!(memory.alarms, Vec::<String>::new()));
    Ok(())
}

#[tokio::test]
async fn ends_that_cannot_be_delivered_reach_the_registry_from_the_next_process()
-> anyhow::Result<()> {
    let mut registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let first = client(&registry, state.path())?;
    let (one, two, lost) = (
        ask(&first, "1").await?,
        ask(&first, "2").await?,
        ask(&first, "3").await?,
    );
    registry.stop()?;
    assert_eq!(tell(&first, one).await?, Delivery::Spooled);
    assert_eq!(tell(&first, two).await?, Delivery::Spooled);
    drop((first, lost));

    registry.listen()?;
    let next = client(&registry, state.path())?;
    let permit = ask(&next, "4").await?;
    registry.look(|memory| {
        let hello = memory.hellos.last();
        let undelivered = hello.map(|hello| hello.undelivered_ends.join(" "));
        assert_eq!(undelivered.as_deref(), Some("ac_1 ac_2"));
        assert_ne!(memory.hellos[0].instance, next.instance());
        let ended: Vec<_> = memory
            .ends
            .iter()
            .map(|end| end.action_id.as_str())
            .collect();
        assert_eq!(ended, ["ac_1", "ac_2"]);
        assert_eq!(memory.alarms, Vec::<String>::new());
    });
    tell(&next, permit).await?;
    let third = client(&registry, state.path())?;
    third.settle().await?;
    registry.look(|memory| {
        assert_eq!(memory.ends.len(), 3);
        assert!(
            memory
                .hellos
                .last()
                .is_some_and(|hello| hello.undelivered_ends.is_empty())
        );
    });
    Ok(())
}

#[tokio::test]
async fn the_registrys_refusals_reach_the_caller_as_they_are() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.plan(&[Fate::Forbidden, Fate::Conflict]);
    let refusal = ask(&client, "echo").await.err().context("it was allowed")?;
    assert_eq!(
        (refusal.code.as_str(), refusal.hint.as_str()),
        ("GRANT_NOT_COVERED", "ask")
    );
    assert_eq!(code(ask(&client, "echo").await), "GRANT_USED");
    assert_eq!(code(ask(&client, "echo").await), "ac_3");
    registry.look(|memory| assert_eq!(memory.alarms, Vec::<String>::new()));
    Ok(())
}

#[tokio::test]
async fn a_permit_with_an_older_or_forged_audit_head_is_no_permit() -> anyhow::Result<()> {
    for (fate, expected) in [
        (Fate::Head(7), "AUDIT_ROLLED_BACK"),
        (Fate::ForgedHead, "AUDIT_SIGNATURE_INVALID"),
    ] {
        let registry = Registry::start()?;
        let state = tempfile::tempdir()?;
        let client = client(&registry, state.path())?;
        registry.look(|memory| memory.welcome_head = Some(8));
        registry.plan(&[Fate::Head(9), fate]);
        assert_eq!(code(ask(&client, "echo").await), "ac_1");
        registry.look(|memory| memory.welcome_head = Some(9));
        assert_eq!(code(ask(&client, "echo").await), expected);
    }
    Ok(())
}

#[tokio::test]
async fn after_a_rollback_even_a_newer_head_changes_nothing_until_an_operator_did()
-> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    registry.plan(&[Fate::Head(9)]);
    assert_eq!(code(ask(&client, "echo").await), "ac_1");
    client
        .settle()
        .await
        .err()
        .context("a welcome without a head was accepted")?;
    registry.look(|memory| memory.welcome_head = Some(12));
    let refusal = ask(&client, "echo").await.err().context("it was allowed")?;
    assert_eq!(refusal.code, "AUDIT_ROLLED_BACK");
    let file = state.path().join("effect/audit-head.json");
    assert!(
        refusal.hint.contains(&file.display().to_string()),
        "{}",
        refusal.hint
    );
    std::fs::remove_file(file)?;
    assert_eq!(code(ask(&client, "echo").await), "ac_2");
    Ok(())
}

#[tokio::test]
async fn a_socket_in_a_folder_that_others_may_write_is_not_the_registrys() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    let set = |mode| {
        std::fs::set_permissions(
            registry.folder.path(),
            std::fs::Permissions::from_mode(mode),
        )
    };
    set(0o777)?;
    assert_eq!(code(ask(&client, "echo").await), "REGISTRY_UNTRUSTED");
    set(0o750)?;
    assert_eq!(code(ask(&client, "echo").await), "ac_1");
    Ok(())
}

struct Measurer;

impl WorkHandler for Measurer {
    async fn carry_out(&self, order: WorkOrder) -> WorkResult {
        assert!(
            !matches!(order, WorkOrder::EndRun { .. }),
            "this handler fails on purpose"
        );
        WorkResult::EndedProcesses { count: 3 }
    }
}

#[tokio::test]
async fn orders_are_carried_out_and_answered_also_after_the_registry_restarted()
-> anyhow::Result<()> {
    let mut registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    let stop = CancellationToken::new();
    let working = tokio::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move { client.run_work(Measurer, stop).await }
    });
    let order = |id: &str, order| Work {
        id: id.to_owned(),
        order,
    };
    let run_id = || "run".to_owned();
    registry.look(|memory| {
        memory
            .orders
            .push_back(order("wk_1", WorkOrder::EndRun { run_id: run_id() }));
        memory
            .orders
            .push_back(order("wk_2", WorkOrder::EndSteps { run_id: run_id() }));
    });
    registry
        .until(|memory| memory.work_results.len() == 2)
        .await?;
    registry.stop()?;
    registry.listen()?;
    registry.look(|memory| {
        memory
            .orders
            .push_back(order("wk_3", WorkOrder::EndSteps { run_id: run_id() }));
    });
    registry
        .until(|memory| memory.work_results.len() == 3)
        .await?;
    let results = registry.look(|memory| {
        memory
            .work_results
            .sort_by(|one, other| one.0.cmp(&other.0));
        std::mem::take(&mut memory.work_results)
    });
    assert_eq!(results[0].1["code"], "INTERNAL");
    let ended = json!({ "kind": "ended_processes", "count": 3 });
    assert_eq!([&results[1].1, &results[2].1], [&ended, &ended]);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), working).await??;
    Ok(())
}

#[tokio::test]
async fn a_call_refused_here_is_told_to_the_registry() -> anyhow::Result<()> {
    let registry = Registry::start()?;
    let state = tempfile::tempdir()?;
    let client = client(&registry, state.path())?;
    client.refused("ana", "exec", "POLICY_DENIED", None);
    registry.until(|memory| memory.refused.len() == 1).await?;
    let told = registry.look(|memory| memory.refused[0].clone());
    ensure!(
        told["code"] == "POLICY_DENIED" && told["principal"] == "ana",
        "{told}"
    );
    Ok(())
}
