//! Rolling a volume back: intent, image; and going on with that where somebody left off.
//!
//! The intent keeps everybody from claiming the volume. Cut short, the image is a mixture, so what was begun is only
//! ever gone on with: to the end, or to another snapshot. It is taken back only by whoever stored it, and only where
//! the driver has said that it did not begin and nobody else has gone on with it: whoever does writes the record again.

use jiff::{SignedDuration, Timestamp};
use volcore::name::{SnapshotName, VolumeId};
use volcore::volume::{ImageFit, RollbackDecision, Volume, VolumeState, volume_rollback};
use volstorage::image::{ImageError, SnapshotUsage};
use volstore::records::Versioned;
use volstore::store::{Commit, Expect, Revision};

use super::{ROUNDS, SnapshotError, failed, of};
use crate::app::App;
use crate::app::volumes::{self, Mode};

/// So long after it was asked for a rollback is taken to be nobody's any more. To be wrong is harmless: of two who do
/// it at once one is told that the image is in use.
const TAKE_UP_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Rolls a volume that nobody holds back to a snapshot.
pub async fn snapshot_rollback(
    app: &App,
    id: &VolumeId,
    snapshot: &SnapshotName,
) -> Result<Volume, SnapshotError> {
    for _ in 0..ROUNDS {
        let (volume, claim) = tokio::join!(app.records.volume(id), app.records.claim(id));
        let volume = volume?.ok_or_else(|| SnapshotError::NoVolume { volume: id.clone() })?;
        let claim = claim?.map(|claim| claim.value);
        match volume_rollback(&volume.value, claim.as_ref(), snapshot, app.now())? {
            RollbackDecision::Continue => {
                if let Some(taken) = take_up(app, volume).await? {
                    return finish(app, taken, Mode::Background).await;
                }
            }
            RollbackDecision::Begin(state) => {
                exists(app, &volume.value, snapshot).await?;
                let was_whole = matches!(volume.value.state, VolumeState::Ready { .. });
                let mode = if was_whole { Mode::Asked } else { Mode::Background };
                let rolling = volumes::moved(&volume.value, state);
                let changes = app
                    .records
                    .changes()
                    .check_claim(id, Expect::Absent)
                    .put_volume(&rolling, Expect::At(volume.at));
                if let Commit::Done(at) = app.records.commit(changes).await? {
                    return finish(app, Versioned { value: rolling, at }, mode).await;
                }
            }
        }
    }
    Err(SnapshotError::Contended { volume: id.clone() })
}

/// So that a name that was mistyped changes nothing.
async fn exists(app: &App, volume: &Volume, snapshot: &SnapshotName) -> Result<(), SnapshotError> {
    let listed = app.images.snapshot_list(&volume.image(), SnapshotUsage::Skip).await;
    let listed = listed.map_err(failed("look for", &volume.id, snapshot))?;
    if listed.iter().any(|found| found.name == *snapshot) {
        return Ok(());
    }
    Err(SnapshotError::NotFound { volume: volume.id.clone(), snapshot: snapshot.clone() })
}

/// Whether a reconciler has to go on with a rollback.
pub(crate) fn is_left(volume: &Volume, since: Timestamp, now: Timestamp) -> bool {
    volume.last_error.is_some() || now.duration_since(since) > TAKE_UP_AFTER
}

/// Goes on with a rollback that somebody has begun.
pub(crate) async fn finish_rollback(
    app: &App,
    rolling: Versioned<Volume>,
) -> Result<(), SnapshotError> {
    // Where somebody was faster he has finished it, or is seen to again.
    let Some(taken) = take_up(app, rolling).await? else { return Ok(()) };
    finish(app, taken, Mode::Background).await.map(drop)
}

