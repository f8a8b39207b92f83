//! The [`Store`] trait: what every metadata store promises.
//!
//! Implementations: `etcd`, `embedded` (one redb file), `memory`. All pass one
//! contract suite (`volstore/tests/contract.rs`). Called through `Arc<dyn Store>`
//! by whoever keeps records. Knows nothing of what the values mean.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

/// A full key, prefix included, as it stands in the store. Built only in `keys`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub(crate) String);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this key lies below `prefix`, or is it.
    pub fn is_below(&self, prefix: &Key) -> bool {
        self.0.starts_with(&prefix.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The store's clock: grows with every commit that writes, never goes back.
/// Zero is before the first commit. Others may share the clock (etcd counts the
/// commits of all its users), so that two commits of ours are not always one apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// One stored value with the revision of its last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub key: Key,
    /// What was written.
    pub value: Vec<u8>,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// What must be true of a key when a commit happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last changed at this revision.
    At(Revision),
}

/// One step of a commit. Every write carries its precondition; a commit is all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write `value` at `key` if the expectation holds; with a lease, the key ends with it.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Vec<u8>,
        /// Under which condition.
        expect: Expect,
        /// The lease the key hangs on, if any.
        lease: Option<LeaseId>,
    },
    /// Delete `key`, which must be at this revision.
    Delete {
        /// Which.
        key: Key,
        /// Its revision as last read.
        at: Revision,
    },
    /// Write nothing; only require that the expectation holds.
    Check {
        /// Which.
        key: Key,
        /// What must hold.
        expect: Expect,
    },
}

/// The answer to a commit that reached the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// All steps are durable at this revision. Where no step writes: they held at this revision.
    Done(Revision),
    /// At least one expectation did not hold; nothing was written.
    Conflict,
}

/// A page of a listing, in key order.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// True when more entries follow the last one.
    pub more: bool,
    /// The revision as of which the page was read: pass it to the next page, or plus one to `watch`.
    pub at: Revision,
}

/// One change seen by a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key now has this value.
    Put(Entry),
    /// The key was deleted, or its lease ended, at this revision.
    Deleted {
        /// Which.
        key: Key,
        /// When.
        revision: Revision,
    },
}

/// Why a watch ended. It is never resumed by itself: the caller begins again.
#[derive(Debug, thiserror::Error)]
pub enum WatchEnd {
    /// The changes asked for are no longer kept (or too large to be sent in one message):
    /// list again, then watch from there. The revision is the one that was asked for.
    #[error("the changes from revision {} on are no longer kept", .0.0)]
    Compacted(Revision),
    /// The connection ended; watch again from the last revision seen plus one.
    #[error("the watch was cut off")]
    Cut(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
}

/// A running watch. Dropping it ends it.
pub struct Watch {
    pub(crate) changes: tokio::sync::mpsc::Receiver<Result<Vec<Change>, WatchEnd>>,
}

impl Watch {
    /// The next batch of changes, never empty: all of one or more whole revisions, in order;
    /// the last change has the highest revision. `Err` is the end.
    /// Cancel-safe: a batch is either returned or still there.
    pub async fn next(&mut self) -> Result<Vec<Change>, WatchEnd> {
        match self.changes.recv().await {
            Some(batch) => batch,
            None => Err(WatchEnd::Cut(None)),
        }
    }
}

/// A lease: keys hanging on it are deleted when it is not renewed in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// Whether a lease was still there to be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It lives for another TTL.
    Renewed,
    /// It had ended; its keys are gone.
    Ended,
}

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store could not be asked or did not answer in time. A read did nothing,
    /// a write with this error certainly did not happen.
    #[error("{store} is unavailable: could not {action}")]
    Unavailable {
        /// Which kind of store and where, e.g. `etcd at http://127.0.0.1:2379`.
        store: String,
        /// What was tried, e.g. `read /volplugin/volumes/t/v`.
        action: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// A write was sent and no answer came: it may or may not have happened. Read again
    /// (`commit::commit_certain` does).
    #[error("no answer from {store} to the request to {action}; it may have happened")]
    Unknown {
        /// Which kind of store and where.
        store: String,
        /// What was tried.
        action: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The request can never work: a value over the store's limit, too many steps.
    #[error("{store} refuses to {action}: {reason}")]
    Refused {
        /// Which kind of store and where.
        store: String,
        /// What was tried.
        action: String,
        /// Why not, in the store's words.
        reason: String,
    },
    /// The revision that a page was asked for is no longer kept: list from the start again.
    #[error("{store} no longer keeps revision {}", at.0)]
    Compacted {
        /// Which kind of store and where.
        store: String,
        /// The revision asked for.
        at: Revision,
    },
    /// A put names a lease that has ended. Nothing was written; take a new lease.
    #[error("{store} has no lease {:x}: it has ended", lease.0)]
    LeaseEnded {
        /// Which kind of store and where.
        store: String,
        /// Which.
        lease: LeaseId,
    },
    /// A stored record cannot be read by this version.
    #[error("the record at {key} cannot be read: {reason}")]
    Corrupt {
        /// Which.
        key: String,
        /// Why not.
        reason: String,
    },
}

/// An error with its causes, for a log line: the messages never contain their source.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The cause of an error, whatever its type.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A key-value store with revisions. Linearizable: a read sees every acknowledged commit.
///
/// Every call has a deadline of its own (seconds, set when the store is opened) and
/// may be dropped at any await; a dropped commit may still happen.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key. `None` only when the store said that it is absent.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;

    /// Reads entries whose key starts with `prefix`, in key order, after `after` if given,
    /// at most `limit` of them, but one at least (an implementation may return fewer, with `more` set),
    /// exactly as of revision `at` if given (so that pages fit together), else as of now.
    /// [`StoreError::Compacted`] when `at` is no longer kept, `Refused` when it has not come yet.
    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError>;

    /// Does all steps at one revision, or none. A key may appear in one step only;
    /// at most [`MAX_STEPS`] steps, [`MAX_VALUE`] bytes a value, [`MAX_COMMIT`] bytes in all,
    /// else `Refused` before anything is sent. Expectations are looked at before leases.
    /// Not idempotent by itself: after `Unknown`, read again (`commit::commit_certain`).
    async fn commit(&self, steps: Vec<Step>) -> Result<Commit, StoreError>;

    /// The revision of a commit that is not older than any acknowledged one, whoever made it.
    /// Cheap (one key is read). Not a place to watch from: take that from a page.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// Changes below `prefix` from revision `from` on (inclusive), without gaps; all that are
    /// kept when `from` is zero. A `from` that is no longer kept shows as [`WatchEnd::Compacted`].
    async fn watch(&self, prefix: &Key, from: Revision) -> Result<Watch, StoreError>;

    /// A new lease. `ttl` counts in whole seconds, rounded up, and at least [`MIN_TTL`].
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Renews a lease for its TTL.
    async fn lease_renew(&self, lease: LeaseId) -> Result<Renewal, StoreError>;

    /// Ends a lease and deletes its keys. Absent is success.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// What this store is, for messages and status: `etcd at http://…`, `embedded at /var/…`.
    fn describe(&self) -> String;
}

