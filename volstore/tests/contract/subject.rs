//! The stores under test, each empty and its own, and the few words the cases speak.

use std::sync::Arc;
use std::time::Duration;

use volstore::embedded::EmbeddedStore;
use volstore::etcd::{EtcdOptions, EtcdStore};
use volstore::keys::Keys;
use volstore::memory::MemoryStore;
use volstore::store::{Commit, Entry, Expect, Key, Revision, Step, Store};

use super::server::EtcdServer;

/// One store, and what keeps it alive.
pub struct Subject {
    pub store: Arc<dyn Store>,
    pub keys: Keys,
    compactor: Compactor,
    _folder: Option<tempfile::TempDir>,
}

enum Compactor {
    Memory(MemoryStore),
    /// The embedded store forgets by itself, when its ring is full.
    Ring,
    Etcd(EtcdServer),
}

pub async fn memory() -> Subject {
    let store = MemoryStore::new();
    let compactor = Compactor::Memory(store.clone());
    Subject { store: Arc::new(store), keys: Keys::default(), compactor, _folder: None }
}

pub async fn embedded() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path().join("store.redb")).await.unwrap();
    Subject {
        store: Arc::new(store),
        keys: Keys::default(),
        compactor: Compactor::Ring,
        _folder: Some(folder),
    }
}

pub async fn etcd() -> Subject {
    let server = EtcdServer::start();
    let keys = Keys::default();
    let store = etcd_at([server.url()], &keys).await;
    Subject { store: Arc::new(store), keys, compactor: Compactor::Etcd(server), _folder: None }
}

pub async fn etcd_at(urls: impl IntoIterator<Item = String>, keys: &Keys) -> EtcdStore {
    EtcdStore::new(EtcdOptions::new(urls, keys)).await.unwrap()
}

impl Subject {
    pub fn volume(&self, id: &str) -> Key {
        self.keys.volume(&id.parse().unwrap())
    }

    pub fn volumes_of(&self, tenant: &str) -> Key {
        self.keys.volumes_of(&tenant.parse().unwrap())
    }

    pub async fn done(&self, steps: Vec<Step>) -> Revision {
        done(&*self.store, steps).await
    }

    pub async fn conflicts(&self, steps: Vec<Step>) {
        assert_eq!(self.store.commit(steps).await.unwrap(), Commit::Conflict);
    }

    pub async fn get(&self, key: &Key) -> Option<Entry> {
        self.store.get(key).await.unwrap()
    }

    /// Forgets the changes before `revision`, and perhaps more.
    pub async fn compact(&self, revision: Revision) {
        match &self.compactor {
            Compactor::Memory(store) => store.compact(revision),
            Compactor::Etcd(server) => {
                let mut client = server.client().await;
                client.compact(i64::try_from(revision.0).unwrap(), None).await.unwrap();
            }
            Compactor::Ring => {
                // 32 MiB push everything older out.
                let key = self.volume("filler/v");
                let mut expect = Expect::Absent;
                for _ in 0..30 {
                    let value = vec![0; 1_300_000];
                    let put = Step::Put { key: key.clone(), value, expect, lease: None };
                    expect = Expect::At(self.done(vec![put]).await);
                }
            }
        }
    }
}

pub async fn done(store: &dyn Store, steps: Vec<Step>) -> Revision {
    match store.commit(steps).await.unwrap() {
        Commit::Done(revision) => revision,
        Commit::Conflict => panic!("a conflict nobody made"),
    }
}

pub fn put(key: &Key, value: &str, expect: Expect) -> Step {
    Step::Put { key: key.clone(), value: value.into(), expect, lease: None }
}

pub fn create(key: &Key, value: &str) -> Step {
    put(key, value, Expect::Absent)
}

pub fn delete(key: &Key, at: Revision) -> Step {
    Step::Delete { key: key.clone(), at }
}

pub fn check(key: &Key, expect: Expect) -> Step {
    Step::Check { key: key.clone(), expect }
}

pub fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str().rsplit('/').next().unwrap()).collect()
}

/// Asks again until the answer is there; says what was waited for when it never comes.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(std::time::Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
