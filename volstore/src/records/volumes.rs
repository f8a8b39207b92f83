//! The record of a volume.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volcore::format::FormatCommand;
use volcore::name::{SnapshotName, VolumeId};
use volcore::options::OptionSet;
use volcore::spec::VolumeSpec;
use volcore::volume::{Disposal, Flattening, ImageFit, Volume, VolumeState};

use super::V1;

/// A volume. Its name is in the key; its options are complete, so that no default of a later
/// version changes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredVolume {
    v: V1,
    uid: Uuid,
    state: StoredState,
    created_at: Timestamp,
    policy_revision: u64,
    options: OptionSet,
    format: FormatCommand,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flattening: Option<StoredFlattening>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// Where a volume is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StoredState {
    /// [`VolumeState::Creating`].
    Creating {
        /// When the work was last taken up.
        since: Timestamp,
    },
    /// [`VolumeState::Ready`].
    Ready {
        /// The image's id.
        image_id: String,
        /// Since when the size and the limits of the image are pending, where they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits_pending: Option<Timestamp>,
    },
    /// [`VolumeState::RollingBack`].
    RollingBack {
        /// When it was asked for.
        since: Timestamp,
        /// The image's id.
        image_id: String,
        /// The snapshot.
        snapshot: SnapshotName,
    },
    /// [`VolumeState::Restoring`].
    Restoring {
        /// When it was asked for.
        since: Timestamp,
        /// The image's id.
        image_id: String,
        /// The name that the image had.
        was: String,
    },
    /// [`VolumeState::Adopting`].
    Adopting {
        /// When it was asked for.
        since: Timestamp,
        /// The image's id, as it was found.
        image_id: String,
        /// The volume that it was made for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        former: Option<Uuid>,
    },
    /// [`VolumeState::GivingBack`].
    GivingBack {
        /// Since when.
        since: Timestamp,
        /// The image's id, as it was found.
        image_id: String,
        /// The volume that it was made for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        former: Option<Uuid>,
    },
    /// [`VolumeState::Removing`].
    Removing {
        /// When the removal was asked for.
        since: Timestamp,
        /// The image's id, where the volume was ready.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image_id: Option<String>,
        /// What becomes of the data.
        disposal: StoredDisposal,
    },
}

/// What was asked for, or done, so that an image has all of its data itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum StoredFlattening {
    /// [`Flattening::Pending`].
    Pending {
        /// When it was asked for.
        since: Timestamp,
        /// Why the last attempt came to nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// [`Flattening::UnderWay`].
    UnderWay {
        /// When it was asked for.
        since: Timestamp,
    },
    /// [`Flattening::Done`].
    Done,
}

impl StoredFlattening {
    fn of(flattening: &Flattening) -> Option<Self> {
        Some(match flattening.clone() {
            Flattening::NotAsked => return None,
            Flattening::Pending { since, reason } => StoredFlattening::Pending { since, reason },
            Flattening::UnderWay { since } => StoredFlattening::UnderWay { since },
            Flattening::Done => StoredFlattening::Done,
        })
    }

    fn read(stored: Option<Self>) -> Flattening {
        match stored {
            None => Flattening::NotAsked,
            Some(StoredFlattening::Pending { since, reason }) => {
                Flattening::Pending { since, reason }
            }
            Some(StoredFlattening::UnderWay { since }) => Flattening::UnderWay { since },
            Some(StoredFlattening::Done) => Flattening::Done,
        }
    }
}

/// What a removal does with the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoredDisposal {
    /// [`Disposal::Delete`].
    Delete,
    /// [`Disposal::Trash`].
    Trash,
}

impl From<Disposal> for StoredDisposal {
    fn from(disposal: Disposal) -> Self {
        match disposal {
            Disposal::Delete => StoredDisposal::Delete,
            Disposal::Trash => StoredDisposal::Trash,
        }
    }
}

impl From<StoredDisposal> for Disposal {
    fn from(disposal: StoredDisposal) -> Self {
        match disposal {
            StoredDisposal::Delete => Disposal::Delete,
            StoredDisposal::Trash => Disposal::Trash,
        }
    }
}

