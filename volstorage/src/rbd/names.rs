//! Names that a crash has left half changed. Blocking.
//!
//! librbd keeps a name in two places: the object `rbd_id.<name>`, by which an image is opened, and
//! the pool's directory, by which it is listed, renamed and moved to the trash. Renaming and moving
//! change one after the other, so a client that dies in between leaves an image that can be opened
//! but is listed under its old name, or one that is listed and in the trash. Both look sound at first
//! and cost data or a name later, so they are settled by whoever meets them. All of this was seen on
//! Ceph 16.2.

use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;
use volcore::volume::ImageName;

use super::UID;
use super::connection::Session;
use crate::ceph::{Image, Pool};
use crate::faults::Faults;
use crate::image::ImageError;

/// How long somebody else may take who is renaming an image right now.
pub(super) const OTHERS: Duration = Duration::from_secs(2);
/// How often to look whether they have done it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What can be opened under a name.
pub(super) struct There {
    pub(super) id: String,
    pub(super) uid: Option<Uuid>,
    pub(super) image: Image,
}

/// Looks what can be opened under a name.
pub(super) fn look(session: &Session, image: &ImageName) -> Result<Option<There>, ImageError> {
    let Some(open) = session.open(image)? else { return Ok(None) };
    let failed = |error| session.failed(&format!("look at image {image}"), error);
    let id = open.id().map_err(failed)?;
    let uid = uid(&open).map_err(failed)?;
    Ok(Some(There { id, uid, image: open }))
}

/// The volume that an image was made for.
pub(super) fn uid(image: &Image) -> Result<Option<Uuid>, crate::ceph::CephError> {
    Ok(image.metadata(UID)?.and_then(|uid| uid.parse().ok()))
}

/// Makes sure that an image which can be opened under its name has that name in the directory too:
/// finishes a renaming that was cut short, or lets whoever is at it finish for as long as `patience`.
pub(super) fn settle(
    session: &Session,
    faults: &Faults,
    image: &ImageName,
    id: &str,
    patience: Duration,
) -> Result<(), ImageError> {
    let pool = session.pool(&image.pool)?;
    let action = format!("finish the renaming to {image} that was cut short");
    let failed = |error| session.failed(&action, error);
    let begin = Instant::now();
    let listed = loop {
        let listed = pool.list().map_err(failed)?.into_iter().find(|entry| entry.id == id);
        match listed {
            Some(entry) if entry.name == image.name => return Ok(()),
            listed if begin.elapsed() >= patience => break listed,
            _ => thread::sleep(LOOK_AGAIN),
        }
    };
    if let Some(entry) = listed {
        // Restoring accepts an `rbd_id` object that names the same image; renaming does not. It is
        // done even if this fails: together they end well whoever else is at it.
        let away = || pool.trash_move(&entry.name, 0).map_err(failed);
        if let Err(error) = faults.effect("move the half renamed to the trash", away) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%image, id, error, "a half renamed image does not go to the trash");
        }
    }
    restore(session, faults, &pool, id, image)
}

/// Takes an image out of the trash that is half there.
pub(super) fn restore(
    session: &Session,
    faults: &Faults,
    pool: &Pool,
    id: &str,
    image: &ImageName,
) -> Result<(), ImageError> {
    let action = format!("take image {image} (id {id}) out of the trash, where it was half");
    let restore = || match pool.trash_restore(id, &image.name) {
        // It is not there: nothing was half done.
        Err(error) if error.is_not_found() => Ok(()),
        restored => restored.map_err(|error| session.failed(&action, error)),
    };
    faults.effect("restore from the trash", restore)
}
