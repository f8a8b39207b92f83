//! The host side of storage: what a volplugin does on its machine. Images are mapped to
//! block devices and file systems are mounted here; nothing in the cluster is changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volcore::Kind;
use volcore::limit::RateLimits;
use volcore::options::{Access, MapOption, MountOption};
use volcore::order::Thawed;

use crate::image::ImageSource;

/// An image to be mapped.
#[derive(Clone, Debug)]
pub struct MapRequest {
    /// Where it is.
    pub source: ImageSource,
    /// How to reach it; `auto` takes the best that this machine has.
    pub access: Access,
    /// Whether the device may be written to.
    pub mode: Mode,
    /// Options of the policy for the kernel's rbd.
    pub options: Vec<MapOption>,
}

/// Whether a mapping or a mount may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Reading and writing.
    ReadWrite,
    /// Reading only, enforced by the device.
    ReadOnly,
}

/// An image that is a block device of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The image.
    pub source: ImageSource,
    /// The device, e.g. `/dev/loop3`.
    pub device: PathBuf,
    /// How it is reached in fact; never `auto`. Local files are `fuse` without FUSE: a loop device.
    pub access: Access,
    /// The Ceph client addresses (`ip:port/nonce`) that can write, where this access tells.
    pub clients: Vec<String>,
}

/// A file system to be mounted.
#[derive(Clone, Debug)]
pub struct MountRequest {
    /// The folder; made if absent, with its parents.
    pub target: PathBuf,
    /// What the volume says is on it. What is on it in fact (by its superblock) decides the type.
    pub filesystem: String,
    /// Options of the policy.
    pub options: Vec<MountOption>,
    /// Whether it may be written to.
    pub mode: Mode,
    /// How fast containers may be on it; held by the host where the access does not, and only if it
    /// [can](HostDriver::holds_limits).
    pub limits: RateLimits,
    /// The UUID that the file system is to have, where it began as a copy of another volume's.
    pub identity: Option<Uuid>,
}

/// A file system that is mounted.
#[derive(Debug)]
pub struct Mounted {
    /// The bytes of its device, if the file system has all of them that it can have and may be written to.
    pub fills: Option<u64>,
    /// What did not come about on the way, and what the volume can be used without.
    pub flaw: Option<HostError>,
}

/// Whether there was something to grow. Both say how many bytes the device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    /// The file system is larger than before.
    Larger(u64),
    /// It filled its device, or is mounted read-only.
    AsItWas(u64),
}

impl Grown {
    /// The bytes of the device.
    pub fn device(self) -> u64 {
        match self {
            Grown::Larger(bytes) | Grown::AsItWas(bytes) => bytes,
        }
    }
}

/// A file system that is frozen: whoever writes to it waits. Dropped, it is thawed.
#[async_trait]
pub trait Frozen: Send {
    /// Waits until it is not frozen any more although nobody has asked for that: its bound is over, or somebody else has
    /// thawed it. Cancel-safe.
    async fn over(&mut self);

    /// Thaws, and says whether it was frozen until now.
    async fn thaw(self: Box<Self>) -> Thawed;
}

/// What this machine has mapped and mounted for the suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Mapped images below this driver's folder; half-done ones (a FUSE mount without device) have no device.
    pub mappings: Vec<Found>,
    /// Mounts below the mount root, as (device, target), the newest last.
    pub mounts: Vec<(PathBuf, PathBuf)>,
}

/// A mapping that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The image.
    pub source: ImageSource,
    /// Its device, if it has come that far.
    pub device: Option<PathBuf>,
}

/// The space in a mounted file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub size: u64,
    /// What is taken.
    pub used: u64,
}

/// Whether there was something to undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// It was there and is gone.
    Done,
    /// There was nothing.
    Absent,
}

