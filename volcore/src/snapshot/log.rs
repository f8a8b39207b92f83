//! What came of a volume's schedule: the last slot that was taken, and the rule that none is taken twice.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Slot, Slots};
use crate::kind::Kind;
use crate::name::{SnapshotName, VolumeId};
use crate::volume::{Volume, VolumeState};

/// So far may two clocks be apart that are both right: a slot that begins within this time has begun.
const APART: i128 = 1_000_000_000;

/// What came of a volume's schedule so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotLog {
    /// The volume's uid: what is known of a former one of its name says nothing.
    pub uid: Uuid,
    /// The last slot that was taken.
    pub last: Option<Slot>,
    /// How many were taken.
    pub taken: u64,
    /// How many went by without one.
    pub missed: u64,
    /// How many attempts failed.
    pub failed: u64,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<SnapshotFailure>,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFailure {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// What taking a snapshot for a slot has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeDecision {
    /// Take it.
    Take,
    /// It was taken for this slot already.
    Taken,
}

/// Why no snapshot is taken for a slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeRefusal {
    /// The volume is being made, rolled back or removed.
    #[error("volume {volume} is {state}; snapshots are taken of a volume that is ready")]
    NotReady {
        /// Which.
        volume: VolumeId,
        /// Its state.
        state: &'static str,
    },
    /// The name is one that only the schedule gives.
    #[error(
        "snapshot name {snapshot} is none that volume {volume} is due for: names that begin with auto- are kept for \
         snapshots on schedule"
    )]
    NoSlot {
        /// Which.
        volume: VolumeId,
        /// The name.
        snapshot: SnapshotName,
    },
    /// It is not time yet.
    #[error(
        "volume {volume} is due for snapshot {snapshot} only at its time: by this clock it is {now:.0}"
    )]
    Ahead {
        /// Which.
        volume: VolumeId,
        /// The name.
        snapshot: SnapshotName,
        /// The time.
        now: Timestamp,
    },
    /// A later one was taken.
    #[error("volume {volume} has been snapshotted for {} already, which is after {snapshot}", last.name())]
    Late {
        /// Which.
        volume: VolumeId,
        /// The name.
        snapshot: SnapshotName,
        /// The slot that was taken last.
        last: Slot,
    },
}

impl TakeRefusal {
    /// The kind of this refusal.
    pub fn kind(&self) -> Kind {
        match self {
            TakeRefusal::NotReady { .. } => Kind::Busy,
            TakeRefusal::NoSlot { .. } => Kind::Invalid,
            TakeRefusal::Ahead { .. } | TakeRefusal::Late { .. } => Kind::Conflict,
        }
    }
}

/// Whether a snapshot of this name may be taken of a volume on schedule, by whoever asks: it has to be one of its slots,
/// which has begun and is after all that were taken. So several who ask at once, too late, again, or with a clock that
/// is wrong, come to one snapshot for each slot.
pub fn snapshot_take(
    volume: &Volume,
    log: Option<&SnapshotLog>,
    snapshot: &SnapshotName,
    now: Timestamp,
) -> Result<TakeDecision, TakeRefusal> {
    let id = || volume.id.clone();
    if !matches!(volume.state, VolumeState::Ready { .. }) {
        return Err(TakeRefusal::NotReady { volume: id(), state: volume.state.as_str() });
    }
    let no_slot = || TakeRefusal::NoSlot { volume: id(), snapshot: snapshot.clone() };
    let slots = Slots::of(volume).ok_or_else(no_slot)?;
    let slot = snapshot.slot().ok_or_else(no_slot)?;
    if slots.latest(slot.at()) != Some(slot) {
        return Err(no_slot());
    }
    if slot.at().as_nanosecond() > now.as_nanosecond() + APART {
        return Err(TakeRefusal::Ahead { volume: id(), snapshot: snapshot.clone(), now });
    }
    match SnapshotLog::last_of(log, volume, now) {
        Some(last) if last == slot => Ok(TakeDecision::Taken),
        Some(last) if last > slot => {
            Err(TakeRefusal::Late { volume: id(), snapshot: snapshot.clone(), last })
        }
        Some(_) | None => Ok(TakeDecision::Take),
    }
}

impl SnapshotLog {
    /// Of a volume for which nothing was tried yet.
    pub fn new(uid: Uuid) -> SnapshotLog {
        SnapshotLog { uid, last: None, taken: 0, missed: 0, failed: 0, last_error: None }
    }

    /// The log of this volume, out of what is stored under its name.
    pub fn of(log: Option<&SnapshotLog>, volume: &Volume) -> SnapshotLog {
        let own = log.filter(|log| log.uid == volume.uid).cloned();
        own.unwrap_or_else(|| SnapshotLog::new(volume.uid))
    }

