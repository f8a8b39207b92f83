//! What an app stands on in these tests, and what is left on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use volcore::limit::RateLimits;
use volcore::name::VolumeId;
use volcore::options::OptionSet;
use volcore::volume::{ImageFit, ImageName, VolumeState};
use volmaster::app::tenants::tenant_upload;
use volmaster::app::{App, Ground, LoopName};
use volmaster::background::{self, Seen};
use volmaster::http::{Limits, router};
use volmaster::serve;
use volstorage::fake::image::FakeImages;
use volstorage::image::ImageDriver;
use volstore::keys::Keys;
use volstore::memory::MemoryStore;
use volstore::records::{Records, TrashKind};
use volstore::store::{Store, list_all};

use crate::client::Client;

/// The policy of the tenant `t`.
pub const POLICY: &str = r#"{"default-options": {"size": "10MB"}}"#;

/// A store and a cluster, both in memory, and a time of day that follows tokio's clock.
#[derive(Clone)]
pub struct Stage {
    pub store: MemoryStore,
    pub images: FakeImages,
    began: Instant,
    ahead: Arc<AtomicI64>,
    is_paused: bool,
}

impl Stage {
    /// Nothing but the pool `rbd`.
    pub fn bare() -> Stage {
        Stage {
            store: MemoryStore::new(),
            images: FakeImages::new(["rbd".parse().unwrap()]),
            began: Instant::now(),
            ahead: Arc::default(),
            is_paused: false,
        }
    }

    /// With the tenant `t`.
    pub async fn new() -> Stage {
        let stage = Stage::bare();
        let app = stage.app();
        let policy = serde_json::from_str(POLICY).unwrap();
        tenant_upload(&app, &"t".parse().unwrap(), policy).await.unwrap();
        stage
    }

    /// For tests in which tokio's clock stands until everybody waits.
    pub fn paused(self) -> Stage {
        Stage { is_paused: true, ..self }
    }

    /// One volmaster of any number.
    pub fn app(&self) -> Arc<App> {
        self.app_on(Arc::new(self.store.clone()), Arc::new(self.images.clone()))
    }

    pub fn app_on(&self, store: Arc<dyn Store>, images: Arc<dyn ImageDriver>) -> Arc<App> {
        let stage = self.clone();
        App::new(Ground {
            store,
            keys: Keys::default(),
            images,
            default_pool: "rbd".parse().unwrap(),
            clock: Arc::new(move || stage.now()),
        })
    }

    /// Its own time of day: two in the morning of the first day, and on.
    pub fn now(&self) -> Timestamp {
        let zero = Timestamp::from_second(7200).unwrap();
        let elapsed = SignedDuration::try_from(self.began.elapsed()).unwrap();
        zero + elapsed + SignedDuration::from_secs(self.ahead.load(Ordering::SeqCst))
    }

