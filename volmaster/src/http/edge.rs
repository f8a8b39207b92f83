//! What every request passes: its id, its deadline, its count and its line in the log.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ALLOW, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use uuid::Uuid;
use volapi::problem::REQUEST_ID;
use volapi::routes::ROUTES;
use volcore::Kind;

use super::Shared;
use super::answer::Failure;

/// The operation of requests that are none.
const NO_OPERATION: &str = "none";

/// The way of a request.
pub(super) async fn edge(State(http): State<Shared>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let operation = operation(request.method(), path);
    let deadline = match *request.method() {
        // It looks at every image there is.
        _ if operation == "doctor_get" => http.limits.change,
        Method::GET | Method::HEAD => http.limits.read,
        _ => http.limits.change,
    };
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let response = match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(response)) => finish(response, operation, &id),
        Ok(Err(_panic)) => {
            let failure = Failure::new(Kind::Internal, "the request met a fault of volmaster");
            failure.write(operation, &id, &HeaderMap::new())
        }
        Err(_) => late(deadline).write(operation, &id, &HeaderMap::new()),
    };
    let (status, took) = (response.status().as_u16(), began.elapsed());
    http.metrics.request(operation, status, took);
    tracing::debug!(request_id = id, operation, status, ?took, "answered");
    response
}

fn late(deadline: Duration) -> Failure {
    let detail = format!(
        "no answer from the store or the images within {deadline:?}; what was begun goes on, ask again"
    );
    Failure::new(Kind::Unavailable, detail)
}

/// Writes the body of a failure, or the id on a success.
fn finish(mut response: Response, operation: &'static str, id: &str) -> Response {
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let mut headers = HeaderMap::new();
        if let Some(allow) = response.headers().get(ALLOW) {
            headers.insert(ALLOW, allow.clone());
        }
        return failure.write(operation, id, &headers);
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The client's own id where it can stand in a log line, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let sane = |id: &&str| {
        !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    given.filter(sane).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

fn operation(method: &Method, path: Option<&str>) -> &'static str {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let route = ROUTES.iter().find(|route| route.method == method && Some(route.path) == path);
    route.map_or(NO_OPERATION, |route| route.operation)
}

/// 404 for a path that is none. Its kind is not `not_found`: that speaks of objects alone, and a client
/// that asks for a route of another version must not take it for "no such volume".
pub(super) async fn unknown_path(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = format!("there is no path {path}; /v1/openapi.json has them all");
    Failure::invalid(detail).with_status(StatusCode::NOT_FOUND)
}

/// 405 for a method that a path does not have; which ones it has is in the header `Allow`.
pub(super) async fn wrong_method(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(200).collect();
    let method: String = request.method().as_str().chars().take(20).collect();
    Failure::invalid(format!("{path} has no method {method}"))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
}