    /// The slot of a volume that was taken last, but for one that no clock which was right has made.
    pub fn last_of(log: Option<&SnapshotLog>, volume: &Volume, now: Timestamp) -> Option<Slot> {
        let own = log.filter(|log| log.uid == volume.uid)?;
        own.last.filter(|last| !last.is_absurd(now))
    }

    /// This log after a snapshot was taken for a slot; `None` where it says so already, or of a later one.
    pub fn after(&self, volume: &Volume, slot: Slot, now: Timestamp) -> Option<SnapshotLog> {
        let last = self.last.filter(|last| !last.is_absurd(now));
        if last.is_some_and(|last| last >= slot) {
            return None;
        }
        let between = |last| Slots::of(volume).map_or(0, |slots| slots.between(last, slot));
        Some(SnapshotLog {
            uid: self.uid,
            last: Some(slot),
            taken: self.taken + 1,
            missed: self.missed + last.map_or(0, between),
            failed: self.failed,
            last_error: None,
        })
    }

    /// This log after an attempt that failed.
    pub fn after_failure(&self, failure: SnapshotFailure) -> SnapshotLog {
        SnapshotLog { failed: self.failed + 1, last_error: Some(failure), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OptionSet;
    use crate::volume::tests::ready;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn every_minute() -> Volume {
        let volume = ready();
        let options = [("snapshots", "1"), ("snapshots.frequency", "1m"), ("snapshots.keep", "3")];
        let options =
            options.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
        let schedule = OptionSet::from_driver_options(&options).unwrap().schedule().unwrap();
        Volume { spec: crate::spec::VolumeSpec { schedule, ..volume.spec }, ..volume }
    }

    fn name(text: &str) -> SnapshotName {
        text.parse().unwrap()
    }

    #[test]
    fn one_snapshot_for_each_slot_whoever_asks_and_when() {
        let (volume, now) = (every_minute(), at("2026-11-21T10:05:30Z"));
        let take =
            |log: &SnapshotLog, text: &str| snapshot_take(&volume, Some(log), &name(text), now);
        let none = SnapshotLog::new(volume.uid);
        let due = "auto-2026-11-21T100500Z";
        assert_eq!(take(&none, due), Ok(TakeDecision::Take));
        let slot = name(due).slot().unwrap();
        let first = none.after(&volume, slot, now).unwrap();
        assert_eq!((first.taken, first.missed, first.last), (1, 0, Some(slot)));
        assert_eq!(take(&first, due), Ok(TakeDecision::Taken));
        assert_eq!(first.after(&volume, slot, now), None);
        let refused = |text: &str| take(&first, text).unwrap_err().to_string();
        assert_eq!(
            refused("auto-2026-11-21T100400Z"),
            "volume t/v has been snapshotted for auto-2026-11-21T100500Z already, which is after auto-2026-11-21T100400Z"
        );
        // A clock that is an hour ahead, and a name that is no slot.
        assert!(
            refused("auto-2026-11-21T110500Z").contains("by this clock it is 2026-11-21T10:05:30Z")
        );
        assert!(refused("auto-2026-11-21T100501Z").contains("none that volume t/v is due for"));
        assert!(refused("auto-x").contains("kept for snapshots on schedule"));
        // Of a former volume of the name nothing follows, nor from a slot that is years ahead.
        let former = SnapshotLog { uid: Uuid::from_u128(9), ..first.clone() };
        assert_eq!(take(&former, due), Ok(TakeDecision::Take));
        assert_eq!(SnapshotLog::of(Some(&former), &volume), none);
        let absurd = name("auto-2036-11-21T100500Z").slot();
        assert_eq!(take(&SnapshotLog { last: absurd, ..first }, due), Ok(TakeDecision::Take));
    }

    #[test]
    fn what_went_by_is_counted() {
        let (volume, now) = (every_minute(), at("2026-11-21T10:05:30Z"));
        let slot = |text: &str| name(text).slot().unwrap();
        let log = SnapshotLog::new(volume.uid);
        let log = log.after(&volume, slot("auto-2026-11-21T100100Z"), now).unwrap();
        let failure = SnapshotFailure { at: now, reason: "no".to_owned() };
        let log = log.after_failure(failure.clone());
        assert_eq!((log.failed, log.last_error.as_ref()), (1, Some(&failure)));
        let log = log.after(&volume, slot("auto-2026-11-21T100500Z"), now).unwrap();
        assert_eq!((log.taken, log.missed, log.failed, log.last_error), (2, 3, 1, None));
    }

    #[test]
    fn only_a_ready_volume_with_a_schedule_is_snapshotted_on_schedule() {
        let now = at("2026-11-21T10:05:30Z");
        let due = name("auto-2026-11-21T100500Z");
        let without = snapshot_take(&ready(), None, &due, now).unwrap_err();
        assert_eq!(without.kind(), Kind::Invalid);
        let state = VolumeState::Creating { since: now };
        let creating = Volume { state, ..every_minute() };
        let error = snapshot_take(&creating, None, &due, now).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
    }
}
