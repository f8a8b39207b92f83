//! Mount claims: taking, renewing, releasing, clearing.

use std::time::Duration;

use uuid::Uuid;
use volcore::Kind;
use volcore::claim::{Claim, ClaimAsk, ClaimDecision, ClaimFacts, ClaimRefusal, ReleaseDecision};
use volcore::name::{BootId, HostName, VolumeId};
use volcore::volume::{Volume, VolumeState};
use volstorage::image::ImageError;
use volstore::records::{Changes, Versioned};
use volstore::store::{Commit, Expect, StoreError};

use super::{App, Failing, ListAsk, ListError, Slice, catch_up, lists, store_kind};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: u32 = 10;
/// How long a claim waits for a look at the image.
const FREEING: Duration = Duration::from_secs(3);

/// Why a claim was not changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no such volume.
    #[error("volume {volume} does not exist")]
    NoVolume {
        /// Which.
        volume: VolumeId,
    },
    /// Nobody holds it.
    #[error("volume {volume} is not in use by any host")]
    NotClaimed {
        /// Which.
        volume: VolumeId,
    },
    /// The rules say no.
    #[error(transparent)]
    Refused(#[from] ClaimRefusal),
    /// Others are faster, time and again.
    #[error("the claim on volume {volume} is being changed by others; try again")]
    Contended {
        /// Which.
        volume: VolumeId,
    },
    /// The holder may still write, so that its claim stands.
    #[error("could not fence the holder of volume {volume}, and left its claim as it is")]
    Fence {
        /// Which.
        volume: VolumeId,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for MountError {
    fn kind(&self) -> Kind {
        match self {
            MountError::NoVolume { .. } | MountError::NotClaimed { .. } => Kind::NotFound,
            MountError::Refused(refusal) => refusal.kind(),
            MountError::Contended { .. } => Kind::Busy,
            MountError::Fence { source, .. } => source.kind(),
            MountError::Store(error) => store_kind(error),
        }
    }
}

/// What a claim came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The host is a new holder.
    Claimed(Claim),
    /// It held the volume already.
    Renewed(Claim),
}

/// Who releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseAsk {
    /// The holder.
    Holder {
        /// Which host.
        host: HostName,
        /// In which boot.
        boot: BootId,
    },
    /// An operator, who clears whatever stands.
    Force,
}

/// Shows who holds a volume.
pub async fn mount_get(app: &App, id: &VolumeId) -> Result<Claim, MountError> {
    let (volume, claim) = tokio::join!(app.records.volume(id), app.records.claim(id));
    match (claim?, volume?) {
        (Some(claim), _) => Ok(claim.value),
        (None, Some(_)) => Err(MountError::NotClaimed { volume: id.clone() }),
        (None, None) => Err(MountError::NoVolume { volume: id.clone() }),
    }
}

/// Makes sure that lists of claims show what was acknowledged before.
pub async fn mount_sync(app: &App) -> Result<(), ListError> {
    catch_up(app, &app.mirrors.mounts, None::<&volstore::cache::Mirror<Claim>>).await
}

/// Changes whenever a list of claims does.
pub fn mount_generation(app: &App) -> u64 {
    app.mirrors.mounts.read(|view| view.generation().0)
}

/// Lists the claims, after [`mount_sync`].
pub fn mount_list(app: &App, ask: &ListAsk<VolumeId>) -> Slice<Claim> {
    let keys = app.records.keys();
    let prefix = match &ask.tenant {
        Some(tenant) => keys.mounts_of(tenant),
        None => keys.mounts(),
    };
    let after = ask.after.as_ref().map(|id| keys.mount(id));
    lists::slice(&app.mirrors.mounts, &prefix, after.as_ref(), ask.limit)
}

