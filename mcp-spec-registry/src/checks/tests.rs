use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use anyhow::Context;
use axum::{Router, http::header, response::Redirect, routing::get};
use serde_json::json;
use shared::{
    digest::Digest,
    effect::protocol::{CommandMeasure, SessionMeasure, UNKNOWN_SESSION},
};

use super::*;
use crate::{plan::Check, specification::Specification};

/// A page as a step would serve it, until it is dropped.
struct Site {
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn site(router: Router) -> anyhow::Result<Site> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    Ok(Site { address, serving })
}

fn page() -> Router {
    let html = || async { ([(header::CONTENT_TYPE, "text/html")], "<h1>hello</h1>") };
    Router::new().route("/", get(html))
}

/// An effect server that answers as told and remembers what it was asked.
#[derive(Default)]
struct Server {
    asked: Mutex<Vec<WorkOrder>>,
    /// Set while the service answers "not now".
    down: Arc<AtomicBool>,
    file: Mutex<Option<Digest>>,
    deaf: bool,
    gone: bool,
    init: AtomicU32,
}

impl WorkChannel for Server {
    async fn ask(&self, service: &str, order: WorkOrder) -> Result<WorkResult, String> {
        if self.deaf {
            return Err(format!("no process of {service} is listening for work"));
        }
        let lock = |asked: &Mutex<Vec<WorkOrder>>, order: &WorkOrder| {
            asked
                .lock()
                .map(|mut asked| asked.push(order.clone()))
                .map_err(|error| error.to_string())
        };
        lock(&self.asked, &order)?;
        Ok(match order {
            WorkOrder::MeasureSession { .. } if self.gone => WorkResult::Failed {
                code: UNKNOWN_SESSION.to_owned(),
                message: "no such session".to_owned(),
            },
            WorkOrder::MeasureSession { .. } => WorkResult::Session(SessionMeasure {
                alive: true,
                identity: format!("{}@9", self.init.load(Ordering::SeqCst)),
                memory_bytes: 19_000_000,
                uids: vec![65534],
                processes: 2,
            }),
            WorkOrder::HashFile { .. } => {
                let sha256 = self.file.lock().map_err(|error| error.to_string())?.clone();
                WorkResult::File { sha256 }
            }
            WorkOrder::EndServingProcess { .. } => {
                self.down.store(true, Ordering::SeqCst);
                WorkResult::EndedProcesses { count: 1 }
            }
            WorkOrder::RunCommand { argv, .. } => WorkResult::Command(CommandMeasure {
                exit_code: Some(i32::from(argv[0] != "true")),
                signal: None,
                timed_out: false,
                text_found: None,
                stdout_sha256: Digest::of(""),
                wall_ms: 3,
            }),
            WorkOrder::EndRun { .. } | WorkOrder::EndSteps { .. } => WorkResult::Failed {
                code: "UNEXPECTED".to_owned(),
                message: "a check ends no run".to_owned(),
            },
        })
    }
}

const SPECIFICATION: &str = "spec_id: web\noutcome: Serve pages to the team\nsuccess_criteria:\n  web:\n    - Page load time: < 2 seconds\n    - Resource usage: < 512MB RAM\n    - Serves static HTML content\n";

fn test(criterion: &str, check: serde_json::Value) -> anyhow::Result<RoundTest> {
    let specification = Specification::parse(SPECIFICATION, None)?;
    let known = specification
        .criteria
        .iter()
        .find(|known| known.criterion_id == criterion);
    let test = PlannedTest {
        criterion: criterion.to_owned(),
        check: serde_json::from_value::<Check>(check)?,
    };
    Ok(RoundTest {
        test,
        criterion: known.cloned(),
    })
}

fn after(tests: Vec<RoundTest>, address: &(impl ToString + ?Sized)) -> CheckRound {
    let subject = Subject {
        service: "shell".to_owned(),
        session: Some("x1".to_owned()),
        published: vec![PublishedPort {
            port: 80,
            address: address.to_string(),
        }],
        artefacts: vec![PinnedInput {
            path: "a.txt".to_owned(),
            sha256: Digest::of("a"),
        }],
    };
    let failed_before = |index| (index, CheckVerdict::Fail);
    CheckRound {
        phase: CheckPhase::After,
        before: (0..).take(tests.len()).map(failed_before).collect(),
        tests,
        subjects: BTreeMap::from([("s2".to_owned(), subject)]),
    }
}

