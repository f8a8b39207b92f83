//! The recovery commands on a store in memory, with faults.

use volcore::claim::{Claim, HoldState, Holder};
use volcore::name::{TenantName, VolumeId};
use volcore::options::OptionSet;
use volcore::policy::TenantPolicy;
use volcore::snapshot::SnapshotLog;
use volcore::spec::VolumeSpec;
use volcore::volume::{Flattening, ImageFit, Volume, VolumeState};
use volstore::memory::{Fault, MemoryStore};
use volstore::store::Expect;

use super::*;
use crate::backend::Uploaded;

fn direct() -> (Direct, MemoryStore) {
    let store = MemoryStore::new();
    let records = Records::new(Arc::new(store.clone()), Keys::default());
    (Direct { records }, store)
}

fn policy(size: &str) -> TenantPolicy {
    serde_json::from_str(&format!(r#"{{"default-options": {{"size": "{size}"}}}}"#)).unwrap()
}

fn tenant() -> TenantName {
    "t".parse().unwrap()
}

fn id() -> VolumeId {
    "t/v".parse().unwrap()
}

/// A volume that is ready, and the claim of a host on it.
async fn furnish(direct: &Direct) {
    let pool = "rbd".parse().unwrap();
    let hourly = [("snapshots", "1"), ("snapshots.frequency", "1h"), ("snapshots.keep", "3")];
    let hourly = hourly.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let options = OptionSet::from_driver_options(&hourly).unwrap();
    let volume = Volume {
        id: id(),
        uid: uuid::Uuid::nil(),
        spec: VolumeSpec::freeze(&policy("10MB"), options, &pool).unwrap(),
        policy_revision: 1,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        state: VolumeState::Ready { image_id: "1".into(), fit: ImageFit::Fits },
        flattening: Flattening::NotAsked,
        last_error: None,
    };
    let holder = Holder {
        host: "h1".parse().unwrap(),
        boot: "b1".parse().unwrap(),
        instance: None,
        state: HoldState::Mounted,
        mounts: ["m1".parse().unwrap()].into(),
        clients: vec![],
        since: jiff::Timestamp::UNIX_EPOCH,
    };
    let claim = Claim { volume: id(), epoch: 3, holders: vec![holder] };
    let changes = direct.records.changes();
    let log = SnapshotLog { taken: 7, ..SnapshotLog::new(volume.uid) };
    let changes = changes
        .put_volume(&volume, Expect::Absent)
        .put_snapshot_log(&id(), &log, Expect::Absent)
        .put_claim(&claim, Expect::Absent)
        .put_epoch(&id(), 3, Expect::Absent);
    assert!(done(direct.records.commit(changes).await.unwrap()));
}

#[tokio::test]
async fn uploads_count_on_and_are_kept() {
    let (direct, _) = direct();
    let t = tenant();
    let upload = async |size| direct.tenant_upload(&t, policy(size)).await.unwrap();
    assert_eq!(upload("10MB").await.0, Uploaded::Revision);
    assert_eq!(upload("10MB").await.0, Uploaded::Unchanged);
    assert_eq!(upload("20MB").await.1.revision, 2);
    direct.tenant_delete(&t).await.unwrap();
    assert!(matches!(direct.tenant_get(&t).await, Err(DirectError::NotFound { .. })));
    assert!(matches!(direct.tenant_delete(&t).await, Err(DirectError::NotFound { .. })));
    assert!(direct.tenant_list().await.unwrap().is_empty());
    assert_eq!(upload("20MB").await.1.revision, 3, "the count goes on over a deletion");
    assert_eq!(direct.tenant_revision_list(&t).await.unwrap().len(), 3);
    assert_eq!(direct.tenant_revision_get(&t, 1).await.unwrap().policy, policy("10MB"));
    for absent in [0, 4, u64::MAX] {
        let found = direct.tenant_revision_get(&t, absent).await;
        assert!(matches!(found, Err(DirectError::NotFound { .. })), "{absent}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_makes_one_revision() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        let (direct, store) = direct();
        store.faults().on_commit(1, fault);
        let (uploaded, now) = direct.tenant_upload(&tenant(), policy("10MB")).await.unwrap();
        assert_eq!((uploaded, now.revision), (Uploaded::Revision, 1));
        assert_eq!(direct.tenant_revision_list(&tenant()).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_held_volume_is_not_forgotten() {
    let (direct, _) = direct();
    furnish(&direct).await;
    let shown = direct.volume_get(&id()).await.unwrap();
    assert_eq!(shown.mount.unwrap().holder.host.as_str(), "h1");
    assert_eq!(shown.schedule.unwrap().taken, 7);
    let refused = direct.volume_force_remove(&id()).await.unwrap_err();
    assert!(matches!(refused, DirectError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("host h1 holds it since 1970"), "{refused}");

    direct.mount_force_remove(&id()).await.unwrap();
    assert!(direct.mount_list(None).await.unwrap().is_empty());
    assert_eq!(direct.records.epoch(&id()).await.unwrap().unwrap().value, 3, "epochs only grow");
    let removed = direct.volume_force_remove(&id()).await.unwrap();
    assert_eq!(removed.left_behind.as_deref(), Some("image rbd/t.v"));
    assert!(direct.volume_list(None).await.unwrap().is_empty());
    let (entries, _) =
        volstore::store::list_all(&**direct.records.store(), &direct.records.keys().root())
            .await
            .unwrap();
    assert!(entries.is_empty(), "nothing of the volume is left: {entries:?}");
}

#[tokio::test]
async fn lists_are_of_one_tenant_or_of_all() {
    let (direct, _) = direct();
    furnish(&direct).await;
    let other: TenantName = "other".parse().unwrap();
    for (tenant, count) in [(None, 1), (Some(&tenant()), 1), (Some(&other), 0)] {
        assert_eq!(direct.volume_list(tenant).await.unwrap().len(), count);
        assert_eq!(direct.volume_list_brief(tenant).await.unwrap().len(), count);
        assert_eq!(direct.mount_list(tenant).await.unwrap().len(), count);
    }
    let whole = direct.volume_list(None).await.unwrap().remove(0);
    assert!(whole.mount.is_some());
    assert_eq!(whole.schedule.unwrap().taken, 7);
    assert_eq!(direct.mount_get(&id()).await.unwrap().epoch, 3);
}

#[tokio::test]
async fn a_store_that_is_down_is_not_an_empty_one() {
    let (direct, store) = direct();
    furnish(&direct).await;
    store.faults().go_down();
    assert!(matches!(direct.volume_get(&id()).await, Err(DirectError::Store(_))));
    assert!(matches!(direct.volume_list(None).await, Err(DirectError::Store(_))));
    assert!(matches!(direct.tenant_get(&tenant()).await, Err(DirectError::Store(_))));
}
