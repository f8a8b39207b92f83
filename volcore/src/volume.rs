//! A volume's life: `creating → ready → removing`, and what may be done in each state; one file for each operation.
//!
//! Intent comes first: `creating` is stored before an image is made, `removing` before
//! one is touched, so that whoever finds the record after a crash knows what to finish.

mod adopt;
mod create;
mod flatten;
mod remove;
mod rollback;
mod set;

use jiff::Timestamp;
use uuid::Uuid;

use crate::name::{PoolName, SnapshotName, VolumeId};
use crate::spec::VolumeSpec;

pub use adopt::{AdoptDecision, AdoptRefusal, volume_adopt};
pub use create::{CreateDecision, CreateRefusal, volume_create};
pub use flatten::{FlattenDecision, FlattenRefusal, Flattening, volume_flatten};
pub use remove::{RemoveDecision, RemoveRefusal, docker_remove, volume_remove};
pub use rollback::{RollbackDecision, RollbackRefusal, volume_rollback};
pub use set::{SetDecision, SetRefusal, volume_set};

/// A volume as the suite knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub id: VolumeId,
    /// Tells this volume from an earlier one with the same name.
    pub uid: Uuid,
    /// What it is made of, frozen at creation but for what is [live](crate::live).
    pub spec: VolumeSpec,
    /// Which upload of the tenant's policy it was made from.
    pub policy_revision: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Where it is in its life.
    pub state: VolumeState,
    /// Whether its image is to have all of its data itself.
    pub flattening: Flattening,
    /// Why the last step on it failed, if it did.
    pub last_error: Option<String>,
}

/// Where a volume is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// The image is being made. Nothing may use it; a create waits for it; a remove undoes it.
    Creating {
        /// When the work was (last) taken up. Whoever finds it old enough takes it up again.
        since: Timestamp,
    },
    /// The image is complete under its final name. It may be claimed, read, changed and removed.
    Ready {
        /// The image's own id in its pool, which a later image of the same name does not share.
        image_id: String,
        /// Whether the image's own size and limits are those of the spec.
        fit: ImageFit,
    },
    /// The image is being given the data that it had at a snapshot, and may be a mixture until that is done.
    /// Nothing may claim, change or remove it.
    RollingBack {
        /// When it was asked for.
        since: Timestamp,
        /// The image's own id.
        image_id: String,
        /// The snapshot that it goes back to.
        snapshot: SnapshotName,
    },
    /// The image is being taken out of the trash. Nothing may claim it; a remove puts it back.
    Restoring {
        /// When it was asked for.
        since: Timestamp,
        /// The image's own id, under which the trash knows it.
        image_id: String,
        /// The name that it had when it was thrown away.
        was: String,
    },
    /// An image that was there before is being made this volume's. Nothing may claim it; a remove gives it back.
    Adopting {
        /// When it was asked for.
        since: Timestamp,
        /// The image's own id, as it was found.
        image_id: String,
        /// The volume that it was made for, which is no more; `None` where it carries none.
        former: Option<Uuid>,
    },
    /// Nothing comes of an adoption: the image is being made what it was before. Nothing may claim it; then the volume is
    /// no more.
    GivingBack {
        /// Since when.
        since: Timestamp,
        /// The image's own id, as it was found.
        image_id: String,
        /// The volume that it was made for, which is no more; `None` where it carried none.
        former: Option<Uuid>,
    },
    /// The image is being removed. Nothing may claim it; a remove waits for it; a create is told to wait.
    Removing {
        /// When the removal was asked for.
        since: Timestamp,
        /// The image's own id; `None` where the volume never became ready.
        image_id: Option<String>,
        /// What becomes of the data.
        disposal: Disposal,
    },
}

/// Whether an image has the size and the limits of its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFit {
    /// It has.
    Fits,
    /// They were changed in the spec, and whoever did it may not have come to the image, or may be writing on it
    /// still: they are to be set once more when nobody can.
    Pending {
        /// When they were changed last.
        since: Timestamp,
    },
}

