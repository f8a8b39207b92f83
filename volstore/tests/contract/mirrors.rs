//! Mirrors: what they show, when, and how they come back.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use volstore::cache::{Freshness, Health, Mirror};
use volstore::etcd::{EtcdOptions, EtcdStore};
use volstore::keys::Keys;
use volstore::memory::MemoryStore;
use volstore::store::{
    Commit, Entry, Expect, Key, LeaseId, Page, Renewal, Revision, Step, Store, StoreError, Watch,
};

use super::server::EtcdServer;
use super::subject::{create, delete, done, etcd_at, eventually, names, put};

const LONG: Duration = Duration::from_secs(10);

fn volume(id: &str) -> Key {
    Keys::default().volume(&id.parse().unwrap())
}

fn number(entry: &Entry) -> Result<u64, StoreError> {
    let text = String::from_utf8_lossy(&entry.value);
    text.parse().map_err(|_| StoreError::Corrupt {
        key: entry.key.to_string(),
        reason: format!("{text:?} is no number"),
    })
}

fn mirror(store: Arc<dyn Store>) -> Mirror<u64> {
    let keys = Keys::default();
    Mirror::spawn(store, &keys, keys.volumes(), number)
}

fn shown(mirror: &Mirror<u64>) -> Vec<(String, u64)> {
    mirror.read(|view| {
        let line = |(key, kept): (&Key, &volstore::cache::Kept<u64>)| {
            (key.as_str().rsplit('/').next().unwrap().to_owned(), *kept.record)
        };
        view.records().iter().map(line).collect()
    })
}

fn pair(name: &str, value: u64) -> (String, u64) {
    (name.to_owned(), value)
}

#[tokio::test]
async fn a_mirror_lists_and_follows() {
    let store = Arc::new(MemoryStore::new());
    let first = done(&*store, vec![create(&volume("t/a"), "1"), create(&volume("u/b"), "2")]).await;
    let mirror = mirror(store.clone());
    assert_eq!(mirror.status().health, Health::Loading { error: None });
    assert!(mirror.loaded(LONG).await);
    assert_eq!(shown(&mirror), [pair("a", 1), pair("b", 2)]);
    assert_eq!(mirror.get(&volume("t/a")).unwrap().revision, first);

    done(&*store, vec![put(&volume("t/a"), "3", Expect::At(first)), create(&volume("t/c"), "4")])
        .await;
    let last = done(&*store, vec![delete(&volume("u/b"), first)]).await;
    assert!(mirror.at_least(last, LONG).await);
    assert_eq!(shown(&mirror), [pair("a", 3), pair("c", 4)]);
    assert_eq!(mirror.revision(), last);
    assert!(mirror.is_fresh());
    assert!(!mirror.at_least(Revision(last.0 + 1), Duration::from_millis(1)).await);

    let of_t = Keys::default().volumes_of(&"t".parse().unwrap());
    let after = volume("t/a");
    let below = mirror
        .read(|view| view.below(&of_t, Some(&after)).map(|(k, _)| k.clone()).collect::<Vec<_>>());
    assert_eq!(below, [volume("t/c")]);
}

