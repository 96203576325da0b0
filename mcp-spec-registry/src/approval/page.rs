//! The approval page: rendered here, without any script; a cookie lets one look, and each decision takes code and secret.

mod checkpoint;
mod decide_form;
mod guard;
mod lists;
mod shell;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, time::Instant};

use axum::{
    Form, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::Markup;
use serde::Deserialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use self::{
    decide_form::Typed,
    guard::Hosts,
    shell::{answer, page},
};
use super::{
    api::{self, status},
    attempt::Attempts,
    session::{self, Sessions},
    view::CheckpointView,
};
use crate::{
    registry::{DecisionInput, Registry, RegistryError, blocking},
    run::{ReturnTo, Verdict},
};

/// Largest form.
const MOST_BYTES: usize = 64 * 1024;
/// Decisions shown at once.
const HISTORY: u32 = 200;

/// The routes of the page, for a listener on this loopback address. The peer's address comes as [`ConnectInfo`].
pub fn router(registry: Registry, address: SocketAddr) -> Router {
    let site = Site {
        attempts: Attempts::new(registry.clone()),
        registry,
        sessions: Sessions::default(),
        // Cookies do not know ports: two registries on one machine must not overwrite each other's.
        cookie: format!("looks_{}", address.port()),
    };
    Router::new()
        .route("/", get(queue))
        .route("/style.css", get(style))
        .route("/sign-in", get(sign_in_page).post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/c/{id}", get(show))
        .route("/c/{id}/decide", get(to_checkpoint).post(decide))
        .route("/history", get(history))
        .route("/run/{id}", get(run))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn_with_state(
            Hosts::of(address),
            guard::guard,
        ))
        .with_state(site)
}

#[derive(Clone)]
struct Site {
    registry: Registry,
    attempts: Attempts,
    sessions: Sessions,
    cookie: String,
}

impl Site {
    fn cookie_of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        cookies
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(name, value)| (name == self.cookie).then_some(value))
    }

    /// Who looks.
    fn viewer(&self, headers: &HeaderMap) -> Option<String> {
        self.sessions
            .viewer(self.cookie_of(headers)?, Instant::now())
    }

    fn set_cookie(&self, value: &str, seconds: u64) -> Option<HeaderValue> {
        let name = &self.cookie;
        format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}")
            .parse()
            .ok()
    }

    async fn view(&self, checkpoint_id: &str) -> Result<CheckpointView, RegistryError> {
        let (registry, id) = (self.registry.clone(), checkpoint_id.to_owned());
        let file = blocking(move || registry.checkpoint_file(&id)).await?;
        Ok(CheckpointView::of(&file, OffsetDateTime::now_utc()))
    }
}

fn sign_in_first(next: &str) -> Response {
    let main = lists::sign_in(next, "", None);
    answer(StatusCode::UNAUTHORIZED, page("Sign in", None, &main))
}

fn failed(viewer: Option<&str>, error: &RegistryError) -> Response {
    answer(
        status(error),
        page("That did not work", viewer, &lists::failure(error)),
    )
}

fn done(viewer: &str, title: &str, main: Result<Markup, RegistryError>) -> Response {
    match main {
        Ok(main) => answer(StatusCode::OK, page(title, Some(viewer), &main)),
        Err(error) => failed(Some(viewer), &error),
    }
}

async fn style() -> Response {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        shell::STYLE,
    )
        .into_response()
}

async fn not_found() -> Response {
    failed(
        None,
        &RegistryError::new(
            "PAGE_NOT_FOUND",
            "there is no such page",
            "the queue shows what waits",
        ),
    )
}

async fn queue(State(site): State<Site>, headers: HeaderMap) -> Response {
    let Some(viewer) = site.viewer(&headers) else {
        return sign_in_first("/");
    };
    let whole = blocking(move || api::whole_queue(&site.registry)).await;
    let now = OffsetDateTime::now_utc();
    done(
        &viewer,
        "Queue",
        whole.map(|(queue, runs)| lists::queue(&queue, &runs, now)),
    )
}

