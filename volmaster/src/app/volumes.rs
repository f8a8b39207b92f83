//! Volumes: showing and listing them. Creating, changing and removing have files of their own.

mod adopt;
mod clone;
mod create;
mod flatten;
mod remove;
mod restore;
mod set;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use volapi::volumes::Image;
use volcore::Kind;
use volcore::claim::Claim;
use volcore::live::LiveError;
use volcore::name::{SnapshotName, TenantName, VolumeId};
use volcore::options::OptionError;
use volcore::spec::SpecError;
use volcore::volume::{
    AdoptRefusal, CreateRefusal, FlattenRefusal, ImageName, RemoveRefusal, SetRefusal, Volume,
    VolumeState,
};
use volstorage::image::{ImageError, ImageSource};
use volstore::records::Versioned;
use volstore::store::StoreError;

use super::snapshots::QuietError;
use super::{App, Failing, ListAsk, ListError, Slice, catch_up, lists, store_kind};

pub use adopt::volume_adopt;
pub(crate) use adopt::{finish_adopt, finish_give_back};
pub use create::{Creation, volume_create};
pub(crate) use create::{abandoned, finish_create, take_up};
pub(crate) use flatten::finish_flatten;
pub use flatten::volume_flatten;
pub use remove::{LeftBehind, Removal, RemoveAsk, volume_remove};
pub(crate) use remove::{Mode, finish_remove};
pub(crate) use restore::finish_restore;
pub use set::{Setting, volume_set};
pub(crate) use set::{finish_set, fit, is_left, pending_since, unfit};

/// How long making an image is waited for, by whoever makes it.
pub(crate) const CREATE_BOUND: Duration = Duration::from_secs(100);
/// After this time a reconciler that finds a volume in `creating` takes the work up.
pub(crate) const TAKE_UP_AFTER: Duration = Duration::from_secs(30);
/// After this time somebody who waits for a volume does: making an image takes well below a second.
const TAKE_UP_WAITING: Duration = Duration::from_secs(10);
/// So long after the removal of a volume that never was ready its image is looked out for. Whoever was
/// making it ends the look-out when done; this is for the case that it died just then.
pub(crate) const LATE_BOUND: Duration = Duration::from_secs(60);

