//! Whether a silent host has lost its volumes, and what is known of those that were fenced (DESIGN §8).
//!
//! Pure: who is alive is an argument. A host is given up when its session has lapsed under the eyes of
//! a volmaster that was there all the time, or when its machine has booted again. What it held is
//! fenced before anybody else gets it: its Ceph clients are blocklisted, its lock is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

use crate::claim::{Claim, Holder};
use crate::host::{MasterId, Session};
use crate::name::{BootId, HostName, VolumeId};

/// What one volmaster can testify to.
#[derive(Clone, Copy, Debug)]
pub struct Witness<'a> {
    /// Itself.
    pub me: MasterId,
    /// The volmasters that live.
    pub masters: &'a BTreeSet<MasterId>,
    /// The live sessions of those who hold the volume.
    pub sessions: &'a BTreeMap<HostName, Session>,
    /// Whether it has been there, and had the store, for the whole of a session's time to live: before that, a
    /// session may have lapsed because nobody took its renewal.
    pub steady: bool,
    /// Whether the images can be kept from a client at all.
    pub fences: bool,
}

/// Whether a holder may still count on its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It may not, for this reason.
    Over(End),
    /// It may, or it cannot be known.
    Unproven(Silence),
}

/// What has ended a holder's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its session has lapsed.
    Lapsed,
    /// Its label has a live session of another boot.
    Rebooted,
}

/// What can be said of a holder that keeps its claim. Shown behind its name, empty where there is nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Its session is live.
    Heard,
    /// It never had a session, so that none can lapse.
    NeverHeard,
    /// It has none now, and this volmaster has not been there for long enough to know why.
    TooEarly,
    /// It has none now, and nobody can be kept from images in local files.
    CannotFence,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Silence::Heard | Silence::NeverHeard => "",
            Silence::TooEarly => {
                ", whose session has lapsed; this volmaster has not been there for long enough to take the volume over, \
                 try again in some seconds"
            }
            Silence::CannotFence => {
                ", whose session has lapsed; images in local files cannot be taken from a host that may live"
            }
        })
    }
}

impl Witness<'_> {
    /// What is known of a holder.
    pub fn life(&self, holder: &Holder) -> Life {
        match (self.sessions.get(&holder.host), holder.instance) {
            (Some(session), _) if session.boot == holder.boot => Life::Unproven(Silence::Heard),
            (Some(_), _) => Life::Over(End::Rebooted),
            (None, None) => Life::Unproven(Silence::NeverHeard),
            (None, Some(_)) if self.steady => Life::Over(End::Lapsed),
            (None, Some(_)) => Life::Unproven(Silence::TooEarly),
        }
    }
}

/// A text that names no single Ceph client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not the address of a Ceph client, as in 10.0.0.1:0/3188422143")]
pub struct ClientAddressError {
    /// What was given, cut to 80 characters.
    given: String,
}

/// Checks that a text is the address of one Ceph client: `ip:port/nonce`. Port and nonce may not both be zero: Ceph
/// takes that, on the blocklist, for every client of the machine.
pub fn check_client(text: &str) -> Result<(), ClientAddressError> {
    let client = text.rsplit_once('/').and_then(|(socket, nonce)| {
        Some((socket.parse::<std::net::SocketAddr>().ok()?, nonce.parse::<u32>().ok()?))
    });
    match client {
        Some((socket, nonce)) if socket.port() != 0 || nonce != 0 => Ok(()),
        Some(_) | None => Err(ClientAddressError { given: text.chars().take(80).collect() }),
    }
}

/// Clients of a host that were, or are to be, blocklisted, because they could write to a volume that it has lost.
/// Kept until it is certain that none of them is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Which host.
    pub host: HostName,
    /// Which volume.
    pub volume: VolumeId,
    /// Under which epoch it held that.
    pub epoch: u64,
    /// In which of its boots.
    pub boot: BootId,
    /// Which installation, if it had a session.
    pub instance: Option<Uuid>,
    /// The addresses of the clients.
    pub clients: BTreeSet<String>,
    /// Since when.
    pub since: Timestamp,
}

/// The fences of a claim whose holders have lost it. `owner` is who had the lock of the image before the claim
/// was last looked at: nobody else can have been let in until then.
pub fn fences(claim: &Claim, owner: Option<&str>, now: Timestamp) -> Vec<Fence> {
    let one = |holder: &Holder| Fence {
        host: holder.host.clone(),
        volume: claim.volume.clone(),
        epoch: claim.epoch,
        boot: holder.boot.clone(),
        instance: holder.instance,
        clients: holder.clients.iter().cloned().chain(owner.map(str::to_owned)).collect(),
        since: now,
    };
    claim.holders.iter().map(one).collect()
}

