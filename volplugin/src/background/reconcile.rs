//! Brings the records, the kernel, Docker's uses and the claims together again.
//!
//! Runs at start, every ten seconds, and when nudged. What it finds and does:
//! - a record of another boot, or one that is leaving or was taken from this host: give the volume back;
//! - a record in the middle of a mount that nobody works on: undo it, after the time in
//!   which Docker would have repeated its call;
//! - a use whose dockerd is gone, with no container left that has the volume: drop it;
//! - a use from before this process, with no container that has the volume, after a while: its Unmount
//!   came while nobody was here, and Docker does not repeat it for ever; drop it;
//! - a volume whose server was fenced off: it is somebody else's, or will be; give up what is left of it here;
//! - something that volmaster has not been told: tell it;
//! - a mapping or mount without a record, unused: take it away;
//! - a claim of this host without a record: release it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{MissedTickBehavior, interval};
use volcore::name::VolumeId;
use volstorage::host::HostError;
use volstorage::image::ImageSource;

use crate::app::{Plugin, within};
use crate::host::uses::{Held, Phase};
use crate::master::MasterError;

/// How often without a nudge.
const EVERY: Duration = Duration::from_secs(10);
/// Docker repeats a call whose connection broke after 1, 2, 4 and 8 s: so old is a volplugin that will hear of no
/// Mount of an earlier one any more.
pub const SETTLED: Duration = Duration::from_secs(20);
/// A container begins within this time after its volumes were mounted: so old is a volplugin that has seen begin
/// whatever an earlier one has mounted for.
pub const BEGUN: Duration = Duration::from_secs(120);

/// Why a pass did not come to its end; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("could not find out what is mapped and mounted here")]
    Inventory(#[source] HostError),
    #[error("could not find out what this host has claimed")]
    Claims(#[source] MasterError),
}

/// Runs for ever.
pub async fn run(plugin: Arc<Plugin>) {
    let born = Instant::now();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: both arms are, and neither carries anything.
        tokio::select! {
            _ = ticks.tick() => {}
            () = plugin.nudge.notified() => {}
        }
        pass(&plugin, born.elapsed()).await;
    }
}

/// One pass over everything, by a volplugin that is so old.
pub async fn pass(plugin: &Arc<Plugin>, age: Duration) {
    for held in plugin.uses.list() {
        if let Some(_turn) = plugin.locks.try_lock(&held.volume)
            && let Some(held) = plugin.uses.get(&held.volume)
        {
            one(plugin, held, age).await;
        }
    }
    let rest = async { claims(plugin, &strays(plugin).await?).await };
    if let Err(error) = rest.await {
        tracing::warn!(error = volapi::problem::chain(&error), "reconciliation is not complete");
    }
}

async fn one(plugin: &Plugin, mut held: Held, age: Duration) {
    let id = held.volume.clone();
    let over = held.boot != plugin.me.boot
        || held.phase == Phase::Leaving
        || held.phase == Phase::Fenced
        || (held.phase == Phase::Mounting && age >= SETTLED);
    if over {
        match plugin.leave(held).await {
            Ok(()) => tracing::info!(volume = %id, "given back"),
            Err(error) => tracing::warn!(volume = %id, %error, "cannot be given back yet"),
        }
        return;
    }
    if held.phase != Phase::Mounted {
        return;
    }
    if let Err(HostError::Fenced { .. }) = plugin.driver.serves(&held.source).await {
        // Whoever has the claim: from here nobody writes to it any more.
        return plugin.lose(held).await;
    }
    let before = held.clone();
    plugin.drop_dead_uses(&mut held).await;
    if age >= BEGUN {
        let born = SignedDuration::try_from(age)
            .ok()
            .and_then(|age| Timestamp::now().checked_sub(age).ok());
        plugin.drop_uses(&mut held, |one| born.is_some_and(|born| one.since < born)).await;
    }
    if held.uses.is_empty() {
        tracing::info!(volume = %id, "no container uses it any more, and Docker will not say so");
        if let Err(error) = plugin.leave(held).await {
            tracing::warn!(volume = %id, %error, "cannot be given back yet");
        }
        return;
    }
    if !held.told {
        match plugin.tell(&mut held).await {
            Err(error) if error.is_lost() => return plugin.lose(held).await,
            Ok(()) => {
                held.told = true;
                held.last_error = None;
            }
            Err(error) => held.last_error = Some(error.to_string()),
        }
    }
    if held != before
        && let Err(error) = plugin.uses.put(&held)
    {
        tracing::warn!(volume = %id, %error, "record not written");
    }
}

/// Takes away mappings and mounts that no record speaks of. Gives the names of the images that are
/// still here: their claims have to stand.
async fn strays(plugin: &Plugin) -> Result<HashSet<String>, PassError> {
    let inventory = plugin.driver.inventory().await.map_err(PassError::Inventory)?;
    // Read after the inventory: a record is written before its mapping is made.
    let held = plugin.uses.list();
    let sources: HashSet<_> = held.iter().map(|held| &held.source).collect();
    let targets: HashSet<_> = held.iter().map(|held| &held.target).collect();
    let mut here = HashSet::new();
    for (device, target) in &inventory.mounts {
        if targets.contains(target) {
            continue;
        }
        let users = plugin.driver.users(device, target).await.map_err(PassError::Inventory)?;
        if !users.is_empty() {
            tracing::warn!(target = %target.display(), ?users, "mounted without a record, and in use");
            here.extend(name(target));
        } else if !undone(plugin.driver.unmount(target).await, target) {
            here.extend(name(target));
        }
    }
    for found in &inventory.mappings {
        let (path, name) = match &found.source {
            ImageSource::Rbd { pool, image } => (Path::new(pool).join(image), Some(image.clone())),
            ImageSource::File { path } => (path.clone(), name(path)),
        };
        if sources.contains(&found.source) {
            continue;
        }
        let in_use = name.as_ref().is_some_and(|name| here.contains(name));
        if in_use || !undone(plugin.driver.unmap(&found.source).await, &path) {
            here.extend(name);
        }
    }
    Ok(here)
}

fn name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_string_lossy().into_owned())
}

fn undone<T>(result: Result<T, HostError>, what: &Path) -> bool {
    let what = what.display();
    match result {
        Ok(_) => tracing::warn!(%what, "was here without a record; taken away"),
        Err(error) => {
            let error = volapi::problem::chain(&error);
            tracing::warn!(%what, error, "is here without a record, and cannot be taken away yet");
            return false;
        }
    }
    true
}

/// Claims of this host that no record speaks of: of volumes that it has given back, or held before a reboot.
async fn claims(plugin: &Plugin, here: &HashSet<String>) -> Result<(), PassError> {
    let mounts = plugin.master.mount_list(within::RELEASE).await.map_err(PassError::Claims)?;
    for mount in mounts {
        let ours = mount.holders().any(|holder| holder.host == plugin.me.host);
        if ours && !here.contains(&mount.volume.image_name()) {
            release_stray(plugin, &mount.volume).await;
        }
    }
    Ok(())
}

async fn release_stray(plugin: &Plugin, id: &VolumeId) {
    // A record is written before its claim is taken, so under the lock no record means no claim in use.
    let Some(_turn) = plugin.locks.try_lock(id) else { return };
    if plugin.uses.get(id).is_some() {
        return;
    }
    tracing::warn!(volume = %id, "claimed without a record; releasing");
    let released =
        plugin.master.mount_release(id, &plugin.me.host, &plugin.me.boot, within::RELEASE).await;
    if let Err(error) = released {
        tracing::warn!(volume = %id, %error, "the claim could not be released yet");
    }
}
