//! Whatever is done, in whatever order: memory and file give the same answers.

use proptest::prelude::*;
use volstore::embedded::EmbeddedStore;
use volstore::keys::Keys;
use volstore::memory::MemoryStore;
use volstore::store::{
    Change, Commit, Expect, Key, LeaseId, Page, Revision, Step, Store, StoreError, Watch,
};

#[derive(Clone, Debug)]
enum Op {
    Commit(Vec<(u8, Kind, Guess)>),
    Get(u8),
    List { prefix: u8, after: Option<u8>, limit: usize, back: Option<u64> },
    Revoke,
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Put,
    PutLeased,
    Delete,
    Check,
}

/// What the caller believes of the key.
#[derive(Clone, Copy, Debug)]
enum Guess {
    Absent,
    /// What it is.
    Right,
    Stale,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let kind = prop_oneof![
        4 => Just(Kind::Put),
        1 => Just(Kind::PutLeased),
        2 => Just(Kind::Delete),
        1 => Just(Kind::Check)
    ];
    let guess =
        prop_oneof![1 => Just(Guess::Absent), 8 => Just(Guess::Right), 1 => Just(Guess::Stale)];
    let step = (0..8_u8, kind, guess);
    let list = (0..4_u8, proptest::option::of(0..8_u8), 1..6_usize, proptest::option::of(0..5_u64));
    let op = prop_oneof![
        8 => proptest::collection::vec(step, 1..4).prop_map(Op::Commit),
        2 => (0..8_u8).prop_map(Op::Get),
        4 => list.prop_map(|(prefix, after, limit, back)| Op::List { prefix, after, limit, back }),
        1 => Just(Op::Revoke),
        1 => Just(Op::Reopen)
    ];
    proptest::collection::vec(op, 1..40)
}

fn key(number: u8) -> Key {
    let id = ["t/a", "t/a.b", "t/b", "t2/a", "t-2/a", "T/a", "u/x", "t/z"][usize::from(number)];
    Keys::default().volume(&id.parse().unwrap())
}

fn prefix(number: u8) -> Key {
    let keys = Keys::default();
    match number {
        0 => keys.root(),
        1 => keys.volumes(),
        2 => keys.volumes_of(&"t".parse().unwrap()),
        _ => keys.volumes_of(&"nobody".parse().unwrap()),
    }
}

/// Both stores, and the lease that they have each for themselves.
struct Pair {
    memory: MemoryStore,
    file: Option<EmbeddedStore>,
    folder: tempfile::TempDir,
    leases: (LeaseId, LeaseId),
    /// The file's watches and history begin here.
    opened_at: u64,
}

impl Pair {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new();
        let file = EmbeddedStore::open(folder.path().join("store")).await.unwrap();
        let leases = Self::grant(&memory, &file).await;
        Pair { memory, file: Some(file), folder, leases, opened_at: 0 }
    }

    async fn grant(memory: &MemoryStore, file: &EmbeddedStore) -> (LeaseId, LeaseId) {
        let long = std::time::Duration::from_secs(600);
        (memory.lease_grant(long).await.unwrap(), file.lease_grant(long).await.unwrap())
    }

    fn file(&self) -> &EmbeddedStore {
        self.file.as_ref().unwrap()
    }

    async fn steps(&self, asked: &[(u8, Kind, Guess)], lease: LeaseId) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, kind, guess) in asked {
            let key = key(*number);
            let now = self.memory.get(&key).await.unwrap().map(|entry| entry.revision);
            let expect = match (guess, now) {
                (Guess::Absent, _) | (Guess::Right, None) => Expect::Absent,
                (Guess::Right, Some(now)) => Expect::At(now),
                (Guess::Stale, now) => Expect::At(Revision(now.map_or(1, |now| now.0 - 1))),
            };
            let at = if let Expect::At(at) = expect { at } else { Revision(0) };
            let value = format!("{kind:?} {number} {}", steps.len()).into_bytes();
            steps.push(match kind {
                Kind::Put => Step::Put { key, value, expect, lease: None },
                Kind::PutLeased => Step::Put { key, value, expect, lease: Some(lease) },
                Kind::Delete => Step::Delete { key, at },
                Kind::Check => Step::Check { key, expect },
            });
        }
        steps
    }

    async fn run(&mut self, op: Op) {
        match op {
            Op::Commit(asked) => {
                // Both sets of steps before either is done: they are the same but for the lease.
                let (one, two) =
                    (self.steps(&asked, self.leases.0), self.steps(&asked, self.leases.1));
                let (one, two) = (one.await, two.await);
                let one = self.memory.commit(one).await;
                let two = self.file().commit(two).await;
                assert_eq!(outcome(one), outcome(two));
            }
            Op::Get(number) => {
                let key = key(number);
                let two = self.file().get(&key).await.unwrap();
                assert_eq!(self.memory.get(&key).await.unwrap(), two);
            }
            Op::List { prefix: number, after, limit, back } => {
                let (prefix, after) = (prefix(number), after.map(key));
                let now = self.memory.revision().await.unwrap().0;
                let at = back.map(|back| Revision(now.saturating_sub(back)));
                let one = self.memory.list(&prefix, after.as_ref(), limit, at).await;
                let two = self.file().list(&prefix, after.as_ref(), limit, at).await;
                match (at, two) {
                    (Some(at), Err(StoreError::Compacted { .. })) => assert!(at.0 < self.opened_at),
                    (_, two) => assert_eq!(page(one), page(two)),
                }
            }
            Op::Revoke => {
                self.memory.lease_revoke(self.leases.0).await.unwrap();
                self.file().lease_revoke(self.leases.1).await.unwrap();
                self.leases = Self::grant(&self.memory, self.file()).await;
            }
            Op::Reopen => {
                self.file.take().unwrap().close().await;
                let path = self.folder.path().join("store");
                self.file = Some(EmbeddedStore::open(path).await.unwrap());
                self.opened_at = self.memory.revision().await.unwrap().0;
            }
        }
        assert_eq!(self.memory.revision().await.unwrap(), self.file().revision().await.unwrap());
    }

    /// Everything that was, as both tell it.
    async fn compare_watches(&self) {
        let now = self.memory.revision().await.unwrap().0;
        let from = Revision(self.opened_at + 1);
        let root = Keys::default().root();
        let mut one = self.memory.watch(&root, from).await.unwrap();
        let mut two = self.file().watch(&root, from).await.unwrap();
        if now > self.opened_at {
            assert_eq!(until(&mut one, now).await, until(&mut two, now).await);
        }
    }
}

async fn until(watch: &mut Watch, last: u64) -> Vec<Change> {
    let mut seen = Vec::new();
    let revision = |change: &Change| match change {
        Change::Put(entry) => entry.revision.0,
        Change::Deleted { revision, .. } => revision.0,
    };
    // Each revision has changes to tell.
    while seen.last().is_none_or(|change| revision(change) < last) {
        let batch = tokio::time::timeout(std::time::Duration::from_secs(60), watch.next()).await;
        seen.extend(batch.expect("the watch tells all").unwrap());
    }
    seen
}

fn outcome(result: Result<Commit, StoreError>) -> String {
    match result {
        Ok(commit) => format!("{commit:?}"),
        Err(StoreError::Refused { reason, .. }) => reason,
        Err(other) => panic!("{other:?}"),
    }
}

fn page(result: Result<Page, StoreError>) -> String {
    result.map_or_else(|error| panic!("{error:?}"), |page| format!("{page:?}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_file_are_the_same(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new().await;
            for op in ops {
                pair.run(op).await;
            }
            pair.compare_watches().await;
        });
    }
}
