//! Removing a volume: intent, image, commit; and going on with that where somebody left off.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;
use volcore::name::VolumeId;
use volcore::options::OnRemove;
use volcore::snapshot::SnapshotLog;
use volcore::volume::{Disposal, ImageFit, ImageName, RemoveDecision, Volume, VolumeState};
use volstorage::image::{Discarded, ImageError, ImageSource, TrashedImage};
use volstore::records::{Changes, Kept, Trash, TrashKind, Versioned};
use volstore::store::{Commit, Expect, StoreError};

use super::create::{late, signed};
use super::{VolumeError, clone, finish_give_back, moved, note_error};
use crate::app::{App, LoopName};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;

/// Ceph's watch of a client that was killed ends after 30 s (`osd_client_watch_timeout`); some more, and well inside
/// the 45 s that volplugin gives a removal.
const WATCHES_END: Duration = Duration::from_secs(33);
/// How often it is looked whether it has.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a removal is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoveAsk {
    /// As the volume's `on-remove` says, or delete where that is `keep`: whoever asks here means it.
    #[default]
    AsConfigured,
    /// This, whatever `on-remove` says.
    With(Disposal),
    /// Forget the volume and leave its image alone.
    MetadataOnly,
}

impl RemoveAsk {
    fn disposal(self, volume: &Volume) -> Disposal {
        match (self, volume.spec.on_remove) {
            (RemoveAsk::With(disposal), _) => disposal,
            (_, OnRemove::Trash) => Disposal::Trash,
            (_, OnRemove::Keep | OnRemove::Delete) => Disposal::Delete,
        }
    }
}

/// A volume was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// What is still there of it.
    pub left: LeftBehind,
}

/// What a removal leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftBehind {
    /// Nothing that anybody could get back.
    Nothing,
    /// The image, under its name.
    Image(ImageSource),
    /// The image, in the trash of its pool.
    Trash(TrashedImage),
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeftBehind::Nothing => f.write_str("nothing"),
            LeftBehind::Image(ImageSource::Rbd { pool, image }) => {
                write!(f, "image {pool}/{image}")
            }
            LeftBehind::Image(ImageSource::File { path }) => write!(f, "image {}", path.display()),
            LeftBehind::Trash(TrashedImage { pool, id, name }) => {
                write!(f, "image {id} (once {name}) in the trash of pool {pool}")
            }
        }
    }
}

/// Who goes on with a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Somebody who waits for the answer: an image in use makes the volume ready again.
    Asked,
    /// A reconciler, which tries again.
    Background,
}

/// Removes a volume.
///
/// # Errors
/// What has begun stays `removing`; a second call, or the reconciler, goes on with it.
pub async fn volume_remove(
    app: &App,
    id: &VolumeId,
    ask: RemoveAsk,
) -> Result<Removal, VolumeError> {
    for _ in 0..ROUNDS {
        let (volume, claim) = tokio::join!(app.records.volume(id), app.records.claim(id));
        let volume = volume?.ok_or_else(|| VolumeError::NotFound { volume: id.clone() })?;
        let claim = claim?.map(|claim| claim.value);
        let disposal = ask.disposal(&volume.value);
        let decision =
            volcore::volume::volume_remove(&volume.value, claim.as_ref(), disposal, app.now())?;
        if ask == RemoveAsk::MetadataOnly {
            if let Some(removal) = forget(app, &volume).await? {
                return Ok(removal);
            }
            continue;
        }
        let removing = match decision {
            RemoveDecision::Continue => Some(volume),
            RemoveDecision::Begin(state) => begin(app, volume, state).await?,
        };
        if let Some(removing) = removing {
            return match &removing.value.state {
                VolumeState::GivingBack { .. } => finish_give_back(app, removing).await,
                _ => finish_remove(app, removing, Mode::Asked).await,
            };
        }
    }
    Err(VolumeError::Contended { volume: id.clone() })
}

