//! Adopting an image that was there before its volume: intent, image, commit; and going on with that, or back, where
//! somebody left off.
//!
//! The image is looked at before the intent is stored, so that one that cannot be taken leaves no trace. The intent says
//! whose the image was: whoever finds it can go on, and where nothing comes of it the image is made what it was. To go
//! back is an intent of its own, so that nobody gives back what another has made a volume meanwhile.

use volcore::Kind;
use volcore::name::VolumeId;
use volcore::options::OptionSet;
use volcore::policy::Tenant;
use volcore::spec::{FoundImage, VolumeSpec};
use volcore::volume::{
    AdoptDecision, Flattening, ImageFit, ImageName, Volume, VolumeState, volume_adopt as decide,
};
use volstorage::image::{Adoptable, Adoption, ImageError};
use volstore::records::Versioned;
use volstore::store::{Commit, Expect, Revision};

use uuid::Uuid;

use super::remove::{Beside, LeftBehind, Removal};
use super::{Creation, VolumeError, fit, moved, note_error, volume_sync};
use crate::app::{App, ListError};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;

/// Makes the image that has a volume's name that volume's own, or finds that it is.
pub async fn volume_adopt(
    app: &App,
    id: &VolumeId,
    asked: &OptionSet,
) -> Result<Creation, VolumeError> {
    for _ in 0..ROUNDS {
        let (volume, tenant) = tokio::join!(app.records.volume(id), app.records.tenant(&id.tenant));
        let volume = volume?;
        match (decide(volume.as_ref().map(|v| &v.value), asked)?, volume) {
            (AdoptDecision::Unchanged, Some(volume)) => {
                return Ok(Creation::Unchanged(volume.value));
            }
            (AdoptDecision::Continue, Some(volume)) => {
                return finish_adopt(app, volume).await.map(Creation::Created);
            }
            (AdoptDecision::New | AdoptDecision::Unchanged | AdoptDecision::Continue, _) => {
                let none = || VolumeError::NoTenant { tenant: id.tenant.clone() };
                let tenant = tenant?.ok_or_else(none)?;
                if let Some(intent) = begin(app, id, asked, &tenant).await? {
                    return finish_adopt(app, intent).await.map(Creation::Created);
                }
            }
        }
    }
    Err(VolumeError::Contended { volume: id.clone() })
}

/// Looks at the image and stores the intent; `None` where somebody else was faster.
async fn begin(
    app: &App,
    id: &VolumeId,
    asked: &OptionSet,
    tenant: &Versioned<Tenant>,
) -> Result<Option<Versioned<Volume>>, VolumeError> {
    let policy = &tenant.value.policy;
    let pool = VolumeSpec::pool(policy, asked, &app.default_pool);
    let image = ImageName { pool, name: id.image_name() };
    let Adoptable { id: image_id, uid: former, size: bytes, filesystem } =
        app.images.adoptable(&image).await.map_err(failed(id))?;
    if let Some(former) = former {
        refuse_if_anothers(app, id, &image, former).await?;
    }
    let found = FoundImage { image, bytes, filesystem };
    let spec = VolumeSpec::freeze_adopted(policy, asked.clone(), &app.default_pool, &found);
    let now = app.now();
    let volume = Volume {
        id: id.clone(),
        uid: Uuid::new_v4(),
        spec: spec.map_err(|source| VolumeError::NotAdoptable { volume: id.clone(), source })?,
        policy_revision: tenant.value.revision,
        created_at: now,
        state: VolumeState::Adopting { since: now, image_id, former },
        flattening: Flattening::NotAsked,
        last_error: None,
    };
    let changes = app
        .records
        .changes()
        .put_volume(&volume, Expect::Absent)
        .check_tenant(&id.tenant, Expect::At(tenant.at));
    Ok(match app.records.commit(changes).await? {
        Commit::Done(at) => Some(Versioned { value: volume, at }),
        Commit::Conflict => None,
    })
}

fn failed(id: &VolumeId) -> impl FnOnce(ImageError) -> VolumeError {
    let volume = id.clone();
    |source| match source {
        ImageError::NoImage { image } => VolumeError::NothingToAdopt { volume, image },
        source => VolumeError::Image { action: "adopt an image for", volume, source },
    }
}

/// Refuses an image that was made for a volume which is still there.
async fn refuse_if_anothers(
    app: &App,
    id: &VolumeId,
    image: &ImageName,
    uid: Uuid,
) -> Result<(), VolumeError> {
    volume_sync(app).await.map_err(|error| match error {
        ListError::Store(error) => VolumeError::Store(error),
        error => VolumeError::Unsure { volume: id.clone(), source: Box::new(error) },
    })?;
    let owner = app.mirrors.volumes.read(|view| {
        let mut all = view.records().values().map(|kept| &kept.record);
        all.find(|volume| volume.uid == uid).map(|volume| volume.id.clone())
    });
    match owner {
        // Others have adopted it a moment ago, and the record says so by now.
        Some(owner) if owner == *id => Err(VolumeError::Contended { volume: id.clone() }),
        Some(owner) => {
            let (volume, image) = (id.clone(), image.clone());
            Err(VolumeError::Anothers { volume, image, owner })
        }
        None => Ok(()),
    }
}

