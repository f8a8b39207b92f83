//! The records of takeover: which volmasters live, and which clients of lost hosts are blocklisted.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volcore::name::{BootId, HostName, VolumeId};
use volcore::takeover::Fence;

use super::V1;

/// A volmaster that lives. Which one is in the key, and the key hangs on its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredMaster {
    v: V1,
    since: Timestamp,
}

impl StoredMaster {
    /// One that has begun at this time.
    pub fn new(since: Timestamp) -> Self {
        StoredMaster { v: V1, since }
    }
}

/// A fence. Host, volume and epoch are in the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFence {
    v: V1,
    boot_id: BootId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance_id: Option<Uuid>,
    clients: BTreeSet<String>,
    since: Timestamp,
}

impl From<&Fence> for StoredFence {
    fn from(fence: &Fence) -> Self {
        let Fence { host: _, volume: _, epoch: _, boot, instance, clients, since } = fence.clone();
        StoredFence { v: V1, boot_id: boot, instance_id: instance, clients, since }
    }
}

impl StoredFence {
    /// The fence whose key it was.
    pub fn into_fence(self, host: HostName, volume: VolumeId, epoch: u64) -> Fence {
        let StoredFence { v: V1, boot_id, instance_id, clients, since } = self;
        Fence { host, volume, epoch, boot: boot_id, instance: instance_id, clients, since }
    }
}