#[tokio::test]
async fn the_generation_moves_with_the_prefix_only() {
    let store = Arc::new(MemoryStore::new());
    let first = done(&*store, vec![create(&volume("t/a"), "1")]).await;
    let one = mirror(store.clone());
    assert!(one.loaded(LONG).await);
    assert_eq!(one.status().generation, first);
    let elsewhere = done(&*store, vec![create(&Keys::default().global(), "{}")]).await;
    assert!(one.at_least(elsewhere, LONG).await);
    assert_eq!(one.status().generation, first);
    let gone = done(&*store, vec![delete(&volume("t/a"), first)]).await;
    assert!(one.at_least(gone, LONG).await);
    assert_eq!(one.status().generation, gone);
    // One that begins after a deletion cannot be taken for one from before it.
    let other = mirror(store.clone());
    assert!(other.loaded(LONG).await);
    assert!(other.status().generation >= gone);
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_out_and_reported() {
    let store = Arc::new(MemoryStore::new());
    let (good, bad) = (volume("t/good"), volume("t/bad"));
    let mut at = done(&*store, vec![create(&good, "1"), create(&bad, "junk")]).await;
    let mirror = mirror(store.clone());
    assert!(mirror.loaded(LONG).await);
    let check = |at: Revision, junk: usize| {
        let status = mirror.status();
        assert_eq!((status.records, status.undecodable.len()), (2 - junk, junk));
        assert_eq!(status.revision, at);
        for broken in status.undecodable.values() {
            assert!(broken.reason.contains("is no number"), "{}", broken.reason);
        }
    };
    check(at, 1);
    for (value, junk) in [("2", 0), ("junk", 1), ("more junk", 1), ("3", 0)] {
        let found = store.get(&bad).await.unwrap().unwrap();
        at = done(&*store, vec![put(&bad, value, Expect::At(found.revision))]).await;
        assert!(mirror.at_least(at, LONG).await);
        check(at, junk);
    }
    assert_eq!(shown(&mirror), [pair("bad", 3), pair("good", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_waited_for() {
    let store = Arc::new(MemoryStore::new());
    store.faults().go_down();
    let mirror = mirror(store.clone());
    let says_why = async || match mirror.status().health {
        Health::Loading { error } => error,
        other => panic!("{other:?}"),
    };
    let error = eventually("the error shows", says_why).await;
    assert!(error.contains("the fault plan says so"), "{error}");
    assert!(!mirror.is_fresh());
    assert!(mirror.sync(LONG).await.is_err());
    store.faults().come_back();
    assert!(mirror.loaded(LONG).await);
    assert_eq!(mirror.sync(LONG).await.unwrap(), Freshness::Current);

    // Down again: what was seen is still shown.
    let at = done(&*store, vec![create(&volume("t/a"), "1")]).await;
    assert!(mirror.at_least(at, LONG).await);
    store.faults().go_down_for(Duration::from_secs(5));
    store.cut_watches();
    let stale = async || matches!(mirror.status().health, Health::Stale { .. }).then_some(());
    eventually("it shows that it is stale", stale).await;
    assert_eq!(shown(&mirror), [pair("a", 1)]);
    eventually("it follows again", async || mirror.is_fresh().then_some(())).await;
    let status = mirror.status();
    assert_eq!((status.lists, status.cuts), (1, 1), "a cut watch needs no new list");
}

#[tokio::test(start_paused = true)]
async fn what_happens_while_a_watch_is_cut_is_seen() {
    let store = Arc::new(MemoryStore::new());
    let mirror = mirror(store.clone());
    assert!(mirror.loaded(LONG).await);
    for compacted in [false, true] {
        let gone = async || mirror.is_fresh().then_some(());
        eventually("it follows", gone).await;
        // The watch ends at once; the mirror comes back after a pause.
        store.cut_watches();
        tokio::task::yield_now().await;
        let first =
            done(&*store, vec![create(&volume("t/a"), "1"), create(&volume("t/b"), "1")]).await;
        let last = done(&*store, vec![delete(&volume("t/a"), first)]).await;
        if compacted {
            store.compact(Revision(last.0 + 1));
        }
        assert!(mirror.at_least(last, LONG).await);
        assert_eq!(shown(&mirror), [pair("b", 1)], "compacted: {compacted}");
        assert_eq!(mirror.status().generation, last);
        let end = done(&*store, vec![delete(&volume("t/b"), first)]).await;
        assert!(mirror.at_least(end, LONG).await);
    }
}

#[tokio::test]
async fn a_store_that_was_set_back_is_listed_again() {
    let before = MemoryStore::new();
    let after = MemoryStore::new();
    for i in 0..10 {
        done(&before, vec![create(&volume(&format!("t/v{i}")), "1")]).await;
    }
    done(&after, vec![create(&volume("t/restored"), "7")]).await;
    let switch = Arc::new(Switch { now: RwLock::new(before.clone()) });
    let mirror = mirror(switch.clone());
    assert!(mirror.at_least(Revision(10), LONG).await);
    *switch.now.write().unwrap() = after;
    before.cut_watches();
    let restored = async || (shown(&mirror) == [pair("restored", 7)]).then_some(());
    eventually("it shows the restored store", restored).await;
    assert_eq!(mirror.sync(LONG).await.unwrap(), Freshness::Current);
}

/// A store that is replaced by another, as by restoring a backup.
struct Switch {
    now: RwLock<MemoryStore>,
}

impl Switch {
    fn now(&self) -> MemoryStore {
        self.now.read().unwrap().clone()
    }
}

#[async_trait]
impl Store for Switch {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.now().get(key).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.now().list(prefix, after, limit, at).await
    }

    async fn commit(&self, steps: Vec<Step>) -> Result<Commit, StoreError> {
        self.now().commit(steps).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.now().revision().await
    }

    async fn watch(&self, prefix: &Key, from: Revision) -> Result<Watch, StoreError> {
        self.now().watch(prefix, from).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.now().lease_grant(ttl).await
    }

    async fn lease_renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        self.now().lease_renew(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.now().lease_revoke(lease).await
    }

    fn describe(&self) -> String {
        "either".to_owned()
    }
}

/// The promise: what was acknowledged on one replica is in a list on another that begins after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_shows_what_another_has_acknowledged() {
    let server = EtcdServer::start();
    let keys = Keys::default();
    let a = Arc::new(etcd_at([server.url()], &keys).await);
    let b = mirror(Arc::new(etcd_at([server.url()], &keys).await));
    assert!(b.loaded(LONG).await);
    // Strangers in the same etcd, and keys of ours that are in no mirror, make no difference.
    let mut etcd = server.client().await;
    let noise = tokio::spawn(async move {
        for n in 0_u64.. {
            etcd.put("/elsewhere", n.to_string(), None).await.unwrap();
        }
    });
    assert_eq!(b.sync(LONG).await.unwrap(), Freshness::Current, "before the first commit");
    let mut longest = Duration::ZERO;
    for n in 0..100 {
        let key = volume(&format!("t/v{n}"));
        done(&*a, vec![create(&key, &n.to_string())]).await;
        if n % 3 == 0 {
            let mount = keys.mount(&format!("t/v{n}").parse().unwrap());
            done(&*a, vec![create(&mount, "1")]).await;
        }
        let began = Instant::now();
        assert_eq!(b.sync(LONG).await.unwrap(), Freshness::Current);
        longest = longest.max(began.elapsed());
        assert_eq!(*b.get(&key).expect("it is shown").record, n);
    }
    assert!(longest < LONG / 2, "{longest:?}");
    noise.abort();

    // The server goes away: the mirror says so, shows what it has, and comes back.
    tokio::task::block_in_place(|| server.kill());
    let stale = async || matches!(b.status().health, Health::Stale { .. }).then_some(());
    eventually("it shows that it is stale", stale).await;
    assert!(matches!(b.sync(LONG).await, Err(StoreError::Unavailable { .. })));
    assert_eq!(b.status().records, 100);
    tokio::task::block_in_place(|| server.restart());
    done(&*a, vec![create(&volume("t/after"), "1")]).await;
    assert_eq!(b.sync(LONG).await.unwrap(), Freshness::Current);
    assert_eq!(b.status().records, 101);
    assert_eq!(b.status().lists, 1);
}

/// The network swallows everything, and nobody closes the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_gone_without_a_word_is_noticed() {
    let server = EtcdServer::start();
    let keys = Keys::default();
    let proxy = super::proxy::Proxy::start(&server.url()).await;
    let options = EtcdOptions::new([proxy.url()], &keys)
        .probe(Duration::from_secs(1), Duration::from_secs(1));
    let mirror = mirror(Arc::new(EtcdStore::new(options).await.unwrap()));
    let direct = etcd_at([server.url()], &keys).await;
    let at = done(&direct, vec![create(&volume("t/a"), "1")]).await;
    assert!(mirror.at_least(at, LONG).await);
    proxy.lose(super::proxy::Loss::Replies);
    let stale = async || matches!(mirror.status().health, Health::Stale { .. }).then_some(());
    eventually("it shows that it is stale", stale).await;
    proxy.cut();
    let at = done(&direct, vec![create(&volume("t/b"), "2")]).await;
    assert!(mirror.at_least(at, LONG).await);
}

/// A compaction while the mirror is away, on a real etcd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_in_etcd_makes_a_mirror_list_again() {
    let server = EtcdServer::start();
    let keys = Keys::default();
    let proxy = super::proxy::Proxy::start(&server.url()).await;
    let direct = etcd_at([server.url()], &keys).await;
    let mirror = mirror(Arc::new(etcd_at([proxy.url()], &keys).await));
    let first = done(&direct, vec![create(&volume("t/a"), "1")]).await;
    assert!(mirror.at_least(first, LONG).await);
    proxy.lose(super::proxy::Loss::Replies);
    done(&direct, vec![create(&volume("t/b"), "2")]).await;
    let last = done(&direct, vec![delete(&volume("t/a"), first)]).await;
    let compacted = i64::try_from(last.0).unwrap();
    server.client().await.compact(compacted, None).await.unwrap();
    proxy.cut();
    assert!(mirror.at_least(last, LONG).await);
    assert_eq!(shown(&mirror), [pair("b", 2)]);
    assert_eq!(mirror.status().lists, 2);
    let (all, _) = volstore::store::list_all(&direct, &keys.root()).await.unwrap();
    assert_eq!(names(&all), ["b"]);
}