/// Stores the intent; `None` where somebody else was faster.
async fn begin(
    app: &App,
    volume: Versioned<Volume>,
    state: VolumeState,
) -> Result<Option<Versioned<Volume>>, VolumeError> {
    let removing = moved(&volume.value, state);
    let changes = app
        .records
        .changes()
        .check_claim(&removing.id, Expect::Absent)
        .put_volume(&removing, Expect::At(volume.at));
    match app.records.commit(changes).await? {
        Commit::Done(at) => Ok(Some(Versioned { value: removing, at })),
        Commit::Conflict => Ok(None),
    }
}

/// What is stored beside the record of a volume, and goes with it.
pub(super) struct Beside {
    epoch: Option<Versioned<u64>>,
    log: Option<Versioned<SnapshotLog>>,
}

impl Beside {
    pub(super) async fn of(app: &App, id: &VolumeId) -> Result<Beside, StoreError> {
        let (epoch, log) = tokio::join!(app.records.epoch(id), app.records.snapshot_log(id));
        Ok(Beside { epoch: epoch?, log: log? })
    }

    /// A log is written only while the volume is as it was read, so that none comes after this.
    pub(super) fn drop(&self, changes: Changes, id: &VolumeId) -> Changes {
        let changes = match &self.epoch {
            Some(epoch) => changes.delete_epoch(id, epoch.at),
            None => changes,
        };
        match &self.log {
            Some(log) => changes.delete_snapshot_log(id, log.at),
            None => changes.check_snapshot_log(id, Expect::Absent),
        }
    }
}

/// Deletes the records of a volume and nothing else; `None` where somebody else was faster.
async fn forget(app: &App, volume: &Versioned<Volume>) -> Result<Option<Removal>, VolumeError> {
    let id = &volume.value.id;
    let beside = Beside::of(app, id).await?;
    let changes =
        app.records.changes().check_claim(id, Expect::Absent).delete_volume(id, volume.at);
    let changes = beside.drop(changes, id);
    Ok(match app.records.commit(changes).await? {
        Commit::Done(_) => {
            let image = app.images.source(&volume.value.image());
            tracing::warn!(volume = %id, ?image, "a volume was forgotten, its image is left behind");
            Some(Removal { left: LeftBehind::Image(image) })
        }
        Commit::Conflict => None,
    })
}

