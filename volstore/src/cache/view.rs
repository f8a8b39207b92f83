//! What a mirror shows at one moment.
//!
//! Changed by the mirror's task only; read by everyone under a short lock. Does no IO.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::store::{Entry, Key, Revision, StoreError};

/// A decoded record with the revision of its last change.
#[derive(Debug)]
pub struct Kept<T> {
    /// The commit that wrote it: the precondition of the next write.
    pub revision: Revision,
    /// What it says.
    pub record: Arc<T>,
}

// Not derived: the record itself need not be `Clone`.
impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Kept { revision: self.revision, record: self.record.clone() }
    }
}

/// The records below a prefix, in key order.
#[derive(Debug)]
pub struct View<T> {
    records: BTreeMap<Key, Kept<T>>,
    broken: BTreeMap<Key, Broken>,
    generation: Revision,
}

/// A record that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The commit that wrote it.
    pub revision: Revision,
    /// Why it cannot be read.
    pub reason: String,
}

impl<T> View<T> {
    pub(super) fn empty() -> Self {
        View { records: BTreeMap::new(), broken: BTreeMap::new(), generation: Revision(0) }
    }

    /// All records.
    pub fn records(&self) -> &BTreeMap<Key, Kept<T>> {
        &self.records
    }

    /// The record at a key.
    pub fn get(&self, key: &Key) -> Option<&Kept<T>> {
        self.records.get(key)
    }

    /// The records below a longer prefix, those after `after` only if it is given.
    pub fn below<'a>(
        &'a self,
        prefix: &'a Key,
        after: Option<&'a Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Kept<T>)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let from = self.records.range::<Key, _>((start, Bound::Unbounded));
        from.take_while(|(key, _)| key.is_below(prefix))
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Changes whenever something below the prefix does, for ETags: the records are those of this
    /// revision. Two mirrors may give the same records different generations, if one of them began
    /// later, but never different records the same one (unless the store itself was set back).
    pub fn generation(&self) -> Revision {
        self.generation
    }

    /// The records that cannot be read. They are in none of the other answers.
    pub fn undecodable(&self) -> &BTreeMap<Key, Broken> {
        &self.broken
    }

    pub(super) fn put(&mut self, entry: &Entry, record: Result<T, StoreError>) {
        self.delete(&entry.key);
        match record {
            Ok(record) => {
                let kept = Kept { revision: entry.revision, record: Arc::new(record) };
                self.records.insert(entry.key.clone(), kept);
            }
            Err(error) => {
                let reason = crate::store::chain(&error);
                tracing::warn!(key = %entry.key, %reason, "a record cannot be read and is kept out");
                let broken = Broken { revision: entry.revision, reason };
                self.broken.insert(entry.key.clone(), broken);
            }
        }
    }

    pub(super) fn delete(&mut self, key: &Key) {
        self.records.remove(key);
        self.broken.remove(key);
    }

    pub(super) fn changed_at(&mut self, revision: Revision) {
        self.generation = revision;
    }

    /// Takes the place of all that was, as listed at `at`. The generation moves only if something is
    /// different: deletions leave no trace in a list, so the newest entry would not tell.
    pub(super) fn replace(&mut self, fresh: View<T>, at: Revision) {
        let first = self.generation == Revision(0);
        let same = self.revisions().eq(fresh.revisions()) && self.broken == fresh.broken;
        let back = self.generation > at;
        let generation = if same && !first && !back { self.generation } else { at };
        *self = View { generation, ..fresh };
    }

    fn revisions(&self) -> impl Iterator<Item = (&Key, Revision)> {
        self.records.iter().map(|(key, kept)| (key, kept.revision))
    }
}
