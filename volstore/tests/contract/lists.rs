//! Prefixes, pages, revisions of the past.

use volstore::store::{Expect, Key, MAX_VALUE, Revision, StoreError, list_all};

use super::subject::{Subject, create, delete, names, put};

pub async fn prefixes_have_sharp_edges(s: &Subject) {
    for id in ["t/b", "t/a", "t2/a", "t-2/a", "t/a.b", "u/a"] {
        s.done(vec![create(&s.volume(id), id)]).await;
    }
    s.done(vec![create(&s.keys.global(), "{}")]).await;
    let list = async |prefix: &Key, after: Option<&Key>| {
        let page = s.store.list(prefix, after, 100, None).await.unwrap();
        assert!(!page.more);
        page.entries
    };
    let of_t = list(&s.volumes_of("t"), None).await;
    assert_eq!(names(&of_t), ["a", "a.b", "b"]);
    assert_eq!(of_t[1].value, b"t/a.b");
    assert_eq!(names(&list(&s.volumes_of("t2"), None).await), ["a"]);
    assert_eq!(list(&s.volumes_of("nobody"), None).await, []);
    assert_eq!(list(&s.keys.volumes(), None).await.len(), 6);
    assert_eq!(list(&s.keys.root(), None).await.len(), 7, "the head is not shown");

    // After a key, there or not; before the prefix, behind it.
    let t = s.volumes_of("t");
    assert_eq!(names(&list(&t, Some(&s.volume("t/a"))).await), ["a.b", "b"]);
    assert_eq!(names(&list(&t, Some(&s.volume("t/a-gone"))).await), ["a.b", "b"]);
    assert_eq!(names(&list(&t, Some(&s.keys.global())).await), ["a", "a.b", "b"]);
    assert_eq!(list(&t, Some(&s.volume("u/a"))).await, []);
    assert_eq!(list(&t, Some(&s.volume("t/b"))).await, []);
}

pub async fn pages_fit_together(s: &Subject) {
    let id = |i: usize| s.volume(&format!("t/v{i:02}"));
    let mut revisions = Vec::new();
    for i in 0..20 {
        revisions.push(s.done(vec![create(&id(i), "old")]).await);
    }
    let first = s.store.list(&s.volumes_of("t"), None, 8, None).await.unwrap();
    assert!(first.more);
    assert_eq!(first.entries.len(), 8);
    assert!(first.at >= revisions[19]);

    // What happens between two pages is in neither: a change, an end and a new beginning, a new key.
    s.done(vec![put(&id(9), "new", Expect::At(revisions[9]))]).await;
    s.done(vec![delete(&id(10), revisions[10])]).await;
    s.done(vec![create(&id(10), "again")]).await;
    s.done(vec![delete(&id(11), revisions[11])]).await;
    s.done(vec![create(&id(20), "new")]).await;
    s.done(vec![create(&s.volume("t/v08-more"), "new")]).await;

    let mut entries = first.entries.clone();
    loop {
        let after = entries.last().map(|entry| entry.key.clone());
        let page =
            s.store.list(&s.volumes_of("t"), after.as_ref(), 5, Some(first.at)).await.unwrap();
        assert_eq!(page.at, first.at);
        assert!(page.entries.len() <= 5);
        entries.extend(page.entries);
        if !page.more {
            break;
        }
    }
    assert_eq!(entries.len(), 20);
    for (i, entry) in entries.iter().enumerate() {
        assert_eq!((&entry.key, entry.value.as_slice()), (&id(i), &b"old"[..]));
        assert_eq!(entry.revision, revisions[i]);
    }
    let (now, _) = list_all(&*s.store, &s.volumes_of("t")).await.unwrap();
    assert_eq!(now.len(), 21);
}

pub async fn a_page_of_another_time(s: &Subject) {
    let key = s.volume("t/v");
    let mut last = s.done(vec![create(&key, "0")]).await;
    let old = last;
    for _ in 0..3 {
        last = s.done(vec![put(&key, "1", Expect::At(last))]).await;
    }
    let list = async |at: Revision| s.store.list(&s.keys.volumes(), None, 10, Some(at)).await;
    assert_eq!(list(old).await.unwrap().entries[0].value, b"0");
    assert_eq!(list(last).await.unwrap().entries[0].value, b"1");
    let future = Revision(last.0 + 1000);
    match list(future).await {
        Err(StoreError::Refused { .. }) => {}
        other => panic!("{other:?}"),
    }
    s.compact(last).await;
    match list(old).await {
        Err(StoreError::Compacted { at, .. }) => assert_eq!(at, old),
        other => panic!("{other:?}"),
    }
}

pub async fn big_values_are_listed(s: &Subject) {
    let value = "x".repeat(MAX_VALUE);
    for i in 0..7 {
        s.done(vec![create(&s.volume(&format!("t/v{i}")), &value)]).await;
    }
    s.done(vec![create(&s.volume("t/w"), "small")]).await;
    let (all, _) = list_all(&*s.store, &s.volumes_of("t")).await.unwrap();
    assert_eq!(names(&all), ["v0", "v1", "v2", "v3", "v4", "v5", "v6", "w"]);
    assert!(all[..7].iter().all(|entry| entry.value.len() == MAX_VALUE));
}