/// Claims a volume for a host, or renews the claim. Two round trips to the store: one for all that
/// is known, one for the compare-and-write.
pub async fn mount_claim(app: &App, id: &VolumeId, ask: ClaimAsk) -> Result<Granted, MountError> {
    for round in 0..ROUNDS {
        pause(round).await;
        let (volume, claim, session, epoch) = tokio::join!(
            app.records.volume(id),
            app.records.claim(id),
            app.records.session(&ask.host),
            app.records.epoch(id),
        );
        let volume = volume?.ok_or_else(|| MountError::NoVolume { volume: id.clone() })?;
        let (claim, session, epoch) = (claim?, session?, epoch?);
        let stored = epoch.as_ref().map_or(0, |epoch| epoch.value);
        let facts = ClaimFacts {
            volume: &volume.value,
            claim: claim.as_ref().map(|claim| &claim.value),
            session: session.as_ref().map(|session| &session.value.session),
            last_epoch: claim.as_ref().map_or(0, |claim| claim.value.epoch).max(stored),
        };
        let decision = volcore::claim::mount_claim(facts, ask.clone(), app.now())?;
        let changes = app.records.changes().check_volume(id, Expect::At(volume.at));
        let (changes, granted) = match decision {
            ClaimDecision::AlreadyYours(claim) => return Ok(Granted::Renewed(claim)),
            ClaimDecision::Updated(new) => {
                let expect = Versioned::unchanged(claim.as_ref());
                (changes.put_claim(&new, expect), Granted::Renewed(new))
            }
            ClaimDecision::Claimed(new) => {
                let changes = changes
                    .put_claim(&new, Versioned::unchanged(claim.as_ref()))
                    .put_epoch(id, new.epoch, Versioned::unchanged(epoch.as_ref()));
                (changes, Granted::Claimed(new))
            }
        };
        if committed(app, changes).await? {
            if matches!(granted, Granted::Claimed(_)) {
                free(app, &volume.value).await;
            }
            return Ok(granted);
        }
    }
    Err(MountError::Contended { volume: id.clone() })
}

/// A volmaster that has died in the middle of a change may have left its lock on the image, which no host may break.
/// Where that cannot be seen to in time, the host is told who has the lock.
async fn free(app: &App, volume: &Volume) {
    match tokio::time::timeout(FREEING, app.images.free(&volume.image())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let (volume, error) = (&volume.id, volapi::problem::chain(&error));
            tracing::warn!(%volume, error, "its image was not looked at before it is mapped");
        }
        Err(_) => {
            tracing::warn!(volume = %volume.id, "its image does not answer before it is mapped")
        }
    }
}

/// Releases a host's claim, or clears it by force. That there is none is success.
///
/// By force the clients of the image are fenced first, with or without a claim: one that has died may
/// have left its lock, too.
pub async fn mount_release(app: &App, id: &VolumeId, ask: &ReleaseAsk) -> Result<(), MountError> {
    if *ask == ReleaseAsk::Force
        && let Some(volume) = app.records.volume(id).await?
        && matches!(volume.value.state, VolumeState::Ready { .. })
    {
        let fenced = app.images.fence(&volume.value.image()).await;
        let clients = fenced.map_err(|source| MountError::Fence { volume: id.clone(), source })?;
        tracing::warn!(volume = %id, ?clients, "fenced by force");
    }
    for round in 0..ROUNDS {
        pause(round).await;
        let (claim, decision) = match ask {
            ReleaseAsk::Force => {
                let claim = app.records.claim(id).await?;
                let decision = match claim {
                    Some(_) => ReleaseDecision::Delete,
                    None => ReleaseDecision::Absent,
                };
                (claim, decision)
            }
            ReleaseAsk::Holder { host, boot } => {
                let (claim, session) =
                    tokio::join!(app.records.claim(id), app.records.session(host));
                let (claim, session) = (claim?, session?);
                let session = session.as_ref().map(|session| &session.value.session);
                let standing = claim.as_ref().map(|claim| &claim.value);
                let decision = volcore::claim::mount_release(standing, host, boot, session);
                (claim, decision)
            }
        };
        let Some(claim) = claim else { return Ok(()) };
        let changes = app.records.changes();
        let changes = match decision {
            ReleaseDecision::Absent => return Ok(()),
            ReleaseDecision::Delete => changes.delete_claim(id, claim.at),
            ReleaseDecision::Keep(left) => changes.put_claim(&left, Expect::At(claim.at)),
        };
        if committed(app, changes).await? {
            if *ask == ReleaseAsk::Force {
                let Claim { epoch, holders, .. } = &claim.value;
                tracing::warn!(volume = %id, epoch, ?holders, "a claim was cleared by force");
            }
            return Ok(());
        }
    }
    Err(MountError::Contended { volume: id.clone() })
}

async fn committed(app: &App, changes: Changes) -> Result<bool, StoreError> {
    Ok(matches!(app.records.commit(changes).await?, Commit::Done(_)))
}

/// Nothing before the first round; then up to two milliseconds more each time, by chance, so that
/// those who collided do not do so again.
async fn pause(round: u32) {
    if round > 0 {
        let chance = u64::from(Uuid::new_v4().as_bytes()[0]);
        let micros = u64::from(round) * chance * 8;
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}
