//! Watches: no gap, in order, whole revisions, and an end that says why.

use std::time::Duration;

use volstore::store::{Change, Expect, Revision, Watch, WatchEnd};

use super::subject::{Subject, create, delete, put};

/// What a watch brings, one line a change, until `count` lines are there.
async fn lines(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        for change in batch(watch).await {
            lines.push(line(&change));
        }
    }
    lines
}

async fn batch(watch: &mut Watch) -> Vec<Change> {
    let batch = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
    let batch = batch.expect("the watch brings something").expect("the watch goes on");
    assert!(!batch.is_empty());
    assert!(batch.is_sorted_by_key(revision));
    batch
}

fn revision(change: &Change) -> Revision {
    match change {
        Change::Put(entry) => entry.revision,
        Change::Deleted { revision, .. } => *revision,
    }
}

fn line(change: &Change) -> String {
    match change {
        Change::Put(entry) => {
            let value = String::from_utf8_lossy(&entry.value);
            format!("{}={value}@{}", entry.key, entry.revision.0)
        }
        Change::Deleted { key, revision } => format!("{key} gone@{}", revision.0),
    }
}

pub async fn a_watch_has_no_gap_and_keeps_the_order(s: &Subject) {
    let (a, b) = (s.volume("t/a"), s.volume("t/b"));
    let r0 = s.done(vec![create(&a, "0")]).await;
    let at = s.store.list(&s.keys.volumes(), None, 10, None).await.unwrap().at;
    // Before the watch begins, and after.
    let r1 = s.done(vec![put(&a, "1", Expect::At(r0))]).await;
    let r2 = s.done(vec![create(&b, "2")]).await;
    let mut watch = s.store.watch(&s.keys.volumes(), Revision(at.0 + 1)).await.unwrap();
    let r3 = s.done(vec![delete(&a, r1)]).await;
    let r4 = s.done(vec![create(&a, "4")]).await;
    let expected = [
        format!("{a}=1@{}", r1.0),
        format!("{b}=2@{}", r2.0),
        format!("{a} gone@{}", r3.0),
        format!("{a}=4@{}", r4.0),
    ];
    assert_eq!(lines(&mut watch, 4).await, expected);

    // From the very beginning, inclusive, and from one in the middle.
    let mut watch = s.store.watch(&s.keys.volumes(), Revision(0)).await.unwrap();
    assert_eq!(lines(&mut watch, 5).await[0], format!("{a}=0@{}", r0.0));
    let mut watch = s.store.watch(&s.keys.volumes(), r3).await.unwrap();
    assert_eq!(lines(&mut watch, 2).await, expected[2..]);
}

pub async fn a_watch_sees_whole_revisions_of_its_prefix_only(s: &Subject) {
    let mut root = s.store.watch(&s.keys.root(), Revision(0)).await.unwrap();
    let mut of_t = s.store.watch(&s.volumes_of("t"), Revision(0)).await.unwrap();
    let (a, b, other) = (s.volume("t/a"), s.volume("t/b"), s.volume("t2/a"));
    let r1 = s.done(vec![create(&a, "1"), create(&other, "1"), create(&b, "1")]).await;
    let r2 = s.done(vec![put(&other, "2", Expect::At(r1)), delete(&b, r1)]).await;
    let r3 = s.done(vec![put(&a, "3", Expect::At(r1))]).await;

    let mut per_revision = std::collections::BTreeMap::<u64, usize>::new();
    while per_revision.values().sum::<usize>() < 6 {
        for change in batch(&mut root).await {
            *per_revision.entry(revision(&change).0).or_default() += 1;
        }
        // A batch never ends within a revision.
        let full = [(r1.0, 3), (r2.0, 2), (r3.0, 1)];
        assert!(per_revision.iter().all(|(r, n)| full.contains(&(*r, *n))), "{per_revision:?}");
    }
    let mut seen = lines(&mut of_t, 4).await;
    seen[..2].sort();
    let expected = [
        format!("{a}=1@{}", r1.0),
        format!("{b}=1@{}", r1.0),
        format!("{b} gone@{}", r2.0),
        format!("{a}=3@{}", r3.0),
    ];
    assert_eq!(seen, expected);
}

pub async fn a_watch_may_begin_in_the_future(s: &Subject) {
    let key = s.volume("t/v");
    let mut last = s.done(vec![create(&key, "0")]).await;
    let from = Revision(last.0 + 2);
    let mut watch = s.store.watch(&s.keys.volumes(), from).await.unwrap();
    for value in ["1", "2", "3"] {
        last = s.done(vec![put(&key, value, Expect::At(last))]).await;
    }
    assert_eq!(lines(&mut watch, 2).await[0], format!("{key}=2@{}", from.0));
}

pub async fn a_watch_that_is_far_behind_catches_up(s: &Subject) {
    const COMMITS: usize = 60;
    const STEPS: usize = 40;
    let key = |i: usize, j: usize| s.volume(&format!("t/v{i}-{j}"));
    let mut expected = Vec::new();
    let mut watch = s.store.watch(&s.keys.volumes(), Revision(0)).await.unwrap();
    for i in 0..COMMITS {
        let steps = (0..STEPS).map(|j| create(&key(i, j), "x")).collect();
        let revision = s.done(steps).await;
        let mut whole: Vec<String> =
            (0..STEPS).map(|j| format!("{}=x@{}", key(i, j), revision.0)).collect();
        whole.sort();
        expected.extend(whole);
    }
    let mut seen = lines(&mut watch, COMMITS * STEPS).await;
    for whole in seen.chunks_mut(STEPS) {
        whole.sort();
    }
    assert_eq!(seen, expected);
}

pub async fn a_compacted_watch_says_so(s: &Subject) {
    let key = s.volume("t/v");
    let first = s.done(vec![create(&key, "0")]).await;
    let mut last = first;
    for _ in 0..5 {
        last = s.done(vec![put(&key, "1", Expect::At(last))]).await;
    }
    s.compact(last).await;
    let mut watch = s.store.watch(&s.keys.volumes(), first).await.unwrap();
    match watch.next().await {
        Err(WatchEnd::Compacted(at)) => assert_eq!(at, first),
        other => panic!("{other:?}"),
    }
    match watch.next().await {
        Err(WatchEnd::Cut(None)) => {}
        other => panic!("the end is the end: {other:?}"),
    }
    // Listing again is the way on.
    let at = s.store.list(&s.keys.volumes(), None, 10, None).await.unwrap().at;
    let mut watch = s.store.watch(&s.volumes_of("t"), Revision(at.0 + 1)).await.unwrap();
    let next = s.done(vec![put(&key, "2", Expect::At(last))]).await;
    assert_eq!(lines(&mut watch, 1).await, [format!("{key}=2@{}", next.0)]);
}