/// Why something was not done to a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none.
    #[error("volume {volume} does not exist")]
    NotFound {
        /// Which.
        volume: VolumeId,
    },
    /// Its tenant does not exist.
    #[error(
        "tenant {tenant} does not exist: upload its policy with `volcli tenant upload {tenant} < policy.json`"
    )]
    NoTenant {
        /// Which.
        tenant: TenantName,
    },
    /// A driver option cannot be taken.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A driver option cannot be changed, or not so.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// Policy and options together make no volume.
    #[error("volume {volume} cannot be made")]
    Spec {
        /// Which.
        volume: VolumeId,
        /// Why not.
        #[source]
        source: SpecError,
    },
    /// The rules say no.
    #[error(transparent)]
    Create(#[from] CreateRefusal),
    /// The rules say no.
    #[error(transparent)]
    Adopt(#[from] AdoptRefusal),
    /// The rules say no.
    #[error(transparent)]
    Remove(#[from] RemoveRefusal),
    /// The rules say no.
    #[error(transparent)]
    Set(#[from] SetRefusal),
    /// The rules say no.
    #[error(transparent)]
    Flatten(#[from] FlattenRefusal),
    /// Policy, options and the image that is there make no volume.
    #[error("no image can be adopted for volume {volume}")]
    NotAdoptable {
        /// Which.
        volume: VolumeId,
        /// Why not.
        #[source]
        source: SpecError,
    },
    /// There is no image of its name.
    #[error(
        "there is no image {image} that volume {volume} could adopt: rename the one that is meant \
         (`rbd rename {pool}/NAME {image}`), or name its pool (--opt pool=POOL)",
        pool = image.pool
    )]
    NothingToAdopt {
        /// Which.
        volume: VolumeId,
        /// The image that was looked for.
        image: ImageName,
    },
    /// The image was made for another volume, which is there.
    #[error(
        "image {image} cannot be adopted for volume {volume}: it is the image of volume {owner}, and was left as it is; \
         `volcli volume force-remove {owner}` forgets that volume and leaves the image"
    )]
    Anothers {
        /// Which.
        volume: VolumeId,
        /// The image.
        image: ImageName,
        /// Whose it is.
        owner: VolumeId,
    },
    /// Whose an image is could not be found out.
    #[error("could not look which volume has the image for volume {volume}")]
    Unsure {
        /// Which.
        volume: VolumeId,
        /// Why not.
        #[source]
        source: Box<ListError>,
    },
    /// It would be a clone of what it replaces.
    #[error("volume {volume} cannot be cloned from itself: give the clone another name")]
    OntoItself {
        /// Which.
        volume: VolumeId,
    },
    /// What is to be cloned has no such snapshot.
    #[error(
        "volume {volume} has no snapshot {snapshot}; `volcli snapshot list {volume}` shows those it has"
    )]
    NoSnapshot {
        /// Which.
        volume: VolumeId,
        /// Its snapshot.
        snapshot: SnapshotName,
    },
    /// What is to be cloned is being made, rolled back or removed.
    #[error("volume {volume} is {state}; it can be cloned when it is ready")]
    OriginNotReady {
        /// Which.
        volume: VolumeId,
        /// Its state.
        state: &'static str,
    },
    /// Something would or might have been written to what is to be cloned while it was copied.
    #[error("volume {volume} cannot be cloned now")]
    Quiet {
        /// What is to be cloned.
        volume: VolumeId,
        /// Why not.
        #[source]
        source: QuietError,
    },
    /// Somebody is making it, and has not finished in time.
    #[error("volume {volume} is still being created, since {since:.0}; try again")]
    StillCreating {
        /// Which.
        volume: VolumeId,
        /// Since when.
        since: Timestamp,
    },
    /// It was removed while it was being made.
    #[error("volume {volume} was removed while it was being made")]
    RemovedMeanwhile {
        /// Which.
        volume: VolumeId,
    },
    /// The image driver failed.
    #[error("could not {action} volume {volume}")]
    Image {
        /// `create`, `remove`, `restore`, `flatten`, `resize` or `set the size and the limits of`.
        action: &'static str,
        /// Which.
        volume: VolumeId,
        /// Why not.
        #[source]
        source: ImageError,
    },
    /// Somebody has put another image in the place of its own, so that there is nothing to remove.
    #[error(
        "could not remove volume {volume}: image {image} is not the one that was made for it, and was left as it is; \
         `volcli volume force-remove {volume}` forgets the volume and leaves that image alone"
    )]
    Replaced {
        /// Which.
        volume: VolumeId,
        /// The image that has the name now.
        image: ImageName,
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

impl Failing for VolumeError {
    fn kind(&self) -> Kind {
        match self {
            VolumeError::NotFound { .. }
            | VolumeError::NoTenant { .. }
            | VolumeError::NothingToAdopt { .. }
            | VolumeError::NoSnapshot { .. } => Kind::NotFound,
            VolumeError::OntoItself { .. } => Kind::Invalid,
            VolumeError::Option(_) | VolumeError::Live(_) => Kind::Invalid,
            VolumeError::Spec { source, .. } | VolumeError::NotAdoptable { source, .. } => {
                source.kind()
            }
            VolumeError::Unsure { source, .. } => source.kind(),
            VolumeError::Adopt(refusal) => refusal.kind(),
            VolumeError::Create(refusal) => refusal.kind(),
            VolumeError::Remove(refusal) => refusal.kind(),
            VolumeError::Set(refusal) => refusal.kind(),
            VolumeError::Flatten(refusal) => refusal.kind(),
            VolumeError::StillCreating { .. }
            | VolumeError::OriginNotReady { .. }
            | VolumeError::Contended { .. } => Kind::Busy,
            VolumeError::RemovedMeanwhile { .. }
            | VolumeError::Replaced { .. }
            | VolumeError::Anothers { .. } => Kind::Conflict,
            VolumeError::Image { source, .. } => source.kind(),
            VolumeError::Quiet { source, .. } => source.kind(),
            VolumeError::Store(error) => store_kind(error),
        }
    }
}

/// Shows a volume and who holds it.
pub async fn volume_get(app: &App, id: &VolumeId) -> Result<(Volume, Option<Claim>), VolumeError> {
    let (volume, claim) = tokio::join!(app.records.volume(id), app.records.claim(id));
    let volume = volume?.ok_or_else(|| VolumeError::NotFound { volume: id.clone() })?;
    Ok((volume.value, claim?.map(|claim| claim.value)))
}

/// Where hosts find an image.
pub fn image_shown(app: &App, image: &ImageName) -> Image {
    match app.images.source(image) {
        ImageSource::Rbd { pool, image } => Image::Rbd { pool, image },
        ImageSource::File { path } => Image::File { path },
    }
}

/// Makes sure that lists of volumes show what was acknowledged before.
pub async fn volume_sync(app: &App) -> Result<(), ListError> {
    catch_up(app, &app.mirrors.volumes, Some(&app.mirrors.mounts)).await
}

/// Changes whenever a list of volumes does: the generations of the volumes, and of the claims on them.
pub fn volume_generations(app: &App) -> [u64; 2] {
    let volumes = app.mirrors.volumes.read(|view| view.generation().0);
    [volumes, app.mirrors.mounts.read(|view| view.generation().0)]
}

/// Lists volumes, after [`volume_sync`].
pub fn volume_list(app: &App, ask: &ListAsk<VolumeId>) -> Slice<Volume> {
    let keys = app.records.keys();
    let prefix = match &ask.tenant {
        Some(tenant) => keys.volumes_of(tenant),
        None => keys.volumes(),
    };
    let after = ask.after.as_ref().map(|id| keys.volume(id));
    lists::slice(&app.mirrors.volumes, &prefix, after.as_ref(), ask.limit)
}

/// The claim on a volume, as lists show it.
pub fn claim_shown(app: &App, id: &VolumeId) -> Option<Arc<Claim>> {
    app.mirrors.mounts.get(&app.records.keys().mount(id)).map(|kept| kept.record)
}

/// Notes on a volume why the last step on it failed, if nothing has changed meanwhile. For people:
/// nothing depends on it but how soon the work is taken up again.
pub(crate) async fn note_error(
    app: &App,
    volume: &Versioned<Volume>,
    error: &(dyn std::error::Error + Send + Sync + 'static),
) {
    let text = volapi::problem::chain(error);
    if volume.value.last_error.as_ref() == Some(&text) {
        return;
    }
    let noted = Volume { last_error: Some(text), ..volume.value.clone() };
    let changes = app.records.changes().put_volume(&noted, Versioned::unchanged(Some(volume)));
    if let Err(error) = app.records.commit(changes).await {
        let (volume, error) = (&volume.value.id, volapi::problem::chain(&error));
        tracing::warn!(%volume, error, "why a step failed could not be noted");
    }
}

/// The same volume in another state, without the error of the last one.
pub(crate) fn moved(volume: &Volume, state: VolumeState) -> Volume {
    Volume { state, last_error: None, ..volume.clone() }
}
