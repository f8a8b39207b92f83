//! Taking a volume from a host that is gone: cutting its clients off, so that somebody else can have it.
//!
//! The claim itself is the intent: once it is stored as being fenced, its holder has lost the volume, and
//! whoever finds it goes on from the record alone. The steps, each of which can be repeated:
//!
//! 1. The owner of the image's lock is looked up.
//! 2. The clients to fence, those of the claim and that owner, are stored, on condition that the claim is still the
//!    one that was read before step 1. So nobody had been let in since when the owner was looked up: it is not the
//!    successor, however late what follows is done.
//! 3. They are blocklisted, for a year; then the lock is broken, if one of them has it.
//! 4. The claim goes to the successor under the next epoch, or goes.
//!
//! Entries are taken off the blocklist when it is proven that none of the clients is left ([`unfence`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use volcore::Kind;
use volcore::claim::Claim;
use volcore::name::{HostName, VolumeId};
use volcore::takeover::{self, Fence};
use volcore::volume::Volume;
use volstorage::image::ImageError;
use volstore::records::Versioned;
use volstore::store::{Commit, Expect, StoreError};

use super::{App, Failing, ListError, catch_up, store_kind};

/// Why a holder could not be fenced. Its claim is stored as being fenced, and is looked at again.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The cluster failed.
    #[error(
        "could not fence the holder of volume {volume}; it has lost the volume, and nobody else has it yet"
    )]
    Images {
        /// Which volume.
        volume: VolumeId,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// Another volume would lose its holder with this one.
    #[error(
        "could not fence the holder of volume {volume}: its client {client} also serves volume {other}, whose holder \
         lives; stop the containers that use {volume} there, or that host"
    )]
    Shared {
        /// Which volume.
        volume: VolumeId,
        /// Whose client.
        client: String,
        /// The other volume.
        other: VolumeId,
    },
    /// What others hold is not known.
    #[error(transparent)]
    Claims(#[from] ListError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for FenceError {
    fn kind(&self) -> Kind {
        match self {
            FenceError::Images { source, .. } => source.kind(),
            FenceError::Shared { .. } => Kind::InUse,
            FenceError::Claims(error) => error.kind(),
            FenceError::Store(error) => store_kind(error),
        }
    }
}

/// What came of cutting off.
#[derive(Debug)]
pub enum CutOff {
    /// None of the clients can write any more.
    Done(Vec<Fence>),
    /// Somebody else has gone on with the claim.
    Overtaken,
}

/// Whose turn it is to fence a volume's holder, in this process. Among processes the claim says so.
#[derive(Debug, Default)]
pub struct Turns {
    turns: Mutex<HashMap<VolumeId, Arc<AsyncMutex<()>>>>,
}

/// The turn; it ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    _held: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits for the turn.
    pub async fn take(&self, id: &VolumeId) -> Turn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // What nobody waits for or has.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(id.clone()).or_default().clone()
        };
        Turn { _held: turn.lock_owned().await }
    }
}

/// Cuts off the holders of a claim that is stored as being fenced by this volmaster. The caller has the turn.
pub(crate) async fn cut_off(
    app: &App,
    volume: Option<&Volume>,
    claim: &Versioned<Claim>,
) -> Result<CutOff, FenceError> {
    let id = &claim.value.volume;
    let failed = |source| FenceError::Images { volume: id.clone(), source };
    let image = volume.map(Volume::image);
    let owner = match &image {
        Some(image) => app.images.lock_owner(image).await.map_err(failed)?,
        None => None,
    };
    let mut fences = takeover::fences(&claim.value, owner.as_deref(), app.now());
    let mut clients: BTreeSet<String> =
        fences.iter().flat_map(|fence| fence.clients.iter().cloned()).collect();
    refuse_shared(app, id, &clients).await?;
    let mut changes = app.records.changes().check_claim(id, Expect::At(claim.at));
    fences.retain(|fence| !fence.clients.is_empty());
    for fence in &mut fences {
        // An attempt before this one may have found another owner.
        let before = app.records.fence(&fence.host, id, fence.epoch).await?;
        if let Some(before) = &before {
            fence.clients.extend(before.value.clients.iter().cloned());
            fence.since = before.value.since;
        }
        clients.extend(fence.clients.iter().cloned());
        changes = changes.put_fence(fence, Versioned::unchanged(before.as_ref()));
    }
    if let Commit::Conflict = app.records.commit(changes).await? {
        return Ok(CutOff::Overtaken);
    }
    if !clients.is_empty() {
        app.images.fence(&clients).await.map_err(failed)?;
        if let Some(image) = &image {
            app.images.break_lock(image, &clients).await.map_err(failed)?;
        }
    }
    tracing::warn!(volume = %id, epoch = claim.value.epoch, ?clients, "its holder is fenced");
    Ok(CutOff::Done(fences))
}