/// Why an operation on this host failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// This machine cannot map images in this way.
    #[error("access {access} is not possible on this host: {reason}")]
    NoAccess {
        /// The access that was asked for.
        access: Access,
        /// What is missing, e.g. `the kernel has no rbd module`, with the package or setting that helps.
        reason: String,
    },
    /// The image is not there.
    #[error("image {image} does not exist")]
    NoImage {
        /// The image, as `pool/name` or a path.
        image: String,
    },
    /// Somebody still uses what should be undone.
    #[error("{what} is still in use{}", by(holders))]
    Busy {
        /// The mount or device.
        what: String,
        /// Processes that hold it, as `name (pid)`, as far as they can be found.
        holders: Vec<String>,
    },
    /// A client that is gone has left its lock on the image, which this host has no right to break.
    #[error(
        "image {image} is locked by {}, which is gone; if that host is gone for good, `volcli mount force-remove` of \
         the volume breaks the lock",
        holders.join(", ")
    )]
    Locked {
        /// The image, as `pool/name`.
        image: String,
        /// Who has locked it, as `client.4123 (address)`.
        holders: Vec<String>,
    },
    /// The process that serves a mapped image has ended. What is mounted on it stays, and gets errors.
    #[error(
        "{program} (pid {pid}) of image {image} is gone; reading and writing fail until every container that uses the \
         volume has been stopped; if it has left its lock, `volcli mount force-remove` breaks that before the next one"
    )]
    ServerGone {
        /// Its name, such as `rbd-nbd`.
        program: &'static str,
        /// Its number, while it ran.
        pid: i32,
        /// The image, as `pool/name`.
        image: String,
    },
    /// The image was given to another host: the cluster has fenced this host's client off, or its lock was broken.
    #[error(
        "image {image} belongs to another host now: this host's client was fenced off, and nothing is read or written here \
         any more; stop the containers that still use the volume"
    )]
    Fenced {
        /// The image, as `pool/name`.
        image: String,
    },
    /// Something on the device is not what it should be; nothing was mounted.
    #[error("{device} cannot be mounted: {reason}")]
    Unmountable {
        /// The device.
        device: String,
        /// Why not, e.g. `no file system was found on it`, or what fsck said.
        reason: String,
    },
    /// It did not come to an end in time.
    #[error("{action} did not finish within {seconds} s")]
    Deadline {
        /// What was tried.
        action: String,
        /// The deadline.
        seconds: u64,
    },
    /// Anything else.
    #[error("could not {action}")]
    Failed {
        /// What was tried, naming image, device or folder.
        action: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn by(holders: &[String]) -> String {
    if holders.is_empty() { String::new() } else { format!(" by {}", holders.join(", ")) }
}

impl HostError {
    /// The kind of this error.
    pub fn kind(&self) -> Kind {
        match self {
            HostError::NoAccess { .. } => Kind::Invalid,
            HostError::NoImage { .. } => Kind::NotFound,
            HostError::Busy { .. }
            | HostError::Locked { .. }
            | HostError::ServerGone { .. }
            | HostError::Fenced { .. } => Kind::Busy,
            HostError::Deadline { .. } => Kind::Unavailable,
            HostError::Unmountable { .. } | HostError::Failed { .. } => Kind::Internal,
        }
    }
}

/// Maps and mounts. All methods are idempotent, and find out from the kernel (mountinfo, sysfs, loop
/// ioctls) what is there rather than from memory, so that they work after any crash. All have a deadline
/// of their own, inside Docker's. Calls for one image must not overlap: the caller holds a lock per volume.
#[async_trait]
pub trait HostDriver: Send + Sync + 'static {
    /// Makes ready who will serve an image, and gives the addresses of the Ceph clients (`ip:port/nonce`, as the owners of
    /// locks are known by) that will be able to write, as far as they are known before it is mapped: those of a server of
    /// `fuse`. The kernel and nbd have none yet, and local files have none at all. The image is not opened. `map` goes on
    /// from here, and does this itself where nobody did; `unmap` undoes it, and so does the death of this process. A failure
    /// undoes what was done. Of what such a server serves already, the addresses that it has.
    async fn ready(&self, request: &MapRequest) -> Result<Vec<String>, HostError>;

    /// Makes an image a block device. A failure undoes what was done.
    async fn map(&self, request: &MapRequest) -> Result<Mapping, HostError>;

    /// Takes the device away, its FUSE mount and process too, and waits until they are gone.
    async fn unmap(&self, source: &ImageSource) -> Result<Undone, HostError>;

    /// Gives up an image that is somebody else's now: nothing is written to it any more from here, and nothing waits for it.
    /// Its server is killed, what is mounted at `target` is shut down without writing anything out and unmounted, at once or
    /// for those who still use it when they end, and so is the device detached. That somebody still uses them is no error:
    /// what is left, also of the record, waits for `unmount` and `unmap`. Does not need the cluster. Absent when there was
    /// nothing left to give up.
    async fn abandon(&self, source: &ImageSource, target: &Path) -> Result<Undone, HostError>;

    /// Mounts a mapped device, after repairing what its journal or error flag calls for, and after giving it the
    /// UUID that it should have; then grows the file system to its device. That it could not grow is no failure but a
    /// flaw, and so is a UUID that could not be set where the file system can be mounted with any (not btrfs).
    /// Read-only nothing of that is written. Mounted already (the same device there) is success. Never formats.
    async fn mount(&self, mapping: &Mapping, request: &MountRequest) -> Result<Mounted, HostError>;

    /// Unmounts and removes the (empty) folder.
    async fn unmount(&self, target: &Path) -> Result<Undone, HostError>;

    /// What is here.
    async fn inventory(&self) -> Result<Inventory, HostError>;

    /// The processes in other mount namespaces (containers) that still have this device mounted
    /// elsewhere than at `target`, as `name (pid)`, one for each namespace.
    async fn users(&self, device: &Path, target: &Path) -> Result<Vec<String>, HostError>;

    /// Whether what serves a mapping runs, as far as that can be said without touching the image: a server of
    /// `fuse` or `nbd` that has ended is [`HostError::ServerGone`], and one of `fuse` that was fenced off, be it running or not,
    /// [`HostError::Fenced`]. The kernel needs none, and what is not known is fine.
    async fn serves(&self, source: &ImageSource) -> Result<(), HostError>;

    /// The space in a mounted file system.
    async fn space(&self, target: &Path) -> Result<Space, HostError>;

    /// Makes the device of a mounted image as large as its image, and the file system as large as the device, under
    /// whoever uses it. Waits for a while until the image has at least `size` bytes, and fails if it has not.
    /// There is no child process where the file system fills its device. Mounted read-only it stays as it is.
    async fn grow(&self, mapping: &Mapping, target: &Path, size: u64) -> Result<Grown, HostError>;

    /// Freezes what is mounted at `target` from this mapping, for `bound` at most, whoever dies meanwhile. What is to be
    /// written out is written first, while everybody goes on; that may take its time, and dropping the call ends it. Fails
    /// where something else is mounted there, or where it is frozen already. Nothing is unmounted while it is frozen: the
    /// caller keeps its lock of the volume.
    async fn freeze(
        &self,
        mapping: &Mapping,
        target: &Path,
        bound: Duration,
    ) -> Result<Box<dyn Frozen>, HostError>;

    /// Thaws whatever is mounted below the mount root, as a process does at its start: it may be the one that has died
    /// together with what was to thaw for it. Gives what was frozen.
    async fn thaw_all(&self) -> Result<Vec<PathBuf>, HostError>;

    /// Sets the limits of a mounted image, live, where this host [holds](Self::holds_limits) them; elsewhere nothing.
    /// Fails if the device is not (or not any more) this image's: numbers are used again.
    async fn limit(&self, mapping: &Mapping, limits: &RateLimits) -> Result<(), HostError>;

    /// Whether this host holds the limits of what is mapped in this way, at its mounts.
    fn holds_limits(&self, access: Access) -> bool;
}