/// The clients among these that others hold volumes with: whoever fences them would cut those off.
pub fn shared<'a>(
    clients: &BTreeSet<String>,
    lost: &VolumeId,
    claims: impl Iterator<Item = &'a Claim>,
) -> Option<(String, VolumeId)> {
    claims.filter(|claim| claim.volume != *lost && claim.fencing().is_none()).find_map(|claim| {
        let used = claim.holders.iter().flat_map(|holder| &holder.clients);
        let shared = used.into_iter().find(|client| clients.contains(*client))?;
        Some((shared.clone(), claim.volume.clone()))
    })
}

/// Whether no client of a fence can be left, so that its entries may go from the blocklist.
///
/// The same installation in another boot: its machine has been off since.
pub fn is_over(fence: &Fence, session: Option<&Session>) -> bool {
    session.is_some_and(|session| {
        fence.instance == Some(session.instance) && session.boot != fence.boot
    })
}

/// Whether a host's word that it has nothing left of a volume ends a fence.
pub fn is_proven(fence: &Fence, boot: &BootId) -> bool {
    fence.boot == *boot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::HoldState;
    use crate::host::Fencing;

    fn holder(host: &str, boot: &str, instance: Option<u128>) -> Holder {
        Holder {
            host: host.parse().unwrap(),
            boot: boot.parse().unwrap(),
            instance: instance.map(Uuid::from_u128),
            state: HoldState::Mounted,
            mounts: BTreeSet::new(),
            clients: vec![format!("10.0.0.1:0/{host}")],
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn session(host: &str, boot: &str, instance: u128) -> Session {
        Session {
            host: host.parse().unwrap(),
            instance: Uuid::from_u128(instance),
            boot: boot.parse().unwrap(),
            since: Timestamp::UNIX_EPOCH,
            version: "0".into(),
        }
    }

    #[test]
    fn a_host_is_given_up_when_its_silence_is_proven() {
        let masters = BTreeSet::new();
        let life = |steady, held: Holder, session: Option<Session>| {
            let sessions = session.into_iter().map(|one| (one.host.clone(), one)).collect();
            let me = MasterId(Uuid::nil());
            Witness { me, masters: &masters, sessions: &sessions, steady, fences: true }.life(&held)
        };
        let held = || holder("h1", "b1", Some(1));
        assert_eq!(life(true, held(), None), Life::Over(End::Lapsed));
        assert_eq!(life(false, held(), None), Life::Unproven(Silence::TooEarly));
        let live = Some(session("h1", "b1", 1));
        assert_eq!(life(true, held(), live), Life::Unproven(Silence::Heard));
        let again = Some(session("h1", "b2", 1));
        assert_eq!(life(false, held(), again), Life::Over(End::Rebooted));
        let never = holder("h1", "b1", None);
        assert_eq!(life(true, never, None), Life::Unproven(Silence::NeverHeard));
    }

    #[test]
    fn one_client_is_told_from_a_machine() {
        for address in ["10.0.0.1:0/3188422143", "[fd00::1]:6800/7", "127.0.0.1:6789/0"] {
            assert_eq!(check_client(address), Ok(()));
        }
        for address in
            ["10.0.0.1:0/0", "10.0.0.0/24", "10.0.0.1", "10.0.0.1:0", "h1:0/7", "10.0.0.1:0/-1", ""]
        {
            assert!(check_client(address).is_err(), "{address}");
        }
    }

    #[test]
    fn a_fence_is_over_when_the_same_machine_has_booted_again() {
        let volume: VolumeId = "t/v".parse().unwrap();
        let held = holder("h1", "b1", Some(1));
        let claim = Claim { volume, epoch: 3, holders: vec![held] };
        let [fence] = &fences(&claim, Some("10.0.0.1:0/owner"), Timestamp::UNIX_EPOCH)[..] else {
            panic!("one holder")
        };
        assert_eq!(fence.clients.len(), 2);
        assert!(!is_over(fence, None));
        assert!(!is_over(fence, Some(&session("h1", "b1", 1))), "the same boot");
        assert!(!is_over(fence, Some(&session("h1", "b2", 2))), "another machine has its label");
        assert!(is_over(fence, Some(&session("h1", "b2", 1))));
    }

    #[test]
    fn who_others_write_with_is_not_fenced() {
        let lost = Claim {
            volume: "t/v".parse().unwrap(),
            epoch: 1,
            holders: vec![holder("h1", "b1", Some(1))],
        };
        let mut other = Claim { volume: "t/w".parse().unwrap(), ..lost.clone() };
        let clients = BTreeSet::from(["10.0.0.1:0/h1".to_owned()]);
        let found = shared(&clients, &lost.volume, [&lost, &other].into_iter());
        assert_eq!(found, Some(("10.0.0.1:0/h1".to_owned(), other.volume.clone())));
        // Who is to be fenced there, too, loses nothing by it.
        let by = MasterId(Uuid::nil());
        other = other.fenced_by(by, Timestamp::UNIX_EPOCH);
        assert_eq!(other.fencing(), Some(Fencing { by, since: Timestamp::UNIX_EPOCH }));
        assert_eq!(shared(&clients, &lost.volume, [&lost, &other].into_iter()), None);
    }
}
