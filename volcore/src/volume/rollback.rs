//! Giving a volume the data of a snapshot.

use jiff::Timestamp;

use super::{Volume, VolumeState};
use crate::claim::Claim;
use crate::kind::Kind;
use crate::name::{SnapshotName, VolumeId};

/// What a rollback has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollbackDecision {
    /// Store this state, then roll the image back.
    Begin(VolumeState),
    /// The intent is stored already: go on with it.
    Continue,
}

/// Why a volume is not rolled back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RollbackRefusal {
    /// A host holds it.
    #[error(
        "volume {volume} is in use: {}; it can be rolled back when the containers that use it there have stopped, or \
         clone the snapshot to a new volume (`volcli snapshot clone`)",
        claim.holders_shown(),
        volume = claim.volume
    )]
    InUse {
        /// The claim that stands, with its holders.
        claim: Claim,
    },
    /// It is not ready.
    #[error("volume {volume} is {state}; only a volume that is ready can be rolled back")]
    NotReady {
        /// Which.
        volume: VolumeId,
        /// Its state.
        state: &'static str,
    },
    /// Data is being copied into its image.
    #[error(
        "volume {volume} is being flattened, since {since:.0}; it can be rolled back when that is done, see `volcli \
         volume get {volume}`"
    )]
    Flattening {
        /// Which.
        volume: VolumeId,
        /// Since when.
        since: Timestamp,
    },
}

impl RollbackRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            RollbackRefusal::InUse { .. } => Kind::InUse,
            RollbackRefusal::NotReady { .. } | RollbackRefusal::Flattening { .. } => Kind::Busy,
        }
    }
}

/// Only a volume that is ready and that nobody holds is rolled back; asking for it again goes on with it, and asking for
/// another snapshot is the way out where it cannot come to its end.
pub fn volume_rollback(
    volume: &Volume,
    claim: Option<&Claim>,
    snapshot: &SnapshotName,
    now: Timestamp,
) -> Result<RollbackDecision, RollbackRefusal> {
    if let Some(claim) = claim {
        return Err(RollbackRefusal::InUse { claim: claim.clone() });
    }
    if let Some(since) = volume.flattened_since() {
        return Err(RollbackRefusal::Flattening { volume: volume.id.clone(), since });
    }
    match &volume.state {
        VolumeState::RollingBack { snapshot: other, .. } if other == snapshot => {
            Ok(RollbackDecision::Continue)
        }
        VolumeState::Ready { image_id, .. } | VolumeState::RollingBack { image_id, .. } => {
            let (image_id, snapshot) = (image_id.clone(), snapshot.clone());
            Ok(RollbackDecision::Begin(VolumeState::RollingBack { since: now, image_id, snapshot }))
        }
        VolumeState::Creating { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::Adopting { .. }
        | VolumeState::GivingBack { .. }
        | VolumeState::Removing { .. } => {
            let (volume, state) = (volume.id.clone(), volume.state.as_str());
            Err(RollbackRefusal::NotReady { volume, state })
        }
    }
}
