//! The operations: in which order records are read, rules are asked, and records and images changed.
//!
//! Owns [`App`], what all operations share. One file per resource; each function bears the name of
//! the route's operation. Called by `http` and `background`. What is allowed is decided in
//! `volcore`; nothing here knows of HTTP.

pub mod doctor;
pub mod fencing;
pub mod global;
pub mod hosts;
pub mod mounts;
pub mod orders;
pub mod presence;
pub mod schedules;
pub mod snapshots;
pub mod status;
pub mod tenants;
pub mod trash;
pub mod volumes;

mod copying;
mod held;
mod lists;
mod loops;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use volcore::Kind;
use volcore::claim::Claim;
use volcore::name::{PoolName, VolumeId};
use volcore::policy::Tenant;
use volcore::snapshot::SnapshotLog;
use volcore::volume::Volume;
use volstorage::image::ImageDriver;
use volstore::cache::{Freshness, Mirror};
use volstore::keys::Keys;
use volstore::records::{LeasedOrder, Records, Trash};
use volstore::store::{Entry, Key, Revision, Store, StoreError};

pub use held::{Held, InHand};
pub use lists::{ListAsk, ListError, Slice};
pub use loops::{LoopName, Loops};

/// How long a list waits for its mirror to see what the store has.
const MIRROR_BOUND: Duration = Duration::from_secs(5);

/// Where the time of day comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What an [`App`] stands on.
pub struct Ground {
    /// The metadata store.
    pub store: Arc<dyn Store>,
    /// Where the keys begin.
    pub keys: Keys,
    /// The images.
    pub images: Arc<dyn ImageDriver>,
    /// The pool of volumes whose policy names none.
    pub default_pool: PoolName,
    /// The time of day.
    pub clock: Clock,
}

/// What all operations share. Stateless but for caches: any number of them may work on one store.
pub struct App {
    pub(crate) records: Records,
    pub(crate) images: Arc<dyn ImageDriver>,
    pub(crate) default_pool: PoolName,
    pub(crate) mirrors: Mirrors,
    pub(crate) in_hand: InHand,
    pub(crate) presence: presence::Presence,
    pub(crate) fencing: fencing::Turns,
    pub(crate) copying: copying::Copying,
    pub(crate) loops: Loops,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    clock: Clock,
}

/// The watched copies that lists are served from.
pub(crate) struct Mirrors {
    pub(crate) tenants: Mirror<Tenant>,
    pub(crate) volumes: Mirror<Volume>,
    pub(crate) mounts: Mirror<Claim>,
    pub(crate) trash: Mirror<Trash>,
    pub(crate) logs: Mirror<SnapshotLog>,
    pub(crate) orders: Mirror<LeasedOrder>,
}

impl Mirrors {
    fn spawn(store: &Arc<dyn Store>, keys: &Keys) -> Self {
        fn mirror<T: Send + Sync + 'static>(
            store: &Arc<dyn Store>,
            keys: &Keys,
            prefix: Key,
            read: fn(&Keys, &Entry) -> Result<T, StoreError>,
        ) -> Mirror<T> {
            let own = keys.clone();
            Mirror::spawn(store.clone(), keys, prefix, move |entry| read(&own, entry))
        }
        Mirrors {
            tenants: mirror(store, keys, keys.tenants(), Records::read_tenant),
            volumes: mirror(store, keys, keys.volumes(), Records::read_volume),
            mounts: mirror(store, keys, keys.mounts(), Records::read_claim),
            trash: mirror(store, keys, keys.trash_all(), Records::read_trash),
            logs: mirror(store, keys, keys.snapshots_all(), Records::read_snapshot_log),
            orders: mirror(store, keys, keys.orders(), Records::read_order),
        }
    }
}