/// Reads everything below `prefix` as of one revision, page by page.
///
/// Begins again when the revision is compacted under its hands, at most three times.
pub async fn list_all(
    store: &dyn Store,
    prefix: &Key,
) -> Result<(Vec<Entry>, Revision), StoreError> {
    let mut tries = 3;
    loop {
        match list_once(store, prefix).await {
            Err(StoreError::Compacted { .. }) if tries > 1 => tries -= 1,
            done => return done,
        }
    }
}

async fn list_once(store: &dyn Store, prefix: &Key) -> Result<(Vec<Entry>, Revision), StoreError> {
    let mut all: Vec<Entry> = Vec::new();
    let mut at = None;
    loop {
        let after = all.last().map(|entry| &entry.key);
        let page = store.list(prefix, after, PAGE, at).await?;
        all.extend(page.entries);
        if !page.more {
            return Ok((all, page.at));
        }
        at = Some(page.at);
    }
}

/// How many entries `list_all` asks for at a time.
const PAGE: usize = 1000;
/// The largest number of steps in one commit. etcd's default limit is 128 operations;
/// the etcd store adds one of its own to every commit.
pub const MAX_STEPS: usize = 127;
/// The largest value in bytes.
pub const MAX_VALUE: usize = 1_400_000;
/// The largest commit in bytes, as `limits::weight` counts it (etcd's default limit is 1.5 MiB a request).
pub const MAX_COMMIT: usize = 1_500_000;
/// The shortest time to live of a lease (etcd's floor with its default timers).
pub const MIN_TTL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    /// What operators read: lower-case, without the source, which `chain` adds once.
    #[test]
    fn messages() {
        let (store, action) =
            ("etcd at http://a:2379".to_owned(), "read /volplugin/global".to_owned());
        let unavailable = StoreError::Unavailable { store, action, source: "refused".into() };
        let (store, action) = ("memory".to_owned(), "write /volplugin/global".to_owned());
        let unknown = StoreError::Unknown { store, action, source: "cut off".into() };
        let (store, action) = ("memory".to_owned(), "commit nothing".to_owned());
        let refused =
            StoreError::Refused { store, action, reason: "there are no steps".to_owned() };
        let compacted = StoreError::Compacted { store: "memory".to_owned(), at: Revision(7) };
        let lease = StoreError::LeaseEnded { store: "memory".to_owned(), lease: LeaseId(255) };
        let key = "/volplugin/global".to_owned();
        let corrupt = StoreError::Corrupt { key, reason: "no version".to_owned() };
        let all = [unavailable, unknown, refused, compacted, lease, corrupt];
        let lines: Vec<String> = all.iter().map(|error| chain(error)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        etcd at http://a:2379 is unavailable: could not read /volplugin/global: refused
        no answer from memory to the request to write /volplugin/global; it may have happened: cut off
        memory refuses to commit nothing: there are no steps
        memory no longer keeps revision 7
        memory has no lease ff: it has ended
        the record at /volplugin/global cannot be read: no version
        ");
    }
}
