//! JSON as body of requests and answers.
//!
//! The framework has the same, but with it comes a feature of `serde_json` that is not wanted: with `raw_value`, an object with a certain
//! member is read as what stands in that member's text. Who sends it decides what others read of a message, and nests without an end.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

const JSON: &str = "application/json";

/// A body that is JSON. As an extractor it refuses other content types with 415, what is no JSON with 400, and JSON that does not fit
/// with 422.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        if !is_json(request.headers()) {
            let what = "send the header Content-Type: application/json";
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, what).into_response());
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(IntoResponse::into_response)?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            let status = if error.is_data() {
                StatusCode::UNPROCESSABLE_ENTITY
            } else {
                StatusCode::BAD_REQUEST
            };
            (status, error.to_string()).into_response()
        })
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let kind = HeaderValue::from_static(JSON);
                ([(header::CONTENT_TYPE, kind)], body).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "an answer is no JSON");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// Whether a request says that its body is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(JSON)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    #[test]
    fn no_object_is_read_as_anything_but_an_object() -> anyhow::Result<()> {
        for member in [
            "$serde_json::private::RawValue",
            "$serde_json::private::Number",
        ] {
            let object = json!({ member: "1" });
            let read: Value = serde_json::from_str(&object.to_string())?;
            assert_eq!(
                read, object,
                "a feature of serde_json is on that must not be"
            );
        }
        Ok(())
    }
}
