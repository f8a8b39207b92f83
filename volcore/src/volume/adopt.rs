//! Making a volume of an image that is there.

use super::create::show;
use super::{Volume, VolumeState};
use crate::kind::Kind;
use crate::name::VolumeId;
use crate::options::OptionSet;
use crate::spec::Difference;

/// What an adoption has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptDecision {
    /// There is no such volume: look at the image, store the intent and adopt it.
    New,
    /// The intent is stored already: go on with it.
    Continue,
    /// The volume is there and fits.
    Unchanged,
}

/// Why no image is adopted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptRefusal {
    /// The volume exists with other options.
    #[error(
        "volume {volume} exists with other options: {}; what is live can be changed with `volcli volume set` and \
         `volcli volume resize`",
        show(.differences)
    )]
    Differs {
        /// Which.
        volume: VolumeId,
        /// In what.
        differences: Vec<Difference>,
    },
    /// The volume has an image of its own that is on its way.
    #[error(
        "volume {volume} is {state}, and has an image of its own; see `volcli volume get {volume}`"
    )]
    NotReady {
        /// Which.
        volume: VolumeId,
        /// Its state.
        state: &'static str,
    },
}

impl AdoptRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            AdoptRefusal::Differs { .. } => Kind::Conflict,
            AdoptRefusal::NotReady { .. } => Kind::Busy,
        }
    }
}

/// Adopting an image for a volume that exists, with no options or the same ones, is success.
pub fn volume_adopt(
    existing: Option<&Volume>,
    asked: &OptionSet,
) -> Result<AdoptDecision, AdoptRefusal> {
    let Some(volume) = existing else { return Ok(AdoptDecision::New) };
    let decision = match volume.state {
        VolumeState::Ready { .. } | VolumeState::RollingBack { .. } => AdoptDecision::Unchanged,
        VolumeState::Adopting { .. } => AdoptDecision::Continue,
        VolumeState::Creating { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::GivingBack { .. }
        | VolumeState::Removing { .. } => {
            let (volume, state) = (volume.id.clone(), volume.state.as_str());
            return Err(AdoptRefusal::NotReady { volume, state });
        }
    };
    let differences = volume.spec.differences(asked);
    if differences.is_empty() {
        Ok(decision)
    } else {
        Err(AdoptRefusal::Differs { volume: volume.id.clone(), differences })
    }
}
