//! The state of the in-process stores: entries, a bounded history, leases.
//!
//! Synchronous and without a clock: a write is planned ([`Engine::plan`]), made durable
//! by whoever keeps the log, and then applied ([`Engine::apply`]); `now` is an argument.
//! Called by `local` only. Never blocks, never talks to anyone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::key_of;
use crate::store::{Change, Entry, Expect, Key, LeaseId, Page, Revision, Step};

/// How much of the past is kept for watches and for pages of an older revision.
const HISTORY_REVISIONS: usize = 10_000;
/// As above, in bytes of keys and values.
const HISTORY_BYTES: usize = 32 << 20;

/// One stored value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// What was written.
    pub(crate) value: Arc<[u8]>,
    /// When.
    pub(crate) revision: u64,
    /// The lease it hangs on.
    pub(crate) lease: Option<LeaseId>,
}

/// One key before and after a commit.
#[derive(Clone, Debug)]
pub(crate) struct Delta {
    /// Which.
    pub(crate) key: Key,
    /// What it held before.
    pub(crate) old: Option<Slot>,
    /// What it holds from then on.
    pub(crate) new: Option<Slot>,
}

/// What a commit does to a lease itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LeaseChange {
    /// It begins.
    Granted(LeaseId, Duration),
    /// It is over.
    Ended(LeaseId),
}

/// A write that was checked and waits to be made durable and applied.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The store's revision afterwards; unchanged where no key is touched.
    pub(crate) revision: u64,
    /// The keys it touches.
    pub(crate) deltas: Vec<Delta>,
    /// The lease that begins or ends with it.
    pub(crate) lease: Option<LeaseChange>,
}

/// What becomes of some steps.
pub(crate) enum Verdict {
    /// They can be done.
    Write(Plan),
    /// They only check, and everything holds.
    Holds,
    /// Something does not hold.
    Conflict,
    /// A put names a lease that is not there.
    LeaseEnded(LeaseId),
}

/// Everything that a log gives back when it is opened.
#[derive(Default)]
pub(crate) struct Image {
    /// The revision of the last commit.
    pub(crate) revision: u64,
    /// What is stored.
    pub(crate) entries: BTreeMap<Key, Slot>,
    /// The leases with their times to live.
    pub(crate) leases: Vec<(LeaseId, Duration)>,
}

struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Key>,
}

/// The state. Revisions grow by exactly one, so the history needs no index.
pub(crate) struct Engine {
    entries: BTreeMap<Key, Slot>,
    revision: u64,
    /// The last commits, one per revision, up to `revision`.
    history: VecDeque<Plan>,
    history_bytes: usize,
    leases: BTreeMap<i64, Lease>,
}

impl Engine {
    /// The state as a log gave it back; every lease has its whole time from `now` on.
    pub(crate) fn new(image: Image, now: Instant) -> Self {
        let fresh = |(id, ttl): (LeaseId, Duration)| {
            (id.0, Lease { ttl, deadline: now + ttl, keys: BTreeSet::new() })
        };
        let mut leases: BTreeMap<i64, Lease> = image.leases.into_iter().map(fresh).collect();
        for (key, slot) in &image.entries {
            if let Some(lease) = slot.lease.and_then(|id| leases.get_mut(&id.0)) {
                lease.keys.insert(key.clone());
            }
        }
        Engine {
            entries: image.entries,
            revision: image.revision,
            history: VecDeque::new(),
            history_bytes: 0,
            leases,
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).map(|slot| entry(key, slot))
    }

