//! The image side of storage: what a volmaster does in the cluster (or in the folder
//! of local image files). Images are made, found, thrown away, limited, snapshotted and cloned
//! here; nothing is ever mapped or mounted.

mod adoption;
mod snapshot;
mod stock;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volcore::Kind;
use volcore::format::FormatCommand;
use volcore::limit::RateLimits;
use volcore::name::PoolName;
use volcore::options::Access;
use volcore::order::Capture;
use volcore::size::Size;
use volcore::volume::ImageName;

pub use self::adoption::{Adoptable, Adoption};
pub use self::snapshot::{
    Confirm, Confirmed, Flattened, ImageSnapshot, NewClone, Progress, Removed, Resized, Restored,
    Snapped, SnapshotInfo, SnapshotUsage, Verdict,
};
pub use self::stock::{Inspection, Stock, Stocked};

/// For how long clients are fenced: a year. An entry that ends before its client has lets that write over what
/// others have written since (measured, 4 of 4).
pub const FENCED_FOR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// An image to be made.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// Where it goes.
    pub image: ImageName,
    /// The volume it belongs to; written on the image, so that it is known again.
    pub uid: Uuid,
    /// How large.
    pub size: Size,
    /// What puts the file system on it.
    pub format: FormatCommand,
    /// How hosts will reach it, which decides the image features.
    pub access: Access,
    /// The limits it starts with.
    pub limits: RateLimits,
}

/// The answer to a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was made now, and is complete under its final name.
    Created {
        /// Its id in the pool.
        image_id: String,
    },
    /// An earlier or concurrent attempt for the same volume has made it.
    AlreadyOurs {
        /// Its id in the pool.
        image_id: String,
    },
}

/// What is known of an image without reading its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its id in the pool.
    pub id: String,
    /// The volume that it was made for; `None` where the suite has not made it.
    pub uid: Option<Uuid>,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes that take up space, where that is known cheaply.
    pub used: Option<u64>,
    /// The addresses of clients that have it open, other than the caller.
    pub watchers: Vec<String>,
}

/// An image in the trash, waiting for its space to be freed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashedImage {
    /// The pool.
    pub pool: PoolName,
    /// The image's id, under which the trash knows it.
    pub id: String,
    /// The name that it had.
    pub name: String,
}

/// The answer to a discard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// It is in the trash (now or since an earlier attempt).
    Trashed(TrashedImage),
    /// There is no such image, neither under its name nor in the trash.
    Absent,
}

/// The answer to a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// Its space is free now.
    Purged,
    /// It was gone already.
    Absent,
}

/// What is left of an attempt to make an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The pool.
    pub pool: PoolName,
    /// The temporary name.
    pub name: String,
    /// The volume it was meant for.
    pub uid: Uuid,
}

