//! A process that can die at any effect.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::order::Capture;
use volcore::size::Size;
use volcore::volume::ImageName;
use volmaster::app::App;
use volstorage::fake::image::FakeImages;
use volstorage::image::{
    Adoptable, Adoption, Confirm, Confirmed, Created, Discarded, Flattened, ImageDriver,
    ImageError, ImageInfo, ImageSnapshot, ImageSource, Inspection, NewClone, NewImage, Progress,
    Purged, Removed, Resized, Restored, Snapped, SnapshotInfo, SnapshotUsage, Stock, TrashedImage,
    Unfinished,
};
use volstore::memory::MemoryStore;
use volstore::store::{
    Commit, Entry, Key, LeaseId, Page, Renewal, Revision, Step, Store, StoreError, Watch,
};

use crate::stage::Stage;

/// What a [`Mortal`] leaves without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    Images,
    All,
}

/// A process that can die: from then on nothing that it asks is answered, and nothing that it wants
/// happens. It sees the store and the cluster of a stage.
#[derive(Clone)]
pub struct Mortal {
    store: MemoryStore,
    images: FakeImages,
    life: Arc<Life>,
}

#[derive(Default)]
struct Life {
    state: Mutex<State>,
    image_gate: Mutex<Option<Gate>>,
    limit_gate: Mutex<Option<Gate>>,
    commit_gate: Mutex<Option<Gate>>,
    flatten_gates: Mutex<Vec<Gate>>,
    unfinished_gates: Mutex<VecDeque<Option<Gate>>>,
    flattened_elsewhere: AtomicBool,
}

#[derive(Default)]
struct State {
    commits: usize,
    die: Option<(usize, When)>,
    hang: Option<Hang>,
    broken: Option<ImageName>,
}

/// When a process dies: the commit was sent, or it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// Holds something up.
#[derive(Clone, Default)]
pub struct Gate {
    reached: Arc<Notify>,
    opened: Arc<Notify>,
}

impl Gate {
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    pub fn open(&self) {
        self.opened.notify_one();
    }

    async fn pass(gate: &Mutex<Option<Gate>>) {
        let gate = gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.opened.notified().await;
        }
    }
}

impl Mortal {
    pub fn new(stage: &Stage) -> Mortal {
        Mortal { store: stage.store.clone(), images: stage.images.clone(), life: Arc::default() }
    }

    pub fn app(&self, stage: &Stage) -> Arc<App> {
        stage.app_on(Arc::new(self.clone()), Arc::new(self.clone()))
    }

    pub fn hang(&self, hang: Hang) {
        self.life.state.lock().unwrap().hang = Some(hang);
    }

