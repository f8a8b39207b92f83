//! The records of a claim and of its epoch.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volcore::claim::{Claim, HoldState, Holder};
use volcore::host::{Fencing, MasterId};
use volcore::name::{BootId, HostName, MountId, VolumeId};

use super::V1;

/// A claim. The volume is in the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredClaim {
    v: V1,
    epoch: u64,
    holders: Vec<StoredHolder>,
}

/// One host in a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredHolder {
    host: HostName,
    boot_id: BootId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance_id: Option<Uuid>,
    state: StoredHoldState,
    mount_ids: BTreeSet<MountId>,
    clients: Vec<String>,
    since: Timestamp,
}

/// How far a holder has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoredHoldState {
    /// [`HoldState::Claimed`].
    Claimed,
    /// [`HoldState::Mounted`].
    Mounted,
    /// [`HoldState::Fencing`].
    Fencing {
        /// Which volmaster.
        by: MasterId,
        /// Since when.
        since: Timestamp,
    },
}

impl From<HoldState> for StoredHoldState {
    fn from(state: HoldState) -> Self {
        match state {
            HoldState::Claimed => StoredHoldState::Claimed,
            HoldState::Mounted => StoredHoldState::Mounted,
            HoldState::Fencing(Fencing { by, since }) => StoredHoldState::Fencing { by, since },
        }
    }
}

impl From<StoredHoldState> for HoldState {
    fn from(state: StoredHoldState) -> Self {
        match state {
            StoredHoldState::Claimed => HoldState::Claimed,
            StoredHoldState::Mounted => HoldState::Mounted,
            StoredHoldState::Fencing { by, since } => HoldState::Fencing(Fencing { by, since }),
        }
    }
}

impl From<&Holder> for StoredHolder {
    fn from(holder: &Holder) -> Self {
        let Holder { host, boot, instance, state, mounts, clients, since } = holder.clone();
        let state = state.into();
        StoredHolder {
            host,
            boot_id: boot,
            instance_id: instance,
            state,
            mount_ids: mounts,
            clients,
            since,
        }
    }
}

impl From<StoredHolder> for Holder {
    fn from(holder: StoredHolder) -> Self {
        let StoredHolder { host, boot_id, instance_id, state, mount_ids, clients, since } = holder;
        let state = state.into();
        Holder {
            host,
            boot: boot_id,
            instance: instance_id,
            state,
            mounts: mount_ids,
            clients,
            since,
        }
    }
}

impl From<&Claim> for StoredClaim {
    fn from(claim: &Claim) -> Self {
        let Claim { volume: _, epoch, holders } = claim;
        StoredClaim {
            v: V1,
            epoch: *epoch,
            holders: holders.iter().map(StoredHolder::from).collect(),
        }
    }
}

impl StoredClaim {
    /// The claim on the volume whose key it was.
    pub fn into_claim(self, volume: VolumeId) -> Claim {
        let StoredClaim { v: V1, epoch, holders } = self;
        Claim { volume, epoch, holders: holders.into_iter().map(Holder::from).collect() }
    }
}

/// The epoch of the last claim on a volume, which outlives the claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEpoch {
    v: V1,
    epoch: u64,
}

impl From<u64> for StoredEpoch {
    fn from(epoch: u64) -> Self {
        StoredEpoch { v: V1, epoch }
    }
}

impl From<StoredEpoch> for u64 {
    fn from(stored: StoredEpoch) -> u64 {
        let StoredEpoch { v: V1, epoch } = stored;
        epoch
    }
}
