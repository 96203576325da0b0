//! The approval plane as JSON over HTTP on the `approval` socket, for the commands of the registry's owner.

#[cfg(test)]
mod tests;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::{Deserialize, Serialize};
use shared::{digest::Digest, serve::Json};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{attempt::Attempts, view::CheckpointView};
use crate::{
    daemon::PeerUid,
    registry::{
        AddedSpecification, DecisionInput, EnrolledApprover, HistoryEntry, QueueEntry, Receipt,
        Registry, RegistryError, blocking,
    },
    run::{ReturnTo, Run, RunState, Verdict},
    store::{RunFilter, TokenKind},
};

/// Largest request: a specification.
const MOST_BYTES: usize = 512 * 1024;
/// Open runs shown by `queue`.
const MOST_RUNS: u32 = 100;
/// Decisions shown by `history`.
const HISTORY: u32 = 200;

/// What waits, and where it can be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Queue {
    /// Address of the page, once it listens.
    pub(super) page: Option<String>,
    /// Open checkpoints, oldest first.
    pub(super) checkpoints: Vec<QueueEntry>,
    /// Runs that have not ended, newest first: what can be paused, cancelled or killed.
    pub(super) runs: Vec<OpenRun>,
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OpenRun {
    pub(super) run_id: String,
    pub(super) spec_id: String,
    pub(super) spec_version: String,
    pub(super) environment: String,
    pub(super) state: RunState,
    pub(super) paused: bool,
    /// The agent that works on it, if one does.
    pub(super) claimant: Option<String>,
}

impl From<Run> for OpenRun {
    fn from(run: Run) -> Self {
        Self {
            run_id: run.run_id,
            spec_id: run.spec_id,
            spec_version: run.spec_version,
            environment: run.environment,
            state: run.state,
            paused: run.paused,
            claimant: run.claimant,
        }
    }
}

/// What waits and what is under way, as page and socket show it.
pub(super) fn whole_queue(
    registry: &Registry,
) -> Result<(Vec<QueueEntry>, Vec<OpenRun>), RegistryError> {
    let open = RunFilter {
        open_only: true,
        limit: MOST_RUNS,
        ..RunFilter::default()
    };
    let runs = registry.runs(&open)?;
    Ok((
        registry.queue()?,
        runs.into_iter().map(OpenRun::from).collect(),
    ))
}

/// A decision as it is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decide {
    pub(super) verdict: Verdict,
    pub(super) reason: String,
    pub(super) reason_code: Option<String>,
    pub(super) is_final: bool,
    pub(super) return_to: Option<ReturnTo>,
    pub(super) code: String,
    pub(super) approver: String,
    pub(super) secret: String,
    pub(super) accepted_unknown: Vec<String>,
    pub(super) shown_digest: Digest,
}

/// What is done to a run from outside its cycle.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Control {
    pub(super) reason: String,
    /// For `resume`: who, and their secret.
    pub(super) approver: Option<String>,
    pub(super) secret: Option<String>,
}

/// Where a run stands after that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Controlled {
    pub(super) run_id: String,
    pub(super) state: RunState,
    pub(super) paused: bool,
}

/// A new approver.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enrol {
    pub(super) name: String,
    pub(super) secret: String,
    pub(super) is_test: bool,
}

/// A wanted token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddToken {
    pub(super) kind: TokenKind,
    pub(super) name: String,
    pub(super) server: Option<String>,
}

/// A new token; goes into a file and nowhere else.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct AddedToken {
    pub(super) principal: String,
    pub(super) kind: TokenKind,
    pub(super) server: Option<String>,
    pub(super) token: String,
    pub(super) registry_key: String,
}

/// The id of a specification that does not carry its own.
#[derive(Debug, Clone, Default, Deserialize)]
struct Named {
    spec_id: Option<String>,
}

/// The routes of the approval socket. Who connects comes as [`PeerUid`] from the listener.
pub fn router(registry: Registry) -> Router {
    let attempts = Attempts::new(registry.clone());
    Router::new()
        .route("/v1/queue", get(queue))
        .route("/v1/checkpoints/{id}", get(show))
        .route("/v1/checkpoints/{id}/decide", post(decide))
        .route("/v1/runs/{id}/{order}", post(control))
        .route("/v1/history", get(history))
        .route("/v1/approvers", get(approvers).post(enrol))
        .route("/v1/approvers/{name}", delete(unenrol))
        .route("/v1/specifications", post(add_specification))
        .route("/v1/tokens", get(export_tokens).post(add_token))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn(only_the_owner))
        .with_state(Plane { registry, attempts })
}

#[derive(Clone)]
struct Plane {
    registry: Registry,
    attempts: Attempts,
}

/// An error with the status that fits its code.
struct Failure(RegistryError);

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (status(&self.0), Json(self.0)).into_response()
    }
}

/// The HTTP status of an error, for page and socket alike.
pub(super) fn status(error: &RegistryError) -> StatusCode {
    match error.code.as_str() {
        "NOT_THE_OWNER" | "SECRET_WRONG" | "CODE_WRONG" => StatusCode::FORBIDDEN,
        "TOO_MANY_ATTEMPTS" => StatusCode::TOO_MANY_REQUESTS,
        "INTERNAL" | "RECORD_UNPROVEN" => StatusCode::INTERNAL_SERVER_ERROR,
        "REASON_REQUIRED" | "BAD_REQUEST" => StatusCode::UNPROCESSABLE_ENTITY,
        code if code.ends_with("_NOT_FOUND") => StatusCode::NOT_FOUND,
        _ => StatusCode::CONFLICT,
    }
}

