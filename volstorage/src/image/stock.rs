//! What there is in all pools, for whoever compares it with the records.

use std::collections::BTreeSet;

use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::name::{PoolName, SnapshotName};

/// An image, or one in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stocked {
    /// Its pool.
    pub pool: PoolName,
    /// Its id in the pool.
    pub id: String,
    /// The name that it has, or had.
    pub name: String,
    /// The volume that it was made for; `None` where the suite has not made it.
    pub uid: Option<Uuid>,
    /// Its size in bytes; `None` where it has gone meanwhile, or is half removed.
    pub size: Option<u64>,
    /// The limits that it has; `None` where images have none, where it has gone meanwhile, and where the suite has not
    /// made it.
    pub limits: Option<RateLimits>,
}

/// All that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// The pools that were looked through: only of these it says what is not there.
    pub pools: BTreeSet<PoolName>,
    /// The images by name, without what is being made or cleaned up.
    pub images: Vec<Stocked>,
    /// The trash, without that, too.
    pub trash: Vec<Stocked>,
}

/// Who has an image open, and what there is of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The addresses of clients that have it open, other than the caller.
    pub watchers: Vec<String>,
    /// Its snapshots, but for those whose names no user could give.
    pub snapshots: Vec<SnapshotName>,
}
