//! Removing a volume, and what `docker volume rm` means for it.

use jiff::Timestamp;

use super::{Disposal, Volume, VolumeState};
use crate::claim::Claim;
use crate::kind::Kind;
use crate::name::{SnapshotName, VolumeId};
use crate::options::OnRemove;

/// What a remove has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoveDecision {
    /// Store this state, then dispose of the image.
    Begin(VolumeState),
    /// The intent is stored already: go on with it.
    Continue,
}

/// Why a volume is not removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoveRefusal {
    /// A host holds it.
    #[error(
        "volume {volume} is in use: {}; it can be removed when the containers that use it there have stopped. If \
         that host is gone for good, `volcli mount force-remove {volume}` clears its claim",
        claim.holders_shown(),
        volume = claim.volume
    )]
    InUse {
        /// The claim that stands, with its holders.
        claim: Claim,
    },
    /// Its image is between two states.
    #[error(
        "volume {volume} is being rolled back to snapshot {snapshot} since {since:.0}; it can be removed when that is done"
    )]
    RollingBack {
        /// Which.
        volume: VolumeId,
        /// The snapshot.
        snapshot: SnapshotName,
        /// Since when.
        since: Timestamp,
    },
    /// Data is being copied into its image.
    #[error(
        "volume {volume} is being flattened, since {since:.0}; it can be removed when that is done, see `volcli volume \
         get {volume}`"
    )]
    Flattening {
        /// Which.
        volume: VolumeId,
        /// Since when.
        since: Timestamp,
    },
}

impl RemoveRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            RemoveRefusal::InUse { .. } => Kind::InUse,
            RemoveRefusal::RollingBack { .. } | RemoveRefusal::Flattening { .. } => Kind::Busy,
        }
    }
}

/// A claimed volume is never removed; one that is being removed already goes on. An image that is being adopted is
/// given back, whatever was asked: until it is this volume's, its data is not this volume's to delete. What is only to be
/// flattened is removed; what data is being copied into is not.
pub fn volume_remove(
    volume: &Volume,
    claim: Option<&Claim>,
    disposal: Disposal,
    now: Timestamp,
) -> Result<RemoveDecision, RemoveRefusal> {
    if let Some(claim) = claim {
        return Err(RemoveRefusal::InUse { claim: claim.clone() });
    }
    if let Some(since) = volume.flattened_since() {
        return Err(RemoveRefusal::Flattening { volume: volume.id.clone(), since });
    }
    let image_id = match &volume.state {
        VolumeState::GivingBack { .. } | VolumeState::Removing { .. } => {
            return Ok(RemoveDecision::Continue);
        }
        VolumeState::RollingBack { since, snapshot, .. } => {
            let (volume, snapshot) = (volume.id.clone(), snapshot.clone());
            return Err(RemoveRefusal::RollingBack { volume, snapshot, since: *since });
        }
        VolumeState::Adopting { image_id, former, .. } => {
            let (image_id, former) = (image_id.clone(), *former);
            let state = VolumeState::GivingBack { since: now, image_id, former };
            return Ok(RemoveDecision::Begin(state));
        }
        VolumeState::Creating { .. } => None,
        VolumeState::Ready { image_id, .. } | VolumeState::Restoring { image_id, .. } => {
            Some(image_id.clone())
        }
    };
    Ok(RemoveDecision::Begin(VolumeState::Removing { since: now, image_id, disposal }))
}

/// What `docker volume rm` means for a volume (DESIGN §4, `on-remove`).
pub fn docker_remove(on_remove: OnRemove) -> Option<Disposal> {
    match on_remove {
        OnRemove::Keep => None,
        OnRemove::Delete => Some(Disposal::Delete),
        OnRemove::Trash => Some(Disposal::Trash),
    }
}
