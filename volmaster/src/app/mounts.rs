//! Mount claims: taking, renewing, releasing, clearing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use volcore::Kind;
use volcore::claim::{
    Claim, ClaimAsk, ClaimDecision, ClaimFacts, ClaimRefusal, Holder, ReleaseDecision,
};
use volcore::host::{MasterId, Session};
use volcore::name::{BootId, HostName, VolumeId};
use volcore::options::Sharing;
use volcore::takeover::{self, Fence, Witness};
use volcore::volume::{Volume, VolumeState};
use volstore::records::{Changes, Versioned};
use volstore::store::{Commit, Expect, Revision, StoreError};

use super::fencing::{self, CutOff, FenceError};
use super::{App, Failing, ListAsk, ListError, Slice, catch_up, lists, store_kind};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: u32 = 10;
/// How long a claim waits for a look at the image.
const FREEING: Duration = Duration::from_secs(3);
/// How long a release waits for a look at the lock.
const UNLOCKING: Duration = Duration::from_secs(1);
/// After so long it is looked again whether the volmaster lives that fences a holder.
const FENCED_ELSEWHERE: Duration = Duration::from_secs(1);

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
    /// Another volmaster is about to fence its holder.
    #[error(
        "the last holder of volume {volume} is being cut off from it; try again in some seconds"
    )]
    Fencing {
        /// Which volume.
        volume: VolumeId,
    },
    /// It is in a local file.
    #[error(
        "volume {volume} is in a local file, from which nobody can be kept; stop the containers that use it, or clear its \
         claim with `volcli mount force-remove {volume}` when they have surely stopped"
    )]
    CannotFence {
        /// Which volume.
        volume: VolumeId,
    },
    /// The holder could not be cut off.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for MountError {
    fn kind(&self) -> Kind {
        match self {
            MountError::NoVolume { .. } | MountError::NotClaimed { .. } => Kind::NotFound,
            MountError::Refused(refusal) => refusal.kind(),
            MountError::Contended { .. } | MountError::Fencing { .. } => Kind::Busy,
            MountError::CannotFence { .. } => Kind::Invalid,
            MountError::Fence(error) => error.kind(),
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
    /// An operator, who clears whatever stands; its clients are fenced where that can be.
    Force,
    /// The same, and nobody is fenced.
    Unsafe,
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

/// What is read before a claim is decided on.
struct Known {
    volume: Versioned<Volume>,
    claim: Option<Versioned<Claim>>,
    session: Option<Session>,
    epoch: Option<Versioned<u64>>,
    sight: Sight,
}

/// What this volmaster can testify to of the holders.
struct Sight {
    masters: BTreeSet<MasterId>,
    sessions: BTreeMap<HostName, Session>,
    steady: bool,
}

impl Known {
    /// All of it at once; of others who hold the volume only where there are any.
    async fn read(app: &App, id: &VolumeId, ask: &ClaimAsk) -> Result<Known, MountError> {
        let (volume, claim, session, epoch) = tokio::join!(
            app.records.volume(id),
            app.records.claim(id),
            app.records.session(&ask.host),
            app.records.epoch(id),
        );
        let volume = volume?.ok_or_else(|| MountError::NoVolume { volume: id.clone() })?;
        let (claim, epoch) = (claim?, epoch?);
        let session = session?.map(|session| session.value.session);
        let others = claim.iter().flat_map(|claim| &claim.value.holders);
        let others = others.filter(|other| (&other.host, &other.boot) != (&ask.host, &ask.boot));
        let fencing = claim.as_ref().is_some_and(|claim| claim.value.fencing().is_some());
        let others: Vec<_> = others.map(|other| other.host.clone()).collect();
        let sight = if others.is_empty() && !fencing {
            Sight { masters: BTreeSet::new(), sessions: BTreeMap::new(), steady: false }
        } else {
            Sight::take(app, &others).await?
        };
        Ok(Known { volume, claim, session, epoch, sight })
    }

    /// What is decided on, with this claim standing.
    fn facts<'a>(&'a self, app: &App, claim: Option<&'a Claim>) -> ClaimFacts<'a> {
        let standing = self.claim.as_ref().map_or(0, |claim| claim.value.epoch);
        ClaimFacts {
            volume: &self.volume.value,
            claim,
            session: self.session.as_ref(),
            last_epoch: self.epoch.as_ref().map_or(0, |epoch| epoch.value).max(standing),
            witness: Witness {
                me: app.presence.me,
                masters: &self.sight.masters,
                sessions: &self.sight.sessions,
                steady: self.sight.steady,
                fences: app.images.fences(),
            },
        }
    }

    fn changes(&self, app: &App) -> Changes {
        let id = &self.volume.value.id;
        app.records.changes().check_volume(id, Expect::At(self.volume.at))
    }

    /// The claim goes to a new holder, in place of what stands at this revision.
    fn granting(&self, app: &App, new: &Claim, in_place_of: Expect) -> Changes {
        let epoch = Versioned::unchanged(self.epoch.as_ref());
        self.changes(app).put_claim(new, in_place_of).put_epoch(&new.volume, new.epoch, epoch)
    }
}

impl Sight {
    async fn take(app: &App, hosts: &[HostName]) -> Result<Sight, StoreError> {
        let (masters, global) = tokio::join!(app.records.masters(), app.records.global());
        let ttl = global?.map(|global| global.value).unwrap_or_default().session_ttl;
        let mut sessions = BTreeMap::new();
        for host in hosts {
            if let Some(found) = app.records.session(host).await? {
                sessions.insert(host.clone(), found.value.session);
            }
        }
        // Asked last: whatever was read before was read by a volmaster that was there.
        Ok(Sight { masters: masters?, sessions, steady: app.presence.steady(ttl.get()) })
    }
}

/// Claims a volume for a host, or renews the claim. Two round trips to the store: one for all that
/// is known, one for the compare-and-write. Where another host holds the volume, one more; where that is
/// gone, it is fenced first.
pub async fn mount_claim(app: &App, id: &VolumeId, ask: ClaimAsk) -> Result<Granted, MountError> {
    let until = Instant::now() + fencing::PATIENCE;
    let mut turn = None;
    let mut rounds = 0;
    while rounds < ROUNDS {
        pause(rounds).await;
        let known = Known::read(app, id, &ask).await?;
        let standing = known.claim.as_ref().map(|claim| &claim.value);
        let decision =
            volcore::claim::mount_claim(known.facts(app, standing), ask.clone(), app.now())?;
        let expect = Versioned::unchanged(known.claim.as_ref());
        let (changes, granted) = match (decision, &known.claim) {
            (ClaimDecision::AlreadyYours(claim), _) => return Ok(Granted::Renewed(claim)),
            (ClaimDecision::Updated(new), _) => {
                (known.changes(app).put_claim(&new, expect), Granted::Renewed(new))
            }
            (ClaimDecision::Claimed(new), _) => {
                (known.granting(app, &new, expect), Granted::Claimed(new))
            }
            (ClaimDecision::Fence(_), Some(claim)) if turn.is_some() => {
                match take_over(app, &known, claim.clone(), &ask).await? {
                    Some(granted) => return Ok(granted),
                    None => {
                        rounds += 1;
                        continue;
                    }
                }
            }
            // Several who ask here have it done by one, and look again.
            (ClaimDecision::Fence(_), _) => {
                turn = Some(app.fencing.take(id).await);
                continue;
            }
            (ClaimDecision::Wait, _) if Instant::now() < until => {
                turn = None;
                let at = known.claim.as_ref().map_or(Revision(0), |claim| claim.at);
                app.claim_changed(id, at, FENCED_ELSEWHERE).await;
                continue;
            }
            (ClaimDecision::Wait, _) => return Err(MountError::Fencing { volume: id.clone() }),
        };
        if committed(app, changes).await? {
            if matches!(granted, Granted::Claimed(_)) {
                free(app, &known.volume.value).await;
            }
            return Ok(granted);
        }
        rounds += 1;
    }
    Err(MountError::Contended { volume: id.clone() })
}

/// Fences whoever holds the volume, and grants it to the one who asks; `None` where somebody else was faster. The caller
/// has the turn.
async fn take_over(
    app: &App,
    known: &Known,
    claim: Versioned<Claim>,
    ask: &ClaimAsk,
) -> Result<Option<Granted>, MountError> {
    let volume = &known.volume.value;
    let Some(claim) = fencing::intend(app, claim).await? else { return Ok(None) };
    if let CutOff::Overtaken = fencing::cut_off(app, Some(volume), &claim).await? {
        return Ok(None);
    }
    let decision = volcore::claim::mount_claim(known.facts(app, None), ask.clone(), app.now())?;
    let ClaimDecision::Claimed(new) = decision else { return Ok(None) };
    if !committed(app, known.granting(app, &new, Expect::At(claim.at))).await? {
        return Ok(None);
    }
    free(app, volume).await;
    let from = claim.value.holders_shown();
    tracing::warn!(volume = %volume.id, host = %ask.host, epoch = new.epoch, from, "taken over");
    Ok(Some(Granted::Claimed(new)))
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
pub async fn mount_release(app: &App, id: &VolumeId, ask: &ReleaseAsk) -> Result<(), MountError> {
    for round in 0..ROUNDS {
        pause(round).await;
        let done = match ask {
            ReleaseAsk::Holder { host, boot } => release(app, id, host, boot).await?,
            ReleaseAsk::Force => force(app, id).await?,
            ReleaseAsk::Unsafe => force_unfenced(app, id).await?,
        };
        if done {
            return Ok(());
        }
    }
    Err(MountError::Contended { volume: id.clone() })
}

/// A host says that nothing of the volume is left on it; whether that was taken down.
async fn release(
    app: &App,
    id: &VolumeId,
    host: &HostName,
    boot: &BootId,
) -> Result<bool, MountError> {
    let (volume, claim, session, fences) = tokio::join!(
        app.records.volume(id),
        app.records.claim(id),
        app.records.session(host),
        fencing::fences_of(app, host, id)
    );
    let (claim, session, fences) = (claim?, session?, fences?);
    let session = session.map(|session| session.value.session);
    let standing = claim.as_ref().map(|claim| &claim.value);
    let fenced_now = standing.is_some_and(|claim| {
        claim.fencing().is_some() && claim.holder(host).is_some_and(|holder| holder.boot == *boot)
    });
    if fenced_now {
        // What is stored of it now would be forgotten before it is done.
        return Err(MountError::Fencing { volume: id.clone() });
    }
    for fence in fences.iter().filter(|fence| takeover::is_proven(&fence.value, boot)) {
        fencing::unfence(app, fence).await?;
    }
    let decision = volcore::claim::mount_release(standing, host, boot, session.as_ref());
    let Some(claim) = claim else { return Ok(true) };
    let changes = app.records.changes();
    let changes = match decision {
        ReleaseDecision::Absent => return Ok(true),
        ReleaseDecision::Delete => changes.delete_claim(id, claim.at),
        ReleaseDecision::Keep(left) => changes.put_claim(&left, Expect::At(claim.at)),
    };
    let done = committed(app, changes).await?;
    let left = claim.value.holder(host);
    if let (true, Some(volume), Some(left)) = (done, volume?, left) {
        unlock(app, &volume.value, left).await;
    }
    Ok(done)
}

/// A client that was killed, or whose machine was, leaves its lock. Its host says that nothing of the volume is left there, so that nobody goes on
/// without the lock; and whoever has been let in since is not one of its clients.
async fn unlock(app: &App, volume: &Volume, left: &Holder) {
    let clients: BTreeSet<String> = left.clients.iter().cloned().collect();
    if clients.is_empty() || !app.images.fences() {
        return;
    }
    let image = volume.image();
    let unlocked = app.images.break_lock(&image, &clients);
    match tokio::time::timeout(UNLOCKING, unlocked).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let (volume, error) = (&volume.id, volapi::problem::chain(&error));
            tracing::warn!(%volume, error, "it is not known whether its last client has left its lock");
        }
        Err(_) => {
            tracing::warn!(volume = %volume.id, "its image does not answer after it was released")
        }
    }
}

/// Fences whoever holds a volume or has its image locked, and clears the claim; whether that is done.
async fn force(app: &App, id: &VolumeId) -> Result<bool, MountError> {
    if !app.images.fences() {
        return force_unfenced(app, id).await;
    }
    let _turn = app.fencing.take(id).await;
    let (volume, claim) = tokio::join!(app.records.volume(id), app.records.claim(id));
    let (volume, claim) = (volume?.map(|volume| volume.value), claim?);
    if let Some(claim) = claim {
        return match fencing::clear(app, volume.as_ref(), claim).await? {
            CutOff::Done(_) => Ok(true),
            CutOff::Overtaken => Ok(false),
        };
    }
    // Nobody is let in by this, so that whoever has the lock may as well be fenced later as now.
    if let Some(volume) = volume.filter(|volume| matches!(volume.state, VolumeState::Ready { .. }))
    {
        fencing::cut_off_stranger(app, &volume).await?;
    }
    Ok(true)
}

/// Takes a volume from a host, whether it lives or not; what was fenced. Who shares it read-only is only taken out of
/// the claim: it can write nothing.
pub(crate) async fn mount_lose(
    app: &App,
    id: &VolumeId,
    host: &HostName,
) -> Result<Vec<Fence>, MountError> {
    let _turn = app.fencing.take(id).await;
    for round in 0..ROUNDS {
        pause(round).await;
        let (volume, claim) = tokio::join!(app.records.volume(id), app.records.claim(id));
        let (volume, claim) = (volume?.map(|volume| volume.value), claim?);
        let Some(claim) = claim.filter(|claim| claim.value.holder(host).is_some()) else {
            return Ok(Vec::new());
        };
        let shared = volume.as_ref().is_some_and(|volume| volume.spec.sharing == Sharing::ReadOnly);
        if !shared && !app.images.fences() {
            return Err(MountError::CannotFence { volume: id.clone() });
        }
        if shared {
            let changes = match claim.value.without(host) {
                None => app.records.changes().delete_claim(id, claim.at),
                Some(left) => app.records.changes().put_claim(&left, Expect::At(claim.at)),
            };
            if committed(app, changes).await? {
                return Ok(Vec::new());
            }
        } else if let CutOff::Done(fences) = fencing::clear(app, volume.as_ref(), claim).await? {
            return Ok(fences);
        }
    }
    Err(MountError::Contended { volume: id.clone() })
}

/// Clears a claim and cuts nobody off.
async fn force_unfenced(app: &App, id: &VolumeId) -> Result<bool, MountError> {
    let Some(claim) = app.records.claim(id).await? else { return Ok(true) };
    let Claim { epoch, holders, .. } = &claim.value;
    let done = committed(app, app.records.changes().delete_claim(id, claim.at)).await?;
    if done {
        tracing::warn!(volume = %id, epoch, ?holders, "a claim was cleared by force, and nobody fenced");
    }
    Ok(done)
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
