//! The claim's rules, one by one and in any order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::takeover::Silence;
use crate::volume::tests::ready;

fn ask(host: &str, boot: &str, mounts: &[&str]) -> ClaimAsk {
    ClaimAsk {
        host: host.parse().unwrap(),
        boot: boot.parse().unwrap(),
        instance: None,
        epoch: None,
        state: Reached::Claimed,
        mounts: mounts.iter().map(|id| id.parse().unwrap()).collect(),
        clients: vec![],
    }
}

const ME: MasterId = MasterId(Uuid::nil());
static NONE: (BTreeSet<MasterId>, BTreeMap<HostName, Session>) = (BTreeSet::new(), BTreeMap::new());

/// A volmaster that has been there for long, and sees nobody.
fn witness() -> Witness<'static> {
    Witness { me: ME, masters: &NONE.0, sessions: &NONE.1, steady: true, fences: true }
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

fn facts<'a>(
    volume: &'a Volume,
    claim: Option<&'a Claim>,
    session: Option<&'a Session>,
    last_epoch: u64,
) -> ClaimFacts<'a> {
    ClaimFacts { volume, claim, session, last_epoch, witness: witness() }
}

fn claim(
    sharing: Sharing,
    standing: Option<&Claim>,
    asked: ClaimAsk,
) -> Result<ClaimDecision, ClaimRefusal> {
    let mut volume = ready();
    volume.spec.sharing = sharing;
    let last_epoch = standing.map_or(0, |claim| claim.epoch);
    let facts = facts(&volume, standing, None, last_epoch);
    mount_claim(facts, asked, Timestamp::UNIX_EPOCH)
}

fn granted(decision: ClaimDecision) -> Claim {
    match decision {
        ClaimDecision::Claimed(claim)
        | ClaimDecision::Updated(claim)
        | ClaimDecision::AlreadyYours(claim) => claim,
        ClaimDecision::Fence(_) | ClaimDecision::Wait => panic!("not granted: {decision:?}"),
    }
}

#[test]
fn a_second_host_is_refused_by_name() {
    let held = granted(claim(Sharing::Host, None, ask("h1", "b1", &["m1"])).unwrap());
    assert_eq!(held.epoch, 1);
    let error = claim(Sharing::Host, Some(&held), ask("h2", "b2", &["m2"])).unwrap_err();
    assert_eq!(error.kind(), Kind::InUse);
    assert!(error.to_string().contains("host h1 holds it since 1970-01-01T00:00:00Z"), "{error}");
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
    let both = granted(claim(Sharing::ReadOnly, Some(&held), ask("h2", "b2", &["m2"])).unwrap());
    assert_eq!((both.holders.len(), both.epoch), (2, 2));
    let (h1, b1) = ("h1".parse().unwrap(), "b1".parse().unwrap());
    let ReleaseDecision::Keep(left) = mount_release(Some(&both), &h1, &b1, None) else { panic!() };
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
        let sessions = BTreeMap::from([(session.host.clone(), session.clone())]);
        let mut facts = facts(&volume, Some(&held), Some(&session), 1);
        facts.witness.sessions = &sessions;
        // Whose images nobody can be kept from believes the boot id.
        let plain = Witness { fences: false, ..facts.witness };
        let asked = || ask("h1", "b2", &["m2"]);
        let first = mount_claim(facts, asked(), Timestamp::UNIX_EPOCH);
        let facts = ClaimFacts { witness: plain, ..facts };
        (first, mount_claim(facts, asked(), Timestamp::UNIX_EPOCH))
    };
    let (fenced, plain) = with("b2");
    assert_eq!(fenced, Ok(ClaimDecision::Fence(held.fenced_by(ME, Timestamp::UNIX_EPOCH))));
    assert_eq!(granted(plain.unwrap()).epoch, 2);
    assert!(matches!(with("b1").0, Err(ClaimRefusal::OtherBoot { .. })));
}

