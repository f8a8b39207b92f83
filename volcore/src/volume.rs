//! A volume's life: `creating → ready → removing`, and what may be done in each state.
//!
//! Intent comes first: `creating` is stored before an image is made, `removing` before
//! one is touched, so that whoever finds the record after a crash knows what to finish.

use jiff::Timestamp;
use uuid::Uuid;

use crate::claim::Claim;
use crate::kind::Kind;
use crate::live::{LiveChange, LiveRefusal};
use crate::name::{PoolName, SnapshotName, VolumeId};
use crate::options::{OnRemove, OptionSet};
use crate::spec::{Difference, VolumeSpec};

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

fn show(differences: &[Difference]) -> String {
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
}

impl RollbackRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            RollbackRefusal::InUse { .. } => Kind::InUse,
            RollbackRefusal::NotReady { .. } => Kind::Busy,
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
}

impl RemoveRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            RemoveRefusal::InUse { .. } => Kind::InUse,
            RemoveRefusal::RollingBack { .. } => Kind::Busy,
        }
    }
}

/// A claimed volume is never removed; one that is being removed already goes on. An image that is being adopted is
/// given back, whatever was asked: until it is this volume's, its data is not this volume's to delete.
pub fn volume_remove(
    volume: &Volume,
    claim: Option<&Claim>,
    disposal: Disposal,
    now: Timestamp,
) -> Result<RemoveDecision, RemoveRefusal> {
    if let Some(claim) = claim {
        return Err(RemoveRefusal::InUse { claim: claim.clone() });
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
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