/// What is done to the image of a volume in one of these states.
fn adoption(volume: &Volume) -> Option<Adoption> {
    match &volume.state {
        VolumeState::Adopting { image_id, former, .. }
        | VolumeState::GivingBack { image_id, former, .. } => Some(Adoption {
            image: volume.image(),
            image_id: image_id.clone(),
            uid: volume.uid,
            former: *former,
        }),
        VolumeState::Creating { .. }
        | VolumeState::Ready { .. }
        | VolumeState::RollingBack { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::Removing { .. } => None,
    }
}

/// Makes the image of a volume in `adopting` its own, and commits it.
pub(crate) async fn finish_adopt(
    app: &App,
    adopting: Versioned<Volume>,
) -> Result<Volume, VolumeError> {
    let id = adopting.value.id.clone();
    let Some(adoption) = adoption(&adopting.value) else { return Ok(adopting.value) };
    let _held = app.in_hand.hold(&id);
    match app.images.adopt(&adoption).await {
        Ok(image_id) => {
            let pending = ImageFit::Pending { since: app.now() };
            let ready = moved(&adopting.value, VolumeState::Ready { image_id, fit: pending });
            let settled = settle(app, ready, adopting.at, &adoption).await?;
            fit(app, settled).await
        }
        // Whether it was done will be known when the images answer again.
        Err(source) if source.kind() == Kind::Unavailable => {
            note_error(app, &adopting, &source).await;
            Err(failed(&id)(source))
        }
        Err(source) => match turn_back(app, adopting).await? {
            // Somebody else has made it a volume.
            Some(done) => Ok(done),
            None => Err(failed(&id)(source)),
        },
    }
}

/// Commits that the image is the volume's.
async fn settle(
    app: &App,
    ready: Volume,
    mut at: Revision,
    adoption: &Adoption,
) -> Result<Versioned<Volume>, VolumeError> {
    for _ in 0..ROUNDS {
        let changes = app.records.changes().put_volume(&ready, Expect::At(at));
        if let Commit::Done(at) = app.records.commit(changes).await? {
            return Ok(Versioned { value: ready, at });
        }
        let found = app.records.volume(&ready.id).await?;
        match found.filter(|found| found.value.uid == ready.uid) {
            Some(found) => match &found.value.state {
                VolumeState::Adopting { .. } => at = found.at,
                VolumeState::GivingBack { .. } => {
                    finish_give_back(app, found).await?;
                    return Err(VolumeError::RemovedMeanwhile { volume: ready.id });
                }
                VolumeState::Removing { .. } => {
                    return Err(VolumeError::RemovedMeanwhile { volume: ready.id });
                }
                VolumeState::Creating { .. }
                | VolumeState::Ready { .. }
                | VolumeState::RollingBack { .. }
                | VolumeState::Restoring { .. } => return Ok(found),
            },
            None => {
                // It was given back and forgotten while this was under way.
                let given = app.images.give_back(adoption).await;
                given.map_err(failed(&ready.id))?;
                return Err(VolumeError::RemovedMeanwhile { volume: ready.id });
            }
        }
    }
    Err(VolumeError::Contended { volume: ready.id })
}

/// Nothing comes of it: stores that, and gives the image back. Answers with the volume where somebody else has made it
/// one.
async fn turn_back(app: &App, adopting: Versioned<Volume>) -> Result<Option<Volume>, VolumeError> {
    let Versioned { value: mut volume, mut at } = adopting;
    for _ in 0..ROUNDS {
        let VolumeState::Adopting { image_id, former, .. } = volume.state.clone() else { break };
        let back = moved(&volume, VolumeState::GivingBack { since: app.now(), image_id, former });
        let changes = app.records.changes().put_volume(&back, Expect::At(at));
        if let Commit::Done(at) = app.records.commit(changes).await? {
            // What is left of it is the reconciler's; who asked wants to know why it was not adopted.
            let given = finish_give_back(app, Versioned { value: back, at }).await;
            if let Err(error) = given {
                let (volume, error) = (&volume.id, volapi::problem::chain(&error));
                tracing::warn!(%volume, error, "an image is not given back yet");
            }
            return Ok(None);
        }
        let found = app.records.volume(&volume.id).await?;
        match found.filter(|found| found.value.uid == volume.uid) {
            None => return Ok(None),
            Some(found) => Versioned { value: volume, at } = found,
        }
    }
    let is_made =
        matches!(volume.state, VolumeState::Ready { .. } | VolumeState::RollingBack { .. });
    Ok(is_made.then_some(volume))
}

/// Makes the image of a volume in `giving-back` what it was, and deletes the volume.
pub(crate) async fn finish_give_back(
    app: &App,
    back: Versioned<Volume>,
) -> Result<Removal, VolumeError> {
    let id = &back.value.id;
    let left = LeftBehind::Image(app.images.source(&back.value.image()));
    let Some(adoption) = adoption(&back.value) else { return Ok(Removal { left }) };
    let _held = app.in_hand.hold(id);
    match app.images.give_back(&adoption).await {
        // With the pool went the image.
        Ok(()) | Err(ImageError::NoPool { .. }) => {}
        Err(source) => {
            note_error(app, &back, &source).await;
            let volume = back.value.id;
            return Err(VolumeError::Image { action: "give back the image of", volume, source });
        }
    }
    let mut at = back.at;
    for _ in 0..ROUNDS {
        let beside = Beside::of(app, id).await?;
        let changes = beside.drop(app.records.changes().delete_volume(id, at), id);
        if let Commit::Done(_) = app.records.commit(changes).await? {
            return Ok(Removal { left });
        }
        let found = app.records.volume(id).await?;
        match found.filter(|found| found.value.uid == back.value.uid) {
            None => return Ok(Removal { left }),
            Some(found) => at = found.at,
        }
    }
    Err(VolumeError::Contended { volume: id.clone() })
}