async fn one(round: CheckRound, server: &Server) -> anyhow::Result<EvaluationDraft> {
    Engine::in_this_process()
        .run(round, server)
        .await
        .pop()
        .context("no evaluation")
}

#[tokio::test]
async fn a_page_is_measured_and_only_numbers_are_kept() -> anyhow::Result<()> {
    let site = site(page()).await?;
    let check = json!({ "http": { "target": "s2:80", "samples": 5, "expect": {
        "status": 200, "headers": { "content-type": "text/html" }, "text": "hello",
    } } });
    let round = after(vec![test("web/page-load-time", check)?], &site.address);
    let draft = one(round, &Server::default()).await?;
    assert_eq!(draft.verdict, CheckVerdict::Pass, "{draft:?}");
    assert_eq!(draft.measured_by, "registry");
    assert!(draft.measured.starts_with("p95 "), "{}", draft.measured);
    let evidence = draft.evidence.to_string();
    assert!(!evidence.contains("hello"), "{evidence}");
    assert_eq!(draft.evidence["latency_us"]["count"], 5);
    assert_eq!(draft.evidence["statuses"], json!({ "200": 5 }));
    assert_eq!(
        draft.evidence["body_sha256"],
        json!(Digest::of("<h1>hello</h1>"))
    );
    Ok(())
}

#[tokio::test]
async fn an_answer_without_the_expected_text_fails() -> anyhow::Result<()> {
    let site = site(page()).await?;
    let check = json!({ "http": { "target": "s2:80", "samples": 2, "expect": { "text": "bye" } } });
    let round = after(
        vec![test("web/serves-static-html-content", check)?],
        &site.address,
    );
    let draft = one(round, &Server::default()).await?;
    assert_eq!(draft.verdict, CheckVerdict::Fail);
    let reason = draft.reason.unwrap_or_default();
    assert_eq!(reason, "of 2 requests: 2 without the expected text");
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() -> anyhow::Result<()> {
    let hits = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&hits);
    let elsewhere = site(Router::new().fallback(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { "secret" }
    }))
    .await?;
    let metadata = "http://169.254.169.254/latest/meta-data/".to_owned();
    for location in [metadata, format!("http://{}/", elsewhere.address)] {
        let site = site(Router::new().route(
            "/",
            get(move || async move { Redirect::temporary(&location) }),
        ))
        .await?;
        let check = json!({ "http": { "target": "s2:80", "samples": 1 } });
        let round = after(
            vec![test("web/serves-static-html-content", check)?],
            &site.address,
        );
        let draft = one(round, &Server::default()).await?;
        assert_eq!(draft.verdict, CheckVerdict::Fail);
        assert_eq!(draft.evidence["statuses"], json!({ "307": 1 }));
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
    Ok(())
}

#[tokio::test]
async fn addresses_beyond_loopback_are_not_dialled_unless_the_operator_named_them()
-> anyhow::Result<()> {
    let site = site(page()).await?;
    let named = format!("localhost:{}", site.address.port());
    for address in ["169.254.169.254:80", "10.0.0.1:80", &named] {
        for check in [
            json!({ "http": { "target": "s2:80", "samples": 1 } }),
            json!({ "tcp": { "target": "s2:80" } }),
        ] {
            let round = after(
                vec![test("web/serves-static-html-content", check)?],
                address,
            );
            let draft = one(round, &Server::default()).await?;
            assert_eq!(draft.verdict, CheckVerdict::Unknown, "{address}");
            assert!(
                draft
                    .reason
                    .is_some_and(|reason| reason.contains("--check-allow"))
            );
        }
    }
    let engine = Engine::in_this_process().allowing(&named.parse()?);
    let check = json!({ "http": { "target": "s2:80", "samples": 1 } });
    let round = after(vec![test("web/serves-static-html-content", check)?], &named);
    let draft = engine
        .run(round, &Server::default())
        .await
        .pop()
        .context("no evaluation")?;
    assert_eq!(draft.verdict, CheckVerdict::Pass, "{draft:?}");
    Ok(())
}

