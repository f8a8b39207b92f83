//! The store that forgets: for tests, and the model that the others are compared with.
//!
//! Owns [`MemoryStore`], with real revisions, history and leases (driven by tokio's
//! clock, so that tests can pause it), and [`FaultPlan`], which makes it fail on demand.
//! Never touches a disk or a socket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::engine::{Image, Plan};
use crate::limits;
use crate::local::{Local, Log, LogError};
use crate::store::{
    Cause, Commit, Entry, Key, LeaseId, Page, Renewal, Revision, Step, Store, StoreError, Watch,
};

/// A store in memory. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    local: Arc<Local<NoLog>>,
    faults: FaultPlan,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store, at revision zero.
    pub fn new() -> Self {
        let local = Local::new("memory".to_owned(), NoLog, Image::default());
        MemoryStore { faults: FaultPlan::default(), local }
    }

    /// What shall go wrong, and when.
    pub fn faults(&self) -> &FaultPlan {
        &self.faults
    }

    /// Ends all watches as if the connection had broken.
    pub fn cut_watches(&self) {
        self.local.cut_watches();
    }

    /// Forgets the changes before `revision`, as etcd's compaction does.
    pub fn compact(&self, revision: Revision) {
        self.local.compact(revision);
    }

    fn failed(&self, action: impl FnOnce() -> String) -> StoreError {
        self.local.unavailable(action(), Box::new(Planned))
    }

    /// Lets a read through, or not.
    fn reading(&self, action: impl FnOnce() -> String) -> Result<(), StoreError> {
        if self.faults.read_fails() { Err(self.failed(action)) } else { Ok(()) }
    }

    /// Lets a write that is no commit through, or not.
    fn up(&self, action: &str) -> Result<(), StoreError> {
        if self.faults.is_down() { Err(self.failed(|| action.to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.reading(|| format!("read {key}"))?;
        Ok(self.local.read(String::new)?.get(key))
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.reading(|| format!("list {prefix}"))?;
        self.local.list(prefix, after, limit, at)
    }

    async fn commit(&self, steps: Vec<Step>) -> Result<Commit, StoreError> {
        let lost = |steps: &[Step]| StoreError::Unknown {
            store: self.describe(),
            action: limits::action(steps),
            source: Box::new(Planned),
        };
        match self.faults.next_commit() {
            None => self.local.commit(&steps),
            Some(Fault::Before) => Err(self.failed(|| limits::action(&steps))),
            Some(Fault::RequestLost) => Err(lost(&steps)),
            Some(Fault::ReplyLost) => {
                self.local.commit(&steps)?;
                Err(lost(&steps))
            }
        }
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.reading(|| "read the revision".to_owned())?;
        Ok(Revision(self.local.read(String::new)?.revision()))
    }

    async fn watch(&self, prefix: &Key, from: Revision) -> Result<Watch, StoreError> {
        self.reading(|| format!("watch {prefix}"))?;
        Ok(self.local.watch(prefix, from))
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.up("take a lease")?;
        self.local.grant(ttl)
    }

    async fn lease_renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        self.up("renew a lease")?;
        self.local.renew(lease)
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.up("end a lease")?;
        self.local.revoke(lease)
    }

    fn describe(&self) -> String {
        self.local.name().to_owned()
    }
}

/// How a planned failure looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The commit fails before it happens, and says so: [`StoreError::Unavailable`].
    Before,
    /// The request is lost: nothing happens, but the caller gets [`StoreError::Unknown`].
    RequestLost,
    /// The commit happens, the reply is lost: [`StoreError::Unknown`].
    ReplyLost,
}

/// What shall go wrong. Clones are the same plan.
///
/// Commits and reads (get, list, revision, watch) are counted separately, so that a test
/// can let an operation run once, see how many there were, and then fail each in turn.
#[derive(Clone, Default)]
pub struct FaultPlan {
    state: Arc<Mutex<Plans>>,
}

#[derive(Default)]
struct Plans {
    commits: u64,
    reads: u64,
    on_commit: BTreeMap<u64, Fault>,
    on_read: BTreeMap<u64, ()>,
    down: Option<Until>,
}

#[derive(Clone, Copy)]
enum Until {
    Told,
    Then(Instant),
}

impl FaultPlan {
    /// The `nth` commit from now (one is the next) fails like this.
    pub fn on_commit(&self, nth: u64, fault: Fault) {
        let mut plans = self.plans();
        let number = plans.commits + nth;
        plans.on_commit.insert(number, fault);
    }

    /// The `nth` read from now (one is the next) answers [`StoreError::Unavailable`].
    pub fn on_read(&self, nth: u64) {
        let mut plans = self.plans();
        let number = plans.reads + nth;
        plans.on_read.insert(number, ());
    }

