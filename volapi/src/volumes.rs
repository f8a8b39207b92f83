//! Volumes on the wire.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use volcore::name::{TenantName, VolumeId, VolumeName};
use volcore::options::{OptionSet, Origin};
use volcore::volume::{self, VolumeState};

use crate::mounts::Mount;
use crate::snapshots::Schedule;

/// The body of a create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// Whose it will be.
    #[schema(value_type = String, example = "tenant1")]
    pub tenant: TenantName,
    /// Its name.
    #[schema(value_type = String, example = "db")]
    pub name: VolumeName,
    /// Driver options, as text.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// The body of an adoption.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptVolume {
    /// Driver options, as text. The size is the image's own.
    #[serde(default)]
    #[schema(example = json!({"pool": "rbd"}))]
    pub options: BTreeMap<String, String>,
}

/// The body of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetVolume {
    /// The live driver options to be changed, as text; a size only grows, a limit of 0 is none. The others stay as they are.
    #[schema(example = json!({"rate-limit.write.bps": "2MB"}))]
    pub options: BTreeMap<String, String>,
}

/// Where a volume is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The image is being made.
    Creating,
    /// It may be used.
    Ready,
    /// Its data is going back to what it was at a snapshot.
    RollingBack,
    /// The image is being taken out of the trash.
    Restoring,
    /// An image that was there before is being made its own.
    Adopting,
    /// Nothing comes of an adoption: the image is being made what it was.
    GivingBack,
    /// The image is being removed.
    Removing,
}

impl State {
    /// The state as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Creating => "creating",
            State::Ready => "ready",
            State::RollingBack => "rolling-back",
            State::Restoring => "restoring",
            State::Adopting => "adopting",
            State::GivingBack => "giving-back",
            State::Removing => "removing",
        }
    }
}

impl From<&VolumeState> for State {
    fn from(state: &VolumeState) -> State {
        match state {
            VolumeState::Creating { .. } => State::Creating,
            VolumeState::Ready { .. } => State::Ready,
            VolumeState::RollingBack { .. } => State::RollingBack,
            VolumeState::Restoring { .. } => State::Restoring,
            VolumeState::Adopting { .. } => State::Adopting,
            VolumeState::GivingBack { .. } => State::GivingBack,
            VolumeState::Removing { .. } => State::Removing,
        }
    }
}

/// The image behind a volume, and where hosts find it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum Image {
    /// In a Ceph pool.
    Rbd {
        /// The pool.
        pool: String,
        /// Its name in the pool.
        image: String,
    },
    /// In a file.
    File {
        /// The file.
        #[schema(value_type = String)]
        path: PathBuf,
    },
}

/// A flattening that is not done yet: data that a clone shares with what it was cloned from is copied into its own image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flattening {
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Whether somebody is at it.
    pub under_way: bool,
    /// How much is done, by the volmaster that does it; absent where another answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub percent: Option<u8>,
    /// Why the last attempt came to nothing; it is made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Flattening {
    fn shown(flattening: volume::Flattening) -> Option<Self> {
        match flattening {
            volume::Flattening::NotAsked | volume::Flattening::Done => None,
            volume::Flattening::Pending { since, reason } => {
                Some(Flattening { since, under_way: false, percent: None, reason })
            }
            volume::Flattening::UnderWay { since } => {
                Some(Flattening { since, under_way: true, percent: None, reason: None })
            }
        }
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// Whose it is.
    #[schema(value_type = String, example = "tenant1")]
    pub tenant: TenantName,
    /// Its name.
    #[schema(value_type = String, example = "db")]
    pub name: VolumeName,
    /// Tells it from an earlier one of the same name.
    #[schema(value_type = String)]
    pub uid: Uuid,
    /// Where it is in its life.
    pub state: State,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Which upload of the tenant's policy it was made from.
    pub policy_revision: u64,
    /// The image.
    pub image: Image,
    /// All options, as merged at creation and changed since; the members are those of a policy's `default-options`.
    #[schema(value_type = Object)]
    pub options: OptionSet,
    /// What it was cloned from and still shares data with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, example = "tenant1/db@before")]
    pub parent: Option<Origin>,
    /// Its flattening, where that was asked for and is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flattening: Option<Flattening>,
    /// The command that made the file system.
    pub format: String,
    /// Who holds it, if anybody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<Mount>,
    /// Its schedule and what came of it, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Why the last step on it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Volume {
    /// A volume, with the image's place, the claim that stands, and what came of its schedule.
    pub fn new(
        volume: volcore::volume::Volume,
        image: Image,
        mount: Option<Mount>,
        schedule: Option<Schedule>,
    ) -> Self {
        let parent = match image {
            Image::Rbd { .. } => volume.parent().cloned(),
            // A clone of a file is a copy.
            Image::File { .. } => None,
        };
        let volcore::volume::Volume {
            id,
            uid,
            spec,
            policy_revision,
            created_at,
            state,
            flattening,
            last_error,
        } = volume;
        Volume {
            tenant: id.tenant,
            name: id.volume,
            uid,
            state: State::from(&state),
            created_at,
            policy_revision,
            image,
            options: spec.to_options(),
            parent,
            flattening: Flattening::shown(flattening),
            format: spec.format.as_str().to_owned(),
            mount,
            schedule,
            last_error,
        }
    }

    /// `tenant/volume`.
    pub fn id(&self) -> VolumeId {
        VolumeId::new(self.tenant.clone(), self.name.clone())
    }
}

