//! `/v1/doctor`.

use axum::extract::State;
use axum::response::Response;

use super::Shared;
use super::answer::{Failure, ok};
use super::ask::NoQuery;
use crate::app::doctor;

pub(super) async fn doctor_get(
    State(http): State<Shared>,
    _: NoQuery,
) -> Result<Response, Failure> {
    Ok(ok(&doctor::doctor_get(&http.app).await?))
}

pub(super) async fn doctor_fix(
    State(http): State<Shared>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { doctor::doctor_fix(&app).await };
    Ok(ok(&http.app.detached(work).await??))
}
