//! `/v1/global`.

use axum::extract::State;
use axum::response::Response;
use volcore::global::Global;

use super::Shared;
use super::answer::{Failure, ok};
use super::ask::{Json, NoQuery};
use crate::app::global;

pub(super) async fn global_get(
    State(http): State<Shared>,
    _: NoQuery,
) -> Result<Response, Failure> {
    Ok(ok(&global::global_get(&http.app).await?))
}

pub(super) async fn global_upload(
    State(http): State<Shared>,
    _: NoQuery,
    Json(body): Json<Global>,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { global::global_upload(&app, body).await };
    Ok(ok(&http.app.detached(work).await??))
}
