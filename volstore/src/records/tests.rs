//! Golden JSON of every record: a promise to other versions. Never change a line; add a version.

use std::sync::Arc;

use serde::Serialize;
use volcore::claim::{Claim, HoldState, Holder};
use volcore::host::MasterId;
use volcore::name::SnapshotName;
use volcore::options::OptionSet;
use volcore::order::{Order, OrderState, Thawed, ThawedBy};
use volcore::snapshot::{SnapshotFailure, SnapshotLog};
use volcore::spec::VolumeSpec;
use volcore::takeover::Fence;
use volcore::volume::{Disposal, Flattening, ImageFit, Volume, VolumeState};

use super::*;
use crate::keys::Keys;
use crate::memory::MemoryStore;
use crate::store::{Commit, Expect, Revision};

fn golden<T: Serialize>(record: &T) -> String {
    serde_json::to_string(record).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn entry(key: Key, value: &str) -> Entry {
    Entry { key, value: value.into(), revision: Revision(1) }
}

fn policy() -> TenantPolicy {
    serde_json::from_str(
        r#"{"default-options": {"size": "10MB", "snapshots": true, "snapshot": {"frequency": "30m", "keep": 20},
            "rate-limit": {"write-iops": 1000}}}"#,
    )
    .unwrap()
}

fn volume(state: VolumeState) -> Volume {
    let spec = VolumeSpec::freeze(&policy(), OptionSet::default(), &"rbd".parse().unwrap());
    Volume {
        id: "t/v".parse().unwrap(),
        uid: Uuid::from_u128(7),
        spec: spec.unwrap(),
        policy_revision: 3,
        created_at: at(1),
        state,
        flattening: Flattening::NotAsked,
        last_error: None,
    }
}

fn there_and_back(volume: &Volume) -> String {
    let json = golden(&StoredVolume::from(volume));
    let read =
        Records::read_volume(&Keys::default(), &entry(Keys::default().volume(&volume.id), &json));
    assert_eq!(read.unwrap(), *volume);
    json
}

