//! The store for many machines: etcd 3.4 or newer, over its v3 API.
//!
//! Owns [`EtcdStore`]: several endpoints of one cluster, a deadline for every call,
//! retries of what may be repeated (reads, leases, commits that certainly never
//! arrived) on any endpoint that lives. Never resumes a watch by itself and never
//! repeats a commit in doubt (`commit::commit_certain` does).
//!
//! With every commit it writes one key more, `.head` below the prefix. The revision of
//! that key is what [`Store::revision`] answers: the newest commit of *ours*. etcd's own
//! revision also counts the writes of everyone else who uses the cluster, and a mirror
//! that waits for one of those would wait in vain. The key is never shown to callers.

mod calls;
mod endpoint;
mod failure;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp};

use crate::keys::Keys;
use crate::limits;
use crate::store::{
    Commit, Entry, Expect, Key, LeaseId, Page, Renewal, Revision, Step, Store, StoreError, Watch,
};
use calls::{Calls, Mode};
pub use endpoint::{EndpointUrl, EndpointUrlError};
use failure::Failure;

/// The most entries asked for in one message.
const PAGE: usize = 1000;

/// Where etcd is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    endpoints: Vec<String>,
    root: Key,
    read_deadline: Duration,
    commit_deadline: Duration,
    probe: (Duration, Duration),
}

impl EtcdOptions {
    /// The client URLs of one cluster, and the keys that are ours.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>, keys: &Keys) -> Self {
        EtcdOptions {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            root: keys.root(),
            read_deadline: Duration::from_secs(2),
            commit_deadline: Duration::from_secs(5),
            probe: (Duration::from_secs(10), Duration::from_secs(5)),
        }
    }

    /// How long a read may take, retries included. Two seconds unless set.
    pub fn read_deadline(mut self, deadline: Duration) -> Self {
        self.read_deadline = deadline;
        self
    }

    /// How long a write may take. Five seconds unless set.
    pub fn commit_deadline(mut self, deadline: Duration) -> Self {
        self.commit_deadline = deadline;
        self
    }

    /// How often a connection in use is probed, and how long the answer may take: so long a watch
    /// may hang on a peer that is gone without a word. Ten and five seconds unless set; by default
    /// etcd throws out clients who probe more often than every five seconds.
    pub fn probe(mut self, every: Duration, answer: Duration) -> Self {
        self.probe = (every, answer);
        self
    }
}

/// Why there can be no store with these options.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// No endpoint was given.
    #[error("no etcd endpoint is given")]
    NoEndpoint,
    /// An endpoint is not a URL.
    #[error("{url:?} is not the url of an etcd endpoint")]
    BadEndpoint {
        /// What was given.
        url: String,
        /// Why not.
        #[source]
        source: etcd_client::Error,
    },
}

/// A store in etcd.
pub struct EtcdStore {
    calls: Calls,
    head: Key,
    name: String,
}

impl EtcdStore {
    /// A store at these endpoints. Contacts none of them: whether one is there shows at the first call.
    pub async fn new(options: EtcdOptions) -> Result<Self, OptionsError> {
        let name = format!("etcd at {}", options.endpoints.join(", "));
        let head = Keys::head(&options.root);
        Ok(EtcdStore { calls: Calls::new(options).await?, head, name })
    }

    fn failed(&self, action: impl FnOnce() -> String, failure: Failure) -> StoreError {
        let store = self.name.clone();
        let action = action();
        match failure {
            Failure::NotDone(cause) => {
                StoreError::Unavailable { store, action, source: cause.into() }
            }
            Failure::InDoubt(cause) => StoreError::Unknown { store, action, source: cause.into() },
            Failure::Refused(reason) => StoreError::Refused { store, action, reason },
            // The callers who can meet these look at them first.
            Failure::TooLarge | Failure::Compacted | Failure::NoLease => {
                StoreError::Refused { store, action, reason: format!("{failure:?}") }
            }
        }
    }

