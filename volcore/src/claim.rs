//! The mount claim: which host may map a volume. Taken before mapping, released after
//! unmapping; one writer at a time (DESIGN §8).
//!
//! A claim is not leased: a host that goes silent keeps it, because silence does not
//! prove that it has stopped writing.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::host::Session;
use crate::kind::Kind;
use crate::name::{BootId, HostName, MountId, VolumeId};
use crate::options::Sharing;
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
}

impl HoldState {
    /// The state's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            HoldState::Claimed => "claimed",
            HoldState::Mounted => "mounted",
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
    /// How far it has come.
    pub state: HoldState,
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
}

/// Why a claim is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefusal {
    /// Another host, or another boot of this one, holds it.
    #[error(
        "volume {volume} is in use: {}; it is free when the containers that use it there have stopped. If that \
         host is gone for good, `volcli mount force-remove {volume}` clears its claim",
        claim.holders_shown(),
        volume = claim.volume
    )]
    Held {
        /// The claim that stands, with its holders.
        claim: Claim,
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
        }
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
}

/// Grants a volume to a host, or says who holds it.
pub fn mount_claim(
    facts: ClaimFacts<'_>,
    ask: ClaimAsk,
    now: Timestamp,
) -> Result<ClaimDecision, ClaimRefusal> {
    let ClaimFacts { volume, claim, session, last_epoch } = facts;
    let id = &volume.id;
    if let Some(session) = session
        && session.boot != ask.boot
    {
        return Err(ClaimRefusal::OtherBoot { host: ask.host, since: session.since });
    }
    let own = claim.and_then(|claim| claim.holder(&ask.host)).filter(|own| own.boot == ask.boot);
    match (&volume.state, own) {
        (VolumeState::Ready { .. }, _) => {}
        // A holder may still report on what it has.
        (
            VolumeState::Creating { .. }
            | VolumeState::RollingBack { .. }
            | VolumeState::Restoring { .. }
            | VolumeState::Adopting { .. }
            | VolumeState::GivingBack { .. }
            | VolumeState::Removing { .. },
            Some(_),
        ) => {}
        (
            VolumeState::Creating { .. }
            | VolumeState::RollingBack { .. }
            | VolumeState::Restoring { .. }
            | VolumeState::Adopting { .. }
            | VolumeState::GivingBack { .. }
            | VolumeState::Removing { .. },
            None,
        ) => {
            return Err(ClaimRefusal::NotReady {
                volume: id.clone(),
                state: volume.state.as_str(),
            });
        }
    }
    if volume.spec.sharing == Sharing::Container && ask.mounts.len() > 1 {
        let since = own.map_or(now, |own| own.since);
        return Err(ClaimRefusal::OneContainer { volume: id.clone(), host: ask.host, since });
    }
    if volume.spec.sharing != Sharing::ReadOnly
        && let Some(claim) = claim
        && claim.holders.iter().any(|holder| !may_replace(holder, &ask, session))
    {
        return Err(ClaimRefusal::Held { claim: claim.clone() });
    }
    let holder = Holder {
        since: own.map_or(now, |own| own.since),
        host: ask.host,
        boot: ask.boot,
        state: ask.state,
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

/// A host replaces its own claim: in the same boot always, after a reboot only when its live
/// session proves that the new boot is the one that speaks (the old boot cannot write any more).
fn may_replace(holder: &Holder, ask: &ClaimAsk, session: Option<&Session>) -> bool {
    holder.host == ask.host
        && (holder.boot == ask.boot || session.is_some_and(|session| session.boot == ask.boot))
}

impl Claim {
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
/// unless the host's live session proves that the holder's boot is over.
pub fn mount_release(
    claim: Option<&Claim>,
    host: &HostName,
    boot: &BootId,
    session: Option<&Session>,
) -> ReleaseDecision {
    let Some(claim) = claim else { return ReleaseDecision::Absent };
    let proven = session.is_some_and(|session| session.boot == *boot);
    let leaves = |holder: &&Holder| holder.host == *host && (holder.boot == *boot || proven);
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
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::volume::tests::ready;

    fn ask(host: &str, boot: &str, mounts: &[&str]) -> ClaimAsk {
        ClaimAsk {
            host: host.parse().unwrap(),
            boot: boot.parse().unwrap(),
            state: HoldState::Claimed,
            mounts: mounts.iter().map(|id| id.parse().unwrap()).collect(),
            clients: vec![],
        }
    }

    fn session(host: &str, boot: &str) -> Session {
        Session {
            host: host.parse().unwrap(),
            instance: Uuid::nil(),
            boot: boot.parse().unwrap(),
            since: Timestamp::UNIX_EPOCH,
            version: "0".into(),
        }
    }

    fn claim(
        sharing: Sharing,
        standing: Option<&Claim>,
        asked: ClaimAsk,
    ) -> Result<ClaimDecision, ClaimRefusal> {
        let mut volume = ready();
        volume.spec.sharing = sharing;
        let last_epoch = standing.map_or(0, |claim| claim.epoch);
        let facts = ClaimFacts { volume: &volume, claim: standing, session: None, last_epoch };
        mount_claim(facts, asked, Timestamp::UNIX_EPOCH)
    }

    fn granted(decision: ClaimDecision) -> Claim {
        match decision {
            ClaimDecision::Claimed(claim)
            | ClaimDecision::Updated(claim)
            | ClaimDecision::AlreadyYours(claim) => claim,
        }
    }

    #[test]
    fn a_second_host_is_refused_by_name() {
        let held = granted(claim(Sharing::Host, None, ask("h1", "b1", &["m1"])).unwrap());
        assert_eq!(held.epoch, 1);
        let error = claim(Sharing::Host, Some(&held), ask("h2", "b2", &["m2"])).unwrap_err();
        assert_eq!(error.kind(), Kind::InUse);
        assert!(
            error.to_string().contains("host h1 holds it since 1970-01-01T00:00:00Z"),
            "{error}"
        );
        assert!(error.to_string().contains("volcli mount force-remove t/v"), "{error}");
    }

    #[test]
    fn one_host_may_use_it_more_than_once_unless_the_policy_says_otherwise() {
        let held = granted(claim(Sharing::Host, None, ask("h1", "b1", &["m1"])).unwrap());
        let again = claim(Sharing::Host, Some(&held), ask("h1", "b1", &["m1"])).unwrap();
        assert!(matches!(again, ClaimDecision::AlreadyYours(_)));
        let both = claim(Sharing::Host, Some(&held), ask("h1", "b1", &["m1", "m2"])).unwrap();
        assert!(matches!(both, ClaimDecision::Updated(ref claim) if claim.epoch == 1));
        let refused = claim(Sharing::Container, Some(&held), ask("h1", "b1", &["m1", "m2"]));
        assert!(matches!(refused, Err(ClaimRefusal::OneContainer { .. })));
    }

    #[test]
    fn read_only_volumes_have_many_holders() {
        let held = granted(claim(Sharing::ReadOnly, None, ask("h1", "b1", &["m1"])).unwrap());
        let both =
            granted(claim(Sharing::ReadOnly, Some(&held), ask("h2", "b2", &["m2"])).unwrap());
        assert_eq!((both.holders.len(), both.epoch), (2, 2));
        let (h1, b1) = ("h1".parse().unwrap(), "b1".parse().unwrap());
        let ReleaseDecision::Keep(left) = mount_release(Some(&both), &h1, &b1, None) else {
            panic!()
        };
        assert_eq!(left.holders[0].host.as_str(), "h2");
    }

    #[test]
    fn a_rebooted_host_replaces_its_claim_only_with_a_session() {
        let held = granted(claim(Sharing::Host, None, ask("h1", "b1", &["m1"])).unwrap());
        assert!(matches!(
            claim(Sharing::Host, Some(&held), ask("h1", "b2", &["m2"])),
            Err(ClaimRefusal::Held { .. })
        ));
        let volume = ready();
        let with = |boot: &str| {
            let session = session("h1", boot);
            let facts = ClaimFacts {
                volume: &volume,
                claim: Some(&held),
                session: Some(&session),
                last_epoch: 1,
            };
            mount_claim(facts, ask("h1", "b2", &["m2"]), Timestamp::UNIX_EPOCH)
        };
        assert_eq!(granted(with("b2").unwrap()).epoch, 2);
        assert!(matches!(with("b1"), Err(ClaimRefusal::OtherBoot { .. })));
    }

    proptest! {
        /// Whatever is asked in whatever order: never two holders of a writable volume, and
        /// the epoch grows with every change of holder.
        #[test]
        fn never_two_writers(steps in prop::collection::vec((0..3u8, 0..2u8, any::<bool>()), 1..40)) {
            let mut standing: Option<Claim> = None;
            let mut last_epoch = 0;
            let mut last_holder: Option<(HostName, BootId)> = None;
            for (host, boot, take) in steps {
                let asked = ask(&format!("h{host}"), &format!("b{host}{boot}"), &["m"]);
                let volume = ready();
                if take {
                    let facts = ClaimFacts { volume: &volume, claim: standing.as_ref(), session: None, last_epoch };
                    if let Ok(decision) = mount_claim(facts, asked, Timestamp::UNIX_EPOCH) {
                        let now = granted(decision);
                        prop_assert_eq!(now.holders.len(), 1);
                        let holder = (now.holders[0].host.clone(), now.holders[0].boot.clone());
                        if standing.is_none() || last_holder.as_ref() != Some(&holder) {
                            prop_assert!(now.epoch > last_epoch);
                        }
                        last_epoch = now.epoch;
                        last_holder = Some(holder);
                        standing = Some(now);
                    }
                } else if mount_release(standing.as_ref(), &asked.host, &asked.boot, None) == ReleaseDecision::Delete {
                    standing = None;
                }
            }
        }
    }
}
