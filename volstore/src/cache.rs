//! A mirror: the decoded records below a prefix, kept up to date by a watch.
//!
//! Lists, status and lookups by many are answered from here instead of from the store.
//! Called by whoever serves reads. Never writes, and never decides from what it holds:
//! a write must carry the revision it read as its precondition, so that a stale read
//! costs a conflict and nothing else.
//!
//! # Reading what others have written
//!
//! A list on replica B that begins after a commit was acknowledged on replica A must show
//! it. [`Mirror::sync`] asks the store for the revision of its newest commit (one small
//! read, 0.6 ms on etcd) and waits until the mirror has seen that revision. It will be
//! seen, because the mirror watches *all* keys of ours, not only its own prefix, and the
//! store counts only *our* commits (see `etcd`): nothing is waited for that never comes.
//! etcd's progress notifications would do without the wider watch, but before 3.4.25 and
//! 3.5.8 they overtake the events they vouch for
//! (<https://github.com/etcd-io/etcd/issues/15220>).

mod view;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::keys::Keys;
use crate::store::{Change, Entry, Key, Revision, Store, StoreError, WatchEnd, chain, list_all};
pub use view::{Broken, Kept, View};

/// The pause after the first failure; doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A watched copy of the records below a prefix. Dropping it ends the watch.
pub struct Mirror<T> {
    store: Arc<dyn Store>,
    shared: Arc<Shared<T>>,
    task: AbortHandle,
}

/// Whether a mirror shows what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Everything acknowledged before the call began is in the mirror.
    Current,
    /// Not within the bound: the store or the way to it is slow. What is shown may be older.
    Behind {
        /// What the mirror has seen.
        seen: Revision,
        /// What it should have.
        wanted: Revision,
    },
}

/// How a mirror does, for `/v1/status`.
#[derive(Clone, Debug)]
pub struct MirrorStatus {
    /// Whether it follows the store.
    pub health: Health,
    /// The newest revision it has seen, of any of our keys.
    pub revision: Revision,
    /// See [`View::generation`].
    pub generation: Revision,
    /// How many records it holds.
    pub records: usize,
    /// The records that this version cannot read. They are kept out.
    pub undecodable: BTreeMap<Key, Broken>,
    /// How often everything was listed, the first time included.
    pub lists: u64,
    /// How often the watch was cut off.
    pub cuts: u64,
}

/// Whether a mirror follows the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing was read yet: the mirror is empty because it knows nothing.
    Loading {
        /// The last failure, if there was one.
        error: Option<String>,
    },
    /// It follows.
    Live,
    /// It shows what it last saw, and tries to follow again.
    Stale {
        /// For how long.
        since: Duration,
        /// Why.
        error: String,
    },
}

struct Shared<T> {
    view: RwLock<View<T>>,
    seen: watch::Sender<Seen>,
    state: RwLock<State>,
}

/// What waiters wait for.
#[derive(Clone, Copy)]
struct Seen {
    loaded: bool,
    revision: Revision,
}

#[derive(Default)]
struct State {
    trouble: Option<(Instant, String)>,
    lists: u64,
    cuts: u64,
}

type Decode<T> = Box<dyn Fn(&Entry) -> Result<T, StoreError> + Send + Sync>;

