//! What the in-process stores share: locks, watches, the end of leases.
//!
//! A [`Local`] is an engine behind a log. Every write is planned, logged and applied
//! under the log's lock, in one synchronous call, so that a caller who goes away
//! changes nothing. Used by `memory` (no log) and `embedded` (a file). Never sees a key's meaning.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::engine::{Engine, Image, Plan, Verdict};
use crate::limits;
use crate::store::{
    Cause, Change, Commit, Key, LeaseId, Page, Renewal, Revision, Step, StoreError, Watch, WatchEnd,
};

/// How many changes a watch sends at once, whole revisions aside.
const BATCH: usize = 256;
/// How long a failure to end leases waits.
const RETRY: Duration = Duration::from_secs(1);
/// How many batches wait in a watch before it reads on.
const BATCHES: usize = 8;

/// Why a log did not take a plan.
pub(crate) enum LogError {
    /// The plan is certainly not in the log.
    NotWritten(Cause),
    /// It may or may not be.
    Unknown(Cause),
}

/// Where plans are made durable before they are applied.
pub(crate) trait Log: Send + 'static {
    /// Whether writing can take long enough to need a thread of its own.
    const BLOCKS: bool;

    /// Makes a plan durable.
    fn write(&mut self, plan: &Plan) -> Result<(), LogError>;

    /// Everything as the log has it, after a write whose outcome is unknown.
    fn reload(&mut self) -> Result<Image, Cause>;
}

/// The newest revision, and how often all watches were cut.
#[derive(Clone, Copy)]
struct Tick {
    revision: u64,
    cuts: u64,
}

/// An engine behind a log.
pub(crate) struct Local<L> {
    name: String,
    log: Mutex<L>,
    engine: RwLock<Engine>,
    /// Set while nobody knows whether the log holds more than the engine.
    adrift: AtomicBool,
    ticks: watch::Sender<Tick>,
    /// Told when a lease begins.
    leases: Arc<Notify>,
    reaper: Mutex<Option<AbortHandle>>,
}

impl<L: Log> Local<L> {
    /// Must be called within a runtime when the image has leases, which end from now on.
    pub(crate) fn new(name: String, log: L, image: Image) -> Arc<Self> {
        let has_leases = !image.leases.is_empty();
        let tick = Tick { revision: image.revision, cuts: 0 };
        let local = Arc::new(Local {
            name,
            log: Mutex::new(log),
            engine: RwLock::new(Engine::new(image, Instant::now())),
            adrift: AtomicBool::new(false),
            ticks: watch::Sender::new(tick),
            leases: Arc::default(),
            reaper: Mutex::default(),
        });
        if has_leases {
            local.start_reaper();
        }
        local
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a write where it may block.
    pub(crate) async fn run<R: Send + 'static>(
        self: &Arc<Self>,
        write: impl FnOnce(&Arc<Self>) -> R + Send + 'static,
    ) -> R {
        if !L::BLOCKS {
            return write(self);
        }
        let this = self.clone();
        match tokio::task::spawn_blocking(move || write(&this)).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // A runtime that shuts down cancels what has not begun, and polls nobody again.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Reads the log again after a failure, so that readers need not wait for the next writer.
    pub(crate) async fn settle(self: &Arc<Self>) -> Result<(), StoreError> {
        if !self.adrift.load(Ordering::Acquire) {
            return Ok(());
        }
        self.run(|local| local.writable("read it again").map(drop)).await
    }

    // Reads.

    /// The state; an error while the log may hold more than it.
    pub(crate) fn read(
        &self,
        action: impl FnOnce() -> String,
    ) -> Result<RwLockReadGuard<'_, Engine>, StoreError> {
        if self.adrift.load(Ordering::Acquire) {
            return Err(self.unavailable(action(), Box::new(Adrift)));
        }
        Ok(self.state())
    }

