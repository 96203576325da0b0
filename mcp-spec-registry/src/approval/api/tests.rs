//! The approval socket from outside, request by request; each refusal has its positive control.

use axum::{
    body::Body,
    http::{Method, Request as HttpRequest},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    approval::fixture::{APPROVER, Fixture, SECRET},
    run::RunState,
};

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

async fn ask(
    router: &Router,
    uid: Option<u32>,
    method: Method,
    path: &str,
    body: &Value,
) -> anyhow::Result<(StatusCode, Value)> {
    let mut request = HttpRequest::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))?;
    if let Some(uid) = uid {
        request.extensions_mut().insert(PeerUid(uid));
    }
    let response = router.clone().oneshot(request).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok((
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    ))
}

fn decision(code: &str, shown: &Digest, secret: &str) -> Value {
    json!({ "verdict": "approve", "reason": "", "reason_code": null, "is_final": false, "return_to": null,
        "code": code, "approver": APPROVER, "secret": secret, "accepted_unknown": [], "shown_digest": shown })
}

#[tokio::test]
async fn only_root_and_the_registrys_own_uid_are_heard() -> anyhow::Result<()> {
    let (fixture, _) = Fixture::waiting()?;
    let router = router(fixture.registry.clone());
    for uid in [0, own_uid()] {
        let (status, queue) =
            ask(&router, Some(uid), Method::GET, "/v1/queue", &Value::Null).await?;
        assert_eq!(status, StatusCode::OK, "{queue}");
        assert_eq!(queue["checkpoints"].as_array().map(Vec::len), Some(1));
    }
    for uid in [Some(own_uid() + 1), Some(u32::MAX), None] {
        for path in ["/v1/queue", "/v1/approvers", "/v1/tokens", "/v1/history"] {
            let (status, error) = ask(&router, uid, Method::GET, path, &Value::Null).await?;
            assert_eq!(
                (status, error["code"].as_str()),
                (StatusCode::FORBIDDEN, Some("NOT_THE_OWNER")),
                "{path}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn being_the_owner_lets_one_look_and_stop_but_not_decide() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let router = router(fixture.registry.clone());
    let id = &waiting.checkpoint.checkpoint_id;
    let path = format!("/v1/checkpoints/{id}");
    let (_, view) = ask(&router, Some(own_uid()), Method::GET, &path, &Value::Null).await?;
    let view: CheckpointView = serde_json::from_value(view)?;
    let code = view.code.unwrap_or_default();
    let decide = format!("{path}/decide");
    for body in [
        decision(&code, &waiting.plan_digest, "wrong secret"),
        decision("000000", &waiting.plan_digest, SECRET),
    ] {
        let (status, error) = ask(&router, Some(own_uid()), Method::POST, &decide, &body).await?;
        assert_eq!(status, StatusCode::FORBIDDEN, "{error}");
    }
    assert_eq!(
        fixture.registry.record(&fixture.run_id)?.run.state,
        RunState::AwaitingV1
    );
    let right = decision(&code, &waiting.plan_digest, SECRET);
    let (status, receipt) = ask(&router, Some(own_uid()), Method::POST, &decide, &right).await?;
    assert_eq!(status, StatusCode::OK, "{receipt}");
    assert_eq!(receipt["decision"]["approver_uid"], json!(own_uid()));
    assert_eq!(
        fixture.registry.record(&fixture.run_id)?.run.state,
        RunState::Approved
    );
    Ok(())
}

#[tokio::test]
async fn stopping_a_run_works_while_guessing_has_to_wait() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let router = router(fixture.registry.clone());
    let uid = Some(own_uid());
    let decide = format!(
        "/v1/checkpoints/{}/decide",
        waiting.checkpoint.checkpoint_id
    );
    let wrong = decision("000000", &waiting.plan_digest, "wrong secret");
    let mut last = StatusCode::OK;
    for _ in 0..5 {
        last = ask(&router, uid, Method::POST, &decide, &wrong).await?.0;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let reason = json!({ "reason": "look", "approver": null, "secret": null });
    let order = |order: &str| format!("/v1/runs/{}/{order}", fixture.run_id);
    let (status, paused) = ask(&router, uid, Method::POST, &order("pause"), &reason).await?;
    assert_eq!((status, &paused["paused"]), (StatusCode::OK, &json!(true)));
    let (status, _) = ask(&router, uid, Method::POST, &order("resume"), &reason).await?;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    let (status, killed) = ask(&router, uid, Method::POST, &order("kill"), &reason).await?;
    assert_eq!(
        (status, &killed["state"]),
        (StatusCode::OK, &json!("aborted"))
    );
    Ok(())
}

#[tokio::test]
async fn no_answer_holds_a_secret_or_its_hash() -> anyhow::Result<()> {
    let (fixture, waiting) = Fixture::waiting()?;
    let router = router(fixture.registry.clone());
    let checkpoint = format!("/v1/checkpoints/{}", waiting.checkpoint.checkpoint_id);
    for path in [
        "/v1/approvers",
        "/v1/history",
        "/v1/queue",
        checkpoint.as_str(),
    ] {
        let (status, answer) =
            ask(&router, Some(own_uid()), Method::GET, path, &Value::Null).await?;
        let answer = answer.to_string();
        assert_eq!(status, StatusCode::OK);
        assert!(
            !answer.contains("argon2") && !answer.contains(SECRET),
            "{path}"
        );
        assert!(!answer.contains(&waiting.checkpoint.nonce), "{path}");
    }
    Ok(())
}
