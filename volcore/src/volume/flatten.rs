//! Giving a clone all of its data itself, so that what it was cloned from can go.

use jiff::Timestamp;

use super::{Volume, VolumeState};
use crate::kind::Kind;
use crate::name::VolumeId;
use crate::options::Origin;

/// Whether a volume's image is to have all of its data itself, and has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Flattening {
    /// Nobody has asked for it: a clone may share data with what it was cloned from.
    #[default]
    NotAsked,
    /// It was asked for, and nobody is at it. The volume may be used, rolled back and removed; what is asked for stays so.
    Pending {
        /// When it was asked for.
        since: Timestamp,
        /// Why the last attempt came to nothing, if there was one.
        reason: Option<String>,
    },
    /// Somebody copies data into the image, or has died of it and somebody else goes on. The volume may be used, and is
    /// neither rolled back nor removed.
    UnderWay {
        /// When it was asked for.
        since: Timestamp,
    },
    /// The image has all of its data itself.
    Done,
}

/// What a flattening has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlattenDecision {
    /// Store this, and have somebody see to it.
    Begin(Box<Volume>),
    /// The intent is stored already: go on with it.
    Continue,
    /// The image has all of its data itself.
    Unchanged,
}

/// Why a volume is not flattened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlattenRefusal {
    /// It is not ready.
    #[error("volume {volume} is {state}; only a volume that is ready can be flattened")]
    NotReady {
        /// Which.
        volume: VolumeId,
        /// Its state.
        state: &'static str,
    },
}

impl FlattenRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            FlattenRefusal::NotReady { .. } => Kind::Busy,
        }
    }
}

/// Only a volume that is ready is flattened, held or not, a clone or not; asking again goes on with it.
pub fn volume_flatten(volume: &Volume, now: Timestamp) -> Result<FlattenDecision, FlattenRefusal> {
    if !matches!(volume.state, VolumeState::Ready { .. }) {
        let (volume, state) = (volume.id.clone(), volume.state.as_str());
        return Err(FlattenRefusal::NotReady { volume, state });
    }
    Ok(match &volume.flattening {
        Flattening::NotAsked => {
            let flattening = Flattening::Pending { since: now, reason: None };
            FlattenDecision::Begin(Box::new(Volume { flattening, ..volume.clone() }))
        }
        Flattening::Pending { .. } | Flattening::UnderWay { .. } => FlattenDecision::Continue,
        Flattening::Done => FlattenDecision::Unchanged,
    })
}

impl Volume {
    /// What its image may share data with, as far as its record tells.
    pub fn parent(&self) -> Option<&Origin> {
        match self.flattening {
            Flattening::NotAsked | Flattening::Pending { .. } | Flattening::UnderWay { .. } => {
                self.spec.from.as_ref()
            }
            Flattening::Done => None,
        }
    }

    /// Since when it is to be flattened, where that is to be seen to now: it was asked for, and the volume is ready.
    pub fn to_be_flattened(&self) -> Option<Timestamp> {
        match (&self.state, &self.flattening) {
            (
                VolumeState::Ready { .. },
                Flattening::Pending { since, .. } | Flattening::UnderWay { since },
            ) => Some(*since),
            _ => None,
        }
    }

    /// Since when its image is being flattened, which leaves no room for a removal or a rollback.
    pub(super) fn flattened_since(&self) -> Option<Timestamp> {
        match self.flattening {
            Flattening::UnderWay { since } => Some(since),
            Flattening::NotAsked | Flattening::Pending { .. } | Flattening::Done => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claim;
    use crate::volume::tests::{ready, volume};
    use crate::volume::{
        Disposal, RemoveDecision, RollbackDecision, volume_remove, volume_rollback,
    };

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const NOBODY: Option<&Claim> = None;

    fn with(flattening: Flattening) -> Volume {
        Volume { flattening, ..ready() }
    }

    #[test]
    fn the_intent_is_stored_once() {
        let FlattenDecision::Begin(asked) = volume_flatten(&ready(), NOW).unwrap() else {
            panic!()
        };
        assert_eq!(asked.flattening, Flattening::Pending { since: NOW, reason: None });
        assert_eq!(asked.to_be_flattened(), Some(NOW));
        let later = Timestamp::from_second(9).unwrap();
        assert_eq!(volume_flatten(&asked, later), Ok(FlattenDecision::Continue));
        let under_way = with(Flattening::UnderWay { since: NOW });
        assert_eq!(volume_flatten(&under_way, later), Ok(FlattenDecision::Continue));
        let done = with(Flattening::Done);
        assert_eq!(volume_flatten(&done, later), Ok(FlattenDecision::Unchanged));
        assert_eq!(done.to_be_flattened(), None);
        let creating = volume(VolumeState::Creating { since: NOW });
        let error = volume_flatten(&creating, NOW).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        assert_eq!(
            error.to_string(),
            "volume t/v is creating; only a volume that is ready can be flattened"
        );
    }

    #[test]
    fn what_only_waits_to_be_flattened_is_removed_and_rolled_back_and_stays_asked_for() {
        let snapshot = "before".parse().unwrap();
        for flattening in [
            Flattening::NotAsked,
            Flattening::Pending { since: NOW, reason: None },
            Flattening::Pending { since: NOW, reason: Some("held".into()) },
            Flattening::Done,
        ] {
            let volume = with(flattening);
            let remove = volume_remove(&volume, NOBODY, Disposal::Trash, NOW);
            assert!(matches!(remove, Ok(RemoveDecision::Begin(_))), "{remove:?}");
            let back = volume_rollback(&volume, NOBODY, &snapshot, NOW);
            let Ok(RollbackDecision::Begin(state)) = back else { panic!("{back:?}") };
            assert_eq!(Volume { state, ..volume }.to_be_flattened(), None);
        }
    }

    #[test]
    fn while_data_is_copied_a_volume_is_neither_removed_nor_rolled_back() {
        let under_way = with(Flattening::UnderWay { since: NOW });
        let error = volume_remove(&under_way, NOBODY, Disposal::Delete, NOW).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        assert_eq!(
            error.to_string(),
            "volume t/v is being flattened, since 1970-01-01T00:00:00Z; it can be removed when that is done, see \
             `volcli volume get t/v`"
        );
        let error =
            volume_rollback(&under_way, NOBODY, &"before".parse().unwrap(), NOW).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        assert_eq!(
            error.to_string(),
            "volume t/v is being flattened, since 1970-01-01T00:00:00Z; it can be rolled back when that is done, see \
             `volcli volume get t/v`"
        );
    }
}