    pub(crate) fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let action = || format!("list {prefix}");
        let engine = self.read(action)?;
        let at = at.map_or(engine.revision(), |at| at.0);
        if at > engine.revision() {
            let reason = format!("revision {at} has not come yet");
            return Err(StoreError::Refused { store: self.name.clone(), action: action(), reason });
        }
        let compacted = || StoreError::Compacted { store: self.name.clone(), at: Revision(at) };
        engine.list(prefix, after, limit, at).ok_or_else(compacted)
    }

    // Writes: synchronous, under the log's lock.

    pub(crate) fn commit(&self, steps: &[Step]) -> Result<Commit, StoreError> {
        let action = limits::action(steps);
        if let Some(reason) = limits::refusal(steps) {
            return Err(StoreError::Refused { store: self.name.clone(), action, reason });
        }
        let mut log = self.writable(&action)?;
        self.end_overdue(&mut log)?;
        let verdict = self.state().plan(steps);
        match verdict {
            Verdict::Write(plan) => {
                let revision = Revision(plan.revision);
                self.write(&mut log, plan, action)?;
                Ok(Commit::Done(revision))
            }
            Verdict::Holds => Ok(Commit::Done(Revision(self.state().revision()))),
            Verdict::Conflict => Ok(Commit::Conflict),
            Verdict::LeaseEnded(lease) => {
                Err(StoreError::LeaseEnded { store: self.name.clone(), lease })
            }
        }
    }

    pub(crate) fn grant(self: &Arc<Self>, ttl: Duration) -> Result<LeaseId, StoreError> {
        let action = "take a lease".to_owned();
        let mut log = self.writable(&action)?;
        let ttl = Duration::from_secs(limits::ttl_seconds(ttl));
        let id = LeaseId(new_lease_id());
        let plan = self.state().plan_grant(id, ttl);
        self.write(&mut log, plan, action)?;
        self.start_reaper();
        Ok(id)
    }

    pub(crate) fn renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        let mut log = self.writable("renew a lease")?;
        self.end_overdue(&mut log)?;
        let there = self.state_mut().renew(lease, Instant::now());
        Ok(if there { Renewal::Renewed } else { Renewal::Ended })
    }

    pub(crate) fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let action = "end a lease".to_owned();
        let mut log = self.writable(&action)?;
        let plan = self.state().plan_end(lease);
        plan.map_or(Ok(()), |plan| self.write(&mut log, plan, action))
    }

    fn end_overdue(&self, log: &mut L) -> Result<(), StoreError> {
        let overdue = self.state().overdue(Instant::now());
        for lease in overdue {
            let plan = self.state().plan_end(lease);
            if let Some(plan) = plan {
                self.write(log, plan, "end a lease".to_owned())?;
            }
        }
        Ok(())
    }

    /// The log, after the state was read again if it was adrift.
    fn writable(&self, action: &str) -> Result<MutexGuard<'_, L>, StoreError> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if self.adrift.load(Ordering::Acquire) {
            self.reload(&mut log).map_err(|cause| self.unavailable(action.to_owned(), cause))?;
        }
        Ok(log)
    }

    fn write(&self, log: &mut L, plan: Plan, action: String) -> Result<(), StoreError> {
        let written = log.write(&plan);
        let cause = match written {
            Ok(()) => {
                self.apply(plan);
                return Ok(());
            }
            Err(LogError::NotWritten(cause)) => return Err(self.unavailable(action, cause)),
            Err(LogError::Unknown(cause)) => cause,
        };
        // Until the log has been read again, the engine must not answer for it.
        self.adrift.store(true, Ordering::Release);
        let wanted = plan.revision;
        let moved = !plan.deltas.is_empty();
        match self.reload(log) {
            Ok(()) if moved && self.state().revision() >= wanted => Ok(()),
            Ok(()) => Err(self.unavailable(action, cause)),
            Err(_) => Err(StoreError::Unknown { store: self.name.clone(), action, source: cause }),
        }
    }

    /// Takes the state from the log. Watches that missed something will see it as compacted.
    fn reload(&self, log: &mut L) -> Result<(), Cause> {
        let image = log.reload()?;
        let engine = Engine::new(image, Instant::now());
        *self.state_mut() = engine;
        self.adrift.store(false, Ordering::Release);
        self.announce();
        Ok(())
    }

    fn apply(&self, plan: Plan) {
        self.state_mut().apply(plan, Instant::now());
        self.announce();
    }

    fn announce(&self) {
        let revision = self.state().revision();
        self.ticks.send_modify(|tick| tick.revision = revision);
    }

    fn state(&self) -> RwLockReadGuard<'_, Engine> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, Engine> {
        self.engine.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a request that certainly did nothing.
    pub(crate) fn unavailable(&self, action: String, source: Cause) -> StoreError {
        StoreError::Unavailable { store: self.name.clone(), action, source }
    }

    // Watches.

    /// Ends all watches as if the connection had broken.
    pub(crate) fn cut_watches(&self) {
        self.ticks.send_modify(|tick| tick.cuts += 1);
    }

    /// Forgets the changes before `revision`.
    pub(crate) fn compact(&self, revision: Revision) {
        self.state_mut().compact(revision.0);
    }

    /// Starts a watch. It reads from the history at its own pace; one that is too slow ends as compacted.
    pub(crate) fn watch(self: &Arc<Self>, prefix: &Key, from: Revision) -> Watch {
        let (sender, changes) = mpsc::channel(BATCHES);
        let feed = Feed {
            store: Arc::downgrade(self),
            ticks: self.ticks.subscribe(),
            prefix: prefix.clone(),
            from: from.0.max(1),
            sender,
        };
        tokio::spawn(feed.run());
        Watch { changes }
    }

    /// One task per store ends leases: started with the first lease, stopped with the store.
    fn start_reaper(self: &Arc<Self>) {
        let mut reaper = self.reaper.lock().unwrap_or_else(PoisonError::into_inner);
        if reaper.is_none() {
            let task = tokio::spawn(reap(Arc::downgrade(self), self.leases.clone()));
            *reaper = Some(task.abort_handle());
        }
        self.leases.notify_one();
    }
}

