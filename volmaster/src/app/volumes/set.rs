//! Changing a volume: intent, image; and seeing to it that the image has it where somebody left off.
//!
//! A size that the image cannot have is refused, because nothing that is stored takes it back. Else the record goes first, with a note that the size and the limits of the image are pending. Two who change them at once, on two
//! volmasters, may write on the image in the other order than in the record; so whoever has written looks whether the
//! record is still the one that he wrote for, and the note stays until nobody who began before can be at it: then the
//! reconciler sets them once more, and takes it away.

use std::time::Duration;

use jiff::Timestamp;
use volcore::limit::RateLimits;
use volcore::live::LiveChange;
use volcore::name::VolumeId;
use volcore::size::Size;
use volcore::volume::{ImageFit, SetDecision, Volume, VolumeState};
use volstorage::image::{ImageError, Resized};
use volstore::records::Versioned;
use volstore::store::{Commit, Expect};

use super::create::signed;
use super::{VolumeError, moved, note_error};
use crate::app::App;

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;
/// So long after a change nobody can be writing it on the image any more: calls of the drivers end before.
const SETTLED: Duration = Duration::from_secs(30);

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The volume is so now.
    Changed(Volume),
    /// It was so already.
    Unchanged(Volume),
}

/// Changes what is live of a volume. What the image has not taken is in the volume's `last_error`, and is tried again
/// in the background.
pub async fn volume_set(
    app: &App,
    id: &VolumeId,
    change: &LiveChange,
) -> Result<Setting, VolumeError> {
    for _ in 0..ROUNDS {
        let found = app.records.volume(id).await?;
        let found = found.ok_or_else(|| VolumeError::NotFound { volume: id.clone() })?;
        match volcore::volume::volume_set(&found.value, change, app.now())? {
            SetDecision::Unchanged => return fit(app, found).await.map(Setting::Unchanged),
            SetDecision::Changed(changed) => {
                if changed.spec.size != found.value.spec.size {
                    let fits = app.images.fits(&changed.image(), changed.spec.size).await;
                    fits.map_err(|source| VolumeError::Image {
                        action: "resize",
                        volume: id.clone(),
                        source,
                    })?;
                }
                let changes = app.records.changes().put_volume(&changed, Expect::At(found.at));
                if let Commit::Done(at) = app.records.commit(changes).await? {
                    let changed = Versioned { value: *changed, at };
                    return fit(app, changed).await.map(Setting::Changed);
                }
            }
        }
    }
    Err(VolumeError::Contended { volume: id.clone() })
}

/// Gives the image its size and its limits where they are pending, until they are those of the record.
pub(crate) async fn fit(app: &App, mut volume: Versioned<Volume>) -> Result<Volume, VolumeError> {
    if pending_since(&volume.value).is_none() {
        return Ok(volume.value);
    }
    let id = volume.value.id.clone();
    let _held = app.in_hand.hold(&id);
    for _ in 0..ROUNDS {
        if let Err(error) = write(app, &volume.value).await {
            note_error(app, &volume, &error).await;
            let last_error = Some(volapi::problem::chain(&error));
            return Ok(Volume { last_error, ..volume.value });
        }
        let found = app.records.volume(&id).await?;
        match found.filter(|found| found.value.uid == volume.value.uid) {
            None => return Err(VolumeError::NotFound { volume: id }),
            Some(found) if wanted(&found.value) == wanted(&volume.value) => {
                return Ok(Volume { last_error: None, ..found.value });
            }
            // Somebody has changed them meanwhile, and may have been faster at the image too.
            Some(found) => volume = found,
        }
    }
    Err(VolumeError::Contended { volume: id })
}

/// The volume with a note that its image may not have its size and its limits; `None` where it is not ready.
pub(crate) fn unfit(volume: &Volume, now: Timestamp) -> Option<Volume> {
    let VolumeState::Ready { image_id, .. } = &volume.state else { return None };
    let fit = ImageFit::Pending { since: now };
    Some(moved(volume, VolumeState::Ready { image_id: image_id.clone(), fit }))
}

/// What an image is to have.
fn wanted(volume: &Volume) -> (Size, RateLimits) {
    (volume.spec.size, volume.spec.rate_limits)
}

/// Gives the image its size and its limits. One that somebody else has made larger meanwhile stays so: the record that
/// asked for it is the one that holds.
async fn write(app: &App, volume: &Volume) -> Result<(), ImageError> {
    let (image, (size, limits)) = (volume.image(), wanted(volume));
    match app.images.resize(&image, size).await {
        Ok(Resized::Grown | Resized::Unchanged) | Err(ImageError::Shrinks { .. }) => {}
        Err(error) => return Err(error),
    }
    app.images.limit(&image, &limits).await
}

/// Since when the size and the limits of a volume's image are pending, if they are.
pub(crate) fn pending_since(volume: &Volume) -> Option<Timestamp> {
    match volume.state {
        VolumeState::Ready { fit: ImageFit::Pending { since }, .. } => Some(since),
        VolumeState::Ready { fit: ImageFit::Fits, .. }
        | VolumeState::Creating { .. }
        | VolumeState::RollingBack { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::Adopting { .. }
        | VolumeState::GivingBack { .. }
        | VolumeState::Removing { .. } => None,
    }
}

/// Whether a reconciler has to see to the size and the limits of a volume's image: they were not taken, or nobody is at it any more.
pub(crate) fn is_left(volume: &Volume, now: Timestamp) -> bool {
    pending_since(volume)
        .is_some_and(|since| volume.last_error.is_some() || has_settled(since, now))
}

fn has_settled(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since) > signed(SETTLED)
}

/// Gives the image its size and its limits once more, and notes that it has them if nobody else can be at it.
pub(crate) async fn finish_set(app: &App, found: Versioned<Volume>) -> Result<(), VolumeError> {
    let volume = &found.value;
    let VolumeState::Ready { image_id, fit: ImageFit::Pending { since } } = &volume.state else {
        return Ok(());
    };
    let _held = app.in_hand.hold(&volume.id);
    // Before the image is written on, so that whoever changes them after this is not taken for settled.
    let fit = if has_settled(*since, app.now()) {
        ImageFit::Fits
    } else {
        ImageFit::Pending { since: *since }
    };
    if let Err(source) = write(app, volume).await {
        note_error(app, &found, &source).await;
        let volume = volume.id.clone();
        return Err(VolumeError::Image {
            action: "set the size and the limits of",
            volume,
            source,
        });
    }
    let done = moved(volume, VolumeState::Ready { image_id: image_id.clone(), fit });
    let changes = app.records.changes().put_volume(&done, Expect::At(found.at));
    // A conflict says that somebody has changed it, who sees to it.
    app.records.commit(changes).await?;
    Ok(())
}