/// Where a host finds an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum ImageSource {
    /// In a Ceph pool.
    Rbd {
        /// The pool.
        pool: String,
        /// The name in it.
        image: String,
    },
    /// In a file of this machine.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// Why an operation on an image failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such pool.
    #[error("pool {pool} does not exist; {help}")]
    NoPool {
        /// The pool.
        pool: String,
        /// How to make one.
        help: &'static str,
    },
    /// The name is taken by an image that the suite has not made for this volume. It was not touched.
    #[error(
        "image {image} exists already and was not made for this volume; it was left as it is (rename or remove it, \
         or choose another volume name)"
    )]
    Foreign {
        /// The image.
        image: ImageName,
    },
    /// There is no such image.
    #[error("image {image} does not exist")]
    NoImage {
        /// The image.
        image: ImageName,
    },
    /// The image carries nothing that a host could mount. It was not touched.
    #[error(
        "image {image} carries no file system that is known (ext4, xfs, btrfs): it may be blank, partitioned or \
         encrypted; it was left as it is, for an image that is adopted is never formatted"
    )]
    NoFilesystem {
        /// The image.
        image: ImageName,
    },
    /// The image lacks what keeps two writers apart. It was not touched.
    #[error(
        "image {image} lacks the feature {feature}; `rbd feature enable {image} {feature}` gives it that"
    )]
    NoFeature {
        /// The image.
        image: ImageName,
        /// Which feature.
        feature: &'static str,
    },
    /// The image has no such snapshot.
    #[error("image {} has no snapshot {}", .snapshot.image, .snapshot.snapshot)]
    NoSnapshot {
        /// The snapshot.
        snapshot: ImageSnapshot,
    },
    /// The trash has no such image.
    #[error("the trash of pool {} has no image {} (id {})", .trashed.pool, .trashed.name, .trashed.id)]
    NotInTrash {
        /// What was looked for.
        trashed: TrashedImage,
    },
    /// An image would become smaller, and data be cut off.
    #[error("{what} has {bytes} bytes and cannot become an image of {size} ({} bytes): images only grow", size.bytes())]
    Shrinks {
        /// The image or snapshot.
        what: String,
        /// How large it is.
        bytes: u64,
        /// What was asked for.
        size: Size,
    },
    /// Its data cannot go because other images are made of it.
    #[error("image {image} has clones that need its data ({}); flatten them, or remove them and empty the trash of them", clones.join(", "))]
    HasClones {
        /// The image.
        image: ImageName,
        /// Their pools and names; those in the trash say so.
        clones: Vec<String>,
    },
    /// The format command failed; there is no image.
    #[error("format command `{command}` failed with {status}: {stderr}")]
    Format {
        /// The command as it was run.
        command: String,
        /// How it ended, e.g. `exit status 1`, `deadline of 60s`.
        status: String,
        /// The end of what it wrote on stderr, at most 2 KiB.
        stderr: String,
    },
    /// It would be too large to be made in the time that a caller has.
    #[error("image {image} is too large to be made: {reason}")]
    TooLarge {
        /// The image.
        image: ImageName,
        /// In which way.
        reason: String,
    },
    /// Somebody has the image open.
    #[error("image {image} is in use by {}", watchers.join(", "))]
    InUse {
        /// The image.
        image: ImageName,
        /// The addresses.
        watchers: Vec<String>,
    },
    /// Who has it open would have to do it or to allow it, and does not answer or refuses. Whether it will be done when
    /// he answers again is *unknown*.
    #[error(
        "could not {action}: the holder of image {image} does not answer or does not allow it ({})",
        named(watchers)
    )]
    Held {
        /// The image.
        image: ImageName,
        /// What was tried.
        action: String,
        /// The addresses of those who have it open.
        watchers: Vec<String>,
    },
    /// Who has it open answers, but neither does it nor lets go of his lock, as the kernel's rbd with `exclusive`. Nothing
    /// was changed.
    #[error(
        "could not {action}: who has image {image} open keeps its lock, as the kernel's rbd does: {reason} ({})",
        named(watchers)
    )]
    Kept {
        /// The image.
        image: ImageName,
        /// What was tried.
        action: String,
        /// What would be needed.
        reason: String,
        /// The addresses of those who have it open.
        watchers: Vec<String>,
    },
    /// A copy did not come to its end in the time for which nothing writes.
    #[error(
        "could not {action}: it is a copy, and was not finished within {within:.1?}, for which the file system of what is \
         in use can be frozen; stop the containers that use it, or put the images on a file system that shares data \
         between files (xfs or btrfs), where a copy takes no time"
    )]
    Slow {
        /// What was tried.
        action: String,
        /// The time.
        within: Duration,
    },
    /// No space, or a quota is used up.
    #[error("no space left to {action}")]
    NoSpace {
        /// What was tried, naming the image and pool.
        action: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cluster or the disk does not answer.
    #[error("{store} cannot be reached while trying to {action}")]
    Unreachable {
        /// Which store, e.g. `ceph (/etc/ceph/ceph.conf)`.
        store: String,
        /// What was tried.
        action: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The storage does not let this user do it.
    #[error(
        "could not {action}: the capabilities of Ceph user {user} do not allow it (`ceph auth get {user}` shows them)"
    )]
    Denied {
        /// What was tried, naming the image and pool.
        action: String,
        /// The user, such as `client.volmaster`.
        user: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Anything else that went wrong.
    #[error("could not {action}")]
    Failed {
        /// What was tried, naming the image and pool.
        action: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn named(watchers: &[String]) -> String {
    if watchers.is_empty() { "nobody is watching it".to_owned() } else { watchers.join(", ") }
}

impl ImageError {
    /// The kind of this error.
    pub fn kind(&self) -> Kind {
        match self {
            ImageError::NoPool { .. }
            | ImageError::Format { .. }
            | ImageError::TooLarge { .. }
            | ImageError::NoFilesystem { .. }
            | ImageError::NoFeature { .. }
            | ImageError::Shrinks { .. } => Kind::Invalid,
            ImageError::NoImage { .. }
            | ImageError::NoSnapshot { .. }
            | ImageError::NotInTrash { .. } => Kind::NotFound,
            ImageError::Foreign { .. } => Kind::Conflict,
            ImageError::InUse { .. } | ImageError::HasClones { .. } => Kind::InUse,
            ImageError::Held { .. } | ImageError::Kept { .. } | ImageError::Slow { .. } => {
                Kind::Busy
            }
            ImageError::NoSpace { .. } => Kind::Exhausted,
            ImageError::Unreachable { .. } => Kind::Unavailable,
            ImageError::Denied { .. } | ImageError::Failed { .. } => Kind::Internal,
        }
    }
}

/// Makes and removes images. All methods are idempotent: done twice, or taken up again after a
/// crash at any point, they come to the same end. All have a deadline of their own. Dropping a call
/// stops waiting, not working.
///
/// An image is built under a temporary name (`.new.<uid>.<attempt>`) and renamed when it is
/// complete. So an image under its final name is always formatted, two attempts at once cannot
/// spoil each other, and what was there before is never formatted over.
#[async_trait]
pub trait ImageDriver: Send + Sync + 'static {
    /// Formats (on a sparse scratch file), makes the image, publishes it under its name.
    /// A failing format command leaves nothing.
    async fn create(&self, new: &NewImage) -> Result<Created, ImageError>;

    /// Looks at an image; `None` only when the cluster said that it does not exist.
    /// A missing pool is an error.
    async fn find(&self, image: &ImageName) -> Result<Option<ImageInfo>, ImageError>;

    /// Moves an image to the trash, which takes milliseconds whatever its size. With `image_id`, only
    /// an image with that id is touched; without, only one that carries this uid. Refused while a
    /// client has it open.
    async fn discard(
        &self,
        image: &ImageName,
        image_id: Option<&str>,
        uid: Uuid,
    ) -> Result<Discarded, ImageError>;

    /// Frees the space of a trashed image and of its snapshots; takes time in proportion to its data. While there
    /// are clones that need it nothing is freed ([`ImageError::HasClones`]), and it works once they are gone.
    async fn purge(&self, trashed: &TrashedImage) -> Result<Purged, ImageError>;

    /// Sets the limits that the data path enforces by itself, live.
    async fn limit(&self, image: &ImageName, limits: &RateLimits) -> Result<(), ImageError>;

    /// Whether clients can be kept from images at all. From local files they cannot.
    fn fences(&self) -> bool;

    /// The address of the client that has the lock of an image and is not the control plane's. An absent image has
    /// none.
    async fn lock_owner(&self, image: &ImageName) -> Result<Option<String>, ImageError>;

    /// Keeps clients from everything (blocklists them) for [`FENCED_FOR`], whether they live or not, by their addresses
    /// (`ip:port/nonce`). Whoever connects or asks for the newest map after this is answered behind it: what he has read
    /// no fenced client changes any more.
    async fn fence(&self, clients: &BTreeSet<String>) -> Result<(), ImageError>;

    /// Takes an image's lock from whichever of these clients has it; they are fenced. Others keep it.
    async fn break_lock(
        &self,
        image: &ImageName,
        clients: &BTreeSet<String>,
    ) -> Result<(), ImageError>;

    /// Lets clients in again, for which nobody is left who could come under their addresses. One that was not fenced is
    /// no error.
    async fn unfence(&self, clients: &BTreeSet<String>) -> Result<(), ImageError>;

    /// Takes from an image the lock of a control plane's client that has died in the middle of a change, so that a host
    /// can have it. Whoever else holds it is left alone.
    async fn free(&self, image: &ImageName) -> Result<(), ImageError>;

    /// Takes a snapshot, whoever has the image open: what they have written so far and is not in caches of theirs is
    /// in it. Of several who take one of the same name, one does it. Refused where who has it open keeps its lock and
    /// writes all the time ([`ImageError::Kept`]): [`snapshot_create_if`](Self::snapshot_create_if) takes one if the
    /// caller sees to it that nothing is written meanwhile.
    async fn snapshot_create(&self, snapshot: &ImageSnapshot) -> Result<Snapped, ImageError>;

    /// Takes a snapshot that is to be there only if `confirm`, which is waited for after it was taken, says so. Until then
    /// it has no name that anybody sees or could give, so whoever dies leaves none of that name. A copy that is not
    /// finished `within` the time fails ([`ImageError::Slow`]). Where there is one of that name, nothing is confirmed.
    async fn snapshot_create_if(
        &self,
        snapshot: &ImageSnapshot,
        within: Duration,
        confirm: Confirm<'_>,
    ) -> Result<Confirmed, ImageError>;

    /// How a snapshot keeps what is there. No IO.
    fn capture(&self) -> Capture;

    /// The snapshots of an image, the oldest first. Those whose names no user could give are left out.
    async fn snapshot_list(
        &self,
        image: &ImageName,
        usage: SnapshotUsage,
    ) -> Result<Vec<SnapshotInfo>, ImageError>;

    /// Removes a snapshot. Clones of it keep their data: on Ceph it stays, under no name, until they are gone.
    async fn snapshot_remove(&self, snapshot: &ImageSnapshot) -> Result<Removed, ImageError>;

    /// Gives an image the data and the size that it had at a snapshot; what came later stays in later snapshots only.
    /// Refused while a client has it open. Cut short, it is to be done again: on Ceph the data is a mixture until then.
    async fn snapshot_rollback(&self, snapshot: &ImageSnapshot) -> Result<(), ImageError>;

    /// Makes an image of its own from a snapshot, under a temporary name like [`create`](Self::create). What is on it is
    /// what the snapshot has, the file system's UUID included; beyond that it is zeros.
    async fn snapshot_clone(&self, new: &NewClone) -> Result<Created, ImageError>;

    /// Copies into a clone all that it shares with what it was cloned from, which can go then. Takes time in proportion
    /// to the data, whoever uses the clone meanwhile.
    async fn flatten(
        &self,
        image: &ImageName,
        progress: &Progress,
    ) -> Result<Flattened, ImageError>;

    /// Whether an image could have this size ([`ImageError::TooLarge`] names the largest), whether it is there or not. Changes
    /// nothing; to be asked before a size is stored, because no size that is stored becomes smaller again.
    async fn fits(&self, image: &ImageName, size: Size) -> Result<(), ImageError>;

    /// Makes an image larger, whoever has it open. A smaller size is refused.
    async fn resize(&self, image: &ImageName, size: Size) -> Result<Resized, ImageError>;

    /// Takes an image out of the trash, with its snapshots, and gives it a name in its pool: the one that it had or
    /// another that is free. It stays the image of the volume that it was made for.
    async fn restore(&self, trashed: &TrashedImage, name: &str) -> Result<Restored, ImageError>;

    /// Looks at an image that is to become a volume's, and reads what is on it. Changes nothing. Refused where it is
    /// absent, where a client has it open, and where it is nothing that a host could use.
    async fn adoptable(&self, image: &ImageName) -> Result<Adoptable, ImageError>;

    /// Makes an image that [`adoptable`](Self::adoptable) has found a volume's own: it carries the volume's uid from now
    /// on, and keeps its data and its snapshots. Answers with its id, which may be another than before. Refused where it is
    /// another image by now, or another's, and where a client has it open.
    async fn adopt(&self, adoption: &Adoption) -> Result<String, ImageError>;

    /// Undoes an adoption, whoever has the image open: it carries again what it did before. One that is absent or not the
    /// adopting volume's is left alone.
    async fn give_back(&self, adoption: &Adoption) -> Result<(), ImageError>;

    /// All images and the trash of all pools. Takes time in proportion to their number, and keeps nothing else waiting;
    /// what comes or goes meanwhile may be in it or not.
    async fn stock(&self) -> Result<Stock, ImageError>;

    /// Looks who has an image open, and for its snapshots, at one go and like [`stock`](Self::stock) in nobody's way;
    /// `None` only when the cluster said that there is no such image or pool.
    async fn inspect(&self, image: &ImageName) -> Result<Option<Inspection>, ImageError>;

    /// What attempts have left under temporary names, in all pools.
    async fn unfinished(&self) -> Result<Vec<Unfinished>, ImageError>;

    /// Removes what one attempt has left. Absent is success.
    async fn drop_unfinished(&self, unfinished: &Unfinished) -> Result<(), ImageError>;

    /// Whether the cluster answers, in milliseconds, for `readyz` and `status`: its description
    /// (`ceph <fsid>, pools a, b`) or the error.
    async fn check(&self) -> Result<String, ImageError>;

    /// Where hosts find an image. No IO.
    fn source(&self, image: &ImageName) -> ImageSource;
}
