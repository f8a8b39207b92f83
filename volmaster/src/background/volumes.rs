//! Finishes volumes that somebody began to create, to change, to roll back, to restore or to remove and has not
//! finished.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinHandle;
use uuid::Uuid;
use volcore::name::VolumeId;
use volcore::volume::{Volume, VolumeState};

use super::{LoopError, Pass};
use crate::app::volumes::{
    Mode, TAKE_UP_AFTER, abandoned, finish_adopt, finish_create, finish_give_back, finish_remove,
    finish_restore, finish_set, is_left, pending_since, take_up, volume_sync,
};
use crate::app::{App, LoopName, snapshots};

/// A removal that is older than this is nobody's any more; the request that began it is, as a rule,
/// done within milliseconds.
const REMOVING_AFTER: SignedDuration = SignedDuration::from_secs(2);
/// How many volumes are begun in one pass.
const BATCH: usize = 256;
/// How long one volume may take before it counts as failed. The drivers have deadlines of their own.
const BOUND: Duration = Duration::from_secs(300);

pub(super) async fn pass(app: &Arc<App>) -> Result<Pass, LoopError> {
    volume_sync(app).await?;
    let pending: Vec<Arc<Volume>> = app.mirrors.volumes.read(|view| {
        let all = view.records().values().map(|kept| &kept.record);
        all.filter(|volume| is_pending(volume)).cloned().collect()
    });
    let cell = app.loops.of(LoopName::Volumes);
    cell.keep(&pending.iter().map(|volume| volume.uid).collect::<Vec<_>>());
    let now = app.now();
    let due = pending.iter().filter(|volume| is_due(app, volume, now)).take(BATCH);
    let tasks = due.filter_map(|volume| begin(app, volume)).collect();
    // A change is in the image as a rule: only the note of it is left, for a while.
    let shown =
        pending.iter().filter(|volume| pending_since(volume).is_none() || is_left(volume, now));
    Ok(Pass { pending: shown.map(|volume| line(volume)).collect(), tasks })
}

fn is_pending(volume: &Volume) -> bool {
    match volume.state {
        VolumeState::Creating { .. }
        | VolumeState::RollingBack { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::Adopting { .. }
        | VolumeState::GivingBack { .. }
        | VolumeState::Removing { .. } => true,
        VolumeState::Ready { .. } => pending_since(volume).is_some(),
    }
}

fn is_due(app: &App, volume: &Volume, now: Timestamp) -> bool {
    let left = match &volume.state {
        VolumeState::Ready { .. } => is_left(volume, now),
        VolumeState::Creating { .. } => abandoned(volume, now, TAKE_UP_AFTER),
        VolumeState::RollingBack { since, .. } => snapshots::is_left(volume, *since, now),
        VolumeState::Restoring { since, .. }
        | VolumeState::Adopting { since, .. }
        | VolumeState::GivingBack { since, .. }
        | VolumeState::Removing { since, .. } => {
            volume.last_error.is_some() || now.duration_since(*since) > REMOVING_AFTER
        }
    };
    left && !app.in_hand.has(&volume.id) && app.loops.of(LoopName::Volumes).is_due(volume.uid)
}

fn line(volume: &Volume) -> String {
    let error = volume.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    let id = &volume.id;
    match &volume.state {
        VolumeState::Creating { since }
        | VolumeState::RollingBack { since, .. }
        | VolumeState::Restoring { since, .. }
        | VolumeState::Adopting { since, .. }
        | VolumeState::GivingBack { since, .. }
        | VolumeState::Removing { since, .. } => {
            format!("{id} is {} since {since:.0}{error}", volume.state.as_str())
        }
        VolumeState::Ready { .. } => {
            let since = pending_since(volume).unwrap_or(volume.created_at);
            format!("{id} waits for its image to have the size and the limits of {since:.0}{error}")
        }
    }
}

fn begin(app: &Arc<App>, volume: &Volume) -> Option<JoinHandle<()>> {
    let running = app.loops.of(LoopName::Volumes).begin(volume.uid)?;
    let (app, id, uid) = (app.clone(), volume.id.clone(), volume.uid);
    let tracker = app.tasks.clone();
    Some(tracker.spawn(async move {
        let _place = running.place().await;
        let outcome = tokio::time::timeout(BOUND, finish(&app, &id, uid)).await;
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => volapi::problem::chain(&error),
            Err(_) => format!("not finished within {BOUND:?}"),
        };
        app.loops.of(LoopName::Volumes).failed(uid);
        tracing::warn!(volume = %id, error, "a volume could not be finished");
    }))
}

/// Takes up the work on a volume as the store has it now.
async fn finish(app: &App, id: &VolumeId, uid: Uuid) -> Result<(), LoopError> {
    let Some(found) = app.records.volume(id).await?.filter(|found| found.value.uid == uid) else {
        return Ok(());
    };
    match &found.value.state {
        VolumeState::Ready { .. } => {
            if is_left(&found.value, app.now()) {
                finish_set(app, found).await?;
            }
        }
        VolumeState::Creating { .. } => {
            if abandoned(&found.value, app.now(), TAKE_UP_AFTER)
                && let Some(taken) = take_up(app, &found).await?
            {
                finish_create(app, taken).await?;
                tracing::info!(volume = %id, "creating a volume was finished");
            }
        }
        VolumeState::RollingBack { .. } => {
            snapshots::finish_rollback(app, found).await?;
            tracing::info!(volume = %id, "rolling a volume back was finished");
        }
        VolumeState::Restoring { .. } => {
            finish_restore(app, found).await?;
            tracing::info!(volume = %id, "restoring a volume was finished");
        }
        VolumeState::Adopting { .. } => {
            finish_adopt(app, found).await?;
            tracing::info!(volume = %id, "adopting an image was finished");
        }
        VolumeState::GivingBack { .. } => {
            finish_give_back(app, found).await?;
            tracing::info!(volume = %id, "an image that was not adopted is given back");
        }
        VolumeState::Removing { .. } => {
            finish_remove(app, found, Mode::Background).await?;
            tracing::info!(volume = %id, "removing a volume was finished");
        }
    }
    Ok(())
}