    /// One request for a page; halves what it asks for until the answer fits into a message.
    async fn range(&self, ask: &Range<'_>) -> Result<etcd_client::GetResponse, StoreError> {
        let mut limit = ask.limit;
        loop {
            let options = ask.options(limit);
            let call = |endpoint: &calls::Endpoint| {
                let mut kv = endpoint.kv();
                let (start, options) = (ask.start.clone(), options.clone());
                async move { kv.get(start, Some(options)).await }
            };
            match self.calls.run(Mode::Read, call).await {
                Err(Failure::TooLarge) if limit > 1 => limit /= 2,
                Err(Failure::Compacted) => {
                    let at = ask.at.unwrap_or(Revision(0));
                    return Err(StoreError::Compacted { store: self.name.clone(), at });
                }
                done => return done.map_err(|f| self.failed(|| format!("list {}", ask.prefix), f)),
            }
        }
    }

    /// What is ours to show: not the head, and not what someone else put here.
    fn entry(&self, kv: &KeyValue) -> Option<Entry> {
        entry(kv).filter(|entry| entry.key != self.head)
    }
}

/// A listing as etcd wants it.
struct Range<'a> {
    prefix: &'a Key,
    start: Vec<u8>,
    limit: usize,
    at: Option<Revision>,
}

impl Range<'_> {
    fn options(&self, limit: usize) -> GetOptions {
        let at = self.at.map_or(0, |at| signed(at.0));
        GetOptions::new()
            .with_range(end_of(self.prefix))
            .with_limit(signed(limit as u64))
            .with_revision(at)
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let call = |endpoint: &calls::Endpoint| {
            let mut kv = endpoint.kv();
            async move { kv.get(key.as_str(), None).await }
        };
        let found = self.calls.run(Mode::Read, call).await;
        let found = found.map_err(|f| self.failed(|| format!("read {key}"), f))?;
        Ok(found.kvs().first().and_then(entry))
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => just_after(after.as_str().as_bytes()),
            _ => prefix.as_str().into(),
        };
        let mut ask = Range { prefix, start, limit: limit.clamp(1, PAGE), at };
        loop {
            let answer = self.range(&ask).await?;
            let at = ask.at.unwrap_or_else(|| header_revision(answer.header()));
            let entries: Vec<Entry> = answer.kvs().iter().filter_map(|kv| self.entry(kv)).collect();
            match answer.kvs().last() {
                // A page with nothing to show would leave the caller without a place to go on from.
                Some(last) if entries.is_empty() && answer.more() => {
                    ask.start = just_after(last.key());
                    ask.at = Some(at);
                }
                _ => return Ok(Page { entries, more: answer.more(), at }),
            }
        }
    }

    async fn commit(&self, steps: Vec<Step>) -> Result<Commit, StoreError> {
        let action = || limits::action(&steps);
        if let Some(reason) = limits::refusal(&steps) {
            return Err(StoreError::Refused { store: self.name.clone(), action: action(), reason });
        }
        let txn = transaction(&steps, &self.head);
        let call = |endpoint: &calls::Endpoint| {
            let (mut kv, txn) = (endpoint.kv(), txn.clone());
            async move { kv.txn(txn).await }
        };
        match self.calls.run(Mode::Once, call).await {
            Ok(answer) if answer.succeeded() => Ok(Commit::Done(header_revision(answer.header()))),
            Ok(_) => Ok(Commit::Conflict),
            Err(Failure::NoLease) => Err(self.lease_ended(&steps)),
            Err(failure) => Err(self.failed(action, failure)),
        }
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        let call = |endpoint: &calls::Endpoint| {
            let mut kv = endpoint.kv();
            async move { kv.get(self.head.as_str(), Some(GetOptions::new().with_keys_only())).await }
        };
        let found = self.calls.run(Mode::Read, call).await;
        let found = found.map_err(|f| self.failed(|| "read the revision".to_owned(), f))?;
        // No head: nothing was ever committed here.
        Ok(found.kvs().first().map_or(Revision(0), |kv| revision(kv.mod_revision())))
    }

    async fn watch(&self, prefix: &Key, from: Revision) -> Result<Watch, StoreError> {
        let from = from.0.max(1);
        let call = |endpoint: &calls::Endpoint| watch::open(endpoint.watch(), prefix.clone(), from);
        let opened = self.calls.run(Mode::Read, call).await;
        let stream = opened.map_err(|f| self.failed(|| format!("watch {prefix}"), f))?;
        Ok(watch::forward(stream, from, self.head.clone()))
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = signed(limits::ttl_seconds(ttl));
        let call = |endpoint: &calls::Endpoint| {
            let mut lease = endpoint.lease();
            async move { lease.grant(seconds, None).await }
        };
        // Repeated when in doubt: a lease that nobody knows of ends by itself.
        let granted = self.calls.run(Mode::Repeatable, call).await;
        let granted = granted.map_err(|f| self.failed(|| "take a lease".to_owned(), f))?;
        Ok(LeaseId(granted.id()))
    }

    async fn lease_renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        let call = |endpoint: &calls::Endpoint| {
            let mut client = endpoint.lease();
            async move { client.keep_alive(lease.0).await }
        };
        match self.calls.run(Mode::Repeatable, call).await {
            Ok(_) => Ok(Renewal::Renewed),
            Err(Failure::NoLease) => Ok(Renewal::Ended),
            Err(failure) => Err(self.failed(|| "renew a lease".to_owned(), failure)),
        }
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let call = |endpoint: &calls::Endpoint| {
            let mut client = endpoint.lease();
            async move { client.revoke(lease.0).await }
        };
        match self.calls.run(Mode::Repeatable, call).await {
            Ok(_) | Err(Failure::NoLease) => Ok(()),
            Err(failure) => Err(self.failed(|| "end a lease".to_owned(), failure)),
        }
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