async fn history(State(site): State<Site>, headers: HeaderMap) -> Response {
    let Some(viewer) = site.viewer(&headers) else {
        return sign_in_first("/history");
    };
    let history = blocking(move || site.registry.history(HISTORY)).await;
    done(
        &viewer,
        "History",
        history.map(|history| lists::history(&history)),
    )
}

async fn run(State(site): State<Site>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let Some(viewer) = site.viewer(&headers) else {
        return sign_in_first(&own_path("run", &id));
    };
    let record = blocking(move || site.registry.record(&id)).await;
    done(&viewer, "Run", record.map(|record| lists::run(&record)))
}

async fn show(State(site): State<Site>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let id = id.to_ascii_uppercase();
    let Some(viewer) = site.viewer(&headers) else {
        return sign_in_first(&own_path("c", &id));
    };
    let view = site.view(&id).await;
    if view.is_ok() {
        site.registry.mark_viewed(&id, &viewer);
    }
    let typed = Typed {
        approver: viewer.clone(),
        ..Typed::default()
    };
    let title = format!("Checkpoint {}", shared::visible::machine(&id, false));
    done(
        &viewer,
        &title,
        view.map(|view| checkpoint::checkpoint(&view, &typed)),
    )
}

/// Somebody reloads the address that the form was sent to.
async fn to_checkpoint(Path(id): Path<String>) -> Redirect {
    Redirect::to(&own_path("c", &id))
}

#[derive(Debug, Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

async fn sign_in_page(Query(asked): Query<Next>) -> Response {
    let main = lists::sign_in(safe_next(&asked.next), "", None);
    answer(StatusCode::OK, page("Sign in", None, &main))
}

#[derive(Deserialize)]
struct SignIn {
    name: String,
    secret: String,
    #[serde(default)]
    next: String,
}

async fn sign_in(
    State(site): State<Site>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Form(asked): Form<SignIn>,
) -> Response {
    let next = safe_next(&asked.next);
    let (registry, name) = (site.registry.clone(), asked.name.clone());
    let secret = Zeroizing::new(asked.secret);
    let check = blocking(move || registry.verify_secret(&name, &secret));
    if let Err(error) = site
        .attempts
        .make(&source(peer), &asked.name, None, check)
        .await
    {
        let main = lists::sign_in(next, &asked.name, Some(&error));
        return answer(status(&error), page("Sign in", None, &main));
    }
    let opened = site.sessions.open(&asked.name, Instant::now());
    let cookie = opened
        .ok()
        .and_then(|cookie| site.set_cookie(&cookie, session::LIFE.as_secs()));
    let Some(cookie) = cookie else {
        return failed(
            None,
            &RegistryError::internal(&"the system gives no random bytes"),
        );
    };
    ([(header::SET_COOKIE, cookie)], Redirect::to(next)).into_response()
}