    /// Holds up the next making of an image.
    pub fn gate_images(&self) -> Gate {
        let gate = Gate::default();
        *self.life.image_gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    /// Holds up the next setting of limits.
    pub fn gate_limit(&self) -> Gate {
        let gate = Gate::default();
        *self.life.limit_gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    /// Holds up the next flattening that has no gate yet: its data is copied, and nobody knows.
    pub fn gate_flatten(&self) -> Gate {
        let gate = Gate::default();
        self.life.flatten_gates.lock().unwrap().push(gate.clone());
        gate
    }

    /// Whether another process is said to flatten what this one is to.
    pub fn flattened_elsewhere(&self, is: bool) {
        self.life.flattened_elsewhere.store(is, Ordering::SeqCst);
    }

    /// Holds up the next commit.
    pub fn gate_commit(&self) -> Gate {
        let gate = Gate::default();
        *self.life.commit_gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    /// Holds up the `nth` listing of what is unfinished from now.
    pub fn gate_unfinished(&self, nth: usize) -> Gate {
        let gate = Gate::default();
        let mut gates = self.life.unfinished_gates.lock().unwrap();
        gates.resize(nth, None);
        gates[nth - 1] = Some(gate.clone());
        gate
    }

    /// Lets no look at that image succeed.
    pub fn break_image(&self, image: ImageName) {
        self.life.state.lock().unwrap().broken = Some(image);
    }

    /// Dies at the `nth` commit from now.
    pub fn die_at(&self, nth: usize, when: When) {
        let mut state = self.life.state.lock().unwrap();
        state.die = Some((state.commits + nth, when));
    }

    pub fn is_dead(&self) -> bool {
        self.life.state.lock().unwrap().hang == Some(Hang::All)
    }

    async fn store_answers(&self) {
        if self.life.state.lock().unwrap().hang == Some(Hang::All) {
            std::future::pending::<()>().await;
        }
    }

    async fn images_answer(&self) {
        if self.life.state.lock().unwrap().hang.is_some() {
            std::future::pending::<()>().await;
        }
    }

    /// The answer of the cluster, unless the process died of asking.
    async fn answered<T>(&self, answer: Result<T, ImageError>) -> Result<T, ImageError> {
        if self.images.faults().alive("").is_err() {
            self.hang(Hang::All);
        }
        self.images_answer().await;
        answer
    }

    fn next_commit(&self) -> Option<When> {
        let mut state = self.life.state.lock().unwrap();
        state.commits += 1;
        let commits = state.commits;
        state.die.filter(|(nth, _)| *nth == commits).map(|(_, when)| when)
    }
}

#[async_trait]
impl Store for Mortal {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.store_answers().await;
        self.store.get(key).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.store_answers().await;
        self.store.list(prefix, after, limit, at).await
    }

    async fn commit(&self, steps: Vec<Step>) -> Result<Commit, StoreError> {
        self.store_answers().await;
        Gate::pass(&self.life.commit_gate).await;
        let dies = self.next_commit();
        if dies == Some(When::Before) {
            self.hang(Hang::All);
            self.store_answers().await;
        }
        let done = self.store.commit(steps).await;
        if dies == Some(When::After) {
            self.hang(Hang::All);
            self.store_answers().await;
        }
        done
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store_answers().await;
        self.store.revision().await
    }

    async fn watch(&self, prefix: &Key, from: Revision) -> Result<Watch, StoreError> {
        self.store.watch(prefix, from).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.store_answers().await;
        self.store.lease_grant(ttl).await
    }

    async fn lease_renew(&self, lease: LeaseId) -> Result<Renewal, StoreError> {
        self.store_answers().await;
        self.store.lease_renew(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store_answers().await;
        self.store.lease_revoke(lease).await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}

#[async_trait]
impl ImageDriver for Mortal {
    async fn create(&self, new: &NewImage) -> Result<Created, ImageError> {
        self.images_answer().await;
        Gate::pass(&self.life.image_gate).await;
        self.answered(self.images.create(new).await).await
    }

    async fn find(&self, image: &ImageName) -> Result<Option<ImageInfo>, ImageError> {
        self.images_answer().await;
        self.images.find(image).await
    }

    async fn discard(
        &self,
        image: &ImageName,
        image_id: Option<&str>,
        uid: Uuid,
    ) -> Result<Discarded, ImageError> {
        self.images_answer().await;
        self.answered(self.images.discard(image, image_id, uid).await).await
    }

    async fn purge(&self, trashed: &TrashedImage) -> Result<Purged, ImageError> {
        self.images_answer().await;
        self.answered(self.images.purge(trashed).await).await
    }

    async fn limit(&self, image: &ImageName, limits: &RateLimits) -> Result<(), ImageError> {
        self.images_answer().await;
        Gate::pass(&self.life.limit_gate).await;
        self.answered(self.images.limit(image, limits).await).await
    }

    async fn free(&self, image: &ImageName) -> Result<(), ImageError> {
        self.images.free(image).await
    }

    fn fences(&self) -> bool {
        self.images.fences()
    }

    async fn lock_owner(&self, image: &ImageName) -> Result<Option<String>, ImageError> {
        self.images_answer().await;
        self.images.lock_owner(image).await
    }

    async fn fence(&self, clients: &BTreeSet<String>) -> Result<(), ImageError> {
        self.images_answer().await;
        self.answered(self.images.fence(clients).await).await
    }

    async fn break_lock(
        &self,
        image: &ImageName,
        clients: &BTreeSet<String>,
    ) -> Result<(), ImageError> {
        self.images_answer().await;
        self.answered(self.images.break_lock(image, clients).await).await
    }

    async fn unfence(&self, clients: &BTreeSet<String>) -> Result<(), ImageError> {
        self.images_answer().await;
        self.answered(self.images.unfence(clients).await).await
    }

    async fn snapshot_create(&self, snapshot: &ImageSnapshot) -> Result<Snapped, ImageError> {
        self.images_answer().await;
        self.answered(self.images.snapshot_create(snapshot).await).await
    }

    async fn snapshot_create_if(
        &self,
        snapshot: &ImageSnapshot,
        within: Duration,
        confirm: Confirm<'_>,
    ) -> Result<Confirmed, ImageError> {
        self.images_answer().await;
        self.answered(self.images.snapshot_create_if(snapshot, within, confirm).await).await
    }

    fn capture(&self) -> Capture {
        self.images.capture()
    }

    async fn snapshot_list(
        &self,
        image: &ImageName,
        usage: SnapshotUsage,
    ) -> Result<Vec<SnapshotInfo>, ImageError> {
        self.images_answer().await;
        self.images.snapshot_list(image, usage).await
    }

    async fn snapshot_remove(&self, snapshot: &ImageSnapshot) -> Result<Removed, ImageError> {
        self.images_answer().await;
        self.answered(self.images.snapshot_remove(snapshot).await).await
    }

    async fn snapshot_rollback(&self, snapshot: &ImageSnapshot) -> Result<(), ImageError> {
        self.images_answer().await;
        self.answered(self.images.snapshot_rollback(snapshot).await).await
    }

    async fn snapshot_clone(&self, new: &NewClone) -> Result<Created, ImageError> {
        self.images_answer().await;
        self.answered(self.images.snapshot_clone(new).await).await
    }

    async fn flatten(
        &self,
        image: &ImageName,
        progress: &Progress,
    ) -> Result<Flattened, ImageError> {
        self.images_answer().await;
        if self.life.flattened_elsewhere.load(Ordering::SeqCst) {
            let watchers = vec!["somebody who flattens it".to_owned()];
            return Err(ImageError::InUse { image: image.clone(), watchers });
        }
        let flattened = self.images.flatten(image, progress).await;
        let gate = self.life.flatten_gates.lock().unwrap().pop();
        Gate::pass(&Mutex::new(gate)).await;
        self.answered(flattened).await
    }

    async fn fits(&self, image: &ImageName, size: Size) -> Result<(), ImageError> {
        self.images_answer().await;
        self.images.fits(image, size).await
    }

    async fn resize(&self, image: &ImageName, size: Size) -> Result<Resized, ImageError> {
        self.images_answer().await;
        self.answered(self.images.resize(image, size).await).await
    }

    async fn restore(&self, trashed: &TrashedImage, name: &str) -> Result<Restored, ImageError> {
        self.images_answer().await;
        self.answered(self.images.restore(trashed, name).await).await
    }

    async fn adoptable(&self, image: &ImageName) -> Result<Adoptable, ImageError> {
        self.images_answer().await;
        self.images.adoptable(image).await
    }

    async fn adopt(&self, adoption: &Adoption) -> Result<String, ImageError> {
        self.images_answer().await;
        Gate::pass(&self.life.image_gate).await;
        self.answered(self.images.adopt(adoption).await).await
    }

    async fn give_back(&self, adoption: &Adoption) -> Result<(), ImageError> {
        self.images_answer().await;
        self.answered(self.images.give_back(adoption).await).await
    }

    async fn stock(&self) -> Result<Stock, ImageError> {
        self.images_answer().await;
        self.images.stock().await
    }

    async fn inspect(&self, image: &ImageName) -> Result<Option<Inspection>, ImageError> {
        self.images_answer().await;
        if self.life.state.lock().unwrap().broken.as_ref() == Some(image) {
            let action = format!("look at image {image}");
            let source = Box::new(std::io::Error::other("its header is damaged"));
            return Err(ImageError::Failed { action, source });
        }
        self.images.inspect(image).await
    }

    async fn unfinished(&self) -> Result<Vec<Unfinished>, ImageError> {
        self.images_answer().await;
        let gate = self.life.unfinished_gates.lock().unwrap().pop_front().flatten();
        Gate::pass(&Mutex::new(gate)).await;
        self.images.unfinished().await
    }

    async fn drop_unfinished(&self, unfinished: &Unfinished) -> Result<(), ImageError> {
        self.images_answer().await;
        self.answered(self.images.drop_unfinished(unfinished).await).await
    }

    async fn check(&self) -> Result<String, ImageError> {
        self.images_answer().await;
        self.images.check().await
    }

    fn source(&self, image: &ImageName) -> ImageSource {
        self.images.source(image)
    }
}