/// Cuts off whoever has locked the image of a volume that nobody holds.
pub(crate) async fn cut_off_stranger(app: &App, volume: &Volume) -> Result<(), FenceError> {
    let failed = |source| FenceError::Images { volume: volume.id.clone(), source };
    let image = volume.image();
    let Some(owner) = app.images.lock_owner(&image).await.map_err(failed)? else { return Ok(()) };
    let clients = BTreeSet::from([owner]);
    refuse_shared(app, &volume.id, &clients).await?;
    if app.records.claim(&volume.id).await?.is_some() {
        // It may be the lock of whoever has just been let in.
        return Ok(());
    }
    app.images.fence(&clients).await.map_err(failed)?;
    app.images.break_lock(&image, &clients).await.map_err(failed)?;
    tracing::warn!(volume = %volume.id, ?clients, "nobody held it; who had locked its image is fenced");
    Ok(())
}

/// Refuses to fence clients with which others hold volumes.
async fn refuse_shared(
    app: &App,
    id: &VolumeId,
    clients: &BTreeSet<String>,
) -> Result<(), FenceError> {
    catch_up(app, &app.mirrors.mounts, None::<&volstore::cache::Mirror<Claim>>).await?;
    let shared = app.mirrors.mounts.read(|view| {
        takeover::shared(clients, id, view.records().values().map(|kept| &*kept.record))
    });
    match shared {
        Some((client, other)) => Err(FenceError::Shared { volume: id.clone(), client, other }),
        None => Ok(()),
    }
}

/// Lets the clients of a fence in again of which none is left, and forgets it.
pub(crate) async fn unfence(app: &App, fence: &Versioned<Fence>) -> Result<(), FenceError> {
    let Fence { host, volume, epoch, .. } = &fence.value;
    let failed = |source| FenceError::Images { volume: volume.clone(), source };
    let mut clients = fence.value.clients.clone();
    for other in app.records.fences(Some(host)).await? {
        if other.value != fence.value {
            clients.retain(|client| !other.value.clients.contains(client));
        }
    }
    if !clients.is_empty() {
        app.images.unfence(&clients).await.map_err(failed)?;
    }
    let changes = app.records.changes().delete_fence(&fence.value, fence.at);
    if let Commit::Done(_) = app.records.commit(changes).await? {
        tracing::info!(%host, %volume, epoch, ?clients, "nothing of it is left there; let in again");
    }
    Ok(())
}

/// Finishes a claim that is being fenced, whoever began: cuts its holders off, and removes it.
pub(crate) async fn finish(app: &App, id: &VolumeId) -> Result<(), FenceError> {
    let _turn = app.fencing.take(id).await;
    let (volume, claim, masters) =
        tokio::join!(app.records.volume(id), app.records.claim(id), app.records.masters());
    let (Some(claim), masters) = (claim?, masters?) else { return Ok(()) };
    let me = app.presence.me;
    match claim.value.fencing() {
        Some(fencing) if fencing.by == me || !masters.contains(&fencing.by) => {}
        Some(_) | None => return Ok(()),
    }
    let volume = volume?.map(|volume| volume.value);
    clear(app, volume.as_ref(), claim).await.map(drop)
}

/// Takes a claim from its holders, cuts them off, and removes it; what was fenced. The caller has the turn.
pub(crate) async fn clear(
    app: &App,
    volume: Option<&Volume>,
    claim: Versioned<Claim>,
) -> Result<CutOff, FenceError> {
    let id = claim.value.volume.clone();
    let Some(claim) = intend(app, claim).await? else { return Ok(CutOff::Overtaken) };
    let done = cut_off(app, volume, &claim).await?;
    if let CutOff::Overtaken = done {
        return Ok(done);
    }
    let changes = app.records.changes().delete_claim(&id, claim.at);
    match app.records.commit(changes).await? {
        Commit::Done(_) => Ok(done),
        Commit::Conflict => Ok(CutOff::Overtaken),
    }
}

/// Stores that this volmaster fences the holders of a claim; `None` where somebody else was faster.
pub(crate) async fn intend(
    app: &App,
    claim: Versioned<Claim>,
) -> Result<Option<Versioned<Claim>>, StoreError> {
    let fenced = claim.value.fenced_by(app.presence.me, app.now());
    if fenced == claim.value {
        return Ok(Some(claim));
    }
    let changes = app.records.changes().put_claim(&fenced, Expect::At(claim.at));
    match app.records.commit(changes).await? {
        Commit::Done(at) => Ok(Some(Versioned { value: fenced, at })),
        Commit::Conflict => Ok(None),
    }
}

/// The fences of one volume on a host.
pub(crate) async fn fences_of(
    app: &App,
    host: &HostName,
    id: &VolumeId,
) -> Result<Vec<Versioned<Fence>>, StoreError> {
    let all = app.records.fences(Some(host)).await?;
    Ok(all.into_iter().filter(|fence| fence.value.volume == *id).collect())
}

/// How long somebody who asks for a volume waits for another volmaster's fencing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(12);
