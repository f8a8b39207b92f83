//! `/v1/mounts`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use volapi::list::{ListQuery, Listing};
use volapi::mounts::{ClaimMount, Mount, ReleaseQuery};
use volcore::name::VolumeId;

use super::Shared;
use super::answer::{Failure, done, json, ok};
use super::ask::{Json, NoQuery, Of, Query};
use super::pages::PageKey;
use crate::app::mounts::{self, Granted, MountError, ReleaseAsk};
use crate::app::{ListAsk, Slice};

pub(super) async fn mount_list(
    State(http): State<Shared>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let ask = ListAsk::read(&query)?;
    mounts::mount_sync(&http.app).await?;
    let generations = [mounts::mount_generation(&http.app), 0];
    let key = PageKey { operation: "mount_list", query, generations };
    Ok(http.pages.answer(key, &headers, || {
        let Slice { records, more } = mounts::mount_list(&http.app, &ask);
        let next = records.last().filter(|_| more).map(|last| last.volume.to_string());
        let one = |claim: &volcore::claim::Claim| Mount::from_claim(claim.clone());
        Listing { items: records.iter().filter_map(|claim| one(claim)).collect(), next }
    }))
}

pub(super) async fn mount_get(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let claim = mounts::mount_get(&http.app, &id).await?;
    let mount = Mount::from_claim(claim).ok_or(MountError::NotClaimed { volume: id })?;
    Ok(ok(&mount))
}

pub(super) async fn mount_claim(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    _: NoQuery,
    Json(body): Json<ClaimMount>,
) -> Result<Response, Failure> {
    let (app, volume) = (http.app.clone(), id.clone());
    let work = async move { mounts::mount_claim(&app, &id, body.into()).await };
    let (status, claim) = match http.app.detached(work).await?? {
        Granted::Claimed(claim) => (StatusCode::CREATED, claim),
        Granted::Renewed(claim) => (StatusCode::OK, claim),
    };
    let mount = Mount::from_claim(claim).ok_or(MountError::NotClaimed { volume })?;
    Ok(json(status, &mount))
}

pub(super) async fn mount_release(
    State(http): State<Shared>,
    Of(id): Of<VolumeId>,
    Query(query): Query<ReleaseQuery>,
) -> Result<Response, Failure> {
    let ask = match query {
        ReleaseQuery { host: Some(host), boot_id: Some(boot), force: false, unfenced: false } => {
            ReleaseAsk::Holder { host, boot }
        }
        ReleaseQuery { host: None, boot_id: None, force: true, unfenced } => {
            if unfenced {
                ReleaseAsk::Unsafe
            } else {
                ReleaseAsk::Force
            }
        }
        ReleaseQuery { .. } => {
            return Err(Failure::invalid(
                "a release is by its holder (host and boot_id), or of the whole claim (force=true, with unsafe=true without fencing)",
            ));
        }
    };
    let app = http.app.clone();
    let work = async move { mounts::mount_release(&app, &id, &ask).await };
    http.app.detached(work).await??;
    Ok(done())
}