impl<L> Drop for Local<L> {
    fn drop(&mut self) {
        let reaper = self.reaper.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = reaper.take() {
            task.abort();
        }
    }
}

/// Ends leases when their time is over. Holds the store only while it acts.
async fn reap<L: Log>(store: Weak<Local<L>>, granted: Arc<Notify>) {
    while let Some(deadline) = store.upgrade().map(|store| store.state().next_deadline()) {
        let time = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        // Both arms may be dropped at any time: the loop looks at the state again.
        tokio::select! {
            () = time => {}
            () = granted.notified() => continue,
        }
        let Some(store) = store.upgrade() else { return };
        let ended = store.run(|store| {
            store.writable("end leases").and_then(|mut log| store.end_overdue(&mut log))
        });
        if let Err(error) = ended.await {
            tracing::warn!(error = %crate::store::chain(&error), "leases that are over could not be ended");
            drop(store);
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// One running watch.
struct Feed<L> {
    store: Weak<Local<L>>,
    ticks: watch::Receiver<Tick>,
    prefix: Key,
    from: u64,
    sender: mpsc::Sender<Result<Vec<Change>, WatchEnd>>,
}

impl<L: Log> Feed<L> {
    async fn run(mut self) {
        let cuts = self.ticks.borrow().cuts;
        loop {
            let tick = *self.ticks.borrow_and_update();
            if tick.cuts != cuts {
                return self.end(WatchEnd::Cut(None)).await;
            }
            while self.from <= tick.revision {
                let Some(store) = self.store.upgrade() else { return };
                let since = store.state().since(&self.prefix, self.from, BATCH);
                drop(store);
                let Some((changes, next)) = since else {
                    return self.end(WatchEnd::Compacted(Revision(self.from))).await;
                };
                self.from = next;
                if !changes.is_empty() && self.sender.send(Ok(changes)).await.is_err() {
                    return;
                }
            }
            // Both arms are cancel-safe: the state is read again, a closed channel stays closed.
            tokio::select! {
                changed = self.ticks.changed() => if changed.is_err() {
                    return self.end(WatchEnd::Cut(None)).await;
                },
                () = self.sender.closed() => return,
            }
        }
    }

    async fn end(&self, end: WatchEnd) {
        // Nobody may be listening any more.
        let _gone = self.sender.send(Err(end)).await;
    }
}

/// A lease id that no other process has had: leases outlive processes.
fn new_lease_id() -> i64 {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    i64::try_from(random >> 1).unwrap_or(i64::MAX).max(1)
}

#[derive(Debug, thiserror::Error)]
#[error("a write failed, and the file could not be read again since")]
struct Adrift;