    /// A page as of `at`; `None` when that revision is no longer kept. `at` has come.
    pub(crate) fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: u64,
    ) -> Option<Page> {
        let undone = self.undo(prefix, at)?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut now = self
            .entries
            .range::<Key, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.is_below(prefix))
            .filter(|(key, _)| !undone.contains_key(*key))
            .peekable();
        let mut then = undone
            .range::<Key, _>((start, Bound::Unbounded))
            .filter_map(|(key, slot)| slot.map(|slot| (*key, slot)))
            .peekable();
        let merged = std::iter::from_fn(|| match (now.peek(), then.peek()) {
            (Some((a, _)), Some((b, _))) if a < b => now.next(),
            (Some(_), None) => now.next(),
            _ => then.next(),
        });
        let limit = limit.max(1);
        let mut entries: Vec<Entry> =
            merged.take(limit.saturating_add(1)).map(|(key, slot)| entry(key, slot)).collect();
        let more = entries.len() > limit;
        entries.truncate(limit);
        Some(Page { entries, more, at: Revision(at) })
    }

    /// What the keys that changed after `at` held then.
    fn undo(&self, prefix: &Key, at: u64) -> Option<BTreeMap<&Key, Option<&Slot>>> {
        let mut undone = BTreeMap::new();
        if at == self.revision {
            return Some(undone);
        }
        let newer = self.history.range(self.index_of(at + 1)?..);
        for delta in newer.rev().flat_map(|plan| &plan.deltas) {
            if delta.key.is_below(prefix) {
                undone.insert(&delta.key, delta.old.as_ref());
            }
        }
        Some(undone)
    }

    /// Where in the history a revision stands; `None` when it is no longer kept.
    fn index_of(&self, revision: u64) -> Option<usize> {
        let oldest = self.revision + 1 - self.history.len() as u64;
        let index = revision.checked_sub(oldest)?;
        Some(usize::try_from(index).unwrap_or(usize::MAX).min(self.history.len()))
    }

    /// Changes below `prefix` from `from` on, whole revisions, at least `enough` of them if there
    /// are, and the revision to go on from. `None` when `from` is no longer kept.
    pub(crate) fn since(
        &self,
        prefix: &Key,
        from: u64,
        enough: usize,
    ) -> Option<(Vec<Change>, u64)> {
        let mut changes = Vec::new();
        let mut next = from;
        for plan in self.history.range(self.index_of(from)?..) {
            changes.extend(
                plan.deltas.iter().filter(|d| d.key.is_below(prefix)).map(|d| change(plan, d)),
            );
            next = plan.revision + 1;
            if changes.len() >= enough {
                break;
            }
        }
        Some((changes, next))
    }

    /// Checks the steps against the state, and says what is to be written.
    pub(crate) fn plan(&self, steps: &[Step]) -> Verdict {
        if !steps.iter().all(|step| self.holds(step)) {
            return Verdict::Conflict;
        }
        let revision = self.revision + 1;
        let mut deltas = Vec::new();
        for step in steps {
            let new = match step {
                Step::Check { .. } => continue,
                Step::Delete { .. } => None,
                Step::Put { lease: Some(lease), .. } if !self.leases.contains_key(&lease.0) => {
                    return Verdict::LeaseEnded(*lease);
                }
                Step::Put { value, lease, .. } => {
                    Some(Slot { value: value.as_slice().into(), revision, lease: *lease })
                }
            };
            let key = key_of(step).clone();
            deltas.push(Delta { old: self.entries.get(&key).cloned(), key, new });
        }
        if deltas.is_empty() {
            return Verdict::Holds;
        }
        Verdict::Write(Plan { revision, deltas, lease: None })
    }

    fn holds(&self, step: &Step) -> bool {
        let found = self.entries.get(key_of(step)).map(|slot| slot.revision);
        match step {
            Step::Put { expect, .. } | Step::Check { expect, .. } => match expect {
                Expect::Absent => found.is_none(),
                Expect::At(revision) => found == Some(revision.0),
            },
            Step::Delete { at, .. } => found == Some(at.0),
        }
    }

    /// A lease that begins.
    pub(crate) fn plan_grant(&self, id: LeaseId, ttl: Duration) -> Plan {
        let lease = Some(LeaseChange::Granted(id, ttl));
        Plan { revision: self.revision, deltas: Vec::new(), lease }
    }

    /// The end of a lease and of its keys; `None` when it is not there.
    pub(crate) fn plan_end(&self, id: LeaseId) -> Option<Plan> {
        let lease = self.leases.get(&id.0)?;
        let gone =
            |key: &Key| Delta { key: key.clone(), old: self.entries.get(key).cloned(), new: None };
        let deltas: Vec<Delta> = lease.keys.iter().map(gone).collect();
        let revision = self.revision + u64::from(!deltas.is_empty());
        Some(Plan { revision, deltas, lease: Some(LeaseChange::Ended(id)) })
    }

    /// The leases whose time is over.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<LeaseId> {
        let over = self.leases.iter().filter(|(_, lease)| lease.deadline <= now);
        over.map(|(id, _)| LeaseId(*id)).collect()
    }

    /// When the next lease ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.deadline).min()
    }

    /// Whether the lease was there to be renewed.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Instant) -> bool {
        let lease = self.leases.get_mut(&id.0);
        lease.map(|lease| lease.deadline = now + lease.ttl).is_some()
    }

    /// Makes a plan come true. It was made from this very state.
    pub(crate) fn apply(&mut self, plan: Plan, now: Instant) {
        for delta in &plan.deltas {
            self.hang(&delta.key, delta.old.as_ref(), delta.new.as_ref());
            match &delta.new {
                Some(slot) => self.entries.insert(delta.key.clone(), slot.clone()),
                None => self.entries.remove(&delta.key),
            };
        }
        match plan.lease {
            Some(LeaseChange::Granted(id, ttl)) => {
                let lease = Lease { ttl, deadline: now + ttl, keys: BTreeSet::new() };
                self.leases.insert(id.0, lease);
            }
            Some(LeaseChange::Ended(id)) => {
                self.leases.remove(&id.0);
            }
            None => {}
        }
        if plan.revision > self.revision {
            self.revision = plan.revision;
            self.history_bytes += bytes_of(&plan);
            self.history.push_back(plan);
            while self.history.len() > HISTORY_REVISIONS || self.history_bytes > HISTORY_BYTES {
                self.forget_oldest();
            }
        }
    }

    /// Moves a key from its old lease to its new one.
    fn hang(&mut self, key: &Key, old: Option<&Slot>, new: Option<&Slot>) {
        let lease_of = |slot: Option<&Slot>| slot.and_then(|slot| slot.lease);
        if let Some(lease) = lease_of(old).and_then(|id| self.leases.get_mut(&id.0)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = lease_of(new).and_then(|id| self.leases.get_mut(&id.0)) {
            lease.keys.insert(key.clone());
        }
    }

    /// Forgets the changes before `revision`.
    pub(crate) fn compact(&mut self, revision: u64) {
        while self.history.front().is_some_and(|plan| plan.revision < revision) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(plan) = self.history.pop_front() {
            self.history_bytes -= bytes_of(&plan);
        }
    }
}

fn bytes_of(plan: &Plan) -> usize {
    let slot = |slot: &Option<Slot>| slot.as_ref().map_or(0, |slot| slot.value.len());
    plan.deltas.iter().map(|d| 128 + d.key.as_str().len() + slot(&d.old) + slot(&d.new)).sum()
}

fn entry(key: &Key, slot: &Slot) -> Entry {
    Entry { key: key.clone(), value: slot.value.to_vec(), revision: Revision(slot.revision) }
}

fn change(plan: &Plan, delta: &Delta) -> Change {
    match &delta.new {
        Some(slot) => Change::Put(entry(&delta.key, slot)),
        None => Change::Deleted { key: delta.key.clone(), revision: Revision(plan.revision) },
    }
}