impl From<&VolumeState> for StoredState {
    fn from(state: &VolumeState) -> Self {
        match state.clone() {
            VolumeState::Creating { since } => StoredState::Creating { since },
            VolumeState::Ready { image_id, fit } => {
                let limits_pending = match fit {
                    ImageFit::Fits => None,
                    ImageFit::Pending { since } => Some(since),
                };
                StoredState::Ready { image_id, limits_pending }
            }
            VolumeState::RollingBack { since, image_id, snapshot } => {
                StoredState::RollingBack { since, image_id, snapshot }
            }
            VolumeState::Restoring { since, image_id, was } => {
                StoredState::Restoring { since, image_id, was }
            }
            VolumeState::Adopting { since, image_id, former } => {
                StoredState::Adopting { since, image_id, former }
            }
            VolumeState::GivingBack { since, image_id, former } => {
                StoredState::GivingBack { since, image_id, former }
            }
            VolumeState::Removing { since, image_id, disposal } => {
                StoredState::Removing { since, image_id, disposal: disposal.into() }
            }
        }
    }
}

impl From<StoredState> for VolumeState {
    fn from(state: StoredState) -> Self {
        match state {
            StoredState::Creating { since } => VolumeState::Creating { since },
            StoredState::Ready { image_id, limits_pending } => {
                let fit = match limits_pending {
                    None => ImageFit::Fits,
                    Some(since) => ImageFit::Pending { since },
                };
                VolumeState::Ready { image_id, fit }
            }
            StoredState::RollingBack { since, image_id, snapshot } => {
                VolumeState::RollingBack { since, image_id, snapshot }
            }
            StoredState::Restoring { since, image_id, was } => {
                VolumeState::Restoring { since, image_id, was }
            }
            StoredState::Adopting { since, image_id, former } => {
                VolumeState::Adopting { since, image_id, former }
            }
            StoredState::GivingBack { since, image_id, former } => {
                VolumeState::GivingBack { since, image_id, former }
            }
            StoredState::Removing { since, image_id, disposal } => {
                VolumeState::Removing { since, image_id, disposal: disposal.into() }
            }
        }
    }
}

impl From<&Volume> for StoredVolume {
    fn from(volume: &Volume) -> Self {
        let Volume { id: _, uid, spec, policy_revision, created_at, state, flattening, last_error } =
            volume;
        StoredVolume {
            v: V1,
            uid: *uid,
            state: state.into(),
            created_at: *created_at,
            policy_revision: *policy_revision,
            options: spec.to_options(),
            format: spec.format.clone(),
            flattening: StoredFlattening::of(flattening),
            last_error: last_error.clone(),
        }
    }
}

impl StoredVolume {
    /// The volume whose key it was, or why it makes none.
    pub fn into_volume(self, id: VolumeId) -> Result<Volume, String> {
        let StoredVolume {
            v: V1,
            uid,
            state,
            created_at,
            policy_revision,
            options,
            format,
            flattening,
            last_error,
        } = self;
        let spec = thaw(options, format)?;
        Ok(Volume {
            id,
            uid,
            spec,
            policy_revision,
            created_at,
            state: state.into(),
            flattening: StoredFlattening::read(flattening),
            last_error,
        })
    }
}

/// The spec that complete options make, or why they make none.
fn thaw(options: OptionSet, format: FormatCommand) -> Result<VolumeSpec, String> {
    let (Some(pool), Some(filesystem)) = (options.pool.clone(), options.filesystem.clone()) else {
        return Err("its options name no pool or no file system".to_owned());
    };
    VolumeSpec::thaw(options, pool, filesystem, format).map_err(|error| error.to_string())
}

/// What is kept of a volume in the trash, so that it can be restored as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What it was made of.
    pub spec: VolumeSpec,
    /// Which upload of the tenant's policy it was made from.
    pub policy_revision: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether its image is to have all of its data itself; gone on with when it is restored.
    pub flattening: Flattening,
}

/// [`Kept`], as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredKept {
    created_at: Timestamp,
    policy_revision: u64,
    options: OptionSet,
    format: FormatCommand,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flattening: Option<StoredFlattening>,
}

impl From<&Kept> for StoredKept {
    fn from(kept: &Kept) -> Self {
        let Kept { spec, policy_revision, created_at, flattening } = kept;
        StoredKept {
            created_at: *created_at,
            policy_revision: *policy_revision,
            options: spec.to_options(),
            format: spec.format.clone(),
            flattening: StoredFlattening::of(flattening),
        }
    }
}

impl StoredKept {
    pub(super) fn into_kept(self) -> Result<Kept, String> {
        let StoredKept { created_at, policy_revision, options, format, flattening } = self;
        let flattening = StoredFlattening::read(flattening);
        Ok(Kept { spec: thaw(options, format)?, policy_revision, created_at, flattening })
    }
}
