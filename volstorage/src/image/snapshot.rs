//! What is asked of an image beyond its making, and what is answered: snapshots, clones, growth, the way back.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::name::SnapshotName;
use volcore::options::Access;
use volcore::size::Size;
use volcore::volume::ImageName;

/// A snapshot of an image, shown as `pool/name@snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageSnapshot {
    /// The image.
    pub image: ImageName,
    /// Which of its snapshots.
    pub snapshot: SnapshotName,
}

impl std::fmt::Display for ImageSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.image, self.snapshot)
    }
}

/// The answer to taking a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapped {
    /// It was taken now; on Ceph, of several who take it at the same time all are told so.
    Created,
    /// There is one of that name, from earlier or by somebody else at the same time.
    Existed,
}

/// Whether a snapshot that was taken may stay; nothing is done for it before it is waited for.
pub type Confirm<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// What becomes of a snapshot that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets its name.
    Keep,
    /// It goes.
    Discard,
}

/// The answer to taking a snapshot that had to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// It was taken now, and confirmed.
    Created,
    /// There is one of that name, from earlier or by somebody else at the same time.
    Existed,
    /// It was taken, not confirmed, and is gone.
    Discarded,
}

/// The answer to a removal of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone now.
    Removed,
    /// It was gone already.
    Absent,
}

/// Whether the space that snapshots take is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotUsage {
    /// It is not: one call for all snapshots of an image.
    Skip,
    /// Where that costs milliseconds for each snapshot, and no more.
    Count,
}

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name.
    pub name: SnapshotName,
    /// When it was taken, by the clock of the storage.
    pub created_at: Timestamp,
    /// The size of the image at that time, in bytes.
    pub size: u64,
    /// Bytes that were written between the snapshot before and this one (Ceph), or that the copy takes up (local
    /// files, where they may be shared); `None` where that was not asked for or is not known cheaply.
    pub used: Option<u64>,
}

/// An image to be made from a snapshot.
#[derive(Clone, Debug)]
pub struct NewClone {
    /// The snapshot.
    pub from: ImageSnapshot,
    /// Where it goes; the pool may be another.
    pub image: ImageName,
    /// The volume it belongs to; written on the image, so that it is known again.
    pub uid: Uuid,
    /// How large; at least what the snapshot has.
    pub size: Size,
    /// How hosts will reach it, which decides the image features.
    pub access: Access,
    /// The limits it starts with. None come from the image that it is cloned from.
    pub limits: RateLimits,
}

/// The answer to a flattening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flattened {
    /// It has all its data itself now.
    Flattened,
    /// It had already.
    AlreadyFlat,
}

/// The answer to a growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resized {
    /// It was smaller before.
    Grown,
    /// It had that size already.
    Unchanged,
}

/// The answer to a restoration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It has the name now.
    Restored,
    /// It had it already.
    AlreadyThere,
}

/// How far something has come that takes long. Clones share it, so that one can be read while another is written.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// How much is done, and of how much; the unit is the storage's. `(0, 0)` before that is known.
    pub fn get(&self) -> (u64, u64) {
        let total = self.0.total.load(Ordering::Acquire);
        (self.0.done.load(Ordering::Acquire).min(total), total)
    }

    /// Takes down how far it is.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.0.done.store(done, Ordering::Release);
        self.0.total.store(total, Ordering::Release);
    }
}