impl<T: Send + Sync + 'static> Mirror<T> {
    /// Begins to mirror what is below `prefix`, which is one of `keys`. Returns at once;
    /// [`Mirror::loaded`] waits for the first list.
    pub fn spawn(
        store: Arc<dyn Store>,
        keys: &Keys,
        prefix: Key,
        decode: impl Fn(&Entry) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Self {
        let seen = Seen { loaded: false, revision: Revision(0) };
        let shared = Arc::new(Shared {
            view: RwLock::new(View::empty()),
            seen: watch::Sender::new(seen),
            state: RwLock::default(),
        });
        let follower = Follower {
            store: store.clone(),
            root: keys.root(),
            prefix,
            decode: Box::new(decode),
            shared: shared.clone(),
        };
        let task = tokio::spawn(follower.run()).abort_handle();
        Mirror { store, shared, task }
    }

    /// Looks at the records; quick, because changes wait meanwhile.
    pub fn read<R>(&self, look: impl FnOnce(&View<T>) -> R) -> R {
        look(&self.shared.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The record at a key.
    pub fn get(&self, key: &Key) -> Option<Kept<T>> {
        self.read(|view| view.get(key).cloned())
    }

    /// The newest revision seen, of any of our keys.
    pub fn revision(&self) -> Revision {
        self.shared.seen.borrow().revision
    }

    /// Waits until everything was listed once, at most for `bound`; whether it was.
    pub async fn loaded(&self, bound: Duration) -> bool {
        self.seen(bound, |seen| seen.loaded).await
    }

    /// Waits until this revision was seen, at most for `bound`; whether it was.
    pub async fn at_least(&self, revision: Revision, bound: Duration) -> bool {
        self.seen(bound, |seen| seen.loaded && seen.revision >= revision).await
    }

    /// Waits for a revision that the caller knows of (the answer to its own commit, or
    /// [`Store::revision`]), at most for `bound`.
    pub async fn catch_up(&self, wanted: Revision, bound: Duration) -> Freshness {
        if self.at_least(wanted, bound).await {
            Freshness::Current
        } else {
            Freshness::Behind { seen: self.revision(), wanted }
        }
    }

    /// Makes sure that what was acknowledged to anyone before this call is seen: asks the store
    /// for its newest revision and waits for it, at most for `bound`.
    pub async fn sync(&self, bound: Duration) -> Result<Freshness, StoreError> {
        let wanted = self.store.revision().await?;
        Ok(self.catch_up(wanted, bound).await)
    }

    /// Whether it follows the store at the moment, as far as is known.
    pub fn is_fresh(&self) -> bool {
        self.status().health == Health::Live
    }

    /// How it does.
    pub fn status(&self) -> MirrorStatus {
        let seen = *self.shared.seen.borrow();
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        let health = match (&state.trouble, seen.loaded) {
            (trouble, false) => {
                Health::Loading { error: trouble.as_ref().map(|(_, error)| error.clone()) }
            }
            (None, true) => Health::Live,
            (Some((since, error)), true) => {
                Health::Stale { since: since.elapsed(), error: error.clone() }
            }
        };
        self.read(|view| MirrorStatus {
            health,
            revision: seen.revision,
            generation: view.generation(),
            records: view.len(),
            undecodable: view.undecodable().clone(),
            lists: state.lists,
            cuts: state.cuts,
        })
    }

    async fn seen(&self, bound: Duration, enough: impl Fn(&Seen) -> bool) -> bool {
        let mut seen = self.shared.seen.subscribe();
        // Cancel-safe: nothing but a look.
        matches!(tokio::time::timeout(bound, seen.wait_for(|seen| enough(seen))).await, Ok(Ok(_)))
    }
}

impl<T> Drop for Mirror<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind a mirror.
struct Follower<T> {
    store: Arc<dyn Store>,
    root: Key,
    prefix: Key,
    decode: Decode<T>,
    shared: Arc<Shared<T>>,
}

/// Where to go on.
enum Next {
    /// With a list.
    List,
    /// With a watch from behind what was seen.
    Watch,
}

impl<T: Send + Sync + 'static> Follower<T> {
    async fn run(self) {
        let mut next = Next::List;
        let mut pause = PAUSE;
        loop {
            let Err(error) = self.turn(&mut next, &mut pause).await;
            self.trouble(error);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Lists if need be, and follows until the watch ends.
    async fn turn(&self, next: &mut Next, pause: &mut Duration) -> Result<Infallible, String> {
        if let Next::Watch = next
            && self.clock_went_back().await?
        {
            tracing::warn!(prefix = %self.prefix, "the store's revision went back: was it restored from a backup?");
            *next = Next::List;
        }
        if let Next::List = next {
            let listed = list_all(&*self.store, &self.prefix).await;
            let (entries, at) = listed.map_err(|error| chain(&error))?;
            self.replace(entries, at);
            *next = Next::Watch;
        }
        let from = Revision(self.shared.seen.borrow().revision.0 + 1);
        let watch = self.store.watch(&self.root, from).await;
        let mut watch = watch.map_err(|error| chain(&error))?;
        self.state(|state| state.trouble = None);
        let began = Instant::now();
        let end = loop {
            match watch.next().await {
                Ok(changes) => self.apply(&changes),
                Err(end) => break end,
            }
        };
        if began.elapsed() > LONGEST_PAUSE {
            *pause = PAUSE;
        }
        match end {
            WatchEnd::Compacted(_) => *next = Next::List,
            WatchEnd::Cut(_) => self.state(|state| state.cuts += 1),
        }
        Err(chain(&end))
    }

    /// A watch from a revision that has not come yet would miss what comes before it.
    async fn clock_went_back(&self) -> Result<bool, String> {
        let page = self.store.list(&self.prefix, None, 1, None).await;
        let at = page.map_err(|error| chain(&error))?.at;
        Ok(at < self.shared.seen.borrow().revision)
    }

    fn replace(&self, entries: Vec<Entry>, at: Revision) {
        let mut fresh = View::empty();
        for entry in entries {
            fresh.put(&entry, (self.decode)(&entry));
        }
        self.write(|view| view.replace(fresh, at));
        self.state(|state| state.lists += 1);
        self.shared.seen.send_replace(Seen { loaded: true, revision: at });
    }

    fn apply(&self, changes: &[Change]) {
        let mut last = None;
        let mut decoded = Vec::new();
        for change in changes {
            let (key, revision) = match change {
                Change::Put(entry) => (&entry.key, entry.revision),
                Change::Deleted { key, revision } => (key, *revision),
            };
            last = Some(revision);
            if key.is_below(&self.prefix) {
                let record = match change {
                    Change::Put(entry) => Some((entry, (self.decode)(entry))),
                    Change::Deleted { .. } => None,
                };
                decoded.push((key, revision, record));
            }
        }
        self.write(|view| {
            for (key, revision, record) in decoded {
                match record {
                    Some((entry, record)) => view.put(entry, record),
                    None => view.delete(key),
                }
                view.changed_at(revision);
            }
        });
        if let Some(revision) = last {
            self.shared.seen.send_modify(|seen| seen.revision = revision);
        }
    }

    fn trouble(&self, error: String) {
        tracing::warn!(prefix = %self.prefix, %error, "a mirror does not follow the store");
        self.state(|state| {
            let since = state.trouble.take().map_or_else(Instant::now, |(since, _)| since);
            state.trouble = Some((since, error));
        });
    }

    fn write(&self, change: impl FnOnce(&mut View<T>)) {
        change(&mut self.shared.view.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}
