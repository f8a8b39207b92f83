//! `/v1/status`, `/healthz`, `/readyz`, `/metrics`, `/v1/openapi.json`, `/v1`.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use volapi::routes;
use volapi::status::Health;
use volcore::Kind;

use super::Shared;
use super::answer::{Failure, ok};
use super::ask::NoQuery;
use crate::app::status;

/// This program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) async fn status_get(
    State(http): State<Shared>,
    _: NoQuery,
) -> Result<Response, Failure> {
    Ok(ok(&status::status_get(&http.app).await))
}

pub(super) async fn healthz() -> Response {
    ok(&Health { status: "ok".to_owned() })
}

pub(super) async fn readyz(State(http): State<Shared>) -> Result<Response, Failure> {
    status::readyz(&http.app).await?;
    Ok(ok(&Health { status: "ok".to_owned() }))
}

pub(super) async fn metrics(State(http): State<Shared>) -> Result<Response, Failure> {
    let counts = status::counts(&http.app);
    let text = http.metrics.text(counts, &http.app.loops.counts());
    let text = text.map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, format)], text).into_response())
}

pub(super) fn openapi_document() -> Bytes {
    let document = volapi::openapi::document(VERSION);
    // A document always has a JSON form.
    Bytes::from(serde_json::to_vec(&document).unwrap_or_default())
}

pub(super) async fn openapi_get(
    State(http): State<Shared>,
    _: NoQuery,
) -> Result<Response, Failure> {
    Ok(([(CONTENT_TYPE, "application/json")], http.openapi.clone()).into_response())
}

/// What `/v1` says.
#[derive(Serialize)]
struct Root {
    name: &'static str,
    version: &'static str,
    openapi: &'static str,
}

pub(super) async fn root(_: NoQuery) -> Result<Response, Failure> {
    Ok(ok(&Root { name: "volmaster", version: VERSION, openapi: routes::OPENAPI }))
}
