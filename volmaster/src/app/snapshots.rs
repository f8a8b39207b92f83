//! Snapshots of a volume: taking, showing, removing. Rolling back is in a file of its own.
//!
//! What snapshots there are, the image says; there are no records of them. Of a schedule only what came of it is
//! stored ([`SnapshotLog`]): the last slot that was taken, which is what keeps any number of supervisors from taking
//! one twice.

mod quiet;
mod rollback;

use jiff::Timestamp;
use volapi::snapshots::{Snapshot, SnapshotKind};
use volcore::Kind;
use volcore::name::{SnapshotName, VolumeId};
use volcore::snapshot::{
    Slot, SnapshotFailure, SnapshotLog, TakeDecision, TakeRefusal, snapshot_take,
};
use volcore::volume::{RollbackRefusal, Volume, VolumeState};
use volstorage::image::{ImageError, ImageSnapshot, Removed, Snapped, SnapshotInfo, SnapshotUsage};
use volstore::records::Versioned;
use volstore::store::{Commit, Expect, StoreError};

use super::{App, Failing, store_kind};

pub use quiet::QuietError;
pub(crate) use quiet::snapshot_quietly;
pub use rollback::snapshot_rollback;
pub(crate) use rollback::{finish_rollback, is_left};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;

/// Why a snapshot was not taken, shown or removed, or a volume not rolled back to it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no such volume.
    #[error("volume {volume} does not exist")]
    NoVolume {
        /// Which.
        volume: VolumeId,
    },
    /// The volume has no such snapshot.
    #[error(
        "volume {volume} has no snapshot {snapshot}; `volcli snapshot list {volume}` shows those it has"
    )]
    NotFound {
        /// Which.
        volume: VolumeId,
        /// Its snapshot.
        snapshot: SnapshotName,
    },
    /// The volume is being made, rolled back or removed.
    #[error("volume {volume} is {state}; its snapshots can be reached when it is ready")]
    NotReady {
        /// Which.
        volume: VolumeId,
        /// Its state.
        state: &'static str,
    },
    /// The name is one that is taken for a clone, and is removed with that.
    #[error(
        "a snapshot cannot be called {snapshot}: clone- with an id is kept for those that clones are made from"
    )]
    ForClone {
        /// The name.
        snapshot: SnapshotName,
    },
    /// The schedule does not want it.
    #[error(transparent)]
    Take(#[from] TakeRefusal),
    /// The rules say no.
    #[error(transparent)]
    Rollback(#[from] RollbackRefusal),
    /// The image driver failed.
    #[error("could not {action} volume {volume}")]
    Image {
        /// Such as `take snapshot before of`.
        action: String,
        /// Which.
        volume: VolumeId,
        /// Why not.
        #[source]
        source: ImageError,
    },
    /// It was not rolled back in this attempt, and stays in `rolling-back` until it is.
    #[error(
        "volume {volume} is being rolled back to snapshot {snapshot}, which goes on by itself: `volcli volume get {volume}` \
         shows when it is done; this attempt did not finish it"
    )]
    RollingBack {
        /// Which.
        volume: VolumeId,
        /// To what.
        snapshot: SnapshotName,
        /// Why not.
        #[source]
        source: ImageError,
    },
    /// Something would or might have been written while it was taken.
    #[error("could not take snapshot {snapshot} of volume {volume}")]
    Quiet {
        /// Its name.
        snapshot: SnapshotName,
        /// Of which volume.
        volume: VolumeId,
        /// Why.
        #[source]
        source: QuietError,
    },
    /// Others are faster, time and again.
    #[error("volume {volume} is being changed by others; try again")]
    Contended {
        /// Which.
        volume: VolumeId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for SnapshotError {
    fn kind(&self) -> Kind {
        match self {
            SnapshotError::NoVolume { .. } | SnapshotError::NotFound { .. } => Kind::NotFound,
            SnapshotError::NotReady { .. } | SnapshotError::Contended { .. } => Kind::Busy,
            SnapshotError::ForClone { .. } => Kind::Invalid,
            SnapshotError::Take(refusal) => refusal.kind(),
            SnapshotError::Rollback(refusal) => refusal.kind(),
            SnapshotError::Image { source, .. } | SnapshotError::RollingBack { source, .. } => {
                source.kind()
            }
            SnapshotError::Quiet { source, .. } => source.kind(),
            SnapshotError::Store(error) => store_kind(error),
        }
    }
}

/// What taking a snapshot came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taking {
    /// It was taken now.
    Created(Snapshot),
    /// There was one of that name, or one was taken for that slot.
    Unchanged(Snapshot),
}

