//! Changing what is live of a volume.

use jiff::Timestamp;

use super::{ImageFit, Volume, VolumeState};
use crate::kind::Kind;
use crate::live::{LiveChange, LiveRefusal};
use crate::name::VolumeId;

/// What a change has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetDecision {
    /// Store this, then see to the size and the limits of the image if they are pending.
    Changed(Box<Volume>),
    /// It is so already.
    Unchanged,
}

/// Why a volume is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetRefusal {
    /// It is being made or removed.
    #[error("volume {volume} is {state}; only a volume that is ready can be changed")]
    NotReady {
        /// Which.
        volume: VolumeId,
        /// Its state.
        state: &'static str,
    },
    /// The change does not fit it.
    #[error("volume {volume} cannot be changed so")]
    Live {
        /// Which.
        volume: VolumeId,
        /// Why not.
        #[source]
        source: LiveRefusal,
    },
}

impl SetRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            SetRefusal::NotReady { .. } => Kind::Busy,
            SetRefusal::Live { source, .. } => source.kind(),
        }
    }
}

/// Only a volume that is ready is changed, held or not; asking for what it has already is success.
pub fn volume_set(
    volume: &Volume,
    change: &LiveChange,
    now: Timestamp,
) -> Result<SetDecision, SetRefusal> {
    let VolumeState::Ready { image_id, .. } = &volume.state else {
        let (volume, state) = (volume.id.clone(), volume.state.as_str());
        return Err(SetRefusal::NotReady { volume, state });
    };
    let refused = |source| SetRefusal::Live { volume: volume.id.clone(), source };
    let spec = volume.spec.changed(change).map_err(refused)?;
    if spec == volume.spec {
        return Ok(SetDecision::Unchanged);
    }
    if (spec.rate_limits, spec.size) == (volume.spec.rate_limits, volume.spec.size) {
        return Ok(SetDecision::Changed(Box::new(Volume { spec, ..volume.clone() })));
    }
    let fit = ImageFit::Pending { since: now };
    let state = VolumeState::Ready { image_id: image_id.clone(), fit };
    let changed = Volume { spec, state, last_error: None, ..volume.clone() };
    Ok(SetDecision::Changed(Box::new(changed)))
}
