//! etcd and the way to it fail: what the callers see.

use std::sync::Arc;
use std::time::{Duration, Instant};

use volstore::commit::commit_certain;
use volstore::etcd::{EtcdOptions, EtcdStore, OptionsError};
use volstore::keys::Keys;
use volstore::store::{Commit, Expect, Key, Revision, Store, StoreError, WatchEnd, list_all};

use super::proxy::{Loss, Proxy};
use super::server::{Cluster, EtcdServer, free_port};
use super::subject::{create, done, etcd_at, eventually, names, put};

const PATIENCE: Duration = Duration::from_secs(60);

fn volume(id: &str) -> Key {
    Keys::default().volume(&id.parse().unwrap())
}

async fn store_at(urls: impl IntoIterator<Item = String>) -> EtcdStore {
    etcd_at(urls, &Keys::default()).await
}

async fn impatient(url: String) -> EtcdStore {
    let options = EtcdOptions::new([url], &Keys::default())
        .read_deadline(Duration::from_millis(400))
        .commit_deadline(Duration::from_millis(600));
    EtcdStore::new(options).await.unwrap()
}

/// One that takes its time, so that it shows which calls wait for their deadline.
async fn unhurried(urls: impl IntoIterator<Item = String>) -> EtcdStore {
    let options = EtcdOptions::new(urls, &Keys::default());
    EtcdStore::new(options.read_deadline(UNHURRIED).commit_deadline(UNHURRIED)).await.unwrap()
}

const UNHURRIED: Duration = Duration::from_secs(10);

fn nobody_there() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