#[tokio::test]
async fn without_the_step_every_test_fails_and_with_nobody_listening_it_is_unknown()
-> anyhow::Result<()> {
    let tests = || {
        anyhow::Ok(vec![
            test(
                "web/page-load-time",
                json!({ "http": { "target": "s2:80" } }),
            )?,
            test(
                "web/page-load-time",
                json!({ "tcp": { "target": "s2:80" } }),
            )?,
            test(
                "web/resource-usage",
                json!({ "session": { "step": "s2", "measure": "memory" } }),
            )?,
            test(
                "web/page-load-time",
                json!({ "restart": { "target": "s2:80", "within_ms": 500 } }),
            )?,
        ])
    };
    let nothing = CheckRound {
        phase: CheckPhase::Before,
        subjects: BTreeMap::new(),
        ..after(tests()?, "127.0.0.1:1")
    };
    let deaf = Server {
        deaf: true,
        ..Server::default()
    };
    for draft in Engine::in_this_process().run(nothing, &deaf).await {
        assert_eq!(draft.verdict, CheckVerdict::Fail, "{draft:?}");
        assert_eq!(draft.reason.as_deref(), Some("step s2 has not run"));
    }
    let site = site(page()).await?;
    let drafts = Engine::in_this_process()
        .run(after(tests()?, &site.address), &deaf)
        .await;
    for index in [2, 3] {
        assert_eq!(
            drafts[index].verdict,
            CheckVerdict::Unknown,
            "{:?}",
            drafts[index]
        );
        let reason = drafts[index].reason.clone().unwrap_or_default();
        assert_eq!(reason, "no process of shell is listening for work");
    }
    Ok(())
}

#[tokio::test]
async fn a_session_that_its_server_no_longer_knows_fails() -> anyhow::Result<()> {
    let check = json!({ "session": { "step": "s2", "measure": "memory" } });
    let round = || {
        anyhow::Ok(after(
            vec![test("web/resource-usage", check.clone())?],
            "127.0.0.1:1",
        ))
    };
    let gone = Server {
        gone: true,
        ..Server::default()
    };
    assert_eq!(one(round()?, &gone).await?.verdict, CheckVerdict::Fail);
    let draft = one(round()?, &Server::default()).await?;
    assert_eq!(draft.verdict, CheckVerdict::Pass, "{draft:?}");
    assert_eq!(draft.measured_by, "shell");
    assert_eq!(draft.measured, "19 MB in 2 processes (< 512 MB)");
    Ok(())
}

/// A site that is away for a few requests after its process was ended.
fn restarting(server: &Server, misses: u32) -> Router {
    let down = Arc::clone(&server.down);
    let left = Arc::new(AtomicU32::new(misses));
    Router::new().route(
        "/",
        get(move || {
            let is_away = down.load(Ordering::SeqCst)
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                        left.checked_sub(1)
                    })
                    .is_ok();
            async move {
                if is_away {
                    axum::http::StatusCode::BAD_GATEWAY
                } else {
                    axum::http::StatusCode::OK
                }
            }
        }),
    )
}

