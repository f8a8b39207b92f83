//! Leases: what hangs on them ends with them.

use std::time::{Duration, Instant};

use volstore::store::{
    Change, Commit, Expect, Key, LeaseId, MIN_TTL, Renewal, Revision, Step, StoreError,
};

use super::subject::{Subject, create, eventually, put};

fn leased(key: &Key, value: &str, expect: Expect, lease: LeaseId) -> Step {
    Step::Put { key: key.clone(), value: value.into(), expect, lease: Some(lease) }
}

pub async fn keys_end_with_their_lease(s: &Subject) {
    let (a, b) = (s.volume("t/a"), s.volume("t/b"));
    let began = Instant::now();
    let lease = s.store.lease_grant(Duration::from_millis(100)).await.unwrap();
    let steps = [&a, &b].map(|key| leased(key, "1", Expect::Absent, lease));
    let first = s.done(steps.into()).await;
    let mut watch = s.store.watch(&s.keys.volumes(), Revision(first.0 + 1)).await.unwrap();

    let mut gone = Vec::new();
    while gone.len() < 2 {
        for change in watch.next().await.unwrap() {
            match change {
                Change::Deleted { key, revision } => gone.push((key, revision)),
                Change::Put(entry) => panic!("{entry:?}"),
            }
        }
    }
    assert!(began.elapsed() >= MIN_TTL, "a shorter time to live is made the shortest");
    assert_eq!(gone[0].1, gone[1].1, "all keys of a lease end at once");
    assert_eq!((s.get(&a).await, s.get(&b).await), (None, None));
    assert_eq!(s.store.lease_renew(lease).await.unwrap(), Renewal::Ended);
}

pub async fn a_renewed_lease_lives(s: &Subject) {
    // Longer than a loaded machine stands still between two renewals.
    let ttl = MIN_TTL * 3;
    let (key, other) = (s.volume("t/v"), s.volume("t/other"));
    let lease = s.store.lease_grant(ttl).await.unwrap();
    s.done(vec![leased(&key, "1", Expect::Absent, lease)]).await;
    // What began later and was not renewed has ended: then so would this have.
    let left = s.store.lease_grant(ttl).await.unwrap();
    s.done(vec![leased(&other, "1", Expect::Absent, left)]).await;
    eventually("the lease ends that nobody renews", async || {
        assert_eq!(s.store.lease_renew(lease).await.unwrap(), Renewal::Renewed);
        assert!(s.get(&key).await.is_some());
        s.get(&other).await.is_none().then_some(())
    })
    .await;
    eventually("the lease ends", async || s.get(&key).await.is_none().then_some(())).await;
}

pub async fn a_revoked_lease_takes_its_keys(s: &Subject) {
    let (a, b) = (s.volume("t/a"), s.volume("t/b"));
    let lease = s.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let other = s.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    assert_ne!(lease, other);
    s.done(vec![leased(&a, "1", Expect::Absent, lease)]).await;
    s.done(vec![leased(&b, "1", Expect::Absent, other)]).await;
    s.store.lease_revoke(lease).await.unwrap();
    assert_eq!(s.get(&a).await, None);
    assert!(s.get(&b).await.is_some());
    s.store.lease_revoke(lease).await.unwrap();
    s.store.lease_revoke(LeaseId(12345)).await.unwrap();
    assert_eq!(s.store.lease_renew(lease).await.unwrap(), Renewal::Ended);
    assert_eq!(s.store.lease_renew(other).await.unwrap(), Renewal::Renewed);
}

pub async fn a_key_leaves_its_lease_when_it_is_written_without(s: &Subject) {
    let (kept, moved) = (s.volume("t/kept"), s.volume("t/moved"));
    let lease = s.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let other = s.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    let first = s
        .done(vec![
            leased(&kept, "1", Expect::Absent, lease),
            leased(&moved, "1", Expect::Absent, lease),
        ])
        .await;
    s.done(vec![put(&kept, "2", Expect::At(first)), leased(&moved, "2", Expect::At(first), other)])
        .await;
    s.store.lease_revoke(lease).await.unwrap();
    assert_eq!(s.get(&kept).await.unwrap().value, b"2");
    assert_eq!(s.get(&moved).await.unwrap().value, b"2");
    s.store.lease_revoke(other).await.unwrap();
    assert_eq!(s.get(&moved).await, None);
    assert!(s.get(&kept).await.is_some());
}

pub async fn a_lease_that_ended_takes_no_keys(s: &Subject) {
    let (key, there) = (s.volume("t/v"), s.volume("t/there"));
    s.done(vec![create(&there, "1")]).await;
    let lease = s.store.lease_grant(Duration::from_secs(60)).await.unwrap();
    s.store.lease_revoke(lease).await.unwrap();
    match s.store.commit(vec![leased(&key, "1", Expect::Absent, lease)]).await {
        Err(StoreError::LeaseEnded { lease: which, .. }) => assert_eq!(which, lease),
        other => panic!("{other:?}"),
    }
    assert_eq!(s.get(&key).await, None);
    // Expectations come first.
    let steps = vec![leased(&there, "2", Expect::Absent, lease)];
    assert_eq!(s.store.commit(steps).await.unwrap(), Commit::Conflict);
}