#[test]
fn a_tenant() {
    let tenant =
        Tenant { name: "t".parse().unwrap(), revision: 3, uploaded_at: at(0), policy: policy() };
    let stored = StoredTenant::from(&tenant);
    insta::assert_snapshot!(golden(&stored), @r#"{"v":1,"revision":3,"uploaded_at":"1970-01-01T00:00:00Z","policy":{"default-options":{"size":"10 MiB","snapshots":true,"snapshot":{"frequency":"30m","keep":20},"rate-limit":{"write-iops":1000}},"filesystems":{"ext4":"mkfs.ext4 -m0 %"}}}"#);
    assert_eq!(stored.into_tenant(tenant.name.clone()), tenant);
}

#[test]
fn a_volume_in_each_state() {
    let creating = volume(VolumeState::Creating { since: at(2) });
    insta::assert_snapshot!(there_and_back(&creating), @r#"{"v":1,"uid":"00000000-0000-0000-0000-000000000007","state":{"is":"creating","since":"1970-01-01T00:00:02Z"},"created_at":"1970-01-01T00:00:01Z","policy_revision":3,"options":{"pool":"rbd","size":"10 MiB","filesystem":"ext4","ephemeral":false,"on-remove":"keep","snapshots":true,"snapshot":{"frequency":"30m","keep":20,"freeze":false},"rate-limit":{"write-iops":1000},"access":"auto","mount-options":[],"map-options":[],"sharing":"host"},"format":"mkfs.ext4 -m0 %"}"#);
    let mut ready = volume(VolumeState::Ready { image_id: "10ab".into(), fit: ImageFit::Fits });
    ready.spec.schedule = None;
    ready.spec.rate_limits = Default::default();
    insta::assert_snapshot!(there_and_back(&ready), @r#"{"v":1,"uid":"00000000-0000-0000-0000-000000000007","state":{"is":"ready","image_id":"10ab"},"created_at":"1970-01-01T00:00:01Z","policy_revision":3,"options":{"pool":"rbd","size":"10 MiB","filesystem":"ext4","ephemeral":false,"on-remove":"keep","snapshots":false,"access":"auto","mount-options":[],"map-options":[],"sharing":"host"},"format":"mkfs.ext4 -m0 %"}"#);
    let fit = ImageFit::Pending { since: at(9) };
    let pending = volume(VolumeState::Ready { image_id: "10ab".into(), fit });
    let written = there_and_back(&pending);
    assert!(
        written.contains(
            r#"{"is":"ready","image_id":"10ab","limits_pending":"1970-01-01T00:00:09Z"}"#
        )
    );
    let mut removing = volume(VolumeState::Removing {
        since: at(3),
        image_id: Some("10ab".into()),
        disposal: Disposal::Trash,
    });
    removing.last_error = Some("no answer".into());
    insta::assert_snapshot!(there_and_back(&removing), @r#"{"v":1,"uid":"00000000-0000-0000-0000-000000000007","state":{"is":"removing","since":"1970-01-01T00:00:03Z","image_id":"10ab","disposal":"trash"},"created_at":"1970-01-01T00:00:01Z","policy_revision":3,"options":{"pool":"rbd","size":"10 MiB","filesystem":"ext4","ephemeral":false,"on-remove":"keep","snapshots":true,"snapshot":{"frequency":"30m","keep":20,"freeze":false},"rate-limit":{"write-iops":1000},"access":"auto","mount-options":[],"map-options":[],"sharing":"host"},"format":"mkfs.ext4 -m0 %","last_error":"no answer"}"#);
    there_and_back(&volume(VolumeState::Removing {
        since: at(3),
        image_id: None,
        disposal: Disposal::Delete,
    }));
}

#[test]
fn a_volume_on_its_way_back() {
    let (since, image_id) = (at(3), "10ab".to_owned());
    let snapshot = "before".parse().unwrap();
    let rolling = VolumeState::RollingBack { since, image_id: image_id.clone(), snapshot };
    let written = there_and_back(&volume(rolling));
    assert!(written.contains(r#""state":{"is":"rolling-back","since":"1970-01-01T00:00:03Z","image_id":"10ab","snapshot":"before"}"#), "{written}");
    let restoring = VolumeState::Restoring { since, image_id, was: "t.v".into() };
    let mut restoring = volume(restoring);
    restoring.spec.from = Some("t/w@before".parse().unwrap());
    let written = there_and_back(&restoring);
    assert!(written.contains(r#""state":{"is":"restoring","since":"1970-01-01T00:00:03Z","image_id":"10ab","was":"t.v"}"#), "{written}");
    assert!(written.contains(r#""sharing":"host","from":"t/w@before"}"#), "{written}");
}

#[test]
fn a_volume_whose_image_is_adopted() {
    let (since, image_id, former) = (at(3), "10ab".to_owned(), Some(Uuid::from_u128(8)));
    let adopting = VolumeState::Adopting { since, image_id: image_id.clone(), former };
    let written = there_and_back(&volume(adopting));
    assert!(written.contains(r#""state":{"is":"adopting","since":"1970-01-01T00:00:03Z","image_id":"10ab","former":"00000000-0000-0000-0000-000000000008"}"#), "{written}");
    let back = VolumeState::GivingBack { since, image_id, former: None };
    let written = there_and_back(&volume(back));
    assert!(
        written.contains(
            r#""state":{"is":"giving-back","since":"1970-01-01T00:00:03Z","image_id":"10ab"}"#
        ),
        "{written}"
    );
}

#[test]
fn what_came_of_a_schedule() {
    let name: SnapshotName = "auto-1970-01-01T000007Z".parse().unwrap();
    let failure = SnapshotFailure { at: at(8), reason: "no answer".into() };
    let last_error = Some(failure);
    let log = SnapshotLog {
        uid: Uuid::from_u128(7),
        last: name.slot(),
        taken: 4,
        missed: 2,
        failed: 1,
        last_error,
    };
    let stored = StoredSnapshotLog::from(&log);
    insta::assert_snapshot!(golden(&stored), @r#"{"v":1,"uid":"00000000-0000-0000-0000-000000000007","last":"1970-01-01T00:00:07Z","taken":4,"missed":2,"failed":1,"last_error":{"at":"1970-01-01T00:00:08Z","reason":"no answer"}}"#);
    assert_eq!(SnapshotLog::from(stored), log);
    let none = SnapshotLog::new(Uuid::from_u128(7));
    insta::assert_snapshot!(golden(&StoredSnapshotLog::from(&none)), @r#"{"v":1,"uid":"00000000-0000-0000-0000-000000000007","taken":0,"missed":0,"failed":0}"#);
}

#[test]
fn a_claim_and_its_epoch() {
    let holder = Holder {
        host: "h1".parse().unwrap(),
        boot: "b1".parse().unwrap(),
        instance: None,
        state: HoldState::Mounted,
        mounts: ["m1".parse().unwrap(), "m2".parse().unwrap()].into(),
        clients: vec!["10.0.0.1:0/77".into()],
        since: at(4),
    };
    let claim = Claim { volume: "t/v".parse().unwrap(), epoch: 9, holders: vec![holder] };
    let stored = StoredClaim::from(&claim);
    insta::assert_snapshot!(golden(&stored), @r#"{"v":1,"epoch":9,"holders":[{"host":"h1","boot_id":"b1","state":"mounted","mount_ids":["m1","m2"],"clients":["10.0.0.1:0/77"],"since":"1970-01-01T00:00:04Z"}]}"#);
    assert_eq!(stored.into_claim(claim.volume.clone()), claim);
    let mut fenced = claim.fenced_by(MasterId(Uuid::from_u128(5)), at(6));
    fenced.holders[0].instance = Some(Uuid::from_u128(8));
    let stored = StoredClaim::from(&fenced);
    insta::assert_snapshot!(golden(&stored), @r#"{"v":1,"epoch":9,"holders":[{"host":"h1","boot_id":"b1","instance_id":"00000000-0000-0000-0000-000000000008","state":{"fencing":{"by":"00000000-0000-0000-0000-000000000005","since":"1970-01-01T00:00:06Z"}},"mount_ids":["m1","m2"],"clients":["10.0.0.1:0/77"],"since":"1970-01-01T00:00:04Z"}]}"#);
    assert_eq!(stored.into_claim(fenced.volume.clone()), fenced);
    insta::assert_snapshot!(golden(&StoredEpoch::from(9)), @r#"{"v":1,"epoch":9}"#);
    assert_eq!(u64::from(StoredEpoch::from(9)), 9);
}

#[test]
fn a_fence_and_a_volmaster() {
    let fence = Fence {
        host: "h1".parse().unwrap(),
        volume: "t/v".parse().unwrap(),
        epoch: 9,
        boot: "b1".parse().unwrap(),
        instance: Some(Uuid::from_u128(8)),
        clients: ["10.0.0.1:0/77".to_owned()].into(),
        since: at(4),
    };
    let stored = StoredFence::from(&fence);
    insta::assert_snapshot!(golden(&stored), @r#"{"v":1,"boot_id":"b1","instance_id":"00000000-0000-0000-0000-000000000008","clients":["10.0.0.1:0/77"],"since":"1970-01-01T00:00:04Z"}"#);
    assert_eq!(stored.into_fence(fence.host.clone(), fence.volume.clone(), 9), fence);
    insta::assert_snapshot!(golden(&StoredMaster::new(at(4))), @r#"{"v":1,"since":"1970-01-01T00:00:04Z"}"#);
}

#[test]
fn an_order_in_each_state() {
    let order = |state| LeasedOrder {
        order: Order {
            id: Uuid::from_u128(3),
            volume: "t/v".parse().unwrap(),
            uid: Uuid::from_u128(7),
            host: "h1".parse().unwrap(),
            asked_at: at(4),
            state,
        },
        lease: LeaseId(77),
    };
    let states = [
        OrderState::Asked,
        OrderState::Frozen,
        OrderState::Failed { reason: "no".into() },
        OrderState::Thaw,
        OrderState::Thawed(Thawed { held_ms: 12, by: ThawedBy::Word }),
        OrderState::Thawed(Thawed { held_ms: 5000, by: ThawedBy::Itself }),
    ];
    let lines = states.map(|state| {
        let order = order(state);
        let line = golden(&StoredOrder::from(&order));
        let key = Keys::default().order(&order.order.volume);
        let read = Records::read_order(&Keys::default(), &entry(key, &line));
        assert_eq!(read.unwrap(), order);
        line
    });
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"v":1,"id":"00000000-0000-0000-0000-000000000003","uid":"00000000-0000-0000-0000-000000000007","host":"h1","what":"freeze","asked_at":"1970-01-01T00:00:04Z","state":{"is":"asked"},"lease":77}
    {"v":1,"id":"00000000-0000-0000-0000-000000000003","uid":"00000000-0000-0000-0000-000000000007","host":"h1","what":"freeze","asked_at":"1970-01-01T00:00:04Z","state":{"is":"frozen"},"lease":77}
    {"v":1,"id":"00000000-0000-0000-0000-000000000003","uid":"00000000-0000-0000-0000-000000000007","host":"h1","what":"freeze","asked_at":"1970-01-01T00:00:04Z","state":{"is":"failed","reason":"no"},"lease":77}
    {"v":1,"id":"00000000-0000-0000-0000-000000000003","uid":"00000000-0000-0000-0000-000000000007","host":"h1","what":"freeze","asked_at":"1970-01-01T00:00:04Z","state":{"is":"thaw"},"lease":77}
    {"v":1,"id":"00000000-0000-0000-0000-000000000003","uid":"00000000-0000-0000-0000-000000000007","host":"h1","what":"freeze","asked_at":"1970-01-01T00:00:04Z","state":{"is":"thawed","held_ms":12,"by_itself":false},"lease":77}
    {"v":1,"id":"00000000-0000-0000-0000-000000000003","uid":"00000000-0000-0000-0000-000000000007","host":"h1","what":"freeze","asked_at":"1970-01-01T00:00:04Z","state":{"is":"thawed","held_ms":5000,"by_itself":true},"lease":77}
    "#);
}

#[test]
fn a_session() {
    let leased = LeasedSession {
        session: Session {
            host: "h1".parse().unwrap(),
            instance: Uuid::from_u128(1),
            boot: "b1".parse().unwrap(),
            since: at(5),
            version: "0.1.0".into(),
        },
        lease: LeaseId(77),
        ttl: SessionTtl::default(),
    };
    let stored = StoredSession::from(&leased);
    insta::assert_snapshot!(golden(&stored), @r#"{"v":1,"instance_id":"00000000-0000-0000-0000-000000000001","boot_id":"b1","since":"1970-01-01T00:00:05Z","version":"0.1.0","lease":77,"ttl":"10s"}"#);
    assert_eq!(stored.into_session(leased.session.host.clone()), leased);
}

#[test]
fn the_trash() {
    let trash = |kind| Trash {
        volume: "t/v".parse().unwrap(),
        uid: Uuid::from_u128(7),
        since: at(6),
        kind,
        kept: None,
    };
    let image = |purge_after| TrashKind::Image {
        pool: "rbd".parse().unwrap(),
        id: "10ab".into(),
        name: "t.v".into(),
        purge_after,
        purging: false,
    };
    let late = TrashKind::Late { pool: "rbd".parse().unwrap(), name: "t.v".into(), until: at(300) };
    let all = [trash(image(Some(at(6)))), trash(image(None)), trash(late)];
    for trash in &all {
        assert_eq!(StoredTrash::from(trash).into_trash().as_ref(), Ok(trash));
    }
    let Volume { spec, policy_revision, created_at, flattening, .. } =
        volume(VolumeState::Creating { since: at(1) });
    let kept = Some(Kept { spec, policy_revision, created_at, flattening });
    let restorable = Trash { kept, ..all[0].clone() };
    assert_eq!(StoredTrash::from(&restorable).into_trash().as_ref(), Ok(&restorable));
    insta::assert_snapshot!(golden(&StoredTrash::from(&restorable)), @r#"{"v":1,"volume":"t/v","uid":"00000000-0000-0000-0000-000000000007","since":"1970-01-01T00:00:06Z","what":{"is":"image","pool":"rbd","id":"10ab","name":"t.v","purge_after":"1970-01-01T00:00:06Z"},"kept":{"created_at":"1970-01-01T00:00:01Z","policy_revision":3,"options":{"pool":"rbd","size":"10 MiB","filesystem":"ext4","ephemeral":false,"on-remove":"keep","snapshots":true,"snapshot":{"frequency":"30m","keep":20,"freeze":false},"rate-limit":{"write-iops":1000},"access":"auto","mount-options":[],"map-options":[],"sharing":"host"},"format":"mkfs.ext4 -m0 %"}}"#);
    let lines: Vec<String> = all.iter().map(|trash| golden(&StoredTrash::from(trash))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    {"v":1,"volume":"t/v","uid":"00000000-0000-0000-0000-000000000007","since":"1970-01-01T00:00:06Z","what":{"is":"image","pool":"rbd","id":"10ab","name":"t.v","purge_after":"1970-01-01T00:00:06Z"}}
    {"v":1,"volume":"t/v","uid":"00000000-0000-0000-0000-000000000007","since":"1970-01-01T00:00:06Z","what":{"is":"image","pool":"rbd","id":"10ab","name":"t.v"}}
    {"v":1,"volume":"t/v","uid":"00000000-0000-0000-0000-000000000007","since":"1970-01-01T00:00:06Z","what":{"is":"late","pool":"rbd","name":"t.v","until":"1970-01-01T00:05:00Z"}}
    "#);
    assert_eq!(all[0].id(), "00000000000000000000000000000007");
}

#[test]
fn the_settings() {
    let stored = StoredGlobal::from(&Global::default());
    insta::assert_snapshot!(golden(&stored), @r#"{"v":1,"session_ttl":"10s","trash_retention":"1d"}"#);
    assert_eq!(
        Global::from(
            read::<StoredGlobal>(&entry(
                Keys::default().global(),
                r#"{"v":1,"session_ttl":"10s"}"#
            ))
            .unwrap()
        ),
        Global::default()
    );
    assert_eq!(Global::from(stored), Global::default());
}

#[test]
fn what_this_version_does_not_know_is_corrupt() {
    let key = || Keys::default().global();
    let error = |json: &str| read::<StoredGlobal>(&entry(key(), json)).unwrap_err().to_string();
    insta::assert_snapshot!(error(r#"{"v":2,"session_ttl":"10s","x":1}"#), @"the record at /volplugin/global cannot be read: it has version 2, this program reads version 1 at line 1 column 6");
    insta::assert_snapshot!(error(r#"{"v":1,"session_ttl":"10s","x":1}"#), @"the record at /volplugin/global cannot be read: unknown field `x`, expected one of `v`, `session_ttl`, `trash_retention` at line 1 column 30");
    insta::assert_snapshot!(error(r#"{"session_ttl":"10s"}"#), @"the record at /volplugin/global cannot be read: missing field `v` at line 1 column 21");
    insta::assert_snapshot!(error("no json"), @"the record at /volplugin/global cannot be read: expected ident at line 1 column 2");
}

#[tokio::test]
async fn uploads_are_counted_by_looking() {
    let records = Records::new(Arc::new(MemoryStore::new()), Keys::default());
    let name: TenantName = "t".parse().unwrap();
    let mut expect = Expect::Absent;
    for revision in 0..20_u32 {
        assert_eq!(records.tenant_last_revision(&name).await.unwrap(), revision);
        let tenant = Tenant {
            name: name.clone(),
            revision: u64::from(revision) + 1,
            uploaded_at: at(0),
            policy: policy(),
        };
        let changes = records.changes().put_tenant(&tenant, expect);
        let Commit::Done(at) = records.commit(changes).await.unwrap() else { panic!() };
        expect = Expect::At(at);
    }
}

#[test]
fn a_flattening_is_stored_where_there_is_one() {
    let ready = volume(VolumeState::Ready { image_id: "10ab".into(), fit: ImageFit::Fits });
    let with = |flattening| Volume { flattening, ..ready.clone() };
    assert!(!there_and_back(&ready).contains("flattening"));
    let part = |flattening| {
        let json = there_and_back(&with(flattening));
        json[json.find(r#""flattening""#).unwrap()..].to_owned()
    };
    let reason = Some("held".to_owned());
    insta::assert_snapshot!(part(Flattening::Pending { since: at(9), reason: None }), @r#""flattening":{"is":"pending","since":"1970-01-01T00:00:09Z"}}"#);
    insta::assert_snapshot!(part(Flattening::Pending { since: at(9), reason }), @r#""flattening":{"is":"pending","since":"1970-01-01T00:00:09Z","reason":"held"}}"#);
    insta::assert_snapshot!(part(Flattening::UnderWay { since: at(9) }), @r#""flattening":{"is":"under-way","since":"1970-01-01T00:00:09Z"}}"#);
    insta::assert_snapshot!(part(Flattening::Done), @r#""flattening":{"is":"done"}}"#);
}