#[tokio::test]
async fn a_restart_comes_last_and_must_bring_the_service_back_in_time() -> anyhow::Result<()> {
    for (misses, verdict) in [(3, CheckVerdict::Pass), (u32::MAX, CheckVerdict::Fail)] {
        let server = Server::default();
        let site = site(restarting(&server, misses)).await?;
        let round = after(
            vec![
                test(
                    "web/x",
                    json!({ "restart": { "target": "s2:80", "within_ms": 700 } }),
                )?,
                test(
                    "web/resource-usage",
                    json!({ "session": { "step": "s2", "measure": "memory" } }),
                )?,
            ],
            &site.address,
        );
        let drafts = Engine::in_this_process().run(round, &server).await;
        assert_eq!(drafts[0].test_index, 0);
        assert_eq!(drafts[0].verdict, verdict, "{:?}", drafts[0]);
        assert_eq!(drafts[1].verdict, CheckVerdict::Pass);
        let asked = server
            .asked
            .lock()
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let ended = asked
            .iter()
            .position(|order| matches!(order, WorkOrder::EndServingProcess { .. }));
        assert_eq!(
            ended,
            Some(2),
            "the session is measured, then looked at, then ended"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_passed_before_proves_nothing_after() -> anyhow::Result<()> {
    let site = site(page()).await?;
    let check = json!({ "http": { "target": "s2:80", "samples": 1 } });
    let round = CheckRound {
        before: BTreeMap::from([(0, CheckVerdict::Pass)]),
        ..after(
            vec![test("web/serves-static-html-content", check)?],
            &site.address,
        )
    };
    let draft = one(round, &Server::default()).await?;
    assert_eq!(draft.verdict, CheckVerdict::Unknown);
    assert!(
        draft
            .reason
            .is_some_and(|reason| reason.starts_with("proves nothing"))
    );
    Ok(())
}

#[tokio::test]
async fn another_process_or_file_is_another_snapshot() -> anyhow::Result<()> {
    let subjects = after(Vec::new(), "127.0.0.1:1").subjects;
    let server = Server {
        file: Mutex::new(Some(Digest::of("a"))),
        ..Server::default()
    };
    let first = snapshot(&subjects, &server).await;
    assert_eq!(first.sessions.get("s2"), Some(&Some("0@9".to_owned())));
    assert_eq!(first.files.get("shell:a.txt"), Some(&Some(Digest::of("a"))));
    assert_eq!(snapshot(&subjects, &server).await, first);

    server.init.store(1, Ordering::SeqCst);
    let restarted = snapshot(&subjects, &server).await;
    assert_ne!(restarted, first);
    if let Ok(mut file) = server.file.lock() {
        *file = Some(Digest::of("b"));
    }
    assert_ne!(snapshot(&subjects, &server).await, restarted);
    let deaf = Server {
        deaf: true,
        ..Server::default()
    };
    let unseen = snapshot(&subjects, &deaf).await;
    assert_eq!(unseen.unseen.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_measuring_process_that_fails_makes_the_test_unknown() -> anyhow::Result<()> {
    let site = site(page()).await?;
    let check = || {
        test(
            "web/serves-static-html-content",
            json!({ "tcp": { "target": "s2:80" } }),
        )
    };
    // This program, which is started, is the test runner and no worker.
    let round = after(vec![check()?, check()?], &site.address);
    for draft in Engine::new(&[]).run(round, &Server::default()).await {
        assert_eq!(draft.verdict, CheckVerdict::Unknown);
        let reason = draft.reason.unwrap_or_default();
        assert!(
            reason.starts_with("the measuring process failed"),
            "{reason}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_command_is_run_where_the_plan_says_and_judged_by_its_end() -> anyhow::Result<()> {
    let server = Server::default();
    let command = |argv: &[&str]| {
        test(
            "web/serves-static-html-content",
            json!({ "command": { "server": "shell", "argv": argv } }),
        )
    };
    let round = after(
        vec![command(&["true"])?, command(&["false"])?],
        "127.0.0.1:9",
    );
    let drafts = Engine::new(&[]).run(round, &server).await;
    let verdicts: Vec<_> = drafts.iter().map(|draft| draft.verdict).collect();
    assert_eq!(verdicts, [CheckVerdict::Pass, CheckVerdict::Fail]);
    assert_eq!(drafts[0].measured, "exited with 0 after 3 ms");
    assert_eq!(drafts[0].measured_by, "shell");
    let asked = server
        .asked
        .lock()
        .map(|asked| asked.clone())
        .unwrap_or_default();
    assert_eq!(
        asked[0],
        WorkOrder::RunCommand {
            argv: vec!["true".to_owned()],
            text: None,
            timeout_ms: 10_000,
        }
    );
    Ok(())
}
