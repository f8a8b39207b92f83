//! A thin, safe layer over librados and librbd, opened at run time.
//!
//! Owns every call into Ceph's C libraries: connecting, monitor commands, images. Called by the `rbd` image driver and
//! by the fencing code, through the crate's door for blocking calls. It must not decide anything: no retries, no naming
//! rules, no knowledge of volumes or tenants.
//!
//! # Everything blocks
//!
//! Every function here waits for the network, and so does dropping a [`Cluster`] or an [`Image`]. Never call them on a
//! thread of an async runtime; run them on a blocking pool, and move the values into the closure so that they are also
//! dropped there. How long a call can wait is bounded by [`Timeouts`], per request to a server and not per function: with an
//! OSD that does not answer, most functions fail after one timeout, and closing an image succeeds after three.
//!
//! # Threads
//!
//! [`Cluster`], [`Pool`] and [`Image`] are `Send` and `Sync`. One cluster handle per process is meant to be shared: it
//! carries hundreds of concurrent calls, and each handle costs about 17 threads.
//!
//! # Full pools
//!
//! By default a Ceph client that writes to a full pool waits until there is space, for ever. Pools opened here ask for
//! an error instead (`rados_set_pool_full_try`, which images opened from the pool inherit). Seen on 16.2:
//!
//! - quota used up: `EDQUOT`, full OSDs: `ENOSPC`, both within milliseconds; see [`CephError::is_no_space`]. The flag
//!   follows the usage by some seconds, so a pool can go over its quota.
//! - Creating an image leaves nothing behind.
//! - A write that needs a new object fails, *often only in the flush*, because writes are cached. Overwriting an object
//!   in place still succeeds, as do metadata, removal and the trash.
//!
//! # Leaving the process
//!
//! Drop every [`Cluster`] before `main` returns. The exit handlers of librados take its memory away from under the
//! threads of a connection that is still up: a process that goes on for a moment after that can die of SIGSEGV.
//!
//! # Not installed
//!
//! The first [`Cluster::connect`] opens `librados.so.2` and `librbd.so.1`; where they are missing the answer is
//! [`CephError::LibrariesMissing`], which names the packages.

pub mod abi;
mod aio;
mod class;
mod cluster;
mod control;
mod copyup;
mod directory;
mod error;
mod extents;
mod ffi;
mod image;
mod lease;
mod locks;
mod metadata;
mod notify;
mod own;
mod past_lock;
mod pool;
mod snapshots;
mod text;
mod trash;

pub use aio::AsyncImage;
pub use class::Step;
pub use cluster::{Cluster, ConnectOptions, Key, MonReply, Timeouts};
pub use control::Locker;
pub use error::{Cause, CephError, Operation, Subject};
pub use image::{Features, Image, ImageInfo, Shrink, Usage};
pub use locks::Watcher;
pub use metadata::config_key;
pub use past_lock::{Obstacle, PastLock};
pub use pool::{ImageEntry, Pool};
pub use snapshots::{CloneEntry, Snapshot, SnapshotKind};
pub use trash::{TrashEntry, TrashForce, TrashSource};
