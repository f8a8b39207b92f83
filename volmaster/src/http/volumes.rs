//! `/v1/volumes`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use volapi::list::{ListQuery, Listing, View};
use volapi::mounts::Mount;
use volapi::volumes::{
    AdoptVolume, CreateVolume, DisposalQuery, RemoveQuery, Removed, SetVolume, Volume, VolumeBrief,
};
use volcore::claim::Claim;
use volcore::live::LiveChange;
use volcore::name::VolumeId;
use volcore::options::OptionSet;
use volcore::volume::Disposal;

use super::Shared;
use super::answer::{Failure, json, ok};
use super::ask::{Json, NoBody, NoQuery, Of, Query};
use super::pages::PageKey;
use crate::app::volumes::{self, Creation, LeftBehind, RemoveAsk, Setting, VolumeError};
use crate::app::{App, ListAsk, Slice, schedules};

pub(super) async fn volume_list(
    State(http): State<Shared>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let ask = ListAsk::read(&query)?;
    volumes::volume_sync(&http.app).await?;
    // Read before the records are: what is listed may be newer than it, never older.
    let [volumes, claims] = volumes::volume_generations(&http.app);
    let (operation, is_brief) = ("volume_list", query.view == Some(View::Brief));
    let claims = if is_brief { 0 } else { claims };
    let key = PageKey { operation, query, generations: [volumes, claims] };
    if is_brief {
        return Ok(http.pages.answer(key, &headers, || {
            let Slice { records, more } = volumes::volume_list(&http.app, &ask);
            let next = next(&records, more);
            let items = records.iter().map(|volume| VolumeBrief::from(volume.as_ref())).collect();
            Listing::<VolumeBrief> { items, next }
        }));
    }
    Ok(http.pages.answer(key, &headers, || {
        let app = &http.app;
        let Slice { records, more } = volumes::volume_list(app, &ask);
        let one = |volume: &volcore::volume::Volume| {
            let claim = volumes::claim_shown(app, &volume.id);
            shown_with_claim(app, volume.clone(), claim.map(|claim| claim.as_ref().clone()))
        };
        let next = next(&records, more);
        Listing { items: records.iter().map(|volume| one(volume)).collect(), next }
    }))
}

fn next(records: &[Arc<volcore::volume::Volume>], more: bool) -> Option<String> {
    records.last().filter(|_| more).map(|last| last.id.to_string())
}

pub(super) async fn volume_get(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let (volume, claim) = volumes::volume_get(&http.app, &id).await?;
    Ok(ok(&shown_with_claim(&http.app, volume, claim)))
}

pub(super) async fn volume_create(
    State(http): State<Shared>,
    _: NoQuery,
    Json(body): Json<CreateVolume>,
) -> Result<Response, Failure> {
    let CreateVolume { tenant, name, options } = body;
    let id = VolumeId::new(tenant, name);
    let asked = OptionSet::from_driver_options(&options).map_err(VolumeError::from)?;
    let app = http.app.clone();
    let work = async move { volumes::volume_create(&app, &id, &asked).await };
    let (status, volume) = match http.app.detached(work).await?? {
        Creation::Created(volume) => (StatusCode::CREATED, volume),
        Creation::Unchanged(volume) => (StatusCode::OK, volume),
    };
    Ok(json(status, &shown_with_claim(&http.app, volume, None)))
}

pub(super) async fn volume_adopt(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    _: NoQuery,
    Json(body): Json<AdoptVolume>,
) -> Result<Response, Failure> {
    let asked = OptionSet::from_driver_options(&body.options).map_err(VolumeError::from)?;
    let app = http.app.clone();
    let work = async move { volumes::volume_adopt(&app, &id, &asked).await };
    let (status, volume) = match http.app.detached(work).await?? {
        Creation::Created(volume) => (StatusCode::CREATED, volume),
        Creation::Unchanged(volume) => (StatusCode::OK, volume),
    };
    Ok(json(status, &shown_with_claim(&http.app, volume, None)))
}

pub(super) async fn volume_set(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    _: NoQuery,
    Json(body): Json<SetVolume>,
) -> Result<Response, Failure> {
    let change = LiveChange::from_driver_options(&body.options).map_err(VolumeError::from)?;
    let app = http.app.clone();
    let work = async move {
        let (Setting::Changed(volume) | Setting::Unchanged(volume)) =
            volumes::volume_set(&app, &id, &change).await?;
        let (_, claim) = volumes::volume_get(&app, &id).await?;
        Ok::<_, VolumeError>((volume, claim))
    };
    let (volume, claim) = http.app.detached(work).await??;
    Ok(ok(&shown_with_claim(&http.app, volume, claim)))
}

pub(super) async fn volume_flatten(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    _: NoQuery,
    _: NoBody,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move {
        volumes::volume_flatten(&app, &id).await?;
        volumes::volume_get(&app, &id).await
    };
    let (volume, claim) = http.app.detached(work).await??;
    Ok(ok(&shown_with_claim(&http.app, volume, claim)))
}

pub(super) async fn volume_remove(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    Query(query): Query<RemoveQuery>,
) -> Result<Response, Failure> {
    let ask = remove_ask(query)?;
    let (app, volume) = (http.app.clone(), id.clone());
    let work = async move { volumes::volume_remove(&app, &id, ask).await };
    let left = http.app.detached(work).await??.left;
    let left_behind = match &left {
        LeftBehind::Nothing => None,
        LeftBehind::Image(_) | LeftBehind::Trash(_) => Some(left.to_string()),
    };
    Ok(ok(&Removed { volume, left_behind }))
}

fn remove_ask(query: RemoveQuery) -> Result<RemoveAsk, Failure> {
    let RemoveQuery { metadata_only, disposal } = query;
    match (metadata_only, disposal) {
        (true, Some(_)) => {
            Err(Failure::invalid("metadata-only leaves the image alone, so it has no disposal"))
        }
        (true, None) => Ok(RemoveAsk::MetadataOnly),
        (false, None) => Ok(RemoveAsk::AsConfigured),
        (false, Some(DisposalQuery::Delete)) => Ok(RemoveAsk::With(Disposal::Delete)),
        (false, Some(DisposalQuery::Trash)) => Ok(RemoveAsk::With(Disposal::Trash)),
    }
}

pub(super) fn shown_with_claim(
    app: &App,
    volume: volcore::volume::Volume,
    claim: Option<Claim>,
) -> Volume {
    let image = volumes::image_shown(app, &volume.image());
    let schedule = schedules::schedule_shown(app, &volume);
    let percent = app.copying.percent(volume.uid);
    let mut shown = Volume::new(volume, image, claim.and_then(Mount::from_claim), schedule);
    if let Some(flattening) = &mut shown.flattening {
        flattening.percent = percent;
    }
    shown
}
