//! The mount claim: which host may map a volume. Taken before mapping, released after
//! unmapping; one writer at a time (DESIGN §8).
//!
//! A claim is not leased: a host that goes silent keeps it, because silence does not
//! prove that it has stopped writing. Another host gets the volume when the silent one has been
//! fenced ([`takeover`](crate::takeover)).

use std::collections::BTreeSet;

use jiff::Timestamp;
use uuid::Uuid;

use crate::host::{Fencing, MasterId, Session};
use crate::kind::Kind;
use crate::name::{BootId, HostName, MountId, VolumeId};
use crate::options::Sharing;
use crate::takeover::{Life, Silence, Witness};
use crate::volume::{Volume, VolumeState};

/// Who holds a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which volume.
    pub volume: VolumeId,
    /// Grows with every change of holder, also over a time without any.
    pub epoch: u64,
    /// The holders: exactly one, or with `sharing: read-only` one or more.
    pub holders: Vec<Holder>,
}

/// One host that holds a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which host.
    pub host: HostName,
    /// In which of its boots.
    pub boot: BootId,
    /// The installation whose session it spoke under; `None` when it never had one, so that none can lapse.
    pub instance: Option<Uuid>,
    /// How far it has come.
    pub state: HoldState,
    /// The uses that Docker has made of it there.
    pub mounts: BTreeSet<MountId>,
    /// The Ceph client addresses (`ip:port/nonce`) that can write to the image, as far as they are known.
    pub clients: Vec<String>,
    /// Since when.
    pub since: Timestamp,
}

/// How far a holder has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// It may map and mount, and may have done so.
    Claimed,
    /// It has mounted.
    Mounted,
    /// It is being fenced: it has lost the volume, and may not claim it again under this epoch. Never taken back.
    Fencing(Fencing),
}

impl HoldState {
    /// The state's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            HoldState::Claimed => "claimed",
            HoldState::Mounted => "mounted",
            HoldState::Fencing(_) => "fencing",
        }
    }
}

/// How far a host says that it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It is about to map and mount.
    Claimed,
    /// It has mounted.
    Mounted,
}

impl From<Reached> for HoldState {
    fn from(reached: Reached) -> Self {
        match reached {
            Reached::Claimed => HoldState::Claimed,
            Reached::Mounted => HoldState::Mounted,
        }
    }
}

/// What a host asks for: the whole of what it holds from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimAsk {
    /// Who asks.
    pub host: HostName,
    /// In which boot.
    pub boot: BootId,
    /// Under whose session, where it says so: it has to be live then.
    pub instance: Option<Uuid>,
    /// The epoch under which it holds the volume already; without one it may be new.
    pub epoch: Option<u64>,
    /// How far it has come.
    pub state: Reached,
    /// All uses that Docker has made of it there.
    pub mounts: BTreeSet<MountId>,
    /// The addresses that can write.
    pub clients: Vec<String>,
}

/// What a claim request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimDecision {
    /// Store this claim; the holder is new.
    Claimed(Claim),
    /// Store this claim; the holder had it already and says something new.
    Updated(Claim),
    /// Nothing to store.
    AlreadyYours(Claim),
    /// Store this claim, whose holder has lost it, and fence that; then ask again.
    Fence(Claim),
    /// Another volmaster is about to fence the holder: wait for what comes of it, then ask again.
    Wait,
}

/// Why a claim is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefusal {
    /// Another host, or another boot of this one, holds it.
    #[error(
        "volume {volume} is in use: {}{silence}; it is free when the containers that use it there have stopped. If that \
         host is gone for good, `volcli mount force-remove {volume}` clears its claim",
        claim.holders_shown(),
        volume = claim.volume
    )]
    Held {
        /// The claim that stands, with its holders.
        claim: Claim,
        /// What is to be said of a holder that has not been heard of.
        silence: Silence,
    },
    /// The host held the volume, and has lost it: it was fenced, or its claim was cleared.
    #[error(
        "host {host} has lost volume {volume}, which it held at epoch {epoch}: its claim was taken over or cleared, and \
         what it still writes is refused"
    )]
    Lost {
        /// Which volume.
        volume: VolumeId,
        /// Who asks.
        host: HostName,
        /// What it held.
        epoch: u64,
    },
    /// Only who has a session may claim, because only a session can lapse.
    #[error(
        "host {host} has no live session under which it could claim volume {volume}; it opens one by itself"
    )]
    NoSession {
        /// Which volume.
        volume: VolumeId,
        /// Who asks.
        host: HostName,
    },
    /// `sharing: container` allows one use.
    #[error(
        "volume {volume} is in use by another container on {host} since {since:.0}, and its policy says sharing: \
         container; it is free when that container has stopped"
    )]
    OneContainer {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        host: HostName,
        /// Since when.
        since: Timestamp,
    },
    /// The volume is not (or no longer) one that can be used.
    #[error("volume {volume} is {state}; it cannot be mounted now")]
    NotReady {
        /// Which volume.
        volume: VolumeId,
        /// Its state.
        state: &'static str,
    },
    /// The label belongs to another boot, as its live session shows.
    #[error(
        "host {host} has a live session of another boot since {since:.0}: two machines must not share a host label"
    )]
    OtherBoot {
        /// The label.
        host: HostName,
        /// Since when the other has it.
        since: Timestamp,
    },
}

