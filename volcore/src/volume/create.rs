//! Creating a volume: what there is decides whether it is made, waited for or found.

use super::{Volume, VolumeState};
use crate::kind::Kind;
use crate::name::VolumeId;
use crate::options::OptionSet;
use crate::spec::Difference;

/// What a create has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateDecision {
    /// There is none: store the intent and make it.
    New,
    /// It is there and fits.
    Unchanged,
    /// It fits, and somebody is making it: wait for them.
    Await,
}

/// Why a volume is not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateRefusal {
    /// It exists with other options.
    #[error("volume {volume} exists with other options: {}", show(.differences))]
    Differs {
        /// Which.
        volume: VolumeId,
        /// In what.
        differences: Vec<Difference>,
    },
    /// The former one of that name is still being removed.
    #[error("volume {volume} is being removed; try again when that is done")]
    Removing {
        /// Which.
        volume: VolumeId,
    },
}

/// Differences, as refusals list them.
pub(super) fn show(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
}

impl CreateRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            CreateRefusal::Differs { .. } => Kind::Conflict,
            CreateRefusal::Removing { .. } => Kind::Busy,
        }
    }
}

/// Creating an existing volume again, with no options or the same ones, is success.
pub fn volume_create(
    existing: Option<&Volume>,
    asked: &OptionSet,
) -> Result<CreateDecision, CreateRefusal> {
    let Some(volume) = existing else { return Ok(CreateDecision::New) };
    let decision = match volume.state {
        VolumeState::GivingBack { .. } | VolumeState::Removing { .. } => {
            return Err(CreateRefusal::Removing { volume: volume.id.clone() });
        }
        VolumeState::Ready { .. } | VolumeState::RollingBack { .. } => CreateDecision::Unchanged,
        VolumeState::Creating { .. }
        | VolumeState::Restoring { .. }
        | VolumeState::Adopting { .. } => CreateDecision::Await,
    };
    let differences = volume.spec.differences(asked);
    if differences.is_empty() {
        Ok(decision)
    } else {
        Err(CreateRefusal::Differs { volume: volume.id.clone(), differences })
    }
}
