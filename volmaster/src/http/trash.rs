//! `/v1/trash`.

use axum::extract::State;
use axum::response::Response;
use volapi::list::Listing;
use volapi::trash::RestoreTrash;

use super::Shared;
use super::answer::{Failure, done, ok};
use super::ask::{Json, NoQuery, Of, TrashId};
use super::volumes::shown_with_claim;
use crate::app::trash;

pub(super) async fn trash_list(
    State(http): State<Shared>,
    _: NoQuery,
) -> Result<Response, Failure> {
    Ok(ok(&Listing::whole(trash::trash_list(&http.app).await?)))
}

pub(super) async fn trash_get(
    State(http): State<Shared>,
    Of(TrashId(id)): Of<TrashId>,
    _: NoQuery,
) -> Result<Response, Failure> {
    Ok(ok(&trash::trash_get(&http.app, &id).await?))
}

pub(super) async fn trash_purge(
    State(http): State<Shared>,
    Of(TrashId(id)): Of<TrashId>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { trash::trash_purge(&app, &id).await };
    http.app.detached(work).await??;
    Ok(done())
}

pub(super) async fn trash_restore(
    State(http): State<Shared>,
    Of(TrashId(id)): Of<TrashId>,
    _: NoQuery,
    Json(body): Json<RestoreTrash>,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { trash::trash_restore(&app, &id, body.volume).await };
    let volume = http.app.detached(work).await??;
    Ok(ok(&shown_with_claim(&http.app, volume, None)))
}