    /// Every call answers [`StoreError::Unavailable`] until `come_back`. Leases run on, watches stay.
    pub fn go_down(&self) {
        self.plans().down = Some(Until::Told);
    }

    /// As `go_down`, for so long.
    pub fn go_down_for(&self, time: Duration) {
        self.plans().down = Some(Until::Then(Instant::now() + time));
    }

    /// Ends `go_down`.
    pub fn come_back(&self) {
        self.plans().down = None;
    }

    /// Takes back every planned failure.
    pub fn clear(&self) {
        let mut plans = self.plans();
        plans.on_commit.clear();
        plans.on_read.clear();
        plans.down = None;
    }

    /// How many commits were asked for, failed ones included.
    pub fn commits(&self) -> u64 {
        self.plans().commits
    }

    /// How many reads were asked for, failed ones included.
    pub fn reads(&self) -> u64 {
        self.plans().reads
    }

    fn next_commit(&self) -> Option<Fault> {
        let mut plans = self.plans();
        plans.commits += 1;
        let number = plans.commits;
        let planned = plans.on_commit.remove(&number);
        if plans.is_down() { Some(Fault::Before) } else { planned }
    }

    fn read_fails(&self) -> bool {
        let mut plans = self.plans();
        plans.reads += 1;
        let number = plans.reads;
        plans.on_read.remove(&number).is_some() || plans.is_down()
    }

    fn is_down(&self) -> bool {
        self.plans().is_down()
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plans {
    fn is_down(&self) -> bool {
        match self.down {
            None => false,
            Some(Until::Told) => true,
            Some(Until::Then(end)) => Instant::now() < end,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the fault plan says so")]
struct Planned;

/// Nothing is kept.
struct NoLog;

impl Log for NoLog {
    const BLOCKS: bool = false;

    fn write(&mut self, _: &Plan) -> Result<(), LogError> {
        Ok(())
    }

    fn reload(&mut self) -> Result<Image, Cause> {
        // Not reached: writing never fails.
        Ok(Image::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;
    use crate::store::Expect;

    fn create(id: &str) -> (Key, Vec<Step>) {
        let key = Keys::default().volume(&id.parse().unwrap());
        let step =
            Step::Put { key: key.clone(), value: vec![], expect: Expect::Absent, lease: None };
        (key, vec![step])
    }

    #[tokio::test]
    async fn planned_commits_fail_as_planned() {
        let store = MemoryStore::new();
        let faults = store.faults();
        faults.on_commit(2, Fault::Before);
        faults.on_commit(3, Fault::RequestLost);
        faults.on_commit(4, Fault::ReplyLost);
        let mut seen = Vec::new();
        for id in ["t/a", "t/b", "t/c", "t/d", "t/e"] {
            let (key, steps) = create(id);
            let answer = match store.commit(steps).await {
                Ok(Commit::Done(_)) => "done",
                Err(StoreError::Unavailable { .. }) => "unavailable",
                Err(StoreError::Unknown { .. }) => "unknown",
                other => panic!("{other:?}"),
            };
            seen.push((answer, store.get(&key).await.unwrap().is_some()));
        }
        let expected = [
            ("done", true),
            ("unavailable", false),
            ("unknown", false),
            ("unknown", true),
            ("done", true),
        ];
        assert_eq!(seen, expected);
        assert_eq!((faults.commits(), faults.reads()), (5, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_has_an_end() {
        let store = MemoryStore::new();
        let (key, steps) = create("t/a");
        store.faults().go_down_for(Duration::from_secs(3));
        assert!(store.get(&key).await.is_err());
        assert!(store.commit(steps.clone()).await.is_err());
        assert!(store.lease_grant(Duration::from_secs(2)).await.is_err());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(store.commit(steps).await.is_ok());
        store.faults().on_read(2);
        assert!(store.get(&key).await.is_ok());
        assert!(store.list(&key, None, 1, None).await.is_err());
        assert!(store.revision().await.is_ok());
        store.faults().go_down();
        assert!(store.watch(&key, Revision(1)).await.is_err());
        store.faults().clear();
        assert!(store.watch(&key, Revision(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn leases_follow_the_paused_clock() {
        let store = MemoryStore::new();
        let (key, _) = create("t/a");
        let lease = store.lease_grant(Duration::from_secs(10)).await.unwrap();
        let step = Step::Put {
            key: key.clone(),
            value: vec![],
            expect: Expect::Absent,
            lease: Some(lease),
        };
        store.commit(vec![step]).await.unwrap();
        let mut watch = store.watch(&key, Revision(2)).await.unwrap();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(store.get(&key).await.unwrap().is_some());
        let began = Instant::now();
        watch.next().await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert_eq!(store.get(&key).await.unwrap(), None);
    }
}