async fn sign_out(State(site): State<Site>, headers: HeaderMap) -> Response {
    if let Some(cookie) = site.cookie_of(&headers) {
        site.sessions.close(cookie);
    }
    let mut response = Redirect::to("/").into_response();
    if let Some(cookie) = site.set_cookie("", 0) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// A decision: what counts is the secret and the code in the form, not who looks.
async fn decide(
    State(site): State<Site>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let id = id.to_ascii_uppercase();
    let Some(viewer) = site.viewer(&headers) else {
        return sign_in_first(&own_path("c", &id));
    };
    let input = match decision(&id, fields) {
        Ok(input) => input,
        Err(error) => return failed(Some(&viewer), &error),
    };
    let typed = (input.approver.clone(), input.reason.clone());
    let attempt = site.registry.decide(input);
    let error = match site
        .attempts
        .make(&signed_in(&viewer), &typed.0, Some(&id), attempt)
        .await
    {
        Ok(receipt) => return done(&viewer, "Recorded", Ok(lists::receipt(&receipt))),
        Err(error) => error,
    };
    let view = match site.view(&id).await {
        Ok(view) => view,
        Err(error) => return failed(Some(&viewer), &error),
    };
    let moved_on = matches!(
        error.code.as_str(),
        "CHECKPOINT_CLOSED" | "DIGEST_MISMATCH" | "CONFLICT"
    );
    if moved_on || view.code.is_none() {
        let main = lists::conflict(&view, &error);
        return answer(
            StatusCode::CONFLICT,
            page("Not recorded", Some(&viewer), &main),
        );
    }
    let status = status(&error);
    let typed = Typed {
        approver: typed.0,
        reason: typed.1,
        error: Some(error),
    };
    let main = checkpoint::checkpoint(&view, &typed);
    answer(status, page("Not decided", Some(&viewer), &main))
}

fn decision(id: &str, fields: Vec<(String, String)>) -> Result<DecisionInput, RegistryError> {
    let wrong = |what: &str| {
        RegistryError::new(
            "BAD_REQUEST",
            format!("the form came without {what}"),
            "use the form of the checkpoint's page",
        )
    };
    let (mut verdict, mut shown) = (None, None);
    let mut input = DecisionInput {
        checkpoint_id: id.to_owned(),
        verdict: Verdict::Reject,
        reason: String::new(),
        reason_code: None,
        is_final: false,
        return_to: None,
        code: String::new(),
        approver: String::new(),
        secret: Zeroizing::default(),
        accepted_unknown: Vec::new(),
        approver_uid: None,
        shown_digest: None,
    };
    for (name, value) in fields {
        match (name.as_str(), value.as_str()) {
            ("verdict", "approve") => verdict = Some(Verdict::Approve),
            ("verdict", "reject") => verdict = Some(Verdict::Reject),
            ("verdict", "clarify") => verdict = Some(Verdict::Clarify),
            ("return_to", "generate") => input.return_to = Some(ReturnTo::Generate),
            ("return_to", "analyze") => input.return_to = Some(ReturnTo::Analyze),
            ("final", "yes") => input.is_final = true,
            ("shown", digest) => shown = digest.parse().ok(),
            ("reason_code", code) if !code.is_empty() => input.reason_code = Some(value),
            ("accept_unknown", _) => input.accepted_unknown.push(value),
            ("reason", _) => input.reason = value,
            ("approver", _) => input.approver = value,
            ("code", _) => input.code = value,
            ("secret", _) => input.secret = Zeroizing::new(value),
            _ => {}
        }
    }
    input.verdict = verdict.ok_or_else(|| wrong("a verdict"))?;
    input.shown_digest = Some(shown.ok_or_else(|| wrong("the digest of what was shown"))?);
    if input.verdict != Verdict::Reject {
        // What stands under "If you say no" counts for a no.
        input.is_final = false;
        input.return_to = None;
        input.reason_code = None;
    }
    Ok(input)
}

/// Whoever has signed in is a source of his own: strangers who guess at the sign-in cannot make him wait.
fn signed_in(viewer: &str) -> String {
    format!("page:signed in:{viewer}")
}

/// One source is one address; who it claims to be does not count. This machine is one, however many loopback addresses it has.
fn source(peer: SocketAddr) -> String {
    if peer.ip().is_loopback() {
        "page:loopback".to_owned()
    } else {
        format!("page:{}", peer.ip())
    }
}

/// A path of ours with an id that may be anything.
fn own_path(folder: &str, id: &str) -> String {
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if plain {
        format!("/{folder}/{id}")
    } else {
        "/".to_owned()
    }
}

/// Where to go after signing in: a path of this page, never another site.
fn safe_next(next: &str) -> &str {
    let own = next.starts_with('/')
        && !next.starts_with("//")
        && next
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_'));
    if own { next } else { "/" }
}
