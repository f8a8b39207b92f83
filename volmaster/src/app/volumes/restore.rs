//! Restoring a removed volume: intent, image, commit; and going on with that where somebody left off.
//!
//! The record in the trash becomes the record of the volume in one step, so that nobody can free the space of what is
//! being restored, nor restore it twice.

use volcore::volume::{ImageFit, Volume, VolumeState};
use volstorage::image::{ImageError, TrashedImage};
use volstore::records::{Kept, Trash, TrashKind, Versioned};
use volstore::store::{Commit, Expect, Revision};

use super::{VolumeError, moved, note_error};
use crate::app::App;

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;

/// Takes the image of a volume in `restoring` out of the trash, and commits it.
pub(crate) async fn finish_restore(
    app: &App,
    restoring: Versioned<Volume>,
) -> Result<Volume, VolumeError> {
    let volume = &restoring.value;
    let _held = app.in_hand.hold(&volume.id);
    let VolumeState::Restoring { image_id, was, .. } = &volume.state else {
        return Ok(restoring.value);
    };
    let image = volume.image();
    let trashed =
        TrashedImage { pool: image.pool.clone(), id: image_id.clone(), name: was.clone() };
    match app.images.restore(&trashed, &image.name).await {
        Ok(_) => {
            let fit = ImageFit::Pending { since: app.now() };
            let ready = VolumeState::Ready { image_id: image_id.clone(), fit };
            settle(app, moved(volume, ready), restoring.at).await
        }
        Err(source) => {
            match &source {
                ImageError::Foreign { .. } => put_back(app, &restoring, &trashed).await?,
                // It is gone for good, and so is the volume.
                ImageError::NotInTrash { .. } | ImageError::NoPool { .. } => {
                    let changes = app.records.changes().delete_volume(&volume.id, restoring.at);
                    app.records.commit(changes).await?;
                }
                _ => note_error(app, &restoring, &source).await,
            }
            let volume = restoring.value.id;
            Err(VolumeError::Image { action: "restore", volume, source })
        }
    }
}

/// Commits that the image is there.
async fn settle(app: &App, ready: Volume, mut at: Revision) -> Result<Volume, VolumeError> {
    for _ in 0..ROUNDS {
        let changes = app.records.changes().put_volume(&ready, Expect::At(at));
        if let Commit::Done(_) = app.records.commit(changes).await? {
            return Ok(ready);
        }
        let found = app.records.volume(&ready.id).await?;
        match found.filter(|found| found.value.uid == ready.uid) {
            None => return Err(VolumeError::NotFound { volume: ready.id }),
            Some(found) => match &found.value.state {
                VolumeState::Restoring { .. } => at = found.at,
                VolumeState::Removing { .. } => {
                    return Err(VolumeError::RemovedMeanwhile { volume: ready.id });
                }
                VolumeState::Creating { .. }
                | VolumeState::Ready { .. }
                | VolumeState::RollingBack { .. }
                | VolumeState::Adopting { .. }
                | VolumeState::GivingBack { .. } => return Ok(found.value),
            },
        }
    }
    Err(VolumeError::Contended { volume: ready.id })
}

/// Another image has the name: the volume is in the trash again, for as long as it would have been from now on.
async fn put_back(
    app: &App,
    restoring: &Versioned<Volume>,
    trashed: &TrashedImage,
) -> Result<(), VolumeError> {
    let global = app.records.global().await?.map(|found| found.value).unwrap_or_default();
    let now = app.now();
    let until = now.checked_add(super::create::signed(global.trash_retention.get()));
    let Volume { id, uid, spec, policy_revision, created_at, flattening, .. } =
        restoring.value.clone();
    let TrashedImage { pool, id: image_id, name } = trashed.clone();
    let kind =
        TrashKind::Image { pool, id: image_id, name, purge_after: until.ok(), purging: false };
    let kept = Some(Kept { spec, policy_revision, created_at, flattening });
    let trash = Trash { volume: id.clone(), uid, since: now, kind, kept };
    let changes =
        app.records.changes().delete_volume(&id, restoring.at).put_trash(&trash, Expect::Absent);
    // A conflict says that somebody has gone on with it, who sees to it.
    app.records.commit(changes).await?;
    Ok(())
}
