//! Who has an image open, or locked: telling the control plane's clients from hosts, and cutting clients off. Blocking.
//!
//! Fencing is in two steps, in this order: a client is blocklisted, then its lock is broken. By the monitor's own
//! command, because librbd (16.2) blocklists for an hour, over any longer entry; and an entry that ends before its client
//! has ended lets that client write over what others have written since.

use std::collections::BTreeSet;
use std::thread;

use serde_json::json;
use volcore::volume::ImageName;

use super::connection::Session;
use crate::ceph::Image;
use crate::image::{FENCED_FOR, ImageError};

/// How many monitor commands are under way at a time. The monitor gathers what comes within a second.
const AT_ONCE: usize = 64;

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

/// Who has the lock of an image, unless it is one of the control plane's clients.
pub(super) fn lock_owner(
    session: &Session,
    name: &ImageName,
) -> Result<Option<String>, ImageError> {
    let failed = |error| session.failed(&format!("look who has locked image {name}"), error);
    let pool = session.pool(&name.pool)?;
    let Some(id) = pool.linked_id(&name.name).map_err(failed)? else { return Ok(None) };
    match pool.locker(&id).map_err(failed)? {
        Some(locker) if !pool.is_control(&locker.address).map_err(failed)? => {
            Ok(Some(locker.address))
        }
        Some(_) | None => Ok(None),
    }
}

/// Blocklists clients, and waits until this client knows.
pub(super) fn fence(session: &Session, clients: &BTreeSet<String>) -> Result<(), ImageError> {
    if let Some(own) = clients.iter().find(|client| session.is_own(client)) {
        let source = format!("{own} is this volmaster's own client").into();
        return Err(ImageError::Failed { action: "fence clients".to_owned(), source });
    }
    for_each(session, "fence", clients, |client| {
        let expire = FENCED_FOR.as_secs_f64();
        json!({"prefix": "osd blocklist", "blocklistop": "add", "addr": client, "expire": expire})
    })?;
    // The OSDs learn of it with their next map; whoever comes there with this one brings it along.
    let newest = session.cluster().wait_for_latest_osd_map();
    newest.map_err(|error| session.failed("wait for the map that fences clients", error))
}

/// Takes clients off the blocklist.
pub(super) fn unfence(session: &Session, clients: &BTreeSet<String>) -> Result<(), ImageError> {
    for_each(
        session,
        "let in again",
        clients,
        |client| json!({"prefix": "osd blocklist", "blocklistop": "rm", "addr": client}),
    )
}

/// A monitor command for each client. Each waits for the monitor's next commit, so they are asked together.
fn for_each(
    session: &Session,
    what: &str,
    clients: &BTreeSet<String>,
    command: impl Fn(&str) -> serde_json::Value + Sync,
) -> Result<(), ImageError> {
    let ask = |client: &String| {
        let asked = session.cluster().mon_command(&command(client));
        asked.map(drop).map_err(|error| session.failed(&format!("{what} client {client}"), error))
    };
    let clients: Vec<_> = clients.iter().collect();
    for some in clients.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|client| scope.spawn(|| ask(client))).collect();
            let lost = |_| {
                Err(ImageError::Failed {
                    action: format!("{what} clients"),
                    source: "a thread has ended by itself".into(),
                })
            };
            asked.into_iter().try_for_each(|one| one.join().unwrap_or_else(lost))
        })?;
    }
    Ok(())
}

/// Breaks the lock of an image where one of these clients has it.
pub(super) fn break_lock(
    session: &Session,
    name: &ImageName,
    clients: &BTreeSet<String>,
) -> Result<(), ImageError> {
    let failed = |error| session.failed(&format!("break the lock of image {name}"), error);
    let pool = session.pool(&name.pool)?;
    let Some(id) = pool.linked_id(&name.name).map_err(failed)? else { return Ok(()) };
    match pool.locker(&id).map_err(failed)? {
        Some(locker) if clients.contains(&locker.address) => {
            tracing::warn!(image = %name, owner = locker.address, "broke the lock of a host that has lost the image");
            pool.break_lock(&id, &locker).map_err(failed)
        }
        Some(_) | None => Ok(()),
    }
}

/// Takes the lock of an image away from a client of the control plane that does not watch it any more; whether there was
/// one. Others who hold it are left alone.
pub(super) fn free_of_dead(session: &Session, name: &ImageName) -> Result<bool, ImageError> {
    let failed = |error| session.failed(&format!("free image {name}"), error);
    let pool = session.pool(&name.pool)?;
    let Some(id) = pool.linked_id(&name.name).map_err(failed)? else { return Ok(false) };
    let Some(locker) = pool.locker(&id).map_err(failed)? else { return Ok(false) };
    let owner = &locker.address;
    if session.is_own(owner) || !pool.is_control(owner).map_err(failed)? {
        return Ok(false);
    }
    let Some(open) = session.open_for_writing(name)? else { return Ok(false) };
    if open.watchers().map_err(failed)?.iter().any(|watcher| watcher.address == *owner) {
        return Ok(false);
    }
    fence(session, &BTreeSet::from([owner.clone()]))?;
    pool.break_lock(&id, &locker).map_err(failed)?;
    tracing::warn!(image = %name, owner, "broke the lock of a volmaster that has died");
    Ok(true)
}
