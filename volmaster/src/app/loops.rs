//! What the background work has done, and how it is nudged.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;
use volapi::status::Loop;

/// The longest pause between two tries for one object.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// How many objects a reconciler works on at a time.
const AT_A_TIME: usize = 16;
/// How many images are flattened at a time: all their data is copied, beside the work of others.
const FLATTENINGS: usize = 2;

/// The reconcilers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopName {
    /// Finishes creating, changing and removing.
    Volumes,
    /// Drops what attempts to make images have left.
    Unfinished,
    /// Frees the space of what was removed.
    Trash,
    /// Flattens clones.
    Flattening,
    /// Finishes fencing, and ends it where nothing is left to be kept out.
    Fencing,
}

impl LoopName {
    /// All of them.
    pub const ALL: [LoopName; 5] = [
        LoopName::Volumes,
        LoopName::Unfinished,
        LoopName::Trash,
        LoopName::Flattening,
        LoopName::Fencing,
    ];

    /// As `/v1/status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            LoopName::Volumes => "volumes",
            LoopName::Unfinished => "unfinished",
            LoopName::Trash => "trash",
            LoopName::Flattening => "flattening",
            LoopName::Fencing => "fencing",
        }
    }
}

/// The state of the reconcilers: nothing in it has to survive.
#[derive(Debug)]
pub struct Loops {
    volumes: Cell,
    unfinished: Cell,
    trash: Cell,
    flattening: Cell,
    fencing: Cell,
}

impl Default for Loops {
    fn default() -> Self {
        Loops {
            volumes: Cell::new(AT_A_TIME),
            unfinished: Cell::new(AT_A_TIME),
            trash: Cell::new(AT_A_TIME),
            flattening: Cell::new(FLATTENINGS),
            fencing: Cell::new(AT_A_TIME),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Cell {
    /// Told when there is something to do.
    pub(crate) nudge: Notify,
    shown: Mutex<Shown>,
    retries: Mutex<HashMap<Uuid, Retry>>,
    running: Arc<Mutex<HashSet<Uuid>>>,
    places: Arc<Semaphore>,
}

impl Cell {
    fn new(places: usize) -> Self {
        Cell {
            nudge: Notify::new(),
            shown: Mutex::default(),
            retries: Mutex::default(),
            running: Arc::default(),
            places: Arc::new(Semaphore::new(places)),
        }
    }
}

/// The work on one object; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    object: Uuid,
    running: Arc<Mutex<HashSet<Uuid>>>,
    places: Arc<Semaphore>,
}

impl Running {
    /// Waits for a place among those who work. Nobody closes the semaphore, so there is always one.
    pub(crate) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.object);
    }
}

#[derive(Debug, Default)]
struct Shown {
    state: Loop,
    failures: u64,
}

/// What is known of an object that did not work out.
#[derive(Clone, Copy, Debug)]
struct Retry {
    failures: u32,
    not_before: Instant,
}

impl Loops {
    pub(crate) fn of(&self, name: LoopName) -> &Cell {
        match name {
            LoopName::Volumes => &self.volumes,
            LoopName::Unfinished => &self.unfinished,
            LoopName::Trash => &self.trash,
            LoopName::Flattening => &self.flattening,
            LoopName::Fencing => &self.fencing,
        }
    }

    /// Has a reconciler run soon.
    pub(crate) fn nudge(&self, name: LoopName) {
        self.of(name).nudge.notify_one();
    }

    /// What all of them have done, for `/v1/status`.
    pub fn shown(&self) -> Vec<Loop> {
        let shown = |name: LoopName| Loop {
            name: name.as_str().to_owned(),
            ..self.of(name).shown().state.clone()
        };
        LoopName::ALL.map(shown).to_vec()
    }

    /// How often each has run and failed, for the metrics.
    pub(crate) fn counts(&self) -> [(LoopName, u64, u64); 5] {
        LoopName::ALL.map(|name| {
            let shown = self.of(name).shown();
            (name, shown.state.runs, shown.failures)
        })
    }
}

impl Cell {
    /// Notes the end of a run; whether it failed as the last one did not.
    pub(crate) fn ran(&self, at: String, outcome: Result<Vec<String>, String>) -> bool {
        let mut shown = self.shown();
        let known = shown.state.last_error.clone();
        shown.state.runs += 1;
        shown.state.last_run = Some(at);
        match outcome {
            Ok(pending) => {
                shown.state.pending = pending;
                shown.state.last_error = None;
            }
            Err(error) => {
                shown.failures += 1;
                shown.state.last_error = Some(error);
            }
        }
        shown.state.last_error.is_some() && shown.state.last_error != known
    }

    /// Begins the work on an object; `None` where it is under way.
    pub(crate) fn begin(&self, object: Uuid) -> Option<Running> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(object).then(|| Running {
            object,
            running: self.running.clone(),
            places: self.places.clone(),
        })
    }

    /// Whether an object may be tried (again).
    pub(crate) fn is_due(&self, object: Uuid) -> bool {
        self.retries().get(&object).is_none_or(|retry| retry.not_before <= Instant::now())
    }

    /// Counts a failure, and puts the next try off.
    pub(crate) fn failed(&self, object: Uuid) {
        self.shown().failures += 1;
        self.put_off(object);
    }

    /// Puts the next try off: two seconds, then twice as long each time, up to a minute.
    pub(crate) fn put_off(&self, object: Uuid) {
        let mut retries = self.retries();
        let retry = retries.entry(object);
        let retry = retry.or_insert(Retry { failures: 0, not_before: Instant::now() });
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(retry.failures.min(5));
        retry.failures += 1;
        retry.not_before = Instant::now() + pause.min(LONGEST_PAUSE);
    }

    /// Forgets the failures of an object, so that it is tried again at once.
    pub(crate) fn again(&self, object: Uuid) {
        self.retries().remove(&object);
    }

    /// Forgets the failures of all objects but these.
    pub(crate) fn keep(&self, objects: &[Uuid]) {
        self.retries().retain(|object, _| objects.contains(object));
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retries(&self) -> MutexGuard<'_, HashMap<Uuid, Retry>> {
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