impl ClaimRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            ClaimRefusal::Held { .. } | ClaimRefusal::OneContainer { .. } => Kind::InUse,
            ClaimRefusal::NotReady { .. } => Kind::Busy,
            ClaimRefusal::OtherBoot { .. } => Kind::Conflict,
            ClaimRefusal::Lost { .. } => Kind::Precondition,
            ClaimRefusal::NoSession { .. } => Kind::Unavailable,
        }
    }
}

impl Holder {
    /// Whether it still has the volume.
    pub fn holds(&self) -> bool {
        !matches!(self.state, HoldState::Fencing(_))
    }
}

impl Claim {
    /// The holders with since when, for messages: `h1 holds it since 2026-…`.
    pub fn holders_shown(&self) -> String {
        let one =
            |holder: &Holder| format!("host {} holds it since {:.0}", holder.host, holder.since);
        self.holders.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The holder with this label, if it is one.
    pub fn holder(&self, host: &HostName) -> Option<&Holder> {
        self.holders.iter().find(|holder| holder.host == *host)
    }
}

/// What is known when a claim is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ClaimFacts<'a> {
    /// The volume.
    pub volume: &'a Volume,
    /// The claim that stands.
    pub claim: Option<&'a Claim>,
    /// The live session under the asking host's label.
    pub session: Option<&'a Session>,
    /// The epoch of the last claim on this volume, 0 before the first.
    pub last_epoch: u64,
    /// What can be said of those who hold it.
    pub witness: Witness<'a>,
}

/// Grants a volume to a host, or says who holds it, or that its holder has to be fenced first.
pub fn mount_claim(
    facts: ClaimFacts<'_>,
    ask: ClaimAsk,
    now: Timestamp,
) -> Result<ClaimDecision, ClaimRefusal> {
    let ClaimFacts { volume, claim, session, last_epoch, witness } = facts;
    let id = &volume.id;
    if let Some(session) = session
        && session.boot != ask.boot
    {
        return Err(ClaimRefusal::OtherBoot { host: ask.host, since: session.since });
    }
    if ask.instance.is_some() && session.map(|session| session.instance) != ask.instance {
        return Err(ClaimRefusal::NoSession { volume: id.clone(), host: ask.host });
    }
    let own = claim.and_then(|claim| claim.holder(&ask.host)).filter(|own| own.boot == ask.boot);
    if let Some(epoch) = ask.epoch {
        let holds = own.is_some_and(Holder::holds);
        let read_only = volume.spec.sharing == Sharing::ReadOnly;
        if !holds || !(read_only || claim.is_some_and(|claim| claim.epoch == epoch)) {
            return Err(ClaimRefusal::Lost { volume: id.clone(), host: ask.host, epoch });
        }
    }
    if own.is_none() && !matches!(volume.state, VolumeState::Ready { .. }) {
        // A holder may still report on what it has.
        return Err(ClaimRefusal::NotReady { volume: id.clone(), state: volume.state.as_str() });
    }
    if volume.spec.sharing == Sharing::Container && ask.mounts.len() > 1 {
        let since = own.map_or(now, |own| own.since);
        return Err(ClaimRefusal::OneContainer { volume: id.clone(), host: ask.host, since });
    }
    if volume.spec.sharing != Sharing::ReadOnly
        && let Some(claim) = claim
        && let Some(stands) = stands_in_the_way(claim, &ask, session, witness, now)?
    {
        return Ok(stands);
    }
    let holder = Holder {
        since: own.map_or(now, |own| own.since),
        instance: session.map(|session| session.instance).or(own.and_then(|own| own.instance)),
        host: ask.host,
        boot: ask.boot,
        state: ask.state.into(),
        mounts: ask.mounts,
        clients: ask.clients,
    };
    Ok(match (claim, own) {
        (Some(claim), Some(own)) if *own == holder => ClaimDecision::AlreadyYours(claim.clone()),
        (Some(claim), Some(_)) => ClaimDecision::Updated(claim.with(holder, claim.epoch)),
        (Some(claim), None) => ClaimDecision::Claimed(claim.with(holder, last_epoch + 1)),
        (None, _) => ClaimDecision::Claimed(Claim {
            volume: id.clone(),
            epoch: last_epoch + 1,
            holders: vec![holder],
        }),
    })
}

