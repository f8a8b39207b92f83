//! Making the image of a volume that is a clone.
//!
//! What is cloned as it is now has no snapshot to be cloned from: one is taken for the purpose, under a name that follows
//! from the clone's uid, so that whoever takes the work up finds it, and it is removed before the clone is ready.

use volcore::name::{SnapshotName, VolumeId};
use volcore::options::Origin;
use volcore::volume::{Volume, VolumeState};
use volstorage::image::{Created, ImageError, ImageSnapshot, NewClone, SnapshotUsage};
use volstore::store::StoreError;

use super::VolumeError;
use crate::app::App;
use crate::app::snapshots::{QuietError, snapshot_quietly};

/// Why the image of a clone was not made.
#[derive(Debug)]
pub(super) enum CloneError {
    /// There is nothing to clone.
    Origin(VolumeError),
    /// The image driver failed.
    Image(ImageError),
    /// The store failed.
    Store(StoreError),
}

impl From<ImageError> for CloneError {
    fn from(error: ImageError) -> Self {
        CloneError::Image(error)
    }
}

impl From<VolumeError> for CloneError {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::Store(error) => CloneError::Store(error),
            error => CloneError::Origin(error),
        }
    }
}

/// The volume that is to be cloned, with the snapshot that is spoken of.
pub(super) async fn origin(
    app: &App,
    id: &VolumeId,
    origin: &Origin,
) -> Result<Volume, VolumeError> {
    if origin.volume == *id {
        return Err(VolumeError::OntoItself { volume: id.clone() });
    }
    let source = ready(app, origin).await?;
    let Some(snapshot) = &origin.snapshot else { return Ok(source) };
    let listed = app.images.snapshot_list(&source.image(), SnapshotUsage::Skip).await;
    let listed = listed.map_err(|error| VolumeError::Image {
        action: "list the snapshots of",
        volume: source.id.clone(),
        source: error,
    })?;
    if listed.iter().any(|found| found.name == *snapshot) {
        return Ok(source);
    }
    let (volume, snapshot) = (origin.volume.clone(), snapshot.clone());
    Err(VolumeError::NoSnapshot { volume, snapshot })
}

async fn ready(app: &App, origin: &Origin) -> Result<Volume, VolumeError> {
    let found = app.records.volume(&origin.volume).await?;
    let none = || VolumeError::NotFound { volume: origin.volume.clone() };
    let source = found.ok_or_else(none)?.value;
    match source.state {
        VolumeState::Ready { .. } => Ok(source),
        _ => {
            let (volume, state) = (source.id.clone(), source.state.as_str());
            Err(VolumeError::OriginNotReady { volume, state })
        }
    }
}

/// Makes the image of a volume whose intent is stored.
pub(super) async fn make(
    app: &App,
    volume: &Volume,
    origin: &Origin,
) -> Result<Created, CloneError> {
    let source = ready(app, origin).await?;
    let from = match &origin.snapshot {
        Some(snapshot) => ImageSnapshot { image: source.image(), snapshot: snapshot.clone() },
        None => {
            let from = temporary(volume, &source);
            snapshot_quietly(app, &source, &from).await.map_err(|error| match error {
                QuietError::Image(error) => CloneError::Image(error),
                QuietError::Store(error) => CloneError::Store(error),
                error => {
                    let volume = source.id.clone();
                    CloneError::Origin(VolumeError::Quiet { volume, source: error })
                }
            })?;
            from
        }
    };
    let new = NewClone {
        from,
        image: volume.image(),
        uid: volume.uid,
        size: volume.spec.size,
        access: volume.spec.access,
        limits: volume.spec.rate_limits,
    };
    let made = app.images.snapshot_clone(&new).await?;
    if origin.snapshot.is_none() {
        remove(app, &new.from).await?;
    }
    Ok(made)
}

/// The snapshot that is taken of what is cloned as it is now.
fn temporary(volume: &Volume, source: &Volume) -> ImageSnapshot {
    let snapshot = SnapshotName::for_clone(volume.uid);
    ImageSnapshot { image: source.image(), snapshot }
}

async fn remove(app: &App, snapshot: &ImageSnapshot) -> Result<(), ImageError> {
    match app.images.snapshot_remove(snapshot).await {
        Ok(_) | Err(ImageError::NoImage { .. } | ImageError::NoPool { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what was taken of the volume that is cloned, if anything was. With the volume went its snapshots.
pub(super) async fn drop_temporary(app: &App, volume: &Volume) -> Result<(), VolumeError> {
    let Some(Origin { volume: id, snapshot: None }) = &volume.spec.from else { return Ok(()) };
    let Some(source) = app.records.volume(id).await? else { return Ok(()) };
    let removed = remove(app, &temporary(volume, &source.value)).await;
    let failed =
        |source| VolumeError::Image { action: "clean up after", volume: id.clone(), source };
    removed.map_err(failed)
}