impl EtcdStore {
    /// etcd does not say which lease it misses; commits have one at most, in practice.
    fn lease_ended(&self, steps: &[Step]) -> StoreError {
        let lease_of = |step: &Step| match step {
            Step::Put { lease, .. } => *lease,
            Step::Delete { .. } | Step::Check { .. } => None,
        };
        let lease = steps.iter().find_map(lease_of).unwrap_or(LeaseId(0));
        StoreError::LeaseEnded { store: self.name.clone(), lease }
    }
}

/// All expectations as compares, all writes as operations, and the head.
fn transaction(steps: &[Step], head: &Key) -> Txn {
    let compares: Vec<Compare> = steps.iter().map(compare).collect();
    let mut operations: Vec<TxnOp> = steps.iter().filter_map(operation).collect();
    if !operations.is_empty() {
        operations.push(TxnOp::put(head.as_str(), "", None));
    }
    Txn::new().when(compares).and_then(operations)
}

fn compare(step: &Step) -> Compare {
    let key = limits::key_of(step).as_str();
    let at = |at: &Revision| Compare::mod_revision(key, CompareOp::Equal, signed(at.0));
    match step {
        Step::Put { expect, .. } | Step::Check { expect, .. } => match expect {
            Expect::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
            Expect::At(revision) => at(revision),
        },
        Step::Delete { at: revision, .. } => at(revision),
    }
}

fn operation(step: &Step) -> Option<TxnOp> {
    match step {
        Step::Put { key, value, lease, .. } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            Some(TxnOp::put(key.as_str(), value.as_slice(), options))
        }
        Step::Delete { key, .. } => Some(TxnOp::delete(key.as_str(), None)),
        Step::Check { .. } => None,
    }
}

fn entry(kv: &KeyValue) -> Option<Entry> {
    let Ok(key) = kv.key_str() else {
        tracing::warn!(key = %String::from_utf8_lossy(kv.key()), "a key that is no text is passed over");
        return None;
    };
    let revision = revision(kv.mod_revision());
    Some(Entry { key: Key(key.to_owned()), value: kv.value().to_vec(), revision })
}

fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> Revision {
    revision(header.map_or(0, etcd_client::ResponseHeader::revision))
}

/// etcd counts with signed numbers, which are never negative.
fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The first key behind all that start with the prefix. Prefixes are text, so a last byte of 0xff cannot be.
fn end_of(prefix: &Key) -> Vec<u8> {
    let mut end = prefix.as_str().as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn just_after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}