/// What has to be done with those who hold a volume before this host may: nothing where they may be replaced.
fn stands_in_the_way(
    claim: &Claim,
    ask: &ClaimAsk,
    session: Option<&Session>,
    witness: Witness<'_>,
    now: Timestamp,
) -> Result<Option<ClaimDecision>, ClaimRefusal> {
    if let Some(fencing) = claim.fencing() {
        let others = fencing.by != witness.me && witness.masters.contains(&fencing.by);
        let fence = ClaimDecision::Fence(claim.fenced_by(witness.me, now));
        return Ok(Some(if others { ClaimDecision::Wait } else { fence }));
    }
    let Some(holder) = claim.holders.iter().find(|holder| !is_same(holder, ask)) else {
        return Ok(None);
    };
    let held = |silence| Err(ClaimRefusal::Held { claim: claim.clone(), silence });
    match witness.life(holder) {
        // Nobody can be kept from the image: only a reboot proves that its old boot has ended.
        Life::Over(_) if !witness.fences && may_replace(holder, ask, session) => Ok(None),
        Life::Over(_) if !witness.fences => held(Silence::CannotFence),
        Life::Over(_) => Ok(Some(ClaimDecision::Fence(claim.fenced_by(witness.me, now)))),
        Life::Unproven(silence) => held(silence),
    }
}

fn is_same(holder: &Holder, ask: &ClaimAsk) -> bool {
    holder.host == ask.host && holder.boot == ask.boot
}

/// After a reboot a host replaces its own claim when its live session proves that the new boot is the one that
/// speaks: the old boot cannot write any more.
fn may_replace(holder: &Holder, ask: &ClaimAsk, session: Option<&Session>) -> bool {
    holder.host == ask.host && session.is_some_and(|session| session.boot == ask.boot)
}

impl Claim {
    /// The claim of which nobody is a holder any more: all are being fenced by this volmaster.
    pub fn fenced_by(&self, by: MasterId, now: Timestamp) -> Claim {
        let mut claim = self.clone();
        for holder in &mut claim.holders {
            let since = match holder.state {
                HoldState::Fencing(fencing) => fencing.since,
                HoldState::Claimed | HoldState::Mounted => now,
            };
            holder.state = HoldState::Fencing(Fencing { by, since });
        }
        claim
    }

    /// The claim of the others; `None` where there is nobody else.
    pub fn without(&self, host: &HostName) -> Option<Claim> {
        let mut claim = self.clone();
        claim.holders.retain(|holder| holder.host != *host);
        (!claim.holders.is_empty()).then_some(claim)
    }

    /// Who is being fenced, if anybody is.
    pub fn fencing(&self) -> Option<Fencing> {
        self.holders.iter().find_map(|holder| match holder.state {
            HoldState::Fencing(fencing) => Some(fencing),
            HoldState::Claimed | HoldState::Mounted => None,
        })
    }

    fn with(&self, holder: Holder, epoch: u64) -> Claim {
        let mut holders = self.holders.clone();
        holders.retain(|other| other.host != holder.host);
        holders.push(holder);
        holders.sort_by(|a, b| (a.since, &a.host).cmp(&(b.since, &b.host)));
        Claim { volume: self.volume.clone(), epoch, holders }
    }
}

/// What a release comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseDecision {
    /// Nobody is left: delete the claim.
    Delete,
    /// Store this claim, with the others.
    Keep(Claim),
    /// The host does not hold it: nothing to do.
    Absent,
}

/// Takes a host out of a claim. A release by another boot than the holder's changes nothing,
/// unless the live session of the same installation proves that the holder's boot is over.
pub fn mount_release(
    claim: Option<&Claim>,
    host: &HostName,
    boot: &BootId,
    session: Option<&Session>,
) -> ReleaseDecision {
    let Some(claim) = claim else { return ReleaseDecision::Absent };
    // The same machine in another boot. Another machine under its label proves nothing.
    let proven = |holder: &Holder| {
        let same = |session: &Session| holder.instance.is_none_or(|it| it == session.instance);
        session.is_some_and(|session| session.boot == *boot && same(session))
    };
    // Who is being fenced has nothing to give back: whoever fences says when it is over.
    let leaves = |holder: &&Holder| {
        holder.host == *host && (holder.boot == *boot || proven(holder)) && holder.holds()
    };
    if !claim.holders.iter().any(|holder| leaves(&holder)) {
        return ReleaseDecision::Absent;
    }
    let left: Vec<Holder> =
        claim.holders.iter().filter(|holder| !leaves(holder)).cloned().collect();
    if left.is_empty() {
        ReleaseDecision::Delete
    } else {
        ReleaseDecision::Keep(Claim { holders: left, ..claim.clone() })
    }
}

#[cfg(test)]
mod tests;