impl App {
    /// An app without background work (see `background::start`). Must be called within a runtime.
    pub fn new(ground: Ground) -> Arc<App> {
        let Ground { store, keys, images, default_pool, clock } = ground;
        Arc::new(App {
            mirrors: Mirrors::spawn(&store, &keys),
            records: Records::new(store, keys),
            images,
            default_pool,
            in_hand: InHand::default(),
            presence: presence::Presence::default(),
            fencing: fencing::Turns::default(),
            copying: copying::Copying::default(),
            loops: Loops::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            clock,
        })
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Runs work that goes on when nobody waits for it any more, and that a shutdown waits for.
    pub async fn detached<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, LostTask> {
        self.tasks.spawn(work).await.map_err(LostTask)
    }

    /// Tells the background work to stop, and waits for it and for all detached work, at most so long;
    /// whether all of it ended.
    pub async fn shutdown(&self, bound: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(bound, self.tasks.wait()).await.is_ok()
    }

    /// Waits until a volume's record is no longer the one of revision `at`, at most so long. It may
    /// return early: the caller reads the record again.
    pub(crate) async fn volume_changed(&self, id: &VolumeId, at: Revision, bound: Duration) {
        changed(&self.mirrors.volumes, &self.records.keys().volume(id), at, bound).await;
    }

    /// The same for the claim on a volume.
    pub(crate) async fn claim_changed(&self, id: &VolumeId, at: Revision, bound: Duration) {
        changed(&self.mirrors.mounts, &self.records.keys().mount(id), at, bound).await;
    }
}

/// Waits until the record at a key is no longer the one of revision `at`, at most so long.
async fn changed<T: Send + Sync + 'static>(
    mirror: &Mirror<T>,
    key: &Key,
    at: Revision,
    bound: Duration,
) {
    let watch = async {
        loop {
            let seen = mirror.revision();
            let shown = mirror.get(key).map(|kept| kept.revision);
            if seen > at && shown != Some(at) {
                return;
            }
            mirror.at_least(Revision(seen.0 + 1), bound).await;
        }
    };
    // Cancel-safe: the mirror is only looked at. Out of time is no error.
    tokio::time::timeout(bound, watch).await.unwrap_or_default();
}

/// Makes sure that mirrors show what was acknowledged before, by whichever volmaster.
pub(crate) async fn catch_up<A: Send + Sync + 'static, B: Send + Sync + 'static>(
    app: &App,
    first: &Mirror<A>,
    second: Option<&Mirror<B>>,
) -> Result<(), ListError> {
    let wanted = app.records.store().revision().await?;
    let mut behind = first.catch_up(wanted, MIRROR_BOUND).await;
    if let (Freshness::Current, Some(second)) = (behind, second) {
        behind = second.catch_up(wanted, MIRROR_BOUND).await;
    }
    match behind {
        Freshness::Current => Ok(()),
        Freshness::Behind { seen, wanted } => {
            Err(ListError::Behind { store: app.records.store().describe(), seen, wanted })
        }
    }
}

/// Work that did not come to an end: it panicked, or the process is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the work on this request was cut short")]
pub struct LostTask(#[source] JoinError);

/// An error that says of which kind it is.
pub trait Failing: std::error::Error + 'static {
    /// The kind, which decides status, code and retry.
    fn kind(&self) -> Kind;
}

impl Failing for LostTask {
    fn kind(&self) -> Kind {
        Kind::Internal
    }
}

/// The kind of a store's error. "It may have happened" is `unavailable` too: asking again finds out.
pub(crate) fn store_kind(error: &StoreError) -> Kind {
    match error {
        StoreError::Unavailable { .. }
        | StoreError::Unknown { .. }
        | StoreError::Compacted { .. }
        | StoreError::LeaseEnded { .. } => Kind::Unavailable,
        StoreError::Refused { .. } | StoreError::Corrupt { .. } => Kind::Internal,
    }
}

impl Failing for StoreError {
    fn kind(&self) -> Kind {
        store_kind(self)
    }
}