impl VolumeState {
    /// The state's name on the wire.
    pub fn as_str(&self) -> &'static str {
        match self {
            VolumeState::Creating { .. } => "creating",
            VolumeState::Ready { .. } => "ready",
            VolumeState::RollingBack { .. } => "rolling-back",
            VolumeState::Restoring { .. } => "restoring",
            VolumeState::Adopting { .. } => "adopting",
            VolumeState::GivingBack { .. } => "giving-back",
            VolumeState::Removing { .. } => "removing",
        }
    }
}

/// What a removal does with the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// Frees the space.
    Delete,
    /// Keeps the image in the trash.
    Trash,
}

impl Volume {
    /// The pool and name of the image.
    pub fn image(&self) -> ImageName {
        ImageName { pool: self.spec.pool.clone(), name: self.id.image_name() }
    }
}

/// An image: a pool and a name in it, shown as `pool/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    /// The pool.
    pub pool: PoolName,
    /// The name in it.
    pub name: String,
}

impl std::fmt::Display for ImageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pool, self.name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kind::Kind;
    use crate::live::LiveChange;
    use crate::options::OptionSet;
    use crate::policy::TenantPolicy;

    pub(crate) fn volume(state: VolumeState) -> Volume {
        let policy: TenantPolicy =
            serde_json::from_str(r#"{"default-options": {"size": "10MB"}}"#).unwrap();
        let pool = "rbd".parse().unwrap();
        Volume {
            id: "t/v".parse().unwrap(),
            uid: Uuid::nil(),
            spec: VolumeSpec::freeze(&policy, OptionSet::default(), &pool).unwrap(),
            policy_revision: 1,
            created_at: Timestamp::UNIX_EPOCH,
            state,
            flattening: Flattening::default(),
            last_error: None,
        }
    }

    pub(crate) fn ready() -> Volume {
        volume(VolumeState::Ready { image_id: "1".into(), fit: ImageFit::Fits })
    }

    fn size(text: &str) -> OptionSet {
        OptionSet { size: Some(text.parse().unwrap()), ..OptionSet::default() }
    }

    #[test]
    fn creating_again_is_success_unless_it_differs() {
        let none = OptionSet::default();
        assert_eq!(volume_create(None, &none), Ok(CreateDecision::New));
        assert_eq!(volume_create(Some(&ready()), &none), Ok(CreateDecision::Unchanged));
        assert_eq!(volume_create(Some(&ready()), &size("10MB")), Ok(CreateDecision::Unchanged));
        let error = volume_create(Some(&ready()), &size("1GB")).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.to_string().contains("size is 10 MiB, asked for 1 GiB"), "{error}");
        let creating = volume(VolumeState::Creating { since: Timestamp::UNIX_EPOCH });
        assert_eq!(volume_create(Some(&creating), &none), Ok(CreateDecision::Await));
    }

    fn live(key: &str, value: &str) -> LiveChange {
        LiveChange::from_driver_options(&[(key.to_owned(), value.to_owned())].into()).unwrap()
    }

    #[test]
    fn a_change_of_limits_is_pending_until_the_image_has_it() {
        let now = Timestamp::from_second(60).unwrap();
        let limit = live("rate-limit.write.bps", "2MB");
        let changed = match volume_set(&ready(), &limit, now).unwrap() {
            SetDecision::Changed(changed) => changed,
            SetDecision::Unchanged => panic!("it has no limit"),
        };
        let fit = ImageFit::Pending { since: now };
        assert_eq!(changed.state, VolumeState::Ready { image_id: "1".into(), fit });
        assert_eq!(volume_set(&changed, &limit, now), Ok(SetDecision::Unchanged));
        let none = live("rate-limit.read.bps", "0");
        assert_eq!(volume_set(&ready(), &none, now), Ok(SetDecision::Unchanged));
        // What is no limit leaves what is pending as it is.
        let hourly = ["snapshots=1", "snapshots.frequency=1h", "snapshots.keep=2"];
        let hourly = hourly.iter().filter_map(|pair| pair.split_once('='));
        let hourly = hourly.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let hourly = LiveChange::from_driver_options(&hourly).unwrap();
        let later = Timestamp::from_second(90).unwrap();
        let Ok(SetDecision::Changed(both)) = volume_set(&changed, &hourly, later) else { panic!() };
        assert_eq!((both.state, both.spec.schedule.is_some()), (changed.state, true));
    }

    #[test]
    fn only_a_ready_volume_is_changed() {
        let now = Timestamp::UNIX_EPOCH;
        let limit = live("rate-limit.write.bps", "2MB");
        let creating = volume(VolumeState::Creating { since: now });
        let error = volume_set(&creating, &limit, now).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        assert_eq!(
            error.to_string(),
            "volume t/v is creating; only a volume that is ready can be changed"
        );
        let error = volume_set(&ready(), &live("snapshots", "true"), now).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }

    #[test]
    fn a_rollback_stores_its_intent_once_and_nothing_happens_meanwhile() {
        let (now, snapshot) = (Timestamp::UNIX_EPOCH, "before".parse().unwrap());
        let begin = volume_rollback(&ready(), None, &snapshot, now).unwrap();
        let RollbackDecision::Begin(state) = begin else { panic!("{begin:?}") };
        let rolling = volume(state);
        let again = volume_rollback(&rolling, None, &snapshot, now);
        assert_eq!(again, Ok(RollbackDecision::Continue));
        let other = volume_rollback(&rolling, None, &"other".parse().unwrap(), now).unwrap();
        let goes_there = |state: &VolumeState| matches!(state, VolumeState::RollingBack { snapshot, .. } if snapshot.as_str() == "other");
        assert!(matches!(&other, RollbackDecision::Begin(state) if goes_there(state)), "{other:?}");
        let removing =
            VolumeState::Removing { since: now, image_id: None, disposal: Disposal::Delete };
        let error = volume_rollback(&volume(removing), None, &snapshot, now).unwrap_err();
        assert_eq!(
            error.to_string(),
            "volume t/v is removing; only a volume that is ready can be rolled back"
        );
        let remove = volume_remove(&rolling, None, Disposal::Delete, now).unwrap_err();
        assert_eq!(remove.kind(), Kind::Busy);
        let set = volume_set(&rolling, &live("rate-limit.write.bps", "2MB"), now).unwrap_err();
        assert_eq!(set.kind(), Kind::Busy);
    }

    #[test]
    fn an_adoption_is_gone_on_with_and_given_back() {
        let (now, former) = (Timestamp::UNIX_EPOCH, Some(Uuid::from_u128(7)));
        let none = OptionSet::default();
        assert_eq!(volume_adopt(None, &none), Ok(AdoptDecision::New));
        assert_eq!(volume_adopt(Some(&ready()), &size("10MB")), Ok(AdoptDecision::Unchanged));
        let error = volume_adopt(Some(&ready()), &size("1GB")).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        let image_id = "1".to_owned();
        let adopting = volume(VolumeState::Adopting { since: now, image_id, former });
        assert_eq!(volume_adopt(Some(&adopting), &none), Ok(AdoptDecision::Continue));
        assert_eq!(volume_create(Some(&adopting), &none), Ok(CreateDecision::Await));
        let remove = volume_remove(&adopting, None, Disposal::Delete, now).unwrap();
        let RemoveDecision::Begin(state) = remove else { panic!("{remove:?}") };
        assert_eq!(state, VolumeState::GivingBack { since: now, image_id: "1".into(), former });
        let back = volume(state);
        let again = volume_remove(&back, None, Disposal::Trash, now);
        assert_eq!(again, Ok(RemoveDecision::Continue));
        assert_eq!(volume_adopt(Some(&back), &none).unwrap_err().kind(), Kind::Busy);
        assert_eq!(volume_create(Some(&back), &none).unwrap_err().kind(), Kind::Busy);
    }

    #[test]
    fn a_remove_stores_its_intent_once() {
        let now = Timestamp::UNIX_EPOCH;
        let begin = volume_remove(&ready(), None, Disposal::Delete, now).unwrap();
        let RemoveDecision::Begin(state) = begin else { panic!("{begin:?}") };
        let removing = volume(state);
        let again = volume_remove(&removing, None, Disposal::Delete, now);
        assert_eq!(again, Ok(RemoveDecision::Continue));
        let create = volume_create(Some(&removing), &OptionSet::default()).unwrap_err();
        assert_eq!(create.kind(), Kind::Busy);
    }
}