/// Discards the image of a volume in `removing`, and deletes the volume.
pub(crate) async fn finish_remove(
    app: &App,
    removing: Versioned<Volume>,
    mode: Mode,
) -> Result<Removal, VolumeError> {
    let volume = &removing.value;
    let _held = app.in_hand.hold(&volume.id);
    let image_id = match &volume.state {
        VolumeState::Removing { image_id, .. } => image_id.clone(),
        // Not reached: callers have read or written this state.
        VolumeState::Creating { .. }
        | VolumeState::Ready { .. }
        | VolumeState::RollingBack { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::Adopting { .. }
        | VolumeState::GivingBack { .. } => None,
    };
    let image = volume.image();
    let discard = discard(app, &image, image_id.as_deref(), volume.uid, mode);
    let (discarded, beside) = tokio::join!(discard, Beside::of(app, &volume.id));
    // A volume that never was ready has no image where there is no pool, or another image has the name.
    let nothing = matches!(discarded, Err(ImageError::NoPool { .. } | ImageError::Foreign { .. }));
    let discarded = if nothing && image_id.is_none() { Ok(Discarded::Absent) } else { discarded };
    match discarded {
        Ok(discarded) => settle(app, removing, discarded, beside?).await,
        Err(ImageError::Foreign { image }) => {
            let replaced = VolumeError::Replaced { volume: removing.value.id.clone(), image };
            note_error(app, &removing, &replaced).await;
            Err(replaced)
        }
        Err(source) => {
            match (&source, image_id, mode) {
                (ImageError::InUse { .. }, Some(image_id), Mode::Asked) => {
                    revert(app, &removing, image_id).await?;
                }
                _ => note_error(app, &removing, &source).await,
            }
            let volume = removing.value.id;
            Err(VolumeError::Image { action: "remove", volume, source })
        }
    }
}

/// Discards the image. A client that has it open although nobody has claimed the volume may be one
/// that was killed: Ceph forgets it after 30 s, so that whoever asked waits as long.
async fn discard(
    app: &App,
    image: &ImageName,
    image_id: Option<&str>,
    uid: Uuid,
    mode: Mode,
) -> Result<Discarded, ImageError> {
    let end = Instant::now() + WATCHES_END;
    loop {
        match app.images.discard(image, image_id, uid).await {
            Err(ImageError::InUse { watchers, .. })
                if mode == Mode::Asked && Instant::now() < end =>
            {
                tracing::info!(%image, ?watchers, "open, and not claimed; waiting for the watch to end");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            done => return done,
        }
    }
}

/// Somebody has the image open: the volume stays as it was. Whether its limits were pending is not known any more.
async fn revert(
    app: &App,
    removing: &Versioned<Volume>,
    image_id: String,
) -> Result<(), VolumeError> {
    let fit = ImageFit::Pending { since: app.now() };
    let ready = moved(&removing.value, VolumeState::Ready { image_id, fit });
    let changes = app.records.changes().put_volume(&ready, Expect::At(removing.at));
    app.records.commit(changes).await?;
    Ok(())
}

/// The image is out of the way: deletes the volume, and keeps in mind what is left to be done.
async fn settle(
    app: &App,
    removing: Versioned<Volume>,
    discarded: Discarded,
    mut beside: Beside,
) -> Result<Removal, VolumeError> {
    let Versioned { value: volume, mut at } = removing;
    let id = &volume.id;
    if let VolumeState::Removing { image_id: None, .. } = &volume.state {
        clone::drop_temporary(app, &volume).await?;
    }
    let (left, trash) = leavings(app, &volume, discarded).await?;
    for _ in 0..ROUNDS {
        let mut changes = beside.drop(app.records.changes().delete_volume(id, at), id);
        if let Some(trash) = &trash {
            changes = changes.put_trash(trash, Expect::Absent);
        }
        if let Commit::Done(_) = app.records.commit(changes).await? {
            app.loops.nudge(LoopName::Trash);
            return Ok(Removal { left });
        }
        let (found, fresh) = tokio::join!(app.records.volume(id), Beside::of(app, id));
        beside = fresh?;
        match found?.filter(|found| found.value.uid == volume.uid) {
            None => return Ok(Removal { left }),
            Some(found) => at = found.at,
        }
    }
    Err(VolumeError::Contended { volume: volume.id })
}

/// What is left of a volume, and the record that sees to it.
async fn leavings(
    app: &App,
    volume: &Volume,
    discarded: Discarded,
) -> Result<(LeftBehind, Option<Trash>), StoreError> {
    let (disposal, was_ready) = match &volume.state {
        VolumeState::Removing { disposal, image_id, .. } => (*disposal, image_id.is_some()),
        VolumeState::Creating { .. }
        | VolumeState::Ready { .. }
        | VolumeState::RollingBack { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::Adopting { .. }
        | VolumeState::GivingBack { .. } => (Disposal::Delete, false),
    };
    // It never was ready: nobody misses it, and whoever is making it may not have finished.
    if !was_ready {
        return Ok((LeftBehind::Nothing, Some(late(app, volume))));
    }
    let Discarded::Trashed(trashed) = discarded else { return Ok((LeftBehind::Nothing, None)) };
    let now = app.now();
    let (left, purge_after, kept) = match disposal {
        Disposal::Delete => (LeftBehind::Nothing, now, None),
        Disposal::Trash => {
            let global = app.records.global().await?.map(|found| found.value).unwrap_or_default();
            let until = now.checked_add(signed(global.trash_retention.get()));
            let Volume { spec, policy_revision, created_at, flattening, .. } = volume.clone();
            let kept = Kept { spec, policy_revision, created_at, flattening };
            (LeftBehind::Trash(trashed.clone()), until.unwrap_or(Timestamp::MAX), Some(kept))
        }
    };
    let TrashedImage { pool, id, name } = trashed;
    let kind = TrashKind::Image { pool, id, name, purge_after: Some(purge_after), purging: false };
    let trash = Trash { volume: volume.id.clone(), uid: volume.uid, since: now, kind, kept };
    Ok((left, Some(trash)))
}