/// Writes the record again as it is, so that nobody who knows only what was before takes the intent back any more; `None`
/// where it has changed.
async fn take_up(
    app: &App,
    rolling: Versioned<Volume>,
) -> Result<Option<Versioned<Volume>>, SnapshotError> {
    let Versioned { value, at } = rolling;
    let changes = app.records.changes().put_volume(&value, Expect::At(at));
    Ok(match app.records.commit(changes).await? {
        Commit::Done(at) => Some(Versioned { value, at }),
        Commit::Conflict => None,
    })
}

async fn finish(
    app: &App,
    rolling: Versioned<Volume>,
    mode: Mode,
) -> Result<Volume, SnapshotError> {
    let volume = &rolling.value;
    let VolumeState::RollingBack { image_id, snapshot, .. } = &volume.state else {
        return Ok(rolling.value);
    };
    let _held = app.in_hand.hold(&volume.id);
    let rolled = app.images.snapshot_rollback(&of(volume, snapshot)).await;
    // The image has the size and the limits of its record as soon as that has been seen to.
    let fit = ImageFit::Pending { since: app.now() };
    let ready = volumes::moved(volume, VolumeState::Ready { image_id: image_id.clone(), fit });
    match rolled {
        Ok(()) => {
            let ready = settle(app, ready, snapshot, rolling.at).await?;
            let id = ready.value.id.clone();
            volumes::fit(app, ready).await.map_err(|error| match error {
                volumes::VolumeError::Store(error) => SnapshotError::Store(error),
                _ => SnapshotError::Contended { volume: id },
            })
        }
        Err(source) => {
            let begun = !matches!(
                source,
                ImageError::InUse { .. }
                    | ImageError::NoSnapshot { .. }
                    | ImageError::NoImage { .. }
            );
            if mode == Mode::Asked && !begun {
                let changes = app.records.changes().put_volume(&ready, Expect::At(rolling.at));
                app.records.commit(changes).await?;
            } else if !matches!(source, ImageError::InUse { .. }) {
                volumes::note_error(app, &rolling, &source).await;
            }
            let (volume, snapshot) = (&rolling.value, snapshot.clone());
            if matches!(source, ImageError::NoSnapshot { .. }) || !goes_on(app, volume).await {
                return Err(failed("roll back to", &volume.id, &snapshot)(source));
            }
            let volume = volume.id.clone();
            Err(SnapshotError::RollingBack { volume, snapshot, source })
        }
    }
}

/// Whether a volume is still being rolled back. Where the store does not say, what was stored last holds.
async fn goes_on(app: &App, volume: &Volume) -> bool {
    let Ok(found) = app.records.volume(&volume.id).await else { return true };
    found.is_some_and(|found| {
        found.value.uid == volume.uid
            && matches!(found.value.state, VolumeState::RollingBack { .. })
    })
}

/// Commits that the image has the data of the snapshot.
async fn settle(
    app: &App,
    ready: Volume,
    to: &SnapshotName,
    mut at: Revision,
) -> Result<Versioned<Volume>, SnapshotError> {
    for _ in 0..ROUNDS {
        let changes = app.records.changes().put_volume(&ready, Expect::At(at));
        if let Commit::Done(at) = app.records.commit(changes).await? {
            return Ok(Versioned { value: ready, at });
        }
        let found = app.records.volume(&ready.id).await?;
        match found.filter(|found| found.value.uid == ready.uid) {
            None => return Err(SnapshotError::NoVolume { volume: ready.id }),
            // Somebody has gone on with the same rollback, or has noted an error on it.
            Some(found) => match &found.value.state {
                VolumeState::RollingBack { snapshot, .. } if snapshot == to => at = found.at,
                // And somebody may be at it, to another snapshot.
                VolumeState::RollingBack { .. } => break,
                VolumeState::Creating { .. }
                | VolumeState::Ready { .. }
                | VolumeState::Restoring { .. }
                | VolumeState::Adopting { .. }
                | VolumeState::GivingBack { .. }
                | VolumeState::Removing { .. } => return Ok(found),
            },
        }
    }
    Err(SnapshotError::Contended { volume: ready.id })
}