/// Increments a counter until it was done `times` times; every outcome must be known in the end.
async fn count(store: &dyn Store, key: &Key, times: u64) {
    let mut done = 0;
    while done < times {
        let Ok(found) = store.get(key).await else { continue };
        let found = found.unwrap();
        let number: u64 = String::from_utf8(found.value).unwrap().parse().unwrap();
        assert_eq!(number, done, "each done is there, and nothing else");
        let step = put(key, &(number + 1).to_string(), Expect::At(found.revision));
        match commit_certain(store, vec![step], PATIENCE).await {
            Ok(Commit::Done(_)) => done += 1,
            Ok(Commit::Conflict) => panic!("nobody else is here"),
            Err(StoreError::Unavailable { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_and_repeats_nothing() {
    let server = EtcdServer::start();
    let store = Arc::new(store_at([server.url()]).await);
    let key = volume("t/counter");
    let first = done(&*store, vec![create(&key, "0")]).await;
    let mut watch = store.watch(&Keys::default().root(), Revision(first.0 + 1)).await.unwrap();
    let counting = tokio::spawn({
        let (store, key) = (store.clone(), key.clone());
        async move { count(&*store, &key, 300).await }
    });
    for limit in ["50", "150"] {
        let far = async || {
            let found = store.get(&key).await.ok()??;
            let number: u64 = String::from_utf8(found.value).unwrap().parse().unwrap();
            (number >= limit.parse().unwrap()).then_some(())
        };
        eventually("the counter is on its way", far).await;
        tokio::task::block_in_place(|| {
            server.kill();
            server.restart();
        });
    }
    counting.await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, b"300");
    // The watch is cut, once, and never goes on by itself.
    let end = loop {
        match watch.next().await {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    assert!(matches!(end, WatchEnd::Cut(_)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_of_three_loses_and_repeats_nothing() {
    let cluster = Cluster::start(3);
    let store = Arc::new(store_at(cluster.urls()).await);
    let key = volume("t/counter");
    eventually("the cluster answers", async || store.revision().await.ok()).await;
    done(&*store, vec![create(&key, "0")]).await;
    let counting = tokio::spawn({
        let (store, key) = (store.clone(), key.clone());
        async move { count(&*store, &key, 150).await }
    });
    eventually("the counter is on its way", async || {
        let found = store.get(&key).await.ok()??;
        (found.value.len() >= 2).then_some(())
    })
    .await;
    cluster.kill_leader().await;
    counting.await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, b"150");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_done_and_everyone_is_told() {
    let cluster = Cluster::start(2);
    let store = store_at(cluster.urls()).await;
    eventually("the cluster answers", async || store.revision().await.ok()).await;
    cluster.kill_leader().await;
    // The one that is left notices after an election timeout that there is no leader.
    let told = async || match store.commit(vec![create(&volume("t/v"), "1")]).await {
        Err(StoreError::Unavailable { source, .. }) => Some(source.to_string()),
        Err(StoreError::Unknown { .. }) => None,
        other => panic!("{other:?}"),
    };
    eventually("the commit is refused for certain", told).await;
    let began = Instant::now();
    assert!(matches!(store.revision().await, Err(StoreError::Unavailable { .. })));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_endpoint_is_not_noticed_while_another_lives() {
    let server = EtcdServer::start();
    for urls in [[nobody_there(), server.url()], [server.url(), nobody_there()]] {
        let store = store_at(urls).await;
        let began = Instant::now();
        let lease = store.lease_grant(Duration::from_secs(5)).await.unwrap();
        for i in 0..50 {
            let key = volume(&format!("t/v{i}"));
            let at = done(&store, vec![create(&key, "1")]).await;
            assert!(store.get(&key).await.unwrap().is_some());
            assert!(store.list(&key, None, 1, None).await.unwrap().entries.len() == 1);
            let mut watch = store.watch(&key, Revision(at.0 + 1)).await.unwrap();
            store.lease_renew(lease).await.unwrap();
            done(&store, vec![put(&key, "2", Expect::At(at))]).await;
            watch.next().await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        let (all, _) = list_all(&store, &Keys::default().volumes()).await.unwrap();
        let gone = all.iter().map(|e| super::subject::delete(&e.key, e.revision)).collect();
        done(&store, gone).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_says_nothing_is_left_for_another() {
    let server = EtcdServer::start();
    // Accepts connections, and that is all.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let store = unhurried([silent_url, server.url()]).await;
    let began = Instant::now();
    assert_eq!(store.get(&volume("t/v")).await.unwrap(), None);
    assert!(began.elapsed() < UNHURRIED);
    let began = Instant::now();
    done(&store, vec![create(&volume("t/v"), "1")]).await;
    assert!(began.elapsed() < UNHURRIED / 2, "the one that answered is asked first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_said_at_once() {
    let store = unhurried([nobody_there(), nobody_there()]).await;
    let began = Instant::now();
    match store.get(&volume("t/v")).await {
        Err(StoreError::Unavailable { source, action, .. }) => {
            assert_eq!(action, "read /volplugin/volumes/t/v");
            assert!(source.to_string().contains("onnection refused"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    // Nothing was sent, so nothing is in doubt.
    match store.commit(vec![create(&volume("t/v"), "1")]).await {
        Err(StoreError::Unavailable { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(store.lease_grant(PATIENCE).await, Err(StoreError::Unavailable { .. })));
    let watch = store.watch(&volume("t/v"), Revision(1)).await;
    assert!(matches!(watch, Err(StoreError::Unavailable { .. })));
    assert!(began.elapsed() < UNHURRIED / 2, "{:?}", began.elapsed());

    let none = EtcdStore::new(EtcdOptions::new(Vec::<String>::new(), &Keys::default())).await;
    assert!(matches!(none, Err(OptionsError::NoEndpoint)));
    let bad = EtcdStore::new(EtcdOptions::new(["http://a b"], &Keys::default())).await;
    assert!(matches!(bad, Err(OptionsError::BadEndpoint { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_answering_costs_the_deadline() {
    let server = EtcdServer::start();
    let store = impatient(server.url()).await;
    let key = volume("t/v");
    let first = done(&store_at([server.url()]).await, vec![create(&key, "1")]).await;
    eventually("it is connected", async || store.get(&key).await.ok()).await;
    server.signal("-STOP");
    // Less than what the deadlines are by default.
    let began = Instant::now();
    assert!(matches!(store.get(&key).await, Err(StoreError::Unavailable { .. })));
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
    let began = Instant::now();
    let answer = store.commit(vec![put(&key, "2", Expect::At(first))]).await;
    assert!(matches!(answer, Err(StoreError::Unknown { .. })), "{answer:?}");
    assert!(began.elapsed() < Duration::from_millis(4900), "{:?}", began.elapsed());
    server.signal("-CONT");
    let found = eventually("it answers again", async || store.get(&key).await.ok()).await.unwrap();
    // It was sent, so it may have happened; it is found out by asking.
    let second = commit_certain(&store, vec![put(&key, "3", Expect::At(found.revision))], PATIENCE);
    assert!(matches!(second.await, Ok(Commit::Done(_) | Commit::Conflict)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_is_unknown_until_it_is_found_out() {
    let server = EtcdServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let direct = store_at([server.url()]).await;
    let store = Arc::new(store_at([proxy.url()]).await);

    for (id, certain) in [("t/plain", false), ("t/certain", true)] {
        let key = volume(id);
        // The connection is there, and the request goes through.
        assert_eq!(store.get(&key).await.unwrap(), None);
        proxy.lose(Loss::Replies);
        let task = tokio::spawn({
            let (store, steps) = (store.clone(), vec![create(&key, "1")]);
            async move {
                match certain {
                    true => commit_certain(&*store, steps, PATIENCE).await,
                    false => store.commit(steps).await,
                }
            }
        });
        let there = async || direct.get(&key).await.unwrap();
        let entry = eventually("the commit happened", there).await;
        proxy.cut();
        match task.await.unwrap() {
            Ok(Commit::Done(revision)) if certain => assert_eq!(revision, entry.revision),
            Err(StoreError::Unknown { .. }) if !certain => {}
            other => panic!("{id}: {other:?}"),
        }
        assert_eq!(direct.get(&key).await.unwrap().unwrap().revision, entry.revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_request_is_unknown_and_sent_again() {
    let server = EtcdServer::start();
    let proxy = Proxy::start(&server.url()).await;
    let store = Arc::new(store_at([proxy.url()]).await);
    let key = volume("t/v");
    assert_eq!(store.get(&key).await.unwrap(), None);
    proxy.lose(Loss::Requests);
    let task = tokio::spawn({
        let (store, steps) = (store.clone(), vec![create(&key, "1")]);
        async move { commit_certain(&*store, steps, PATIENCE).await }
    });
    eventually("the request is lost", async || (proxy.lost() > 0).then_some(())).await;
    assert_eq!(store_at([server.url()]).await.get(&key).await.unwrap(), None);
    proxy.cut();
    match task.await.unwrap() {
        Ok(Commit::Done(revision)) => {
            assert_eq!(store.get(&key).await.unwrap().unwrap().revision, revision);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_in_the_same_etcd_are_not_noticed() {
    let server = EtcdServer::start();
    let store = store_at([server.url()]).await;
    let mut etcd = server.client().await;
    etcd.put("/elsewhere", "1", None).await.unwrap();
    let ours = done(&store, vec![create(&volume("t/b"), "1")]).await;
    for value in 0..10 {
        etcd.put("/elsewhere", value.to_string(), None).await.unwrap();
    }
    assert_eq!(store.revision().await.unwrap(), ours, "only our commits move our revision");

    // What is no text cannot be ours. It is passed over, also where it is all there is on a page.
    let mut watch = store.watch(&Keys::default().root(), Revision(0)).await.unwrap();
    for last in [0xfe, 0xff] {
        let mut key = volume("t/a").as_str().as_bytes().to_vec();
        key.push(last);
        etcd.put(key, "noise", None).await.unwrap();
    }
    done(&store, vec![create(&volume("t/c"), "1")]).await;
    let page = store.list(&Keys::default().volumes(), None, 1, None).await.unwrap();
    assert!(page.more);
    assert_eq!(names(&page.entries), ["b"]);
    let (all, _) = list_all(&store, &Keys::default().root()).await.unwrap();
    assert_eq!(names(&all), ["b", "c"]);
    let mut seen = 0;
    while seen < 2 {
        seen += watch.next().await.unwrap().len();
    }
    assert_eq!(seen, 2);
}
