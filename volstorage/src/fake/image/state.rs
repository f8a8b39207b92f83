//! What the fake keeps, and what tests do to it from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use volcore::format::FormatCommand;
use volcore::limit::RateLimits;
use volcore::name::{PoolName, SnapshotName};
use volcore::volume::ImageName;

use super::FakeImages;
use crate::faults::Faults;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) pools: BTreeMap<PoolName, Pool>,
    pub(super) cluster: Cluster,
    pub(super) ids: u64,
    pub(super) blocklist: BTreeSet<String>,
    pub(super) copying: Duration,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Cluster {
    #[default]
    Up,
    Down,
}

#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) images: BTreeMap<String, FakeImage>,
    pub(super) trash: BTreeMap<String, FakeImage>,
    pub(super) is_full: bool,
}

/// An image, or one in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeImage {
    /// Its id in the pool.
    pub id: String,
    /// The name that it has or had.
    pub name: String,
    /// The volume that it was made for, where the suite has made it.
    pub uid: Option<Uuid>,
    /// Bytes.
    pub size: u64,
    /// What it was formatted with; `None` is blank.
    pub format: Option<FormatCommand>,
    /// Its limits.
    pub limits: RateLimits,
    /// Who has it open.
    pub watchers: BTreeSet<String>,
    /// Who has locked it.
    pub owner: Option<String>,
    /// What hosts have written on it since.
    pub data: Vec<u8>,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<FakeSnapshot>,
    /// What it shares data with.
    pub parent: Option<Parent>,
    /// Whether it lacks the feature that keeps two writers apart.
    pub lacks_lock: bool,
    /// Whether who has it open keeps the lock to himself, as the kernel's rbd does.
    pub keeps_lock: bool,
}

/// A snapshot of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeSnapshot {
    /// Its name.
    pub name: SnapshotName,
    /// When it was taken.
    pub created_at: Timestamp,
    /// Bytes of the image at that time.
    pub size: u64,
    /// What the image was formatted with.
    pub format: Option<FormatCommand>,
    /// What was written on it.
    pub data: Vec<u8>,
}

/// The image that another was cloned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its pool.
    pub pool: PoolName,
    /// Its id in that pool.
    pub id: String,
}

impl FakeImage {
    /// An image of nobody, with nothing on it and no name.
    pub(super) fn blank(id: &str) -> FakeImage {
        FakeImage {
            id: id.to_owned(),
            name: String::new(),
            uid: None,
            size: 1 << 20,
            format: None,
            limits: RateLimits::default(),
            watchers: BTreeSet::new(),
            owner: None,
            data: Vec::new(),
            snapshots: Vec::new(),
            parent: None,
            lacks_lock: false,
            keeps_lock: false,
        }
    }
}

/// What a fake error is about; there is nothing more to say.
#[derive(Debug, thiserror::Error)]
#[error("the fake was told so")]
pub(super) struct Told;

impl FakeImages {
    /// Makes its snapshots copies, which take so long; none is a cluster's again.
    pub fn set_copying(&self, takes: Duration) {
        self.lock().copying = takes;
    }

    /// The fault plan.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Makes all calls fail as unreachable, until it is up again.
    pub fn go_down(&self) {
        self.lock().cluster = Cluster::Down;
    }

    /// Ends that.
    pub fn come_up(&self) {
        self.lock().cluster = Cluster::Up;
    }

    /// Lets nothing more be written into a pool, or does again.
    pub fn set_full(&self, pool: &PoolName, is_full: bool) {
        self.with_pool(pool, |pool| pool.is_full = is_full);
    }

    /// Puts an image there that the suite has not made.
    pub fn add_foreign(&self, image: &ImageName) {
        let foreign = FakeImage { name: image.name.clone(), ..FakeImage::blank(&self.next_id()) };
        self.with_pool(&image.pool, |pool| pool.images.insert(image.name.clone(), foreign));
    }

    /// Makes an image what a test wants it to be.
    pub fn change(&self, image: &ImageName, change: impl FnOnce(&mut FakeImage)) {
        self.with_image(image, change);
    }

    /// Lets a client write on an image.
    pub fn write(&self, image: &ImageName, offset: usize, data: &[u8]) {
        self.with_image(image, |image| {
            let end = offset + data.len();
            image.data.resize(image.data.len().max(end), 0);
            image.data[offset..end].copy_from_slice(data);
        });
    }

    /// Lets a client open an image.
    pub fn watch(&self, image: &ImageName, client: &str) {
        self.with_image(image, |image| image.watchers.insert(client.to_owned()));
    }

    /// Lets a client open an image and lock it.
    pub fn lock_for(&self, image: &ImageName, client: &str) {
        self.watch(image, client);
        self.with_image(image, |image| image.owner = Some(client.to_owned()));
    }

    /// The clients that are kept out.
    pub fn blocklist(&self) -> BTreeSet<String> {
        self.lock().blocklist.clone()
    }

    /// Lets a client close it.
    pub fn unwatch(&self, image: &ImageName, client: &str) {
        self.with_image(image, |image| image.watchers.remove(client));
    }

    /// All images of a pool by name, unfinished ones too.
    pub fn images(&self, pool: &PoolName) -> Vec<FakeImage> {
        self.with_pool(pool, |pool| pool.images.values().cloned().collect()).unwrap_or_default()
    }

    /// The trash of a pool by id.
    pub fn trash(&self, pool: &PoolName) -> Vec<FakeImage> {
        self.with_pool(pool, |pool| pool.trash.values().cloned().collect()).unwrap_or_default()
    }

    fn with_image<T>(
        &self,
        image: &ImageName,
        look: impl FnOnce(&mut FakeImage) -> T,
    ) -> Option<T> {
        self.with_pool(&image.pool, |pool| pool.images.get_mut(&image.name).map(look)).flatten()
    }
}
