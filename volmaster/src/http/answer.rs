//! Answers and failures. One function turns a failure into a response: [`Failure::into_response`]
//! notes it, and `edge` writes the body, which has the request's id in it.

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use volapi::Problem;
use volapi::problem::{PROBLEM_JSON, REQUEST_ID};
use volcore::Kind;

use crate::app::Failing;

/// Why a request was not done.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: Kind,
    /// Where HTTP has a status of its own for the case (405).
    status: Option<StatusCode>,
    detail: String,
}

impl Failure {
    /// The request itself is wrong.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Failure::new(Kind::Invalid, detail)
    }

    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Failure { kind, status: None, detail: detail.into() }
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Failure { status: Some(status), ..self }
    }

    /// The response with this failure, and a line in the log. `headers` are kept (`Allow`).
    pub(super) fn write(self, operation: &str, id: &str, headers: &HeaderMap) -> Response {
        let Failure { kind, status, detail } = self;
        let mut problem = Problem::new(kind, detail, id);
        if let Some(status) = status {
            problem.status = status.as_u16();
            problem.title = status.canonical_reason().unwrap_or_default().to_lowercase();
        }
        let (status, error) = (problem.status, &problem.detail);
        if status >= 500 {
            tracing::error!(request_id = id, operation, status, kind = kind.as_str(), error);
        } else {
            tracing::info!(request_id = id, operation, status, kind = kind.as_str(), error);
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, &problem);
        let written = response.headers_mut();
        for (name, value) in headers {
            if !written.contains_key(name) {
                written.insert(name, value.clone());
            }
        }
        written.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Ok(id) = HeaderValue::from_str(id) {
            written.insert(REQUEST_ID, id);
        }
        response
    }
}

impl<E: Failing> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::new(error.kind(), volapi::problem::chain(&error))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A body of JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
        // Not reached: the bodies of the API always have a JSON form.
        Err(error) => Failure::new(Kind::Internal, error.to_string()).into_response(),
    }
}

/// 200 with a body of JSON.
pub(super) fn ok(body: &impl Serialize) -> Response {
    json(StatusCode::OK, body)
}

/// 204.
pub(super) fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
