//! Flattening a clone: the intent here, the work by whichever volmaster finds it.
//!
//! It takes as long as copying all data does, so nobody waits for it here. While somebody copies the record says so: that
//! keeps removals and rollbacks away, and is stored under the same precondition as they are, so that one of them begins.
//! Two who copy at once are harmless; the driver lets one of them do it.

use uuid::Uuid;
use volcore::name::VolumeId;
use volcore::volume::{FlattenDecision, Flattening, Volume};
use volstorage::image::ImageError;
use volstore::records::Versioned;
use volstore::store::{Commit, Expect, StoreError};

use super::VolumeError;
use crate::app::{App, LoopName};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;

/// Asks that a volume's image gets all of its data itself. Asked again, it is tried again at once.
pub async fn volume_flatten(app: &App, id: &VolumeId) -> Result<Volume, VolumeError> {
    for _ in 0..ROUNDS {
        let found = app.records.volume(id).await?;
        let found = found.ok_or_else(|| VolumeError::NotFound { volume: id.clone() })?;
        let asked = match volcore::volume::volume_flatten(&found.value, app.now())? {
            FlattenDecision::Unchanged => return Ok(found.value),
            FlattenDecision::Continue => found.value,
            FlattenDecision::Begin(asked) => {
                let changes = app.records.changes().put_volume(&asked, Expect::At(found.at));
                match app.records.commit(changes).await? {
                    Commit::Done(_) => *asked,
                    Commit::Conflict => continue,
                }
            }
        };
        app.loops.of(LoopName::Flattening).again(asked.uid);
        app.loops.nudge(LoopName::Flattening);
        return Ok(asked);
    }
    Err(VolumeError::Contended { volume: id.clone() })
}

/// Flattens the image of a volume of which that was asked, and notes what came of it.
pub(crate) async fn finish_flatten(app: &App, id: &VolumeId, uid: Uuid) -> Result<(), VolumeError> {
    let Some(volume) = note(app, id, uid, &|since| Flattening::UnderWay { since }).await? else {
        return Ok(());
    };
    let copy = app.copying.begin(uid);
    let flattened = app.images.flatten(&volume.image(), &copy.progress).await;
    drop(copy);
    let Err(source) = flattened else {
        note(app, id, uid, &|_| Flattening::Done).await?;
        return Ok(());
    };
    // Somebody else is at it: what comes of it is his to note.
    if !matches!(source, ImageError::InUse { .. }) {
        let reason = Some(volapi::problem::chain(&source));
        note(app, id, uid, &|since| Flattening::Pending { since, reason: reason.clone() }).await?;
    }
    Err(VolumeError::Image { action: "flatten", volume: id.clone(), source })
}

/// Notes how it stands with the flattening of a volume; `None` where it is not to be flattened any more, or not now.
async fn note(
    app: &App,
    id: &VolumeId,
    uid: Uuid,
    stands: &(dyn Fn(jiff::Timestamp) -> Flattening + Sync),
) -> Result<Option<Volume>, VolumeError> {
    for _ in 0..ROUNDS {
        let Some(Versioned { value: found, at }) = asked(app, id, uid).await? else {
            return Ok(None);
        };
        let Some(since) = found.to_be_flattened() else { return Ok(None) };
        let flattening = stands(since);
        if found.flattening == flattening {
            return Ok(Some(found));
        }
        let noted = Volume { flattening, ..found };
        let changes = app.records.changes().put_volume(&noted, Expect::At(at));
        if let Commit::Done(_) = app.records.commit(changes).await? {
            return Ok(Some(noted));
        }
    }
    Err(VolumeError::Contended { volume: id.clone() })
}

/// The volume, where it is the one of which that was asked.
async fn asked(
    app: &App,
    id: &VolumeId,
    uid: Uuid,
) -> Result<Option<Versioned<Volume>>, StoreError> {
    Ok(app.records.volume(id).await?.filter(|found| found.value.uid == uid))
}