    /// Lets time pass for records, not for tokio.
    pub fn pass(&self, time: Duration) {
        let seconds = i64::try_from(time.as_secs()).unwrap();
        self.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Reads records past all faults.
    pub fn records(&self) -> Records {
        Records::new(Arc::new(self.store.clone()), Keys::default())
    }

    /// Runs all reconcilers until nothing is pending, for ten minutes at most.
    pub async fn settle(&self, app: &Arc<App>) {
        let mut seen = Seen::default();
        for _ in 0..120 {
            for name in LoopName::ALL {
                background::once(app, name, &mut seen).await.unwrap();
            }
            if self.pending().await.is_empty() {
                return;
            }
            if self.is_paused {
                tokio::time::sleep(Duration::from_secs(5)).await;
            } else {
                self.pass(Duration::from_secs(5));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("still pending: {:?}", self.pending().await);
    }

    /// What is neither done nor undone.
    async fn pending(&self) -> Vec<String> {
        let mut pending: Vec<String> = Vec::new();
        for key in self.keys("trash/").await {
            let found = self.records().trash(key.strip_prefix("trash/").unwrap()).await.unwrap();
            let kept = match found.unwrap().value.kind {
                TrashKind::Image { purge_after, purging, .. } => {
                    !purging && purge_after.is_none_or(|after| after > self.now())
                }
                TrashKind::Late { .. } => false,
            };
            if !kept {
                pending.push(key);
            }
        }
        for image in self.images.images(&"rbd".parse().unwrap()) {
            if image.name.starts_with(".new.") {
                pending.push(image.name);
            }
        }
        for key in self.keys("volumes/").await {
            let id: VolumeId = key.strip_prefix("volumes/").unwrap().parse().unwrap();
            let found = self.records().volume(&id).await.unwrap();
            let found = found.unwrap().value;
            let is_ready = matches!(found.state, VolumeState::Ready { fit: ImageFit::Fits, .. });
            if !is_ready || found.to_be_flattened().is_some() {
                pending.push(key);
            }
        }
        pending
    }

    /// The keys below a part of the prefix.
    pub async fn keys(&self, part: &str) -> Vec<String> {
        let (entries, _) = list_all(&self.store, &Keys::default().root()).await.unwrap();
        let name = |key: &str| key.strip_prefix("/volplugin/").unwrap().to_owned();
        let names = entries.iter().map(|entry| name(entry.key.as_str()));
        names.filter(|name| name.starts_with(part)).collect()
    }

    /// Everything that there is of volumes, but for the tenant: empty after the last one is gone.
    pub async fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for part in ["volumes/", "mounts/", "epochs/", "snapshots/", "trash/"] {
            left.extend(self.keys(part).await);
        }
        let pool = "rbd".parse().unwrap();
        left.extend(
            self.images.images(&pool).into_iter().map(|image| format!("image {}", image.name)),
        );
        left.extend(
            self.images.trash(&pool).into_iter().map(|image| format!("trash {}", image.name)),
        );
        left
    }

    /// Whether a volume is there in full: record, one image, formatted, and nothing else.
    pub async fn is_complete(&self, id: &VolumeId) -> bool {
        let Some(found) = self.records().volume(id).await.unwrap() else { return false };
        let VolumeState::Ready { image_id, .. } = found.value.state else { return false };
        let pool = "rbd".parse().unwrap();
        let images = self.images.images(&pool);
        let own: Vec<_> =
            images.iter().filter(|image| image.uid == Some(found.value.uid)).collect();
        matches!(own[..], [image] if image.id == image_id && image.name == id.image_name() && image.format.is_some())
            && self.images.trash(&pool).iter().all(|image| image.uid != Some(found.value.uid))
    }

    /// The limits of a volume, and those of its image.
    pub async fn limits(&self, id: &VolumeId) -> [RateLimits; 2] {
        let found = self.records().volume(id).await.unwrap().unwrap();
        let images = self.images.images(&"rbd".parse().unwrap());
        let image = images.into_iter().find(|image| image.uid == Some(found.value.uid)).unwrap();
        [found.value.spec.rate_limits, image.limits]
    }

    /// Serves a new app on a socket.
    pub async fn serve(&self) -> Served {
        self.serve_app(self.app(), Limits::default()).await
    }

    pub async fn serve_app(&self, app: Arc<App>, limits: Limits) -> Served {
        let listener = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let service = router(app.clone(), limits);
        let told = stop.clone();
        tokio::spawn(async move {
            serve::serve(listener, service, limits, told, &TaskTracker::new()).await;
        });
        Served { app, client: Client { address }, _stop: stop.drop_guard() }
    }
}

/// An app on a socket, until this is dropped.
pub struct Served {
    pub app: Arc<App>,
    pub client: Client,
    _stop: tokio_util::sync::DropGuard,
}

pub fn volume(name: &str) -> VolumeId {
    name.parse().unwrap()
}

pub fn image(name: &str) -> ImageName {
    ImageName { pool: "rbd".parse().unwrap(), name: volume(name).image_name() }
}

pub fn no_options() -> OptionSet {
    OptionSet::default()
}

/// Waits for a condition, for a minute at most: a real one, whatever clock the test has.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
