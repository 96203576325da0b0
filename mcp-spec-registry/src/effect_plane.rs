//! The effect plane over HTTP on its unix socket: authenticates services and passes their questions to the registry.

use std::time::Duration;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State, rejection::BytesRejection},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use shared::{
    effect::protocol::{Begin, End, Hello, Refusal, RefusedCall, Welcome, WorkResult},
    serve::Json,
};

use crate::{
    daemon::PeerUid,
    registry::{Registry, RegistryError, blocking},
    store::TokenKind,
};

/// Longest wait of one request for work.
const LONGEST_POLL: Duration = Duration::from_secs(25);
/// Largest request; a declaration of all tools is the largest there is.
const MOST_BYTES: usize = 512 * 1024;

/// The routes of the effect plane.
pub(crate) fn router(registry: Registry) -> Router {
    Router::new()
        .route("/v1/hello", post(hello).get(look))
        .route("/v1/actions/begin", post(begin))
        .route("/v1/actions/end", post(end))
        .route("/v1/actions/refused", post(refused))
        .route("/v1/work", get(next_work))
        .route("/v1/work/{id}", post(answer_work))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(registry)
}

/// The service that a request's token belongs to.
struct Service(String);

impl FromRequestParts<Registry> for Service {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        registry: &Registry,
    ) -> Result<Self, Self::Rejection> {
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        // One row by its key: handing that to another thread takes longer than to read it.
        let row = registry.principal_of(token)?;
        match row.filter(|row| row.kind == TokenKind::Service) {
            Some(row) => Ok(Self(row.principal)),
            None => Err(Failure(
                StatusCode::UNAUTHORIZED,
                RegistryError::new(
                    "UNAUTHENTICATED",
                    "no service has this token",
                    "make one with `mcp-spec-registry token add --kind service --name NAME --server SERVER --out FILE`",
                ),
            )),
        }
    }
}

async fn hello(
    State(registry): State<Registry>,
    Service(service): Service,
    peer: Option<Extension<PeerUid>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let hello: Hello = parse(body)?;
    let uid = peer.map(|Extension(PeerUid(uid))| uid);
    answer(move || registry.hello(&service, uid, hello)).await
}

async fn look(
    State(registry): State<Registry>,
    Service(service): Service,
) -> Result<Response, Failure> {
    answer(move || {
        Ok(Welcome {
            service,
            last_seq: 0,
            audit_head: registry.signed_head()?,
        })
    })
    .await
}

async fn begin(
    State(registry): State<Registry>,
    Service(service): Service,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let request: Begin = parse(body)?;
    answer(move || registry.begin(&service, &request)).await
}

async fn end(
    State(registry): State<Registry>,
    Service(service): Service,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let report: End = parse(body)?;
    answer(move || registry.end(&service, &report)).await
}

async fn refused(
    State(registry): State<Registry>,
    Service(service): Service,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let refused: RefusedCall = parse(body)?;
    answer(move || registry.refused(&service, &refused)).await
}

#[derive(Deserialize)]
struct WorkQuery {
    /// Which process asks; orders are for the service as a whole, and its newest process is the one that has its sessions.
    #[serde(rename = "instance")]
    _instance: String,
}

async fn next_work(
    State(registry): State<Registry>,
    Service(service): Service,
    Query(_): Query<WorkQuery>,
) -> Response {
    match registry.work().next(&service, LONGEST_POLL).await {
        Some(work) => Json(work).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn answer_work(
    State(registry): State<Registry>,
    Service(service): Service,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let result: WorkResult = parse(body)?;
    // Nobody may wait for it any more; the server has done its part.
    registry.work().answer(&service, &id, result);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn answer<T: serde::Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<Response, Failure> {
    Ok(Json(blocking(work).await?).into_response())
}

fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Failure> {
    let bad = |status, message: String| {
        let hint = "send the JSON that docs/contracts.md describes";
        Failure(status, RegistryError::new("BAD_REQUEST", message, hint))
    };
    let body = body.map_err(|rejection| bad(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| bad(StatusCode::BAD_REQUEST, error.to_string()))
}

/// A refusal as it goes over the wire.
struct Failure(StatusCode, RegistryError);

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        let status = match error.code.as_str() {
            "INTERNAL" => StatusCode::INTERNAL_SERVER_ERROR,
            "BUSY" | "CONFLICT" | "IDEMPOTENCY_CONFLICT" | "ACTION_ENDED" => StatusCode::CONFLICT,
            _ => StatusCode::FORBIDDEN,
        };
        Self(status, error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let RegistryError {
            code,
            message,
            hint,
        } = self.1;
        (
            self.0,
            Json(Refusal {
                code,
                message,
                hint,
            }),
        )
            .into_response()
    }
}