#[test]
fn a_lapsed_holder_is_fenced_by_one_and_then_gone() {
    let volume = ready();
    let live = session("h1", "b1");
    let asked = ask("h1", "b1", &["m1"]);
    let held = mount_claim(facts(&volume, None, Some(&live), 0), asked, Timestamp::UNIX_EPOCH);
    let held = granted(held.unwrap());
    assert_eq!(held.holders[0].instance, Some(live.instance));
    let other = MasterId(Uuid::from_u128(7));
    let masters = BTreeSet::from([ME, other]);
    let h2 = || ask("h2", "b2", &["m2"]);
    let decide = |claim: &Claim, witness: Witness<'_>| {
        let facts = ClaimFacts { witness, ..facts(&volume, Some(claim), None, claim.epoch) };
        mount_claim(facts, h2(), Timestamp::UNIX_EPOCH)
    };
    let by_me = held.fenced_by(ME, Timestamp::UNIX_EPOCH);
    assert_eq!(decide(&held, witness()), Ok(ClaimDecision::Fence(by_me.clone())));
    for (changed, silence) in [
        (Witness { steady: false, ..witness() }, Silence::TooEarly),
        (Witness { fences: false, ..witness() }, Silence::CannotFence),
    ] {
        let refusal = ClaimRefusal::Held { claim: held.clone(), silence };
        assert_eq!(decide(&held, changed), Err(refusal));
    }
    // Another volmaster is at it: wait. Is it gone, go on in its place.
    let theirs = held.fenced_by(other, Timestamp::UNIX_EPOCH);
    let both = Witness { masters: &masters, ..witness() };
    assert_eq!(decide(&theirs, both), Ok(ClaimDecision::Wait));
    assert_eq!(decide(&theirs, witness()), Ok(ClaimDecision::Fence(by_me.clone())));
    // The old holder may not go on, and gives nothing back.
    let late = ClaimAsk { epoch: Some(1), ..ask("h1", "b1", &["m1"]) };
    let late =
        mount_claim(facts(&volume, Some(&by_me), Some(&live), 1), late, Timestamp::UNIX_EPOCH);
    assert!(matches!(late, Err(ClaimRefusal::Lost { epoch: 1, .. })));
    let (h1, b1) = ("h1".parse().unwrap(), "b1".parse().unwrap());
    assert_eq!(mount_release(Some(&by_me), &h1, &b1, None), ReleaseDecision::Absent);
}

#[test]
fn another_machine_under_a_label_releases_nothing() {
    let live = session("h1", "b1");
    let asked = ask("h1", "b1", &["m1"]);
    let volume = ready();
    let facts = facts(&volume, None, Some(&live), 0);
    let held = granted(mount_claim(facts, asked, Timestamp::UNIX_EPOCH).unwrap());
    let (h1, b2) = ("h1".parse().unwrap(), "b2".parse().unwrap());
    let release = |instance| {
        let again = Session { instance, ..session("h1", "b2") };
        mount_release(Some(&held), &h1, &b2, Some(&again))
    };
    assert_eq!(release(live.instance), ReleaseDecision::Delete);
    assert_eq!(release(Uuid::from_u128(9)), ReleaseDecision::Absent);
}

#[test]
fn who_has_lost_a_volume_does_not_get_it_back_by_a_renewal() {
    let volume = ready();
    let renew = |epoch, standing: Option<&Claim>| {
        let asked = ClaimAsk { epoch: Some(epoch), ..ask("h1", "b1", &["m1"]) };
        mount_claim(facts(&volume, standing, None, 4), asked, Timestamp::UNIX_EPOCH)
    };
    let held = granted(claim(Sharing::Host, None, ask("h1", "b1", &["m1"])).unwrap());
    assert!(renew(1, Some(&held)).is_ok());
    for refused in [renew(1, None), renew(2, Some(&held))] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, ClaimRefusal::Lost { .. }), "{refused}");
        assert_eq!(refused.kind(), Kind::Precondition);
    }
}

#[test]
fn who_says_which_session_is_its_own_has_to_have_it() {
    let volume = ready();
    let live = session("h1", "b1");
    let with = |session, instance: u128| {
        let asked = ClaimAsk { instance: Some(Uuid::from_u128(instance)), ..ask("h1", "b1", &[]) };
        mount_claim(facts(&volume, None, session, 0), asked, Timestamp::UNIX_EPOCH)
    };
    assert!(with(Some(&live), 0).is_ok());
    for refused in [with(None, 0), with(Some(&live), 1)] {
        assert!(matches!(refused, Err(ClaimRefusal::NoSession { .. })), "{refused:?}");
    }
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
                let facts = facts(&volume, standing.as_ref(), None, last_epoch);
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