/// Root and the uid that the registry runs under. Agents of other users reach the socket's folder no more than its file.
async fn only_the_owner(
    peer: Option<Extension<PeerUid>>,
    request: Request,
    next: Next,
) -> Response {
    let own = rustix::process::geteuid().as_raw();
    match peer {
        Some(Extension(PeerUid(uid))) if uid == 0 || uid == own => next.run(request).await,
        _ => Failure(RegistryError::new(
            "NOT_THE_OWNER",
            "this socket is for the owner of the registry's state directory",
            "run the command as that user, or as root",
        ))
        .into_response(),
    }
}

async fn queue(State(plane): State<Plane>) -> Result<Json<Queue>, Failure> {
    let registry = plane.registry.clone();
    let (checkpoints, runs) = blocking(move || whole_queue(&registry)).await?;
    Ok(Json(Queue {
        page: plane.registry.page(),
        checkpoints,
        runs,
    }))
}

async fn show(
    State(plane): State<Plane>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    Path(id): Path<String>,
) -> Result<Json<CheckpointView>, Failure> {
    let view = blocking(move || {
        let file = plane.registry.checkpoint_file(&id)?;
        plane.registry.mark_viewed(&id, &format!("uid:{uid}"));
        Ok(CheckpointView::of(&file, OffsetDateTime::now_utc()))
    });
    Ok(Json(view.await?))
}

async fn decide(
    State(plane): State<Plane>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    Path(id): Path<String>,
    Json(asked): Json<Decide>,
) -> Result<Json<Receipt>, Failure> {
    let name = asked.approver.clone();
    let input = DecisionInput {
        checkpoint_id: id.clone(),
        verdict: asked.verdict,
        reason: asked.reason,
        reason_code: asked.reason_code,
        is_final: asked.is_final,
        return_to: asked.return_to,
        code: asked.code,
        approver: asked.approver,
        secret: Zeroizing::new(asked.secret),
        accepted_unknown: asked.accepted_unknown,
        approver_uid: Some(uid),
        shown_digest: Some(asked.shown_digest),
    };
    let decision = plane.registry.decide(input);
    Ok(Json(
        plane
            .attempts
            .make(&source(uid), &name, Some(&id), decision)
            .await?,
    ))
}

async fn control(
    State(plane): State<Plane>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    Path((run_id, order)): Path<(String, String)>,
    Json(asked): Json<Control>,
) -> Result<Json<Controlled>, Failure> {
    let (registry, run, by) = (
        plane.registry.clone(),
        run_id.clone(),
        format!("human:uid:{uid}"),
    );
    // Stopping never waits for a secret or a delay: it is what one does when something goes wrong.
    let state = match order.as_str() {
        "cancel" => blocking(move || registry.cancel(&run, &by, &asked.reason)).await?,
        "pause" => blocking(move || registry.pause(&run, &by, &asked.reason)).await?,
        "kill" => blocking(move || registry.kill(&run, &by, &asked.reason)).await?,
        "resume" => {
            let approver = asked.approver.unwrap_or_default();
            let secret = Zeroizing::new(asked.secret.unwrap_or_default());
            let name = approver.clone();
            let resume = blocking(move || registry.resume(&run, &approver, &secret, &asked.reason));
            plane
                .attempts
                .make(&source(uid), &name, None, resume)
                .await?
        }
        other => {
            return Err(Failure(RegistryError::new(
                "ORDER_NOT_FOUND",
                format!(
                    "a run has no order `{}`",
                    shared::visible::machine(other, false)
                ),
                "cancel, pause, resume and kill are known",
            )));
        }
    };
    Ok(Json(Controlled {
        run_id,
        state,
        paused: order == "pause",
    }))
}

async fn history(State(plane): State<Plane>) -> Result<Json<Vec<HistoryEntry>>, Failure> {
    Ok(Json(
        blocking(move || plane.registry.history(HISTORY)).await?,
    ))
}

async fn approvers(State(plane): State<Plane>) -> Result<Json<Vec<EnrolledApprover>>, Failure> {
    Ok(Json(blocking(move || plane.registry.approvers()).await?))
}

async fn enrol(
    State(plane): State<Plane>,
    Json(asked): Json<Enrol>,
) -> Result<StatusCode, Failure> {
    let secret = Zeroizing::new(asked.secret);
    blocking(move || plane.registry.enrol(&asked.name, &secret, asked.is_test)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unenrol(
    State(plane): State<Plane>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    blocking(move || plane.registry.unenrol(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn add_specification(
    State(plane): State<Plane>,
    Extension(PeerUid(uid)): Extension<PeerUid>,
    Query(named): Query<Named>,
    text: Bytes,
) -> Result<Json<AddedSpecification>, Failure> {
    let by = format!("human:uid:{uid}");
    let added = blocking(move || {
        plane
            .registry
            .add_specification(&text, named.spec_id.as_deref(), &by)
    })
    .await?;
    Ok(Json(added))
}

async fn add_token(
    State(plane): State<Plane>,
    Json(asked): Json<AddToken>,
) -> Result<Json<AddedToken>, Failure> {
    let new = blocking(move || {
        plane
            .registry
            .add_token(asked.kind, &asked.name, asked.server.as_deref())
    })
    .await?;
    Ok(Json(AddedToken {
        principal: new.principal,
        kind: new.kind,
        server: new.server,
        token: new.token.to_string(),
        registry_key: new.registry_key,
    }))
}

async fn export_tokens(State(plane): State<Plane>) -> Result<String, Failure> {
    Ok(blocking(move || plane.registry.export_tokens()).await?)
}

fn source(uid: u32) -> String {
    format!("uid:{uid}")
}
