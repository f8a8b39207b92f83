//! Preconditions, revisions, limits.

use std::sync::Arc;

use volstore::store::{Commit, Expect, MAX_STEPS, MAX_VALUE, Revision, Step, StoreError};

use super::subject::{Subject, check, create, delete, put};

pub async fn a_key_is_absent_or_at_a_revision(s: &Subject) {
    let key = s.volume("t/v");
    assert_eq!(s.get(&key).await, None);
    s.conflicts(vec![put(&key, "x", Expect::At(Revision(1)))]).await;
    s.conflicts(vec![delete(&key, Revision(1))]).await;
    s.conflicts(vec![check(&key, Expect::At(Revision(1)))]).await;

    let first = s.done(vec![create(&key, "one")]).await;
    s.conflicts(vec![create(&key, "two")]).await;
    s.conflicts(vec![put(&key, "two", Expect::At(Revision(first.0 + 1)))]).await;
    s.conflicts(vec![delete(&key, Revision(first.0 - 1))]).await;
    s.conflicts(vec![check(&key, Expect::Absent)]).await;
    let found = s.get(&key).await.unwrap();
    assert_eq!((found.value.as_slice(), found.revision), (&b"one"[..], first));

    let second = s.done(vec![put(&key, "two", Expect::At(first))]).await;
    s.conflicts(vec![put(&key, "three", Expect::At(first))]).await;
    let found = s.get(&key).await.unwrap();
    assert_eq!((found.value.as_slice(), found.revision), (&b"two"[..], second));

    s.done(vec![delete(&key, second)]).await;
    assert_eq!(s.get(&key).await, None);
    s.done(vec![check(&key, Expect::Absent)]).await;
    s.done(vec![create(&key, "")]).await;
    assert_eq!(s.get(&key).await.unwrap().value, b"");
}

pub async fn a_commit_is_all_or_nothing(s: &Subject) {
    let (a, b, c) = (s.volume("t/a"), s.volume("t/b"), s.volume("t/c"));
    let first = s.done(vec![create(&a, "1"), create(&b, "1")]).await;
    assert_eq!(s.get(&a).await.unwrap().revision, first);
    assert_eq!(s.get(&b).await.unwrap().revision, first);

    let stale = Revision(first.0 - 1);
    s.conflicts(vec![put(&a, "2", Expect::At(first)), delete(&b, stale), create(&c, "2")]).await;
    s.conflicts(vec![create(&c, "2"), check(&b, Expect::Absent)]).await;
    assert_eq!(s.get(&a).await.unwrap().value, b"1");
    assert_eq!(s.get(&c).await, None);

    let checked = check(&a, Expect::At(first));
    let second = s.done(vec![checked, delete(&b, first), create(&c, "2")]).await;
    assert_eq!(s.get(&a).await.unwrap().revision, first, "a check writes nothing");
    assert_eq!(s.get(&b).await, None);
    assert_eq!(s.get(&c).await.unwrap().revision, second);
}

pub async fn revisions_grow(s: &Subject) {
    let key = s.volume("t/v");
    let mut last = s.done(vec![create(&key, "0")]).await;
    for _ in 0..5 {
        let next = s.done(vec![put(&key, "same", Expect::At(last))]).await;
        assert!(next > last);
        assert_eq!(s.store.revision().await.unwrap(), next);
        s.conflicts(vec![create(&key, "x")]).await;
        let held = s.done(vec![check(&key, Expect::At(next))]).await;
        assert_eq!(held, next, "nothing was written");
        assert_eq!(s.store.revision().await.unwrap(), next);
        last = next;
    }
}

pub async fn what_can_never_work_is_refused(s: &Subject) {
    let key = s.volume("t/v");
    let many = |n: usize| (0..n).map(|i| create(&s.volume(&format!("t/v{i}")), "")).collect();
    let large = "x".repeat(MAX_VALUE + 1);
    let half = "x".repeat(MAX_VALUE / 2 + 60_000);
    let refused: [(Vec<Step>, &str); 5] = [
        (vec![], "no steps"),
        (many(MAX_STEPS + 1), "more than 127"),
        (vec![create(&key, "1"), check(&key, Expect::Absent)], "more than one step"),
        (vec![create(&key, &large)], "more than 1400000"),
        (vec![create(&key, &half), create(&s.volume("t/w"), &half)], "more than 1500000"),
    ];
    for (steps, words) in refused {
        match s.store.commit(steps).await {
            Err(StoreError::Refused { reason, .. }) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    assert_eq!(s.get(&key).await, None);
}

pub async fn the_largest_commits_work(s: &Subject) {
    let steps = (0..MAX_STEPS).map(|i| create(&s.volume(&format!("t/v{i}")), "x")).collect();
    s.done(steps).await;
    let value = "x".repeat(MAX_VALUE);
    s.done(vec![create(&s.volume("t/large"), &value)]).await;
    assert_eq!(s.get(&s.volume("t/large")).await.unwrap().value.len(), MAX_VALUE);
    // As many bytes as fit, over as many steps as fit.
    let value = "x".repeat(11_600);
    let steps = (0..MAX_STEPS).map(|i| create(&s.volume(&format!("t/w{i}")), &value)).collect();
    s.done(steps).await;
}

pub async fn increments_add_up(s: &Subject) {
    const TASKS: u64 = 8;
    const TIMES: u64 = 25;
    let key = s.volume("t/counter");
    s.done(vec![create(&key, "0")]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (store, key) = (Arc::clone(&s.store), key.clone());
        tasks.spawn(async move {
            for _ in 0..TIMES {
                loop {
                    let found = store.get(&key).await.unwrap().unwrap();
                    let number: u64 = String::from_utf8(found.value).unwrap().parse().unwrap();
                    let step = put(&key, &(number + 1).to_string(), Expect::At(found.revision));
                    if let Commit::Done(_) = store.commit(vec![step]).await.unwrap() {
                        break;
                    }
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let sum = String::from_utf8(s.get(&key).await.unwrap().value).unwrap();
    assert_eq!(sum, (TASKS * TIMES).to_string());
}