/// The volume, if its image can be asked for snapshots.
async fn with_image(app: &App, id: &VolumeId) -> Result<Versioned<Volume>, SnapshotError> {
    let found = app.records.volume(id).await?;
    let found = found.ok_or_else(|| SnapshotError::NoVolume { volume: id.clone() })?;
    match &found.value.state {
        VolumeState::Ready { .. } | VolumeState::RollingBack { .. } => Ok(found),
        VolumeState::Creating { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::Adopting { .. }
        | VolumeState::GivingBack { .. }
        | VolumeState::Removing { .. } => {
            Err(SnapshotError::NotReady { volume: id.clone(), state: found.value.state.as_str() })
        }
    }
}

/// The volume, if its snapshots can be changed.
async fn ready(app: &App, id: &VolumeId) -> Result<Versioned<Volume>, SnapshotError> {
    let found = with_image(app, id).await?;
    match &found.value.state {
        VolumeState::RollingBack { .. } => {
            Err(SnapshotError::NotReady { volume: id.clone(), state: found.value.state.as_str() })
        }
        _ => Ok(found),
    }
}

fn of(volume: &Volume, snapshot: &SnapshotName) -> ImageSnapshot {
    ImageSnapshot { image: volume.image(), snapshot: snapshot.clone() }
}

fn failed(
    action: &str,
    volume: &VolumeId,
    snapshot: &SnapshotName,
) -> impl FnOnce(ImageError) -> SnapshotError {
    move |source| match source {
        ImageError::NoSnapshot { .. } => {
            SnapshotError::NotFound { volume: volume.clone(), snapshot: snapshot.clone() }
        }
        source => SnapshotError::Image {
            action: format!("{action} snapshot {snapshot} of"),
            volume: volume.clone(),
            source,
        },
    }
}

fn not_taken(
    volume: &VolumeId,
    snapshot: &SnapshotName,
) -> impl FnOnce(QuietError) -> SnapshotError {
    move |source| match source {
        QuietError::Image(source) => failed("take", volume, snapshot)(source),
        QuietError::Store(source) => source.into(),
        source => {
            SnapshotError::Quiet { snapshot: snapshot.clone(), volume: volume.clone(), source }
        }
    }
}

fn shown(volume: &VolumeId, info: SnapshotInfo) -> Snapshot {
    let SnapshotInfo { name, created_at, size, used } = info;
    let kind = SnapshotKind::of(&name);
    Snapshot { volume: volume.clone(), name, kind, created_at, size, used }
}

/// Lists the snapshots of a volume, the oldest first.
pub async fn snapshot_list(
    app: &App,
    id: &VolumeId,
    usage: SnapshotUsage,
) -> Result<Vec<Snapshot>, SnapshotError> {
    let volume = with_image(app, id).await?.value;
    let listed = app.images.snapshot_list(&volume.image(), usage).await;
    let listed = listed.map_err(|source| SnapshotError::Image {
        action: "list the snapshots of".to_owned(),
        volume: id.clone(),
        source,
    })?;
    Ok(listed.into_iter().map(|info| shown(id, info)).collect())
}

/// Shows a snapshot.
pub async fn snapshot_get(
    app: &App,
    id: &VolumeId,
    snapshot: &SnapshotName,
) -> Result<Snapshot, SnapshotError> {
    let found = snapshot_list(app, id, SnapshotUsage::Skip).await?.into_iter();
    let found = found.into_iter().find(|found| found.name == *snapshot);
    found.ok_or_else(|| SnapshotError::NotFound { volume: id.clone(), snapshot: snapshot.clone() })
}

/// Removes a snapshot. That there is none is an error, so that a name that was mistyped is noticed.
pub async fn snapshot_remove(
    app: &App,
    id: &VolumeId,
    snapshot: &SnapshotName,
) -> Result<(), SnapshotError> {
    let volume = ready(app, id).await?.value;
    let removed = app.images.snapshot_remove(&of(&volume, snapshot)).await;
    match removed.map_err(failed("remove", id, snapshot))? {
        Removed::Removed => Ok(()),
        Removed::Absent => {
            Err(SnapshotError::NotFound { volume: id.clone(), snapshot: snapshot.clone() })
        }
    }
}

/// Takes a snapshot, whoever holds the volume; of what is written to, where that is wanted or it is a copy, frozen.
pub async fn snapshot_create(
    app: &App,
    id: &VolumeId,
    snapshot: &SnapshotName,
) -> Result<Taking, SnapshotError> {
    if snapshot.is_reserved() {
        return take(app, id, snapshot).await;
    }
    if snapshot.clone_uid().is_some() {
        return Err(SnapshotError::ForClone { snapshot: snapshot.clone() });
    }
    let volume = ready(app, id).await?.value;
    let snapped = snapshot_quietly(app, &volume, &of(&volume, snapshot)).await;
    let snapped = snapped.map_err(not_taken(id, snapshot))?;
    let found = snapshot_get(app, id, snapshot).await?;
    Ok(match snapped {
        Snapped::Created => Taking::Created(found),
        Snapped::Existed => Taking::Unchanged(found),
    })
}

/// Takes a snapshot on schedule. What came of it is in the volume's log before the answer is given.
async fn take(app: &App, id: &VolumeId, snapshot: &SnapshotName) -> Result<Taking, SnapshotError> {
    let (volume, log) = tokio::join!(app.records.volume(id), app.records.snapshot_log(id));
    let volume = volume?.ok_or_else(|| SnapshotError::NoVolume { volume: id.clone() })?;
    let log = log?.map(|log| log.value);
    let answer = |created_at: Timestamp| {
        let (name, size) = (snapshot.clone(), volume.value.spec.size.bytes());
        shown(id, SnapshotInfo { name, created_at, size, used: None })
    };
    let decision = snapshot_take(&volume.value, log.as_ref(), snapshot, app.now())?;
    let slot = match (decision, snapshot.slot()) {
        (TakeDecision::Take, Some(slot)) => slot,
        (TakeDecision::Taken, slot) => {
            return Ok(Taking::Unchanged(answer(slot.map_or_else(|| app.now(), Slot::at))));
        }
        // Not reached: what has no slot is refused.
        (TakeDecision::Take, None) => {
            return Err(SnapshotError::NotFound { volume: id.clone(), snapshot: snapshot.clone() });
        }
    };
    match snapshot_quietly(app, &volume.value, &of(&volume.value, snapshot)).await {
        Ok(snapped) => {
            let is_first = note_taken(app, &volume.value, slot).await?;
            let taken = answer(app.now());
            Ok(match (snapped, is_first) {
                (Snapped::Created, true) => Taking::Created(taken),
                (Snapped::Created, false) | (Snapped::Existed, _) => Taking::Unchanged(taken),
            })
        }
        Err(source) => {
            note_failure(app, &volume.value, &source).await;
            Err(not_taken(id, snapshot)(source))
        }
    }
}

/// Notes that a slot was taken; whether nobody else has noted it before.
async fn note_taken(app: &App, taken: &Volume, slot: Slot) -> Result<bool, SnapshotError> {
    for _ in 0..ROUNDS {
        let (volume, log) =
            tokio::join!(app.records.volume(&taken.id), app.records.snapshot_log(&taken.id));
        let (volume, log) = (volume?, log?);
        // With the volume went its snapshots, or they will.
        let Some(volume) = volume.filter(|volume| volume.value.uid == taken.uid) else {
            return Err(SnapshotError::NoVolume { volume: taken.id.clone() });
        };
        let known = SnapshotLog::of(log.as_ref().map(|log| &log.value), &volume.value);
        let Some(after) = known.after(&volume.value, slot, app.now()) else { return Ok(false) };
        if put_log(app, &volume, &after, log.as_ref()).await? {
            return Ok(true);
        }
    }
    Err(SnapshotError::Contended { volume: taken.id.clone() })
}

/// Notes why a snapshot was not taken. For people: nothing depends on it.
async fn note_failure(app: &App, tried: &Volume, error: &QuietError) {
    let note = async {
        let (volume, log) =
            tokio::join!(app.records.volume(&tried.id), app.records.snapshot_log(&tried.id));
        let (volume, log) = (volume?, log?);
        let Some(volume) = volume.filter(|volume| volume.value.uid == tried.uid) else {
            return Ok(true);
        };
        let known = SnapshotLog::of(log.as_ref().map(|log| &log.value), &volume.value);
        let failure = SnapshotFailure { at: app.now(), reason: volapi::problem::chain(error) };
        put_log(app, &volume, &known.after_failure(failure), log.as_ref()).await
    };
    if let Err(error) = note.await {
        let (volume, error) = (&tried.id, volapi::problem::chain(&error));
        tracing::warn!(%volume, error, "why a snapshot was not taken could not be noted");
    }
}

/// Writes a log, as long as the volume is the one that was read: with the volume goes its log.
async fn put_log(
    app: &App,
    volume: &Versioned<Volume>,
    log: &SnapshotLog,
    before: Option<&Versioned<SnapshotLog>>,
) -> Result<bool, StoreError> {
    let id = &volume.value.id;
    let changes = app.records.changes().check_volume(id, Expect::At(volume.at)).put_snapshot_log(
        id,
        log,
        Versioned::unchanged(before),
    );
    Ok(matches!(app.records.commit(changes).await?, Commit::Done(_)))
}
