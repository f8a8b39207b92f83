//! Mending one thing. Each is a commit with what was seen as its precondition, or a call that removes nothing but what
//! nobody has; each can be done twice, and by two at once.

use uuid::Uuid;
use volcore::name::{HostName, VolumeId};
use volcore::volume::{ImageFit, VolumeState};
use volstorage::image::{ImageError, ImageSnapshot, Unfinished};
use volstore::records::{Changes, Versioned};
use volstore::store::{Commit, Expect, Revision, StoreError};

use crate::app::App;
use crate::app::volumes::{VolumeError, fit, unfit};

/// How often something begins again because another record was changed.
const ROUNDS: usize = 10;

/// What is to be done, with what it was seen to follow from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mend {
    /// Drop a record of the trash whose image is gone.
    DropTrash {
        /// Its id.
        id: String,
        /// As it was.
        at: Revision,
    },
    /// Drop the log of a schedule.
    DropLog {
        /// The volume whose name it has.
        volume: VolumeId,
        /// As it was.
        at: Revision,
        /// The volume that it was of, which is no more.
        uid: Uuid,
    },
    /// Drop a claim that nobody can make use of.
    DropClaim {
        /// The volume that is no more.
        volume: VolumeId,
        /// As it was.
        at: Revision,
        /// Its holders, none of which has a session.
        hosts: Vec<HostName>,
    },
    /// Give an image the size and the limits of its volume.
    Fit {
        /// The volume.
        volume: VolumeId,
        /// As it was.
        at: Revision,
    },
    /// Remove what an attempt to make an image has left.
    DropUnfinished(Unfinished),
    /// Remove a snapshot that was taken for a clone.
    DropSnapshot(ImageSnapshot),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mended {
    /// It is as it should be, by whomever.
    Done,
    /// It is not what it was seen to be any more.
    Changed,
}

/// Why something was not mended.
#[derive(Debug, thiserror::Error)]
pub(super) enum MendError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image driver failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The volume could not be changed.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// It is stored, and the image did not take it.
    #[error("the image has not taken it, which is tried again: {reason}")]
    NotTaken {
        /// Why.
        reason: String,
    },
}

impl Mend {
    /// What it would do, as the continuation of a command.
    pub(super) fn does(&self) -> &'static str {
        match self {
            Mend::DropTrash { .. } => "drops the record",
            Mend::DropLog { .. } => "drops the log",
            Mend::DropClaim { .. } => "clears the claim",
            Mend::Fit { .. } => "gives the image what the record says",
            Mend::DropUnfinished(_) => "removes it",
            Mend::DropSnapshot(_) => "removes the snapshot",
        }
    }

    /// The same when it is done.
    pub(super) fn done(&self) -> &'static str {
        match self {
            Mend::DropTrash { .. } => "the record was dropped",
            Mend::DropLog { .. } => "the log was dropped",
            Mend::DropClaim { .. } => "the claim was cleared",
            Mend::Fit { .. } => "the image has what the record says",
            Mend::DropUnfinished(_) => "it was removed",
            Mend::DropSnapshot(_) => "the snapshot was removed",
        }
    }
}

/// Does it, if what was seen still holds.
pub(super) async fn mend(app: &App, what: &Mend) -> Result<Mended, MendError> {
    match what {
        Mend::DropTrash { id, at } => {
            let changes = app.records.changes().delete_trash(id, *at);
            dropped(app, changes, async || Ok(app.records.trash(id).await?.is_none())).await
        }
        Mend::DropLog { volume, at, uid } => drop_log(app, volume, *at, *uid).await,
        Mend::DropClaim { volume, at, hosts } => drop_claim(app, volume, *at, hosts).await,
        Mend::Fit { volume, at } => fit_again(app, volume, *at).await,
        Mend::DropUnfinished(unfinished) => {
            app.images.drop_unfinished(unfinished).await?;
            Ok(Mended::Done)
        }
        Mend::DropSnapshot(snapshot) => match app.images.snapshot_remove(snapshot).await {
            Ok(_) | Err(ImageError::NoImage { .. } | ImageError::NoPool { .. }) => Ok(Mended::Done),
            Err(error) => Err(error.into()),
        },
    }
}

/// Commits the deletion of something; it may be gone already.
async fn dropped(
    app: &App,
    changes: Changes,
    is_gone: impl AsyncFnOnce() -> Result<bool, StoreError>,
) -> Result<Mended, MendError> {
    match app.records.commit(changes).await? {
        Commit::Done(_) => Ok(Mended::Done),
        Commit::Conflict if is_gone().await? => Ok(Mended::Done),
        Commit::Conflict => Ok(Mended::Changed),
    }
}

/// Another volume may have the name by now, and change; the one that the log is of may be back out of the trash.
async fn drop_log(
    app: &App,
    volume: &VolumeId,
    at: Revision,
    uid: Uuid,
) -> Result<Mended, MendError> {
    for _ in 0..ROUNDS {
        let owner = app.records.volume(volume).await?;
        if owner.as_ref().is_some_and(|owner| owner.value.uid == uid) {
            return Ok(Mended::Changed);
        }
        let changes = app.records.changes();
        let changes = changes
            .check_volume(volume, Versioned::unchanged(owner.as_ref()))
            .delete_snapshot_log(volume, at);
        if let Commit::Done(_) = app.records.commit(changes).await? {
            return Ok(Mended::Done);
        }
        match app.records.snapshot_log(volume).await? {
            None => return Ok(Mended::Done),
            Some(log) if log.at == at => {}
            Some(_) => return Ok(Mended::Changed),
        }
    }
    Ok(Mended::Changed)
}

/// With the claim goes the epoch, as with the volume.
async fn drop_claim(
    app: &App,
    volume: &VolumeId,
    at: Revision,
    hosts: &[HostName],
) -> Result<Mended, MendError> {
    let epoch = app.records.epoch(volume).await?;
    let changes = app.records.changes().check_volume(volume, Expect::Absent);
    let changes = hosts
        .iter()
        .fold(changes, |changes, host| changes.check_session(host, Expect::Absent))
        .delete_claim(volume, at);
    let changes = match epoch {
        Some(epoch) => changes.delete_epoch(volume, epoch.at),
        None => changes,
    };
    dropped(app, changes, async || Ok(app.records.claim(volume).await?.is_none())).await
}

/// The record goes first, with a note that the image may not fit: whoever finds it goes on.
async fn fit_again(app: &App, id: &VolumeId, at: Revision) -> Result<Mended, MendError> {
    let Some(found) = app.records.volume(id).await? else { return Ok(Mended::Changed) };
    let is_noted = matches!(
        found.value.state,
        VolumeState::Ready { fit: ImageFit::Pending { .. }, .. } if found.value.last_error.is_none()
    );
    if found.at != at {
        // Another has noted it, and sees to it.
        return Ok(if is_noted { Mended::Done } else { Mended::Changed });
    }
    let Some(unfit) = unfit(&found.value, app.now()) else { return Ok(Mended::Changed) };
    let changes = app.records.changes().put_volume(&unfit, Expect::At(at));
    let Commit::Done(at) = app.records.commit(changes).await? else { return Ok(Mended::Changed) };
    match fit(app, Versioned { value: unfit, at }).await?.last_error {
        None => Ok(Mended::Done),
        Some(reason) => Err(MendError::NotTaken { reason }),
    }
}
