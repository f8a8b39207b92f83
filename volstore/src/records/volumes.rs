//! The record of a volume.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use volcore::format::FormatCommand;
use volcore::name::VolumeId;
use volcore::options::OptionSet;
use volcore::spec::VolumeSpec;
use volcore::volume::{Disposal, ImageLimits, Volume, VolumeState};

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
        /// Since when the limits of the image are pending, where they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits_pending: Option<Timestamp>,
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
            VolumeState::Ready { image_id, limits } => {
                let limits_pending = match limits {
                    ImageLimits::Set => None,
                    ImageLimits::Pending { since } => Some(since),
                };
                StoredState::Ready { image_id, limits_pending }
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
                let limits = match limits_pending {
                    None => ImageLimits::Set,
                    Some(since) => ImageLimits::Pending { since },
                };
                VolumeState::Ready { image_id, limits }
            }
            StoredState::Removing { since, image_id, disposal } => {
                VolumeState::Removing { since, image_id, disposal: disposal.into() }
            }
        }
    }
}

impl From<&Volume> for StoredVolume {
    fn from(volume: &Volume) -> Self {
        let Volume { id: _, uid, spec, policy_revision, created_at, state, last_error } = volume;
        StoredVolume {
            v: V1,
            uid: *uid,
            state: state.into(),
            created_at: *created_at,
            policy_revision: *policy_revision,
            options: spec.to_options(),
            format: spec.format.clone(),
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
            last_error,
        } = self;
        let (Some(pool), Some(filesystem)) = (options.pool.clone(), options.filesystem.clone())
        else {
            return Err("its options name no pool or no file system".to_owned());
        };
        let spec = VolumeSpec::thaw(options, pool, filesystem, format)
            .map_err(|error| error.to_string())?;
        Ok(Volume { id, uid, spec, policy_revision, created_at, state: state.into(), last_error })
    }
}
