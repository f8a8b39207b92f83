//! `/v1/volumes/{tenant}/{volume}/snapshots` and `/v1/schedules`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use volapi::list::{ListQuery, Listing};
use volapi::snapshots::{CreateSnapshot, SnapshotQuery};
use volcore::name::{SnapshotName, VolumeId};
use volstorage::image::SnapshotUsage;

use super::Shared;
use super::answer::{Failure, done, json, ok};
use super::ask::{Json, NoBody, NoQuery, Of, Query};
use super::volumes::shown_with_claim;
use crate::app::snapshots::{self, Taking};
use crate::app::{ListAsk, schedules};

pub(super) async fn snapshot_list(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    Query(query): Query<SnapshotQuery>,
) -> Result<Response, Failure> {
    let usage = if query.usage { SnapshotUsage::Count } else { SnapshotUsage::Skip };
    Ok(ok(&Listing::whole(snapshots::snapshot_list(&http.app, &id, usage).await?)))
}

pub(super) async fn snapshot_create(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    _: NoQuery,
    Json(body): Json<CreateSnapshot>,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { snapshots::snapshot_create(&app, &id, &body.name).await };
    Ok(match http.app.detached(work).await?? {
        Taking::Created(snapshot) => json(StatusCode::CREATED, &snapshot),
        Taking::Unchanged(snapshot) => ok(&snapshot),
    })
}

pub(super) async fn snapshot_get(
    State(http): State<Shared>,
    Of((id, snapshot)): Of<(VolumeId, SnapshotName)>,
    _: NoQuery,
) -> Result<Response, Failure> {
    Ok(ok(&snapshots::snapshot_get(&http.app, &id, &snapshot).await?))
}

pub(super) async fn snapshot_remove(
    State(http): State<Shared>,
    Of((id, snapshot)): Of<(VolumeId, SnapshotName)>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { snapshots::snapshot_remove(&app, &id, &snapshot).await };
    http.app.detached(work).await??;
    Ok(done())
}

pub(super) async fn snapshot_rollback(
    State(http): State<Shared>,
    Of((id, snapshot)): Of<(VolumeId, SnapshotName)>,
    _: NoQuery,
    _: NoBody,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { snapshots::snapshot_rollback(&app, &id, &snapshot).await };
    let volume = http.app.detached(work).await??;
    Ok(ok(&shown_with_claim(&http.app, volume, None)))
}

pub(super) async fn schedule_list(
    State(http): State<Shared>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let ask = ListAsk::read(&query)?;
    schedules::schedule_sync(&http.app).await?;
    let (items, next) = schedules::schedule_list(&http.app, &ask);
    Ok(ok(&Listing { items, next: next.map(|next| next.to_string()) }))
}

pub(super) async fn schedule_due(
    State(http): State<Shared>,
    _: NoQuery,
) -> Result<Response, Failure> {
    schedules::schedule_sync(&http.app).await?;
    Ok(ok(&schedules::schedule_due(&http.app)))
}
