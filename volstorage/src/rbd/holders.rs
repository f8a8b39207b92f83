//! Who has an image open, or locked: telling the control plane's clients from hosts, and cutting clients off. Blocking.

use serde_json::json;
use volcore::volume::ImageName;

use super::connection::Session;
use crate::ceph::Image;
use crate::image::ImageError;

/// The clients that have an image open for writing and are not the control plane's.
pub(super) fn users(
    session: &Session,
    name: &ImageName,
    image: &Image,
) -> Result<Vec<String>, ImageError> {
    let failed = |error| session.failed(&format!("look for users of image {name}"), error);
    let pool = session.pool(&name.pool)?;
    let mut users = Vec::new();
    for address in session.watchers(name, image)? {
        if !pool.is_control(&address).map_err(failed)? {
            users.push(address);
        }
    }
    Ok(users)
}

/// Fences whoever has an image open for writing, and whoever has its lock, and answers with their addresses: a client that
/// died is in the first list for 30 s only, and in the second until somebody breaks its lock. The control plane's are left
/// alone while they have it open: they change it for a moment, and write nothing on it.
pub(super) fn fence(session: &Session, name: &ImageName) -> Result<Vec<String>, ImageError> {
    let failed = |error| session.failed(&format!("fence the clients of image {name}"), error);
    if session.open(name)?.is_none() {
        return Ok(Vec::new());
    }
    let pool = session.pool(&name.pool)?;
    let image = pool.open_image(&name.name).map_err(failed)?;
    let mut fenced = users(session, name, &image)?;
    for address in &fenced {
        let command = json!({"prefix": "osd blocklist", "blocklistop": "add", "addr": address});
        session.cluster().mon_command(&command).map_err(failed)?;
    }
    let watchers = image.watchers().map_err(failed)?;
    for owner in image.lock_owners().map_err(failed)? {
        let lives = watchers.iter().any(|watcher| watcher.address == owner);
        if lives && pool.is_control(&owner).map_err(failed)? {
            continue;
        }
        match image.break_lock(&owner) {
            // It has let go of it by itself.
            Err(error) if error.is_not_found() => {}
            broken => broken.map_err(failed)?,
        }
        if !fenced.contains(&owner) {
            fenced.push(owner);
        }
    }
    // The OSDs learn of it with their next map; whoever writes there next brings it along.
    session.cluster().wait_for_latest_osd_map().map_err(failed)?;
    Ok(fenced)
}

/// Takes the lock of an image away from a client of the control plane that does not watch it any more; whether there was
/// one. Others who hold it are left alone.
pub(super) fn free_of_dead(session: &Session, name: &ImageName) -> Result<bool, ImageError> {
    let failed = |error| session.failed(&format!("free image {name}"), error);
    let pool = session.pool(&name.pool)?;
    let Some(id) = pool.linked_id(&name.name).map_err(failed)? else { return Ok(false) };
    let Some(owner) = pool.locked_by(&id).map_err(failed)? else { return Ok(false) };
    if session.is_own(&owner) || !pool.is_control(&owner).map_err(failed)? {
        return Ok(false);
    }
    let Some(open) = session.open_for_writing(name)? else { return Ok(false) };
    if open.watchers().map_err(failed)?.iter().any(|watcher| watcher.address == owner) {
        return Ok(false);
    }
    match open.break_lock(&owner) {
        Err(error) if error.is_not_found() || error.is_busy() => return Ok(false),
        broken => broken.map_err(failed)?,
    }
    tracing::warn!(image = %name, owner, "broke the lock of a volmaster that has died");
    session.cluster().wait_for_latest_osd_map().map_err(failed)?;
    Ok(true)
}