/// A volume in a brief list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeBrief {
    /// `tenant/volume`.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// Where it is in its life.
    pub state: State,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<&volcore::volume::Volume> for VolumeBrief {
    fn from(volume: &volcore::volume::Volume) -> Self {
        VolumeBrief {
            volume: volume.id.clone(),
            state: State::from(&volume.state),
            created_at: volume.created_at,
        }
    }
}

/// The query of a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RemoveQuery {
    /// Forget the volume and leave its image where it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metadata_only: bool,
    /// What becomes of the data; as the volume's `on-remove` says, or `delete` where that is `keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disposal: Option<DisposalQuery>,
}

/// What becomes of the data of a removed volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DisposalQuery {
    /// Its space is freed.
    Delete,
    /// The image is moved to the trash.
    Trash,
}

/// The answer to a removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// Which volume.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// What is left behind, if anything: the image (`metadata-only`), or its place in the trash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_behind: Option<String>,
}

#[cfg(test)]
mod tests {
    use volcore::policy::TenantPolicy;
    use volcore::spec::VolumeSpec;
    use volcore::volume::{Flattening, ImageFit, Volume as Stored};

    use super::*;

    fn clone(flattening: Flattening) -> Stored {
        let policy: TenantPolicy =
            serde_json::from_str(r#"{"default-options": {"size": "10MB"}}"#).unwrap();
        let options = [("from".to_owned(), "t/v@before".to_owned())].into();
        let asked = OptionSet::from_driver_options(&options).unwrap();
        Stored {
            id: "t/c".parse().unwrap(),
            uid: Uuid::nil(),
            spec: VolumeSpec::freeze(&policy, asked, &"rbd".parse().unwrap()).unwrap(),
            policy_revision: 1,
            created_at: Timestamp::UNIX_EPOCH,
            state: VolumeState::Ready { image_id: "1".to_owned(), fit: ImageFit::Fits },
            flattening,
            last_error: None,
        }
    }

    fn shown(flattening: Flattening, image: Image) -> (Option<String>, Option<String>) {
        let shown = Volume::new(clone(flattening), image, None, None);
        let flattening = shown.flattening.map(|shown| serde_json::to_string(&shown).unwrap());
        (shown.parent.map(|parent| parent.to_string()), flattening)
    }

    #[test]
    fn a_clone_has_a_parent_until_it_is_flat() {
        let rbd = || Image::Rbd { pool: "rbd".to_owned(), image: "t.c".to_owned() };
        let parent = Some("t/v@before".to_owned());
        let since = Timestamp::UNIX_EPOCH;
        assert_eq!(shown(Flattening::NotAsked, rbd()), (parent.clone(), None));
        let waits = Flattening::Pending { since, reason: Some("held".to_owned()) };
        let told = r#"{"since":"1970-01-01T00:00:00Z","under_way":false,"reason":"held"}"#;
        assert_eq!(shown(waits, rbd()), (parent.clone(), Some(told.to_owned())));
        let told = r#"{"since":"1970-01-01T00:00:00Z","under_way":true}"#;
        assert_eq!(shown(Flattening::UnderWay { since }, rbd()), (parent, Some(told.to_owned())));
        assert_eq!(shown(Flattening::Done, rbd()), (None, None));
        // A clone of a file is a copy.
        let file = Image::File { path: "/images/t.c".into() };
        assert_eq!(shown(Flattening::NotAsked, file), (None, None));
    }
}
